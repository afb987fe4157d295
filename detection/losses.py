"""The four losses of Faster R-CNN, per picture: classes and boxes of the sampled anchors and of the drawn proposals."""

import tensorflow as tf


def smooth_l1(difference, beta):
    """Returns sums `[...]` over the last axis of difference `[..., n]`: squares / (2 beta) up to beta, then straight.

    TFR's sigma is 1 / sqrt(beta). With beta 0 it is the sum of magnitudes.
    """
    size = tf.abs(difference)
    if beta == 0:
        return tf.reduce_sum(size, axis=-1)
    return tf.reduce_sum(tf.where(size < beta, size**2 / (2 * beta), size - beta / 2), axis=-1)


def rpn_losses(logits, deltas, targets, beta):
    """Returns the RPN's losses of class and of box, `[B]` each, at the S sampled anchors of each picture.

    logits `[B, S, 2]` (background, object) and deltas `[B, S, 4]` are those of `targets.rows`; targets: AnchorTargets
    of the batch, `[B, S, ...]`. Both are sums divided by the number of sampled anchors (TFR lib/nets/network.py,
    _add_losses); 0 where there is none.
    """
    of_class = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(targets.is_object, tf.int32), logits)
    of_box = smooth_l1(deltas - targets.deltas, beta)
    return _mean(of_class, targets.sampled, targets.sampled), _mean(of_box, targets.is_object, targets.sampled)


def roi_losses(logits, deltas, targets, beta):
    """Returns the RoI head's losses of class and of box, `[B]` each, at the R proposals of each picture.

    logits `[B, R, C + 1]`; deltas `[B, R, C + 1, 4]`, of which those of the target's class count; targets: RoiTargets
    of the batch, `[B, R, ...]`. Both are sums divided by the number of proposals, background included.
    """
    of_class = tf.nn.sparse_softmax_cross_entropy_with_logits(targets.labels, logits)
    of_box = smooth_l1(tf.gather(deltas, targets.labels, batch_dims=2) - targets.deltas, beta)
    is_object = targets.counted & (targets.labels > 0)
    return _mean(of_class, targets.counted, targets.counted), _mean(of_box, is_object, targets.counted)


def _mean(values, taken, counted):
    """Returns the sums `[B]` of values `[B, n]` that are `taken`, divided by how many are `counted`."""
    sums = tf.reduce_sum(tf.where(taken, values, 0), axis=-1)
    return tf.math.divide_no_nan(sums, tf.reduce_sum(tf.cast(counted, values.dtype), axis=-1))
