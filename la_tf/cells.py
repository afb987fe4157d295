"""Background neighbours B_i found approximately, for banks past ten million rows: among the rows of a few cells only.

A k-means on a sample of the bank parts it into cells; each row is in the one whose centroid is nearest. An image visits
cells, those whose rows are most similar to it on average first, until they hold a number of rows that does not follow
N. The bank is passed through in the order of its cells, so that what no image of the batch visits is never read, and
the rest is multiplied with the images that visit it, all at once.
"""

import math
from typing import Any, NamedTuple

import faiss
import numpy as np
import tensorflow as tf

from la_tf.clustering import UNASSIGNED
from la_tf.neighbors import (
    GROUP,
    LEAST_ROWS,
    MOST_DEVIATIONS,
    block_rows,
    blocks,
    by_sorting,
    mended,
    only,
    sample_every,
    sample_rank,
    table_of,
    widened,
)
from la_tf.picture_rows import rows_at

# By how many deviations of its rows from its mean a cell is taken for nearer than the mean is. On mixtures 2 to 3 find
# in a tenth to a sixth fewer rows what 0 finds.
DEVIATIONS = 2.0
SAMPLED = 64  # rows a cell that k-means learns from
ITERATIONS = 10  # of k-means
ASSIGNED_AT_ONCE = 2**17  # rows: in blocks a bank in bfloat16 is never held in float32
TOLERANCE = 1e-6  # by which two products of the same rows may differ


class Layout(NamedTuple):
    """Which rows are in which cells: arrays, tensors or variables. Of a bank spread over replicas, one's own rows."""

    cells: Any  # [n] int32: the cell of each row, UNASSIGNED for one that is in none
    counts: Any  # [C] int32: how many rows are in each cell
    order: Any  # [n + 8 C, to the next 8] int32: rows by cell, every cell begun at a multiple of 8; -1 in between


def centroids(sample, count, seed, iterations=ITERATIONS):
    """Returns the means `[C, D]` float32 of `count` cells, by k-means of all rows of `sample` `[n, D]`, n >= C."""
    sample = np.ascontiguousarray(sample, np.float32)
    kmeans = faiss.Kmeans(
        sample.shape[1],
        count,
        niter=iterations,
        seed=seed % 2**31,  # Faiss takes a C int
        min_points_per_centroid=1,
        max_points_per_centroid=len(sample),
        gpu=faiss.get_num_gpus() > 0,
    )
    kmeans.train(sample)
    return kmeans.centroids


def assign(rows, centroids):
    """Returns the cell `[n]` int32 of each of `rows` `[n, D]`, of any float dtype: the nearest of `[C, D]`."""
    index = faiss.IndexFlatL2(centroids.shape[1])
    if faiss.get_num_gpus():
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(np.ascontiguousarray(centroids, np.float32))
    cells = np.empty(len(rows), np.int32)
    for start in range(0, len(rows), ASSIGNED_AT_ONCE):
        part = slice(start, start + ASSIGNED_AT_ONCE)
        cells[part] = index.search(np.ascontiguousarray(rows[part], np.float32), 1)[1][:, 0]
    return cells


