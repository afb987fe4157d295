"""If these fail, views are not what the magnitudes say: half a pixel off, of other colours, or changed at zero."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from data import augment
from data.augment import Draw
from data.augmentation import Augmentation, augmentation_for, multi_crop, transfer_augmentation
from data.config import DataConfig
from data.draws import uniforms_numpy
from tests.data import reference
from tests.data.pictures import smooth

rng = np.random.default_rng(0)
BATCH = 16
DRAWS = uniforms_numpy(0, 0, np.arange(BATCH), 0, Draw.COUNT)
PICTURES = rng.uniform(0, 255, size=(BATCH, 12, 10, 3)).astype(np.float32)
PHOTO = augmentation_for("photo", 32)
NOTHING = np.full((1, Draw.COUNT), 0.5, np.float32)  # the draws that change nothing, but for what has a probability


def draws_with(**given):
    """One row of draws: those given, the others in the middle."""
    draws = NOTHING.copy()
    for name, value in given.items():
        draws[0, Draw[name]] = value
    return draws


def changes(draws, augmentation):
    return augment.changes(tf.constant(draws), augmentation)


def boxes_for(draws, heights, widths, augmentation):
    sides = [np.broadcast_to(np.int32(side), len(draws)) for side in (heights, widths)]
    return augment.training_boxes(changes(draws, augmentation), *map(tf.constant, sides), augmentation).numpy()


def views_of(pictures, draws, augmentation):
    return augment.training_view(tf.constant(pictures), changes(draws, augmentation), augmentation).numpy()


# --- boxes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "augmentation",
    [PHOTO, multi_crop("photo", 224)[-1], transfer_augmentation("photo", 224, True), augmentation_for("digits", 16)],
    ids=["photo", "small view", "patch", "whole"],
)
def test_boxes_are_those_of_a_plain_loop(augmentation):
    n = 2000
    draws = uniforms_numpy(1, 0, np.arange(n), 0, Draw.COUNT)
    heights, widths = rng.integers(8, 500, size=(2, n)).astype(np.int32)
    got = boxes_for(draws, heights, widths, augmentation)
    rows = zip(draws, heights, widths, strict=True)
    expected = np.array([reference.training_box(*map(np.asarray, row), augmentation) for row in rows])
    same = (got == expected).all(axis=1)
    assert same.mean() > 0.995  # float32 rounds a half the other way now and then
    assert np.abs(got - expected).max() <= 1


@pytest.mark.parametrize("augmentation", [PHOTO, multi_crop("photo", 224)[0], multi_crop("photo", 224)[-1]])
def test_random_boxes_lie_inside_and_spread_over_area_and_aspect(augmentation):
    n = 20_000
    draws = uniforms_numpy(2, 0, np.arange(n), 0, Draw.COUNT)
    boxes = boxes_for(draws, 300, 300, augmentation)
    top, left, height, width = boxes.T
    assert boxes.min() >= 0 and (top + height).max() == 300 and (left + width).max() == 300
    area, log_ratio = height * width / 300**2, np.log(width / height)
    least, most = augmentation.crop_min_area, augmentation.crop_max_area
    rounding = 1 / 60  # half a pixel in each side of 67 px and more
    assert least * (1 - rounding) < area.min() < least * (1 + rounding)
    assert most * 0.97 < area.max() < most * (1 + rounding)
    assert np.abs(log_ratio).max() < math.log(4 / 3) + rounding
    most = min(most, 0.7)
    small = area < most  # every aspect fits there, so both are uniform
    spread = (most - least) / math.sqrt(12 * small.sum())
    assert abs(area[small].mean() - (least + most) / 2) < 5 * spread + 1e-4
    assert abs(log_ratio[small].mean()) < 5 * 2 * math.log(4 / 3) / math.sqrt(12 * small.sum())


@pytest.mark.parametrize("patch", [False, True])
def test_the_largest_draw_stays_inside(patch):
    draws = np.full((1, Draw.COUNT), 1 - 2.0**-24, np.float32)
    (box,) = boxes_for(draws, 30_000, 30_000, dataclasses.replace(PHOTO, crop_aspect=1.0, patch=patch))
    assert box[0] + box[2] <= 30_000 and box[1] + box[3] <= 30_000


def test_a_panorama_gets_a_square_somewhere():
    draws = uniforms_numpy(0, 0, np.arange(200), 0, Draw.COUNT)
    boxes = boxes_for(draws, 20, 400, PHOTO)
    assert (boxes[:, 2:] == 20).all() and (boxes[:, 0] == 0).all()
    assert boxes[:, 1].min() < 40 and boxes[:, 1].max() > 340 and boxes[:, 1].max() <= 380


def test_a_crop_is_a_pixel_at_least():
    assert (boxes_for(DRAWS, 1, 1, multi_crop("photo", 224)[-1]) == [0, 0, 1, 1]).all()


def test_patches_are_224_of_256_of_the_short_side_anywhere():
    n = 4000
    draws = uniforms_numpy(0, 0, np.arange(n), 0, Draw.COUNT)
    boxes = boxes_for(draws, 300, 280, transfer_augmentation("photo", 224, True))
    assert (boxes[:, 2:] == 245).all()  # 280 * 7 / 8
    top, left = boxes[:, 0], boxes[:, 1]
    assert set(top) == set(range(56)) and set(left) == set(range(36))  # both ends too
    assert abs(top.mean() - 27.5) < 5 * 56 / math.sqrt(12 * n) and abs(np.corrcoef(top, left)[0, 1]) < 0.08


def test_central_boxes_have_a_margin_above_64_px_only():
    heights, widths = tf.constant([300, 256]), tf.constant([512, 256])
    # 224/256 of the short side: 262.5, rounded to the even 262, and 224
    assert augment.central_boxes(heights, widths, 224).numpy().tolist() == [[19, 125, 262, 262], [16, 16, 224, 224]]
    assert augment.central_boxes(heights, widths, 64).numpy().tolist() == [[0, 106, 300, 300], [0, 0, 256, 256]]


def test_the_five_boxes_of_the_ten_crop_are_the_centre_and_the_corners():
    heights, widths = tf.constant([256, 300]), tf.constant([320, 512])
    first, second = np.swapaxes(augment.ten_crop_boxes(heights, widths, 224).numpy(), 0, 1).tolist()
    assert first == [
        [16, 48, 224, 224],
        [0, 0, 224, 224],
        [0, 96, 224, 224],
        [32, 0, 224, 224],
        [32, 96, 224, 224],
    ]
    assert second[0] == [19, 125, 262, 262] and second[4] == [38, 250, 262, 262]


# --- resampling ----------------------------------------------------------------------------------------------------


def test_an_enlarged_ramp_is_the_ramp():
    # value = 4 x + 6 y: bilinear at the centre of view pixel j is the ramp at left + (j + 1/2) w/S - 1/2,
    # held at the outermost pixel centres of the box.
    y, x = np.mgrid[0:12, 0:10]
    ramp = np.repeat((4 * x + 6 * y)[None, ..., None], 3, axis=-1).astype(np.float32)
    top, left, height, width, size = 3, 1, 7, 6, 16
    got = augment.crop_and_resize(tf.constant(ramp), tf.constant([[top, left, height, width]]), size).numpy()[0, ..., 0]
    centre = np.arange(size) + 0.5
    rows = np.clip(top + centre * height / size - 0.5, top, top + height - 1)
    columns = np.clip(left + centre * width / size - 0.5, left, left + width - 1)
    np.testing.assert_allclose(got, 6 * rows[:, None] + 4 * columns, atol=1e-4)


@pytest.mark.parametrize("size", [4, 7, 32])
def test_each_box_is_resized_as_tensorflow_resizes_the_cut_out_picture(size):
    boxes = boxes_for(DRAWS, 12, 10, PHOTO)
    mirrored = np.arange(BATCH) % 3 == 0
    got = augment.crop_and_resize(tf.constant(PICTURES), tf.constant(boxes), size, tf.constant(mirrored)).numpy()
    for picture, box, mirror, view in zip(PICTURES, boxes, mirrored, got, strict=True):
        part = reference.cut(picture, box)
        expected = tf.image.resize(part, [size, size], "bilinear", antialias=True).numpy()
        np.testing.assert_allclose(view, expected[:, ::-1] if mirror else expected, atol=5e-4)
        by_hand = reference.resized_in_batch(part, size, size)
        np.testing.assert_allclose(view, by_hand[:, ::-1] if mirror else by_hand, atol=5e-4)


@pytest.mark.parametrize("mirror", [False, True])
def test_an_affine_change_is_the_one_worked_out_pixel_by_pixel(mirror):
    a = Augmentation(16, rotation=40.0, scale=0.3, shift=0.2, shear=0.25)
    pictures = PICTURES[:6, :8, :8]
    flips = tf.fill([6], True) if mirror else None
    got = augment.warp(tf.constant(pictures), changes(DRAWS[:6], a), 16, flips).numpy()
    for i in range(6):
        np.testing.assert_allclose(got[i], reference.warped(pictures[i], DRAWS[i], a, mirror), atol=0.02)


def warped(picture, **magnitudes):
    """The view with every draw at its upper end."""
    size = picture.shape[0]
    change = changes(np.ones((1, Draw.COUNT), np.float32), Augmentation(size, **magnitudes))
    return augment.warp(tf.constant(picture[None]), change, size).numpy()[0]


def test_a_quarter_turn_and_a_shift_by_whole_pixels_are_exact():
    picture = PICTURES[0, :8, :8]
    np.testing.assert_allclose(warped(picture, rotation=90.0), np.rot90(picture, -1), atol=0.02)  # clockwise
    moved = np.zeros_like(picture)
    moved[2:, 2:] = picture[:-2, :-2]  # a quarter of 8 px, down and right, black comes in
    np.testing.assert_allclose(warped(picture, shift=0.25), moved, atol=2e-3)


# --- colour --------------------------------------------------------------------------------------------------------


def recoloured(pictures, draws, augmentation):
    """Pictures of the size of the views."""
    return augment.recolour(tf.constant(pictures), changes(draws, augmentation)).numpy()


@pytest.mark.parametrize("order", list(itertools.permutations(reference.COLOUR_STEPS))[::5])
def test_one_matrix_does_all_steps_in_any_order(order):
    a = dataclasses.replace(PHOTO, image_size=10)
    pictures = PICTURES[:, :10]
    got = recoloured(pictures, DRAWS, a)
    gray = DRAWS[:, Draw.GRAYSCALE] < 0.2
    assert 0 < gray.sum() < BATCH
    for i in range(BATCH):
        expected = reference.recoloured(pictures[i], DRAWS[i], a, order)
        np.testing.assert_allclose(got[i], expected, atol=2e-4)  # both round the numbers of NTSC
    assert np.ptp(got[gray], axis=-1).max() < 1e-5
    assert (got == 0).any() and (got == 1).any()  # something was clipped


@pytest.mark.parametrize("size", [7, 10, 12, 16])  # 49, 100, 144, 256 px: 1, 4, 8, 8 at a time
def test_contrast_is_about_the_mean_of_all_pixels(size):
    a = Augmentation(size, jitter=0.8, hue=0.0)
    picture = rng.uniform(100, 150, size=(1, size, size, 3)).astype(np.float32)
    picture[0, -1, -1] = 0  # pixels that a wrong mean would leave out
    picture[0, 0, 0] = 255
    mean = picture.mean(axis=(1, 2), dtype=np.float64) / 255
    got = recoloured(picture, draws_with(CONTRAST=0.0), a)
    np.testing.assert_allclose(got[0], mean + 0.2 * (picture[0] / 255 - mean), atol=2e-6)
    np.testing.assert_allclose(got.mean(axis=(1, 2)), mean, atol=2e-6)


def test_hue_turns_colours_as_far_as_tensorflow_does():
    # A linear hue differs from HSV's in brightness, but not in where the colour goes: red by a third becomes green.
    draws = draws_with(HUE=1.0)
    red = np.float32([[[[204, 25, 25]]]])
    for third in (Augmentation(1, jitter=1 / 3), Augmentation(1, hue=1 / 3)):
        got = recoloured(red, draws, third)[0, 0, 0]
        reference_hue = tf.image.adjust_hue(red / 255, 1 / 3).numpy()[0, 0, 0]
        assert got.argmax() == reference_hue.argmax() == 1


def test_hue_has_a_magnitude_of_its_own():
    pictures = PICTURES[:, :10]
    a = Augmentation(10, jitter=0.8, hue=0.1)
    for i, view in enumerate(recoloured(pictures, DRAWS, a)):
        np.testing.assert_allclose(view, reference.recoloured(pictures[i], DRAWS[i], a), atol=2e-4)
    still = Augmentation(10, jitter=0.8, hue=0.0)
    ends = [recoloured(pictures[:1], draws_with(HUE=end, SATURATION=0.9), still) for end in (0.0, 1.0)]
    assert np.array_equal(*ends)


def test_jitter_is_left_out_for_its_share_of_pictures_but_grayscale_is_not():
    a = Augmentation(10, jitter=0.8, hue=0.2, jitter_probability=0.6, grayscale=0.5)
    pictures = PICTURES[:, :10]
    left = DRAWS[:, Draw.JITTER] >= 0.6
    gray = DRAWS[:, Draw.GRAYSCALE] < 0.5
    assert (left & gray).any() and (left & ~gray).any() and (~left & ~gray).any()
    got = recoloured(pictures, DRAWS, a)
    for i, view in enumerate(got):
        np.testing.assert_allclose(view, reference.recoloured(pictures[i], DRAWS[i], a), atol=2e-4)
    np.testing.assert_allclose(got[left & ~gray], pictures[left & ~gray] / 255, atol=1e-5)
    luma = pictures[left & gray] @ np.float32(reference.LUMA)[:, None] / 255
    np.testing.assert_allclose(got[left & gray], np.repeat(luma, 3, axis=-1), atol=1e-5)


# --- blur ----------------------------------------------------------------------------------------------------------


def test_blur_is_the_weighted_mean_of_the_neighbours():
    sigma = np.linspace(0.1, 2, BATCH).astype(np.float32)
    views = PICTURES / 255
    got = augment.gaussian_blur(tf.constant(views), tf.constant(sigma), 2.0).numpy()
    for i in range(BATCH):
        np.testing.assert_allclose(got[i], reference.blurred(views[i], float(sigma[i]), 6), atol=2e-6)


def test_a_blurred_point_is_the_bell_by_hand():
    point = np.zeros((1, 15, 15, 3), np.float32)
    point[0, 7, 7] = 1
    got = augment.gaussian_blur(tf.constant(point), tf.constant([1.0]), 2.0).numpy()[0, ..., 1]
    bell = [math.exp(-(d**2) / 2) for d in range(-6, 7)]
    assert got[7, 7] == pytest.approx(1 / sum(bell) ** 2, rel=1e-5)
    assert got[7, 9] == got[9, 7] == pytest.approx(math.exp(-2) / sum(bell) ** 2, rel=1e-5)
    assert got[5, 8] == pytest.approx(math.exp(-2.5) / sum(bell) ** 2, rel=1e-5)
    assert got.sum() == pytest.approx(1, abs=1e-5) and got[0].max() == 0  # cut off at 6 px


def test_a_sigma_of_0_leaves_every_pixel_alone():
    sigma = tf.constant([0.0, 1.0] * (BATCH // 2))
    got = augment.gaussian_blur(tf.constant(PICTURES / 255), sigma, 2.0).numpy()
    assert np.array_equal(got[::2], PICTURES[::2] / 255)
    assert (np.abs(got[1::2] - PICTURES[1::2] / 255).max(axis=(1, 2, 3)) > 0.05).all()


def test_only_the_pictures_drawn_are_blurred():
    sharp = Augmentation(16, crop_min_area=0.2, jitter=0.4)
    a = dataclasses.replace(sharp, blur=0.4, blur_sigma=(0.5, 1.5))
    drawn = DRAWS[:, Draw.BLUR] < 0.4
    assert 0 < drawn.sum() < BATCH
    views, sharp_views = views_of(PICTURES, DRAWS, a), views_of(PICTURES, DRAWS, sharp)
    assert np.array_equal(views[~drawn], sharp_views[~drawn])
    for i in np.flatnonzero(drawn):
        expected = reference.blurred(sharp_views[i], reference.blur_sigma(DRAWS[i], a), 5)  # 3 * 1.5, up
        np.testing.assert_allclose(views[i], expected, atol=2e-6)
    none = uniforms_numpy(0, 0, np.arange(4), 0, Draw.COUNT)
    none[:, Draw.BLUR] = 0.9
    assert np.array_equal(views_of(PICTURES[:4], none, a), views_of(PICTURES[:4], none, sharp))


# --- whole views ---------------------------------------------------------------------------------------------------

SIZES = [8, 15, 21]  # 225 and 441 are not divisible by 8


@pytest.mark.parametrize("size", SIZES)
def test_the_view_of_instance_recognition_is_the_one_worked_out(size):
    a = augmentation_for("photo", size)
    pictures = np.stack([smooth(i, 24, 20) for i in range(BATCH)])
    views = views_of(pictures, DRAWS, a)
    mirrored = DRAWS[:, Draw.FLIP] < 0.5
    assert 0 < mirrored.sum() < BATCH
    for i in range(BATCH):
        expected = reference.training_view(pictures[i], DRAWS[i], a, reference.resized_in_batch)
        np.testing.assert_allclose(views[i], expected, atol=3e-4)


@pytest.mark.parametrize("patch", [False, True])
def test_the_view_of_transfer_is_a_crop_or_a_patch_mirrored_without_colour(patch):
    a = transfer_augmentation("photo", 15, patch)
    assert not a.colours and not a.warps and a.flip and a.blur == 0
    pictures = np.stack([smooth(i, 24, 32) for i in range(BATCH)])
    views = views_of(pictures, DRAWS, a)
    for i in range(BATCH):
        part = reference.cut(pictures[i], reference.training_box(DRAWS[i], 24, 32, a))
        assert not patch or part.shape == (21, 21, 3)
        expected = reference.resized_in_batch(part, 15, 15) / 255
        mirrored = DRAWS[i, Draw.FLIP] < 0.5
        np.testing.assert_allclose(views[i], expected[:, ::-1] if mirrored else expected, atol=1e-5)


def test_multi_crop_is_two_large_views_and_some_small_ones():
    views = multi_crop("photo", 224, 6)
    assert [view.image_size for view in views] == [224] * 2 + [96] * 6
    assert [(view.crop_min_area, view.crop_max_area) for view in views] == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 6
    assert {(v.grayscale, v.jitter, v.hue, v.jitter_probability, v.blur, v.flip) for v in views} == {
        (0.2, 0.8, 0.2, 0.8, 0.5, True)
    }
    assert [view.image_size for view in multi_crop("photo", 64, 1)] == [64, 64, 27]  # 64 * 96 / 224 = 27.4


@pytest.mark.parametrize("which", [0, -1])
def test_a_view_of_multi_crop_is_the_one_worked_out(which):
    a = multi_crop("photo", 35, 2)[which]
    assert a.image_size in (35, 15)
    pictures = np.stack([smooth(i, 60, 50) for i in range(BATCH)])
    views = views_of(pictures, DRAWS, a)
    assert 0 < (DRAWS[:, Draw.BLUR] < 0.5).sum() < BATCH and (DRAWS[:, Draw.JITTER] >= 0.8).any()
    for i in range(BATCH):
        expected = reference.training_view(pictures[i], DRAWS[i], a, reference.resized_in_batch)
        np.testing.assert_allclose(views[i], expected, atol=3e-4)


def test_ten_views_are_five_and_the_same_mirrored():
    pictures = np.stack([smooth(i, 90, 110) for i in range(2)])
    views = augment.ten_crop_views(tf.constant(pictures), 79)  # 7/8 of 90 is 78.75: nothing is resampled
    assert len(views) == 10
    corners = [(5, 15), (0, 0), (0, 31), (11, 0), (11, 31)]  # (90 - 79) // 2, (110 - 79) // 2
    for i, (top, left) in enumerate(corners):
        part = pictures[:, top : top + 79, left : left + 79] / 255
        np.testing.assert_allclose(views[i], part, atol=1e-5)
        np.testing.assert_allclose(views[5 + i], part[:, :, ::-1], atol=1e-5)
    np.testing.assert_allclose(views[0], augment.evaluation_view(tf.constant(pictures), "photo", 79), atol=1e-6)


def test_zero_magnitudes_change_nothing():
    square = PICTURES[:, :10]
    nothing = Augmentation(10)
    np.testing.assert_allclose(views_of(square, DRAWS, nothing), square / 255, atol=1e-6)
    np.testing.assert_allclose(recoloured(square, DRAWS, nothing), square / 255, atol=1e-5)
    for kind in ("digits", "photo"):
        view = augment.evaluation_view(tf.constant(square), kind, 10)
        np.testing.assert_allclose(view, square / 255, atol=1e-6)


def test_digits_are_seen_alike_in_training_and_evaluation():
    square = PICTURES[:, :8, :8]
    trained = views_of(square, DRAWS, Augmentation(16))
    assert np.array_equal(trained, augment.evaluation_view(tf.constant(square), "digits", 16))


def test_whole_numbers_are_seen_like_the_others():
    pictures = np.round(PICTURES)
    for a in (PHOTO, augmentation_for("digits", 16)):
        assert np.array_equal(views_of(pictures.astype(np.uint8), DRAWS, a), views_of(pictures, DRAWS, a))
    for kind in ("photo", "digits"):
        views = [augment.evaluation_view(tf.constant(p), kind, 16) for p in (pictures, pictures.astype(np.uint8))]
        assert np.array_equal(*views)


def test_half_of_the_views_are_mirrored():
    draws = uniforms_numpy(0, 0, np.arange(10_000), 0, Draw.COUNT)
    assert abs(np.mean(changes(draws, PHOTO).mirrored) - 0.5) < 0.025
    assert not np.any(changes(draws, augmentation_for("digits", 16)).mirrored)


@pytest.mark.parametrize("kind, size", [("photo", 32), ("digits", 16)])
def test_views_of_a_picture_do_not_depend_on_its_batch(kind, size):
    a = dataclasses.replace(augmentation_for(kind, size, DataConfig(rotation=20.0, jitter=0.5)), blur=0.5)
    whole = views_of(PICTURES, DRAWS, a)
    for i in range(BATCH):
        np.testing.assert_allclose(views_of(PICTURES[i : i + 1], DRAWS[i : i + 1], a)[0], whole[i], atol=1e-6)


def test_views_stay_between_0_and_1():
    pictures = np.stack([smooth(i, 24, 24) for i in range(64)])
    pictures[0], pictures[1:32] = 0, 255  # white is where rounding errors would show
    draws = uniforms_numpy(5, 0, np.arange(64), 0, Draw.COUNT)
    plain = dataclasses.replace(PHOTO, grayscale=0.0, jitter=0.0)
    blurred = dataclasses.replace(plain, blur=1.0)
    for a in (PHOTO, plain, blurred, *multi_crop("photo", 32, 1), augmentation_for("digits", 16), Augmentation(17)):
        view = views_of(pictures, draws, a)
        assert view.min() >= 0 and 0.99 < view.max() <= 1
    for kind, size in itertools.product(("digits", "photo"), range(13, 40)):
        assert np.max(augment.evaluation_view(tf.constant(pictures[1:2, :8, :8]), kind, size)) <= 1


def test_flags_override_what_the_kind_of_data_set_has():
    digits = augmentation_for("digits", 16)
    assert digits.warps and not digits.colours and not digits.flip and digits.crop_min_area is None
    photo = Augmentation(32, crop_min_area=0.2, grayscale=0.2, jitter=0.4, flip=True)
    assert augmentation_for("photo", 32) == photo
    changed = augmentation_for("photo", 32, DataConfig(flip=False, jitter=0.0, rotation=5.0))
    assert changed == dataclasses.replace(photo, flip=False, jitter=0.0, rotation=5.0)


def test_draws_keep_their_places():
    # A number that moved would change every run that is resumed: new draws go to the end.
    assert [draw.value for draw in Draw] == [0, 10, *range(20, 37)]
    assert Draw.CROP_TOP == 20 and Draw.FLIP == 22 and Draw.SHEAR == 32
    assert (Draw.JITTER, Draw.BLUR, Draw.BLUR_SIGMA, Draw.COUNT) == (33, 34, 35, 36)


def test_multi_crop_is_two_large_views_and_small_ones_that_flags_can_change():
    views = multi_crop("photo", 224)
    assert [view.image_size for view in views] == [224] * 2 + [96] * 6
    assert {(view.crop_min_area, view.crop_max_area) for view in views} == {(0.14, 1.0), (0.05, 0.14)}
    assert {(view.jitter, view.hue, view.grayscale, view.blur) for view in views} == {(0.8, 0.2, 0.2, 0.5)}
    assert [view.image_size for view in multi_crop("photo", 32)] == [32, 32]  # parts of small pictures show nothing
    assert [view.image_size for view in multi_crop("photo", 32, 2)] == [32, 32, 14, 14]
    assert multi_crop("photo", 224, 0)[0].crop_min_area == 0.08
    stored = DataConfig(jitter=0.8, crop_min_area=0.14, grayscale=0.2, flip=True)
    assert multi_crop("photo", 224, overrides=stored) == views  # what a run stores says the same again
    changed = multi_crop("photo", 224, 1, DataConfig(jitter=0.5, crop_min_area=0.3, flip=False))
    assert [(view.jitter, view.hue, view.crop_min_area, view.flip) for view in changed] == [
        (0.5, 0.125, 0.3, False), (0.5, 0.125, 0.3, False), (0.5, 0.125, 0.05, False),
    ]  # fmt: skip
    assert (
        multi_crop("digits", 16, 6, DataConfig(rotation=3))
        == (augmentation_for("digits", 16, DataConfig(rotation=3)),) * 2
    )
