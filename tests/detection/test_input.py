"""What a detector is fed: sizes, mirrored copies, boxes that stay on their objects, padding, order."""

import numpy as np
import pytest

from data.errors import FlagError, UserError
from data.reading import steady
from data.voc import open_set
from detection import input
from detection.config import DataOptions
from detection.input import TrainingPictures, evaluation_batches
from tests.data.voc_folders import some_pictures, write_devkit

RED = ("aeroplane", (11, 21, 40, 50))  # the first class is drawn in red


def options(folder, **changes):
    return DataOptions(
        **{"devkit": str(folder), "train_set": "train", "short_side": (120,), "long_side": 400} | changes
    )


def training(folder, seed=0, **changes):
    chosen = options(folder, **changes)
    return TrainingPictures(open_set(str(folder), "train"), chosen, seed)


@pytest.fixture
def devkit(tmp_path):
    """Seven pictures of different sizes, one with difficult objects alone, one without objects."""
    pictures = some_pictures(5)
    pictures |= {"difficult": [("cat", (5, 5, 30, 30), True)], "empty": []}
    sizes = {name: (60 + 7 * place, 80 + 11 * (place % 3)) for place, name in enumerate(pictures)}
    return write_devkit(tmp_path, {"train": pictures}, size=sizes)


def test_a_picture_is_scaled_with_its_boxes(tmp_path):
    """60 x 80 px at twice the size; columns 10 to 39 (0-based) become columns 20 to 79."""
    write_devkit(tmp_path, {"train": {"one": [RED]}})
    batch = next(training(tmp_path, flip=False).batches())
    np.testing.assert_array_equal(batch["size"], [[120, 160]])
    np.testing.assert_allclose(batch["scale"], [[2, 2]])
    np.testing.assert_allclose(batch["boxes_xyxy"], [[[20, 40, 79, 99]]])
    np.testing.assert_array_equal(batch["labels"], [[1]])
    assert batch["image"].shape == (1, 128, 160, 3)


@pytest.mark.parametrize(("size", "wanted"), [((60, 80), (120, 160)), ((60, 300), (80, 400)), ((300, 20), (400, 67))])
def test_sides_are_within_their_limits(tmp_path, size, wanted):
    """The shorter side is 120 px; the longer one at most 400; of a thread 67 px, what networks need."""
    write_devkit(tmp_path, {"train": {"one": [("cat", (2, 3, 11, 18))]}}, size=size)
    batch = next(training(tmp_path, flip=False).batches())
    np.testing.assert_array_equal(batch["size"], [wanted])
    by = np.array(wanted) / size
    np.testing.assert_allclose(batch["scale"], [by], rtol=1e-6)
    np.testing.assert_allclose(
        batch["boxes_xyxy"][0, 0], [1 * by[1], 2 * by[0], 11 * by[1] - 1, 18 * by[0] - 1], rtol=1e-5
    )


def test_nothing_is_left_to_tensorflows_tuning(devkit, monkeypatch):
    """Its thread can keep whoever ends a pipeline waiting for a minute."""
    seen = []
    monkeypatch.setattr(input, "steady", lambda batches: seen.append(steady(batches)) or seen[-1])
    next(training(devkit).batches())
    next(evaluation_batches(open_set(str(devkit), "train"), options(devkit)))
    assert [batches.options().autotune.enabled for batches in seen] == [False, False]


def test_boxes_stay_on_their_objects_when_mirrored(tmp_path):
    """Of a red object on a dark ground the red pixels fill the box, in both copies."""
    write_devkit(tmp_path, {"train": {"one": [RED]}})
    batches = training(tmp_path).batches()
    lefts = set()
    for _ in range(2):
        batch = next(batches)
        image, box = batch["image"][0].numpy(), batch["boxes_xyxy"][0, 0].numpy()
        red = image[..., 0] - image[..., 1:].max(-1) > 0.4
        rows, columns = np.nonzero(red)
        np.testing.assert_allclose([columns.min(), rows.min(), columns.max(), rows.max()], box, atol=2.5)
        lefts.add(round(float(box[0])))
    assert lefts == {20, 160 - 1 - 79}


