"""Views worked out in float64 NumPy, one picture [h, w, 3] of 0 to 255 at a time; `draws` is one row, [Draw.COUNT]."""

import itertools
import math

import numpy as np

from data.augment import CROP_TRIES, Draw

# --- where a view is cut out ---------------------------------------------------------------------------------------


def training_box(draws, height, width, a):
    """(top, left, height, width) as a plain loop."""
    draws = np.float64(draws)
    if a.patch:
        h = w = round(min(height, width) * 224 / 256)
    elif a.crop_min_area is None:
        return 0, 0, height, width
    else:
        for i in range(CROP_TRIES):
            area = a.crop_min_area + (a.crop_max_area - a.crop_min_area) * draws[Draw.CROP_AREA + i]
            ratio = a.crop_aspect ** (2 * draws[Draw.CROP_ASPECT + i] - 1)
            h, w = (max(1, round(math.sqrt(height * width * area * part))) for part in (1 / ratio, ratio))
            if h <= height and w <= width:
                break
        else:
            h = w = min(height, width)
    return int(draws[Draw.CROP_TOP] * (height - h + 1)), int(draws[Draw.CROP_LEFT] * (width - w + 1)), h, w


def cut(picture, box):
    top, left, height, width = box
    return picture[top : top + height, left : left + width]


# --- resampling: weights [target, source] --------------------------------------------------------------------------


def bilinear(source, target):
    """Between the two pixels whose centres are nearest, held at the ends."""
    centre = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    return np.maximum(1 - np.abs(centre[:, None] - np.arange(source)), 0)


def area(source, target):
    """How much of each pixel lies in each of `target` equal stretches."""
    ends = np.arange(target + 1) * source / target
    low, high = np.maximum(ends[:-1, None], np.arange(source)), np.minimum(ends[1:, None], np.arange(source) + 1)
    return np.maximum(high - low, 0) * target / source


def widened(source, target):
    """A triangle as wide as two view pixels, or two of the picture's where these are larger; what lies outside is left
    out."""
    centre = (np.arange(target) + 0.5) * source / target - 0.5
    weights = np.maximum(1 - np.abs(centre[:, None] - np.arange(source)) / max(source / target, 1), 0)
    return weights / weights.sum(axis=1, keepdims=True)


def resized(picture, height, width, rule):
    rows, columns = rule(picture.shape[0], height), rule(picture.shape[1], width)
    return np.einsum("ij,jkc,lk->ilc", rows, np.float64(picture), columns, optimize=True)


def resized_one(picture, height, width):
    """As pictures are resized one at a time: by area where a side is more than halved."""
    much = picture.shape[0] > 2 * height or picture.shape[1] > 2 * width
    return resized(picture, height, width, area if much else bilinear)


def resized_in_batch(picture, height, width):
    return resized(picture, height, width, widened)


def warped(picture, draws, a, mirror=False):
    """Looks each pixel of the view up in the picture; outside it is black."""
    height, width = picture.shape[:2]
    signed = 2 * np.float64(draws) - 1
    angle = math.radians(a.rotation * signed[Draw.ROTATION])
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shear = np.array([[1, a.shear * signed[Draw.SHEAR]], [0, 1]])
    matrix = rotation @ shear * (1 + a.scale * signed[Draw.SCALE]) @ np.diag([-1.0 if mirror else 1.0, 1.0])
    shift = a.shift * np.array([signed[Draw.SHIFT_RIGHT], signed[Draw.SHIFT_DOWN]])
    padded = np.pad(np.float64(picture), [(2, 2), (2, 2), (0, 0)])
    view = np.zeros((a.image_size, a.image_size, 3))
    for j, i in itertools.product(range(a.image_size), repeat=2):
        at = np.array([i + 0.5, j + 0.5]) / a.image_size - 0.5
        x, y = (np.linalg.inv(matrix) @ (at - shift) + 0.5) * [width, height] - 0.5
        if -1 < x < width and -1 < y < height:
            x0, y0 = math.floor(x), math.floor(y)
            for dx, dy in itertools.product((0, 1), repeat=2):
                weight = (1 - abs(x - x0 - dx)) * (1 - abs(y - y0 - dy))
                view[j, i] += weight * padded[y0 + dy + 2, x0 + dx + 2]
    return view


