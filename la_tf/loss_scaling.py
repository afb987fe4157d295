"""Loss scaling for float16, whose smallest numbers are larger than many gradients."""

import keras


@keras.saving.register_keras_serializable(package="la_tf")
class LossScaling(keras.optimizers.LossScaleOptimizer):
    """Keras' LossScaleOptimizer, except that a step it skips, for gradients that overflowed, counts as well.

    `iterations` is a run's place in its data, its schedules and its random numbers; Keras' stands still there.
    """

    def apply(self, grads, trainable_variables=None):
        """Takes or skips a step, adapts the scale, and counts."""
        taken = self.iterations + 1
        super().apply(grads, trainable_variables)
        self.iterations.assign(taken)
