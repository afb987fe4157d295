"""Views of pictures as pure functions of (pictures, uniform numbers); everything works on whole batches.

What happens to a picture is settled by its draws before its size is known (`changes`); a view is then crop, resize and
mirror in one resampling, and colour.  (An affine change, which digits get instead of a crop, is a resampling of its
own.)  Shapes: B pictures, [B, H, W, 3] with values of 0 to 255; views are [B, S, S, 3] float32 in [0, 1]; `draws` is
[B, Draw.COUNT] of uniform numbers in [0, 1), from `data.draws.uniforms`.
"""

import dataclasses
import enum
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from data.augmentation import Augmentation

CROP_TRIES = 10
SHORT_SIDE, PATCH = 256, 224  # "short side to 256, 224 of it": all that matters is the ratio
PATCH_PART = PATCH / SHORT_SIDE


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
    JITTER = enum.auto()
    BLUR = enum.auto()
    BLUR_SIGMA = enum.auto()
    COUNT = enum.auto()


class Changes(NamedTuple):
    """What is to be done with each of B pictures; parts that an augmentation leaves alone are there all the same."""

    crops: tf.Tensor  # [B, CROP_TRIES, 2]: height and width of each try, as parts of sqrt(height * width)
    corner: tf.Tensor  # [B, 2]: top and left, as parts of the room there is
    mirrored: tf.Tensor  # [B] bool
    colour: tf.Tensor  # [B, 3 P, 3 P]: P pixels (r, g, b, r, ...) of 0 to 255 become pixels @ colour, in [0, 1], ...
    mean_colour: tf.Tensor  # [B, 3, 3]: ... plus the mean of all (r, g, b) @ mean_colour
    blur: tf.Tensor  # [B]: sigma of a Gaussian, px of the view; 0 for none
    matrix: tf.Tensor  # [B, 2, 2] and ...
    shift: tf.Tensor  # [B, 2, 1]: the affine change, source to view, in (x, y)


def changes(draws, augmentation: Augmentation) -> Changes:
    """Settles what happens to each picture from its `draws` alone."""
    matrix, shift = _affine(draws, augmentation)
    colour = _colour(draws, augmentation) / 255
    contrast = _factors(draws, augmentation)[:, Draw.CONTRAST, None, None]
    return Changes(
        crops=_crops(draws, augmentation),
        corner=draws[:, Draw.CROP_TOP : Draw.CROP_LEFT + 1],
        mirrored=(draws[:, Draw.FLIP] < 0.5) & augmentation.flip,
        # Contrast about the mean of each channel commutes with the linear map.
        colour=_block_diagonal(contrast * colour, _pixels_at_once(augmentation.image_size**2)),
        mean_colour=(1 - contrast) * colour,
        blur=_blur_sigma(draws, augmentation),
        matrix=matrix,
        shift=shift,
    )


# --- where a view is cut out: boxes are int32 [B, 4] of (top, left, height, width), px -----------------------------


def _crops(draws, augmentation: Augmentation):
    least, most = augmentation.crop_min_area or 1.0, augmentation.crop_max_area
    area = least + (most - least) * draws[:, Draw.CROP_AREA : Draw.CROP_AREA + CROP_TRIES]
    spread = 2 * draws[:, Draw.CROP_ASPECT : Draw.CROP_ASPECT + CROP_TRIES] - 1
    ratio = tf.exp(math.log(augmentation.crop_aspect) * spread)  # width / height
    return tf.sqrt(tf.stack([area / ratio, area * ratio], axis=-1))


def training_boxes(change: Changes, heights, widths, augmentation: Augmentation):
    """Where training views are cut out of pictures of `heights`, `widths` [B] int32."""
    whole = tf.stack([heights, widths], axis=1)  # [B, 2]
    if augmentation.patch:
        side = tf.round(PATCH_PART * tf.cast(tf.reduce_min(whole, axis=1), tf.float32))
        return _placed(tf.stack([side, side], axis=1), whole, change.corner)
    if augmentation.crop_min_area is None:
        return tf.concat([tf.zeros_like(whole), whole], axis=1)
    return random_boxes(change, whole)


def random_boxes(change: Changes, whole):
    """Boxes of random area and aspect, anywhere in pictures of `whole` [B, 2] (height, width).

    The first of ten tries that fits is taken; where none does, as in panoramas, the largest square.  (The authors:
    tf.image.sample_distorted_bounding_box with 100 tries, then a square.)
    """
    sides = tf.cast(whole, tf.float32)
    scale = tf.sqrt(tf.reduce_prod(sides, axis=1))[:, None, None]
    tries = tf.maximum(tf.round(scale * change.crops), 1)  # [B, tries, 2]
    fits = tf.reduce_all(tries <= sides[:, None], axis=-1)
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
    square = tf.repeat(tf.reduce_min(sides, axis=1, keepdims=True), 2, axis=1)
    size = tf.where(tf.reduce_any(fits, axis=1)[:, None], tf.gather(tries, first, batch_dims=1), square)
    return _placed(size, whole, change.corner)


