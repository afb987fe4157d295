"""Who stands near whom: background neighbours B_i by similarity, close neighbours C_i by clusters (section 3.1).

B_i is found exactly without ever holding [B, N] similarities, and without a sort of N numbers. A sample of the bank
gives a lower bound of an image's k-th largest similarity; one pass over the bank, block by block, keeps what reaches it
(the candidates, one to two k); the k largest of those are B_i. An image whose bound fails is sorted out over the whole
bank, few of them at a time, and counted.
"""

import math

import tensorflow as tf

from la_tf.picture_rows import rows_at

BLOCK = 4096  # rows of the bank at a time: they and their similarities stay in the cache
GROUP = 8  # neighbouring rows of which the largest similarity is looked at before each of them is
SAMPLE_EVERY = 32  # every so many rows are in the sample, or more seldom:
MOST_SAMPLED = 2**16  # rows, so that the sample's similarities do not grow with N
SAMPLE_DEVIATIONS = 4.0  # the bound lies so much lower than expected: about one in 30,000 fails
MOST_DEVIATIONS = 6.0  # candidates beyond what is expected; more are not kept: ties without end, as in a collapsed bank
SIMILARITIES_AT_ONCE = 2**23  # where all similarities of an image are needed, as many images as make so many
LEAST_ROWS = 2**14  # below, sorting all similarities is as fast


def blocks(size):
    """Returns how many rows a block has and how many blocks cover `size` of them."""
    length = min(BLOCK, size)
    return length, math.ceil(size / length)


def block_rows(number, size):
    """Returns the rows of block `number`, and which of them were in no block before (the last one reaches back)."""
    length, _ = blocks(size)
    rows = tf.minimum(number * length, size - length) + tf.range(length)
    return rows, rows >= number * length


def background_neighbors(embeddings, bank, written, k, inside=None):
    """Returns similarities and rows `[B, k]` of the k written rows most similar to each embedding (B_i); `[B]` bool.

    embeddings `[B, D]`, bank `[N, D]`, written `[N]` bool; inside, where given, takes rows `[n]` and returns which of
    them may be in each B_i, `[n, B]` bool. Similarities fall, ties go to the lowest index. Where there are fewer than
    k such rows, the rest has similarity -inf and so no weight in any log-sum-exp. The last result marks the images for
    which the bound failed; they took the long way to the same result. No gradient flows: see `log_sums.over_rows`.
    """
    size, embeddings = bank.shape[0], tf.stop_gradient(embeddings)
    if size < LEAST_ROWS or k > size // sample_every(size):
        failed = tf.zeros([tf.shape(embeddings)[0]], tf.bool)
        similarity, rows = by_sorting(embeddings, bank, written, k, inside)
    else:
        similarity, rows, failed = _by_bound(embeddings, bank, written, k, inside)
        similarity, rows = mended(similarity, rows, failed, embeddings, bank, written, k, inside)
    for found in (similarity, rows):  # what comes out of a loop has forgotten its shape
        found.set_shape([embeddings.shape[0], k])
    return similarity, rows, failed


