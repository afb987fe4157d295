"""Proposals: the boxes that the region proposal network takes for objects (Ren et al. 2015, section 3.3)."""

import tensorflow as tf

from detection import boxes


def proposals(scores, deltas, anchors, size, threshold=0.7, keep=2000, before_nms=None):
    """Returns boxes `[keep, 4]`, scores `[keep]`, best first and then zeros, and how many they are (int32 scalar).

    scores `[N]`; deltas `[N, 4]` from anchors `[N, 4]`; size: (height, width) of the picture in px, to which boxes are
    clipped. Of two boxes with an IoU above `threshold` the better one stays. As in TFR all anchors compete
    (lib/layer_utils/proposal_layer.py) and no box is too small; `before_nms` lets only so many of the best do. Anchors
    with a score or a delta that is not finite are left out. No gradient flows.
    """
    scores, deltas = tf.stop_gradient(scores), tf.stop_gradient(deltas)
    lowest = tf.constant(float("-inf"), scores.dtype)
    is_finite = tf.math.is_finite(scores) & tf.reduce_all(tf.math.is_finite(deltas), axis=-1)
    scores = tf.where(is_finite, scores, lowest)
    if before_nms is not None:
        scores, best = tf.math.top_k(scores, tf.minimum(before_nms, tf.size(scores)))
        deltas, anchors = tf.gather(deltas, best), tf.gather(anchors, best)
    decoded = boxes.clip(boxes.decode(deltas, anchors), size)
    chosen = suppressed(decoded, scores, threshold, keep)
    count = tf.size(chosen)
    missing = keep - count
    return (
        tf.ensure_shape(tf.pad(tf.gather(decoded, chosen), [[0, missing], [0, 0]]), [keep, 4]),
        tf.ensure_shape(tf.pad(tf.gather(scores, chosen), [[0, missing]]), [keep]),
        count,
    )


def suppressed(boxes_xyxy, scores, threshold, keep):
    """Returns int32 rows `[n]`, n <= keep, of the boxes `[N, 4]` that no better one suppresses, best first.

    A box does so to those whose IoU with it is above `threshold`; a score `[N]` of -inf takes no part.
    """
    with tf.device("CPU:0"):  # one box after the other: a GPU only waits
        return tf.image.non_max_suppression(boxes.edges(boxes_xyxy), scores, keep, threshold)
