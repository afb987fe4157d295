"""A disk that becomes full, or must not be written to: a line says so, and nothing is lost but the last steps."""

import os

import numpy as np
import pytest

from la_tf import checkpoints
from tests.disks import read_only, resized, small_disk
from tests.la_tf.test_train import STEPS, TINY, assert_the_same_end, finished, result_of  # noqa: F401  a fixture
from tests.programs import run

ARRAYS = {"rows": np.random.default_rng(0).standard_normal((1000, 16), np.float32)}


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path):
    with small_disk(tmp_path, "200k") as disk:
        first = checkpoints.write(disk, 1, ARRAYS, {}, keep=9)
        checkpoints.write(disk, 2, ARRAYS, {}, keep=9)
        with pytest.raises(OSError, match="No space left"):
            (disk / "large").write_bytes(bytes(200_000))
        (disk / "large").unlink()
        with pytest.raises(checkpoints.UserError, match=r"step-00000003: .*\(No space left on device\); make room"):
            checkpoints.write(disk, 3, ARRAYS, {}, keep=9)
        assert sorted(os.listdir(first.parent)) == ["step-00000001", "step-00000002"]
        assert checkpoints.problem(checkpoints.latest(disk)) is None
        resized(disk, "2m")
        assert checkpoints.problem(checkpoints.write(disk, 3, ARRAYS, {}, keep=9)) is None


@pytest.mark.slow
def test_a_run_on_a_full_disk_goes_on_to_the_very_same_end(finished, tmp_path):  # noqa: F811
    folder, process = finished
    result_of(process)
    with small_disk(tmp_path, "1400k") as disk:  # full at an export; at a checkpoint: the test above
        flags = ["--dataset=digits", f"--model_dir={disk / 'run'}", *TINY, "--checkpoint_steps=5", "--keep=30"]
        stopped = run("la_tf.train", *flags)
        assert stopped.returncode == 1 and "Traceback" not in stopped.stderr
        last_line = stopped.stderr.splitlines()[-1]
        assert last_line.startswith(f"error: {disk}/run/") and "No space left on device" in last_line
        newest = checkpoints.latest(disk / "run")
        assert newest is not None and checkpoints.problem(newest) is None
        resized(disk, "200m")
        assert result_of(run("la_tf.train", *flags))["step"] == STEPS
        assert_the_same_end(disk / "run", folder)


def test_a_folder_that_must_not_be_written_to_is_named(tmp_path):
    with read_only(tmp_path):
        process = run("la_tf.train", "--dataset=digits", f"--model_dir={tmp_path / 'run'}", *TINY)
    assert process.returncode == 1
    assert process.stderr == (
        f"error: --model_dir={tmp_path / 'run'}: cannot be written (Read-only file system); choose another\n"
    )
