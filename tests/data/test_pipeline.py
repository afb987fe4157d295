"""If these fail, a resumed run is another run, a picture has two indices, or training and evaluation disagree."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from data import pipeline, reading
from data.augment import Draw, training_view
from data.augmentation import augmentation_for
from data.draws import epoch_order_numpy, uniforms
from data.errors import FlagError, UserError
from data.pipeline import batch_rows, evaluation_batches, name_culprit, training_batches
from data.sources import open_dataset
from tests.data.pictures import encoded, example, smooth, write_folder, write_records


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("small"), count=7, size=(24, 24))


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("large"), count=7, size=(90, 100), extension="jpg")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    for shard in range(3):
        examples = []
        for row in range(5 * shard, min(5 * shard + 5, 14)):
            data = encoded(smooth(100 * (row // 7) + row % 7, 90, 100), "jpeg")
            examples.append(example(image__encoded=data, image__class__label=row // 7))
        write_records(folder / f"train-{shard}", examples)
    return folder


@pytest.fixture(params=["digits", "in memory", "files", "records"])
def split_and_size(request, small_folder, large_folder, records):
    spec, size = {
        "digits": ("digits", 16),
        "in memory": (f"folder:{small_folder}", 24),
        "files": (f"folder:{large_folder}", 80),
        "records": (f"tfrecord:{records}/train-*", 80),
    }[request.param]
    return open_dataset(spec).train, size


def batches(split, size, count, batch_size=4, seed=3, **options):
    a = augmentation_for(split.kind, size)
    return list(training_batches(split, a, batch_size, seed, **options).take(count).as_numpy_iterator())


def assert_same(got, expected):
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert all(np.array_equal(a[key], b[key]) for key in ("image", "index", "label"))


def test_the_batch_contract(split_and_size):
    split, size = split_and_size
    dataset = training_batches(split, augmentation_for(split.kind, size), 4, seed=0)
    spec = dataset.element_spec
    assert (spec["image"].shape, spec["image"].dtype) == ((4, size, size, 3), tf.float32)
    assert (spec["index"].shape, spec["index"].dtype) == ((4,), tf.int64)
    assert (spec["label"].shape, spec["label"].dtype) == ((4,), tf.int64)
    for batch in dataset.take(4).as_numpy_iterator():
        assert batch["image"].min() >= 0 and 0.1 < batch["image"].max() <= 1
        assert np.array_equal(batch["label"], split.labels[batch["index"]])


def test_batches_do_not_depend_on_workers_or_resume_point(split_and_size):
    split, size = split_and_size
    steps = 8  # 14 pictures in batches of 4: the third epoch begins at step 6
    whole = batches(split, size, steps)
    for workers in (1, 5):
        assert_same(batches(split, size, steps, workers=workers), whole)
    for first in (1, 7):
        assert_same(batches(split, size, steps - first, first_step=first, workers=2), whole[first:])


def test_an_epoch_sees_each_picture_once_in_its_own_order(split_and_size):
    split, size = split_and_size
    per_epoch = split.size // 4
    got = [batch["index"] for batch in batches(split, size, 2 * per_epoch)]
    for step, rows in enumerate(got):
        assert np.array_equal(rows, batch_rows(split, 4, 3, step))
    first, second = np.concatenate(got[:per_epoch]), np.concatenate(got[per_epoch:])
    assert len(np.unique(first)) == len(first) == per_epoch * 4
    assert np.array_equal(first, epoch_order_numpy(3, 0, split.size)[: len(first)])
    assert not np.array_equal(first, second)


def test_a_picture_is_changed_alike_whatever_the_batch_size(split_and_size):
    split, size = split_and_size

    def views(batch_size):
        got = batches(split, size, split.size // batch_size, batch_size=batch_size)
        pairs = [pair for batch in got for pair in zip(batch["index"].tolist(), batch["image"], strict=True)]
        return dict(pairs)

    by_2, by_7 = views(2), views(7)
    both = by_2.keys() & by_7.keys()  # an epoch's remainder is dropped
    assert len(both) >= split.size - 3
    for index in both:
        np.testing.assert_allclose(by_2[index], by_7[index], atol=1e-6)


def test_epochs_and_seeds_change_the_views(small_folder):
    split = open_dataset(f"folder:{small_folder}").train
    views = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        (batch,) = batches(split, 24, 1, batch_size=14, seed=seed, first_step=epoch)
        views.append(batch["image"][np.argsort(batch["index"])])
    for a, b in itertools.combinations(views, 2):
        assert (np.abs(a - b).max(axis=(1, 2, 3)) > 0.05).all()


def test_two_pipelines_share_each_batch(split_and_size):
    split, size = split_and_size
    whole = batches(split, size, 4)
    parts = [batches(split, size, 4, shard=(i, 2)) for i in range(2)]
    for step in range(4):
        for key in ("image", "index", "label"):
            joined = np.concatenate([part[step][key] for part in parts])
            np.testing.assert_allclose(joined, whole[step][key], atol=1e-6)


def test_views_from_memory_and_from_the_stream_are_alike(small_folder, monkeypatch):
    # At 24 px and more from 24 px both enlarge, by the same rule; at less they antialias differently.
    kept = open_dataset(f"folder:{small_folder}").train
    in_memory = batches(kept, 32, 3), list(evaluation_batches(kept, 32, 5).as_numpy_iterator())
    monkeypatch.setattr(reading, "MEMORY", 0)
    streamed = batches(kept, 32, 3), list(evaluation_batches(kept, 32, 5).as_numpy_iterator())
    for a, b in zip(in_memory, streamed, strict=True):
        for one, other in zip(a, b, strict=True):
            assert np.array_equal(one["index"], other["index"])
            np.testing.assert_allclose(one["image"], other["image"], atol=2e-5)


def test_files_and_records_give_the_same_views(large_folder, records):
    files, shards = open_dataset(f"folder:{large_folder}").train, open_dataset(f"tfrecord:{records}/train-*").train
    for a, b in zip(batches(files, 80, 3), batches(shards, 80, 3), strict=True):
        assert np.array_equal(a["index"], b["index"]) and np.array_equal(a["label"], b["label"])
        np.testing.assert_allclose(a["image"], b["image"], atol=0.1)  # two JPEG encodings of one picture


def test_the_view_is_the_one_of_the_contract(small_folder):
    # Written out: seed 3, epoch 1, view 0, each picture by its own index.
    split = open_dataset(f"folder:{small_folder}").train
    (batch,) = batches(split, 24, 1, first_step=3)
    rows = epoch_order_numpy(3, 1, 14)[:4]
    pictures = np.stack([smooth(100 * (row // 7) + row % 7, 24, 24) for row in rows]) / np.float32(255)
    expected = training_view(pictures, uniforms(3, 1, rows, 0, Draw.COUNT), augmentation_for("photo", 24))
    np.testing.assert_allclose(batch["image"], expected, atol=1e-5)


def test_evaluation_goes_through_the_rows_in_order(split_and_size):
    split, size = split_and_size
    rows = [5, 0, 13, 2, 9]
    for workers in (0, 3):
        got = list(evaluation_batches(split, size, 2, rows=np.array(rows), workers=workers).as_numpy_iterator())
        assert [len(batch["index"]) for batch in got] == [2, 2, 1]
        assert np.concatenate([batch["index"] for batch in got]).tolist() == rows
        assert np.array_equal(np.concatenate([batch["label"] for batch in got]), split.labels[rows])
        assert all(batch["image"].shape[1:] == (size, size, 3) for batch in got)
    whole = [batch["index"] for batch in evaluation_batches(split, size, 256).as_numpy_iterator()]
    assert np.array_equal(np.concatenate(whole), np.arange(split.size))


def test_evaluation_of_large_pictures_is_the_centre_with_a_margin(large_folder):
    # 90 x 100: the central square of 90 * 224/256 = 79 px, here at its own size, so nothing is resampled.
    split = open_dataset(f"folder:{large_folder}").train
    (batch,) = evaluation_batches(split, 79, 1, rows=[8]).as_numpy_iterator()
    part = smooth(101, 90, 100)[5:84, 10:89] / 255
    assert np.abs(batch["image"][0] - part).max() < 0.1 and np.abs(batch["image"][0] - part).mean() < 0.01


def test_a_batch_larger_than_the_data_set_names_the_flag(small_folder):
    split = open_dataset(f"folder:{small_folder}").train
    with pytest.raises(FlagError, match=f"--batch_size=15: larger than the 14 pictures of .*{small_folder}"):
        batches(split, 24, 1, batch_size=15)
    with pytest.raises(FlagError, match="--batch_size=4: cannot be split evenly over 3"):
        batches(split, 24, 1, shard=(0, 3))


def test_the_broken_picture_of_a_step_is_named(tmp_path):
    split = open_dataset(f"folder:{write_folder(tmp_path / 'set', count=7, size=(90, 100), extension='jpg')}").train
    path = tmp_path / "set" / "bee" / "4.jpg"
    path.write_text("dear reader, I am no picture")
    steps = training_batches(split, augmentation_for("photo", 80), 2, seed=0, workers=2)
    step = 0
    with pytest.raises(tf.errors.OpError):
        for _ in steps.take(7):
            step += 1
    assert 11 in batch_rows(split, 2, 0, step)  # the error comes at the step that the picture belongs to
    with pytest.raises(UserError, match=f"{path}: is not a picture but text"):
        name_culprit(split, 2, 0, step)
    with pytest.raises(UserError):
        name_culprit(split, 2, 0, 0, steps=7)
    assert all(name_culprit(split, 2, 0, other) is None for other in range(7) if other != step)


def test_pictures_of_imagenette_stream(real_pictures):
    split = open_dataset(f"folder:{real_pictures('imagenette224')}").train
    whole = batches(split, 224, 2, batch_size=8)
    assert_same(batches(split, 224, 1, batch_size=8, first_step=1, workers=1), whole[1:])
    assert len(np.unique(np.concatenate([batch["index"] for batch in whole]))) == 16


def test_pictures_of_all_sizes_stream(real_pictures):
    split = open_dataset(f"folder:{real_pictures('imagenet_samples')}").train
    seen = [batch["index"] for batch in evaluation_batches(split, 224, 40).as_numpy_iterator()]
    assert np.concatenate(seen).tolist() == list(range(100))
    assert len(batches(split, 224, 3, batch_size=25)) == 3


def test_cifar10_in_memory(real_pictures):
    split = open_dataset(f"folder:{real_pictures('cifar10')}").test
    assert pipeline.steps_per_epoch(split, 128) == 15
    whole = batches(split, 32, 17, batch_size=128)
    assert_same(batches(split, 32, 3, batch_size=128, first_step=14), whole[14:])
