"""LARS, layer-wise adaptive rate scaling (You, Gitman, Ginsburg 2017): gradient descent for large batches."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="la_tf")
class LARS(keras.optimizers.Optimizer):
    """Makes the step of every weight a fraction `trust` of the weight's own length.

    g' = (g + λ w) · trust ||w|| / (||g|| + λ ||w||) for each variable w (algorithm 1 there), g' = g where w or g is
    zero; v <- momentum · v + g';  w <- w - learning_rate · v. λ, `weight_decay`, is part of the rule: the loss needs
    none. As in SwAV's code all variables follow it, biases and norms too, and no rate is clipped. Other arguments are
    those of every Keras optimizer.
    """

    def __init__(self, learning_rate, momentum=0.9, weight_decay=1e-6, trust=0.001, name="lars", **kwargs):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.decay = weight_decay  # Keras takes `self.weight_decay` off the weights by a rule of its own
        self.trust = trust

    def build(self, variables):
        """Makes one velocity for each of `variables`."""
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient, variable, learning_rate):
        """Moves `variable` and its velocity by one step."""
        gradient = ops.cast(gradient, variable.dtype)
        velocity = self.velocities[self._get_variable_index(variable)]
        length, slope = _norm(variable), _norm(gradient)
        scale = ops.divide_no_nan(self.trust * length, slope + self.decay * length)
        moves = ops.logical_and(length > 0, slope > 0)  # a bias that starts at zero would never leave it
        scaled = ops.where(moves, scale * (gradient + self.decay * variable), gradient)
        # The rate outside of the momentum, as in PyTorch. Keras' SGD and You et al. have it inside, where a changed
        # rate takes effect on later gradients alone.
        self.assign(velocity, self.momentum * velocity + scaled)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * velocity)

    def get_config(self):
        """Returns what the constructor takes."""
        own = {"momentum": self.momentum, "weight_decay": self.decay, "trust": self.trust}
        return {**super().get_config(), **own}


def _norm(tensor):
    return ops.sqrt(ops.sum(ops.square(tensor)))
