"""If these fail, a data set's faults stay unseen until a run stumbles over them, or shows too good a score."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from data.errors import UserError
from tests.data.pictures import encoded, smooth, write_folder
from tests.data.strange_pictures import PICTURE, TURNED, bad, saved
from tests.programs import run


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """(result, what was printed, the CSV's rows) for a folder with a fault of each kind."""
    root = tmp_path_factory.mktemp("check")
    write_folder(root / "train", count=5)
    write_folder(root / "val", count=2, classes=("bee",))
    ant = root / "train" / "ant"
    (ant / "turned.jpg").write_bytes(saved(PICTURE, "jpeg", exif=TURNED))
    (ant / "gray.jpg").write_bytes(saved(PICTURE.convert("L"), "jpeg"))
    (ant / "tiff.jpg").write_bytes(saved(PICTURE, "tiff"))
    for name, (data, _) in bad().items():
        (ant / name).write_bytes(data)
    for i in range(20):
        (ant / f"none{i:02d}.jpg").write_bytes(b"")
    twin = encoded(smooth(77, 30, 50))
    (ant / "twin.png").write_bytes(twin)
    (root / "train" / "bee" / "twin.png").write_bytes(twin)
    (root / "val" / "bee" / "leak.png").write_bytes((root / "train" / "bee" / "3.png").read_bytes())
    # write_folder gives val/bee the pictures that it gives train/ant.
    process = run("data.check", f"--dataset=folder:{root}", f"--bad_csv={root}/bad.csv")
    assert process.returncode == 0, process.stderr
    with open(root / "bad.csv", newline="") as file:
        return json.loads(process.stdout.splitlines()[-1]), process.stderr, list(csv.reader(file))


def test_the_numbers_of_each_split(checked):
    result, _, _ = checked
    train, test = result["splits"]["train"], result["splits"]["test"]
    count = 5 + 3 + len(bad()) + 20 + 1  # of ants
    assert train.pop("bytes") > 0
    assert train == {
        "images": count + 6,
        "bad": len(bad()) + 20 + 1,
        "convertible": 1,
        "labelled": count + 6,
        "classes": 2,
        "least": ["bee", 6],
        "most": ["ant", count],
        "formats": {"jpeg": 2, "png": 12},
        "height": [20, 40],
        "width": [20, 60],
        "exif_rotated": 1,
        "gray": 1,
    }
    assert (test["images"], test["bad"], test["classes"], test["formats"]) == (3, 0, 1, {"png": 3})


def test_equal_files_are_counted(checked):
    result, printed, _ = checked
    # the twins; train/ant/0, 1 = val/bee/0, 1; train/bee/3 = val/bee/leak; the empty ones are bad, not equal
    assert result["duplicates"] == {"groups": 4, "pictures": 8, "test_in_train": 3, "labelled_differently": 3}
    assert "train: train/bee/3.png = test: val/bee/leak.png" in printed
    assert "train: train/ant/twin.png = train: train/bee/twin.png" in printed


def test_the_first_bad_pictures_are_printed_and_all_are_in_the_file(checked):
    result, printed, (header, *rows) = checked
    assert header == ["split", "filename", "reason"] and len(rows) == result["splits"]["train"]["bad"]
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert ["train", "train/ant/empty.jpg", "is empty (0 bytes)"] in rows
    shown = [line for line in printed.splitlines() if line.startswith("  train: ")]
    assert shown[:20] == [f"  train: {name}: {reason}" for _, name, reason in rows[:20]]
    assert f"and {len(rows) - 20} more" in printed


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    process = run("data.check", "--dataset=digits", f"--bad_csv={tmp_path}/no/bad.csv")
    assert process.returncode == 1 and process.stdout == ""
    (line,) = process.stderr.splitlines()  # at once, not after all has been looked at
    assert line.startswith(f"error: --bad_csv={tmp_path}/no/bad.csv: cannot be written")


def test_a_split_without_one_good_picture_and_with_more_labels_than_names(tmp_path):
    from data.check import _described
    from data.findings import FACTS, Findings, summary
    from data.sources import Split

    split = Split("", "train", "photo", np.array([0, 1, 1]), None)
    numbers = summary(split, ["ant"], Findings(np.zeros(3, FACTS), dict.fromkeys(range(3), "is empty")))
    assert (numbers["least"], numbers["most"]) == (["ant", 1], [1, 2])
    assert all(line.strip() for line in _described("train", numbers))


def test_an_earlier_list_is_there_until_there_is_a_new_one(tmp_path, monkeypatch):
    from data import check

    monkeypatch.setattr(check.flags, "FLAGS", SimpleNamespace(bad_csv=str(tmp_path / "bad.csv")))
    (tmp_path / "bad.csv").write_text("earlier")
    check._write_bad(None)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]
    check._write_bad([])
    assert [path.read_text().split() for path in tmp_path.iterdir()] == [["split,filename,reason"]]
    monkeypatch.setattr(check.flags, "FLAGS", SimpleNamespace(bad_csv=str(tmp_path)))
    with pytest.raises(UserError, match="cannot be written"):
        check._write_bad(None)


def test_digits_can_be_checked_too():
    process = run("data.check", "--dataset=digits")
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert result["splits"]["train"]["images"] == 1437 and result["splits"]["test"]["images"] == 360
    assert result["duplicates"]["test_in_train"] == 0 and "1,437 pictures" in process.stderr
