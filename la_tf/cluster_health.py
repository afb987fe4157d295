"""What tells good clusterings from bad ones (section 5.2), by metric name: WORKSPACE.md, "What the metrics mean".

Where rows are spread over `processes`, each gives its own and all get the same numbers: those of all rows.
"""

import numpy as np
from sklearn.metrics import normalized_mutual_info_score

from la_tf.clustering import UNASSIGNED, means
from la_tf.processes import ALONE
from la_tf.spread_rows import SpreadRows

SKEWNESS_SAMPLE = 1000  # images whose C_i is gathered for `close_skewness`
# Of mutual information, at most: at N = 1.28M a pair takes most of a second, and one is like the other.
PAIRS = 3
LARGEST_SHARE = 1 / 3  # of the images in one cluster; of two clusters, one may well hold more: then twice its part
GATHERED = 2**20  # images, at most, whose labels several processes tell each other for mutual information


def health(rows, labels, previous=None, truth=None, seed=0, processes=ALONE):
    """Returns what WORKSPACE.md explains of the clusterings `labels` `[n, H]` of `rows` `[n, D]`, by metric name.

    previous `[n, H]` is the last epoch's (UNASSIGNED where there was none), truth `[n]` the classes (-1 unknown); each
    None in all processes or in none.
    """
    sizes = _sizes(labels, processes)
    found = {
        "cluster_objective": objective(rows, labels, processes),
        "close_skewness": close_skewness(rows, labels, seed, processes),
        "cluster_min": int(sizes.min()),
        "cluster_median": float(np.median(sizes)),
        "cluster_max": int(sizes.max()),
    }
    left_out, clustered_before, classified, entries = _counts(
        labels == UNASSIGNED,
        None if previous is None else previous != UNASSIGNED,
        None if truth is None else truth >= 0,
        np.ones(labels.shape, bool),
        processes=processes,
    )
    if left_out:
        found["unclustered_fraction"] = float(left_out / entries)
    if labels.shape[1] > 1:
        found["nmi_between"] = nmi_between(_gathered(labels[:, : PAIRS + 1], processes))
    if clustered_before:
        both = (_gathered(part[:, :PAIRS], processes) for part in (labels, previous))
        found["nmi_previous"] = nmi_previous(*both)
    if classified:
        found["purity"] = purity(labels, truth, processes)
    return found


def giant(metrics, images, clusters):
    """Returns the share of `images` in the largest of `clusters` clusters by `metrics`; None where that is sound."""
    share = metrics.get("cluster_max", 0) / images
    return share if share > max(LARGEST_SHARE, 2 / clusters) else None


def objective(rows, labels, processes=ALONE):
    """Returns the mean squared distance of `rows` `[n, D]` to the mean of their cluster, mean over H; L2, 0 to 1.

    Rows are unit vectors; those that a clustering leaves out do not count, and all left out come to 0.
    """
    found = []
    for column, clusters in zip(labels.T, _clusters(labels, processes), strict=True):
        centres, counts = means(rows, column, clusters, processes)
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


def purity(labels, truth, processes=ALONE):
    """Returns the share of labelled and clustered rows of their cluster's commonest class, mean over clusterings."""
    classes = processes.gather(np.array([truth.max(initial=0) + 1], np.int64)).max()
    shares = []
    for column in labels.T:
        known = (truth >= 0) & (column != UNASSIGNED)
        # A table of clusters and classes as a list of what is not 0 in it: with many of both there is little.
        places, counts = np.unique(column[known] * classes + truth[known], return_counts=True)
        places, counts = processes.gather(np.stack([places, counts], axis=1).astype(np.int64)).T
        if len(places):
            places, again = np.unique(places, return_inverse=True)
            commonest = np.zeros(places[-1] // classes + 1)
            np.maximum.at(commonest, places // classes, np.bincount(again, counts))
            shares.append(commonest.sum() / counts.sum())
    return float(np.mean(shares)) if shares else 0.0


def close_skewness(rows, labels, seed=0, processes=ALONE):
    """Returns the mean distance from the centre of C_i to v̄_i (section 5.2), over a sample of images."""
    skewness, _ = close_sets(rows, labels, seed, processes)
    return float(np.mean(skewness))


def close_sets(rows, labels, seed=0, processes=ALONE):
    """Returns the distance from the centre of C_i to v̄_i `[s]` and the size of C_i `[s]` for a sample of images.

    C_i is the union of the clusters that image i is in by `labels` `[n, H]` of `rows` `[n, D]`, and image i.
    """
    spread = SpreadRows(rows, processes)
    sample = np.random.default_rng(seed).permutation(spread.total)[:SKEWNESS_SAMPLE]
    images, their_labels = spread.everywhere(sample), SpreadRows(labels, processes).everywhere(sample)
    members = [_members(*each) for each in zip(labels.T, _clusters(labels, processes), strict=True)]
    sums, counts = np.zeros_like(images), np.zeros(len(sample), np.int64)
    for i, number in enumerate(sample):
        groups = [group[label] for group, label in zip(members, their_labels[i], strict=True) if label != UNASSIGNED]
        _, own = spread.local(number[None])
        close = np.unique(np.concatenate([own, *groups]))
        sums[i], counts[i] = rows[close].sum(axis=0), len(close)
    counts = processes.sum(counts)
    centres = processes.sum(sums) / counts.astype(rows.dtype)[:, None]
    return np.array([np.linalg.norm(difference) for difference in centres - images]), counts


def _members(column, clusters):
    """Returns for each label of `column` `[n]` the rows that have it."""
    order = np.argsort(column, kind="stable")
    order = order[column[order] != UNASSIGNED]
    return np.split(order, np.cumsum(np.bincount(column[order], minlength=clusters))[:-1])


def _clusters(labels, processes):
    """Returns how many labels each column of `labels` `[n, H]` goes up to in any process, `[H]`, at least one."""
    return processes.gather(labels.max(axis=0, initial=0)[None]).max(axis=0) + 1


def _sizes(labels, processes):
    """Returns the sizes of the clusters of all clusterings that hold something; one of 0 where none does."""
    columns = zip(labels.T, _clusters(labels, processes), strict=True)
    sizes = [np.bincount(column[column != UNASSIGNED], minlength=clusters) for column, clusters in columns]
    sizes = processes.sum(np.concatenate(sizes))
    return sizes[sizes > 0] if (sizes > 0).any() else np.zeros(1, int)


def _counts(*marked, processes):
    """Returns how many are marked in each of some boolean arrays (None: 0), over all processes."""
    return processes.sum(np.array([0 if part is None else np.count_nonzero(part) for part in marked], np.int64))


def _gathered(labels, processes):
    """Returns the `labels` `[n, h]` of all processes, or of every so many rows where they are more than GATHERED."""
    if processes.count == 1:
        return labels
    rows = SpreadRows(labels, processes)
    every = -(-rows.total // GATHERED)
    return processes.gather(labels[-rows.first % every :: every])
