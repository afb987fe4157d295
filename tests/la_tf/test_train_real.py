"""The main job on real photographs: CIFAR-10 at 32 px, Imagenette at 224 px."""

import signal
import subprocess

import numpy as np
import pytest

from tests.la_tf.test_train import kill_once_past, last_arrays, lines, result_of
from tests.programs import ROOT, command, environment, run

CIFAR = [
    "--flagfile=cifar10.flags",
    "--epochs=3",
    "--warmup_epochs=1",
    "--width=4",
    "--backbone=resnet10",
    "--deterministic",
]


@pytest.mark.slow
def test_cifar10_resumes_after_a_kill_to_the_metrics_of_an_uninterrupted_run(real_pictures, tmp_path):
    flags = [*CIFAR, f"--dataset=folder:{real_pictures('cifar10')}"]
    assert result_of(run("la_tf.train", *flags, f"--model_dir={tmp_path / 'whole'}"))["step"] == 3 * (10_000 // 128)
    killed = [*flags, f"--model_dir={tmp_path / 'killed'}", "--checkpoint_steps=50"]
    started = subprocess.Popen(command("la_tf.train", *killed), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
    kill_once_past(100, started, tmp_path / "killed")  # in the middle of the second epoch, the first of LA
    assert started.returncode == -signal.SIGKILL
    assert result_of(run("la_tf.train", *killed))["step"] == 3 * (10_000 // 128)
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
    whole, resumed = last_arrays(tmp_path / "whole"), last_arrays(tmp_path / "killed")
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name)


@pytest.mark.slow
def test_resnet50_takes_two_steps_at_224_px(real_pictures, tmp_path):
    import json

    flags = [f"--dataset=folder:{real_pictures('imagenette224')}", f"--model_dir={tmp_path / 'run'}", "--max_steps=2"]
    # A batch of 16 for the test's sake; the preset's 128 takes minutes on two cores.
    assert result_of(run("la_tf.train", "--flagfile=resnet50.flags", *flags, "--batch_size=16"))["step"] == 2
    identity = json.loads((tmp_path / "run" / "config.json").read_text())["identity"]
    assert (identity["clusterings"], identity["image_size"]) == (10, 224)
    assert identity["clusters"] == round(2500 / 42.7)
