"""Weights with one row for each of N training pictures: whole on every replica, or spread over the replicas (sharded).

Spread, replica r of R owns the rows from r·S to (r + 1)·S - 1, S = ceil(N / R), and holds no others: its copy of such a
weight is `[S, ...]`, and the copies that tf.distribute keeps for the replicas hold different rows.
"""

import keras
import numpy as np
import tensorflow as tf

from la_tf.processes import ALONE
from la_tf.replicas import Replicas

# For `add_weight`: what a run remembers but does not learn. Replicas are to come to the same values by themselves, so
# the first copy speaks for all.
STATE = {"trainable": False, "aggregation": "only_first_replica"}


class PictureRows:
    """How the rows of `size` (N) pictures lie on the replicas of this scope: `spread` over them, or all on each."""

    def __init__(self, size, spread=False, replicas=None):
        self.size = size
        self.replicas = replicas or Replicas()
        self.spread = spread and self.replicas.count > 1
        self.length = -(-size // self.replicas.count) if self.spread else size  # S: rows of a replica
        self.weights = []

    def add(self, layer, name, value, columns=(), dtype="float32"):
        """Returns a new weight `[S, *columns]` of a Keras `layer`, all of one `value`."""
        weight = layer.add_weight(
            name=name,
            shape=(self.length, *columns),
            initializer=keras.initializers.Constant(value),
            dtype=dtype,
            **STATE,
        )
        self.weights.append(weight)
        return weight

    # -- within a step ----------------------------------------------------------------------------------------------

    @property
    def first(self):
        """The first row of the replica whose graph is being made; an int32 scalar, or 0."""
        return self.replicas.index * self.length if self.spread else 0

    def places(self, indices):
        """Returns where in this replica's copy the rows of pictures `indices` are, int32; -1 where it has none."""
        places = tf.cast(indices, tf.int32) - self.first
        return tf.where((places >= 0) & (places < self.length), places, -1) if self.spread else places

    def real(self, places):
        """Returns which `places` of this replica's copy stand for a picture: the last one may have some to spare."""
        return places + self.first < self.size

    def of_all(self, weight, indices):
        """Returns the rows `[n, ...]`, numbers, of `weight` for the pictures `indices` `[n]`, whoever owns them."""
        places = self.places(indices)
        rows = rows_at(weight.value, tf.maximum(places, 0), weight.dtype)
        if not self.spread:
            return rows
        owned = tf.reshape(places >= 0, [-1] + [1] * (len(weight.shape) - 1))
        return self.replicas.sum(tf.where(owned, rows, tf.zeros_like(rows)))

    # -- between steps ------------------------------------------------------------------------------------------------

    @property
    def here(self):
        """The rows that this process has, as a range."""
        if not self.spread:
            return range(self.size)
        first = self.replicas.first * self.length
        end = first + self.replicas.here * self.length
        return range(min(first, self.size), min(end, self.size))

    @property
    def processes(self):
        """Those that have rows of their own: all of them where rows are spread, otherwise each speaks for itself."""
        return self.replicas.processes if self.spread else ALONE

    def read(self, weight):
        """Returns the rows of `weight` that this process has, an array `[n, ...]`."""
        if not self.spread:
            return weight.numpy()
        return np.concatenate([copy.numpy() for copy in self.replicas.copies(weight)])[: len(self.here)]

    def sample(self, weight, count):
        """Returns at most `count` of them, evenly spaced, the same ones of every weight; numbers as float32."""
        chosen = np.unique(np.linspace(0, len(self.here) - 1, min(count, len(self.here))).astype(np.int32))
        copies = self.replicas.copies(weight) if self.spread else self.replicas.copies(weight)[:1]
        length = self.length if self.spread else self.size
        kind = tf.bool if weight.dtype == "bool" else tf.float32
        places = [chosen[chosen // length == number] - number * length for number in range(len(copies))]
        found = [rows_at(copy, own, kind).numpy() for copy, own in zip(copies, places, strict=True)]
        return np.concatenate(found)

    def write(self, weight, rows):
        """Gives `weight` the `rows` `[n, ...]` of this process."""
        if not self.spread:
            weight.assign(rows)
            return
        for number, copy in enumerate(self.replicas.copies(weight)):
            part = rows[number * self.length : (number + 1) * self.length]
            copy.scatter_nd_update(np.arange(len(part), dtype=np.int32)[:, None], part)


def rows_at(rows, places, dtype):
    """Returns the rows `[n, ...]` at `places` `[n]` of `[N, ...]`, a tensor or a variable, in `dtype`.

    Never the variable as a whole: once it has been scattered to, TensorFlow copies all of it at every such read.
    """
    if isinstance(rows, tf.Variable):  # tf.gather would read a mirrored one as a whole
        found = tf.raw_ops.ResourceGather(resource=rows.handle, indices=places, dtype=rows.dtype)
    else:
        found = tf.gather(rows, places)
    return tf.cast(found, dtype)


def write_at(variable, places, rows):
    """Writes `rows` `[n, ...]` to `places` `[n]` of the copy of `variable` that the replica at work has."""
    # By its handle: a mirrored variable has no scatter, and each replica is to write to its own copy alone.
    tf.raw_ops.ResourceScatterNdUpdate(ref=variable.handle, indices=places[:, None], updates=rows)
