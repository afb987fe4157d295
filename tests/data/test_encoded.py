"""Encoded pictures in a function call: each is seen as an evaluation sees it, and a broken one is named."""

import json

import numpy as np
import pytest
import tensorflow as tf

from data import encoded
from data.digits import open_digits
from data.encoded import View, evaluation_views, stored_view, unscaled_size, view_of, viewed_batches
from data.manifest import manifest
from data.pipeline import evaluation_batches
from data.sources import open_dataset
from tests.data.pictures import encoded as file_of
from tests.data.pictures import smooth
from tests.data.strange_pictures import bad, readable

SIZES = [(90, 120), (300, 200), (64, 64), (31, 17)]


def folder_of(root, pictures):
    """`folder:` of one class, pictures by file name."""
    (root / "only").mkdir(parents=True)
    for name, data in pictures.items():
        (root / "only" / name).write_bytes(data)
    return open_dataset(f"folder:{root}")


def files_of(split):
    return tf.constant([split.source.read(row) for row in range(split.size)])


def seen_by_evaluation(split, image_size):
    (batch,) = evaluation_batches(split, image_size, split.size)
    assert np.all(batch["valid"])
    return batch["image"]


@pytest.mark.parametrize("image_size", [32, 112])
def test_photographs_of_any_sizes_and_formats_are_seen_as_in_evaluation(tmp_path, image_size):
    files = {f"{i}.jpg": file_of(smooth(i, *size), "jpeg") for i, size in enumerate(SIZES)}
    split = folder_of(tmp_path, files | {name: data for name, (data, _) in readable().items()}).train
    view = view_of(split, image_size)
    assert view == View(image_size, "photo", None)
    found = evaluation_views(files_of(split), view)
    assert found.shape == (len(files) + len(readable()), image_size, image_size, 3)
    np.testing.assert_allclose(found, seen_by_evaluation(split, image_size), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("size", "image_size"), [((40, 40), 32), ((24, 20), 20), ((24, 20), 32)])
def test_small_pictures_of_one_size_are_seen_as_in_evaluation(tmp_path, size, image_size):
    noise = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)  # in which every filter shows
    split = folder_of(tmp_path, {f"{i}.png": file_of(each) for i, each in enumerate(noise)}).train
    view = view_of(split, image_size)
    assert view.common_size == size
    wanted = seen_by_evaluation(split, image_size)
    np.testing.assert_allclose(evaluation_views(files_of(split), view), wanted, rtol=0, atol=1e-6)
    if size == (40, 40):
        as_others = evaluation_views(files_of(split), View(image_size))
        assert np.abs(as_others - wanted).max() > 0.1, "how they are seen makes no difference: nothing is tested"


def test_a_picture_of_another_size_is_seen_as_any_photograph_is():
    file = tf.constant([file_of(smooth(0, 90, 120), "jpeg")])
    np.testing.assert_array_equal(
        evaluation_views(file, View(32, "photo", (40, 40))), evaluation_views(file, View(32, "photo", None))
    )


def test_batches_of_a_split_are_seen_in_the_view_of_another(tmp_path):
    """Nothing that the pictures of the split have in common counts; one that cannot be read is masked."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), np.uint8)
    split = folder_of(tmp_path, {f"{i}.png": file_of(each) for i, each in enumerate(noise)}).train
    (tmp_path / "only" / "2.png").write_bytes(b"no picture")
    batches = list(viewed_batches(split, View(32), 2, rows=[3, 2, 0]))
    assert [batch["index"].numpy().tolist() for batch in batches] == [[3, 2], [0]]
    assert [batch["valid"].numpy().tolist() for batch in batches] == [[True, False], [True]]
    wanted = evaluation_views(tf.constant([file_of(noise[3]), file_of(noise[0])]), View(32))
    found = [batch["image"][0] for batch in batches]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_digits_are_seen_as_in_evaluation():
    split = open_digits().test
    files = tf.constant([file_of(picture) for picture in split.source.pictures[:5]])
    (batch,) = evaluation_batches(split, 16, 5, rows=np.arange(5))
    np.testing.assert_allclose(evaluation_views(files, view_of(split, 16)), batch["image"], rtol=0, atol=1e-6)
    larger = tf.constant(
        [file_of(picture.repeat(3, axis=0).repeat(3, axis=1)) for picture in split.source.pictures[:5]]
    )
    np.testing.assert_allclose(evaluation_views(larger, view_of(split, 16)), batch["image"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(24, 24), (24, 65)])
def test_a_manifest_is_enough_to_know_the_view(tmp_path, size):
    dataset = folder_of(tmp_path, {f"{i}.png": file_of(smooth(i, *size)) for i in range(3)})
    for each in (dataset, open_digits()):
        stored = json.loads(json.dumps(manifest(each)))
        for image_size in (16, 112):
            assert stored_view(stored, image_size) == view_of(each.train, image_size)
            before = {key: value for key, value in stored.items() if key != "common_size"}
            if each.kind == "digits":
                assert stored_view(before, image_size) == view_of(each.train, image_size)
            else:
                assert stored_view(before, image_size) == View(image_size)


def test_of_the_unscaled_size_pixels_are_seen_as_they_are():
    for size in range(8, 600):
        part = 7 / 8 if size > 64 else 1
        assert all(round(part * side) == size for side in unscaled_size(View(size)))
    side, _ = unscaled_size(View(100))
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    start = (side - 100) // 2
    wanted = picture[start : start + 100, start : start + 100] / np.float32(255)
    found = evaluation_views(tf.constant([file_of(picture)]), View(100))
    np.testing.assert_allclose(found[0], wanted, rtol=0, atol=1e-6)
    assert unscaled_size(View(32, "photo", (40, 44))) == (40, 44)


@pytest.fixture(scope="module")
def views():
    return tf.function(
        lambda image_bytes: evaluation_views(image_bytes, View(32)), [tf.TensorSpec([None], tf.string)], autograph=False
    )


@pytest.mark.parametrize("name", bad())
def test_the_first_picture_that_cannot_be_read_is_named_and_the_next_call_works(views, name):
    good, broken = file_of(smooth(0, 50, 40), "jpeg"), bad()[name][0]
    for place, pictures in ((2, [good, good, broken, good, b""]), (0, [broken]), (0, [broken, b""])):
        with pytest.raises(tf.errors.InvalidArgumentError) as raised:
            views(tf.constant(pictures))
        assert f"image_bytes[{place}]: {encoded.UNREADABLE}" in raised.value.message
    assert views(tf.constant([good])).shape == (1, 32, 32, 3)


def test_a_call_with_no_picture_gives_none(views):
    assert views(tf.constant([], tf.string)).shape == (0, 32, 32, 3)
