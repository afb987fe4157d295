"""What stands out in a pile of embedded pictures: near-duplicates, outliers, clusters. NumPy, SciPy and Faiss alone."""

from typing import NamedTuple

import numpy as np

from la_tf import cluster_portraits, clustering, near_duplicates, vector_index
from la_tf.nearest_rows import nearest_others, without_itself

NEAREST = 30  # others of each picture that may be its near-duplicates
LONELY = 10  # a picture is as lonely as the so many-th nearest other is far
MOST_CLUSTERS = 100  # by default: more are not looked through
RECALL = 0.95  # of the nearest others, where there are too many pictures to compare all
CHUNK = 8192  # queries at once


class Pile(NamedTuple):
    """What was found in n pictures; numbers are rows of their embeddings.

    duplicates: groups of rows, the largest first; likeness `[n]`: to the most alike near-duplicate, 0 without one.
    outliers: rows, the loneliest first; similarities `[n]`: the cosine to the LONELY-th nearest other. clusters:
    `cluster_portraits.Portrait`s, the largest first; labels `[n]`: the place of each picture's among them.
    """

    duplicates: list
    likeness: np.ndarray
    outliers: np.ndarray
    similarities: np.ndarray
    clusters: list
    labels: np.ndarray


def look_through(rows, small, seen, truth, least, outliers, clusters=None, seed=0):
    """Returns the Pile of n > 1 pictures: their embeddings, unit `rows` `[n, D]`, and what they look like.

    small: as `near_duplicates.likeness` takes it, of those that are `seen` `[n]`; `least` is the likeness from which on
    two are near-duplicates. truth `[n]`: classes or folders, -1 where unknown. outliers, clusters: how many; None:
    `default_clusters`.
    """
    similarities, nearest = others_of_all(rows)
    pairs = near_duplicates.pairs_of(nearest)
    pairs = pairs[seen[pairs].all(axis=1)]
    likeness = near_duplicates.likeness(small, pairs)
    pairs, likeness = pairs[likeness >= least], likeness[likeness >= least]
    most_alike = np.zeros(len(rows), np.float32)
    for ends in pairs.T:
        np.maximum.at(most_alike, ends, likeness)
    lonely = similarities[:, :LONELY][:, -1]
    labels = clustering.cluster(rows, clusters or default_clusters(len(rows)), 1, seed)[:, 0]
    portraits = sorted(cluster_portraits.portraits(rows, labels, truth), key=lambda each: -len(each.members))
    ranks = np.empty(labels.max() + 1, np.int32)
    ranks[[each.label for each in portraits]] = np.arange(len(portraits))
    return Pile(
        near_duplicates.groups_of(len(rows), pairs),
        most_alike,
        np.argsort(lonely, kind="stable")[:outliers],  # by Ramaswamy, Rastogi, Shim 2000: a copy is no company
        lonely,
        portraits,
        ranks[labels],
    )


def default_clusters(size):
    """Returns how many clusters `size` pictures are looked through by: sqrt(n / 2), at most MOST_CLUSTERS."""
    return int(np.clip(round((size / 2) ** 0.5), 1, MOST_CLUSTERS))


def others_of_all(rows):
    """Returns similarities and numbers `[n, K]` of the K rows most similar to each unit row `[n, D]`, itself left out.

    K is NEAREST, or n - 1 if that is less. Exact up to 100,000 rows, beyond by lists (`vector_index`).
    """
    size = len(rows)
    count = min(NEAREST, size - 1)
    if vector_index.automatic_kind(size) == "flat":
        return nearest_others(np.asarray(rows), np.arange(size), count)
    index = vector_index.build(rows, "ivf")
    vector_index.tune(index, rows, RECALL)
    similarities, found = np.empty((size, count), np.float32), np.empty((size, count), np.int32)
    for start in range(0, size, CHUNK):
        own = np.arange(start, min(start + CHUNK, size))
        similarities[own], found[own] = without_itself(*vector_index.search(index, rows[own], count + 1), own)
    return similarities, found
