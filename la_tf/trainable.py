"""What `la_tf.estimator` drives: a keras.Model with a `train_step` of its own, and what it may do between steps."""

import keras
import tensorflow as tf

from la_tf.first_failure import FirstFailure
from la_tf.replicas import Replicas


def decayed_kernels(model):
    """Returns the convolution and dense kernels of `model`: the weights that decay, after the authors' code."""
    return [weight for weight in model.trainable_weights if weight.name == "kernel"]


def weight_decay_loss(kernels, weight_decay):
    """Returns (lambda/2) sum ||w||², whose gradient is lambda·w (equation 4 has no one half: WORKSPACE.md)."""
    return weight_decay * tf.add_n([tf.nn.l2_loss(tf.convert_to_tensor(kernel)) for kernel in kernels])


def mean_over(losses, counted, replicas=None):
    """Returns the mean of `losses` `[B]` over the pictures that are `counted` `[B]` bool, 0 where none is.

    With `replicas`, the part that this one adds to the mean over the whole batch.
    """
    count = tf.reduce_sum(tf.cast(counted, losses.dtype))
    if replicas is not None:
        count = replicas.sum(count)
    return tf.reduce_sum(tf.where(counted, losses, tf.zeros_like(losses))) / tf.maximum(count, 1)


def known(batch):
    """Returns which pictures of a batch are valid and have a label, `[B]` bool."""
    return batch["valid"] & (batch["label"] >= 0)


class Trainable(keras.Model):
    """A model that takes its own steps: a subclass adds `train_step(batch)`, and what else it does its own way.

    `loss_mean` is its running loss, and `first_failure` is told of every step's; all that has to survive a kill is a
    weight, or a function of (seed, step). replicas, a `Replicas`, where they are not those of the scope.
    """

    warm_starts = False  # whether --warm_start can go on from a run of it

    pictures = None  # the `PictureRows` of weights with a row for each picture, where it has some

    def __init__(self, name=None, replicas=None):
        super().__init__(name=name)
        self.loss_mean = keras.metrics.Mean(name="loss")
        self.first_failure = FirstFailure(replicas or Replicas())

    def build(self, input_shape=None):
        """Does nothing: all variables are made on construction."""
        self.built = True

    # -- between steps and epochs, in Python --------------------------------------------------------------------------

    def begin_epoch(self, epoch):
        """Prepares an epoch; returns what it found out as a dict of metrics."""
        return {}

    def begin_step(self, step):
        """Prepares a step; returns what it found out as a dict of metrics."""
        return {}

    def settle(self):
        """Finishes what is under way beside the training, for a checkpoint to hold it.

        Returns what else a checkpoint must hold besides the variables, as a dict that JSON can take.
        """
        return {}

    def resume(self, settled):
        """Goes on from a checkpoint, whose variables are in place, and what `settle` had returned for it."""

    def variant(self, step):
        """Returns what `train_step` at `step` follows besides its batch, hashable: a graph is made for each."""
        return None

    def epoch_rows(self, epoch):
        """Returns the rows that an epoch trains on, `[n]` in their order; None for every row once, shuffled."""
        return None

    def end_epoch(self):
        """Returns what can be said of the model at the end of an epoch as a dict of metrics."""
        return {}

    def warning(self, metrics):
        """Returns what is wrong with a run that has come to these `metrics`, and what to do, in a line; else None."""
        return None

    # -- what is told --------------------------------------------------------------------------------------------------

    @property
    def metrics(self):
        """The running metrics: `loss` is the model's own, without weight decay."""
        return [self.loss_mean]

    def epoch_metrics(self):
        """Returns the metrics of the epoch so far as plain numbers."""
        return {metric.name: float(metric.result()) for metric in self.metrics}

    @property
    def finite(self):
        """Whether what is learned consists of numbers: a gradient that does not leaves a loss that does for a step."""
        weights = [tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(each))) for each in self.trainable_weights]
        return bool(tf.reduce_all(weights).numpy())

    def compile(self, optimizer, jit_compile=False, **kwargs):
        """As `keras.Model.compile`; XLA only when asked for (Keras would switch it on for a single GPU)."""
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
