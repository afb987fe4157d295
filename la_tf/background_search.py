"""Where B_i is looked for: everywhere or in cells, in a bank that a replica has whole or a part of."""

import math

import tensorflow as tf

from la_tf import across_replicas, cells
from la_tf.neighbors import background_neighbors, neighbors_of_part, only


class BackgroundSearch:
    """Looks for nearest rows of a `MemoryBank`; in the cells of a `CellSearch` alone where it has one.

    Of a bank that is spread, a replica looks through its own rows, for all images of the batch.
    """

    def __init__(self, bank, cell_search=None):
        self._bank = bank
        self._pictures = bank.pictures
        self._cell_search = cell_search

    def nearest(self, embeddings, k, inside=None, exact=False):
        """Returns what `neighbors.background_neighbors` does: similarities and rows `[B, c]`, and `[B]` bool.

        What of them is among the k nearest, `among_largest` tells. Those `inside`, and where they are to be `exact`,
        are looked for everywhere.
        """
        bank, written = self._bank.rows.value, self._bank.written.value
        if self._cell_search is not None and inside is None and not exact:
            return self._cell_search.nearest(embeddings, bank, written, min(k, self._pictures.length))
        if self._pictures.spread:
            return neighbors_of_part(embeddings, bank, written, k, self._pictures.replicas, inside)
        return background_neighbors(embeddings, bank, written, k, inside)

    def among_largest(self, similarity, k):
        """Returns `[B, c]` bool: which of the nearest found here are among the k nearest of all."""
        if self._pictures.spread:
            return across_replicas.among_largest(similarity, k, self._pictures.replicas)
        return (similarity != -math.inf) & (tf.range(similarity.shape[1]) < k)  # they fall

    def recall(self, embeddings, k):
        """Returns the share `[B]` of B_i that is found in cells, of this replica's images or, spread, of all."""
        replicas = self._pictures.replicas if self._pictures.spread else None
        embeddings = tf.stop_gradient(embeddings if replicas is None else replicas.gather(embeddings))
        found, exact = (
            only(self.among_largest(similarity, k), similarity)
            for similarity, *_ in (self.nearest(embeddings, k), self.nearest(embeddings, k, exact=True))
        )
        return cells.recall(found, exact, replicas)
