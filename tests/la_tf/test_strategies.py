"""Runs on several replicas, in processes as a user starts them: what one replica does with the same batches."""

import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from la_tf import checkpoints
from la_tf.model_dir import MetricsFile
from tests import programs

pytestmark = pytest.mark.slow

# At this rate float32's rounding stays what it is; without batch norm, larger ones make a thousand times as much of it.
FLAGS = (
    "--flagfile=quickstart.flags", "--learning_rate=0.001", "--schedule=constant", "--warmup_epochs=1", "--log_steps=1",
    "--epochs=100", "--exporters=", "--width=16", "--batch_size=128",
)  # fmt: skip
STEPS = 20
LA_BEGUN = 15  # steps of the run that Local Aggregation is gone on from, on every number of replicas
# Replicas see parts of a batch, so sums of float32 are added up in another order; training makes that larger.
TOLERANCE = 1e-4
MIRRORED = ("--strategy=mirrored", "--replicas=")
SETTINGS = {
    "mirrored-2-replicated": (*MIRRORED, 2, "replicated"),
    "mirrored-2-sharded": (*MIRRORED, 2, "sharded"),
    "mirrored-4-replicated": (*MIRRORED, 4, "replicated"),
    "mirrored-4-sharded": (*MIRRORED, 4, "sharded"),
    "multiworker-2-replicated": (2, "replicated"),
    "multiworker-2-sharded": (2, "sharded"),
}


