"""Views of pictures as pure functions of (pictures, uniform numbers); everything works on whole batches.

A training view is crop, resize and mirror in one resampling, then colour.  (An affine change, which digits get
instead of a crop, is a resampling of its own.)  Shapes: B pictures, [B, H, W, 3] float32 in [0, 1]; `draws` is
[B, Draw.COUNT] of uniform numbers in [0, 1), from `data.draws.uniforms`.
"""

import enum
import math

import numpy as np
import tensorflow as tf

from data.augmentation import Augmentation

CROP_TRIES = 10
EVALUATION_MARGIN = 224 / 256  # part of the short side that is looked at: "short side to 256, centre 224"


class Draw(enum.IntEnum):
    """Which column of `draws` is for what.  New ones go to the end, so that old runs keep their numbers."""

    CROP_AREA = 0
    CROP_ASPECT = CROP_AREA + CROP_TRIES
    CROP_TOP = CROP_ASPECT + CROP_TRIES
    CROP_LEFT = enum.auto()
    FLIP = enum.auto()
    GRAYSCALE = enum.auto()
    BRIGHTNESS = enum.auto()
    CONTRAST = enum.auto()
    SATURATION = enum.auto()
    HUE = enum.auto()
    ROTATION = enum.auto()
    SCALE = enum.auto()
    SHIFT_DOWN = enum.auto()
    SHIFT_RIGHT = enum.auto()
    SHEAR = enum.auto()
    COUNT = enum.auto()


# --- where a view is cut out: boxes are int32 [B, 4] of (top, left, height, width), px -----------------------------


def random_boxes(draws, heights, widths, augmentation: Augmentation):
    """Boxes of random area and aspect, anywhere in pictures of `heights`, `widths` [B].

    The first of ten tries that fits is taken; where none does, as in panoramas, the largest square.  (The authors:
    tf.image.sample_distorted_bounding_box with 100 tries, then a square.)
    """
    height, width = tf.cast(heights, tf.float32)[:, None], tf.cast(widths, tf.float32)[:, None]
    least, aspect = augmentation.crop_min_area, augmentation.crop_aspect
    area = height * width * (least + (1 - least) * draws[:, Draw.CROP_AREA : Draw.CROP_AREA + CROP_TRIES])
    spread = 2 * draws[:, Draw.CROP_ASPECT : Draw.CROP_ASPECT + CROP_TRIES] - 1
    ratio = tf.exp(math.log(aspect) * spread)
    tries = tf.stack([tf.round(tf.sqrt(area / ratio)), tf.round(tf.sqrt(area * ratio))], axis=-1)  # [B, tries, 2]
    tries = tf.maximum(tries, 1)
    whole = tf.stack([height, width], axis=-1)  # [B, 1, 2]
    fits = tf.reduce_all(tries <= whole, axis=-1)
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
    square = tf.repeat(tf.reduce_min(whole, axis=-1), 2, axis=-1)
    size = tf.where(tf.reduce_any(fits, axis=1)[:, None], tf.gather(tries, first, batch_dims=1), square)  # [B, 2]
    # A draw just under 1 times a wide room can round up to the room itself, which would leave the picture.
    room = whole[:, 0] - size
    corner = tf.minimum(tf.floor(draws[:, Draw.CROP_TOP : Draw.CROP_LEFT + 1] * (room + 1)), room)
    return tf.cast(tf.concat([corner, size], axis=1), tf.int32)


def whole_boxes(heights, widths):
    """Boxes of the whole pictures."""
    return tf.stack([tf.zeros_like(heights), tf.zeros_like(widths), heights, widths], axis=1)


