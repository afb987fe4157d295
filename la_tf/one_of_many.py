"""One replica of many, by itself: what a plan measures on a machine that has no more."""

import keras
import tensorflow as tf

from la_tf.processes import ALONE


class OneOfMany:
    """The first of `count` (R) replicas, as `la_tf.replicas.Replicas`; the others are taken to tell what it tells.

    So a step does all that it would do on one of R devices, but for waiting for the others.
    """

    processes, here, first, index = ALONE, 1, 0, 0

    def __init__(self, count):
        self.count = count

    def sum(self, tensors):
        """Returns R times a tensor, or each in a list."""
        return tf.nest.map_structure(lambda tensor: self.count * tensor, tensors)

    def gather(self, tensor):
        """Returns the `[b, ...]` R times behind each other."""
        return tf.concat([tensor] * self.count, axis=0)

    def own(self, gathered):
        """Returns the first of R parts."""
        return gathered[: tf.shape(gathered)[0] // self.count]

    def copies(self, variable):
        """Returns the only copy there is of a variable, in a list."""
        return [variable.value if isinstance(variable, keras.Variable) else variable]
