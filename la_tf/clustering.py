"""The H clusterings behind C_i (section 3.1): by Faiss when there is nothing to go on from, else from the last ones.

Where the rows are spread over processes, each assigns its own to the nearest centroids; sums and counts over all of
them, `[m, D]` and `[m]`, make the next centroids. No row leaves its process but those that a centroid begins with.
"""

import faiss
import numpy as np
from scipy import sparse
from sklearn.cluster import DBSCAN

from data.errors import UserError
from la_tf.processes import ALONE
from la_tf.spread_rows import SpreadRows

UNASSIGNED = -1  # the label of a row that no clustering has seen
ITERATIONS = 20  # of k-means from nothing, as in the authors' code
# All steps but the last go further than to the mean, as in Lee, Baek, Sung 1997: five come to what takes nine or ten.
STEP = 2.0
# The share of clusters that begin anew each time. Without it every clustering nears the best there is as the bank
# drifts: after 50 renewals on the digits (H = 10, m = 100) |C_i| was three quarters of what cold runs give. With 0.05
# it was 0.90 on a drifting CIFAR-10 bank, with 0.12 0.98; with 0.25 the objective suffers.
RENEWED = 0.12
LEAST_KEPT = 0.9  # of the clusters: a clustering that has lost more, or had fewer, is not gone on from
SPLIT = 1 / 1024  # of its length, how far the two centroids of a cluster that was split are moved, as in Faiss


def cluster(
    rows,
    clusters,
    clusterings,
    seed,
    first=0,
    *,
    previous=None,
    moment=0,
    iterations=0,
    sample=0,
    processes=ALONE,
):
    """Returns labels `[n, H]` int32 of H k-means of `rows` `[n, D]` into m clusters, each with its own random numbers.

    Where `previous` `[n, H]` has labels that fit (UNASSIGNED: none), each goes on from its own by `iterations` (0:
    none does); `moment` numbers such renewals. Rows are unit vectors, so the L2 distance orders as the cosine does.
    Every row takes part, or `sample` rows a cluster, drawn at random, if not 0; all are assigned. `first` numbers the
    first seed: other clusterings of the same rows take others. Of several `processes` each has some of the rows, which
    are those of one clustering; the result is the same, up to rounding, however they are divided. Raises UserError for
    rows that are not finite, in all processes.
    """
    rows = np.ascontiguousarray(rows, np.float32)
    if processes.sum(np.array([not np.isfinite(rows).all()], np.int32))[0]:
        raise UserError("the embeddings to be clustered are not all finite: lower --learning_rate")
    rows = SpreadRows(rows, processes)
    labels = np.empty((len(rows.rows), clusterings), np.int32)
    index = _on_gpus(faiss.IndexFlatL2(rows.rows.shape[1]))
    for h in range(clusterings):
        number = (seed * 1000 + first + h + 1) % 2**31  # Faiss takes a C int
        if iterations and previous is not None and _fits(previous[:, h], clusters, processes):
            rng = np.random.default_rng([number, moment])
            labels[:, h] = _renewed(index, rows, previous[:, h], clusters, iterations, sample, rng, processes)
        elif processes.count == 1:
            labels[:, h] = _cold(rows.rows, clusters, number, sample)
        else:
            labels[:, h] = _cold_together(index, rows, clusters, sample, np.random.default_rng(number), processes)
    return labels


def dbscan(rows, eps, min_samples, processes=ALONE):
    """Returns labels `[n, 1]` int32 of DBSCAN (section 5.2) on unit `rows` `[n, D]`; noise is UNASSIGNED.

    eps is a Euclidean distance, from 0 to 2; scikit-learn holds every neighbourhood in memory. Raises UserError where
    the rows are spread over several `processes`.
    """
    if processes.count > 1:
        raise UserError(
            "--clustering=dbscan: follows neighbours through all rows, and each process has a part of them; choose "
            "--bank_sharding=replicated, or --clustering=kmeans"
        )
    return DBSCAN(eps=eps, min_samples=min_samples).fit_predict(rows).astype(np.int32)[:, None]


