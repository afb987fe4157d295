"""If these fail, pictures are resized wrongly, kept in memory where they do not fit, or a bad one goes unnoticed."""

import numpy as np
import pytest
import tensorflow as tf

from data import reading
from data.digits import open_digits
from data.reading import pictures_in_memory, problem, resize, small_size
from data.sources import open_dataset
from tests.data import reference
from tests.data.pictures import encoded, example, smooth, write, write_folder, write_records


def train_split(folder):
    return open_dataset(f"folder:{folder}").train


# --- resize --------------------------------------------------------------------------------------------------------


def noise(height, width):
    return np.random.default_rng(height * width).integers(0, 256, size=(height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "source, target",
    [
        ((24, 20), (24, 20)),
        ((24, 20), (32, 32)),
        ((24, 20), (61, 7 * 5)),
        ((45, 37), (32, 32)),
        ((64, 40), (32, 32)),  # a factor of exactly 2 in one side
        ((9, 64), (32, 32)),
    ],
)
def test_moderate_factors_are_bilinear(source, target):
    picture = noise(*source)
    got = resize(tf.constant(picture), *target)
    assert got.shape == (*target, 3) and got.dtype == tf.float32
    np.testing.assert_allclose(got, reference.resized(picture, *target, reference.bilinear), atol=1e-3)


@pytest.mark.parametrize(
    "source, target",
    [
        ((65, 40), (32, 32)),  # one side is enough
        ((40, 65), (32, 32)),
        ((130, 97), (32, 33)),
        ((300, 9), (32, 32)),
        ((96, 96), (32, 32)),
    ],
)
def test_beyond_a_factor_of_2_in_either_side_it_is_the_mean_of_the_area(source, target):
    picture = noise(*source)
    got = resize(tf.constant(picture), *target)
    assert got.shape == (*target, 3) and got.dtype == tf.float32
    np.testing.assert_allclose(got, reference.resized(picture, *target, reference.area), atol=1e-3)
    assert np.abs(got - reference.resized(picture, *target, reference.bilinear)).max() > 10


@pytest.mark.parametrize("side", [20, 31, 64, 65, 97, 300])
def test_a_uniform_picture_stays_what_it_is(side):
    for value in (0, 77, 255):
        picture = tf.fill([side, side, 3], tf.constant(value, tf.uint8))
        np.testing.assert_allclose(resize(picture, 32, 32), value, rtol=1e-6)


def test_shrinking_averages_and_enlarging_interpolates():
    y, x = np.mgrid[0:40, 0:40]
    checks = np.repeat(((x + y) % 2 * 200.0)[..., None], 3, axis=-1).astype(np.float32)
    np.testing.assert_allclose(resize(tf.constant(checks), 10, 10), 100, atol=1e-3)  # each of 4 x 4 pixels
    np.testing.assert_allclose(resize(tf.constant(checks), 20, 20), 100, atol=1e-3)  # bilinear sees each of 2 x 2
    ramp = np.repeat((2.0 * x)[..., None], 3, axis=-1).astype(np.float32)
    doubled = resize(tf.constant(ramp), 80, 80).numpy()[0, :, 0]
    np.testing.assert_allclose(doubled, np.clip(np.arange(80) - 0.5, 0, 78), atol=1e-4)


# --- pictures in memory --------------------------------------------------------------------------------------------


def test_small_pictures_of_one_size_are_kept_in_memory(tmp_path):
    split = train_split(write_folder(tmp_path / "set", size=(24, 20)))
    assert small_size(split, 32) == (24, 20)
    kept = pictures_in_memory(split, 32)
    pictures, valid = kept
    assert pictures.shape == (6, 24, 20, 3) and pictures.dtype == tf.uint8
    assert valid.shape == (6,) and valid.dtype == tf.bool and np.all(valid)
    assert np.array_equal(pictures[4], smooth(101, 24, 20))  # the second bee
    assert pictures_in_memory(split, 32) is kept
    assert small_size(split, 65) is None and pictures_in_memory(split, 65) is None


def test_digits_are_small_whatever_the_size_of_their_views():
    split = open_digits().test
    pictures, valid = pictures_in_memory(split, 224)
    assert small_size(split, 224) == (8, 8) and np.all(valid)
    assert np.array_equal(pictures, split.source.pictures)


def test_large_mixed_or_too_many_pictures_are_streamed(tmp_path, monkeypatch):
    large = train_split(write_folder(tmp_path / "large", size=(24, 65)))
    mixed = train_split(write_folder(tmp_path / "mixed", size=(24, 24)))
    write(tmp_path / "mixed" / "ant" / "1.png", smooth(0, 24, 23))
    many = train_split(write_folder(tmp_path / "many", size=(24, 24)))
    monkeypatch.setattr(reading, "MEMORY", 6 * 24 * 24 * 3 - 1)
    assert [pictures_in_memory(split, 32) for split in (large, mixed, many)] == [None] * 3
    assert [small_size(split, 32) for split in (large, mixed, many)] == [None, None, (24, 24)]
    monkeypatch.setattr(reading, "MEMORY", 6 * 24 * 24 * 3)
    assert pictures_in_memory(many, 32) is not None


def test_a_stray_of_another_size_is_resized(tmp_path, monkeypatch):
    monkeypatch.setattr("data.sources.PROBES", 2)  # the first and the last picture
    folder = write_folder(tmp_path / "set", size=(24, 24))
    stray = smooth(0, 48, 12)
    write(folder / "ant" / "1.png", stray)
    pictures, valid = pictures_in_memory(train_split(folder), 32)
    assert pictures.shape == (6, 24, 24, 3) and np.all(valid)
    assert np.abs(pictures.numpy()[1] - reference.resized_one(stray, 24, 24)).max() < 0.51


# --- bad pictures --------------------------------------------------------------------------------------------------


def text(path):
    path.write_text("dear reader, I am no picture")
    return "is not a picture but text ('dear reader, I a'...)"


def empty(path):
    path.write_bytes(b"")
    return "is empty (0 bytes)"


def cut_short(path):
    path.write_bytes(encoded(smooth(0, 24, 24), "jpeg")[:-200])
    return "is cut short or damaged"


def gone(path):
    path.unlink()
    return "cannot be read: No such file or directory"


def a_folder(path):
    path.unlink()
    path.mkdir()
    return "cannot be read: Is a directory"


def test_bad_files_have_a_problem_and_are_not_valid(tmp_path):
    split = train_split(write_folder(tmp_path / "set", count=5, size=(24, 24), extension="jpg"))
    spoilers = {0: text, 2: empty, 3: cut_short, 6: gone, 9: a_folder}
    reasons = {row: spoil(tmp_path / "set" / split.names[row]) for row, spoil in spoilers.items()}
    assert {row: problem(split, row) for row in (*spoilers, 1)} == reasons | {1: None}
    pictures, valid = pictures_in_memory(split, 32)
    assert np.flatnonzero(~valid.numpy()).tolist() == list(spoilers)
    assert (pictures.numpy().std(axis=(1, 2, 3)) > 10).all()  # another picture stands there


def test_all_pictures_may_be_bad(tmp_path, monkeypatch):
    split = train_split(write_folder(tmp_path / "set", size=(24, 24)))
    assert split.common_size == (24, 24)
    for name in split.names:
        empty(tmp_path / "set" / name)
    pictures, valid = pictures_in_memory(split, 32)
    assert pictures.shape == (6, 24, 24, 3) and not np.any(pictures) and not np.any(valid)


def test_bad_records_have_a_problem_and_are_not_valid(tmp_path):
    pictures = [encoded(smooth(i, 24, 24)) for i in range(5)]
    pictures[3] = b"these bytes are text"
    write_records(tmp_path / "train-0", [example(image__encoded=data) for data in pictures])
    split = open_dataset(f"tfrecord:{tmp_path}/train-*").train
    with open(tmp_path / "train-0", "r+b") as file:  # the picture itself stays whole
        file.seek(split.source.position[2] - 2)
        file.write(b"!!")
    assert problem(split, 1) == "is damaged: its checksum is wrong"
    assert problem(split, 3) == "is not a picture but text ('these bytes are '...)"
    assert problem(split, 0) is None and problem(split, 2) is None
    _, valid = pictures_in_memory(split, 32)
    assert valid.numpy().tolist() == [True, False, True, False, True]


def test_records_that_are_gone_or_cut_off_are_bad(tmp_path):
    for shard in range(2):
        examples = [example(image__encoded=encoded(smooth(i, 24, 24))) for i in range(2)]
        write_records(tmp_path / f"train-{shard}", examples)
    split = open_dataset(f"tfrecord:{tmp_path}/train-*").train
    assert split.common_size == (24, 24)
    (tmp_path / "train-0").unlink()
    with open(tmp_path / "train-1", "r+b") as file:
        file.truncate(int(split.source.position[3]) + 100)
    assert problem(split, 0) == "cannot be read: No such file or directory"
    assert problem(split, 2) is None
    assert problem(split, 3).startswith("is damaged")
    _, valid = pictures_in_memory(split, 32)
    assert valid.numpy().tolist() == [False, False, True, False]


def test_pictures_in_memory_have_no_problem():
    assert problem(open_digits().test, 3) is None
