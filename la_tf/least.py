"""The smallest value that was seen, as a running metric."""

import keras
import numpy as np
import tensorflow as tf

from la_tf.replicas import Replicas


class Least(keras.metrics.Metric):
    """The smallest value that any replica has seen since the last reset."""

    def __init__(self, name):
        super().__init__(name=name)
        start = keras.initializers.Constant(np.inf)
        self.least = self.add_variable(shape=(), initializer=start, aggregation="only_first_replica", name="least")
        self.replicas = Replicas()

    def update_state(self, values, valid):
        """Takes in those of `values` `[B]` that are `valid` `[B]` bool."""
        values = tf.where(valid, values, tf.constant(np.inf, values.dtype))
        least = tf.reduce_min(self.replicas.gather(tf.reduce_min(values)[None]))
        self.least.assign(tf.minimum(self.least.value, least))

    def result(self):
        """Returns the smallest value, inf when there was none."""
        return tf.convert_to_tensor(self.least)

    def reset_state(self):
        """Forgets what it saw."""
        self.least.assign(np.inf)
