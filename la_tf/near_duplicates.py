"""Near-duplicates among pictures whose embeddings are near: confirmed by their pixels, so that any network will do.

A network brings those that may be the same together; how alike two embeddings are says less, for it depends on how far
the network spreads its pictures. Two pictures are near-duplicates where their 16 px versions correlate, less what all
of a row or a column has in common: any two landscapes are bright above and dark below.
"""

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

SIDE = 16  # px
FLAT = 1.0  # level of 255: a pattern that deviates less is none
EQUAL = 2  # levels of 255 between two pictures without a pattern that are the same
CHUNK = 8192  # pairs at once


def pairs_of(nearest):
    """Returns pairs `[P, 2]`, the lower row first, each once, of the rows' nearest others `[n, K]`."""
    size, count = nearest.shape
    pairs = np.sort(np.stack([np.repeat(np.arange(size), count), nearest.ravel()], axis=1), axis=1)
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)


def likeness(small, pairs):
    """Returns how alike pictures are, `[P]`: the correlation of their patterns, as they are or one of them mirrored.

    small `[n, SIDE, SIDE, 3]` uint8, pairs `[P, 2]`. Of pictures without a pattern, such as those of one colour, it is
    1 where they are the same within two levels, else 0.
    """
    found = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), CHUNK):
        first, second = (small[rows].astype(np.float32) for rows in pairs[start : start + CHUNK].T)
        both = _pattern(first)
        alike = [(both * _pattern(other)).sum(axis=1) for other in (second, second[:, :, ::-1])]
        equal = np.abs(first - second).max(axis=(1, 2, 3)) <= EQUAL
        found[start : start + CHUNK] = np.where(equal, 1, np.maximum(*alike))
    return found


def groups_of(size, pairs):
    """Returns groups of two or more of `size` rows that `pairs` `[P, 2]` join, the largest first, then by first row."""
    graph = sparse.coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1]
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return sorted((group for group in groups if len(group) > 1), key=lambda group: (-len(group), group[0]))


def _pattern(pictures):
    """Returns unit rows `[P, SIDE * SIDE * 3]`: pictures less the means of rows and columns, or zeros."""
    rows, columns = (pictures.mean(axis=axis, keepdims=True) for axis in (2, 1))
    pattern = (pictures - rows - columns + pictures.mean(axis=(1, 2), keepdims=True)).reshape(len(pictures), -1)
    deviation = pattern.std(axis=1, keepdims=True)
    return np.where(deviation < FLAT, 0, pattern / (np.maximum(deviation, FLAT) * pattern.shape[1] ** 0.5))
