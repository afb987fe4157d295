"""If these fail, a resumed run is another run, a picture has two indices, or training and evaluation disagree."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

from data import augment, pipeline, reading
from data.augment import Draw
from data.augmentation import Augmentation, augmentation_for, multi_crop, transfer_augmentation
from data.draws import epoch_order_numpy, uniforms_numpy
from data.encoded import view_of, viewed_batches
from data.errors import FlagError
from data.pipeline import batch_rows, evaluation_batches, occurrences, training_batches
from data.sources import FileSource, Split, open_dataset
from tests.data import reference
from tests.data.pictures import encoded, example, smooth, write_folder, write_records

COUNT = 14  # pictures of each of the small sets: 7 of class 0, then 7 of class 1
SMALL, LARGE = (24, 24), (90, 100)
BATCH, SEED = 6, 3  # two steps an epoch
KEYS = ("image", "index", "label", "valid")


def picture(row, size):
    """What `write_folder` writes into row `row`."""
    return smooth(100 * (row // 7) + row % 7, *size)


def cut_short(data):
    return data[: len(data) // 2]


# Row -> what becomes of the file there; None: it is gone (a record: its checksum is wrong).
SPOILED = {2: lambda data: b"", 5: lambda data: b"dear reader, I am no picture", 8: cut_short, 11: None}
BAD = list(SPOILED)


def open_folder(folder, size, extension, spoiled):
    """All sets are opened while they are whole."""
    split = open_dataset(f"folder:{write_folder(folder, count=7, size=size, extension=extension)}").train
    assert split.common_size == (size if size == SMALL else None)
    for row, spoil in SPOILED.items() if spoiled else ():
        path = folder / split.names[row]
        path.unlink() if spoil is None else path.write_bytes(spoil(path.read_bytes()))
    return split


def open_records(folder, spoiled):
    folder.mkdir()
    for shard in range(3):
        examples = []
        for row in range(5 * shard, min(5 * shard + 5, COUNT)):
            data = encoded(picture(row, LARGE), "jpeg")
            if spoiled and SPOILED.get(row):
                data = SPOILED[row](data)
            examples.append(example(image__encoded=data, image__class__label=row // 7))
        write_records(folder / f"train-{shard}", examples)
    split = open_dataset(f"tfrecord:{folder}/train-*").train
    if spoiled:
        with open(split.source.shards[2], "r+b") as file:
            file.seek(split.source.position[12] - 2)  # the last bytes of record 11
            file.write(b"!!")
    return split


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A function from (kind, spoiled) to (split, size of its views)."""

    @functools.cache
    def opened(kind, spoiled):
        folder = tmp_path_factory.mktemp("set") / "set"
        if kind == "digits":
            return open_dataset("digits").train, 16
        if kind == "records":
            return open_records(folder, spoiled), 80
        if kind == "files":
            return open_folder(folder, LARGE, "jpg", spoiled), 80
        return open_folder(folder, SMALL, "png", spoiled), 24

    return opened


@pytest.fixture(scope="module")
def lossless(tmp_path_factory):
    """Large pictures, whose pixels are known."""
    return open_folder(tmp_path_factory.mktemp("lossless"), LARGE, "png", False)


@pytest.fixture(autouse=True)
def as_the_kind_wants(request, monkeypatch):
    if "streamed" in request.node.name:
        monkeypatch.setattr(reading, "MEMORY", 0)  # small pictures of one size that do not fit


def training(split, size, steps, batch_size=BATCH, **options):
    dataset = training_batches(split, augmentation_for(split.kind, size), batch_size, SEED, **options)
    return list(dataset.take(steps).as_numpy_iterator())


def evaluation(split, size, batch_size, **options):
    return list(evaluation_batches(split, size, batch_size, **options).as_numpy_iterator())


@pytest.fixture(scope="module")
def first_batches(sets):
    """A function from (kind, spoiled) to the first ten batches: five epochs, but for digits."""
    return functools.cache(lambda kind, spoiled: training(*sets(kind, spoiled), 10, workers=2))


def assert_same(got, expected, part=slice(None)):
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert all(np.array_equal(a[key], b[key][part]) for key in KEYS)


def valid_rows(index):
    return ~np.isin(index, BAD)


whole_kinds = pytest.mark.parametrize("kind", ["digits", "in memory", "files", "records"])
spoiled_kinds = pytest.mark.parametrize("kind", ["in memory", "streamed", "files", "records"])


