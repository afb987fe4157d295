"""What tells good clusterings from bad ones (section 5.2), by metric name: WORKSPACE.md, "What the metrics mean"."""

import numpy as np
from sklearn.metrics import normalized_mutual_info_score

from la_tf.clustering import UNASSIGNED, means

SKEWNESS_SAMPLE = 1000  # images whose C_i is gathered for `close_skewness`
# Of mutual information, at most: at N = 1.28M a pair takes most of a second, and one is like the other.
PAIRS = 3


def health(rows, labels, previous=None, truth=None, seed=0):
    """Returns what WORKSPACE.md explains of the clusterings `labels` `[n, H]` of `rows` `[n, D]`, by metric name.

    previous `[n, H]` is the last epoch's (UNASSIGNED where there was none), truth `[n]` the classes (-1 unknown).
    """
    sizes = np.concatenate([np.bincount(column[column != UNASSIGNED]) for column in labels.T])
    sizes = sizes[sizes > 0] if (sizes > 0).any() else np.zeros(1, int)
    found = {
        "cluster_objective": objective(rows, labels),
        "close_skewness": close_skewness(rows, labels, seed),
        "cluster_min": int(sizes.min()),
        "cluster_median": float(np.median(sizes)),
        "cluster_max": int(sizes.max()),
    }
    if (labels == UNASSIGNED).any():
        found["unclustered_fraction"] = float(np.mean(labels == UNASSIGNED))
    if labels.shape[1] > 1:
        found["nmi_between"] = nmi_between(labels)
    if previous is not None and (previous != UNASSIGNED).any():
        found["nmi_previous"] = nmi_previous(labels, previous)
    if truth is not None and (truth >= 0).any():
        found["purity"] = purity(labels, truth)
    return found


def objective(rows, labels):
    """Returns the mean squared distance of `rows` `[n, D]` to the mean of their cluster, mean over H; L2, 0 to 1.

    Rows are unit vectors; those that a clustering leaves out do not count, and all left out come to 0.
    """
    found = []
    for column in labels.T:
        centres, counts = means(rows, column, column.max(initial=0) + 1)
        # Of unit rows, the mean squared distance to their mean is 1 less the mean's squared length.
        spread = 1 - np.square(centres.astype(np.float64)).sum(axis=1)
        found.append(counts @ spread / max(counts.sum(), 1))
    return float(np.mean(found))


def nmi_between(labels):
    """Returns the mean normalised mutual information of neighbouring columns of `labels` `[n, H]`, H > 1.

    The first PAIRS pairs stand for all: the clusterings differ by their random numbers alone.
    """
    pairs = zip(labels.T[:-1], labels.T[1:], strict=True)
    return _mean_nmi(list(pairs)[:PAIRS])


def nmi_previous(labels, previous):
    """Returns the mean NMI of the first PAIRS clusterings with their predecessors, over the rows that had one."""
    known = previous[:, 0] != UNASSIGNED
    pairs = zip(labels[known].T, previous[known].T, strict=True)
    return _mean_nmi(list(pairs)[:PAIRS])


def _mean_nmi(pairs):
    return float(np.mean([normalized_mutual_info_score(a, b) for a, b in pairs]))


def purity(labels, truth):
    """Returns the share of labelled and clustered rows of their cluster's commonest class, mean over clusterings."""
    shares = []
    for column in labels.T:
        known = (truth >= 0) & (column != UNASSIGNED)
        if known.any():
            counts = np.zeros((column.max() + 1, truth.max() + 1), np.int64)
            np.add.at(counts, (column[known], truth[known]), 1)
            shares.append(counts.max(axis=1).sum() / known.sum())
    return float(np.mean(shares)) if shares else 0.0


def close_skewness(rows, labels, seed=0):
    """Returns the mean distance from the centre of C_i to v̄_i (section 5.2), over a sample of images."""
    sample = np.random.default_rng(seed).permutation(len(rows))[:SKEWNESS_SAMPLE]
    members = [_members(column) for column in labels.T]
    distances = []
    for i in sample:
        groups = [group[labels[i, h]] for h, group in enumerate(members) if labels[i, h] != UNASSIGNED]
        close = np.unique(np.concatenate([[i], *groups]))
        distances.append(np.linalg.norm(rows[close].mean(axis=0) - rows[i]))
    return float(np.mean(distances))


def _members(column):
    """Returns for each label of `column` `[n]` the rows that have it."""
    order = np.argsort(column, kind="stable")
    order = order[column[order] != UNASSIGNED]
    return np.split(order, np.cumsum(np.bincount(column[order]))[:-1])
