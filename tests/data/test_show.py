"""If these fail, the sheet shows other views than training makes, wrong numbers, or words that nobody can read."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from PIL import Image

from data import overview
from data.augmentation import augmentation_for
from data.figures import MOST_BARS, Facts, sheet
from data.pipeline import training_batches, views_of
from data.sources import open_dataset
from tests.data.pictures import encoded, example, smooth, write, write_folder, write_records
from tests.data.strange_pictures import PICTURE, TURNED, bad, saved
from tests.programs import run

SEED = 3


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("photographs"), count=4, size=(90, 100), extension="jpg")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    for shard in range(2):
        pictures = [encoded(smooth(4 * shard + i, 70, 80)) for i in range(4)]
        examples = [example(image__encoded=data, image__class__label=i) for i, data in enumerate(pictures)]
        write_records(folder / f"train-{shard}", examples)
    return f"tfrecord:{folder}/train-*"


# --- which pictures, and which views of them ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "several"),
    [("digits", False), ("photographs", True), ("records", False)],
)
def test_the_views_are_those_of_training(which, several, photographs, records):
    spec, size = {
        "digits": ("digits", 16),
        "photographs": (f"folder:{photographs}", 80),
        "records": (records, 72),
    }[which]
    split = open_dataset(spec).train
    views = augmentation_for(split.kind, size)
    if several:
        views = (views, dataclasses.replace(views, image_size=40))
    rows, batch_size = np.array([5, 0, 7]), min(split.size, 479)  # 479 divides the 1,437 digits
    expected = {}
    batches = training_batches(split, views, batch_size, SEED).take(2 * split.size // batch_size)
    for step, batch in enumerate(batches.as_numpy_iterator()):
        for place in np.flatnonzero(np.isin(batch["index"], rows)):
            shown = batch["views"] if several else [batch["image"]]
            epoch = step * batch_size // split.size
            expected[epoch, batch["index"][place]] = [view[place] for view in shown]
    got = list(views_of(split, rows, views, SEED, epochs=2).as_numpy_iterator())
    assert len(got) == 2 and len(expected) == 6
    for epoch, batch in enumerate(got):
        assert batch["index"].tolist() == rows.tolist() and batch["valid"].all()
        for place, row in enumerate(rows):
            shown = batch["views"] if several else [batch["image"]]
            for view, wanted in zip(shown, expected[epoch, row], strict=True):
                # The order of sums depends on the number of pictures in a batch; another draw would be far off.
                np.testing.assert_allclose(view[place], wanted, rtol=0, atol=1e-5)


def test_pictures_are_spread_over_the_classes():
    labels = np.array([0] * 50 + [1] * 3 + [2] + [3] * 9 + [4] * 9 + [-1] * 9)
    everything = np.arange(len(labels))

    def classes(count, candidates=everything, seed=0):
        return labels[overview.chosen_rows(labels, candidates, count, seed)].tolist()

    assert classes(3) == [0, 2, 4]
    assert classes(5) == [0, 1, 2, 3, 4]
    assert classes(7) == [0, 0, 1, 1, 2, 3, 4]  # the second round begins with the first classes
    assert classes(13) == [0] * 3 + [1] * 3 + [2] + [3] * 3 + [4] * 3
    assert classes(3, everything[labels != 2]) == [0, 3, 4]
    assert len(classes(50)) == 50 and len(classes(100)) == 50 + 3 + 1 + 9 + 9
    rows = [tuple(overview.chosen_rows(labels, everything, 5, seed)) for seed in range(9)]
    assert len(set(rows)) > 3 and rows[4] == tuple(overview.chosen_rows(labels, everything, 5, 4))


def test_pictures_without_labels_are_evenly_spaced():
    candidates = np.arange(0, 200, 2)
    labels = np.full(200, -1)
    assert overview.chosen_rows(labels, candidates, 4, 0).tolist() == [0, 66, 132, 198]
    assert overview.chosen_rows(labels, candidates[:2], 4, 0).tolist() == [0, 2]


@pytest.mark.parametrize("which", ["digits", "photographs", "records"])
def test_a_part_of_a_split_holds_those_pictures(which, photographs, records):
    split = open_dataset({"photographs": f"folder:{photographs}", "records": records}.get(which, which)).train
    rows = np.array([6, 1, 7])
    part = overview.part(split, rows)
    if which == "records":
        split.source.problems[7] = "is damaged"
        with pytest.raises(OSError, match="is damaged"):
            overview.part(split, rows).source.read(2)
        split.source.problems.clear()
    assert part.size == 3 and part.labels.tolist() == split.labels[rows].tolist()
    if which == "digits":
        np.testing.assert_array_equal(part.source.pictures, split.source.pictures[rows])
    else:
        assert [part.names[i] for i in range(3)] == [split.names[row] for row in rows]
        assert [part.source.read(i) for i in range(3)] == [split.source.read(row) for row in rows]


@pytest.mark.parametrize("which", ["photographs", "records"])
def test_of_a_large_split_evenly_spaced_pictures_are_looked_at(which, photographs, records, monkeypatch):
    split = open_dataset({"photographs": f"folder:{photographs}", "records": records}[which]).train
    rows, findings = overview.look_at(split, 1)
    assert rows.tolist() == list(range(8)) and findings.good.tolist() == list(range(8))
    monkeypatch.setattr(overview, "LOOK_AT_ALL", 7)
    monkeypatch.setattr(overview, "LOOK_AT", 3)
    rows, some = overview.look_at(split, 1)
    assert rows.tolist() == [0, 4, 7]  # 3.5 is rounded to the even number
    assert some.facts.tolist() == findings.facts[rows].tolist() and some.problems == {}


def test_mean_and_deviation_of_flat_pictures(tmp_path):
    for i, colour in enumerate([(51, 0, 255), (153, 255, 255)]):  # 0.2 and 0.6, 0 and 1, 1 and 1
        write(tmp_path / f"{i}.png", np.full([20, 24, 3], colour, np.uint8))
    (tmp_path / "2.png").write_bytes(b"")
    split = open_dataset(f"folder:{tmp_path}").train
    mean, std = overview.channel_statistics(split, 16, np.arange(3))
    np.testing.assert_allclose(mean, [0.4, 0.5, 1], atol=1e-6)
    np.testing.assert_allclose(std, [0.2, 0.5, 0], atol=1e-3)


# --- the drawing ----------------------------------------------------------------------------------------------------

NAMES = ["W" * 60, "$x^2_{1$", "_under", "a_class_with_a_name_that_goes_on_and_on", "cat", "new\nline", "\udce9"]


def facts(classes=5, sizes=((640, 480), (100, 3000), (32, 32)), remarks=("0 cannot be decoded",)):
    return Facts(
        class_names=[f"{NAMES[i % len(NAMES)]}{i}" for i in range(classes)],
        counts=1000 * np.arange(1, classes + 1) ** 2,
        sizes=np.array(sizes),
        image_size=224,
        mean=np.array([0.05, 0.5, 0.95]),
        std=np.array([0.3, 0.0, 0.3]),
        measured=1000,
        remarks=remarks,
    )


def drawn(facts, columns=8, rows=3, title="folder:/pictures: train 10 pictures"):
    lines = [(NAMES[i % len(NAMES)], "100 × 100 px, turned", [np.ones([9, 9, 3])] * columns) for i in range(rows)]
    return sheet(title, "crops, mirrored or not, " * 9, [("evaluation", [1.0] * columns)], lines, facts)


LONG = [
    *[line for i in range(20) for line in (f"  train/{'nested_folder/' * 4}{i}.jpg", "    is cut short or damaged")],
    "no " * 60,
]


@pytest.mark.parametrize(
    "figure",
    [
        lambda: drawn(facts()),
        lambda: drawn(facts(classes=MOST_BARS, remarks=LONG), rows=7),
        lambda: drawn(facts(classes=205, sizes=[(500, 375), (500, 333)])),
        lambda: drawn(facts(classes=1), columns=1, rows=1, title="folder:/" + "deep/" * 60),
        lambda: drawn(facts(classes=0, sizes=[(32, 32)] * 3, remarks=LONG), columns=20),
    ],
    ids=["few", "bars and long words", "curve", "narrow", "wide"],
)
def test_words_keep_apart_and_inside(figure):
    figure = figure()
    figure.draw_without_rendering()
    boxes = {}
    axes = figure.axes
    texts = [*figure.texts, *(text for axis in axes for text in axis.texts)]
    for axis in axes:
        if axis.axison:
            texts += [axis.xaxis.label, axis.yaxis.label]
            texts += [
                label
                for each in (axis.xaxis, axis.yaxis)
                for label, place in zip(each.get_ticklabels(), each.get_ticklocs(), strict=True)
                if each.get_view_interval().min() <= place <= each.get_view_interval().max()
            ]
        texts += [axis._left_title]  # where titles at the left are, which Matplotlib has no public name for
    for text in texts:
        if text.get_text():
            boxes[text] = text.get_window_extent().padded(-1)
    assert len(boxes) > 10
    whole = figure.bbox
    for text, box in boxes.items():
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1, text
        assert whole.y0 <= box.y0 and box.y1 <= whole.y1, text
    for (one, box), (other, another) in itertools.combinations(boxes.items(), 2):
        assert not box.overlaps(another), (one, other)
    pictures = [axis.bbox for axis in axes if axis.images]
    for picture, (text, box) in itertools.product(pictures, boxes.items()):
        assert not picture.overlaps(box), text


# --- the whole program ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """(result, what was printed, the file) for a folder with faults."""
    root = tmp_path_factory.mktemp("shown")
    write_folder(root / "train", count=5, size=(30, 40))
    write_folder(root / "val", count=2, size=(30, 40))
    for name, (data, _) in bad().items():
        (root / "train" / "ant" / name).write_bytes(data)
    (root / "train" / "bee" / "turned.jpg").write_bytes(saved(PICTURE, "jpeg", exif=TURNED))
    (root / "train" / "bee" / "gray.jpg").write_bytes(saved(PICTURE.convert("L"), "jpeg"))
    out = root / "made" / "grid.png"
    process = run("data.show", f"--dataset=folder:{root}", f"--out={out}", "--image_size=32", "--pictures=4")
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1]), process.stderr, out


def test_the_sheet_is_a_picture_and_its_numbers_are_told(shown):
    result, printed, out = shown
    with Image.open(out) as picture:
        assert picture.format == "PNG" and min(picture.size) > 500
        assert np.asarray(picture.convert("L")).std() > 10  # something is on it
    assert [path.name for path in out.parent.iterdir()] == ["grid.png"]
    assert (result["images"], result["looked_at"], result["bad"]) == (12 + len(bad()), 12 + len(bad()), len(bad()))
    assert result["counts"] == [["ant", 5 + len(bad())], ["bee", 7]]
    assert result["first_bad"][1] == ["train/ant/cut_tiff.jpg", result["first_bad"][1][1]]
    assert (result["exif_rotated"], result["gray"], result["measured"]) == (1, 1, 12)
    assert [name.split("/")[1] for name in result["shown"]] == ["ant"] * 2 + ["bee"] * 2
    assert not any(name.endswith(tuple(bad())) for name in result["shown"])
    assert len(result["pixel_mean"]) == len(result["pixel_std"]) == 3
    assert "drawing" in printed


@pytest.mark.slow
@pytest.mark.parametrize("view", ["transfer", "patch", "multi_crop", "ten_crop"])
def test_every_kind_of_view_is_drawn(view, tmp_path):
    process = run("data.show", "--dataset=digits", f"--view={view}", f"--out={tmp_path}/grid.svg")
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "grid.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_a_data_set_without_one_good_picture_is_named(tmp_path):
    for name, (data, _) in bad().items():
        (tmp_path / name).write_bytes(data)
    process = run("data.show", f"--dataset=folder:{tmp_path}", f"--out={tmp_path}/grid.png")
    assert process.returncode == 1 and process.stdout == ""
    error = process.stderr.splitlines()[-1]
    assert error.startswith(f"error: --dataset=folder:{tmp_path}: ") and "cut.jpg" in error and "cut short" in error


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--out=grid.png"], 2, "--dataset"),
        (["--dataset=digits"], 2, "--out"),
        (["--dataset=digits", "--out=grid.jpg"], 2, "--out=grid.jpg"),
        (["--dataset=digits", "--out=grid"], 2, ".png"),
        (["--dataset=digits", "--out=grid.png", "--view=half"], 2, "--view=half"),
        (["--dataset=digits", "--out=grid.png", "--pictures=0"], 2, "--pictures=0"),
        (["--dataset=digits", "--out=grid.png", "--view=ten_crop", "--views=3"], 2, "--views=3"),
        (["--dataset=digits", "--out=grid.png", "--view=ten_crop", "--jitter=0.1"], 2, "--jitter=0.1"),
        (["--dataset=digits", "--out=grid.png", "--jitter=2"], 2, "--jitter=2"),
        (["--dataset=folder:/nowhere", "--out=grid.png"], 1, "/nowhere"),
        (["--dataset=digits", "--out=/dev/null/grid.png"], 1, "--out=/dev/null/grid.png"),
    ],
    ids=lambda part: part[-1] if isinstance(part, list) else "",
)
def test_what_is_wrong_is_said_in_one_line(flags, code, words, tmp_path):
    process = run("data.show", *flags)
    assert process.returncode == code and process.stdout == ""
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: ") and words in line