# --- the contract --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["in memory", "files"])
def test_the_contract_has_static_shapes(sets, kind):
    split, size = sets(kind, False)
    assert training_batches(split, augmentation_for(split.kind, size), 4, seed=0).element_spec == {
        "image": tf.TensorSpec([4, size, size, 3], tf.float32),
        "index": tf.TensorSpec([4], tf.int64),
        "label": tf.TensorSpec([4], tf.int64),
        "valid": tf.TensorSpec([4], tf.bool),
    }
    image = tf.TensorSpec([None, size, size, 3], tf.float32)
    rest = {
        key: tf.TensorSpec([None], dtype) for key, dtype in zip(KEYS[1:], (tf.int64, tf.int64, tf.bool), strict=True)
    }
    ten = evaluation_batches(split, size, 4, ten_crop=True).element_spec
    assert ten == {"image": image, "views": (image,) * 10} | rest


@pytest.mark.parametrize("kind", ["in memory", "files"])
def test_nothing_is_left_to_tensorflows_tuning(sets, kind):
    """Its thread can keep whoever ends a pipeline waiting for a minute."""
    split, size = sets(kind, False)
    for batches in (
        training_batches(split, augmentation_for(split.kind, size), 4, seed=0),
        evaluation_batches(split, size, 4),
        viewed_batches(split, view_of(split, size), 4),
    ):
        assert batches.options().autotune.enabled is False
        assert batches.options().deterministic


@whole_kinds
def test_batches_keep_the_contract(sets, first_batches, kind):
    split, _ = sets(kind, False)
    for batch in first_batches(kind, False):
        assert batch["image"].min() >= 0 and 0.1 < batch["image"].max() <= 1
        assert np.array_equal(batch["label"], split.labels[batch["index"]])
        assert batch["valid"].all()


@whole_kinds
def test_steps_go_through_the_order_of_the_epoch(sets, first_batches, kind):
    split, _ = sets(kind, False)
    for step, batch in enumerate(first_batches(kind, False)):
        assert np.array_equal(batch["index"], batch_rows(split, BATCH, SEED, step))


def test_an_epoch_sees_each_picture_once_in_its_own_order(first_batches):
    got = [batch["index"] for batch in first_batches("in memory", False)]
    first, second = np.concatenate(got[:2]), np.concatenate(got[2:4])
    assert len(np.unique(first)) == len(first) == 12  # of 14: the remainder is dropped
    assert np.array_equal(first, epoch_order_numpy(SEED, 0, COUNT)[:12])
    assert np.array_equal(second, epoch_order_numpy(SEED, 1, COUNT)[:12]) and not np.array_equal(first, second)


def test_a_resumed_run_of_digits_goes_over_the_end_of_an_epoch(sets):
    split, size = sets("digits", False)
    first = split.size // 64 - 2  # the next epoch begins two steps later
    whole = training(split, size, first + 4, batch_size=64)
    got = training(split, size, 4, batch_size=64, first_step=first, workers=1)
    assert_same(got, whole[first:])
    assert np.array_equal(got[2]["index"], epoch_order_numpy(SEED, 1, split.size)[:64])


def by_index(batches):
    return {index: image for batch in batches for index, image in zip(batch["index"], batch["image"], strict=True)}


def test_a_picture_is_changed_alike_whatever_the_batch_size(sets, first_batches):
    by_6 = by_index(first_batches("in memory", False)[:2])
    by_7 = by_index(training(*sets("in memory", False), 2, batch_size=7))
    assert len(by_6) == 12 and len(by_7) == COUNT
    for index, image in by_6.items():
        np.testing.assert_allclose(by_7[index], image, atol=1e-6)


def test_epochs_and_seeds_change_the_views(sets, first_batches):
    split, size = sets("in memory", False)
    whole = first_batches("in memory", False)
    other = training_batches(split, augmentation_for("photo", size), BATCH, SEED + 1).take(2).as_numpy_iterator()
    for a, b in itertools.combinations(map(by_index, (whole[:2], whole[2:4], other)), 2):
        both = a.keys() & b.keys()
        assert len(both) >= 10 and all(np.abs(a[index] - b[index]).max() > 0.05 for index in both)


def test_a_batch_larger_than_the_data_set_names_the_flag(sets):
    split, size = sets("in memory", False)
    with pytest.raises(FlagError, match=f"--batch_size=15: larger than the 14 pictures of .*{split.source.root}"):
        training(split, size, 1, batch_size=15)
    with pytest.raises(FlagError, match="--batch_size=6: cannot be split evenly over 4"):
        training(split, size, 1, shard=(0, 4))


