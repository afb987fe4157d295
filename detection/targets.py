"""What the networks are to learn from a picture: sampled anchors and sampled proposals, and the boxes they stand for.

For one picture each, with outputs of a fixed size. True boxes are `boxes` `[G, 4]` px with `classes` `[G]`, where
class 0 is padding. Rows are drawn by `seed`, int32 `[2]`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from detection.boxes import encode, iou


@dataclass(frozen=True)
class AnchorRules:
    """Which anchors are objects and which are not, by their IoU with a true box, and how many are looked at."""

    positive: float = 0.7
    negative: float = 0.3  # below
    batch: int = 256
    positive_fraction: float = 0.5  # at most
    across_border: bool = False  # whether those count that reach beyond the picture


@dataclass(frozen=True)
class RoiRules:
    """Which proposals are objects and which are background, by their IoU with a true box, and how many are drawn."""

    rois: int = 256
    foreground_fraction: float = 0.25  # at most, where there is background as well
    foreground: float = 0.5  # below, it is background
    background_low: float = 0.0
    stds: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)  # what deltas are divided by
    append_truth: bool = False  # the true boxes are proposals as well


class AnchorTargets(NamedTuple):
    """S sampled anchors of a picture, positive ones first."""

    rows: tf.Tensor  # int32 [S]; 0 where fewer are sampled
    is_object: tf.Tensor  # bool [S]
    sampled: tf.Tensor  # bool [S]
    deltas: tf.Tensor  # [S, 4], 0 where there is no object


class RoiTargets(NamedTuple):
    """R drawn proposals of a picture, foreground first."""

    boxes: tf.Tensor  # [R, 4] px
    labels: tf.Tensor  # int32 [R]; 0: background
    deltas: tf.Tensor  # [R, 4], divided by the rules' stds; 0 for background
    counted: tf.Tensor  # bool [R]: all, or none where nothing is to be learnt
    foreground: tf.Tensor  # int32 scalar: how many


def anchor_targets(anchors, size, boxes, classes, seed, rules):
    """Returns the AnchorTargets of anchors `[N, 4]` in a picture of `size` (height, width) px, with S = rules.batch.

    Positive: an IoU of `rules.positive`, or the best of all anchors for some box (all of them, where several are);
    negative: below `rules.negative` and not positive. Only anchors inside the picture are either, unless
    `rules.across_border`. Deltas lead to the box that overlaps the anchor most (TFR
    lib/layer_utils/anchor_target_layer.py).
    """
    boxes, classes = _with_padding(boxes, classes)
    overlaps, nearest, inside = _anchor_overlaps(anchors, size, boxes, classes, rules.across_border)
    most = tf.reduce_max(overlaps, axis=1)
    best = tf.reduce_max(overlaps, axis=0)
    # A box that no anchor touches has no best one: all would be equally good.
    is_best = tf.reduce_any((overlaps == best) & (best > 0), axis=1)
    positive = inside & ((most >= rules.positive) | is_best)
    negative = inside & (most < rules.negative) & ~positive

    seeds = tf.random.split(seed)
    most_positive = int(rules.positive_fraction * rules.batch)
    objects, is_object = shuffled(positive, most_positive, seeds[0])
    others, is_other = shuffled(negative, rules.batch, seeds[1])
    rows, sampled = tf.concat([objects, others], 0), tf.concat([is_object, is_other], 0)
    order = tf.math.top_k(tf.cast(sampled, tf.int32), rules.batch)[1]  # of equals the first: positive ones
    rows, sampled = tf.gather(rows, order), tf.gather(sampled, order)
    is_object = sampled & (order < most_positive)
    deltas = encode(tf.gather(boxes, tf.gather(nearest, rows)), tf.gather(anchors, rows))
    return AnchorTargets(rows, is_object, sampled, tf.where(is_object[:, None], deltas, 0))


def _anchor_overlaps(anchors, size, boxes, classes, across_border):
    """Returns IoUs `[N, G]`, -1 where an anchor is outside or a box is padding, the nearest `[N]`, inside `[N]`.

    across_border: none is outside.
    """
    height, width = tf.unstack(tf.cast(size, anchors.dtype))
    limits = tf.stack([width, height])
    inside = tf.reduce_all(anchors[:, :2] >= 0, axis=1) & tf.reduce_all(anchors[:, 2:] < limits, axis=1)
    inside |= across_border
    overlaps = tf.where(inside[:, None] & (classes > 0), iou(anchors, boxes), -1)
    return overlaps, tf.argmax(overlaps, axis=1, output_type=tf.int32), inside


def roi_targets(proposals, count, boxes, classes, seed, rules):
    """Returns the RoiTargets of the first `count` of proposals `[P, 4]`, with R = rules.rois, always full.

    Where there is no background, foreground fills all places. Where there are fewer than wanted, they are drawn with
    replacement. A proposal stands for the box that overlaps it most (TFR lib/layer_utils/proposal_target_layer.py).
    """
    boxes, classes = _with_padding(boxes, classes)
    is_proposal = tf.range(tf.shape(proposals)[0]) < count
    if rules.append_truth:
        proposals = tf.concat([proposals, boxes], axis=0)
        is_proposal = tf.concat([is_proposal, classes > 0], axis=0)
    overlaps = tf.where(classes > 0, iou(proposals, boxes), 0)
    overlap = tf.reduce_max(overlaps, axis=1)
    is_foreground = is_proposal & (overlap >= rules.foreground)
    is_background = is_proposal & ~is_foreground & (overlap >= rules.background_low)

    seeds = tf.random.split(seed)
    most = round(rules.foreground_fraction * rules.rois)
    available = tf.reduce_sum(tf.cast(is_foreground, tf.int32))
    any_background = tf.reduce_any(is_background)
    foreground = tf.where(any_background, tf.minimum(most, available), tf.where(available > 0, rules.rois, 0))
    place = tf.range(rules.rois)
    front = drawn(is_foreground, foreground, rules.rois, seeds[0])
    back = drawn(is_background, rules.rois - foreground, rules.rois, seeds[1])
    is_object = place < foreground
    rows = tf.where(is_object, front, tf.gather(back, tf.maximum(place - foreground, 0)))

    nearest = tf.gather(tf.argmax(overlaps, axis=1, output_type=tf.int32), rows)
    chosen = tf.gather(proposals, rows)
    deltas = encode(tf.gather(boxes, nearest), chosen) / tf.constant(rules.stds, boxes.dtype)
    labels = tf.where(is_object, tf.cast(tf.gather(classes, nearest), tf.int32), 0)
    counted = tf.fill([rules.rois], any_background | (available > 0))
    return RoiTargets(chosen, labels, tf.where(is_object[:, None], deltas, 0), counted, foreground)


def _with_padding(boxes, classes):
    """Returns them with one padding box more: there is always one to point at, even where G is 0."""
    return tf.pad(boxes, [[0, 1], [0, 0]]), tf.pad(classes, [[0, 1]])


def shuffled(candidates, length, seed):
    """Returns rows `[length]` of a random order of the true ones of candidates `[N]`, and which are such a row.

    The rest is row 0.
    """
    draws = tf.random.stateless_uniform(tf.shape(candidates), seed)
    keys = tf.pad(tf.where(candidates, draws, -1.0), [[0, length]], constant_values=-1.0)
    keys, rows = tf.math.top_k(keys, length)
    is_row = keys >= 0
    return tf.where(is_row, rows, 0), is_row


def drawn(candidates, wanted, length, seed):
    """Returns rows `[length]`, the first `wanted` of which are true ones of candidates `[N]`, drawn at random.

    Without replacement where there are as many. Where there is none at all, they are 0.
    """
    seeds = tf.random.split(seed)
    rows, is_row = shuffled(candidates, length, seeds[0])
    available = tf.reduce_sum(tf.cast(is_row, tf.int32))
    again = tf.random.stateless_uniform([length], seeds[1], 0, tf.maximum(available, 1), tf.int32)
    return tf.where(available < wanted, tf.gather(rows, again), rows)


def proposal_recall(proposals, count, boxes, classes, threshold=0.5):
    """Returns the share of a picture's true boxes that one of the first `count` of proposals `[P, 4]` covers.

    Covered: with an IoU of `threshold`. The second result is the number of boxes (float32), by which shares are to be
    weighted in a mean; without any, both are 0.
    """
    is_proposal = tf.range(tf.shape(proposals)[0]) < count
    covered = tf.reduce_any((iou(proposals, boxes) >= threshold) & is_proposal[:, None], axis=0) & (classes > 0)
    number = tf.reduce_sum(tf.cast(classes > 0, tf.float32))
    return tf.math.divide_no_nan(tf.reduce_sum(tf.cast(covered, tf.float32)), number), number
