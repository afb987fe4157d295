"""RoI pooling: every box becomes `side` x `side` positions, by bilinear interpolation of its picture's map.

The maps of a batch are padded to one size. Nothing that is read from them depends on it, not even the last bit: the
positions beyond a picture's own are copies of its last ones, and the sides are such that TensorFlow's relative
coordinates are exact. No gradient flows to the boxes.
"""

import tensorflow as tf

from detection.boxes import edges

ROUNDING = 1e-4  # positions: a point on a map's edge is not outside for the rounding of its coordinates
POWERS = [2**exponent for exponent in range(16)]


def legacy_crop(features, boxes_xyxy, rows, sizes, side, stride, offset=0.0):
    """Returns `[n, side, side, C]`: values at points from corner to corner of each box, as TFR takes them.

    features `[B, h, w, C]`; boxes_xyxy `[n, 4]` px, inclusive corners; rows `[n]`: picture of each box; sizes
    `[B, 2]`: positions (height, width) of each map that are not padding. The value of position p is taken to be at
    stride * p + offset px (TFR lib/nets/network.py, _crop_pool_layer). A point beyond the map gives 0.
    """
    x1, y1, x2, y2 = tf.unstack((boxes_xyxy - offset) / stride, axis=-1)
    first, last = tf.stack([y1, x1], axis=-1), tf.stack([y2, x2], axis=-1)
    values = _at_points(_continued(features, sizes), first, last, rows, side)
    # As the kernel places them: a single point is in the middle.
    parts = tf.range(side, dtype=first.dtype) / (side - 1) if side > 1 else tf.constant([0.5])
    points = first[:, None, :] + parts[:, None] * (last - first)[:, None, :]  # [n, side, 2]
    ends = _ends(sizes, rows, first.dtype)[:, None, :]
    inside = tf.cast((points >= -ROUNDING) & (points <= ends + ROUNDING), values.dtype)
    mask = inside[:, :, None, 0] * inside[:, None, :, 1]
    return tf.cast(values * mask[..., None], features.dtype)


def roi_align(features, boxes_xyxy, rows, sizes, side, stride, offset=0.0):
    """Returns `[n, side, side, C]`: means of 2 x 2 points in each of a box's `side` x `side` bins.

    Arguments as for `legacy_crop`, but a box reaches from x1 to x2 + 1, and position p stands for stride px whose
    middle is at stride * (p + 1 / 2) + offset (RoIAlign as torchvision has it with aligned=True and two samples). A
    point beyond the map takes the value at its edge; of a box that reaches more than one position further the rest is
    cut off, where torchvision counts zeros.
    """
    x1, y1, x2, y2 = tf.unstack((edges(boxes_xyxy) - offset) / stride - 0.5, axis=-1)
    furthest = _ends(sizes, rows, x1.dtype) + 1
    near = tf.clip_by_value(tf.stack([y1, x1], axis=-1), -1, furthest)
    far = tf.clip_by_value(tf.stack([y2, x2], axis=-1), -1, furthest)
    bins = (far - near) / side
    continued = _continued(features, sizes) / 4
    sampled = []
    for part in ((0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):  # one pooling of all takes longer
        first, last = near + bins * part, far + bins * (tf.constant(part) - 1)
        sampled.append(_at_points(continued, first, last, rows, side))
    return tf.cast(tf.add_n(sampled), features.dtype)


def _continued(features, sizes):
    """Returns float32 maps `[B, 2 ** i + 1, 2 ** j + 1, C]`: each with a position more before, and those after copied.

    Relative coordinates are multiples of the last position, which is a power of two: nothing is rounded.
    """
    height, width = tf.unstack(tf.shape(features)[1:3])
    places = []
    for axis, positions in enumerate((height, width)):
        length = 1 + tf.reduce_min(tf.boolean_mask(POWERS, positions + 1 <= tf.constant(POWERS)))
        last = tf.cast(sizes[:, axis, None], tf.int32) - 1
        places.append(tf.minimum(tf.maximum(tf.range(length) - 1, 0), last))  # [B, length]
    y, x = places
    flat = tf.reshape(features, [tf.shape(features)[0], height * width, features.shape[-1]])
    return tf.cast(tf.gather(flat, y[:, :, None] * width + x[:, None, :], batch_dims=1), tf.float32)


def _ends(sizes, rows, dtype):
    """Returns the last positions `[n, 2]` (y, x) of the map of each box."""
    return tf.cast(tf.gather(sizes, rows), dtype) - 1


def _at_points(continued, first, last, rows, side):
    """Returns the values `[n, side, side, C]` at evenly spaced points from `first` to `last` `[n, 2]` (y, x).

    Both are positions of the map before it was continued.
    """
    length = tf.cast(tf.shape(continued)[1:3] - 1, first.dtype)
    boxes = tf.stop_gradient(tf.concat([(first + 1) / length, (last + 1) / length], axis=-1))
    return tf.image.crop_and_resize(continued, boxes, rows, [side, side])