def central_boxes(heights, widths, image_size: int):
    """The evaluation view: the central square, with the usual margin for views over 64 px, none for smaller."""
    short = tf.minimum(heights, widths)
    part = EVALUATION_MARGIN if image_size > 64 else 1.0
    side = tf.maximum(tf.cast(tf.round(tf.cast(short, tf.float32) * part), tf.int32), 1)
    return tf.stack([(heights - side) // 2, (widths - side) // 2, side, side], axis=1)


# --- resampling ----------------------------------------------------------------------------------------------------


def crop_and_resize(pictures, boxes, image_size: int, flips=None):
    """Each box of its picture at image_size, mirrored where `flips` [B] says so: [B, S, S, 3].

    Bilinear, with the filter widened where a box is larger than the view (no aliasing), pixels beyond the box left
    out: the weights of rows and columns are matrices, so that a batch is two matrix products.
    """
    height, width = pictures.shape[1:3]
    rows = _bilinear_weights(boxes[:, 0], boxes[:, 2], height, image_size)  # [B, S, H]
    columns = _bilinear_weights(boxes[:, 1], boxes[:, 3], width, image_size, flips)  # [B, S, W]
    squeezed = tf.matmul(rows, tf.reshape(pictures, [-1, height, width * 3]))
    views = tf.matmul(columns[:, None], tf.reshape(squeezed, [-1, image_size, width, 3]))
    return tf.minimum(views, 1)  # weights that add up to a rounding error more than 1


def _bilinear_weights(start, length, source: int, target: int, reverse=None):
    """[B, target, source]: what each source pixel gives to each target pixel of the stretch start .. start + length."""
    start, length = tf.cast(start, tf.float32)[:, None], tf.cast(length, tf.float32)[:, None]
    position = tf.range(target, dtype=tf.float32)[None] + 0.5
    if reverse is not None:
        position = tf.where(reverse[:, None], target - position, position)
    centre = start + position * length / target - 0.5  # in source pixels, [B, target]
    pixel = tf.range(source, dtype=tf.float32)
    weights = tf.nn.relu(1 - tf.abs(centre[:, :, None] - pixel) / tf.maximum(length / target, 1)[:, :, None])
    inside = (pixel >= start) & (pixel < start + length)  # [B, source]
    weights *= tf.cast(inside, tf.float32)[:, None]
    return weights / tf.reduce_sum(weights, axis=-1, keepdims=True)


def warp(pictures, draws, augmentation: Augmentation, flips=None):
    """Small rotation, change of size, shear and shift about the centre, at image_size; black comes in at the borders.

    Pictures are mirrored first where `flips` [B] says so.  Zero magnitudes leave a change of size alone.
    """
    height, width = pictures.shape[1:3]
    size = augmentation.image_size
    matrix, shift = _affine(draws, augmentation)
    if flips is not None:
        matrix *= tf.stack([tf.where(flips, -1.0, 1.0), tf.ones_like(flips, tf.float32)], axis=-1)[:, None]
    # Coordinates (x, y) run from -1/2 to 1/2 over a picture: view = matrix @ source + shift, looked up backwards.
    extent = tf.constant([[width], [height]], tf.float32)
    backwards = tf.linalg.inv(matrix)
    corner = 0.5 / size - 0.5 - shift  # centre of the view's pixel (0, 0)
    offset = (backwards @ corner + 0.5) * extent - 0.5  # where that comes from, in source pixels, [B, 2, 1]
    rows = tf.concat([backwards * extent / size, offset], axis=-1)  # [B, 2, 3], view pixels to source pixels
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pictures,
        transforms=tf.pad(tf.reshape(rows, [-1, 6]), [[0, 0], [0, 2]]),
        output_shape=[size, size],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def _affine(draws, augmentation):
    """Matrix [B, 2, 2] and shift [B, 2, 1] that take source to view, in (x, y): rotation @ shear @ scale."""
    signed = 2 * draws - 1
    angle = math.radians(augmentation.rotation) * signed[:, Draw.ROTATION]
    scale = 1 + augmentation.scale * signed[:, Draw.SCALE]
    shear = augmentation.shear * signed[:, Draw.SHEAR]
    cos, sin = scale * tf.cos(angle), scale * tf.sin(angle)
    matrix = tf.stack([cos, shear * cos - sin, sin, shear * sin + cos], axis=-1)
    shift = augmentation.shift * tf.stack([signed[:, Draw.SHIFT_RIGHT], signed[:, Draw.SHIFT_DOWN]], axis=-1)
    return tf.reshape(matrix, [-1, 2, 2]), shift[:, :, None]


# --- colour --------------------------------------------------------------------------------------------------------

LUMA = np.array([0.299, 0.587, 0.114])
# RGB -> YIQ (luma, and two axes of colour); its inverse is computed, so that no change of colour is exactly none.
YIQ = np.array([LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])


def recolour(pictures, draws, augmentation: Augmentation):
    """Grayscale, brightness, contrast, saturation and hue as one linear map of (r, g, b) a picture, clipped at the end.

    Grayscale comes first; the order of the other four does not matter.  In YIQ, saturation stretches the plane of
    colour, hue turns it (by up to +-jitter of a full turn), brightness stretches everything, and contrast (about the
    mean of each channel) commutes with linear maps.  The authors' random order makes a difference only by what is
    clipped between the steps.
    """
    factors = 1 + augmentation.jitter * (2 * draws - 1)
    gray = draws[:, Draw.GRAYSCALE] < augmentation.grayscale
    colour = tf.where(gray, 0.0, factors[:, Draw.BRIGHTNESS] * factors[:, Draw.SATURATION])
    angle = 2 * math.pi * augmentation.jitter * (2 * draws[:, Draw.HUE] - 1)
    cos, sin = colour * tf.cos(angle), colour * tf.sin(angle)
    zero = tf.zeros_like(cos)
    in_yiq = tf.stack([factors[:, Draw.BRIGHTNESS], zero, zero, zero, cos, sin, zero, -sin, cos], axis=-1)
    to_yiq, from_yiq = YIQ.astype(np.float32), np.linalg.inv(YIQ).astype(np.float32)
    matrix = from_yiq @ tf.reshape(in_yiq, [-1, 3, 3]) @ to_yiq
    contrast = factors[:, Draw.CONTRAST, None, None]
    # y = matrix (contrast x + (1 - contrast) mean), pixels as rows.  Mean and offset go by whole rows of the picture:
    # a last dimension of 3 makes TensorFlow's reductions and broadcasts several times slower.
    height, width = pictures.shape[1:3]
    mean = tf.reduce_mean(tf.reduce_mean(pictures, axis=1), axis=1, keepdims=True)
    offset = (1 - contrast) * tf.matmul(mean, matrix, transpose_b=True)  # [B, 1, 3]
    mixed = tf.matmul(tf.reshape(pictures, [-1, height * width, 3]), contrast * matrix, transpose_b=True)
    mixed = tf.reshape(mixed, [-1, height, width * 3]) + tf.tile(offset, [1, 1, width])
    return tf.reshape(tf.clip_by_value(mixed, 0, 1), [-1, height, width, 3])


# --- whole views ---------------------------------------------------------------------------------------------------


def training_boxes(draws, heights, widths, augmentation: Augmentation):
    """Where training views are cut out of pictures of `heights`, `widths` [B] int32."""
    if augmentation.crop_min_area is None:
        return whole_boxes(heights, widths)
    return random_boxes(draws, heights, widths, augmentation)


def training_flips(draws, augmentation: Augmentation):
    """[B] bool: which training views are mirrored."""
    return (draws[:, Draw.FLIP] < 0.5) & augmentation.flip


def finish(views, draws, augmentation: Augmentation):
    """What follows once views are cut out and mirrored, [B, S, S, 3]: affine change, then colour."""
    if augmentation.warps:
        views = warp(views, draws, augmentation)
    return recolour(views, draws, augmentation) if augmentation.colours else views


def training_view(pictures, draws, augmentation: Augmentation):
    """Training views of pictures of one size: [B, S, S, 3]."""
    mirrored = training_flips(draws, augmentation)
    if augmentation.crop_min_area is None:  # one resampling, from the source
        views = warp(pictures, draws, augmentation, mirrored)
        return recolour(views, draws, augmentation) if augmentation.colours else views
    heights, widths = (tf.fill([tf.shape(pictures)[0]], side) for side in pictures.shape[1:3])
    boxes = random_boxes(draws, heights, widths, augmentation)
    return finish(crop_and_resize(pictures, boxes, augmentation.image_size, mirrored), draws, augmentation)


def evaluation_view(pictures, kind: str, image_size: int):
    """Central views of pictures of one size: [B, S, S, 3]; of digits, which are not cropped, the whole."""
    count = tf.shape(pictures)[0]
    if kind == "digits":
        return warp(pictures, tf.zeros([count, Draw.COUNT]), Augmentation(image_size))
    heights, widths = (tf.fill([count], side) for side in pictures.shape[1:3])
    return crop_and_resize(pictures, central_boxes(heights, widths, image_size), image_size)
