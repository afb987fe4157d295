"""The main job on records of data.build_tfrecords: damaged, killed, and of real pictures."""

import subprocess

import numpy as np
import pytest

from la_tf import bad_images
from tests.data.pictures import smooth, write
from tests.data.test_build_tfrecords import built
from tests.data.test_streams import spoil
from tests.la_tf.test_train import TINY, kill_once_past, last_arrays, lines, result_of
from tests.programs import ROOT, command, environment, run


def build(root, count, shards=2):
    """Records of `count` pictures of two sizes, which are not kept in memory, in two classes."""
    for number in range(count):
        write(root / "pictures" / f"c{number % 2}" / f"{number}.jpg", smooth(number, 20, 20 + number % 3))
    built(f"folder:{root}/pictures", root / "records", shards=shards)
    return root / "records"


SHORT = [*TINY, "--method=ir", "--epochs=1", "--batch_size=8", "--exporters="]
DAMAGE = {"train-00000-of-00002": {3: "picture"}, "train-00001-of-00002": {7: "header"}}


@pytest.mark.slow
def test_damaged_records_are_left_out_named_and_counted(tmp_path):
    records, run_dir = build(tmp_path, 40), tmp_path / "run"
    for name, damage in DAMAGE.items():  # 2 of 40 are just what --max_bad_fraction allows
        spoil(records / name, damage)
    process = run("la_tf.train", f"--dataset=tfrecord:{records}", *SHORT, f"--model_dir={run_dir}")
    assert result_of(process)["finished"]
    assert lines(run_dir)[-1]["bad_images"] == 2
    listed = {int(line["index"]): line for line in bad_images.read(run_dir / bad_images.FILE)}
    assert sorted(listed) == [3, 27]
    for row, name, reason in ((3, "train-00000-of-00002#3", "checksum"), (27, "train-00001-of-00002#7", "header")):
        assert listed[row]["name"] == str(records / name) and reason in listed[row]["reason"]
        assert f"bad picture: {records / name}: " in process.stderr


@pytest.mark.slow
def test_too_many_damaged_records_stop_the_run_with_one_line(tmp_path):
    records = build(tmp_path, 40)
    for name, damage in DAMAGE.items():
        spoil(records / name, damage | {19: "cut file"} if 3 in damage else damage)
    process = run("la_tf.train", f"--dataset=tfrecord:{records}", *SHORT, f"--model_dir={tmp_path / 'run'}")
    assert process.returncode == 1 and "Traceback" not in process.stderr
    (error,) = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert "3 of 40" in error and "--max_bad_fraction=0.05" in error


@pytest.mark.slow
def test_a_run_on_records_that_was_killed_resumes_to_the_very_same_end(tmp_path):
    """With other workers, and with damaged records that other pictures stand in for."""
    records = build(tmp_path, 600)
    spoil(records / "train-00000-of-00002", {3: "cut picture", 44: "picture", 130: "header"})
    spoil(records / "train-00001-of-00002", {90: "length", 299: "cut file"})
    flags = [f"--dataset=tfrecord:{records}", *TINY, "--batch_size=40", "--checkpoint_steps=4"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert result_of(run("la_tf.train", *flags, f"--model_dir={whole}"))["step"] == 45
    resumed = [*flags, f"--model_dir={killed}", "--workers=1"]
    started = subprocess.Popen(command("la_tf.train", *resumed), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
    kill_once_past(20, started, killed)  # in the second of three epochs, the first of LA
    assert result_of(run("la_tf.train", *flags, f"--model_dir={killed}", "--workers=3"))["step"] == 45
    assert lines(killed) == lines(whole) and lines(whole)[-1]["bad_images"] == 5
    assert bad_images.read(killed / bad_images.FILE) == bad_images.read(whole / bad_images.FILE)
    arrays, expected = last_arrays(killed), last_arrays(whole)
    assert arrays.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(arrays[name], expected[name], err_msg=name)


# Of each set: pictures to train on and to test by, classes, side of the views.
REAL = {
    "cifar10": (10_000, 2000, 10, 16),
    "imagenette224": (2500, 500, 10, 32),
    "sun_scenes": (240, 64, 8, 64),
    "imagenet_samples": (100, 0, 0, 64),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_pictures_are_built_checked_and_trained_on(real_pictures, tmp_path, name):
    train, test, classes, side = REAL[name]
    records, images = tmp_path / "records", {"train": train} | ({"test": test} if test else {})
    result = built(f"folder:{real_pictures(name)}", records)
    assert (result["images"], result["bad"], result["converted"]) == (images, 0, 0)

    splits = result_of(run("data.check", f"--dataset=tfrecord:{records}"))["splits"]
    assert {split: found["images"] for split, found in splits.items()} == images
    assert all((found["bad"], found["classes"]) == (0, classes) for found in splits.values())

    flags = [f"--dataset=tfrecord:{records}", f"--model_dir={tmp_path / 'run'}", "--method=ir", "--backbone=resnet10"]
    flags += ["--width=8", "--epochs=1", "--batch_size=50", f"--image_size={side}", "--exporters="]
    result = result_of(run("la_tf.train", *flags))
    assert result["finished"] and result["step"] == train // 50 and ("knn_top1" in result) == bool(test)
    assert lines(tmp_path / "run")[-1]["bad_images"] == 0
