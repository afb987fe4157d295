"""Presets: what they set, how their schedules follow another batch or length, and that given flags stand above them."""

import json
import subprocess
import sys

import pytest

from data.errors import FlagError
from detection import preset_files
from tests.programs import ROOT, environment, run

MOCO = {
    "learning_rate": 0.02, "batch_size": 16, "steps": 24_000, "drop_steps": (18_000, 22_000), "warmup_steps": 100,
    "eval_steps": 2000,
}  # fmt: skip


def test_at_its_own_batch_and_length_a_schedule_is_its_own():
    assert preset_files.scaled(MOCO) == MOCO == preset_files.scaled(MOCO, 16, 24_000)


def test_a_quarter_of_the_batch_has_a_quarter_of_the_rate_and_four_times_the_steps():
    assert preset_files.scaled(MOCO, batch_size=4) == {
        "learning_rate": 0.005, "batch_size": 4, "steps": 96_000, "drop_steps": (72_000, 88_000), "warmup_steps": 400,
        "eval_steps": 8000,
    }  # fmt: skip


def test_another_length_keeps_the_parts_of_the_run_and_not_the_pictures():
    found = preset_files.scaled(MOCO, batch_size=8, steps=120)
    assert found["learning_rate"] == 0.01 and found["steps"] == 120
    assert found["drop_steps"] == (90, 110) and found["eval_steps"] == 10
    assert found["warmup_steps"] == 0  # half a step, to even
    tiny = preset_files.scaled(MOCO, steps=1)
    assert tiny["drop_steps"] == (1,) and tiny["eval_steps"] == 1  # rising steps, from 1 on


def test_an_unknown_preset_is_told_with_those_there_are():
    assert preset_files.names() == ["moco", "paper_la", "tfr"]
    with pytest.raises(FlagError, match=r"^--preset=paper: choose one of moco, paper_la, tfr;"):
        preset_files.lines_of("paper")


@pytest.mark.parametrize("name", preset_files.names())
def test_a_preset_says_what_to_expect(name):
    head = [line for line in (preset_files.FOLDER / f"{name}.flags").read_text().splitlines() if line.startswith("#")]
    for title in ("# Command:  python -m detection.run ", "# Expected: ", "# Hardware: "):
        assert any(line.startswith(title) for line in head), title
    assert f"--preset={name}" in "".join(head)


SCRIPT = """
import json, sys
from absl import flags
from absl.testing import flagsaver
from detection import flags as detection_flags
for line in json.load(sys.stdin):
    with flagsaver.flagsaver():
        flags.FLAGS(["main", "--model_dir=m", "--devkit=d", *line])
        print(json.dumps(detection_flags.config().flat() | {"given": detection_flags.given_lines(("model_dir",))}))
"""
LINES = {
    "paper_la": ["--preset=paper_la"],
    "tfr": ["--preset=tfr"],
    "moco": ["--preset=moco"],
    "fewer": ["--batch_size=4", "--preset=moco", "--noflip", "--short_side=200,300"],
    "own": ["--preset=moco", "--batch_size=4", "--learning_rate=0.1", "--steps=48", "--drop_steps=40"],
    "none": [],
}


@pytest.fixture(scope="module")
def configs():
    """What the flags come to, by the names of LINES; in a process of its own: la_tf has flags of these names too."""
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps([*LINES.values()]), cwd=ROOT, env=environment(),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(zip(LINES, map(json.loads, finished.stdout.splitlines()), strict=True))


def test_the_papers_preset_is_its_supplement(configs):
    """B.4: 70k steps, a tenth after 50k, from 0.001, decay 1e-4, 128 RoIs; conv1 and three blocks frozen."""
    found = configs["paper_la"]
    assert (found["steps"], found["drop_steps"], found["learning_rate"]) == (70_000, [50_000], 0.001)
    assert (found["weight_decay"], found["momentum"], found["rois"], found["rpn_batch"]) == (1e-4, 0.9, 128, 256)
    assert found["freeze_at"] == "alexnet:0,vgg16:2,resnet:4" and found["roi_pooling"] == "legacy_crop"
    assert (found["train_set"], found["val_set"], found["batch_size"]) == ("2007_trainval", None, 1)


def test_mocos_preset_is_its_configuration(configs):
    """facebookresearch/moco, detection/configs, on detectron2's defaults."""
    found = configs["moco"]
    assert (found["steps"], found["drop_steps"], found["warmup_steps"]) == (24_000, [18_000, 22_000], 100)
    assert (found["learning_rate"], found["batch_size"], found["batch_norm"]) == (0.02, 16, "synchronised")
    assert found["short_side"] == [*range(480, 801, 32)] and found["long_side"] == 1333
    assert (found["extra_norm"], found["precise_batches"], found["roi_side"]) == (True, 200, 14)
    assert (found["rois"], found["append_truth"], found["roi_beta"], found["rpn_beta"]) == (512, True, 0, 0)
    assert (found["test_proposals"], found["nms_iou"], found["score_threshold"]) == (1000, 0.5, 0.05)
    assert len(found["anchor_scales"]) * len(found["anchor_ratios"]) == 15


def test_tfrs_preset_is_what_the_flags_are_by_default_but_for_its_pooling(configs):
    tfr, default = configs["tfr"], configs["none"]
    assert {name for name in tfr if tfr[name] != default[name]} == {"roi_pooling", "given"}


def test_given_flags_stand_above_a_preset_wherever_they_stand(configs):
    found = configs["fewer"]
    assert (found["batch_size"], found["flip"], found["short_side"]) == (4, False, [200, 300])
    assert (found["learning_rate"], found["steps"], found["drop_steps"]) == (0.005, 96_000, [72_000, 88_000])
    own = configs["own"]
    assert (own["learning_rate"], own["steps"], own["drop_steps"], own["eval_steps"]) == (0.1, 48, [40], 4)


def test_flags_are_handed_on_as_they_were_given(configs):
    assert sorted(configs["fewer"]["given"]) == sorted([*LINES["fewer"], "--devkit=d"])


def test_presets_are_compared():
    finished = run("detection.run", "--diff_presets=paper_la,tfr")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["differing"] == {
        "freeze_at": {"paper_la": "alexnet:0,vgg16:2,resnet:4", "tfr": "alexnet:0,vgg16:2,resnet:2"},
        "rois": {"paper_la": 128, "tfr": 256},
    }
    assert [line.split()[0] for line in finished.stderr.splitlines()[2:]] == ["--freeze_at", "--rois"]
