"""log sum_j exp(v̄_j · v_i / tau) over sets of rows of the bank: what the losses are made of (equations 1 to 3).

Neither [B, N] nor, where k is large, [B, k, D] is ever held. The gradient of such a sum with respect to v_i, the mean
of the rows weighted by their terms, is found along with it, so that the bank is passed through once.
"""

import math

import tensorflow as tf

from la_tf.neighbors import block_rows, blocks, only
from la_tf.picture_rows import rows_at

GATHERED_AT_ONCE = 2**15  # numbers of an image's rows, up to which those of all images are gathered together


def with_gradient(embeddings, find):
    """Returns log-sums `[B, s]` and counts `[B, c]` of `find(embeddings)`, which finds the gradients as well.

    find takes embeddings `[B, D]` and returns logs, gradients `[B, s, D]` and counts; no gradient is looked for within.
    """

    @tf.custom_gradient
    def summed(embeddings):
        logs, slopes, counts = find(embeddings)

        def gradient(of_logs, of_counts):
            return tf.einsum("bs,bsd->bd", of_logs, slopes)

        return (logs, counts), gradient

    return summed(embeddings)


def over_rows(embeddings, bank, tau, similarity, rows, sets):
    """Returns the log-sums `[B, s]` over s sets of given rows for each image, and the sets' sizes `[B, s]`.

    embeddings `[B, D]`, bank `[N, D]`; similarity `[B, k]` holds v̄_j · v_i for the `rows` j `[B, k]`, and each of the s
    `sets` `[B, k]` bool marks some of them. An empty set has -inf and no gradient.
    """
    return with_gradient(embeddings, lambda _: of_rows(bank, tau, similarity, rows, sets))


def of_rows(bank, tau, similarity, rows, sets):
    """Returns what `over_rows` does, with the gradients `[B, s, D]` between the two."""
    members = tf.stack(sets, axis=1)  # [B, s, k]
    logits = only(members, similarity[:, None, :] / tau)
    logs = tf.reduce_logsumexp(logits, axis=2)
    weights = tf.exp(logits - tf.where(logs == -math.inf, tf.zeros_like(logs), logs)[:, :, None])  # 0 if empty
    means = weighted_rows(weights, rows, bank) / tau
    return logs, means, tf.reduce_sum(tf.cast(members, tf.int32), axis=2)


def weighted_rows(weights, rows, bank):
    """Returns sum_j w_isj v̄_j `[B, s, D]` of weights `[B, s, k]` for rows `[B, k]`."""

    def of_images(weights, rows):
        return tf.matmul(weights, rows_at(bank, rows, weights.dtype))

    if rows.shape[1] is not None and rows.shape[1] * bank.shape[1] <= GATHERED_AT_ONCE:
        return of_images(weights, rows)
    return tf.map_fn(
        lambda image: of_images(*image),
        (weights, rows),
        fn_output_signature=tf.TensorSpec([weights.shape[1], bank.shape[1]], weights.dtype),
        parallel_iterations=2,
    )


def over_bank(embeddings, bank, tau, s, members):
    """Returns the log-sums `[B, s]` over s sets out of all rows for each image, and the sets' sizes `[B, s]`.

    embeddings `[B, D]`, bank `[N, D]`; members takes rows `[n]` and returns the s sets, each `[n, B]` or `[n, 1]` bool.
    An empty set has -inf and no gradient.
    """
    return with_gradient(embeddings, lambda embeddings: of_bank(embeddings, bank, tau, s, members))


def of_bank(embeddings, bank, tau, s, members):
    """Returns what `over_bank` does, with the gradients `[B, s, D]` between the two."""
    size, dtype = bank.shape[0], embeddings.dtype
    _, count = blocks(size)
    lowest = tf.constant(float("-inf"), dtype)

    def one_block(number, *sums):
        rows, new = block_rows(number, size)
        block = rows_at(bank, rows, dtype)
        logits = tf.matmul(block, embeddings, transpose_b=True) / tau  # [n, B]
        of_block = zip(members(rows), sums[:s], sums[s : 2 * s], sums[2 * s : 3 * s], sums[3 * s :], strict=True)
        added = [_added(only(member & new[:, None], logits), block, *before) for member, *before in of_block]
        return number + 1, *(part for parts in zip(*added, strict=True) for part in parts)

    images, dimension = tf.shape(embeddings)[0], bank.shape[1]
    start = [tf.fill([images], lowest)] * s + [tf.zeros([images], dtype)] * s
    start += [tf.zeros([images, dimension], dtype)] * s + [tf.zeros([images], tf.int32)] * s
    _, *sums = tf.while_loop(lambda number, *_: number < count, one_block, (0, *start), parallel_iterations=2)
    largest, terms, weighted = (tf.stack(sums[s * part : s * part + s], axis=1) for part in range(3))
    means = tf.math.divide_no_nan(weighted, terms[:, :, None]) / tau  # [B, s, D]
    return largest + tf.math.log(terms), means, tf.stack(sums[3 * s :], axis=1)


def _added(logits, block, largest, terms, weighted, count):
    """Returns the four running sums with a block's `logits` `[n, B]` (-inf: not a member) added, none overflowing."""
    highest = tf.maximum(largest, tf.reduce_max(logits, axis=0))
    shift = tf.where(tf.math.is_finite(highest), highest, tf.zeros_like(highest))  # while there is no member yet
    scale, new_terms = tf.exp(largest - shift), tf.exp(logits - shift)
    return (
        highest,
        terms * scale + tf.reduce_sum(new_terms, axis=0),
        weighted * scale[:, None] + tf.matmul(new_terms, block, transpose_a=True),
        count + tf.reduce_sum(tf.cast(tf.math.is_finite(logits), tf.int32), axis=0),
    )