def train(folder, steps, *flags, setting=None):
    """Trains in `folder` to a step, on one replica or in a setting; returns the result."""
    flags = (*FLAGS, f"--model_dir={folder}", f"--max_steps={steps}", *flags)
    main = "la_tf.train"
    if setting in SETTINGS:
        *how, count, sharding = SETTINGS[setting]
        flags = (*flags, f"--bank_sharding={sharding}")
        if how:
            flags = (*flags, how[0], f"{how[1]}{count}")
        else:
            main, flags = "la_tf.launch", (f"--workers={count}", "--", *flags)
    done = programs.run(main, *flags, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def losses(folder):
    """The running losses of every step that was logged."""
    return {record["step"]: record["loss"] for record in MetricsFile(folder).read()}


def arrays(folder):
    """What the newest checkpoint holds, whole, by name."""
    with checkpoints.read_arrays(checkpoints.latest(folder)) as found:
        return {name: np.array(found[name]) for name in found.files}


def assert_same_run(folder, other):
    """Asserts that two runs of as many steps have had the same losses and come to the same bank, labels and weights."""
    found, wanted = losses(folder), losses(other)
    assert found.keys() == wanted.keys() and len(found) >= STEPS
    np.testing.assert_allclose([*found.values()], [*wanted.values()], rtol=0, atol=TOLERANCE)
    stored, expected = arrays(folder), arrays(other)
    assert stored.keys() == expected.keys()
    for name, array in expected.items():
        if not name.startswith("metrics/"):  # sums over all replicas, whose means the losses above are
            np.testing.assert_allclose(stored[name], array, rtol=0, atol=TOLERANCE, err_msg=name)


@pytest.fixture(scope="module")
def recognition(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ir") / "one"
    train(folder, STEPS, "--method=ir", "--nobatch_norm")
    return folder


LA = ("--method=la", "--nobatch_norm", "--cluster_every=50epochs")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run in which Local Aggregation has begun, with its clusters."""
    folder = tmp_path_factory.mktemp("la") / "begun"
    train(folder, LA_BEGUN, *LA)
    return folder


@pytest.fixture(scope="module")
def aggregation(begun):
    """The same, gone on with on one replica."""
    return gone_on(begun, begun.with_name("one"))


def gone_on(begun, folder, *flags, steps=LA_BEGUN + STEPS, setting=None):
    if not folder.exists():
        shutil.copytree(begun, folder)
    train(folder, steps, *LA, *flags, setting=setting)
    return folder


# One of each kind: Local Aggregation below takes the same way through all of them.
@pytest.mark.parametrize("setting", ["mirrored-2-replicated", "mirrored-4-sharded", "multiworker-2-sharded"])
def test_instance_recognition_is_the_same_on_any_replicas(tmp_path, recognition, setting):
    train(tmp_path / "run", STEPS, "--method=ir", "--nobatch_norm", setting=setting)
    assert_same_run(tmp_path / "run", recognition)


@pytest.mark.parametrize("setting", SETTINGS)
def test_local_aggregation_is_the_same_on_any_replicas(tmp_path, begun, aggregation, setting):
    assert_same_run(gone_on(begun, tmp_path / "run", setting=setting), aggregation)


def test_synchronised_batch_norm_is_that_of_the_whole_batch(tmp_path):
    # With steps as long as the others' batch norm makes four times as much of any difference in rounding, such as that
    # of oneDNN on and off, at every one of these first.
    flags = ("--method=ir", "--learning_rate=0.0001")
    train(tmp_path / "one", STEPS, *flags)
    train(tmp_path / "two", STEPS, *flags, "--sync_batch_norm", setting="mirrored-2-sharded")
    assert_same_run(tmp_path / "two", tmp_path / "one")


def test_a_checkpoint_of_two_replicas_goes_on_on_one_and_on_four(tmp_path, begun, aggregation):
    folder = tmp_path / "run"
    gone_on(begun, folder, steps=21, setting="mirrored-2-sharded")
    gone_on(begun, folder, steps=27)
    gone_on(begun, folder, setting="mirrored-4-sharded")
    assert_same_run(folder, aggregation)


@pytest.mark.parametrize(
    ("method", "setting"),
    [("dc", "mirrored-2-replicated"), ("swav", "mirrored-2-sharded"), ("supervised", "multiworker-2-sharded")],
)
def test_the_other_methods_are_the_same_on_two_replicas(tmp_path, method, setting):
    # SwAV's projection has batch norm whatever the backbone has.
    flags = (f"--method={method}", "--nobatch_norm", f"--learning_rate={0.0001 if method == 'swav' else 0.001}")
    train(tmp_path / "one", STEPS, *flags)
    train(tmp_path / "two", STEPS, *flags, "--sync_batch_norm", setting=setting)
    assert_same_run(tmp_path / "two", tmp_path / "one")


def test_a_run_of_several_processes_is_looked_at_by_one(tmp_path, begun):
    folder = gone_on(begun, tmp_path / "run", "--exporters=final", steps=22, setting="multiworker-2-sharded")
    for main in ("la_tf.export", "la_tf.analyze", "la_tf.evaluate"):
        done = programs.run(main, f"--model_dir={folder}")
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads(done.stdout.splitlines()[-1])
    banks = {
        name: json.loads(next(folder.glob(f"export/{name}/*/model_card.json")).read_text())["bank"]
        for name in ("final", "manual")
    }
    assert "its rows were spread over processes" in banks["final"]["why"]
    assert banks["manual"]["of"] == len(arrays(folder)["memory_bank/rows"]) == 1437


def test_a_search_in_cells_is_checked_and_the_same_on_two_replicas(tmp_path):
    # All cells are visited, so nothing is missed, nor are the rows that were first written after they were made.
    flags = ("--background_search=cells", "--visited_rows=1437", "--cells=12")
    train(tmp_path / "begun", LA_BEGUN, *LA, *flags)
    found = []
    for setting in ("one", "mirrored-2-sharded"):
        folder = gone_on(tmp_path / "begun", tmp_path / setting, *flags, steps=102, setting=setting)
        record = next(each for each in MetricsFile(folder).read() if each["step"] == 101)
        assert record["search_recall"] > 0.999 and record["search_loss_error"] < 1e-4
        found.append([losses(folder)[step] for step in range(1, LA_BEGUN + STEPS)])
    np.testing.assert_allclose(*found, rtol=0, atol=TOLERANCE)


def test_a_process_that_is_killed_ends_the_run_with_a_line_and_the_same_command_resumes(tmp_path, begun, aggregation):
    folder = tmp_path / "run"
    shutil.copytree(begun, folder)
    flags = (*FLAGS, *LA, f"--model_dir={folder}", "--bank_sharding=sharded", "--checkpoint_steps=2")
    command = programs.command("la_tf.launch", "--workers=2", "--", *flags, "--max_steps=5000")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = subprocess.Popen(command, cwd=programs.ROOT, env=programs.environment(), **pipes)
    try:
        until = time.monotonic() + 200
        while not checkpoints.steps(folder) or checkpoints.steps(folder)[-1] < LA_BEGUN + 3:
            assert running.poll() is None and time.monotonic() < until, running.communicate()[1][-3000:]
            time.sleep(0.2)
        children = subprocess.run(["pgrep", "-P", str(running.pid)], capture_output=True, text=True).stdout.split()
        assert len(children) == 2
        os.kill(int(children[1]), signal.SIGKILL)
        _, stderr = running.communicate(timeout=100)
    finally:
        running.kill()
    assert running.returncode == 1
    lines = [line for line in stderr.splitlines() if "worker 1" in line and "resume" in line]
    assert lines, stderr[-3000:]
    assert "Traceback" not in stderr
    step = checkpoints.steps(folder)[-1]
    train(folder, step + 3, *LA, setting="multiworker-2-sharded")
    assert MetricsFile(folder).read()[-1]["step"] == step + 3