def _placed(size, whole, corner):
    """Boxes of `size` [B, 2] with their corner at the part `corner` [B, 2] of the room that `whole` [B, 2] leaves."""
    # A draw just under 1 times a wide room can round up to the room itself, which would leave the picture.
    room = tf.cast(whole, tf.float32) - size
    place = tf.minimum(tf.floor(corner * (room + 1)), room)
    return tf.cast(tf.concat([place, size], axis=1), tf.int32)


def central_boxes(heights, widths, image_size: int):
    """The evaluation view: the central square, with the usual margin for views over 64 px, none for smaller."""
    side = _evaluation_side(heights, widths, image_size)
    return tf.stack([(heights - side) // 2, (widths - side) // 2, side, side], axis=1)


def ten_crop_boxes(heights, widths, image_size: int):
    """The five boxes of the ten-crop: centre, then the corners by rows, [5, B, 4]; each is looked at mirrored too."""
    side = _evaluation_side(heights, widths, image_size)
    bottom, right, zero = heights - side, widths - side, tf.zeros_like(side)
    corners = [(zero, zero), (zero, right), (bottom, zero), (bottom, right)]
    boxes = [tf.stack([top, left, side, side], axis=1) for top, left in corners]
    return tf.stack([central_boxes(heights, widths, image_size), *boxes])


def _evaluation_side(heights, widths, image_size):
    short = tf.cast(tf.minimum(heights, widths), tf.float32)
    part = PATCH_PART if image_size > 64 else 1.0
    return tf.maximum(tf.cast(tf.round(short * part), tf.int32), 1)


def cut_out(picture, boxes):
    """What `boxes(heights [1], widths [1])` cuts out of one picture [h, w, 3]."""
    shape = tf.shape(picture)
    top, left, height, width = tf.unstack(boxes(shape[0][None], shape[1][None])[0])
    return picture[top : top + height, left : left + width]


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
    return tf.minimum(views, 255)  # weights that add up to a rounding error more than 1


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


def warp(pictures, change: Changes, image_size: int, flips=None):
    """Small rotation, change of size, shear and shift about the centre, at image_size; black comes in at the borders.

    Pictures are mirrored first where `flips` [B] says so.  No change leaves a change of size alone.
    """
    height, width = pictures.shape[1:3]
    size = image_size
    matrix, shift = change.matrix, change.shift
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


def _factors(draws, augmentation: Augmentation):
    """[B, Draw.COUNT]: 1 +- jitter for each draw, 1 for the pictures that are not jittered."""
    jittered = draws[:, Draw.JITTER, None] < augmentation.jitter_probability
    return tf.where(jittered, 1 + augmentation.jitter * (2 * draws - 1), 1.0)


def _colour(draws, augmentation: Augmentation):
    """Grayscale, brightness, saturation and hue as one linear map, [B, 3, 3], pixels as rows.

    Grayscale comes first; the order of the others does not matter.  In YIQ, saturation stretches the plane of colour,
    hue turns it, brightness stretches everything.  The authors' random order makes a difference only by what is
    clipped between the steps.
    """
    factors = _factors(draws, augmentation)
    hue = augmentation.jitter if augmentation.hue is None else augmentation.hue
    jittered = draws[:, Draw.JITTER] < augmentation.jitter_probability
    angle = 2 * math.pi * hue * tf.where(jittered, 2 * draws[:, Draw.HUE] - 1, 0.0)
    gray = draws[:, Draw.GRAYSCALE] < augmentation.grayscale
    brightness = factors[:, Draw.BRIGHTNESS]
    saturation = tf.where(gray, 0.0, brightness * factors[:, Draw.SATURATION])
    cos, sin = saturation * tf.cos(angle), saturation * tf.sin(angle)
    zero = tf.zeros_like(cos)
    in_yiq = tf.stack([brightness, zero, zero, zero, cos, sin, zero, -sin, cos], axis=-1)
    to_yiq, from_yiq = YIQ.astype(np.float32), np.linalg.inv(YIQ).astype(np.float32)
    # The matrices above act on columns.
    return tf.linalg.matrix_transpose(from_yiq @ tf.reshape(in_yiq, [-1, 3, 3]) @ to_yiq)


def _pixels_at_once(pixels: int) -> int:
    """A last dimension of 3 makes TensorFlow several times slower: up to eight pixels are multiplied at a time."""
    return math.gcd(pixels, 8)


def _block_diagonal(matrices, times: int):
    """[B, 3 times, 3 times] with each of `matrices` [B, 3, 3] so many times along the diagonal."""
    blocks = tf.eye(times)[:, None, :, None] * matrices[:, None, :, None, :]
    return tf.reshape(blocks, [-1, 3 * times, 3 * times])


def recolour(views, change: Changes):
    """x @ colour + (mean of x) @ mean_colour, from 0 .. 255 to [0, 1], clipped."""
    height, width = views.shape[1:3]
    pixels = change.colour.shape[1] // 3
    by_pixels = tf.reshape(views, [-1, height * width // pixels, pixels * 3])
    # TensorFlow's other products leave narrow matrices to oneDNN, which takes twice as long.
    mixed = tf.raw_ops.BatchMatMulV3(x=by_pixels, y=change.colour, Tout=tf.float32)
    ones = tf.ones([1, 1, height * width // pixels])
    sums = tf.raw_ops.BatchMatMulV3(x=ones, y=by_pixels, Tout=tf.float32)
    mean = tf.reduce_sum(tf.reshape(sums, [-1, pixels, 3]), axis=1) / (height * width)
    offset = tf.reduce_sum(mean[:, :, None] * change.mean_colour, axis=1, keepdims=True)  # [B, 1, 3]
    mixed = tf.reshape(mixed, [-1, height, width * 3]) + tf.tile(offset, [1, 1, width])
    return tf.reshape(tf.clip_by_value(mixed, 0, 1), [-1, height, width, 3])


# --- blur ----------------------------------------------------------------------------------------------------------


def _blur_sigma(draws, augmentation: Augmentation):
    low, high = augmentation.blur_sigma
    sigma = low + (high - low) * draws[:, Draw.BLUR_SIGMA]
    return tf.where(draws[:, Draw.BLUR] < augmentation.blur, sigma, 0.0)


def gaussian_blur(views, sigma, largest: float):
    """Blurs each view by a Gaussian of `sigma` [B] px (0: not at all), cut off at three times `largest` px."""
    radius = min(math.ceil(3 * largest), *views.shape[1:3])  # more than a side cannot be mirrored beyond the border
    distance = tf.range(-radius, radius + 1, dtype=tf.float32)
    narrow = tf.maximum(sigma, 1e-3)[:, None]  # nothing but the middle is left of it
    weights = tf.exp(-((distance / narrow) ** 2) / 2)
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)  # [B, 2 radius + 1]
    for axis in (1, 2):
        size = views.shape[axis]
        padding = [[0, 0]] * 4
        padding[axis] = [radius, radius]
        wide = tf.pad(views, padding, "SYMMETRIC")
        views = tf.add_n(
            [
                weights[:, k, None, None, None] * (wide[:, k : k + size] if axis == 1 else wide[:, :, k : k + size])
                for k in range(2 * radius + 1)
            ]
        )
    return tf.minimum(views, 1)  # weights that add up to a rounding error more than 1


# --- whole views ---------------------------------------------------------------------------------------------------


def finish(views, change: Changes, augmentation: Augmentation):
    """What follows once views of 0 to 255 are cut out and mirrored: affine change, colour, blur; in [0, 1]."""
    if augmentation.warps:
        views = warp(views, change, augmentation.image_size)
    views = recolour(views, change) if augmentation.colours else tf.minimum(views / 255, 1)
    if augmentation.blur > 0:
        some = tf.reduce_any(change.blur > 0)
        views = tf.cond(some, lambda: gaussian_blur(views, change.blur, augmentation.blur_sigma[1]), lambda: views)
    return views


def training_view(pictures, change: Changes, augmentation: Augmentation):
    """Training views of pictures of one size, uint8 or float of 0 to 255."""
    pictures = tf.cast(pictures, tf.float32)
    if augmentation.crop_min_area is None and not augmentation.patch:  # one resampling, from the source
        views = warp(pictures, change, augmentation.image_size, change.mirrored)
        return finish(views, change, dataclasses.replace(augmentation, rotation=0, scale=0, shift=0, shear=0))
    heights, widths = (tf.fill([tf.shape(pictures)[0]], side) for side in pictures.shape[1:3])
    boxes = training_boxes(change, heights, widths, augmentation)
    return finish(crop_and_resize(pictures, boxes, augmentation.image_size, change.mirrored), change, augmentation)


def evaluation_view(pictures, kind: str, image_size: int):
    """Central views of pictures of one size, uint8 or of 0 to 255; of digits, which are not cropped, the whole."""
    pictures = tf.cast(pictures, tf.float32)
    count = tf.shape(pictures)[0]
    if kind == "digits":
        still = changes(tf.zeros([count, Draw.COUNT]), Augmentation(image_size))
        return tf.minimum(warp(pictures, still, image_size) / 255, 1)  # rounding errors again
    heights, widths = (tf.fill([count], side) for side in pictures.shape[1:3])
    return crop_and_resize(pictures, central_boxes(heights, widths, image_size), image_size) / 255


def ten_crop_views(pictures, image_size: int):
    """The ten views of pictures of one size: five boxes, then the same mirrored; a tuple of ten."""
    pictures = tf.cast(pictures, tf.float32)
    heights, widths = (tf.fill([tf.shape(pictures)[0]], side) for side in pictures.shape[1:3])
    boxes = tf.unstack(ten_crop_boxes(heights, widths, image_size))
    views = [crop_and_resize(pictures, box, image_size) / 255 for box in boxes]
    return (*views, *(tf.reverse(view, [2]) for view in views))
