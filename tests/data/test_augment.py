"""If these fail, views are not what the magnitudes say: half a pixel off, of other colours, or changed at zero."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from data import augment
from data.augment import Draw
from data.augmentation import Augmentation, augmentation_for
from data.config import DataConfig
from data.draws import uniforms_numpy
from tests.data.pictures import smooth

rng = np.random.default_rng(0)
BATCH = 16
DRAWS = uniforms_numpy(0, 0, np.arange(BATCH), 0, Draw.COUNT)
PICTURES = rng.uniform(size=(BATCH, 12, 10, 3)).astype(np.float32)
PHOTO = augmentation_for("photo", 32)


def constants(*arrays):
    return [tf.constant(array) for array in arrays]


# --- boxes ---------------------------------------------------------------------------------------------------------


def box_by_hand(draws, height, width, least, aspect):
    """`random_boxes` for one picture as a loop in float64."""
    draws = draws.astype(np.float64)
    for i in range(augment.CROP_TRIES):
        area = height * width * (least + (1 - least) * draws[Draw.CROP_AREA + i])
        ratio = math.exp(math.log(aspect) * (2 * draws[Draw.CROP_ASPECT + i] - 1))
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if h <= height and w <= width:
            break
    else:
        h = w = min(height, width)
    return [int(draws[Draw.CROP_TOP] * (height - h + 1)), int(draws[Draw.CROP_LEFT] * (width - w + 1)), h, w]


def test_random_boxes_are_those_of_a_plain_loop():
    n = 2000
    draws = uniforms_numpy(1, 0, np.arange(n), 0, Draw.COUNT)
    heights, widths = rng.integers(8, 500, size=(2, n)).astype(np.int32)
    got = augment.random_boxes(*constants(draws, heights, widths), PHOTO).numpy()
    expected = np.array([box_by_hand(*row, 0.2, 4 / 3) for row in zip(draws, heights, widths, strict=True)])
    same = (got == expected).all(axis=1)
    assert same.mean() > 0.995  # float32 rounds a half the other way now and then
    assert np.abs(got - expected).max() <= 1


def test_random_boxes_lie_inside_and_spread_over_area_and_aspect():
    n = 20_000
    draws = uniforms_numpy(2, 0, np.arange(n), 0, Draw.COUNT)
    sides = np.full(n, 300, np.int32)
    boxes = augment.random_boxes(*constants(draws, sides, sides), PHOTO).numpy()
    top, left, height, width = boxes.T
    assert boxes.min() >= 0 and (top + height).max() == 300 and (left + width).max() == 300
    area, log_ratio = height * width / 300**2, np.log(width / height)
    assert 0.199 < area.min() < 0.21 and area.max() > 0.97
    assert np.abs(log_ratio).max() < math.log(4 / 3) + 0.02
    small = area < 0.7  # every aspect fits there, so both are uniform
    assert abs(area[small].mean() - 0.45) < 5 * 0.5 / math.sqrt(12 * small.sum())
    assert abs(log_ratio[small].mean()) < 5 * 2 * math.log(4 / 3) / math.sqrt(12 * small.sum())


def test_the_largest_draw_stays_inside():
    draws = np.full((1, Draw.COUNT), 1 - 2.0**-24, np.float32)
    sides = np.array([30_000], np.int32)
    (box,) = augment.random_boxes(*constants(draws, sides, sides), dataclasses.replace(PHOTO, crop_aspect=1.0)).numpy()
    assert box[0] + box[2] <= 30_000 and box[1] + box[3] <= 30_000


def test_a_panorama_gets_a_square_somewhere():
    draws = uniforms_numpy(0, 0, np.arange(200), 0, Draw.COUNT)
    heights, widths = np.full(200, 20, np.int32), np.full(200, 400, np.int32)
    boxes = augment.random_boxes(*constants(draws, heights, widths), PHOTO).numpy()
    assert (boxes[:, 2:] == 20).all() and (boxes[:, 0] == 0).all()
    assert boxes[:, 1].min() < 40 and boxes[:, 1].max() > 340 and boxes[:, 1].max() <= 380


def test_central_boxes_have_a_margin_above_64_px_only():
    heights, widths = constants(np.int32([300, 256]), np.int32([512, 256]))
    # 224/256 of the short side: 262.5, rounded to the even 262, and 224
    assert augment.central_boxes(heights, widths, 224).numpy().tolist() == [[19, 125, 262, 262], [16, 16, 224, 224]]
    assert augment.central_boxes(heights, widths, 64).numpy().tolist() == [[0, 106, 300, 300], [0, 0, 256, 256]]


# --- resampling ----------------------------------------------------------------------------------------------------


def test_an_enlarged_ramp_is_the_ramp():
    # value = 0.02 x + 0.03 y: bilinear at the centre of view pixel j is the ramp at left + (j + 1/2) w/S - 1/2,
    # held at the outermost pixel centres of the box.
    y, x = np.mgrid[0:12, 0:10]
    ramp = np.repeat((0.02 * x + 0.03 * y)[None, ..., None], 3, axis=-1).astype(np.float32)
    top, left, height, width, size = 3, 1, 7, 6, 16
    got = augment.crop_and_resize(*constants(ramp, np.int32([[top, left, height, width]])), size).numpy()[0, ..., 0]
    centre = np.arange(size) + 0.5
    rows = np.clip(top + centre * height / size - 0.5, top, top + height - 1)
    columns = np.clip(left + centre * width / size - 0.5, left, left + width - 1)
    np.testing.assert_allclose(got, 0.03 * rows[:, None] + 0.02 * columns, atol=1e-6)


@pytest.mark.parametrize("size", [4, 7, 32])
def test_each_box_is_resized_as_tensorflow_resizes_the_cut_out_picture(size):
    boxes = augment.random_boxes(*constants(DRAWS, np.full(BATCH, 12, np.int32), np.full(BATCH, 10, np.int32)), PHOTO)
    mirrored = np.arange(BATCH) % 3 == 0
    got = augment.crop_and_resize(tf.constant(PICTURES), boxes, size, tf.constant(mirrored)).numpy()
    for picture, (top, left, height, width), mirror, view in zip(PICTURES, boxes.numpy(), mirrored, got, strict=True):
        part = picture[top : top + height, left : left + width]
        expected = tf.image.resize(part, [size, size], "bilinear", antialias=True).numpy()
        np.testing.assert_allclose(view, expected[:, ::-1] if mirror else expected, atol=2e-6)


def warp_by_hand(picture, draws, a, mirror=False):
    """`warp` for one picture, pixel by pixel in float64, looking each view pixel up in the source."""
    height, width = picture.shape[:2]
    signed = 2 * draws.astype(np.float64) - 1
    angle = math.radians(a.rotation * signed[Draw.ROTATION])
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shear = np.array([[1, a.shear * signed[Draw.SHEAR]], [0, 1]])
    matrix = rotation @ shear * (1 + a.scale * signed[Draw.SCALE]) @ np.diag([-1.0 if mirror else 1.0, 1.0])
    shift = a.shift * np.array([signed[Draw.SHIFT_RIGHT], signed[Draw.SHIFT_DOWN]])
    padded = np.pad(picture.astype(np.float64), [(2, 2), (2, 2), (0, 0)])
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


@pytest.mark.parametrize("mirror", [False, True])
def test_an_affine_change_is_the_one_worked_out_pixel_by_pixel(mirror):
    a = Augmentation(16, rotation=40.0, scale=0.3, shift=0.2, shear=0.25)
    pictures = PICTURES[:6, :8, :8]
    flips = tf.fill([6], True) if mirror else None
    got = augment.warp(*constants(pictures, DRAWS[:6]), a, flips).numpy()
    for i in range(6):
        np.testing.assert_allclose(got[i], warp_by_hand(pictures[i], DRAWS[i], a, mirror), atol=1e-4)


def warped(picture, **magnitudes):
    """The view with every draw at its upper end."""
    draws = np.ones((1, Draw.COUNT), np.float32)
    return augment.warp(*constants(picture[None], draws), Augmentation(picture.shape[0], **magnitudes)).numpy()[0]


def test_a_quarter_turn_and_a_shift_by_whole_pixels_are_exact():
    picture = PICTURES[0, :8, :8]
    np.testing.assert_allclose(warped(picture, rotation=90.0), np.rot90(picture, -1), atol=1e-4)  # clockwise
    moved = np.zeros_like(picture)
    moved[2:, 2:] = picture[:-2, :-2]  # a quarter of 8 px, down and right, black comes in
    np.testing.assert_allclose(warped(picture, shift=0.25), moved, atol=1e-5)


# --- colour --------------------------------------------------------------------------------------------------------

LUMA = np.array([0.299, 0.587, 0.114])
# NTSC's definition: I and Q are weighted differences of (R - Y) and (B - Y) turned by 33 degrees.
U, V = 0.492111 * (np.eye(3)[2] - LUMA), 0.877283 * (np.eye(3)[0] - LUMA)
TURN = math.radians(33)
YIQ = np.stack([LUMA, V * math.cos(TURN) - U * math.sin(TURN), V * math.sin(TURN) + U * math.cos(TURN)])


def recoloured_by_hand(picture, draws, a, order):
    """The steps one after the other in float64, in the given order after grayscale."""
    x = picture.astype(np.float64)
    names = ("BRIGHTNESS", "CONTRAST", "SATURATION")
    factor = {name: 1 + a.jitter * (2 * float(draws[Draw[name]]) - 1) for name in names}
    angle = 2 * math.pi * a.jitter * (2 * float(draws[Draw.HUE]) - 1)
    turn = np.array([[1, 0, 0], [0, math.cos(angle), math.sin(angle)], [0, -math.sin(angle), math.cos(angle)]])

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
        "HUE": lambda x: x @ (np.linalg.inv(YIQ) @ turn @ YIQ).T,
    }
    if draws[Draw.GRAYSCALE] < a.grayscale:
        x = np.repeat(x @ LUMA[:, None], 3, axis=-1)
    for step in order:
        x = steps[step](x)
    return np.clip(x, 0, 1)


@pytest.mark.parametrize("order", list(itertools.permutations(["BRIGHTNESS", "CONTRAST", "SATURATION", "HUE"]))[::5])
def test_one_matrix_does_all_steps_in_any_order(order):
    got = augment.recolour(*constants(PICTURES, DRAWS), PHOTO).numpy()
    gray = DRAWS[:, Draw.GRAYSCALE] < 0.2
    assert 0 < gray.sum() < BATCH
    for i in range(BATCH):
        expected = recoloured_by_hand(PICTURES[i], DRAWS[i], PHOTO, order)
        np.testing.assert_allclose(got[i], expected, atol=2e-4)  # both round the numbers of NTSC
    assert np.ptp(got[gray], axis=-1).max() < 1e-5


def test_hue_turns_colours_as_far_as_tensorflow_does():
    # A linear hue differs from HSV's in brightness, but not in where the colour goes: red by a third becomes green.
    draws = np.full((1, Draw.COUNT), 0.5, np.float32)
    draws[0, Draw.HUE] = 1.0
    draws[0, Draw.GRAYSCALE] = 1.0
    red = np.float32([[[[0.8, 0.1, 0.1]]]])
    third = Augmentation(1, jitter=1 / 3)
    got = augment.recolour(*constants(red, draws), third).numpy()[0, 0, 0]
    reference = tf.image.adjust_hue(red, 1 / 3).numpy()[0, 0, 0]
    assert got.argmax() == reference.argmax() == 1


# --- whole views ---------------------------------------------------------------------------------------------------


def test_zero_magnitudes_change_nothing():
    square = PICTURES[:, :10]
    nothing = Augmentation(10)
    np.testing.assert_allclose(augment.training_view(*constants(square, DRAWS), nothing), square, atol=1e-6)
    zero_jitter = augment.recolour(*constants(square, DRAWS), nothing)
    np.testing.assert_allclose(zero_jitter, square, atol=1e-5)
    for kind in ("digits", "photo"):
        np.testing.assert_allclose(augment.evaluation_view(tf.constant(square), kind, 10), square, atol=1e-6)


def test_digits_are_seen_alike_in_training_and_evaluation():
    square = tf.constant(PICTURES[:, :8, :8])
    trained = augment.training_view(square, tf.constant(DRAWS), Augmentation(16))
    assert np.array_equal(trained, augment.evaluation_view(square, "digits", 16))


def test_half_of_the_views_are_mirrored():
    draws = uniforms_numpy(0, 0, np.arange(10_000), 0, Draw.COUNT)
    assert abs(np.mean(augment.training_flips(draws, PHOTO)) - 0.5) < 0.025
    assert not np.any(augment.training_flips(draws, augmentation_for("digits", 16)))


@pytest.mark.parametrize("kind, size", [("photo", 32), ("digits", 16)])
def test_views_of_a_picture_do_not_depend_on_its_batch(kind, size):
    a = augmentation_for(kind, size, DataConfig(rotation=20.0, jitter=0.5))
    whole = augment.training_view(*constants(PICTURES, DRAWS), a).numpy()
    alone = augment.training_view(*constants(PICTURES[5:6], DRAWS[5:6]), a).numpy()
    np.testing.assert_allclose(alone[0], whole[5], atol=1e-6)


def test_views_stay_between_0_and_1():
    pictures = np.stack([smooth(i, 12, 10) for i in range(BATCH)]).astype(np.float32) / 255
    pictures[0], pictures[1] = 0, 1
    for a in (PHOTO, dataclasses.replace(PHOTO, grayscale=0.0, jitter=0.0), augmentation_for("digits", 16)):
        view = augment.training_view(*constants(pictures, DRAWS), a).numpy()
        assert view.min() >= 0 and view.max() <= 1


def test_flags_override_what_the_kind_of_data_set_has():
    digits = augmentation_for("digits", 16)
    assert digits.warps and not digits.colours and not digits.flip and digits.crop_min_area is None
    photo = Augmentation(32, crop_min_area=0.2, grayscale=0.2, jitter=0.4, flip=True)
    assert augmentation_for("photo", 32) == photo
    changed = augmentation_for("photo", 32, DataConfig(flip=False, jitter=0.0, rotation=5.0))
    assert changed == dataclasses.replace(photo, flip=False, jitter=0.0, rotation=5.0)


def test_draws_keep_their_places():
    # A number that moved would change every run that is resumed: new draws go to the end.
    assert [draw.value for draw in Draw] == [0, 10, *range(20, 34)]
    assert Draw.COUNT == 33 and Draw.CROP_TOP == 20 and Draw.FLIP == 22 and Draw.SHEAR == 32