def test_padding_is_marked_and_boxes_are_filled_up(devkit):
    batch = next(training(devkit, batch_size=3).batches())
    _, height, width, _ = batch["image"].shape
    assert height % 16 == width % 16 == 0
    for place, (own_height, own_width) in enumerate(batch["size"].numpy()):
        image = batch["image"][place].numpy()
        assert (image[:own_height, :own_width] >= 0).all() and image.max() <= 1
        assert (image[own_height:] == -1).all() and (image[:, own_width:] == -1).all()
        no_box = batch["labels"][place].numpy() == 0
        assert not batch["boxes_xyxy"][place].numpy()[no_box].any() and not no_box.all()


def test_pictures_without_something_to_learn_are_left_out(devkit):
    pictures = training(devkit)
    names = {pictures.set.pictures[row].name for row in pictures.rows}
    assert names == {f"{number:06d}" for number in range(5)}
    assert pictures.entries == 10
    assert len(training(devkit, train_on_difficult=True).rows) == 6


def test_nothing_to_learn_at_all_is_an_error(tmp_path):
    write_devkit(tmp_path, {"train": {"one": [("cat", (5, 5, 30, 30), True)]}})
    with pytest.raises(UserError, match="no picture has an object to learn"):
        training(tmp_path)


def test_a_batch_has_to_be_there(devkit):
    with pytest.raises(FlagError, match=r"^--batch_size=11: train has 10 pictures"):
        training(devkit, batch_size=11)


def test_an_epoch_is_every_picture_and_its_mirror_image(devkit):
    pictures = training(devkit, batch_size=2)
    batches = pictures.batches()
    seen = [next(batches)["index"].numpy() for _ in range(5)]
    rows, counts = np.unique(seen, return_counts=True)
    np.testing.assert_array_equal(rows, pictures.rows)
    assert (counts == 2).all()


def test_batches_are_a_function_of_seed_and_step(devkit):
    pictures = training(devkit, batch_size=2, short_side=(90, 120))
    first = pictures.batches()
    wanted = [next(first) for _ in range(12)]
    for step in (0, 3, 7, 11):
        again = next(training(devkit, batch_size=2, short_side=(90, 120)).batches(step))
        for name, value in wanted[step].items():
            np.testing.assert_array_equal(again[name], value, err_msg=name)
        np.testing.assert_array_equal(wanted[step]["index"], pictures.rows_of_step(step))
    other = [next(batches)["index"].numpy().tolist() for batches in [training(devkit, seed=1, batch_size=2).batches()]]
    orders = [
        [batch["index"].numpy().tolist() for batch in wanted[:5]],
        [b["index"].numpy().tolist() for b in wanted[5:10]],
    ]
    assert orders[0] != orders[1] and orders[0][0] != other[0]


def test_several_sizes_are_drawn(tmp_path):
    write_devkit(tmp_path, {"train": some_pictures(8)})
    batches = training(tmp_path, short_side=(90, 120)).batches()
    sides = [int(next(batches)["size"].numpy().min()) for _ in range(40)]
    assert {*sides} == {90, 120} and 8 <= sides.count(90) <= 32


def test_evaluation_sees_every_picture_in_order_and_at_one_size(devkit):
    pictures = open_set(str(devkit), "train")
    chosen = options(devkit, short_side=(90, 120), test_short_side=100)
    batches = list(evaluation_batches(pictures, chosen))
    np.testing.assert_array_equal(np.concatenate([batch["index"] for batch in batches]), np.arange(7))
    assert {int(batch["size"].numpy().min()) for batch in batches} == {100}
    some = list(evaluation_batches(pictures, chosen, batch_size=2, rows=[5, 1, 3]))
    assert [batch["index"].numpy().tolist() for batch in some] == [[5, 1], [3]]


@pytest.mark.parametrize("evaluation", [False, True])
def test_a_picture_that_cannot_be_decoded_is_named(tmp_path, evaluation):
    write_devkit(tmp_path, {"train": some_pictures(3)})
    path = tmp_path / "JPEGImages" / "000001.jpg"
    path.write_bytes(path.read_bytes()[:-300])  # its header, all that opening reads, is whole
    batches = evaluation_batches(open_set(str(tmp_path), "train"), options(tmp_path)) if evaluation else None
    batches = batches or training(tmp_path).batches()
    with pytest.raises(UserError, match=r"000001\.jpg: is cut short or damaged"):
        for _ in range(8):
            next(batches)
