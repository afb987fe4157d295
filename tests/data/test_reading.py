"""If these fail, pictures are decoded wrongly, kept in memory where they do not fit, or a broken one has no name."""

import numpy as np
import pytest
import tensorflow as tf

from data import reading
from data.augment import whole_boxes
from data.errors import UserError
from data.reading import decode_and_crop, name_broken, pictures_in_memory, resize
from data.sources import open_dataset
from tests.data.pictures import encoded, example, smooth, write, write_folder, write_records


def train_split(folder):
    return open_dataset(f"folder:{folder}").train


@pytest.mark.parametrize("form", ["png", "bmp", "webp", "jpeg", "gif"])
def test_every_format_is_decoded_and_cropped(form):
    picture = smooth(1, 40, 50)
    lossless = {"webp": {"lossless": True}, "jpeg": {"quality": 95, "subsampling": 0}}
    data = encoded(picture, form, **lossless.get(form, {}))
    part = decode_and_crop(tf.constant(data), lambda heights, widths: tf.constant([[8, 16, 24, 32]]))
    assert part.shape == (24, 32, 3) and part.dtype == tf.uint8
    tolerance = {"jpeg": 8, "gif": 30}.get(form, 0)
    assert np.abs(part.numpy().astype(int) - picture[8:32, 16:48]).max() <= tolerance


@pytest.mark.parametrize("form", ["png", "jpeg", "gif", "webp"])
def test_grayscale_becomes_three_equal_channels(form):
    gray = smooth(2, 40, 50)[..., 0]
    part = decode_and_crop(tf.constant(encoded(gray, form)), whole_boxes).numpy()
    assert part.shape == (40, 50, 3) and np.ptp(part.astype(int), axis=-1).max() <= 2
    assert np.abs(part[..., 0].astype(int) - gray).max() <= 30


def test_the_extension_may_be_wrong():
    # Many .JPEG files in the wild are PNG.
    picture = smooth(3, 20, 20)
    assert np.array_equal(decode_and_crop(tf.constant(encoded(picture, "png")), whole_boxes), picture)


def test_shrinking_averages_and_enlarging_interpolates():
    y, x = np.mgrid[0:40, 0:40]
    checks = np.repeat(((x + y) % 2 * 200.0)[..., None], 3, axis=-1).astype(np.float32)
    np.testing.assert_allclose(resize(tf.constant(checks), 10, 10), 100, atol=1e-3)  # each of 4 x 4 pixels
    ramp = np.repeat((2.0 * x)[..., None], 3, axis=-1).astype(np.float32)
    doubled = resize(tf.constant(ramp), 80, 80).numpy()[0, :, 0]
    np.testing.assert_allclose(doubled, np.clip(np.arange(80) - 0.5, 0, 78), atol=1e-4)


def test_small_pictures_of_one_size_are_kept_in_memory(tmp_path):
    split = train_split(write_folder(tmp_path / "set", size=(24, 20)))
    pictures = pictures_in_memory(split, 32)
    assert pictures.shape == (6, 24, 20, 3) and pictures.dtype == tf.uint8
    assert np.array_equal(pictures[4], smooth(101, 24, 20))  # the second bee
    assert pictures_in_memory(split, 32) is pictures
    assert pictures_in_memory(split, 65) is None


def test_large_mixed_or_too_many_pictures_are_streamed(tmp_path, monkeypatch):
    large = train_split(write_folder(tmp_path / "large", size=(24, 65)))
    mixed = train_split(write_folder(tmp_path / "mixed", size=(24, 24)))
    write(tmp_path / "mixed" / "ant" / "1.png", smooth(0, 24, 23))
    many = train_split(write_folder(tmp_path / "many", size=(24, 24)))
    monkeypatch.setattr(reading, "MEMORY", 6 * 24 * 24 * 3 - 1)
    assert [pictures_in_memory(split, 32) for split in (large, mixed, many)] == [None] * 3


def test_a_stray_of_another_size_is_resized(tmp_path, monkeypatch):
    monkeypatch.setattr("data.sources.PROBES", 2)  # the first and the last picture
    folder = write_folder(tmp_path / "set", size=(24, 24))
    write(folder / "ant" / "1.png", np.full((48, 12, 3), 77, np.uint8))
    pictures = pictures_in_memory(train_split(folder), 32).numpy()
    assert pictures.shape == (6, 24, 24, 3) and (pictures[1] == 77).all()


def text(path):
    path.write_text("dear reader, I am no picture")
    return "is not a picture but text"


def empty(path):
    path.write_bytes(b"")
    return "is empty"


def cut_short(path):
    path.write_bytes(encoded(smooth(0, 24, 24), "jpeg")[:-200])
    return "cannot be decoded"


def noise(path):
    path.write_bytes(bytes(range(128, 256)))
    return "cannot be decoded"


def gone(path):
    path.unlink()
    return "cannot be read: No such file"


@pytest.mark.parametrize("spoil", [text, empty, cut_short, noise, gone])
@pytest.mark.parametrize("place", [0, 4])
def test_a_broken_picture_is_named_with_the_reason(tmp_path, spoil, place):
    split = train_split(write_folder(tmp_path / "set", size=(24, 24), extension="jpg"))
    path = tmp_path / "set" / split.names[place]
    reason = spoil(path)
    for name in (lambda: name_broken(split, range(split.size)), lambda: pictures_in_memory(split, 32)):
        with pytest.raises(UserError) as error:
            name()
        assert str(error.value).startswith(f"{path}: {reason}") and "\n" not in str(error.value)
    assert name_broken(split, [row for row in range(6) if row != place]) is None


def test_a_record_with_a_wrong_checksum_is_named(tmp_path):
    pictures = [encoded(smooth(i, 24, 24)) for i in range(4)]
    write_records(tmp_path / "train-0", [example(image__encoded=data) for data in pictures])
    split = open_dataset(f"tfrecord:{tmp_path}/train-*").train
    with open(tmp_path / "train-0", "r+b") as file:  # the picture itself stays whole
        file.seek(split.source.position[2] - 2)
        file.write(b"!!")
    with pytest.raises(UserError, match=r"train-0#1: is damaged \(its checksum is wrong\)"):
        pictures_in_memory(split, 32)


def test_a_broken_record_is_named(tmp_path):
    pictures = [encoded(smooth(i, 24, 24)) for i in range(4)]
    pictures[2] = b"these bytes are text"
    write_records(tmp_path / "train-0", [example(image__encoded=data) for data in pictures])
    split = open_dataset(f"tfrecord:{tmp_path}/train-*").train
    with pytest.raises(UserError, match=r"train-0#2: is not a picture but text"):
        pictures_in_memory(split, 32)
