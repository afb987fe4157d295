"""What the replicas of a bank that is spread over them find out together, none seeing another's rows.

Each has all images of the batch, `[B, D]`, and its own rows. What they exchange, numbers for each image, does not grow
with N: counts for the k-th largest similarity, log-sums, and one gradient `[B, D]`.
"""

import math

import tensorflow as tf

DIGIT = 8  # bits of a similarity that a round of counting settles
ROUNDS = 32 // DIGIT


def among_largest(similarity, k, replicas):
    """Returns `[B, c]` bool: which of this replica's similarities are among the k largest of all replicas', exactly.

    similarity `[B, c]` float32 holds what a replica has found, -inf where it has nothing, rows in order where they are
    equal; c may differ. Of equal ones those of the first replicas, and there the first, are taken. By radix: the
    replicas count, 8 bits of the numbers a round, how many they have of each, `[B, 256]`.
    """
    keys = _in_order(similarity)
    images = tf.shape(keys)[0]
    open_still = tf.ones_like(keys, tf.bool)  # those that agree with the k-th largest in all digits so far
    larger = tf.zeros_like(open_still)
    wanted = tf.fill([images], k)
    for number in range(ROUNDS):
        digits = tf.bitwise.bitwise_and(
            tf.bitwise.right_shift(keys, tf.constant(32 - DIGIT * (number + 1), tf.uint32)),
            tf.constant(2**DIGIT - 1, tf.uint32),
        )
        digits = tf.cast(digits, tf.int32)
        counts = replicas.sum(_counts(digits, open_still))
        from_above = tf.cumsum(counts, axis=1, reverse=True)  # of a digit or a larger one; falls along the row
        # The digit of the k-th: the largest that so many have or surpass. 0 where all there are do not suffice.
        enough = tf.reduce_sum(tf.cast(from_above >= wanted[:, None], tf.int32), axis=1)
        digit = tf.maximum(enough - 1, 0)
        here = tf.gather(from_above, digit, batch_dims=1) - tf.gather(counts, digit, batch_dims=1)
        larger |= open_still & (digits > digit[:, None])
        open_still &= digits == digit[:, None]
        wanted -= here
    equal = replicas.gather(tf.reduce_sum(tf.cast(open_still, tf.int32), axis=1)[None, :])  # [R, B]
    before = tf.reduce_sum(equal[: replicas.index], axis=0)
    left = (wanted - before)[:, None]
    taken = open_still & (tf.cumsum(tf.cast(open_still, tf.int32), axis=1) <= left)
    return (larger | taken) & (similarity != -math.inf)


def _in_order(similarity):
    """Returns uint32 numbers that are in the order of the float32 `similarity`; 0.0 and -0.0 are one."""
    bits = tf.bitcast(tf.where(similarity == 0, tf.zeros_like(similarity), similarity), tf.uint32)
    sign = tf.constant(2**31, tf.uint32)
    negative = tf.bitwise.bitwise_and(bits, sign) > 0
    return tf.where(negative, tf.bitwise.invert(bits), tf.bitwise.bitwise_or(bits, sign))


def _counts(digits, counted):
    """Returns `[B, 256]` int32: how many of the `counted` `[B, c]` have each of `digits` `[B, c]`."""
    images = tf.shape(digits)[0]
    places = digits + 2**DIGIT * tf.range(images)[:, None]
    found = tf.math.bincount(tf.boolean_mask(places, counted), minlength=images * 2**DIGIT, maxlength=images * 2**DIGIT)
    return tf.reshape(found, [images, 2**DIGIT])


def log_sums(embeddings, indices, find, replicas):
    """Returns log-sums `[b, s]` and counts `[b, c]` over all replicas' rows, for this replica's images.

    embeddings `[b, D]` of the pictures `indices` `[b]`. find takes those of the whole batch, `[B, D]` and `[B]`, and
    returns what the replica's own rows make of them: log-sums `[B, s]`, their gradients `[B, s, D]`, counts `[B, c]`.
    """
    indices = replicas.gather(indices)

    @tf.custom_gradient
    def summed(embeddings):
        logs, slopes, counts = find(replicas.gather(embeddings), indices)
        of_replicas = replicas.gather(logs[None])  # [R, B, s]
        total = tf.reduce_logsumexp(of_replicas, axis=0)
        share = tf.exp(logs - tf.where(total == -math.inf, tf.zeros_like(total), total))  # 0 if empty

        def gradient(of_logs, of_counts):
            of_batch = replicas.gather(of_logs)
            return replicas.own(replicas.sum(tf.einsum("bs,bsd->bd", of_batch * share, slopes)))

        return (replicas.own(total), replicas.own(replicas.sum(counts))), gradient

    return summed(embeddings)


def similarities(embeddings, indices, rows_of, replicas):
    """Returns v̄_j · v_i `[b, n]` for the rows j of `indices` `[b, n]`, whoever owns them.

    rows_of takes `[B, n]` such indices and returns the rows `[B, n, D]`, zeros in place of those of other replicas.
    """
    indices = replicas.gather(indices)

    @tf.custom_gradient
    def found(embeddings):
        rows = rows_of(indices)
        products = tf.einsum("bd,bnd->bn", replicas.gather(embeddings), rows)

        def gradient(of_products):
            of_batch = replicas.gather(of_products)
            return replicas.own(replicas.sum(tf.einsum("bn,bnd->bd", of_batch, rows)))

        return replicas.own(replicas.sum(products)), gradient

    return found(embeddings)
