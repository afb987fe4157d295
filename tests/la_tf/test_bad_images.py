"""Pictures that cannot be read: left out, named once, counted over restarts, and too many of them end the run."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import reading
from data.errors import UserError
from la_tf import bad_images, checkpoints
from la_tf.bad_images import BadImages
from la_tf.callbacks import MetricsWriter
from la_tf.config import Config
from la_tf.experiment import Experiment
from la_tf.memory_bank import random_unit_rows
from la_tf.model_dir import MetricsFile
from la_tf.specs import EvalSpec, ModeKeys, RunConfig, TrainSpec
from tests.la_tf.test_estimator import N, estimator, input_fn
from tests.la_tf.test_train import TINY, lines, result_of
from tests.programs import run


class Split(SimpleNamespace):
    """As much of a split as is needed to name its pictures."""

    def __str__(self):
        return f"the {self.name} split"


@pytest.fixture
def split(monkeypatch):
    """A function that makes a split of N pictures, all of which are said to be empty."""
    monkeypatch.setattr(reading, "problem", lambda split, row: "is empty (0 bytes)")
    source = SimpleNamespace(locate=lambda row: f"/set/{row}.jpg")
    return lambda name="train": Split(name=name, size=N, source=source)


def batches(*parts):
    """Batches of pictures by index; the negative ones are bad."""
    for part in parts:
        indices = np.abs(part)
        yield {"index": tf.constant(indices, tf.int64), "valid": tf.constant(np.asarray(part) >= 0)}


def listed(folder):
    return [(line["split"], int(line["index"])) for line in bad_images.read(folder / "bad_images.csv")]


def test_each_bad_picture_is_named_listed_and_counted_once(split, tmp_path, capsys):
    bad = BadImages(split(), tmp_path, max_fraction=0.5)
    seen = list(bad.watch(batches([1, -2, 3, -2], [4, 5], [-2, 6, -7, 8])))
    assert [batch["index"].shape[0] for batch in seen] == [4, 2, 4]
    assert capsys.readouterr().err.splitlines() == [
        "bad picture: /set/2.jpg: is empty (0 bytes); left out",
        "bad picture: /set/7.jpg: is empty (0 bytes); left out",
    ]
    assert (tmp_path / "bad_images.csv").read_text() == (
        "split,index,name,reason\ntrain,2,/set/2.jpg,is empty (0 bytes)\ntrain,7,/set/7.jpg,is empty (0 bytes)\n"
    )
    assert bad.count() == 2 and bad.count([7, 8, 9]) == 1


def test_without_a_bad_picture_there_is_no_list(split, tmp_path, capsys):
    bad = BadImages(split(), tmp_path, max_fraction=0.0)
    assert len(list(bad.watch(batches([1, 2], [3, 4])))) == 2
    assert bad.count() == 0 and list(tmp_path.iterdir()) == [] and capsys.readouterr().err == ""


def test_of_many_bad_pictures_the_terminal_hears_twenty_and_where_the_others_are(split, tmp_path, capsys):
    bad = BadImages(split(), tmp_path, max_fraction=1)
    list(bad.watch(batches([-1, -2, -3], -np.arange(4, 31))))
    heard = capsys.readouterr().err.splitlines()
    assert len(heard) == 21 and str(tmp_path / "bad_images.csv") in heard[-1]
    assert len(listed(tmp_path)) == 30


def test_a_name_of_any_bytes_can_be_listed(split, tmp_path):
    odd = split()
    odd.source.locate = lambda row: 'a,"b"\nc\udcff.jpg'
    list(BadImages(odd, tmp_path, max_fraction=1).watch(batches([-1])))
    assert bad_images.read(tmp_path / "bad_images.csv")[0]["name"] == 'a,"b"\nc\udcff.jpg'


def test_more_than_the_fraction_ends_the_run_and_exactly_the_fraction_does_not(split, tmp_path):
    bad = BadImages(split(), tmp_path, max_fraction=0.075)  # 3 of 40
    watched = bad.watch(batches([-1, 2], [-3, -4], [5, -6]))
    next(watched), next(watched)
    with pytest.raises(UserError) as error:
        next(watched)
    message = str(error.value)
    for part in (
        "the train split", "4 of 40", "10.0%", "/set/1.jpg, /set/3.jpg, /set/4.jpg", str(tmp_path / "bad_images.csv"),
        "--max_bad_fraction=0.075",
    ):  # fmt: skip
        assert part in message
    assert "\n" not in message and len(listed(tmp_path)) == 4


def test_a_flag_that_was_lowered_below_what_is_known_ends_the_run_at_once(split, tmp_path):
    bad = BadImages(split(), tmp_path, max_fraction=0.02)
    bad.set_state({"rows": [3]})
    with pytest.raises(UserError, match="1 of 40"):
        bad.on_train_begin({"step": 5})


def test_a_resumed_run_knows_what_its_checkpoint_knew_and_finds_the_rest_again(split, tmp_path, capsys):
    killed = BadImages(split(), tmp_path, max_fraction=1)
    test = BadImages(split("test"), tmp_path, max_fraction=1)
    list(killed.watch(batches([-1, -2])))
    state = json.loads(json.dumps(killed.get_state()))
    list(test.watch(batches([-3])))
    list(killed.watch(batches([-4, -5])))  # after the checkpoint
    with open(tmp_path / "bad_images.csv", "a") as file:
        file.write("train,1")  # torn
    capsys.readouterr()

    again = BadImages(split(), tmp_path, max_fraction=1)
    again.set_state(state)
    again.on_train_begin({"step": 10})
    assert again.count() == 2
    assert listed(tmp_path) == [("train", 1), ("train", 2), ("test", 3)]
    list(again.watch(batches([-2, -4, 6])))
    (named,) = capsys.readouterr().err.splitlines()
    assert "/set/4.jpg" in named and again.count() == 3
    again.on_train_begin({"step": 20})  # a second call of `train` by the same process
    assert listed(tmp_path) == [("train", 1), ("train", 2), ("test", 3), ("train", 4)]


def test_the_bad_pictures_of_an_evaluation_are_named_by_every_process_but_listed_once(split, tmp_path, capsys):
    for _ in range(2):
        bad = BadImages(split("test"), tmp_path, max_fraction=1)
        list(bad.watch(batches([-3, 4])))
        list(bad.watch(batches([-3, 4])))
        assert bad.count() == 1 and len(capsys.readouterr().err.splitlines()) == 1
    assert listed(tmp_path) == [("test", 3)]


BAD = {3, 17, 30}


def test_lines_of_metrics_and_checkpoints_hold_the_count_over_a_kill(split, tmp_path):
    """Training and an evaluation with a count of its own, whole and killed between two checkpoints."""

    def trained(folder, until=10):
        bad = BadImages(split(), folder, max_fraction=0.1)

        def watched(mode, context):
            if mode != ModeKeys.TRAIN:
                return input_fn(mode, context)
            broken = ({**b, "valid": tf.constant(~np.isin(b["index"], list(BAD)))} for b in input_fn(mode, context))
            return bad.watch(itertools.islice(broken, until - context.first_step))

        ended = estimator(folder)
        hooks = (bad, MetricsWriter(folder))
        other = EvalSpec(input_fn, lambda model, batches: {"bad_images": 77}, name="other")
        ended.config = RunConfig(str(folder), log_step_count_steps=1, save_checkpoints_steps=2)
        ended.train(TrainSpec(watched, max_steps=10, steps_per_epoch=5, hooks=hooks, monitor=other))
        return ended

    whole = trained(tmp_path / "whole")
    with pytest.raises(StopIteration):
        trained(tmp_path / "killed", until=3)  # rows 3 and 17 are known; the checkpoint of step 2 knows the first
    assert listed(tmp_path / "killed") == [("train", 3), ("train", 17)]
    killed = trained(tmp_path / "killed")
    for folder, ended in ((tmp_path / "whole", whole), (tmp_path / "killed", killed)):
        found = [line["bad_images"] for line in MetricsFile(folder).read()]
        assert found == [1, 1, 2, 3, 3, 3, 3, 3, 3, 3]
        assert [line["bad_images"] for line in MetricsFile(folder / "eval_other").read()] == [77, 77]
        assert listed(folder) == [("train", 3), ("train", 17), ("train", 30)]
        state = checkpoints.read_state(checkpoints.latest(folder))
        assert state["hooks"]["BadImages"] == {"rows": [3, 17, 30]} and state["logs"]["bad_images"] == 3
        bank, rows = ended.model.bank, sorted(BAD)
        assert np.flatnonzero(~bank.written.numpy()).tolist() == rows
        np.testing.assert_array_equal(bank.rows.numpy()[rows], random_unit_rows(N, 16, 0)[rows])


def make_set(folder, side, train=24, test=8, labelled=True):
    """Two classes of noise, bright and dark, and a train split in which three pictures cannot be read."""
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for i in range(count):
            place = folder / part / f"class{i % 2}" if labelled else folder
            place.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(128, size=(side, side, 3), dtype=np.uint8) + 128 * np.uint8(i % 2)
            Image.fromarray(pixels).save(place / f"{i:02}.jpg", quality=95)
    return folder


def spoil(folder):
    """Makes a picture empty, one a text, and one half a JPEG; returns their paths."""
    empty, text, cut = (folder / "train" / f"class{i % 2}" / f"{i:02}.jpg" for i in (4, 9, 14))
    empty.write_bytes(b"")
    text.write_text("dear reader, I am no picture at all")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    return empty, text, cut


SIZES = {"batch_size": 8, "clusters": 4, "background_k": 8, "image_size": 8}
SMALL = ["--batch_size=8", "--epochs=3", "--clusters=4", "--background_k=8", "--log_steps=2", "--exporters="]


@pytest.mark.parametrize("side", [24, pytest.param(80, marks=pytest.mark.slow)])  # out of memory; from the files
def test_a_run_over_a_folder_with_broken_files_finishes_without_them(tmp_path, side):
    folder = tmp_path / "run"
    broken = spoil(make_set(tmp_path / "set", side))
    test_picture = tmp_path / "set" / "test" / "class0" / "02.jpg"
    test_picture.write_bytes(b"")
    flags = [
        f"--dataset=folder:{tmp_path / 'set'}",
        f"--model_dir={folder}",
        *TINY,
        *SMALL,
        f"--image_size={side // 3}",
    ]
    process = run("la_tf.train", *flags, "--max_bad_fraction=0.125")  # 3 of 24, 1 of 8
    assert result_of(process)["finished"], process.stderr
    named = [line for line in process.stderr.splitlines() if line.startswith("bad picture: ")]
    assert len(named) == 4
    for path, reason in zip((*broken, test_picture), ("empty", "text", "", "empty"), strict=True):
        (line,) = [line for line in named if f" {path}: " in line]
        assert reason in line.split(str(path))[1]

    found = lines(folder)
    assert found[-1]["bad_images"] == 3 and all("bad_images" in line for line in found)
    source = experiment_of(tmp_path / "set", folder).train.source
    names = [source.locate(row) for row in range(24)]
    rows = sorted(names.index(str(path)) for path in broken)
    of_train = [index for split, index in listed(folder) if split == "train"]
    assert sorted(of_train) == rows and len(listed(folder)) == 4
    with checkpoints.read_arrays(checkpoints.latest(folder)) as arrays:
        assert not arrays["memory_bank/written"][rows].any() and arrays["memory_bank/written"].sum() == 21
        np.testing.assert_array_equal(arrays["memory_bank/rows"][rows], random_unit_rows(24, 16, 0)[rows])
        assert (arrays["local_aggregation/cluster_labels"][rows] == -1).all()
    evaluated = lines(folder / "eval_test")
    assert [line["bad_images"] for line in evaluated] == [1, 1, 1]
    assert evaluated[-1]["knn_top1"] * 7 == pytest.approx(round(evaluated[-1]["knn_top1"] * 7))  # of 7, not of 8


def experiment_of(folder, model_dir):
    return Experiment(Config.from_flat({"dataset": f"folder:{folder}", "model_dir": str(model_dir)} | SIZES))


def test_a_set_without_labels_trains_with_a_warning_and_refuses_to_be_scored(tmp_path):
    pictures = make_set(tmp_path / "mine", 24, labelled=False)
    experiment = experiment_of(pictures, tmp_path / "run")
    (warning,) = experiment.warnings
    assert "no kNN score" in warning and "no labels" in warning
    assert experiment.eval_specs() == () and experiment.monitor == ("loss", False)
    experiment.claim()
    flags = [f"--dataset=folder:{pictures}", f"--model_dir={tmp_path / 'run'}", *SMALL, "--image_size=8"]
    refused = run("la_tf.train", *flags, "--mode=eval")
    assert refused.returncode == 2 and "--mode=eval" in refused.stderr and "no labels" in refused.stderr
    refused = run("la_tf.analyze", f"--model_dir={tmp_path / 'run'}", "--figure=neighbors")
    assert refused.returncode == 1 and "--figure=neighbors" in refused.stderr and "no labels" in refused.stderr


def test_what_is_missing_for_a_score_is_said(tmp_path):
    make_set(tmp_path / "set", 24)
    experiment = experiment_of(tmp_path / "set", tmp_path / "run")
    assert experiment.no_test_score is None and experiment.warnings == []
    experiment.dataset.test.labels[:] = -1
    assert "the test split" in experiment.no_test_score and "has no labels" in experiment.no_test_score
    experiment.dataset.test = None
    assert "has no test split" in experiment.no_test_score
    experiment.train.labels[:] = -1
    assert "the train split" in experiment.no_test_score and "has no labels" in experiment.no_test_score


def test_of_a_mixed_set_the_labelled_rows_are_what_is_scored(tmp_path):
    make_set(tmp_path / "set", 24)
    experiment = experiment_of(tmp_path / "set", tmp_path / "run")
    experiment.train.labels[::3] = -1  # 8 of 24
    assert experiment.no_test_score is None and len(experiment.eval_specs()) == 1
    assert len(experiment.validation_rows) == 2 and (experiment.train.labels[experiment.validation_rows] >= 0).all()


@pytest.mark.parametrize(
    "text",
    ["a,b\nc,d\n", "split,index,name,reason\ntrain,x,a.jpg,is gone\n", "split,index,name\ntrain,1,a\n", "a\0\n1\r2"],
)
def test_a_damaged_list_is_named_with_the_remedy(tmp_path, text):
    (tmp_path / bad_images.FILE).write_bytes(text.encode())
    with pytest.raises(UserError, match=r"bad_images\.csv: is damaged .*; remove it"):
        bad_images.read(tmp_path / bad_images.FILE)
