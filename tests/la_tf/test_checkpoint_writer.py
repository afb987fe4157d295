"""Checkpoints that a thread writes: training goes on, nothing is lost, and what goes wrong is told."""

import threading

import numpy as np
import pytest

from data.errors import UserError
from la_tf import checkpoints
from la_tf.checkpoint_writer import CheckpointWriter
from tests.la_tf.together import together

ARRAYS = {"rows": np.arange(6.0).reshape(3, 2)}


class Gate:
    """np.savez that waits until it is let through; or fails."""

    def __init__(self, patch, error=None):
        self.let_through, self.begun = threading.Event(), threading.Event()
        savez = np.savez

        def write(file, **arrays):
            self.begun.set()
            assert self.let_through.wait(60)
            if error is not None:
                raise error
            savez(file, **arrays)

        patch.setattr(np, "savez", write)


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    gate, writer = Gate(monkeypatch), CheckpointWriter(tmp_path, keep=3)
    folder = writer.write(5, ARRAYS, {"epoch": 0}, {})
    assert gate.begun.wait(60) and writer.busy and not folder.exists()
    writer.check()
    gate.let_through.set()
    writer.wait()
    assert not writer.busy and checkpoints.problem(folder) is None
    np.testing.assert_array_equal(checkpoints.read_arrays(folder)["rows"], ARRAYS["rows"])


def test_the_next_one_waits_for_the_last_one(tmp_path, monkeypatch):
    gate, writer = Gate(monkeypatch), CheckpointWriter(tmp_path, keep=3)
    writer.write(5, ARRAYS, {}, {})
    second = threading.Thread(target=writer.write, args=(10, ARRAYS, {}, {}))
    second.start()
    second.join(0.2)
    assert second.is_alive() and checkpoints.steps(tmp_path) == []
    gate.let_through.set()
    second.join(60)
    writer.wait()
    assert checkpoints.steps(tmp_path) == [5, 10]


@pytest.mark.parametrize("ask", ["check", "wait", "write"])
def test_what_went_wrong_is_told_at_the_next_call_and_once(tmp_path, monkeypatch, ask):
    writer = CheckpointWriter(tmp_path, keep=3)
    with monkeypatch.context() as patch:
        gate = Gate(patch, OSError(28, "No space left on device"))
        writer.write(5, ARRAYS, {}, {})
        gate.let_through.set()
        while writer.busy:
            pass
        with pytest.raises(UserError, match=r"step-00000005: .*\(No space left on device\); make room"):
            {"check": writer.check, "wait": writer.wait, "write": lambda: writer.write(6, ARRAYS, {}, {})}[ask]()
    writer.check()
    writer.write(7, ARRAYS, {}, {})
    writer.wait()
    assert checkpoints.steps(tmp_path) == [7]


def test_processes_write_their_rows_and_the_first_one_waits_for_them(tmp_path):
    rows = np.arange(22, dtype=np.float32).reshape(11, 2)

    def work(process):
        writer = CheckpointWriter(tmp_path, keep=3, processes=process)
        first, end = ((0, 4), (4, 9), (9, 11))[process.index]
        writer.write(5, ARRAYS, {}, {"bank": checkpoints.Part(11, first, rows[first:end])})
        calls = len(process.calls)
        writer.wait()
        assert len(process.calls) == calls, "a thread tells the others nothing: training does so meanwhile"

    together(3, work)
    folder = checkpoints.latest(tmp_path)
    assert checkpoints.problem(folder) is None
    assert sorted(path.name for path in folder.iterdir()) == ["arrays.npz", "rows", "sha256.json", "state.json"]
    with checkpoints.read_arrays(folder) as arrays:
        np.testing.assert_array_equal(arrays["bank"], rows)


def test_rows_that_never_come_are_given_up_and_there_is_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "LONGEST_WAIT", 0)

    def work(process):
        _, finish = checkpoints.begin(
            tmp_path, 5, ARRAYS, {}, 3, {"bank": checkpoints.Part(2, process.index, np.zeros((1, 1)))}, process
        )
        if process.index == 0:
            with pytest.raises(UserError, match="worker 1 has not written its rows"):
                finish()

    together(2, work)
    assert checkpoints.steps(tmp_path) == []