def means(rows, labels, clusters, processes=ALONE):
    """Returns the mean `[m, D]` float32 of the `rows` `[n, D]` of each label, 0 where there are none, and their counts.

    Rows that are UNASSIGNED in `labels` `[n]` do not take part; those of all `processes` do.
    """
    labelled = labels != UNASSIGNED
    mine, starts = labels[labelled], np.concatenate([[0], np.cumsum(labelled)])
    member = sparse.csr_array((np.ones(len(mine), np.float32), mine, starts), shape=(len(rows), clusters))
    sums = processes.sum(member.T @ rows)
    counts = processes.sum(np.bincount(mine, minlength=clusters))
    return sums / np.maximum(counts, 1)[:, None].astype(np.float32), counts


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


def _cold_together(index, rows, clusters, sample, rng, processes):
    """Returns labels `[n]` of the same for SpreadRows: Faiss cannot be told of sums over processes."""
    count = sample * clusters
    some = 0 < count < rows.total
    drawn = rng.choice(rows.total, count if some else clusters, replace=False)  # in random order
    part = rows.here(drawn) if some else rows.rows
    centroids = rows.everywhere(drawn[:clusters])
    for _ in range(ITERATIONS):
        centroids, counts = means(part, _nearest(index, centroids, part), clusters, processes)
        _fill_the_empty(centroids, counts, rng)
    return _nearest(index, centroids, rows.rows)


def _fill_the_empty(centroids, counts, rng):
    """Gives every empty cluster half of another, in place: a large one, more likely; equal `rng` do the same."""
    counts = counts.copy()
    step = np.where(np.arange(centroids.shape[1]) % 2, -SPLIT, SPLIT).astype(np.float32)
    for empty in np.flatnonzero(counts == 0):
        chances = np.cumsum(np.maximum(counts - 1, 0))  # one row cannot be halved
        whole = np.searchsorted(chances, rng.integers(chances[-1]), side="right")
        centroids[empty] = centroids[whole] * (1 + step)
        centroids[whole] *= 1 - step
        counts[empty] = counts[whole] // 2
        counts[whole] -= counts[empty]


def _on_gpus(index):
    """Returns an index that searches on all GPUs where faiss-gpu finds some."""
    return faiss.index_cpu_to_all_gpus(index) if faiss.get_num_gpus() else index


def _fits(labels, clusters, processes):
    """Whether a clustering into m clusters can go on from `labels` `[n]`."""
    others = np.minimum(labels[labels != UNASSIGNED], clusters)  # labels beyond m are one
    counts = processes.sum(np.bincount(others, minlength=clusters + 1))
    return counts[clusters] == 0 and np.count_nonzero(counts) >= LEAST_KEPT * clusters


def _renewed(index, rows, labels, clusters, iterations, sample, rng, processes):
    """Returns labels `[n]` some iterations of k-means after `labels` `[n]`, whose means now are its centroids.

    rows are SpreadRows.
    """
    centroids, counts = means(rows.rows, labels, clusters, processes)
    anew = counts == 0
    anew[rng.permutation(clusters)[: round(RENEWED * clusters)]] = True
    centroids[anew] = rows.everywhere(_drawn(rows, anew.sum(), rng))
    some = 0 < sample * clusters < rows.total
    part = rows.here(_drawn(rows, sample * clusters, rng)) if some else rows.rows
    for iteration in range(iterations):
        middles, counts = means(part, _nearest(index, centroids, part), clusters, processes)
        step = STEP if iteration < iterations - 1 else 1
        centroids += step * (middles - centroids)
        empty = counts == 0
        centroids[empty] = rows.everywhere(_drawn(rows, empty.sum(), rng))
    return _nearest(index, centroids, rows.rows)


def _nearest(index, centroids, rows):
    """Returns which of the `centroids` `[m, D]` is nearest to each row, `[n]`."""
    index.reset()
    index.add(centroids)
    return index.search(rows, 1)[1][:, 0]


def _drawn(rows, count, rng):
    """Returns the numbers `[count]` of SpreadRows drawn at random, the same in all processes."""
    return rng.choice(rows.total, count, replace=False)
