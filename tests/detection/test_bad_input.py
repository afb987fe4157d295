"""What a user gets wrong with detectors ends in one line that names it, before TensorFlow is needed."""

import json
import os

import pytest

from tests.data.voc_folders import some_pictures, write_devkit
from tests.forked_mains import outcomes

LONG = "x" * 300
CHECK = ("detection.check", "--devkit=voc", "--sets=train")
TRAIN = ("detection.train", "--devkit=voc", "--train_set=train", "--export=export", "--model_dir=new")
RUN = ("detection.run", "--devkit=voc", "--train_set=train", "--test_set=train")
CASES = [  # command, exit code, what the line has in it
    ((*TRAIN, "--workers=100000"), 2, "--workers=100000: must be 0 (automatic) to 1024"),
    ((*TRAIN, "--learning_rate=inf"), 2, "--learning_rate=inf: must be a finite number"),
    ((*TRAIN, "--anchor_scales=8,inf"), 2, "--anchor_scales=8.0,inf: "),
    ((*TRAIN, "--anchor_ratios=1,,2"), 2, "--anchor_ratios=1,,2: "),
    ((*TRAIN, "--steps=99999999999"), 2, "--steps=99999999999: must be below 2^31"),
    ((*TRAIN[:-1], "--model_dir=" + os.fsdecode(b"\xff")), 2, "--model_dir=\\udcff: "),
    ((*TRAIN, "--model_dir=picture"), 1, "--model_dir=picture: "),
    ((*TRAIN, "--flagfile=pipe"), 2, "--flagfile=pipe: is no file"),
    (("detection.check", f"--devkit={LONG}", "--sets=train"), 2, f"--devkit={LONG}: "),
    (("detection.check", "--devkit=loop", "--sets=train"), 2, "--devkit=loop: "),
    (("detection.check", "--devkit=picture", "--sets=train"), 2, "--devkit=picture: "),
    (("detection.check", "--devkit=voc", "--sets=torn"), 2, "torn: "),
    (("detection.check", "--devkit=voc", "--sets=train,"), 2, "--sets=train,: a set has no name"),
    ((*CHECK, "--classes_file=pipe"), 1, "--classes_file=pipe: is no file"),
    ((*CHECK, "--classes_file=/dev/zero"), 1, "--classes_file=/dev/zero: is no file"),
    ((*CHECK, "--classes_file=voc"), 1, "--classes_file=voc: is no file"),
    (("detection.check", "--devkit=unlisted", "--sets=train"), 1, "unlisted/JPEGImages: No such file or directory"),
    ((*RUN, "--pretrain_run=detector"), 1, "--pretrain_run=detector: no run of la_tf.train lives there"),
    ((*RUN, "--pretrain_run=garbage"), 1, "garbage/config.json: is damaged ("),
    (("detection.evaluate", "--results=voc", "--devkit=voc", "--sheet=nowhere/a.png"), 2, "--sheet=nowhere/a.png: "),
    (("detection.predict", "picture", "--export=e", "--out=o", "--least_score=nan"), 2, "--least_score=nan: "),
    (("detection.predict", "picture", "--export=e"), 2, "--out: "),
    (("detection.predict", "hollow", "--export=e", "--out=o"), 2, "hollow: holds no pictures"),
    (("detection.export", f"--model_dir={LONG}", "--out=picture"), 1, "--out=picture: exists already"),
]  # fmt: skip


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """What becomes of each of the commands."""
    top = tmp_path_factory.mktemp("bad")
    for name in ("voc", "unlisted"):
        write_devkit(top / name, {"train": some_pictures(2)})
    for path in (top / "unlisted" / "JPEGImages").iterdir():
        path.unlink()
    (top / "unlisted" / "JPEGImages").rmdir()
    (top / "picture").write_bytes(b"no picture")
    (top / "hollow").mkdir()
    (top / "loop").symlink_to("loop")
    os.mkfifo(top / "pipe")
    (top / "detector").mkdir()
    stored = {"identity": {"architecture": {}, "classes": []}, "circumstances": {}}
    (top / "detector" / "config.json").write_text(json.dumps(stored))
    (top / "garbage").mkdir()
    (top / "garbage" / "config.json").write_bytes(b"\xff")
    return outcomes([command for command, _, _ in CASES], top)


@pytest.mark.parametrize("place", range(len(CASES)), ids=lambda place: ascii(" ".join(CASES[place][0]))[1:80])
def test_one_line_names_the_culprit(ends, place):
    _, code, culprit = CASES[place]
    found, out, err = ends[place]
    assert found == code, err
    (line,) = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert line.startswith("error: ") and culprit in line
    assert out == ""
