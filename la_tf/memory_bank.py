"""The memory bank V̄ (section 3.3): one unit row an image, a running average of its embeddings."""

import keras
import numpy as np
import tensorflow as tf


def random_unit_rows(size, dimension, seed):
    """Returns `[N, D]` float32 rows drawn uniformly from the unit sphere (section 3.3, start of training)."""
    rows = np.random.default_rng(seed).standard_normal((size, dimension), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def last_occurrences(indices):
    """Returns for each position of `indices` `[B]` the last position that holds the same index, `[B]` int32."""
    same = indices[:, None] == indices[None, :]
    return tf.reduce_max(tf.where(same, tf.range(tf.size(indices))[None, :], 0), axis=1)


def mixed_rows(old_rows, embeddings, momentum):
    """Returns (1 - t) v̄ + t v, brought back to unit length, `[B, D]` (equation 5)."""
    return tf.math.l2_normalize((1.0 - momentum) * old_rows + momentum * embeddings, axis=1)


class MemoryBank(keras.layers.Layer):
    """Holds `rows` `[N, D]` and `written` `[N]`, which tells the rows that hold an embedding from the random ones."""

    def __init__(self, size, dimension, momentum=0.5, seed=0, name="memory_bank"):
        super().__init__(name=name, dtype="float32")  # stays float32 under mixed precision
        self.momentum = momentum
        # Every replica writes the same gathered rows to its own copy, so the first copy speaks for all.
        self.rows = self.add_weight(
            name="rows",
            shape=(size, dimension),
            initializer=lambda shape, dtype: random_unit_rows(*shape, seed),
            trainable=False,
            aggregation="only_first_replica",
        )
        self.written = self.add_weight(
            name="written",
            shape=(size,),
            initializer="zeros",
            dtype="bool",
            trainable=False,
            aggregation="only_first_replica",
        )

    def update(self, indices, embeddings):
        """Writes equation 5 for `embeddings` `[B, D]` at `indices` `[B]`; of duplicates the last one counts."""
        # All duplicates write the last one's row, so the order in which a scatter visits them is irrelevant.
        embeddings = tf.gather(embeddings, last_occurrences(indices))
        old_rows = tf.gather(self.rows.value, indices)
        positions = indices[:, None]
        self.rows.value.scatter_nd_update(positions, mixed_rows(old_rows, embeddings, self.momentum))
        self.written.value.scatter_nd_update(positions, tf.ones_like(indices, tf.bool))