def layout(cells, count):
    """Returns the `Layout` of `cells` `[n]`, of which there are `count`; within a cell rows rise.

    So that eight neighbours in the order (`GROUP`) are of one cell, each ends with up to seven times -1.
    """
    cells = np.asarray(cells, np.int32)
    counts = np.bincount(cells[cells != UNASSIGNED], minlength=count)
    padded = -(-counts // GROUP) * GROUP
    rows = np.argsort(cells, kind="stable")[len(cells) - counts.sum() :].astype(np.int32)  # UNASSIGNED comes first
    shift = np.cumsum(padded) - padded - (np.cumsum(counts) - counts)  # of each cell's rows
    order = np.full(-(-len(cells) // GROUP) * GROUP + GROUP * count, -1, np.int32)
    order[np.arange(len(rows)) + np.repeat(shift, counts)] = rows
    return Layout(cells, counts.astype(np.int32), order)


def visit(embeddings, centroids, counts, visited):
    """Returns which cells each image visits, `[B, C]` bool: the most similar, until they hold `visited` rows.

    embeddings `[B, D]`, centroids `[C, D]`, counts `[C]`: how many rows each cell has, those of all replicas together,
    so that all visit the same cells. The product with a mean is the mean of the products with its rows; what counts is
    what some of them reach, and rows of unit length deviate from a mean the more the shorter it is.
    """
    centroids = tf.cast(centroids, embeddings.dtype)
    deviation = tf.sqrt(tf.maximum(1 - tf.reduce_sum(centroids**2, axis=1), 0) / centroids.shape[1])
    similarity = tf.matmul(tf.stop_gradient(embeddings), centroids, transpose_b=True) + DEVIATIONS * deviation
    falling, places = tf.math.top_k(similarity, tf.shape(similarity)[1])
    before = tf.cumsum(tf.gather(tf.cast(counts, tf.int64), places), axis=1, exclusive=True)
    last = tf.reduce_sum(tf.cast(before < visited, tf.int32), axis=1) - 1  # the first is visited anyway
    return similarity >= tf.gather(falling, last, batch_dims=1)[:, None]


def neighbors_in_cells(embeddings, bank, written, k, visits, layout):
    """Returns similarities and rows `[B, k]` of the k written rows most similar to each embedding in its cells.

    embeddings `[B, D]`, bank `[n, D]`, written `[n]` bool, visits `[B, C]` bool (`visit`), and the `Layout` of the
    bank's rows. Similarities fall; where the cells hold fewer than k, the rest is -inf. Besides, `[B]` bool: for which
    images the bound failed, as in `neighbors.background_neighbors`. No gradient flows.
    """
    size, embeddings = bank.shape[0], tf.stop_gradient(embeddings)
    # A last cell, that of the rows that are in none, is visited by nobody.
    visitors = tf.pad(tf.transpose(visits), [[0, 1], [0, 0]])  # [C + 1, B]

    def inside(rows):
        return tf.gather(visitors, _cells_of(rows, layout, visitors))

    if size < LEAST_ROWS or k > size // sample_every(size):
        failed = tf.zeros([tf.shape(embeddings)[0]], tf.bool)
        similarity, rows = by_sorting(embeddings, bank, written, k, inside)
    else:
        similarity, rows, failed = _by_bound(embeddings, bank, written, k, visitors, layout)
        similarity, rows = mended(similarity, rows, failed, embeddings, bank, written, k, inside)
    for found in (similarity, rows):  # what comes out of a loop has forgotten its shape
        found.set_shape([embeddings.shape[0], k])
    return similarity, rows, failed


def _cells_of(rows, layout, visitors):
    """Returns the cells of `rows` `[n]`; the last for one that is in none, and for -1."""
    cells = tf.where(rows < 0, UNASSIGNED, rows_at(layout.cells, tf.maximum(rows, 0), tf.int32))
    return tf.where(cells == UNASSIGNED, tf.shape(visitors)[0] - 1, cells)


def _by_bound(embeddings, bank, written, k, visitors, layout):
    """Returns similarities and rows `[B, k]`, and for which images `[B]` they are not to be used."""
    held = tf.linalg.matvec(tf.cast(visitors[:-1], tf.int32), tf.convert_to_tensor(layout.counts), transpose_a=True)
    bound = _lower_bound(embeddings, bank, written, k, visitors, layout)
    size = layout.order.shape[0]
    rank = sample_rank(k, sample_every(size))
    most = math.ceil(sample_every(size) * (rank + MOST_DEVIATIONS * math.sqrt(rank)))  # candidates of an image
    # Where the sample has too few rows of an image's cells, all of them are candidates, if they are not too many.
    hopeless = (held > most) & ~tf.math.is_finite(bound)
    bound = _unless(hopeless, bound)
    keys, rows, similarity, crowded = _candidates(embeddings, bank, bound, most, visitors, layout)
    failed = crowded | hopeless
    wanted = similarity >= tf.gather(_unless(failed, bound), keys % tf.size(bound))[:, None]
    wanted &= (rows >= 0) & rows_at(written, tf.maximum(rows, 0), tf.bool)
    keys = tf.boolean_mask(tf.broadcast_to(keys[:, None], tf.shape(rows)), wanted)
    table, columns, counts = table_of(
        keys, tf.boolean_mask(rows, wanted), tf.boolean_mask(similarity, wanted), tf.size(bound), size
    )
    table, columns = widened(table, columns, k)
    similarity, places = tf.math.top_k(table, k)
    rows = tf.gather(columns, places, batch_dims=1)
    return similarity, rows, failed | (counts < tf.minimum(held, k))


def _unless(hopeless, bound):
    """Returns `bound` `[B]`, for the images that are `hopeless` one that nothing reaches."""
    return tf.where(hopeless, tf.constant(float("inf"), bound.dtype), bound)


def _lower_bound(embeddings, bank, written, k, visitors, layout):
    """Returns for each image a similarity `[B]` that at least k rows of its cells most likely reach, or -inf.

    As in `neighbors`, but of every n-th row in the order of the cells, so that each cell is there by its size.
    """
    size = layout.order.shape[0]
    every = sample_every(size)
    places = rows_at(layout.order, tf.range(every // 2, size, every), tf.int32)
    allowed = tf.gather(visitors, _cells_of(places, layout, visitors))  # -1 is in no image's cells
    rows = tf.maximum(places, 0)
    allowed &= rows_at(written, rows, tf.bool)[:, None]
    similarity = tf.matmul(embeddings, rows_at(bank, rows, embeddings.dtype), transpose_b=True)
    return tf.math.top_k(only(tf.transpose(allowed), similarity), sample_rank(k, every))[0][:, -1]


def _candidates(embeddings, bank, bound, most, visitors, layout):
    """Returns all groups of neighbours in the order of the cells in which one reaches its image's bound.

    These are, for n groups of 8 rows: keys `[n]` (block x B + image, rising), rows `[n, 8]` (-1: none, or one that
    belongs to the block before) and similarities `[n, 8]`; and `[B]` bool: which images have more than `most`, of which
    the rest is not kept.
    """
    size, images = layout.order.shape[0], tf.size(bound)
    length, _ = blocks(size)
    bounds = tf.where(visitors, bound, tf.constant(float("inf"), bound.dtype))  # [C + 1, B]
    numbers, visiting, firsts, lasts = _visited_blocks(visitors, layout)
    turns = tf.size(numbers)

    def scan(turn, kept, keys, rows, similarities):
        number = numbers[turn]
        places, new = block_rows(number, size)
        block = rows_at(layout.order, places, tf.int32)
        here = tf.cast(tf.where(visiting[number]), tf.int32)[:, 0]  # the images that visit a cell of this block
        vectors = rows_at(bank, tf.maximum(block, 0), embeddings.dtype)
        similarity = tf.matmul(vectors, tf.gather(embeddings, here), transpose_b=True)  # [n, b]
        largest = tf.reduce_max(tf.reshape(similarity, [length // GROUP, GROUP, tf.size(here)]), axis=1)
        of_groups = _cells_of(block[::GROUP], layout, visitors) - firsts[number]
        least = tf.gather(tf.gather(bounds[firsts[number] : lasts[number] + 1], here, axis=1), of_groups)
        reached = (largest >= least) & (tf.gather(kept, here) <= most)
        hits = tf.cast(tf.where(tf.transpose(reached)), tf.int32)  # by image, then by row
        image = tf.gather(here, hits[:, 0])
        kept += tf.math.bincount(image, minlength=images)
        members = hits[:, 1:] * GROUP + tf.range(GROUP)
        values = tf.gather(tf.reshape(similarity, [-1]), members * tf.size(here) + hits[:, :1])
        found = tf.gather(tf.where(new, block, -1), members)
        keys = keys.write(turn, number * images + image)
        return turn + 1, kept, keys, rows.write(turn, found), similarities.write(turn, values)

    keys = tf.TensorArray(tf.int32, size=turns, element_shape=[None], infer_shape=False)
    rows, similarities = (
        tf.TensorArray(dtype, size=turns, element_shape=[None, GROUP], infer_shape=False)
        for dtype in (tf.int32, embeddings.dtype)
    )
    start = (0, tf.zeros_like(bound, tf.int32), keys, rows, similarities)
    _, kept, *found = tf.while_loop(lambda turn, *_: turn < turns, scan, start, parallel_iterations=2)
    return *(array.concat() for array in found), kept > most


def _visited_blocks(visitors, layout):
    """Returns the numbers of the blocks that an image visits; of all, which images `[blocks, B]`, first and last cells.

    visitors `[C + 1, B]` bool. The cells of a block are all from its first to its last.
    """
    size = layout.order.shape[0]
    length, count = blocks(size)
    begins = tf.minimum(tf.range(count) * length, size - length)
    firsts, lasts = (
        _cells_of(rows_at(layout.order, places, tf.int32), layout, visitors)  # a group's first place is a row
        for places in (begins, begins + length - GROUP)
    )
    before = tf.cumsum(tf.pad(tf.cast(visitors, tf.int32), [[1, 0], [0, 0]]))
    visiting = tf.gather(before, lasts + 1) > tf.gather(before, firsts)
    return tf.cast(tf.where(tf.reduce_any(visiting, axis=1)), tf.int32)[:, 0], visiting, firsts, lasts


def reaching(similarity, least):
    """Returns how many of `similarity` `[B, k]` reach `least` `[B]`, `[B]` int32.

    With the k-th largest similarity of all rows as `least` and the sum over replicas over k, it is the recall of B_i.
    """
    reached = (similarity >= least[:, None] - TOLERANCE) & (similarity != -math.inf)
    return tf.reduce_sum(tf.cast(reached, tf.int32), axis=1)


def recall(similarity, exact, replicas=None):
    """Returns the share `[B]` of B_i that was found, by the similarities `[B, c]` of what was found and of B_i.

    -inf is nobody's. Where B_i is spread over `replicas`, each gives its own, and all get the share of the whole.
    """
    of_all = (lambda counts: counts) if replicas is None else replicas.sum
    wanted = of_all(tf.reduce_sum(tf.cast(exact != -math.inf, tf.int32), axis=1))
    least = tf.reduce_min(tf.where(exact == -math.inf, tf.constant(math.inf, exact.dtype), exact), axis=1)
    if replicas is not None:
        least = tf.reduce_min(replicas.gather(least[None]), axis=0)
    found = tf.minimum(of_all(reaching(similarity, least)), wanted)
    return tf.cast(found, exact.dtype) / tf.cast(tf.maximum(wanted, 1), exact.dtype)


def loss_error(losses, exact):
    """Returns by how much the mean of `losses` `[B]` differs from that of `exact` `[B]`, relative to the latter."""
    wanted = tf.reduce_mean(exact)
    return tf.math.divide_no_nan(tf.abs(tf.reduce_mean(losses) - wanted), tf.abs(wanted))
