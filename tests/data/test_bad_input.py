"""What a user gets wrong with data sets ends in one line that names it, before TensorFlow is needed, and at once."""

import json
import os

import pytest
from PIL import Image

from data.sources import FileSource
from tests.forked_mains import outcomes

LONG = "x" * 300
DEEP = "/" + "y/" * 2600
CHECK = ("data.check", "--dataset=folder:pictures")
SHOW = ("data.show", "--dataset=folder:pictures")
BUILD = ("data.build_tfrecords", "--source=folder:pictures")
CASES = [  # command, exit code, what the line has in it
    (("data.check", "--dataset=list:pipe"), 1, "--dataset=list:pipe: pipe is no file"),
    (("data.check", "--dataset=list:/dev/zero"), 1, "--dataset=list:/dev/zero: /dev/zero is no file"),
    (("data.check", "--dataset=list:pictures"), 1, "--dataset=list:pictures: pictures is no file"),
    (("data.check", f"--dataset=list:{LONG}"), 1, "File name too long"),
    (("data.check", "--dataset=folder:loop"), 1, "--dataset=folder:loop: "),
    (("data.check", "--dataset=folder:a\nb\x1b[31m"), 1, "--dataset=folder:a\\nb\\x1b[31m: "),
    (("data.check", "--dataset=tfrecord:["), 1, "--dataset=tfrecord:[: "),
    (("data.check", "--dataset=digits:x"), 2, "--dataset=digits:x: "),
    ((*CHECK, "--bad_csv=pipe"), 1, "--bad_csv=pipe: cannot be written (is no file)"),
    ((*CHECK, "--bad_csv=link"), 1, "--bad_csv=link: cannot be written (is no file)"),
    ((*CHECK, "--bad_csv=pictures"), 1, "--bad_csv=pictures: cannot be written (is no file)"),
    ((*CHECK, "--bad_csv=nowhere/a.csv"), 1, "--bad_csv=nowhere/a.csv: cannot be written (No such file or directory)"),
    ((*CHECK, f"--bad_csv={LONG}"), 1, "cannot be written (File name too long)"),
    ((*CHECK, "--workers=2000"), 2, "--workers=2000: must be 0 (automatic) to 1024"),
    ((*SHOW, f"--out={DEEP}a.png"), 1, "cannot be made (File name too long)"),
    ((*SHOW, "--out=note.txt/a.png"), 1, "--out=note.txt/a.png: note.txt cannot be made (Not a directory)"),
    ((*BUILD, f"--out={DEEP}"), 1, "cannot be written (File name too long)"),
    ((*BUILD, "--out=loop"), 1, "--out=loop: cannot be written ("),
    ((*BUILD, "--out=pictures"), 1, "--out=pictures: holds files that no build made"),
    ((*BUILD, "--out=note.txt"), 1, "--out=note.txt: cannot be written ("),
    ((*BUILD, "--out=new", "--seed=-1"), 2, "--seed=-1: must be at least 0 and below 2^31"),
    ((*BUILD, "--out=new", "--workers=2000"), 2, "--workers=2000: must be 0 (automatic) to 1024"),
    ((*BUILD, "--out=listed"), 1, "listed/.build/build.json: is damaged (it is no object)"),
    ((*BUILD, "--out=finished"), 1, "finished/dataset.json: is damaged ("),
]  # fmt: skip


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """What becomes of each of the commands."""
    top = tmp_path_factory.mktemp("bad")
    (top / "pictures" / "train" / "cats").mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(top / "pictures" / "train" / "cats" / f"{number}.png")
    (top / "note.txt").write_text("a note")
    (top / "loop").symlink_to("loop")
    os.mkfifo(top / "pipe")
    (top / "link").symlink_to("pipe")
    for name in ("listed", "finished"):
        (top / name / ".build").mkdir(parents=True)
    (top / "listed" / ".build" / "build.json").write_text("[]")
    (top / "finished" / "dataset.json").write_text(json.dumps({"splits": {"train": {"count": 2, "shards": [{}]}}}))
    found = outcomes([command for command, _, _ in CASES], top)
    assert (top / "pipe").is_fifo() and (top / "link").is_symlink(), "somebody's pipe was replaced"
    return found


@pytest.mark.parametrize("place", range(len(CASES)), ids=lambda place: ascii(" ".join(CASES[place][0]))[1:60])
def test_one_line_names_the_culprit(ends, place):
    _, code, culprit = CASES[place]
    found, out, err = ends[place]
    assert found == code, err
    (line,) = err.splitlines()
    assert line.startswith("error: ") and culprit in line
    assert out == ""


def test_a_picture_that_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    (tmp_path / "a.png").write_bytes(b"abc")
    source = FileSource(str(tmp_path), ["pipe.png", "endless.png", "a.png", "gone.png"])
    assert source.sizes == [-1, -1, 3, -1]
    assert source.read(2) == b"abc"
    for row in range(2):
        with pytest.raises(OSError, match="is no file"):
            source.read(row)
    assert len(source.fingerprint()) == 64


def test_such_a_picture_is_a_bad_one_while_others_are_read(tmp_path):
    import numpy as np

    from data.pipeline import evaluation_batches
    from data.reading import problem
    from data.sources import Split

    os.mkfifo(tmp_path / "pipe.png")
    Image.new("RGB", (90, 90), (255, 0, 0)).save(tmp_path / "a.png")
    split = Split("folder:x", "train", "photo", np.array([0, 0]), FileSource(str(tmp_path), ["pipe.png", "a.png"]))
    (batch,) = evaluation_batches(split, 80, 2).as_numpy_iterator()
    assert batch["valid"].tolist() == [False, True]
    np.testing.assert_allclose(batch["image"][1].mean((0, 1)), [1, 0, 0], atol=1e-6)
    assert problem(split, 0) == "cannot be read: is no file"