def by_sorting(embeddings, bank, written, k, inside):
    """Returns similarities and rows `[B, k]` from all N similarities of an image, for few images at a time."""
    at_once = max(1, SIMILARITIES_AT_ONCE // bank.shape[0])
    if embeddings.shape[0] is not None and embeddings.shape[0] <= at_once:
        return _sorted_out(embeddings, bank, written, k, inside, tf.range(embeddings.shape[0]))
    count = tf.shape(embeddings)[0]
    turns = (count + at_once - 1) // at_once

    def turn(number, similarity, rows):
        images = tf.range(number * at_once, tf.minimum((number + 1) * at_once, count))
        found = _sorted_out(tf.gather(embeddings, images), bank, written, k, inside, images)
        return number + 1, similarity.write(number, found[0]), rows.write(number, found[1])

    similarity, rows = (
        tf.TensorArray(dtype, size=turns, element_shape=[None, k], infer_shape=False)
        for dtype in (embeddings.dtype, tf.int32)
    )
    _, similarity, rows = tf.while_loop(
        lambda number, *_: number < turns, turn, (0, similarity, rows), parallel_iterations=1
    )
    return similarity.concat(), rows.concat()


def _sorted_out(embeddings, bank, written, k, inside, images):
    """Returns similarities and rows `[n, k]` of `embeddings` `[n, D]`, those of the batch's `images` `[n]`."""
    size = bank.shape[0]
    length, count = blocks(size)

    def similarities(number):
        rows, new = block_rows(number, size)
        similarity = tf.matmul(rows_at(bank, rows, embeddings.dtype), embeddings, transpose_b=True)  # [n, B]
        allowed = rows_at(written, rows, tf.bool)[:, None]
        if inside is not None:
            allowed &= tf.gather(inside(rows), images, axis=1)
        return tf.boolean_mask(only(allowed, similarity), new) if size % length else only(allowed, similarity)

    if count == 1:
        similarity = similarities(0)
    else:
        found = tf.TensorArray(embeddings.dtype, size=count, element_shape=[None, None], infer_shape=False)
        _, found = tf.while_loop(
            lambda number, _: number < count,
            lambda number, found: (number + 1, found.write(number, similarities(number))),
            (0, found),
            parallel_iterations=1,
        )
        similarity = found.concat()
    return tf.math.top_k(tf.transpose(similarity), k)


def mended(similarity, rows, failed, embeddings, bank, written, k, inside):
    """Returns similarities and rows `[B, c]`, for an image that `failed` `[B]` its k found by sorting; then c >= k."""

    def by_images():
        wide = widened(similarity, rows, k)
        images = tf.cast(tf.where(failed), tf.int32)
        few = images[:, 0]
        right = None if inside is None else lambda rows: tf.gather(inside(rows), few, axis=1)
        found = by_sorting(tf.gather(embeddings, few), bank, written, k, right)
        found = widened(*found, tf.shape(wide[0])[1])
        return tuple(tf.tensor_scatter_nd_update(old, images, new) for old, new in zip(wide, found, strict=True))

    return tf.cond(tf.reduce_any(failed), by_images, lambda: (similarity, rows))


def widened(similarity, rows, k):
    """Returns similarities and rows `[B, c]` in k columns at least, those that were missing with -inf and row 0."""
    missing = [[0, 0], [0, tf.maximum(k - tf.shape(similarity)[1], 0)]]
    return tf.pad(similarity, missing, constant_values=float("-inf")), tf.pad(rows, missing)


def neighbors_of_part(embeddings, bank, written, k, replicas, inside=None):
    """Returns those of one replica's rows that may be among the k of all replicas' most similar to each embedding.

    bank `[S, D]`, written `[S]` are the replica's own. Returns similarities and rows `[B, c]`, -inf where there are no
    more, equal ones by rising rows; `across_replicas.among_largest` tells the k. The last result is that of
    `background_neighbors`. The bound is that of all rows, so the replicas together keep one to two k.
    """
    size, embeddings = bank.shape[0], tf.stop_gradient(embeddings)
    own_k = min(k, size)
    if not sampled_largest(size, k, replicas.count):
        similarity, rows = by_sorting(embeddings, bank, written, own_k, inside)
        return similarity, rows, tf.zeros([tf.shape(embeddings)[0]], tf.bool)
    largest = _largest_of_sample(embeddings, bank, written, k, inside)  # [B, rank]
    of_all = tf.concat(tf.split(replicas.gather(largest[None]), replicas.count), axis=2)[0]  # [B, R rank]
    rank = min(sample_rank(k, sample_every(size)), replicas.count * largest.shape[1])
    bound = tf.math.top_k(of_all, rank)[0][:, -1]
    table, columns, counts, crowded = _candidate_table(embeddings, bank, written, bound, k, inside)
    enough, crowded = replicas.sum([counts, tf.cast(crowded, tf.int32)])
    failed = (crowded > 0) | (enough < k)
    similarity, rows = mended(table, columns, failed, embeddings, bank, written, own_k, inside)
    return similarity, rows, failed


def _by_bound(embeddings, bank, written, k, inside):
    """Returns similarities and rows `[B, k]`, and for which images `[B]` they are not to be used."""
    bound = _largest_of_sample(embeddings, bank, written, k, inside)[:, -1]
    table, columns, counts, crowded = _candidate_table(embeddings, bank, written, bound, k, inside)
    failed = crowded | (counts < k)
    # Candidates stand in the order of their rows, and top_k takes the first of equals. Images without enough of them
    # are to be mended: row 0 will do.
    table, columns = widened(table, columns, k)
    similarity, places = tf.math.top_k(table, k)
    return similarity, tf.gather(columns, places, batch_dims=1), failed


def _candidate_table(embeddings, bank, written, bound, k, inside):
    """Returns all that reaches the bound as a table (`table_of`), and which images `[B]` have too many."""
    keys, rows, similarity, crowded = _candidates(embeddings, bank, bound, k, inside)
    # Of an image that is to be sorted out nothing is wanted: with too many candidates it would widen the table for all.
    bound = tf.where(crowded, tf.constant(float("inf"), bound.dtype), bound)
    wanted = (similarity >= tf.gather(bound, keys % tf.size(bound))[:, None]) & (rows >= 0)
    wanted &= rows_at(written, tf.maximum(rows, 0), tf.bool)
    keys = tf.boolean_mask(tf.broadcast_to(keys[:, None], tf.shape(rows)), wanted)
    found = tf.boolean_mask(rows, wanted), tf.boolean_mask(similarity, wanted)
    return *table_of(keys, *found, tf.size(bound), bank.shape[0]), crowded


def _largest_of_sample(embeddings, bank, written, k, inside):
    """Returns for each image falling similarities `[B, r]`, of which at least k rows most likely reach the last.

    -inf where the sample has none. In a sample of every n-th row the k-th largest similarity of all has a rank of about
    k / n, with a deviation of the root of that.
    """
    every = sample_every(bank.shape[0])
    rows = tf.range(every // 2, bank.shape[0], every)
    similarity = tf.matmul(embeddings, rows_at(bank, rows, embeddings.dtype), transpose_b=True)
    allowed = rows_at(written, rows, tf.bool)[None, :]
    if inside is not None:
        allowed &= tf.transpose(inside(rows))
    return tf.math.top_k(only(allowed, similarity), min(sample_rank(k, every), rows.shape[0]))[0]


def sampled_largest(size, k, replicas):
    """Returns how many similarities of an image each of R `replicas` with `size` (S) rows tells for the bound, or 0."""
    every = sample_every(size)
    return 0 if size < LEAST_ROWS or k > size * replicas // every else min(sample_rank(k, every), size // every)


def sample_every(size):
    return max(SAMPLE_EVERY, math.ceil(size / MOST_SAMPLED))


def sample_rank(k, every):
    expected = k / every
    return math.ceil(expected + SAMPLE_DEVIATIONS * math.sqrt(expected)) + 1


def _candidates(embeddings, bank, bound, k, inside):
    """Returns all groups of rows in which one reaches its image's bound.

    These are, for n groups of 8 rows: keys `[n]` (block x B + image, rising), rows `[n, 8]` (-1 for one that belongs to
    the block before) and similarities `[n, 8]`; and `[B]` bool: which images have more than are kept.
    """
    size, images = bank.shape[0], tf.size(bound)
    length, count = blocks(size)
    every = sample_every(size)
    rank = sample_rank(k, every)
    most = math.ceil(every * (rank + MOST_DEVIATIONS * math.sqrt(rank)))
    # No bound, no candidates: such images are sorted out.
    hopeless = ~tf.math.is_finite(bound)

    def scan(number, kept, keys, rows, similarities):
        block, new = block_rows(number, size)
        similarity = tf.matmul(rows_at(bank, block, embeddings.dtype), embeddings, transpose_b=True)  # [n, B]
        if inside is not None:
            similarity = only(inside(block), similarity)
        largest = tf.reduce_max(tf.reshape(similarity, [length // GROUP, GROUP, images]), axis=1)
        reached = (largest >= bound) & (kept <= most)
        kept += tf.reduce_sum(tf.cast(reached, tf.int32), axis=0)
        hits = tf.cast(tf.where(tf.transpose(reached)), tf.int32)  # by image, then by row
        members = hits[:, 1:] * GROUP + tf.range(GROUP)
        values = tf.gather(tf.reshape(similarity, [-1]), members * images + hits[:, :1])
        numbers = tf.gather(tf.where(new, block, -1), members)
        keys = keys.write(number, number * images + hits[:, 0])
        return number + 1, kept, keys, rows.write(number, numbers), similarities.write(number, values)

    kept = tf.where(hopeless, most + 1, 0)
    keys = tf.TensorArray(tf.int32, size=count, element_shape=[None], infer_shape=False)
    rows, similarities = (
        tf.TensorArray(dtype, size=count, element_shape=[None, GROUP], infer_shape=False)
        for dtype in (tf.int32, embeddings.dtype)
    )
    _, kept, *found = tf.while_loop(
        lambda number, *_: number < count, scan, (0, kept, keys, rows, similarities), parallel_iterations=2
    )
    return *(array.concat() for array in found), kept > most


def table_of(keys, rows, similarity, images, size):
    """Returns candidates as a table: similarities `[B, c]` (-inf where there are no more), rows `[B, c]`, counts `[B]`.

    keys `[n]` (block x B + image) rise, so each image's candidates come block by block.
    """
    in_block = tf.math.bincount(keys, minlength=images * blocks(size)[1])
    before = tf.cumsum(in_block, exclusive=True)  # of all images
    by_image = tf.reshape(in_block, [-1, images])
    counts = tf.reduce_sum(by_image, axis=0)
    own_before = tf.reshape(tf.cumsum(by_image, axis=0, exclusive=True), [-1])
    width = tf.reduce_max(counts)
    column = tf.range(tf.size(keys)) + tf.gather(own_before - before, keys)
    places = (keys % images * width + column)[:, None]
    lowest = tf.fill([images * width], tf.constant(float("-inf"), similarity.dtype))
    table = tf.tensor_scatter_nd_update(lowest, places, similarity)
    columns = tf.scatter_nd(places, rows, [images * width])
    return tf.reshape(table, [images, width]), tf.reshape(columns, [images, width]), counts


def only(allowed, similarity):
    """Returns `similarity` with -inf where it is not `allowed`."""
    return tf.where(allowed, similarity, tf.constant(float("-inf"), similarity.dtype))


def close_among(neighbors, indices, cluster_labels, own_labels=None):
    """Returns `[B, k]` bool: which of the background `neighbors` `[B, k]` are close neighbours of `indices` `[B]`.

    A row is close when any of the H clusterings, `cluster_labels` `[N, H]`, puts it into the cluster of the image's
    own index, so an image is always close to itself. Label -1 (no cluster yet) matches nothing. Intersecting here
    is exact: the loss needs C_i only within B_i (equation 3). own_labels `[B, H]` are those of the images where not
    all of their rows are at hand.
    """
    own_labels = _labels(indices, cluster_labels, own_labels)[:, None, :]  # [B, 1, H]
    their_labels = rows_at(cluster_labels, neighbors, own_labels.dtype)  # [B, k, H]
    same_cluster = tf.reduce_any((their_labels == own_labels) & (own_labels >= 0), axis=2)
    return same_cluster | is_own_row(neighbors, indices)


def cluster_mates(rows, indices, cluster_labels, own_labels=None):
    """Returns `[n, B]` bool: which `rows` `[n]` share a cluster with `indices` `[B]` in any clustering of `[N, H]`.

    own_labels as of `close_among`.
    """
    mates = rows[:, None] == tf.cast(indices, rows.dtype)
    own_labels = _labels(indices, cluster_labels, own_labels)
    their_labels = rows_at(cluster_labels, rows, own_labels.dtype)
    for own, theirs in zip(tf.unstack(own_labels, axis=1), tf.unstack(their_labels, axis=1), strict=True):
        mates |= (theirs[:, None] == own) & (own >= 0)  # one by one: [n, B, H] would be large
    return mates


def _labels(indices, cluster_labels, own_labels):
    return rows_at(cluster_labels, indices, cluster_labels.dtype) if own_labels is None else own_labels


def is_own_row(neighbors, indices):
    """Returns `[B, k]` bool: where `neighbors` `[B, k]` names the image itself, `indices` `[B]`."""
    return neighbors == tf.cast(indices, neighbors.dtype)[:, None]