# --- colour and blur -----------------------------------------------------------------------------------------------

LUMA = np.array([0.299, 0.587, 0.114])
# NTSC's definition: I and Q are weighted differences of (R - Y) and (B - Y) turned by 33 degrees.
_U, _V = 0.492111 * (np.eye(3)[2] - LUMA), 0.877283 * (np.eye(3)[0] - LUMA)
_TURN = math.radians(33)
YIQ = np.stack([LUMA, _V * math.cos(_TURN) - _U * math.sin(_TURN), _V * math.sin(_TURN) + _U * math.cos(_TURN)])
COLOUR_STEPS = ("BRIGHTNESS", "CONTRAST", "SATURATION", "HUE")


def recoloured(view, draws, a, order=COLOUR_STEPS):
    """0 to 255 -> [0, 1]: grayscale, then the steps one after the other, then clipped once."""
    x, draws = np.float64(view) / 255, np.float64(draws)
    jittered = draws[Draw.JITTER] < a.jitter_probability
    factor = {name: 1 + jittered * a.jitter * (2 * draws[Draw[name]] - 1) for name in COLOUR_STEPS}
    turns = jittered * (a.jitter if a.hue is None else a.hue) * (2 * draws[Draw.HUE] - 1)
    cos, sin = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    hue = np.linalg.inv(YIQ) @ np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]]) @ YIQ

    def contrast(x):
        mean = x.mean(axis=(0, 1))
        return mean + factor["CONTRAST"] * (x - mean)

    def saturation(x):
        gray = x @ LUMA[:, None]
        return gray + factor["SATURATION"] * (x - gray)

    steps = {
        "BRIGHTNESS": lambda x: factor["BRIGHTNESS"] * x,
        "CONTRAST": contrast,
        "SATURATION": saturation,
        "HUE": lambda x: x @ hue.T,
    }
    if draws[Draw.GRAYSCALE] < a.grayscale:
        x = np.repeat(x @ LUMA[:, None], 3, axis=-1)
    for name in order:
        x = steps[name](x)
    return np.clip(x, 0, 1)


def blur_sigma(draws, a):
    low, high = a.blur_sigma
    return low + (high - low) * float(draws[Draw.BLUR_SIGMA]) if draws[Draw.BLUR] < a.blur else 0.0


def blurred(view, sigma, radius):
    """Each pixel the weighted mean of its (2 radius + 1)^2 neighbours, mirrored at the border."""
    if sigma == 0:
        return np.float64(view)
    distance = np.arange(-radius, radius + 1)
    line = np.exp(-(distance**2) / (2 * sigma**2))
    kernel = np.outer(line, line) / line.sum() ** 2
    wide = np.pad(np.float64(view), [(radius, radius), (radius, radius), (0, 0)], "symmetric")
    height, width = view.shape[:2]
    result = np.zeros([height, width, 3])
    for j, i in itertools.product(range(2 * radius + 1), repeat=2):
        result += kernel[j, i] * wide[j : j + height, i : i + width]
    return result


def training_view(picture, draws, a, resize):
    """The whole of it, for augmentations without affine changes; `resize` is one of the two above."""
    box = training_box(draws, *picture.shape[:2], a)
    view = resize(cut(np.float64(picture), box), a.image_size, a.image_size)
    if a.flip and draws[Draw.FLIP] < 0.5:
        view = view[:, ::-1]
    return blurred(recoloured(view, draws, a), blur_sigma(draws, a), math.ceil(3 * a.blur_sigma[1]))
