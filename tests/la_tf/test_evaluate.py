"""The evaluating main as a user meets it."""

import json
import signal
import subprocess

import pytest

from la_tf import checkpoints, results
from la_tf.model_dir import MetricsFile
from tests.la_tf.test_train import kill_once_past, result_of
from tests.programs import ROOT, command, environment, run

PRESETS = sorted(ROOT.glob("la_tf/presets/evaluation/*.flags"))


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """A short run by the quickstart's flags."""
    folder = tmp_path_factory.mktemp("runs") / "quickstart"
    short = ["--flagfile=quickstart.flags", "--width=16", "--epochs=6", "--warmup_epochs=5", "--exporters=final"]
    return folder, result_of(run("la_tf.train", *short, f"--model_dir={folder}"))["export"]


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ([], 2, "--model_dir, --export, --keras_model, --saved_model: give one of them, not none"),
        (["--model_dir=nowhere"], 1, "--model_dir=nowhere: no run lives there"),
        (["--model_dir=nowhere", "--protocol=svm"], 2, "--protocol=svm: choose one of knn, linear, finetune"),
        (["--model_dir=nowhere", "--ten_crop"], 2, "--ten_crop: --protocol=knn does not read it"),
        (["--model_dir=nowhere", "--protocol=finetune", "--percent=a"], 2, "--percent=a: give percents"),
        (["--export=nowhere", "--dataset=digits", "--out=o"], 1, "--export=nowhere: no export"),
    ],
)
def test_a_wrong_flag_is_told_in_a_line(flags, code, message, tmp_path):
    process = run("la_tf.evaluate", *flags, cwd=tmp_path)
    assert process.returncode == code and process.stderr.startswith(f"error: {message}"), process.stderr
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_says_what_to_expect(preset):
    header = [line for line in preset.read_text().splitlines() if line.startswith("# ")]
    for word in ("# Command:  ", "# Expected: ", "# Hardware: "):
        assert sum(line.startswith(word) for line in header) == 1, word
    assert f"--flagfile={preset.relative_to(ROOT)} " in "".join(header) and max(map(len, header)) <= 140


@pytest.mark.slow
@pytest.mark.parametrize("preset", [path for path in PRESETS if path.stem in ("knn", "linear_9k", "finetune")])
def test_every_protocol_judges_the_quickstart(preset, quickstart):
    folder, _ = quickstart
    flags = [f"--flagfile={preset}", f"--model_dir={folder}"]
    if "linear" in preset.stem:
        flags += ["--epochs=3", "--noten_crop"]  # digits are not cropped
    if "finetune" in preset.stem:
        flags += ["--epochs=1", "--least_steps=5", "--percent=4"]
    first = run("la_tf.evaluate", *flags)
    found = result_of(first)
    record = next(record for record in results.read([folder]) if record["id"] == found["id"])
    assert record["split"] == "test" and record["dataset"]["own"] is True and record["seconds"] > 0
    assert record["command"] == flags and record["versions"]["tensorflow"]
    if preset.stem == "knn":
        again = run("la_tf.evaluate", *flags)
        assert result_of(again) == found and "is finished" in again.stderr
        assert [r["id"] for r in results.read([folder])].count(found["id"]) == 1


def started_quietly(*flags):
    return subprocess.Popen(command("la_tf.evaluate", *flags), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_readouts_that_were_killed_go_on_and_come_to_the_same(quickstart, tmp_path):
    _, export = quickstart
    flags = ["--protocol=linear", f"--export={export}", "--dataset=digits", "--epochs=8", "--learning_rate=0.1"]
    whole = result_of(run("la_tf.evaluate", *flags, f"--out={tmp_path / 'whole'}"))
    killed = [*flags, f"--out={tmp_path / 'killed'}"]
    started = started_quietly(*killed)
    kill_once_past(20, started, tmp_path / "killed" / "evaluation" / f"linear-{whole['id']}")
    assert started.returncode == -signal.SIGKILL and not (tmp_path / "killed" / results.FILE).exists()
    went_on = result_of(run("la_tf.evaluate", *killed))
    assert went_on["id"] == whole["id"]
    for endpoint, accuracy in whole["top1"].items():
        assert went_on["top1"][endpoint] == pytest.approx(accuracy, abs=0.006)  # sums of oneDNN differ from run to run
    folder = tmp_path / "killed" / "evaluation" / f"linear-{whole['id']}"
    assert not checkpoints.steps(folder) and MetricsFile(folder).read()[-1]["step"] == 80


@pytest.mark.slow
def test_fine_tuning_that_was_killed_goes_on_and_comes_to_the_same(quickstart, tmp_path):
    _, export = quickstart
    flags = [
        "--protocol=finetune",
        f"--export={export}",
        "--dataset=digits",
        "--percent=20",
        "--epochs=30",
        "--least_steps=0",
    ]
    whole = result_of(run("la_tf.evaluate", *flags, f"--out={tmp_path / 'whole'}"))
    killed = [*flags, f"--out={tmp_path / 'killed'}"]
    started = started_quietly(*killed)
    kill_once_past(10, started, tmp_path / "killed" / "evaluation" / f"finetune-{whole['id']}" / "20-pretrained")
    assert started.returncode == -signal.SIGKILL and not (tmp_path / "killed" / results.FILE).exists()
    went_on = result_of(run("la_tf.evaluate", *killed))
    assert went_on["top1"]["20"] == pytest.approx(whole["top1"]["20"], abs=0.03)  # oneDNN's sums differ


@pytest.mark.slow
def test_a_network_trained_on_photographs_is_transferred_to_scenes(real_pictures, tmp_path):
    size = [
        "--image_size=32",
        "--backbone=resnet10",
        "--width=8",
        "--batch_size=100",
        "--epochs=2",
        "--warmup_epochs=1",
    ]
    dataset = f"--dataset=folder:{real_pictures('imagenette224')}"
    result_of(run("la_tf.train", "--flagfile=imagenette.flags", dataset, f"--model_dir={tmp_path / 'run'}", *size))
    for name, classes in (("intel_scenes", 6), ("sun_scenes", 8)):
        flags = [f"--model_dir={tmp_path / 'run'}", f"--dataset=folder:{real_pictures(name)}"]
        knn = result_of(run("la_tf.evaluate", *flags))
        linear = result_of(
            run("la_tf.evaluate", *flags, "--protocol=linear", "--fast", "--ten_crop", "--endpoints=conv3")
        )
        by_id = {record["id"]: record for record in results.read([tmp_path / "run"])}
        assert by_id[knn["id"]]["dataset"]["own"] is False
        assert by_id[knn["id"]]["settings"]["bank"] == "fresh"
        chance = 1 / classes
        assert linear["top1"]["conv3"] > chance + 0.1 and knn["top1"] > chance
        scores = by_id[linear["id"]]["results"]["conv3"]
        assert scores["features"] == 16 * 16 * 16 and scores["ten_crop_top1"] > chance + 0.1
    process = run("la_tf.report", "--table=2", f"--runs={tmp_path / 'run'}")
    assert json.loads(process.stdout.splitlines()[-1])["cells"] == 2 and "intel_scenes and sun_scenes" in process.stdout
