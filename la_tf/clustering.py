"""The H clusterings behind C_i (section 3.1): by Faiss when there is nothing to go on from, else from the last ones."""

import faiss
import numpy as np
from scipy import sparse
from sklearn.cluster import DBSCAN

from data.errors import UserError

UNASSIGNED = -1  # the label of a row that no clustering has seen
ITERATIONS = 20  # of k-means from nothing, as in the authors' code
# All steps but the last go further than to the mean, as in Lee, Baek, Sung 1997: five come to what takes nine or ten.
STEP = 2.0
# The share of clusters that begin anew each time. Without it every clustering nears the best there is as the bank
# drifts: after 50 renewals on the digits (H = 10, m = 100) |C_i| was three quarters of what cold runs give. With 0.05
# it was 0.90 on a drifting CIFAR-10 bank, with 0.12 0.98; with 0.25 the objective suffers.
RENEWED = 0.12
LEAST_KEPT = 0.9  # of the clusters: a clustering that has lost more, or had fewer, is not gone on from


def cluster(rows, clusters, clusterings, seed, first=0, *, previous=None, moment=0, iterations=0, sample=0):
    """Returns labels `[n, H]` int32 of H k-means of `rows` `[n, D]` into m clusters, each with its own random numbers.

    Where `previous` `[n, H]` has labels that fit (UNASSIGNED: none), each goes on from its own by `iterations` (0:
    none does); `moment` numbers such renewals. Rows are unit vectors, so the L2 distance orders as the cosine does.
    Every row takes part, or `sample` rows a cluster, drawn at random, if not 0; all are assigned. `first` numbers the
    first seed: other clusterings of the same rows take others. Raises UserError for rows that are not finite.
    """
    rows = np.ascontiguousarray(rows, np.float32)
    if not np.isfinite(rows).all():
        raise UserError("the embeddings to be clustered are not all finite: lower --learning_rate")
    labels = np.empty((len(rows), clusterings), np.int32)
    index = _on_gpus(faiss.IndexFlatL2(rows.shape[1]))
    for h in range(clusterings):
        number = (seed * 1000 + first + h + 1) % 2**31  # Faiss takes a C int
        if iterations and previous is not None and _fits(previous[:, h], clusters):
            rng = np.random.default_rng([number, moment])
            labels[:, h] = _renewed(index, rows, previous[:, h], clusters, iterations, sample, rng)
        else:
            labels[:, h] = _cold(rows, clusters, number, sample)
    return labels


def dbscan(rows, eps, min_samples):
    """Returns labels `[n, 1]` int32 of DBSCAN (section 5.2) on unit `rows` `[n, D]`; noise is UNASSIGNED.

    eps is a Euclidean distance, from 0 to 2; scikit-learn holds every neighbourhood in memory.
    """
    return DBSCAN(eps=eps, min_samples=min_samples).fit_predict(rows).astype(np.int32)[:, None]


def means(rows, labels, clusters):
    """Returns the mean `[m, D]` float32 of the `rows` `[n, D]` of each label, 0 where there are none, and their counts.

    Rows that are UNASSIGNED in `labels` `[n]` do not take part.
    """
    labelled = labels != UNASSIGNED
    mine, starts = labels[labelled], np.concatenate([[0], np.cumsum(labelled)])
    member = sparse.csr_array((np.ones(len(mine), np.float32), mine, starts), shape=(len(rows), clusters))
    counts = np.bincount(mine, minlength=clusters)
    return member.T @ rows / np.maximum(counts, 1)[:, None].astype(np.float32), counts


def _cold(rows, clusters, seed, sample):
    """Returns labels `[n]` of Faiss's k-means from random rows; it re-seeds an emptied cluster by splitting another."""
    kmeans = faiss.Kmeans(
        rows.shape[1],
        clusters,
        niter=ITERATIONS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=sample or len(rows),  # 256 otherwise
        gpu=faiss.get_num_gpus() > 0,
    )
    kmeans.train(rows)
    return kmeans.index.search(rows, 1)[1][:, 0]


def _on_gpus(index):
    """Returns an index that searches on all GPUs where faiss-gpu finds some."""
    return faiss.index_cpu_to_all_gpus(index) if faiss.get_num_gpus() else index


def _fits(labels, clusters):
    """Whether a clustering into m clusters can go on from `labels` `[n]`."""
    counts = np.bincount(labels[labels != UNASSIGNED], minlength=clusters)
    return len(counts) == clusters and np.count_nonzero(counts) >= LEAST_KEPT * clusters


def _renewed(index, rows, labels, clusters, iterations, sample, rng):
    """Returns labels `[n]` some iterations of k-means after `labels` `[n]`, whose means now are its centroids."""
    centroids, counts = means(rows, labels, clusters)
    anew = counts == 0
    anew[rng.permutation(clusters)[: round(RENEWED * clusters)]] = True
    centroids[anew] = _drawn(rows, anew.sum(), rng)
    part = _drawn(rows, sample * clusters, rng) if 0 < sample * clusters < len(rows) else rows
    for iteration in range(iterations):
        middles, counts = means(part, _nearest(index, centroids, part), clusters)
        step = STEP if iteration < iterations - 1 else 1
        centroids += step * (middles - centroids)
        empty = counts == 0
        centroids[empty] = _drawn(rows, empty.sum(), rng)
    return _nearest(index, centroids, rows)


def _nearest(index, centroids, rows):
    """Returns which of the `centroids` `[m, D]` is nearest to each row, `[n]`."""
    index.reset()
    index.add(centroids)
    return index.search(rows, 1)[1][:, 0]


def _drawn(rows, count, rng):
    return rows[rng.choice(len(rows), count, replace=False)]
