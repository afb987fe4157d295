"""The H clusterings behind C_i (section 3.1), by Faiss, and what tells good ones from bad ones (section 5.2)."""

import faiss
import numpy as np
from sklearn.cluster import DBSCAN
from sklearn.metrics import normalized_mutual_info_score

UNASSIGNED = -1  # the label of a row that no clustering has seen
ITERATIONS = 20  # of k-means, as in the authors' code
SKEWNESS_SAMPLE = 1000  # images whose C_i is gathered for `close_skewness`


def cluster(rows, clusters, clusterings, seed, first=0):
    """Returns labels `[n, H]` int32 of H k-means of `rows` `[n, D]` into m clusters, each from its own seed.

    Every row takes part (Faiss would otherwise sample 256 a centroid); rows are unit vectors, so the L2 distance
    orders as the cosine does. An emptied cluster is re-seeded by Faiss by splitting a large one. `first` numbers the
    first seed: other clusterings of the same rows take others.
    """
    rows = np.ascontiguousarray(rows, np.float32)
    labels = np.empty((len(rows), clusterings), np.int32)
    for h in range(clusterings):
        kmeans = faiss.Kmeans(
            rows.shape[1],
            clusters,
            niter=ITERATIONS,
            seed=(seed * 1000 + first + h + 1) % 2**31,  # Faiss takes a C int
            min_points_per_centroid=1,
            max_points_per_centroid=len(rows),
        )
        kmeans.train(rows)
        labels[:, h] = kmeans.index.search(rows, 1)[1][:, 0]
    return labels


def dbscan(rows, eps, min_samples):
    """Returns labels `[n, 1]` int32 of DBSCAN (section 5.2) on unit `rows` `[n, D]`; noise is UNASSIGNED.

    eps is a Euclidean distance, from 0 to 2; scikit-learn holds every neighbourhood in memory.
    """
    return DBSCAN(eps=eps, min_samples=min_samples).fit_predict(rows).astype(np.int32)[:, None]


def health(rows, labels, previous=None, truth=None, seed=0):
    """Returns what WORKSPACE.md explains of the clusterings `labels` `[n, H]` of `rows` `[n, D]`, by metric name.

    previous `[n, H]` is the last epoch's (UNASSIGNED where there was none), truth `[n]` the classes (-1 unknown).
    """
    sizes = np.concatenate([np.bincount(column[column != UNASSIGNED]) for column in labels.T])
    sizes = sizes[sizes > 0] if (sizes > 0).any() else np.zeros(1, int)
    found = {
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


def nmi_between(labels):
    """Returns the mean normalised mutual information of neighbouring columns of `labels` `[n, H]`, H > 1.

    H - 1 pairs stand for all H(H-1)/2: the clusterings differ by their seeds alone, and at N = 1.28M a pair takes
    seconds.
    """
    pairs = zip(labels.T[:-1], labels.T[1:], strict=True)
    return float(np.mean([normalized_mutual_info_score(a, b) for a, b in pairs]))


def nmi_previous(labels, previous):
    """Returns the mean NMI of each clustering with its predecessor, over the rows that had one."""
    known = previous[:, 0] != UNASSIGNED
    pairs = zip(labels[known].T, previous[known].T, strict=True)
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
