"""Several replicas, and what only they have: they take the steps of one; such a run is evaluated like any other."""

import json

import numpy as np
import pytest

from la_tf import bundle, checkpoints
from la_tf.embedding import build_embedder
from tests.data.voc_folders import some_pictures, write_devkit
from tests.detection.small import small_backbone
from tests.programs import run

SIZE = (72, 96)
SMALL = (
    "--train_set=train", "--short_side=96", "--anchor_scales=1,2,4", "--batch_size=2", "--rois=16", "--rpn_channels=16",
    "--steps=4", "--eval_steps=2", "--log_steps=1",
)  # fmt: skip
TWO = ("--strategy=mirrored", "--replicas=2")
# Of so few anchors none are so close that rounding, which differs between one device and two, draws other regions.
STEADY = ("--anchor_scales=2", "--anchor_ratios=1", "--append_truth")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The flags that name an export and a devkit."""
    folder = tmp_path_factory.mktemp("given")
    bundle.write(folder / "export", build_embedder(small_backbone(), 16), step=7)
    write_devkit(folder, {"train": some_pictures(6, size=SIZE), "val": some_pictures(2, seed=1, size=SIZE)}, size=SIZE)
    return f"--export={folder / 'export'}", f"--devkit={folder}"


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines}


def started(folder, *flags):
    finished = run("detection.train", f"--model_dir={folder}", *SMALL, *flags)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1]), finished.stderr


def trained(folder, *flags):
    return started(folder, *flags)[0]


def norms_at(folder, step):
    """The statistics of all batch norms in a checkpoint."""
    with checkpoints.read_arrays(checkpoints.path_of(folder, step)) as arrays:
        return {name: arrays[name] for name in arrays.files if "moving_" in name}


@pytest.mark.slow
def test_two_replicas_and_a_resumed_run_take_the_steps_of_one(given, tmp_path):
    """Ten steps of one picture a replica, under frozen norms, then two more on one device."""
    own = *given, *STEADY, "--steps=12", "--eval_steps=12"
    trained(tmp_path / "one", *own)
    trained(tmp_path / "two", *own, *TWO, "--steps=10")
    trained(tmp_path / "two", *own)  # goes on on one
    wanted = losses(tmp_path / "one")
    assert [*wanted] == [*range(1, 13)]
    assert losses(tmp_path / "two") == pytest.approx(wanted, rel=1e-4)


@pytest.mark.slow
def test_two_pictures_a_replica_are_four_of_one_device_and_norms_are_measured_once(given, tmp_path):
    """Pictures of two sizes, under recalibrated norms, whose statistics a resumed run has from its checkpoint."""
    own = *given, *STEADY, "--batch_size=4", "--short_side=80,96", "--batch_norm=recalibrated", "--precise_batches=2"
    trained(tmp_path / "one", *own)
    result, said = started(tmp_path / "two", *own, *TWO, "--steps=2")
    assert result["step"] == 2 and "measured_batches" not in result
    assert "batch norms, statistics of 2 batches" in said
    _, said = started(tmp_path / "two", *own, *TWO)
    assert "statistics of" not in said
    wanted = losses(tmp_path / "one")
    assert [*wanted] == [1, 2, 3, 4]
    assert losses(tmp_path / "two") == pytest.approx(wanted, rel=1e-4)
    measured, kept, alone = norms_at(tmp_path / "two", 2), norms_at(tmp_path / "two", 4), norms_at(tmp_path / "one", 4)
    assert measured
    for name, values in measured.items():
        np.testing.assert_array_equal(kept[name], values, err_msg=name)
        np.testing.assert_allclose(alone[name], values, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_mocos_norms_are_trained_measured_and_evaluated(given, tmp_path):
    folder = tmp_path / "run"
    norms = ("--batch_norm=synchronised", "--extra_norm", "--precise_batches=2", "--freeze_at=0", "--append_truth")
    rules = ("--roi_side=14", "--rpn_beta=0", "--roi_beta=0", "--eval_steps=4")
    found = trained(folder, *given, *TWO, *norms, *rules, "--val_set=val")
    assert found["step"] == 4 and 0 <= found["val_ap50"] <= 1 and found["measured_batches"] == 2
    scored = run("detection.evaluate", f"--model_dir={folder}", "--test_set=val", "--nms_iou=0.5")
    assert scored.returncode == 0, scored.stderr
    result = json.loads(scored.stdout.splitlines()[-1])
    assert result["changed"] == {"nms_iou": 0.5} and result["folder"].endswith("step-00000004,nms_iou=0.5")
    assert (folder / "results" / "val" / "step-00000004,nms_iou=0.5" / "scores.json").exists()
