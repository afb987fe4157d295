"""The memory bank V̄ (section 3.3): one unit row an image, a running average of its embeddings."""

import keras
import numpy as np
import tensorflow as tf

from la_tf.picture_rows import PictureRows, rows_at, write_at

BLOCK = 2**16  # rows that one stream of random numbers gives: any part of a bank can be made by itself


def random_unit_rows(size, dimension, seed, first=0):
    """Returns `[n, D]` float32 rows drawn uniformly from the unit sphere (section 3.3, start of training).

    They are the n = `size` rows from `first` on of an endless sequence.
    """
    rows = np.empty((size, dimension), np.float32)
    for block in range(first // BLOCK, -(-(first + size) // BLOCK)):
        key = (block,) if block else ()
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
        start, end = max(first, block * BLOCK), min(first + size, (block + 1) * BLOCK)
        drawn = rng.standard_normal((end - block * BLOCK, dimension), np.float32)[start - block * BLOCK :]
        rows[start - first : end - first] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return rows


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

    pictures, a `PictureRows` of N, says which of them a replica has; None: all. `dtype` is what rows are stored in; in
    bfloat16 or float16 they take half the memory and are of unit length to three or four digits, as equation 5 is
    computed in float32 and its result rounded.
    """

    def __init__(self, size, dimension, momentum=0.5, seed=0, dtype="float32", pictures=None, name="memory_bank"):
        super().__init__(name=name, dtype="float32")  # whatever Keras' policy is
        self.momentum = momentum
        self.pictures = pictures or PictureRows(size)
        self.rows = self.pictures.add(self, "rows", 0.0, (dimension,), dtype)
        self.written = self.pictures.add(self, "written", False, dtype="bool")
        here = self.pictures.here
        self._write(self.rows, random_unit_rows(len(here), dimension, seed, here.start))

    def own_rows(self):
        """Returns the rows of this process: the number of the first, the rows `[n, D]` float32, and `written` `[n]`."""
        return self.pictures.here.start, self.float32_rows(), self.pictures.read(self.written)

    def float32_rows(self):
        """Returns all rows of this process `[n, D]` as a float32 array, whatever they are stored in."""
        return self.pictures.read(self.rows).astype(np.float32, copy=False)

    def fill(self, indices, embeddings):
        """Writes unit rows `embeddings` `[n, D]` as they are at `indices` `[n]`; all others count as not written."""
        here, indices = self.pictures.here, np.asarray(indices)
        rows, written = self.pictures.read(self.rows), np.zeros(len(here), bool)
        mine = (indices >= here.start) & (indices < here.stop)
        places = indices[mine] - here.start
        rows[places], written[places] = np.asarray(embeddings)[mine], True
        self._write(self.rows, rows)
        self._write(self.written, written)

    def _write(self, weight, rows):
        self.pictures.write(weight, rows.astype(weight.value.dtype.as_numpy_dtype, copy=False))

    def update(self, indices, embeddings, valid):
        """Writes equation 5 for `embeddings` `[B, D]` at `indices` `[B]`; of duplicates the last valid one counts.

        Of pictures that are not `valid` `[B]` bool the rows stay as they are and are no longer `written`: one that
        went bad takes no further part. A replica writes the rows that it has; all are given the same.
        """
        # All duplicates write the same row, so the order in which a scatter visits them is irrelevant.
        last = last_occurrences(indices, valid)
        places = self.pictures.places(indices)
        if self.pictures.spread:
            mine = places >= 0
            places, last = tf.boolean_mask(places, mine), tf.boolean_mask(last, mine)
        seen = last >= 0
        old_rows = rows_at(self.rows.value, places, self.rows.dtype)
        newest = tf.gather(embeddings, tf.maximum(last, 0))
        new_rows = tf.cast(mixed_rows(tf.cast(old_rows, newest.dtype), newest, self.momentum), old_rows.dtype)
        write_at(self.rows.value, places, tf.where(seen[:, None], new_rows, old_rows))
        write_at(self.written.value, places, seen)
