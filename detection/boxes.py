"""Boxes: how much they overlap, and how one is told by another.

All are (x1, y1, x2, y2) in px with inclusive corners, 0-based: a width is x2 - x1 + 1, as in VOC and TFR.
"""

import math

import tensorflow as tf

LARGEST_LOG = math.log(1000 / 16)  # of a factor: what a box of 16 px needs to fill the longest side; exp stays finite


def iou(a, b):
    """Returns the intersection over union `[N, M]` of boxes `[N, 4]` and `[M, 4]`."""
    near = tf.maximum(a[:, None, :2], b[None, :, :2])
    far = tf.minimum(a[:, None, 2:], b[None, :, 2:])
    common = tf.reduce_prod(tf.maximum(far - near + 1, 0), axis=-1)
    return tf.math.divide_no_nan(common, areas(a)[:, None] + areas(b)[None, :] - common)


def edges(boxes):
    """Returns where boxes `[..., 4]` begin and end: what inclusive corners hold, as (x1, y1, x2 + 1, y2 + 1)."""
    return boxes + tf.constant([0.0, 0.0, 1.0, 1.0], boxes.dtype)


def within_edges(edges):
    """Returns the boxes `[..., 4]` with inclusive corners that begin and end at `edges`."""
    return edges - tf.constant([0.0, 0.0, 1.0, 1.0], edges.dtype)


def areas(boxes):
    """Returns the areas `[...]` of boxes `[..., 4]` in px; 0 where a corner is on the wrong side."""
    return tf.reduce_prod(tf.maximum(boxes[..., 2:] - boxes[..., :2] + 1, 0), axis=-1)


def encode(boxes, references):
    """Returns the deltas `[..., 4]` (dx, dy, dw, dh) that lead from references `[..., 4]` to boxes `[..., 4]`.

    dx, dy: way of the centre in widths and heights of the reference; dw, dh: logarithms of the factors (Girshick et
    al. 2014, appendix C).
    """
    centres, sides = _centres_and_sides(boxes)
    reference_centres, reference_sides = _centres_and_sides(references)
    return tf.concat([(centres - reference_centres) / reference_sides, tf.math.log(sides / reference_sides)], axis=-1)


def decode(deltas, references):
    """Returns the boxes `[..., 4]` to which deltas `[..., 4]` lead from references `[..., 4]`: `encode` undone.

    TFR's far corners lie 1 px further, which its encoding does not undo. No factor is above 1000 / 16.
    """
    reference_centres, reference_sides = _centres_and_sides(references)
    centres = reference_centres + deltas[..., :2] * reference_sides
    halves = tf.exp(tf.minimum(deltas[..., 2:], LARGEST_LOG)) * reference_sides / 2
    return tf.concat([centres - halves, centres + halves - 1], axis=-1)


def _centres_and_sides(boxes):
    """Returns the centres and the sides `[..., 2]` of boxes; the centre of pixel 0 is at 0.5."""
    sides = boxes[..., 2:] - boxes[..., :2] + 1
    return boxes[..., :2] + sides / 2, sides


def clip(boxes, size):
    """Returns boxes `[..., 4]` with every corner moved into a picture of `size` (height, width) px."""
    height, width = tf.unstack(tf.cast(size, boxes.dtype))
    return tf.clip_by_value(boxes, 0, tf.stack([width, height, width, height]) - 1)
