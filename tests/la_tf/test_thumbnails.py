"""Thumbnails: what is in the data URI, of which size, and what stands for a damaged picture."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from data.digits import open_digits
from data.sources import FileSource, Split
from la_tf.thumbnails import data_uri, squeezed, thumbnail
from tests.data.bombs import declared


def decoded(uri):
    head, _, body = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


def split_of(folder, *pictures):
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png")
    names = [f"{number}.png" for number in range(len(pictures))]
    return Split("folder:x", "train", "photo", np.full(len(names), -1), FileSource(str(folder), names))


def test_the_central_square_at_the_side_asked_for(tmp_path):
    wide = np.zeros((60, 120, 3), np.uint8)
    wide[:, 30:90, 0] = 250  # red is just the central square
    found = decoded(thumbnail(split_of(tmp_path, Image.fromarray(wide)), 0, side=40))
    assert found.size == (40, 40)
    assert np.asarray(found)[..., 0].min() > 200 and np.asarray(found)[..., 1].max() < 40


def test_a_small_picture_keeps_its_size_and_grey_is_stored_as_grey():
    found = decoded(thumbnail(open_digits().train, 0))
    assert found.size == (8, 8) and found.mode == "L"


def test_pixels_survive():
    picture = np.full((40, 40, 3), (200, 30, 90), np.uint8)
    np.testing.assert_allclose(np.asarray(decoded(data_uri(picture))), picture, atol=6)


@pytest.mark.parametrize("content", [b"", b"no picture", None, declared("png", 65_500, 65_500)])
def test_a_damaged_or_missing_picture_is_grey(tmp_path, content):
    split = split_of(tmp_path, Image.new("RGB", (50, 50), "red"))
    path = tmp_path / "0.png"
    path.unlink() if content is None else path.write_bytes(content)
    pixels = np.asarray(decoded(thumbnail(split, 0)).convert("RGB"))
    assert pixels.shape == (40, 40, 3) and (abs(pixels.astype(int) - 210) < 3).all()


def test_sixteen_bits_a_pixel_are_the_upper_eight_of_them(tmp_path):
    deep = np.repeat(np.repeat(np.array([[0x1234, 0xC0FF], [0x00FF, 0xFFFF]], np.uint16), 8, 0), 8, 1)
    split = split_of(tmp_path, Image.fromarray(deep))
    found = squeezed(split, 0, 16)
    np.testing.assert_array_equal(
        found[[0, 0, 15, 15], [0, 15, 0, 15]], np.array([[0x12], [0xC0], [0], [0xFF]]) + [0] * 3
    )
    assert abs(int(np.asarray(decoded(thumbnail(split, 0)))[2, 13]) - 0xC0) < 8


def test_all_of_a_picture_is_squeezed_and_a_damaged_one_is_none(tmp_path):
    wide = np.zeros((20, 80, 3), np.uint8)
    wide[:, 40:] = (10, 200, 30)
    split = split_of(tmp_path, Image.fromarray(wide))
    found = squeezed(split, 0, 16)
    assert found.shape == (16, 16, 3) and (found[:, :6] < 5).all() and (found[:, 10:] == (10, 200, 30)).all()
    (tmp_path / "0.png").write_bytes(b"no picture")
    assert squeezed(split, 0, 16) is None
