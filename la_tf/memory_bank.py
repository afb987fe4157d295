"""The memory bank V̄ (section 3.3): one unit row an image, a running average of its embeddings."""

import keras
import numpy as np
import tensorflow as tf

# For `add_weight`: what a run remembers but does not learn. Replicas are to come to the same values by themselves, so
# the first copy speaks for all.
STATE = {"trainable": False, "aggregation": "only_first_replica"}


def random_unit_rows(size, dimension, seed):
    """Returns `[N, D]` float32 rows drawn uniformly from the unit sphere (section 3.3, start of training)."""
    rows = np.random.default_rng(seed).standard_normal((size, dimension), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def last_occurrences(indices, valid):
    """Returns for each position of `indices` `[B]` the last `valid` one that holds the same index, `[B]` int32.

    -1 where no valid position `[B]` bool holds it.
    """
    same = (indices[:, None] == indices[None, :]) & valid[None, :]
    return tf.reduce_max(tf.where(same, tf.range(tf.size(indices))[None, :], -1), axis=1)


def mixed_rows(old_rows, embeddings, momentum):
    """Returns (1 - t) v̄ + t v, brought back to unit length, `[B, D]` (equation 5)."""
    return tf.math.l2_normalize((1.0 - momentum) * old_rows + momentum * embeddings, axis=1)


class MemoryBank(keras.layers.Layer):
    """Holds `rows` `[N, D]` and `written` `[N]`, which tells the rows that hold an embedding from the random ones.

    `dtype` is what rows are stored in; in bfloat16 or float16 they take half the memory and are of unit length to three
    or four digits, as equation 5 is computed in float32 and its result rounded.
    """

    def __init__(self, size, dimension, momentum=0.5, seed=0, dtype="float32", name="memory_bank"):
        super().__init__(name=name, dtype="float32")  # whatever Keras' policy is
        self.momentum = momentum
        self.rows = self.add_weight(
            name="rows",
            shape=(size, dimension),
            initializer=lambda shape, dtype: tf.cast(random_unit_rows(*shape, seed), dtype),
            dtype=dtype,
            **STATE,
        )
        self.written = self.add_weight(
            name="written",
            shape=(size,),
            initializer="zeros",
            dtype="bool",
            **STATE,
        )

    def float32_rows(self):
        """Returns all rows `[N, D]` as a float32 array, whatever they are stored in."""
        return self.rows.numpy().astype(np.float32, copy=False)

    def fill(self, indices, embeddings):
        """Writes unit rows `embeddings` `[n, D]` as they are at `indices` `[n]`; all others count as not written."""
        rows, written = self.rows.numpy(), np.zeros(self.written.shape, bool)
        rows[indices], written[indices] = embeddings, True
        self.rows.assign(rows)
        self.written.assign(written)

    def update(self, indices, embeddings, valid):
        """Writes equation 5 for `embeddings` `[B, D]` at `indices` `[B]`; of duplicates the last valid one counts.

        Of pictures that are not `valid` `[B]` bool the rows stay as they are and are no longer `written`: one that
        went bad takes no further part.
        """
        # All duplicates write the same row, so the order in which a scatter visits them is irrelevant.
        last = last_occurrences(indices, valid)
        seen = last >= 0
        old_rows = tf.gather(self.rows.value, indices)
        newest = tf.gather(embeddings, tf.maximum(last, 0))
        new_rows = tf.cast(mixed_rows(tf.cast(old_rows, newest.dtype), newest, self.momentum), old_rows.dtype)
        positions = indices[:, None]
        self.rows.value.scatter_nd_update(positions, tf.where(seen[:, None], new_rows, old_rows))
        self.written.value.scatter_nd_update(positions, seen)
