"""The main job on real photographs: CIFAR-10 at 32 px, Imagenette at 224 px."""

import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.la_tf.test_train import kill_once_past, last_arrays, lines, result_of
from tests.programs import ROOT, command, environment, run

CIFAR = [
    "--flagfile=cifar10.flags",
    "--max_steps=120",
    "--warmup_epochs=1",
    "--width=4",
    "--batch_size=128",
    "--deterministic",
]


@pytest.mark.slow
def test_cifar10_resumes_after_a_kill_to_the_metrics_of_an_uninterrupted_run(real_pictures, tmp_path):
    flags = [*CIFAR, f"--dataset=folder:{real_pictures('cifar10')}"]
    assert result_of(run("la_tf.train", *flags, f"--model_dir={tmp_path / 'whole'}"))["step"] == 120
    killed = [*flags, f"--model_dir={tmp_path / 'killed'}", "--checkpoint_steps=50"]
    started = subprocess.Popen(command("la_tf.train", *killed), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
    kill_once_past(100, started, tmp_path / "killed")  # in the middle of the second epoch, the first of LA
    assert started.returncode == -signal.SIGKILL
    assert result_of(run("la_tf.train", *killed))["step"] == 120
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
    whole, resumed = last_arrays(tmp_path / "whole"), last_arrays(tmp_path / "killed")
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name)


@pytest.mark.slow
def test_resnet50_takes_two_steps_at_224_px(real_pictures, tmp_path):
    whole, some = Path(real_pictures("imagenette224")), tmp_path / "some"
    for split, count in (("train", 300), ("val", 20)):  # all 2500 would be judged for two minutes
        for picture in sorted(whole.glob(f"{split}/*/*"))[:: {"train": 8, "val": 25}[split]][:count]:
            place = some / picture.relative_to(whole)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(picture)
    flags = [f"--dataset=folder:{some}", f"--model_dir={tmp_path / 'run'}", "--max_steps=2"]
    # A batch of 16 for the test's sake; the preset's 128 takes minutes on two cores.
    assert result_of(run("la_tf.train", "--flagfile=resnet50.flags", *flags, "--batch_size=16"))["step"] == 2
    identity = json.loads((tmp_path / "run" / "config.json").read_text())["identity"]
    assert (identity["clusterings"], identity["image_size"]) == (10, 224)
    assert identity["clusters"] == round(300 / 8)
