"""The main job as a user runs it: train, resume, finish, follow, export; what lies in the model_dir afterwards."""

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from la_tf import checkpoints
from la_tf.model_dir import MetricsFile
from tests.endurance.end_state import differences, end_state, last_arrays, without_clocks
from tests.endurance.moments import killed_run
from tests.endurance.training import Course
from tests.programs import ROOT, command, environment, run

# Plumbing, not learning: 22 steps an epoch, IR for one epoch, LA for two; seconds, and everything takes part.
TINY = [
    "--backbone=resnet10", "--width=4", "--embedding_dim=16", "--image_size=8", "--batch_size=64", "--epochs=3",
    "--warmup_epochs=1", "--clusters=40", "--clusterings=2", "--background_k=64", "--learning_rate=0.05",
    "--deterministic", "--log_steps=10",
]  # fmt: skip
STEPS = 3 * (1437 // 64)


def lines(folder):
    """The metrics of a run without what a clock says."""
    return [without_clocks(line) for line in MetricsFile(folder).read()]


def assert_the_same_end(folder, whole):
    """Two runs wrote the same metrics and came to the same last checkpoint, bit by bit."""
    assert lines(folder) == lines(whole)
    found, wanted = last_arrays(folder), last_arrays(whole)
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


def result_of(process):
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def kill_once_past(step, process, folder, number=signal.SIGKILL):
    """Sends a signal as soon as a checkpoint of at least `step` is whole; kill -9 ends the process as such."""
    deadline = time.monotonic() + 300
    while not (checkpoints.steps(folder) and checkpoints.steps(folder)[-1] >= step):
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait() == (-number if number is signal.SIGKILL else 128 + number)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run on the digits."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    process = run("la_tf.train", "--dataset=digits", f"--model_dir={folder}", *TINY)
    return folder, process


def test_a_run_leaves_what_the_contract_promises(finished):
    folder, process = finished
    result = result_of(process)
    assert result["finished"] and result["step"] == STEPS
    assert {path.name for path in folder.iterdir()} >= {
        "config.json", "dataset.json", "checkpoints", "metrics.jsonl", "export", "eval_test", "eval_validation",
    }  # fmt: skip
    assert list(folder.glob("events.out.tfevents.*"))
    (export,) = (folder / "export" / "final").iterdir()
    assert {path.name for path in export.iterdir()} >= {
        "saved_model.pb", "variables", "backbone.weights.h5", "backbone.json", "self_check.npz", "model_card.json",
        "model_card.md",
    }  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert config["identity"]["clusters"] == 40 and config["identity"]["image_size"] == 8
    assert "epochs" in config["circumstances"] and "epochs" not in config["identity"]
    assert len(json.loads((folder / "dataset.json").read_text())["splits"]) == 2


def test_the_metrics_follow_the_phases(finished):
    folder, process = finished
    result_of(process)
    epochs = [line for line in lines(folder) if "knn_top1" in line]
    assert [line["step"] for line in epochs] == [STEPS // 3, 2 * STEPS // 3, STEPS]
    assert [line["phase"] for line in epochs] == ["ir", "la", "la"]
    assert all(line["bad_images"] == 0 for line in lines(folder)) and not (folder / "bad_images.csv").exists()
    assert "close_mean" not in epochs[0] and "nmi_previous" not in epochs[1]
    assert {
        "loss", "learning_rate", "close_mean", "close_min", "empty_fraction", "own_in_background", "close_skewness",
        "cluster_min", "cluster_median", "cluster_max", "nmi_previous", "nmi_between", "purity",
    } <= set(epochs[2])  # fmt: skip
    assert epochs[-1]["knn_top1"] > 0.15  # chance is 0.1; three epochs of a toy network are no more than a start


def test_tensorboard_shows_pictures_similarities_and_the_bank(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, process = finished
    result_of(process)
    events = EventAccumulator(str(folder)).Reload()
    steps = {name: [event.step for event in events.Tensors(name)] for name in events.Tags()["tensors"]}
    ends = [STEPS // 3, 2 * STEPS // 3, STEPS]
    assert steps["augmentation"] == steps["_hparams_/session_start_info"] == [0]
    for name in ("neighbors", "sample", "similarity/nearest", "similarity/background"):
        assert steps[name] == ends, name
    assert steps["similarity/close"] == steps["cluster_sizes"] == ends[1:]  # the warm start has no clusters
    (rows,) = (array for name, array in last_arrays(folder).items() if name.endswith("memory_bank/rows"))
    shown = np.fromfile(folder / "projector" / "rows.float32", np.float32).reshape(-1, 16)
    np.testing.assert_array_equal(shown, rows)  # of up to 2,000 all
    assert (folder / "projector" / "metadata.tsv").read_text().splitlines()[1:3] == [
        "1\tdigits train#0",
        "2\tdigits train#1",
    ]


def test_the_same_command_again_finds_the_run_finished(finished):
    folder, process = finished
    result_of(process)
    before = lines(folder)
    again = run("la_tf.train", "--dataset=digits", f"--model_dir={folder}", *TINY)
    assert result_of(again)["finished"] and "is finished" in again.stderr
    assert lines(folder) == before


def test_another_identity_is_refused_and_the_key_named(finished):
    folder, process = finished
    result_of(process)
    other = run("la_tf.train", "--dataset=digits", f"--model_dir={folder}", *TINY, "--tau=0.2", "--keep=9")
    assert other.returncode == 1
    (line,) = other.stderr.strip().splitlines()
    assert "tau 0.07 there, 0.2 here" in line and "keep" not in line and str(folder) in line


def test_the_exported_folder_serves_and_can_be_made_again(finished, tmp_path):
    folder, process = finished
    result_of(process)
    out, small = tmp_path / "again", tmp_path / "small"
    assert result_of(run("la_tf.export", f"--model_dir={folder}", f"--out={out}"))["step"] == STEPS
    result_of(run("la_tf.export", f"--model_dir={folder}", f"--out={small}", "--nobank", "--licence=CC-BY-4.0"))
    final, best = (next(folder.glob(f"export/{name}/[0-9]*")) for name in ("final", "best"))
    first, again, without = (json.loads((path / "backbone.json").read_text()) for path in (final, out, small))
    assert first["architecture"] == again["architecture"] and first["step"] == again["step"] == STEPS
    assert first["view"] == again["view"] == {"image_size": 8, "kind": "digits", "common_size": [8, 8]}
    assert {*first["signatures"]} == {*again["signatures"]} == {*without["signatures"], "nearest"}
    cards = [json.loads((path / "model_card.json").read_text()) for path in (final, out, small, best)]
    for card in cards:
        assert card["data"]["train_images"] == 1437 and card["method"]["name"] == "la"
    written = int(last_arrays(folder)["memory_bank/written"].sum())
    assert [card["bank"].get("rows") for card in cards] == [written, written, None, None]
    assert "--nobank" in cards[2]["bank"]["why"] and f"la_tf.export --model_dir={folder}" in cards[3]["bank"]["why"]
    assert [card["licence"]["weights"] for card in cards][2] == "CC-BY-4.0"
    assert {**cards[0], "exported": None} == {**cards[1], "exported": None}
    refused = run("la_tf.export", f"--model_dir={folder}", "--step=7")
    assert refused.returncode == 1 and "--step=7" in refused.stderr and str(STEPS) in refused.stderr


@pytest.mark.slow
def test_a_run_killed_three_times_resumes_to_the_very_same_end(finished, tmp_path):
    """In the warm start, while a checkpoint is half written, and in LA; `python -m tests.kills` does so to 20 runs."""
    folder, process = finished
    result_of(process)
    flags, course = ["--dataset=digits", *TINY, "--checkpoint_steps=4"], Course(STEPS // 3, STEPS // 3, STEPS)
    hits, found = killed_run(tmp_path / "run", ("ir", "checkpoint", "la"), np.random.default_rng(0), flags, course)
    warm_start, checkpoint, aggregation = (hit for _, hit, _ in hits)
    assert warm_start.step < STEPS // 3 <= aggregation.step and checkpoint.writing
    assert differences(found, end_state(folder)) == []


@pytest.mark.slow
@pytest.mark.parametrize(("after", "number"), [(10, signal.SIGINT), (30, signal.SIGTERM)])
def test_a_stopped_run_resumes_to_the_very_same_end(finished, tmp_path, after, number):
    """In the warm start and in LA; the checkpoint that the latter leaves is damaged, and that before it serves."""
    folder, process = finished
    result_of(process)
    flags = ["--dataset=digits", f"--model_dir={tmp_path / 'killed'}", *TINY, "--checkpoint_steps=10"]
    with open(tmp_path / "said", "w+") as said:
        started = subprocess.Popen(command("la_tf.train", *flags), cwd=ROOT, env=environment(), stderr=said)
        kill_once_past(after, started, tmp_path / "killed", number)
        said.seek(0)
        last_line = said.read().splitlines()[-1]
    newest = checkpoints.latest(tmp_path / "killed")
    step = checkpoints.read_state(newest)["step"]
    assert last_line == f"stopped by {number.name} at step {step}; the same command resumes"
    if number is signal.SIGTERM:
        spoiled = bytearray((newest / "arrays.npz").read_bytes())
        spoiled[len(spoiled) // 2] ^= 1
        (newest / "arrays.npz").write_bytes(spoiled)
    again = run("la_tf.train", *flags)
    assert result_of(again)["step"] == STEPS
    assert (f"warning: {newest}: arrays.npz is damaged; " in again.stderr) == (number is signal.SIGTERM)
    assert_the_same_end(tmp_path / "killed", folder)


@pytest.mark.slow
def test_a_run_that_failed_before_its_first_checkpoint_may_change_its_mind(tmp_path):
    flags = ["--dataset=digits", f"--model_dir={tmp_path / 'run'}", *TINY, "--epochs=1", "--log_steps=1"]
    failed = run("la_tf.train", *flags, "--learning_rate=1e30")
    assert failed.returncode == 1 and "--learning_rate" in failed.stderr.splitlines()[-1]
    assert result_of(run("la_tf.train", *flags, "--learning_rate=0.05"))["finished"]
    assert [line["step"] for line in lines(tmp_path / "run")] == [*range(1, 23)]  # nothing of the failure is left


@pytest.mark.slow
def test_instance_recognition_runs_through_the_same_door(tmp_path):
    folder = tmp_path / "run"
    process = run("la_tf.train", "--dataset=digits", f"--model_dir={folder}", *TINY, "--method=ir", "--epochs=2")
    assert result_of(process)["finished"]
    assert all(line["phase"] == "ir" and "close_mean" not in line for line in lines(folder))
    assert not any("cluster" in name for name in last_arrays(folder))
    refused = run("la_tf.train", "--dataset=digits", f"--model_dir={folder}", *TINY, "--method=la", "--epochs=2")
    assert refused.returncode == 1 and "method 'ir' there, 'la' here" in refused.stderr


@pytest.mark.slow
def test_figures_are_drawn_from_a_run(finished):
    folder, process = finished
    result_of(process)
    found = result_of(run("la_tf.analyze", f"--model_dir={folder}", "--figure=all"))
    assert set(found["figures"]) == {"density", "neighbors", "mds", "close", "clusters", "curves"}
    assert not found["skipped"]
    for files in found["figures"].values():
        png, svg = files["figure"]
        assert json.loads(Path(files["numbers"]).read_text())
        with Image.open(png) as picture:
            assert picture.width > 400 and len(picture.convert("L").getcolors()) > 20  # not blank
        assert "<svg" in Path(svg).read_text()[:2000]
    refused = run("la_tf.analyze", f"--model_dir={folder}", "--figure=portrait")
    assert refused.returncode == 2 and "--figure=portrait" in refused.stderr


@pytest.mark.slow
def test_the_quickstart_learns_the_digits_and_gains_by_local_aggregation(tmp_path):
    flags = ["--flagfile=quickstart.flags", f"--model_dir={tmp_path}", "--deterministic"]
    assert result_of(run("la_tf.train", *flags))["finished"]
    epochs = [line for line in lines(tmp_path) if "knn_top1" in line]
    switch = [line["phase"] for line in epochs].index("la")
    assert len(epochs) - switch >= len(epochs) / 2  # half of the steps are Local Aggregation's
    # Seeds 0 to 3 came to 0.972, 0.989, 0.975 and 0.978; untrained ones to 0.65 to 0.76.
    assert epochs[-1]["knn_top1"] >= 0.96
    assert epochs[-1]["knn_top1"] >= epochs[switch - 1]["knn_top1"] - 1 / 360  # a digit of luck


@pytest.mark.slow
def test_an_evaluator_follows_a_training_process(tmp_path):
    flags = ["--dataset=digits", f"--model_dir={tmp_path / 'run'}", *TINY]
    dies = subprocess.Popen(command("la_tf.train", *flags, "--mode=eval"), cwd=ROOT, env=environment())
    trainer = subprocess.Popen(command("la_tf.train", *flags, "--mode=train"), cwd=ROOT, env=environment())
    while trainer.poll() is None and not (tmp_path / "run" / "eval_test" / "metrics.jsonl").exists():
        time.sleep(0.05)
    dies.kill()
    evaluator = subprocess.Popen(command("la_tf.train", *flags, "--mode=eval"), cwd=ROOT, env=environment())
    assert trainer.wait(timeout=120) == 0 and evaluator.wait(timeout=120) == 0
    assert all("knn_top1" not in line for line in lines(tmp_path / "run"))
    seen = [line for line in lines(tmp_path / "run" / "eval_test")]
    assert seen[-1]["step"] == STEPS and seen[-1]["knn_top1"] > 0.15


@pytest.mark.slow
def test_an_evaluator_that_comes_when_training_is_over_evaluates_the_end(tmp_path):
    flags = ["--dataset=digits", f"--model_dir={tmp_path / 'run'}", *TINY, "--epochs=1"]
    trained = run("la_tf.train", *flags, "--mode=train")
    assert "knn_top1" not in result_of(trained)
    assert f"warning: step {STEPS // 3} has not been evaluated (no step at all); the same" in trained.stderr
    evaluated = result_of(run("la_tf.train", *flags, "--mode=eval"))
    (seen,) = lines(tmp_path / "run" / "eval_test")
    assert seen == {"step": STEPS // 3, "knn_top1": evaluated["knn_top1"], "bad_images": 0}


@pytest.mark.slow
def test_unlabelled_pictures_of_ones_own_train_without_any_knn(tmp_path):
    rng = np.random.default_rng(0)
    pictures = tmp_path / "mine"
    pictures.mkdir()
    for i in range(40):
        Image.fromarray(rng.integers(256, size=(24, 20 + i % 3, 3), dtype=np.uint8)).save(pictures / f"{i}.png")
    flags = ["--batch_size=8", "--epochs=2", "--clusters=5", "--background_k=10", "--schedule=plateau"]
    process = run("la_tf.train", f"--dataset=folder:{pictures}", f"--model_dir={tmp_path / 'run'}", *TINY, *flags)
    assert result_of(process)["finished"]
    assert all("knn_top1" not in line and "purity" not in line for line in lines(tmp_path / "run"))
    assert list((tmp_path / "run" / "export" / "best").glob("*/saved_model.pb"))  # selected by the loss


@pytest.mark.slow
def test_a_warm_start_takes_weights_and_bank_of_another_run(finished, tmp_path):
    folder, process = finished
    result_of(process)
    flags = [*TINY, "--warmup_epochs=0", "--epochs=1", f"--warm_start={folder}"]
    result = run("la_tf.train", "--dataset=digits", f"--model_dir={tmp_path / 'warm'}", *flags)
    assert result_of(result)["step"] == STEPS // 3
    (epoch,) = [line for line in lines(tmp_path / "warm") if "knn_top1" in line]
    assert epoch["phase"] == "la"
    assert "warm start:" in result.stderr
