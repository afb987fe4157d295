"""What a run keeps to look for B_i in cells alone (`cells.py`), and how far that is from looking everywhere."""

import math

import keras
import numpy as np
import tensorflow as tf

from data.errors import UserError
from la_tf import cells
from la_tf.clustering import UNASSIGNED
from la_tf.memory_bank import random_unit_rows
from la_tf.picture_rows import STATE

CHECK_EVERY = 100  # steps
CHECKED = 16  # images of a replica's batch that are looked for everywhere as well, at such a step


class CellSearch(keras.layers.Layer):
    """`count` (C) cells of the rows of `pictures`, of which an image visits as many as hold `visited` rows.

    One more cell, the last, is visited by all: that of the rows that were not written yet when the cells were made.
    Centroids and the cell of each row are weights; what follows from them is made anew when a run is resumed.
    """

    def __init__(self, pictures, dimension, count, visited, seed=0, name="cell_search"):
        super().__init__(name=name, dtype="float32")
        self._pictures = pictures
        self.visited = visited
        self.seed = seed
        self.centroids = self.add_weight(name="centroids", shape=(count, dimension), initializer="zeros", **STATE)
        self.cells = pictures.add(self, "cells", UNASSIGNED, dtype="int32")
        # What follows from these, on each replica of its own rows: no weights.
        listed = cells.layout(np.full(pictures.length, UNASSIGNED), count + 1)
        integers = {"trainable": False, "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA}
        self._order = tf.Variable(listed.order, name="order", **integers)
        self._own_counts = tf.Variable(listed.counts, name="own_counts", **integers)
        self._counts = tf.Variable(listed.counts, name="counts", **integers)  # of all replicas

    def renew(self, rows, written, moment):
        """Makes the cells of this process' unit `rows` `[n, D]` that are `written` `[n]` anew; `moment` numbers it."""
        processes, count = self._pictures.processes, self.centroids.shape[0]
        known = np.flatnonzero(written)
        of_all = int(processes.sum(np.array(len(known))))
        if of_all < count:
            raise UserError(f"--cells={count}: only {of_all} images have been seen; lower it, or raise --warmup_epochs")
        share = min(1.0, cells.SAMPLED * count / of_all)
        rng = np.random.default_rng([self.seed, moment, processes.index])
        drawn = np.sort(rng.choice(known, math.ceil(share * len(known)), replace=False))
        sample = processes.gather(rows[drawn])
        # By the first process of all: others might come to others, as sums depend on the number of threads.
        everybody = self._pictures.replicas.processes
        centroids = np.zeros(self.centroids.shape, np.float32)
        if everybody.index == 0:
            centroids = cells.centroids(sample, count, self.seed * 1000 + moment)
        self.centroids.assign(everybody.sum(centroids))
        found = np.full(len(rows), count, np.int32)
        found[known] = cells.assign(rows[known], self.centroids.numpy())
        self._pictures.write(self.cells, found)
        self.resume()

    def fill(self, rng):
        """Makes cells up, for a plan: random centroids, and as many rows in each."""
        count, dimension = self.centroids.shape
        self.centroids.assign(random_unit_rows(count, dimension, int(rng.integers(2**31))))
        self._pictures.write(self.cells, rng.integers(count, size=len(self._pictures.here), dtype=np.int32))
        self.resume()

    def resume(self):
        """Lists the rows by their cells, once these are in place."""
        count, counts = self.centroids.shape[0], 0
        for number, copy in enumerate(self._pictures.replicas.copies(self.cells)):
            listed = cells.layout(copy.numpy(), count + 1)
            for variable, value in ((self._order, listed.order), (self._own_counts, listed.counts)):
                self._pictures.replicas.copies(variable)[number].assign(value)
            counts = counts + listed.counts if self._pictures.spread else listed.counts
        self._counts.assign(self._pictures.processes.sum(counts))

    def nearest(self, embeddings, bank, written, k):
        """Returns similarities and rows `[B, k]` of the nearest in the cells, `[B]` bool (`neighbors_in_cells`)."""
        visits = cells.visit(embeddings, tf.convert_to_tensor(self.centroids), self._counts[:-1], self.visited)
        visits = tf.pad(visits, [[0, 0], [0, 1]], constant_values=True)
        layout = cells.Layout(self.cells.value, self._own_counts, self._order)
        return cells.neighbors_in_cells(embeddings, bank, written, k, visits, layout)