# --- the same batches whatever happens, bad pictures among them ----------------------------------------------------

WHOLE = 0, 1
OTHERWISE = {  # by kind: (workers, first step, which of how many pipelines)
    "in memory": [(1, 7, WHOLE), (5, 0, (1, 3))],
    "streamed": [(5, 7, WHOLE)],
    "files": [(5, 7, WHOLE), (1, 0, (1, 2))],
    "records": [(1, 7, (2, 3))],
}


@spoiled_kinds
def test_batches_depend_neither_on_workers_nor_on_the_first_step_nor_on_other_pipelines(sets, first_batches, kind):
    whole = first_batches(kind, True)
    for workers, first, (i, count) in OTHERWISE[kind]:
        part = slice(BATCH // count * i, BATCH // count * (i + 1))
        options = dict(first_step=first, workers=workers, shard=(i, count))
        got = training(*sets(kind, True), len(whole) - first, **options)
        if count == 1:
            assert_same(got, whole[first:])
        for batch, expected in zip(got, whole[first:], strict=True):
            valid = batch["valid"]
            assert all(np.array_equal(batch[key], expected[key][part]) for key in KEYS[1:])
            assert np.array_equal(batch["image"][valid], expected["image"][part][valid])
            # The stand-in comes from the part itself, which has nothing else.
            if kind in ("files", "records") and valid.any():
                assert (batch["image"][~valid] == batch["image"][valid][0]).all()


def test_a_picture_that_takes_long_keeps_its_place(tmp_path):
    # Many processors are worked with at once, of which the others are done long before.
    for row in range(8):
        side = 1500 if row in (0, 5) else 70
        (tmp_path / f"{row}.png").write_bytes(encoded(np.full([side, side, 3], 30 * row + 10, np.uint8)))
    (tmp_path / "3.png").write_bytes(b"")
    split = open_dataset(f"folder:{tmp_path}").train
    for workers in (1, 16):
        got = evaluation(split, 16, 4, workers=workers)
        seen = [np.round(255 * batch["image"].mean(axis=(1, 2, 3))).tolist() for batch in got]
        assert seen == [[10, 40, 70, 10], [130, 160, 190, 220]]
        assert [batch["valid"].tolist() for batch in got] == [[True, True, True, False], [True] * 4]


def test_views_from_memory_and_from_the_stream_are_the_same(sets, monkeypatch):
    split, _ = sets("in memory", False)
    in_memory = evaluation(split, 20, 5)
    monkeypatch.setattr(reading, "MEMORY", 0)
    assert_same(evaluation(split, 20, 5), in_memory)


def test_files_and_records_give_the_same_views(first_batches):
    for a, b in zip(first_batches("files", False), first_batches("records", False), strict=True):
        assert np.array_equal(a["index"], b["index"]) and np.array_equal(a["label"], b["label"])
        np.testing.assert_allclose(a["image"], b["image"], atol=0.1)  # two JPEG encodings of one picture


# --- views against float64 -----------------------------------------------------------------------------------------


def views_by_hand(rows, size, augmentation, resize, epoch, view=0):
    numbers = uniforms_numpy(SEED, epoch, rows, view, Draw.COUNT)
    return [
        reference.training_view(picture(row, size), draws, augmentation, resize)
        for row, draws in zip(rows, numbers, strict=True)
    ]


def assert_views_by_hand(split, size, augmentations, resize):
    """Of the whole of epoch 1."""
    several = isinstance(augmentations, tuple)
    dataset = training_batches(split, augmentations, COUNT, SEED, first_step=1)
    assert ("views" in dataset.element_spec) == several
    (batch,) = dataset.take(1).as_numpy_iterator()
    rows = epoch_order_numpy(SEED, 1, COUNT)
    assert np.array_equal(batch["index"], rows)
    for v, augmentation in enumerate(augmentations if several else [augmentations]):
        got = batch["views"][v] if several else batch["image"]
        assert got.shape[1:] == (augmentation.image_size, augmentation.image_size, 3)
        np.testing.assert_allclose(got, views_by_hand(rows, size, augmentation, resize, 1, v), atol=3e-4)
    if several:
        assert len(batch["views"]) == len(augmentations) and np.array_equal(batch["image"], batch["views"][0])


@pytest.mark.parametrize(
    "augmentations",
    [
        augmentation_for("photo", 33),  # 1089 px, not divisible by 8; by area where a side is over 66 px
        (
            augmentation_for("photo", 80),
            transfer_augmentation("photo", 79, True),
            *multi_crop("photo", 70, 1)[1:],
        ),
    ],
    ids=["photo", "several"],
)
def test_views_of_files_are_those_worked_out(lossless, augmentations):
    assert_views_by_hand(lossless, LARGE, augmentations, reference.resized_one)


@pytest.mark.parametrize(
    "augmentations",
    [
        augmentation_for("photo", 15),
        (augmentation_for("photo", 32), transfer_augmentation("photo", 30, True), *multi_crop("photo", 24, 1)),
    ],
    ids=["photo", "several"],
)
def test_views_from_memory_are_those_worked_out(sets, augmentations):
    assert_views_by_hand(sets("in memory", False)[0], SMALL, augmentations, reference.resized_in_batch)


# --- rows of one's own choice --------------------------------------------------------------------------------------


def test_how_often_a_row_came_before():
    assert occurrences(np.array([4, 7, 4, 4, 0, 7])).tolist() == [0, 0, 1, 2, 0, 1]
    assert occurrences(np.array([], np.int64)).tolist() == []


@pytest.mark.parametrize("kind", ["in memory", "files"])
def test_an_epoch_of_chosen_rows_has_them_in_their_order_each_time_with_views_of_its_own(sets, kind):
    split, size = sets(kind, False)
    rows = np.array([3, 3, 0, 3, 5, 0, 8, 3, 1, 1, 2, 9, 13, 13])  # of 14 the last two do not fill a batch
    got = training(split, size, 9, first_step=4, epoch_rows=rows)  # of epoch 2
    assert np.concatenate([batch["index"] for batch in got]).tolist() == rows[:12].tolist()
    images = np.concatenate([batch["image"] for batch in got])
    assert len({images[place].tobytes() for place in np.flatnonzero(rows[:12] == 3)}) == 4
    # The first of each is the view that an epoch of the usual kind has.
    usual = training(split, size, 2, first_step=4)
    by_row = {int(row): image for batch in usual for row, image in zip(batch["index"], batch["image"], strict=True)}
    seen = [place for place in range(12) if occurrences(rows[:12])[place] == 0 and rows[place] in by_row]
    assert len(seen) > 4
    for place in seen:
        np.testing.assert_array_equal(images[place], by_row[rows[place]])


def test_an_epoch_of_chosen_rows_goes_on_in_its_middle_and_can_be_shared_out(sets):
    split, size = sets("in memory", False)
    rows = np.array([3, 3, 0, 3, 5, 0, 8, 3, 1, 1, 2, 9, 13, 13])
    whole = training(split, size, 9, epoch_rows=rows)
    assert_same(training(split, size, 9, first_step=1, epoch_rows=rows), whole[1:])
    second = training(split, size, 9, epoch_rows=rows, shard=(1, 2))
    assert_same(second, whole, slice(BATCH // 2, None))


@pytest.mark.parametrize("kind", ["in memory", "files"])
def test_a_part_of_the_rows_has_epochs_of_its_own_and_the_same_views(sets, first_batches, kind):
    split, size = sets(kind, False)
    rows = np.array([0, 2, 3, 4, 5, 7, 8, 9])  # of 8 two do not fill a batch of 3
    got = training(split, size, 5, batch_size=3, rows=rows)
    for step, batch in enumerate(got):
        epoch, place = divmod(step, 2)
        order = rows[epoch_order_numpy(SEED, epoch, len(rows))]
        assert batch["index"].tolist() == order[place * 3 : place * 3 + 3].tolist()
    whole = by_index(first_batches(kind, False)[:2])  # of the first epoch too
    for index, image in by_index(got[:2]).items():
        if index in whole:
            np.testing.assert_array_equal(image, whole[index])
    assert_same(training(split, size, 2, batch_size=3, rows=rows, first_step=3), got[3:])
    with pytest.raises(FlagError, match=r"^--batch_size=9: larger than the 8 pictures"):
        training(split, size, 1, batch_size=9, rows=rows)


# --- evaluation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["digits", "in memory"])
def test_evaluation_goes_through_all_rows_in_order(sets, kind):
    split, size = sets(kind, False)
    got = evaluation(split, size, 5 if split.size == COUNT else 256, workers=3)
    assert np.array_equal(np.concatenate([batch["index"] for batch in got]), np.arange(split.size))
    assert np.array_equal(np.concatenate([batch["label"] for batch in got]), split.labels)
    assert len(got[-1]["index"]) == split.size % len(got[0]["index"])
    for batch in got:
        assert batch["valid"].all() and batch["image"].min() >= 0 and 0.1 < batch["image"].max() <= 1


def test_evaluation_of_large_pictures_is_the_centre_with_a_margin(lossless):
    # 90 x 100: the central square of 90 * 224/256 = 79 px, here at its own size, so nothing is resampled.
    (batch,) = evaluation(lossless, 79, 1, rows=[8])
    np.testing.assert_allclose(batch["image"][0], picture(8, LARGE)[5:84, 10:89] / 255, atol=1e-6)
    (batch,) = evaluation(lossless, 30, 1, rows=[8])  # views up to 64 px: the whole square, and here the area
    expected = reference.resized(picture(8, LARGE)[:, 5:95], 30, 30, reference.area) / 255
    np.testing.assert_allclose(batch["image"][0], expected, atol=1e-5)


def test_white_stays_in_range(tmp_path):
    for size in (90, 97, 131, 200):  # averages are off by rounding errors
        (tmp_path / f"{size}.png").write_bytes(encoded(np.full([size, size, 3], 255, np.uint8)))
    split = open_dataset(f"folder:{tmp_path}").train
    whole = training_batches(split, Augmentation(31), 4, seed=0).take(1).as_numpy_iterator()
    for batch in (*evaluation(split, 31, 4), *whole):
        assert batch["image"].min() > 0.9999 and batch["image"].max() <= 1


def test_the_ten_crop_of_files_is_cut_out_by_hand(lossless):
    rows = [3, 12]
    (batch,) = evaluation(lossless, 79, 2, rows=rows, ten_crop=True)
    pictures = np.stack([picture(row, LARGE) for row in rows]) / 255
    corners = [(5, 10), (0, 0), (0, 21), (11, 0), (11, 21)]
    for i, (top, left) in enumerate(corners):
        part = pictures[:, top : top + 79, left : left + 79]
        np.testing.assert_allclose(batch["views"][i], part, atol=1e-6)
        np.testing.assert_allclose(batch["views"][5 + i], part[:, :, ::-1], atol=1e-6)
    assert np.array_equal(batch["image"], batch["views"][0])


def test_the_ten_crop_of_files_and_that_of_pictures_in_memory_agree(lossless):
    # They antialias differently.
    (batch,) = evaluation(lossless, 70, 3, rows=[0, 5, 9], ten_crop=True)
    pictures = tf.constant(np.stack([picture(row, LARGE) for row in (0, 5, 9)]))
    for got, expected in zip(batch["views"], augment.ten_crop_views(pictures, 70), strict=True):
        assert np.abs(got - expected).max() < 0.02


def test_the_ten_crop_of_pictures_in_memory(sets):
    split, _ = sets("in memory", False)
    got = evaluation(split, 24, 8, ten_crop=True)
    assert [len(batch["views"][9]) for batch in got] == [8, 6]
    pictures = np.stack([picture(row, SMALL) for row in range(8)]) / 255
    for i in range(10):  # squares, without a margin: all are the whole picture
        np.testing.assert_allclose(got[0]["views"][i], pictures if i < 5 else pictures[:, :, ::-1], atol=1e-6)


# --- bad pictures --------------------------------------------------------------------------------------------------


@spoiled_kinds
def test_bad_pictures_are_masked_and_change_nothing_else(sets, first_batches, kind):
    split, _ = sets(kind, True)
    whole = first_batches("in memory" if kind == "streamed" else kind, False)
    seen = set()
    for step, (batch, without) in enumerate(zip(first_batches(kind, True), whole, strict=True)):
        valid = batch["valid"]
        assert np.array_equal(batch["index"], batch_rows(split, BATCH, SEED, step))
        assert np.array_equal(batch["label"], batch["index"] // 7)
        assert np.array_equal(valid, valid_rows(batch["index"]))
        assert np.array_equal(batch["image"][valid], without["image"][valid])
        seen |= set(batch["index"][~valid].tolist())
        if kind in ("files", "records"):
            assert (batch["image"][~valid] == batch["image"][valid][0]).all()
    assert seen == set(BAD)


@pytest.mark.parametrize("kind", ["in memory", "streamed"])
def test_a_valid_picture_changed_in_another_way_stands_in(first_batches, kind):
    for step, batch in enumerate(first_batches(kind, True)):
        index, valid = batch["index"], batch["valid"]
        pictures = np.stack([picture(row, SMALL) for row in np.where(valid, index, index[valid][0])])
        a = augmentation_for("photo", 24)
        numbers = tf.constant(uniforms_numpy(SEED, step // 2, index, 0, Draw.COUNT))
        views = augment.training_view(tf.constant(pictures), augment.changes(numbers, a), a)
        np.testing.assert_allclose(batch["image"], views, atol=1e-5)


@pytest.mark.parametrize("kind", ["in memory", "files"])
def test_all_views_of_a_bad_picture_are_stood_in_for(sets, kind):
    split, size = sets(kind, True)
    a = (Augmentation(size), Augmentation(size - 4))  # nothing is drawn
    for batch in training_batches(split, a, 7, SEED).take(4).as_numpy_iterator():
        assert np.array_equal(batch["valid"], valid_rows(batch["index"])) and not batch["valid"].all()
        for view in batch["views"]:
            assert (view[~batch["valid"]] == view[batch["valid"]][0]).all()
    (batch,) = evaluation(split, size, 3, rows=[2, 0, 11], ten_crop=True)
    assert batch["valid"].tolist() == [False, True, False]
    for view in batch["views"]:
        assert np.array_equal(view[0], view[1]) and np.array_equal(view[2], view[1])


@spoiled_kinds
def test_evaluation_masks_bad_pictures_up_to_the_last(sets, kind):
    split, size = sets(kind, True)
    rows = [[2, 0, 1, 5], [8, 3, 4, 11], BAD, [11]]
    got = evaluation(split, size, 4, rows=np.concatenate(rows))
    for batch, index in zip(got, rows, strict=True):
        assert batch["index"].tolist() == index and batch["label"].tolist() == [row // 7 for row in index]
        assert batch["image"].shape == (len(index), size, size, 3)
        assert np.array_equal(batch["valid"], valid_rows(index))
    for batch in got[:2]:
        image = batch["image"]
        assert np.array_equal(image[0], image[1]) and np.array_equal(image[3], image[1])
        assert not np.array_equal(image[2], image[1])
    for batch in got[2:]:  # blank, but in memory there lies some other picture
        assert np.isfinite(batch["image"]).all() and (kind == "in memory" or not batch["image"].any())


def test_a_set_of_bad_pictures_alone_is_blank(tmp_path):
    split = open_folder(tmp_path / "set", SMALL, "png", False)
    for name in split.names:
        (tmp_path / "set" / name).write_bytes(b"")
    for step, batch in enumerate(training(split, 20, 4)):
        assert np.array_equal(batch["index"], batch_rows(split, BATCH, SEED, step))
        assert not batch["valid"].any() and not batch["image"].any()


def test_bad_pictures_among_digits(sets):
    source = sets("in memory", True)[0].source
    labels = np.arange(COUNT) // 7
    split = Split("list", "train", "digits", labels, FileSource(source.root, source.names))
    for batch in (*training(split, 16, 4), *evaluation(split, 16, 5)):
        assert batch["image"].shape[1:] == (16, 16, 3)
        assert np.array_equal(batch["valid"], valid_rows(batch["index"]))
        assert np.array_equal(batch["label"], batch["index"] // 7)


# --- real pictures -------------------------------------------------------------------------------------------------


def test_pictures_of_imagenette_stream(real_pictures):
    split = open_dataset(f"folder:{real_pictures('imagenette224')}").train
    whole = training(split, 224, 2, batch_size=8)
    assert_same(training(split, 224, 1, batch_size=8, first_step=1, workers=1), whole[1:])
    assert len(np.unique(np.concatenate([batch["index"] for batch in whole]))) == 16
    assert all(batch["valid"].all() for batch in whole)


def test_pictures_of_all_sizes_stream(real_pictures):
    split = open_dataset(f"folder:{real_pictures('imagenet_samples')}").train
    seen = evaluation(split, 224, 40)
    assert np.concatenate([batch["index"] for batch in seen]).tolist() == list(range(100))
    assert all(batch["valid"].all() for batch in seen)
    assert len(training(split, 224, 3, batch_size=25)) == 3


def test_cifar10_in_memory(real_pictures):
    split = open_dataset(f"folder:{real_pictures('cifar10')}").test
    assert pipeline.steps_per_epoch(split, 128) == 15
    whole = training(split, 32, 17, batch_size=128)
    assert_same(training(split, 32, 3, batch_size=128, first_step=14), whole[14:])
