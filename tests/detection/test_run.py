"""detection.run as a user runs it: from a pretraining run to the table, killed and gone on with; what it refuses."""

import json
import signal
import subprocess
import time

import pytest
import tensorflow as tf
from PIL import Image

from la_tf import checkpoints
from tests.data.pictures import smooth
from tests.data.voc_folders import some_pictures, write_devkit
from tests.programs import ROOT, command, environment, run

SIZE = (72, 96)
SETS = {"train": (6, 0), "val": (2, 1), "test": (3, 2)}  # pictures, seed
SMOKE = (
    "--train_set=train", "--val_set=val", "--test_set=test", "--short_side=96", "--anchor_scales=1,2", "--steps=4",
    "--eval_steps=2", "--batch_size=2", "--rpn_channels=16", "--seeds=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A short run of la_tf.train with two checkpoints, and a devkit."""
    folder = tmp_path_factory.mktemp("pretraining")
    pictures = folder / "pictures" / "train"
    pictures.mkdir(parents=True)
    for seed in range(8):
        Image.fromarray(smooth(seed, *SIZE)).save(pictures / f"{seed}.jpg")
    trained = run(
        "la_tf.train", "--method=ir", "--backbone=resnet10", "--width=8", f"--dataset=folder:{folder / 'pictures'}",
        "--image_size=72", "--batch_size=4", "--epochs=2", f"--model_dir={folder / 'run'}",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    for name, (count, seed) in SETS.items():
        # Every picture has an id of its own.
        objects = {f"{name}{each}": found for each, found in some_pictures(count, seed=seed, size=SIZE).items()}
        write_devkit(folder / "devkit", {name: objects}, size=SIZE)
    return folder


@pytest.mark.slow
def test_from_a_run_to_the_table_through_a_kill(pretrained, tmp_path):
    pretraining = pretrained / "run"
    own = [f"--pretrain_run={pretraining}", "--preset=paper_la", f"--devkit={pretrained / 'devkit'}", *SMOKE]
    process = subprocess.Popen(
        command("detection.run", *own), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 300
    while not [*pretraining.glob("detection/paper_la-*/*/seed-3/checkpoints/step-*")]:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1].decode()
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)  # its programs end with it
    process.communicate()

    finished = run("detection.run", *own)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("$ python -m detection.train") == 2
    assert finished.stderr.count("$ python -m detection.check") == 0  # done before the kill
    result = json.loads(finished.stdout)
    assert result["seeds"] == [3, 4] and 0 <= result["mean"] <= 1
    lines = [json.loads(line) for line in (pretraining / "results.jsonl").read_text().splitlines()]
    assert [line["protocol"] for line in lines] == ["detection", "detection", "detection_mean"]
    (folder,) = pretraining.glob("detection/paper_la-*/step-*")
    for seed, line in zip((3, 4), lines, strict=False):
        run_folder = folder / f"seed-{seed}"
        assert line["results"]["step"] == checkpoints.read_state(checkpoints.best(run_folder, "val_ap50"))["step"]
        assert line["results"]["test_looks"] == 1 and line["settings"]["smoke"]
        assert (run_folder / "report" / "detections.png").stat().st_size > 1000
    table = (folder.parent / "table3.md").read_text()
    row = next(line for line in table.splitlines() if line.startswith("| IR, here"))
    assert "n = 2" in row and "¶" in row and "R-10_Faster" in table
    mean = 100 * sum(line["results"]["mAP"] for line in lines[:2]) / 2
    assert f"{mean:.1f} ±" in row

    both = run("detection.run", *own[:-1], "--seeds=1", "--at_steps=all")
    assert both.returncode == 0, both.stderr
    assert both.stderr.count("$ python -m detection.train") == 1  # of the other checkpoint
    (curve,) = pretraining.glob("eval_detection-paper_la-*")
    points = [json.loads(line) for line in (curve / "metrics.jsonl").read_text().splitlines()]
    assert [point["step"] for point in points] == checkpoints.steps(pretraining)
    # All seeds that there are count, those of the earlier command too.
    assert points[-1]["detection/test_ap50_mean"] == pytest.approx(mean / 100)
    (events,) = curve.glob("events.out.tfevents.*")
    drawn = [
        (event.step, value.tag) for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    ]  # fmt: skip
    assert [step for step, tag in drawn if tag == "detection/test_ap50_mean"] == checkpoints.steps(pretraining)


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ((), 2, "--pretrain_run, --export, --keras_resnet50, --keras_vgg16: give one of them"),
        (("--pretrain_run=a", "--export=b"), 2, "--pretrain_run, --export, --keras_resnet50, --keras_vgg16: give one"),
        (("--export=b",), 2, "--out: say where detectors and results are to live"),
        (("--export=b", "--out=o", "--at_steps=all"), 2, "--at_steps: goes with --pretrain_run"),
        (("--pretrain_run=a", "--seeds=0"), 2, "--seeds=0: must be at least 1"),
        (("--pretrain_run=a", "--preset=paper"), 2, "--preset=paper: choose one of moco, paper_la, tfr"),
        (("--pretrain_run=a", "--model_dir=b"), 2, "--model_dir: every seed has one of its own"),
        (("--pretrain_run=a", "--batch_norm=synchronised"), 2, "--batch_norm=synchronised: goes with several replicas"),
        (("--pretrain_run=a", "--test_set=nothing"), 2, "nothing"),
        (("--diff_presets=tfr",), 2, "--diff_presets=tfr: give two of moco, paper_la, tfr"),
        (("--diff_presets=tfr,no",), 2, "--preset=no: choose one of"),
    ],
)
def test_what_does_not_go_together_is_refused_at_once(pretrained, tmp_path, flags, code, message):
    sets = ("--train_set=train", "--test_set=test", f"--devkit={pretrained / 'devkit'}")
    failed = run("detection.run", *sets, *flags, cwd=ROOT)
    assert failed.returncode == code, failed.stderr
    last = failed.stderr.splitlines()[-1]
    assert last.startswith("error: ") and message in last and "Traceback" not in failed.stderr


def test_runs_and_exports_that_are_none_are_named(pretrained, tmp_path):
    given = ("--train_set=train", "--test_set=test", f"--devkit={pretrained / 'devkit'}")
    cases = {
        (f"--pretrain_run={tmp_path / 'no'}",): "no: no run of la_tf.train lives there",
        (f"--pretrain_run={pretrained / 'run'}", "--at_steps=1,9"): "--at_steps=1: no checkpoint of",
        (f"--export={tmp_path}", f"--out={tmp_path / 'out'}"): "no export (it has no backbone.weights.h5)",
    }
    for flags, message in cases.items():
        failed = run("detection.run", *given, *flags)
        assert failed.returncode in (1, 2) and message in failed.stderr.splitlines()[-1], failed.stderr
    assert not (tmp_path / "no").exists()
