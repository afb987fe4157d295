"""detection.train and detection.evaluate as a user runs them: learn, be killed, go on, stop, say what is wrong."""

import json
import signal
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from data.voc import VOC_CLASSES, open_set
from detection import comp4
from detection.voc_ap import average_precisions, truth_of
from la_tf import bundle, checkpoints
from la_tf.embedding import build_embedder
from tests.data.voc_folders import some_pictures, write_devkit
from tests.detection.small import small_backbone
from tests.programs import ROOT, command, environment, run

SIZE = (72, 96)
SMALL = (
    "--train_set=train", "--short_side=96", "--anchor_scales=1,2,4", "--batch_size=2", "--batch_norm=local",
    "--freeze_at=0", "--rois=32", "--rpn_channels=32", "--learning_rate=0.02", "--noflip", "--seed=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """An export of an untrained ResNet-10 of width 8."""
    folder = tmp_path_factory.mktemp("exports") / "resnet10"
    backbone = small_backbone()
    bundle.write(folder, build_embedder(backbone, 16), step=7)
    return folder


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    """Six pictures with a coloured box each."""
    folder = tmp_path_factory.mktemp("devkit")
    return write_devkit(folder, {"train": some_pictures(6, size=SIZE, largest=1)}, size=SIZE)


def flags(export, devkit, model_dir, *more):
    return [f"--export={export}", f"--devkit={devkit}", f"--model_dir={model_dir}", *SMALL, *more]


def result_of(finished):
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_it_learns_by_heart_survives_a_kill_and_is_scored(export, devkit, tmp_path):
    folder = tmp_path / "run"
    own = flags(export, devkit, folder, "--val_set=train", "--steps=300", "--eval_steps=100", "--drop_steps=240")
    process = subprocess.Popen(
        command("detection.train", *own), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 400
    while not checkpoints.steps(folder):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1].decode()
        time.sleep(0.2)
    time.sleep(2)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    result = result_of(run("detection.train", *own))
    assert result["step"] == 300
    assert result["val_ap50"] >= 0.9
    losses = ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss")
    metrics = lines_of(folder / "metrics.jsonl")
    steps = [line["step"] for line in metrics]
    assert steps == sorted({*steps}) and {100, 200, 300} <= {*steps}
    for line in metrics:
        assert line["loss"] == pytest.approx(sum(line[name] for name in losses), rel=1e-4)
        assert 0 <= line["rpn_recall"] <= 1 and 0 <= line["foreground_rois"] <= 8
    assert metrics[-1]["loss"] < metrics[0]["loss"] / 3
    assert any(path.name.endswith(".pictures") for path in (folder / "eval_val").iterdir())

    again = run("detection.train", *(flag for flag in own if not flag.startswith("--export")))
    assert "is finished (raise --steps to go on)" in again.stderr and result_of(again)["step"] == 300

    sheet = tmp_path / "sheet.png"
    scored = result_of(
        run("detection.evaluate", f"--model_dir={folder}", "--test_set=train", f"--sheet={sheet}", "--sheet_pictures=4")
    )
    assert scored["voc07_ap50"] == pytest.approx(result["val_ap50"], abs=0.02)  # but for the rounding of scores
    assert scored["step"] == 300 and scored["pictures"] == 6 and sheet.stat().st_size > 1000
    of_files = result_of(
        run("detection.evaluate", f"--results={scored['folder']}", f"--devkit={devkit}", "--test_set=train")
    )
    numbers = [name for name in scored if name.startswith(("voc07", "area", "coco"))]
    assert len(numbers) >= 9
    assert {name: scored[name] for name in numbers} == pytest.approx({name: of_files[name] for name in numbers})
    pictures = open_set(str(devkit), "train")
    found = comp4.read(scored["folder"], [each.name for each in pictures.pictures], VOC_CLASSES, "train")
    precisions = average_precisions(found, truth_of(pictures), len(VOC_CLASSES))
    assert np.nanmean(precisions[:, 0]) == pytest.approx(scored["voc07_ap50"])


@pytest.mark.slow
def test_a_folder_belongs_to_one_run_which_a_loss_that_is_no_number_stops(export, devkit, tmp_path):
    folder = tmp_path / "run"
    own = flags(export, devkit, folder, "--steps=12", "--eval_steps=4", "--log_steps=1", "--drop_steps=1000")
    result_of(run("detection.train", *own, "--steps=4"))
    other = run("detection.train", *own, "--rois=16")
    assert other.returncode == 1
    assert "belongs to another run (rois 32 there, 16 here)" in other.stderr.splitlines()[-1]
    own = [flag for flag in own if not flag.startswith("--learning_rate")]
    stored = json.loads((folder / "config.json").read_text())
    stored["identity"]["learning_rate"] = 1e30  # as if it had been so high from the start
    (folder / "config.json").write_text(json.dumps(stored))
    failed = run("detection.train", *own, "--learning_rate=1e30")
    assert failed.returncode == 1
    last = failed.stderr.splitlines()[-1]
    assert last.startswith("error: the loss is nan at step") or last.startswith("error: the loss is inf at step"), last
    assert "it first was at step" in last and "00000" in last and "--learning_rate" in last
    assert last.endswith("in a new --model_dir; or take --on_nan=rollback (step-00000004 is kept)")
    assert checkpoints.steps(folder)[0] == 4
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
def test_defects_stop_it_before_the_first_step(export, tmp_path):
    pictures = some_pictures(2, size=SIZE) | {
        "flipped": [("cat", (40, 10, 20, 30))],
        "outside": [("cat", (10, 10, 200, 30))],
        "origin": [("cat", (0, 0, 20, 30))],
        "unknown": [("unicorn", (5, 5, 20, 30))],
        "difficult": [("dog", (5, 5, 20, 30), True)],
    }
    devkit = write_devkit(tmp_path / "devkit", {"train": pictures}, size=SIZE)
    (devkit / "Annotations" / "000001.xml").unlink()
    failed = run("detection.train", *flags(export, devkit, tmp_path / "run"))
    assert failed.returncode == 1, failed.stderr
    for name in ("flipped", "outside", "origin", "unknown", "difficult", "000001"):
        assert f"{name}.xml" in failed.stderr, name
    last = failed.stderr.splitlines()[-1]
    assert last.startswith("error: train: 5 defects in ")
    assert "Traceback" not in failed.stderr and "step 1 " not in failed.stderr
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--backbone=vgg16",), 1, "name is 'resnet10' there, 'vgg16' wanted here"),
        (("--pixel_mean=0.5,0.5,0.5",), 1, "mean is [0.485, 0.456, 0.406] there, [0.5, 0.5, 0.5] wanted here"),
        (("--freeze_at=6",), 2, "--freeze_at=6: resnet10 can be frozen up to conv4"),
        (("--export=/nowhere",), 1, "no export"),
        (("--strategy=mirrored", "--replicas=2", "--batch_size=3"), 2, "--batch_size=3: cannot be split evenly"),
    ],
)
@pytest.mark.slow
def test_what_does_not_fit_is_said_in_a_line(export, devkit, tmp_path, more, code, said):
    failed = run("detection.train", *flags(export, devkit, tmp_path / "run", *more))
    assert failed.returncode == code, failed.stderr
    assert said in failed.stderr.splitlines()[-1] and "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("main", "given", "said"),
    [
        ("detection.train", ("--devkit=x", "--model_dir=m", "--rois=0"), "--rois=0: must be at least 1"),
        ("detection.train", ("--model_dir=m",), "--devkit: say where the pictures are"),
        ("detection.train", ("--devkit=x",), "--model_dir: say where the run is to live"),
        ("detection.train", ("--devkit=x", "--model_dir=m", "--short_side=a"), "--short_side=a: give whole numbers"),
        ("detection.evaluate", (), "--model_dir, --results: give one of them"),
        ("detection.evaluate", ("--results=x",), "--devkit: say where the pictures are"),
        ("detection.evaluate", ("--model_dir=x", "--short_side=200"), "--short_side: has no effect on an evaluation"),
        ("detection.evaluate", ("--model_dir=x", "--sheet=/nowhere/x.png"), "--sheet=/nowhere/x.png: give a file"),
        ("detection.evaluate", ("--model_dir=x", "--sheet=found"), "--sheet=found: give a file"),
    ],
)
def test_bad_flags_are_named_at_once(main, given, said):
    failed = run(main, *given)
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].startswith(f"error: {said}")


@pytest.mark.parametrize("main", [f"detection.{name}" for name in ("train", "evaluate", "check", "activations")])
def test_help_tells_every_flag(main):
    shown = run(main, "--help")
    assert shown.returncode == 0 and "--devkit" in shown.stdout and "--anchor_scales" in shown.stdout


@pytest.mark.slow
def test_an_own_set_of_strange_pictures(export, tmp_path):
    """One class of one's own, two lists; a grey picture, one of 3 x 2 px, a thread, one without objects."""
    sizes = {"grey": SIZE, "tiny": (3, 2), "thread": (9, 700), "empty": SIZE, "good": SIZE}
    boxes = {"grey": (5, 5, 60, 60), "tiny": (1, 1, 2, 3), "thread": (200, 2, 400, 8), "good": (10, 10, 50, 50)}
    objects = {name: [("mug", box)] for name, box in boxes.items()} | {"empty": []}
    lists = {"a": ("grey", "tiny", "empty"), "b": ("thread", "good")}
    sets = {part: {name: objects[name] for name in names} for part, names in lists.items()}
    devkit = write_devkit(tmp_path / "devkit", sets, size=sizes, classes=("mug",))
    grey = devkit / "JPEGImages" / "grey.jpg"
    Image.open(grey).convert("L").save(grey)
    names = tmp_path / "classes.txt"
    names.write_text("mug\n")
    own = flags(export, devkit, tmp_path / "run", "--train_set=a+b", "--val_set=b", f"--classes_file={names}")
    result = result_of(run("detection.train", *own, "--steps=2", "--eval_steps=2", "--flip"))
    assert result["step"] == 2 and 0 <= result["val_ap50/mug"] <= 1
    names.write_text("cup\n")
    failed = run("detection.evaluate", f"--model_dir={tmp_path / 'run'}", "--test_set=b")
    assert failed.returncode == 1 and "names other classes than" in failed.stderr.splitlines()[-1]
    names.unlink()
    scored = result_of(run("detection.evaluate", f"--model_dir={tmp_path / 'run'}", "--test_set=b"))
    assert list(scored["ap50_by_class"]) == ["mug"]


@pytest.mark.slow
def test_a_val_set_with_nothing_to_find_is_refused_before_the_first_step(export, devkit, tmp_path):
    write_devkit(devkit, {"hard": {"hard0": [("cat", (5, 5, 40, 40), True)]}}, size=SIZE)
    failed = run("detection.train", *flags(export, devkit, tmp_path / "run", "--val_set=hard"))
    assert failed.returncode == 1 and failed.stderr.splitlines()[-1].startswith("error: hard: ")
    cut = write_devkit(tmp_path / "cut", {"train": some_pictures(2, size=SIZE)}, size=SIZE)
    path = cut / "JPEGImages" / "000001.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    failed = run("detection.train", *flags(export, cut, tmp_path / "run"))
    assert failed.returncode == 1 and "000001.jpg" in failed.stderr and "1 defect in" in failed.stderr.splitlines()[-1]
