"""Anchors: the boxes at every position of a map from which the proposals are told (Ren et al. 2015, section 3.1.1)."""

import numpy as np
import tensorflow as tf


def base_anchors(scales, ratios, base=16):
    """Returns float64 anchors `[A, 4]` (x1, y1, x2, y2) around the centre of a square of `base` px at 0.

    The order is ratio by ratio (height / width), scale by scale. Sides are rounded for scale 1, as in TFR
    (lib/layer_utils/generate_anchors.py), so that areas are not quite (scale * base) ** 2.
    """
    ratios = np.asarray(ratios, np.float64)
    widths = np.round(np.sqrt(base**2 / ratios))
    heights = np.round(widths * ratios)
    sides = np.stack([widths, heights], axis=-1)[:, None, :] * np.asarray(scales, np.float64)[:, None]
    halves = (sides.reshape(-1, 2) - 1) / 2
    return np.concatenate([(base - 1) / 2 - halves, (base - 1) / 2 + halves], axis=-1)


def grid(base, size, stride, offset=0.0):
    """Returns float32 anchors `[h * w * A, 4]`, `base` `[A, 4]` at each position of a map, in the order (H, W, A).

    size: (h, w), positions of the map; stride: px from one position to the next. The anchors of position p have their
    centre at stride * p + offset + (stride - 1) / 2, which is where `base_anchors` has it if its base is the stride.
    """
    base = np.asarray(base, np.float64)
    centres = (base[:, :2] + base[:, 2:]) / 2
    moved = base + np.tile((stride - 1) / 2 + offset - centres, 2)
    height, width = size[0], size[1]
    y, x = (tf.cast(tf.range(positions), tf.float32) * stride for positions in (height, width))
    y, x = tf.meshgrid(y, x, indexing="ij")
    shifts = tf.stack([x, y, x, y], axis=-1)  # [h, w, 4]
    return tf.reshape(shifts[:, :, None, :] + tf.constant(moved, tf.float32), [-1, 4])
