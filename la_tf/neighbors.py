"""Who stands near whom: background neighbours B_i by similarity, close neighbours C_i by clusters (section 3.1)."""

import tensorflow as tf


def similarities(embeddings, bank):
    """Returns v̄_j · v_i for every row of the bank, `[B, N]`, from `[B, D]` and `[N, D]`."""
    return tf.matmul(embeddings, bank, transpose_b=True)


def background_neighbors(similarity, written, k):
    """Returns similarities and indices `[B, k]` of the k written rows most similar to each embedding (B_i).

    similarity is `[B, N]`, written `[N]` bool. Ties go to the lowest index. Where fewer than k rows are written, the
    rest has similarity -inf and so no weight in any log-sum-exp.
    """
    lowest = tf.constant(float("-inf"), similarity.dtype)
    return tf.math.top_k(tf.where(written[None, :], similarity, lowest), k)


def close_among(neighbors, indices, cluster_labels):
    """Returns `[B, k]` bool: which of the background `neighbors` `[B, k]` are close neighbours of `indices` `[B]`.

    A row is close when any of the H clusterings, `cluster_labels` `[N, H]`, puts it into the cluster of the image's
    own index, so an image is always close to itself. Label -1 (no cluster yet) matches nothing. Intersecting here
    is exact: the loss needs C_i only within B_i (equation 3).
    """
    own_labels = tf.gather(cluster_labels, indices)[:, None, :]  # [B, 1, H]
    their_labels = tf.gather(cluster_labels, neighbors)  # [B, k, H]
    same_cluster = tf.reduce_any((their_labels == own_labels) & (own_labels >= 0), axis=2)
    return same_cluster | is_own_row(neighbors, indices)


def cluster_mates(indices, cluster_labels):
    """Returns `[B, N]` bool: which of all rows share a cluster with `indices` `[B]` in any clustering of `[N, H]`."""
    mates = is_own_row(tf.range(tf.shape(cluster_labels)[0])[None, :], indices)
    for labels in tf.unstack(cluster_labels, axis=1):  # one by one: [B, N, H] would not fit at large N
        own = tf.gather(labels, indices)[:, None]
        mates |= (labels[None, :] == own) & (own >= 0)
    return mates


def nearest(similarity, k):
    """Returns `[B, c]` bool: which k of each row of `similarity` `[B, c]` are the largest; ties to the lowest index."""
    _, columns = tf.math.top_k(similarity, k)
    batch = tf.broadcast_to(tf.range(tf.shape(columns)[0])[:, None], tf.shape(columns))
    places = tf.reshape(tf.stack([batch, columns], axis=-1), [-1, 2])
    chosen = tf.scatter_nd(places, tf.ones([tf.shape(places)[0]], tf.int32), tf.shape(similarity))
    return chosen > 0


def is_own_row(neighbors, indices):
    """Returns `[B, k]` bool: where `neighbors` `[B, k]` names the image itself, `indices` `[B]`."""
    return neighbors == tf.cast(indices, neighbors.dtype)[:, None]
