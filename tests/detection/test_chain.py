"""The chain of detection.run: what is run in which order, what selects, what is not done again, what lines say."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from data.errors import FlagError, UserError
from detection import record
from detection.chain import Chain, Wanted
from detection.config import DataOptions, DetectionConfig, DetectorOptions, OptimizerOptions, RunOptions
from la_tf import checkpoints, commands, results
from models.preprocessing import Preprocessing
from tests.data.voc_folders import some_pictures, write_devkit

ARCHITECTURE = {
    "name": "resnet50", "width": 64, "resnet_version": 2, "batch_norm": True, "sobel": False, "layout": "tensorflow",
    "stem": "imagenet", "preprocessing": Preprocessing(image_size=224).to_json(),
}  # fmt: skip
ENDPOINTS = ["conv1", "conv2", "conv3", "conv4", "conv5"]
VAL = {10: 0.2, 20: 0.6, 30: 0.5}  # mAP of each checkpoint


@pytest.fixture
def export(tmp_path):
    """What of an export the chain reads."""
    folder = tmp_path / "export"
    folder.mkdir()
    description = {
        "format": 1,
        "embedding_dim": 128,
        "architecture": ARCHITECTURE,
        "endpoints": ENDPOINTS,
        "step": 700,
        "config": {"method": "la", "seed": 5, "clusters": 30},
    }
    (folder / "backbone.json").write_text(json.dumps(description))
    (folder / "backbone.weights.h5").write_bytes(b"weights")
    return folder


@pytest.fixture
def devkit(tmp_path):
    sets = {name: some_pictures(count, seed=count) for name, count in (("train", 4), ("test", 3))}
    sets["val"] = {f"v{name}": objects for name, objects in some_pictures(2, seed=9).items()}
    sets["test"] = {f"t{name}": objects for name, objects in sets["test"].items()}
    sets["both"] = sets["val"] | dict(list(sets["test"].items())[:1])
    return write_devkit(tmp_path / "devkit", sets)


class Programs:
    """Stands for the other programs: notes what is run, and leaves what they would."""

    def __init__(self):
        self.calls, self.fail = [], None

    def __call__(self, main, *arguments):
        given = dict(argument.removeprefix("--").partition("=")[::2] for argument in arguments)
        self.calls.append((main, given))
        if self.fail == main:
            raise UserError(f"{main} failed")
        if main == "detection.train":
            for step, value in VAL.items():
                logs = {"val_ap50": value} if "val_set" in given else {"loss": 1.0}
                checkpoints.write(given["model_dir"], step, {"a": np.zeros(1)}, {"logs": logs}, keep=9)
        if main == "detection.evaluate":
            return self.scored(given)
        return {"main": main}

    def scored(self, given):
        step = int(given["step"])
        folder = checkpoints.path_of(given["model_dir"], step)
        path = folder.parents[1] / "results" / given["test_set"] / folder.name / "scores.json"
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        seed = int(folder.parents[1].name.removeprefix("seed-"))
        numbers = {"voc07_ap50": 0.5 + seed / 100, "voc07_ap": 0.2, "voc07_ap75": 0.1, "coco_ap": 0.3}
        return numbers | {"step": step, "ap50_by_class": {"cat": 0.5}, "set": given["test_set"]}

    def of(self, main):
        return [given for each, given in self.calls if each == main]


@pytest.fixture
def programs(monkeypatch):
    found = Programs()
    monkeypatch.setattr(commands, "run", found)
    return found


def config_of(devkit, **data):
    data = DataOptions(devkit=str(devkit), **{"train_set": "train", "val_set": "val"} | data)
    run = RunOptions(model_dir="of each seed", steps=30, eval_steps=10)
    return DetectionConfig(data, DetectorOptions(), OptimizerOptions(), run)


def with_run(config, **changes):
    return dataclasses.replace(config, run=dataclasses.replace(config.run, **changes))


def wanted(devkit, config=None, **changes):
    default = with_run(config_of(devkit, train_set="2007_trainval", val_set=None), steps=70_000, eval_steps=5000)
    standard = dataclasses.replace(default, detector=DetectorOptions(rois=128))
    config = config or dataclasses.replace(config_of(devkit), detector=standard.detector)
    given = {
        "config": config, "standard": standard, "default": default, "preset": "paper_la", "test_set": "test",
        "seeds": 2, "pretrain_data": None, "command": ("--steps=30",),
        "given": (f"--devkit={devkit}", "--train_set=train", "--val_set=val", "--steps=30"),
    }  # fmt: skip
    return Wanted(**{**given, **changes})


def chain(asked, export, tmp_path, name="step-700"):
    return Chain(asked, export, name, tmp_path / "out")


def test_each_seed_is_trained_selected_on_val_and_scored_once(devkit, export, tmp_path, programs):
    lines = chain(wanted(devkit), export, tmp_path).run()
    assert [main for main, _ in programs.calls] == [
        "detection.check", "detection.activations", *["detection.train", "detection.evaluate"] * 2,
    ]  # fmt: skip
    (check,) = programs.of("detection.check")
    assert check["sets"] == "train,val,test" and check["steps"] == "30"
    trained = programs.of("detection.train")
    assert [each["seed"] for each in trained] == ["3", "4"]
    assert {each["export"] for each in trained} == {str(export)}
    scored = programs.of("detection.evaluate")
    assert [(each["step"], each["test_set"]) for each in scored] == [("20", "test")] * 2
    assert [line["results"]["mAP"] for line in lines] == [0.53, 0.54]
    assert {line["results"]["val_ap50"] for line in lines} == {0.6}
    assert {line["selected_on"] for line in lines} == {"validation"}
    folder = chain(wanted(devkit), export, tmp_path).folder
    assert folder.name == f"step-700-{hashlib.sha256(b'weights').hexdigest()[:6]}"
    for path in (folder.parent / "check.json", folder / "activations.json"):
        assert json.loads(path.read_text())


def test_what_is_done_is_not_done_again_and_a_seed_more_is_added(devkit, export, tmp_path, programs):
    chain(wanted(devkit), export, tmp_path).run()
    before = (tmp_path / "out" / "results.jsonl").read_text()
    programs.calls.clear()
    chain(wanted(devkit), export, tmp_path).run()
    assert programs.calls == [] and (tmp_path / "out" / "results.jsonl").read_text() == before
    lines = chain(wanted(devkit, seeds=3), export, tmp_path).run()
    assert [main for main, _ in programs.calls] == ["detection.train", "detection.evaluate"]
    assert [line["settings"]["seed"] for line in lines] == [3, 4, 5]


def test_one_that_fails_is_gone_on_with(devkit, export, tmp_path, programs):
    programs.fail = "detection.evaluate"
    with pytest.raises(UserError):
        chain(wanted(devkit), export, tmp_path).run()
    programs.fail = None
    programs.calls.clear()
    chain(wanted(devkit), export, tmp_path).run()
    assert [main for main, _ in programs.calls] == ["detection.train", "detection.evaluate"] * 2


def test_the_line_of_all_seeds_has_mean_and_sample_deviation(devkit, export, tmp_path, programs):
    chain(wanted(devkit), export, tmp_path).run()
    *_, line = results.read([tmp_path / "out"])
    assert line["protocol"] == "detection_mean" and line["results"]["seeds"] == [3, 4]
    # 0.53 and 0.54: (0.005 ** 2 * 2 / 1) ** (1 / 2)
    assert line["results"]["mAP"] == pytest.approx({"mean": 0.535, "sd": 0.0070710678})
    assert record.mean_line([line | {"settings": {"seed": 1}, "results": {"mAP": 0.5}}])["results"]["mAP"] == {
        "mean": 0.5, "sd": None,
    }  # fmt: skip


def test_without_a_val_set_the_last_step_is_scored_and_nothing_selects(devkit, export, tmp_path, programs):
    asked = wanted(devkit, config_of(devkit, val_set=None), seeds=1, given=(f"--devkit={devkit}",))
    (line,) = chain(asked, export, tmp_path).run()
    assert programs.of("detection.evaluate")[0]["step"] == "30"
    assert line["selected_on"] == "nothing" and "val_ap50" not in line["results"]
    assert any("the last step of each seed is scored" in warning for warning in asked.warnings)


def test_a_val_set_with_test_pictures_is_told_as_selecting_on_test(devkit, export, tmp_path, programs):
    asked = wanted(devkit, config_of(devkit, val_set="both"), seeds=1)
    (line,) = chain(asked, export, tmp_path).run()
    assert line["selected_on"] == "test"
    assert any("--val_set=both: shares pictures with --test_set=test" in warning for warning in asked.warnings)


def test_test_pictures_that_are_learned_from_are_counted(devkit, export, tmp_path, programs):
    asked = wanted(devkit, seeds=1, test_set="train")
    (line,) = chain(asked, export, tmp_path).run()
    assert line["settings"]["learned_test_pictures"] == 4
    assert any("4 of its pictures are learned from" in warning for warning in asked.warnings)


def test_a_second_look_at_the_test_set_is_counted_and_told(devkit, export, tmp_path, programs, capsys):
    folder = chain(wanted(devkit), export, tmp_path).folder
    looked = folder / "seed-3" / "results" / "test" / "step-00000010,nms_iou=0.5"
    looked.mkdir(parents=True)
    (looked / "scores.json").write_text("{}")
    first, second = chain(wanted(devkit), export, tmp_path).run()
    assert (first["results"]["test_looks"], second["results"]["test_looks"]) == (2, 1)
    assert "seed-3: 2 checkpoints have been scored on the test set" in capsys.readouterr().err


def test_what_a_line_says(devkit, export, tmp_path, programs):
    line, _ = chain(wanted(devkit), export, tmp_path).run()
    subject = line["subject"]
    assert (subject["method"], subject["backbone"], subject["seed"], subject["step"]) == ("la", "resnet50", 5, 700)
    assert subject["config"] == {"method": "la", "seed": 5, "clusters": 30}
    settings = line["settings"]
    assert (settings["preset"], settings["steps"], settings["smoke"], settings["seed"]) == ("paper_la", 30, True, 3)
    assert line["dataset"]["train"] == 4 and line["dataset"]["test"] == 3 and line["dataset"]["own"] is None
    assert line["command"] == ["--steps=30"] and line["protocol"] == "detection" and line["split"] == "test"
    assert "rois" not in settings  # as the preset has it


@pytest.mark.parametrize(("steps", "batch_size", "smoke"), [(5833, 12, False), (70_000, 1, False), (5832, 12, True)])
def test_rounding_makes_no_smoke_run(devkit, steps, batch_size, smoke):
    """70,000 pictures are 5,833 batches of 12 and 4 pictures."""
    config = with_run(config_of(devkit, batch_size=batch_size), steps=steps)
    assert wanted(devkit, config).smoke == smoke


def test_the_random_control_has_no_pretraining_to_compare_with(devkit, export, tmp_path, programs):
    asked = wanted(devkit, with_run(config_of(devkit), initialization="random"), seeds=1)
    (line,) = chain(asked, export, tmp_path).run()
    assert programs.of("detection.activations") == []
    assert line["subject"]["method"] == "random" and "config" not in line["subject"]
    assert any("--batch_norm=local" in warning for warning in asked.warnings)


def test_supervised_weights_are_the_supervised_row(export):
    description = json.loads((export / "backbone.json").read_text())
    description |= {"config": {}, "imported": {"source": "keras_resnet50"}}
    (export / "backbone.json").write_text(json.dumps(description))
    facts = record.subject(export)
    assert (facts["method"], facts["name"]) == ("supervised", "keras_resnet50")


def test_settings_that_matter_have_folders_of_their_own(devkit, export, tmp_path):
    def id_of(*arguments, **changes):
        return chain(wanted(devkit, *arguments, **changes), export, tmp_path).id

    others = [
        id_of(config_of(devkit)), id_of(config_of(devkit, val_set=None)), id_of(config_of(devkit, train_set="val")),
        id_of(with_run(config_of(devkit), steps=31)), id_of(test_set="val"),
        id_of(with_run(config_of(devkit), initialization="random")),
    ]  # fmt: skip
    assert len({id_of(), *others}) == 7
    assert id_of() == id_of(seeds=9, given=(), command=())


def test_what_is_said_in_another_way_is_the_same_detector(devkit, export, tmp_path):
    """Frozen up to conv2 and regions of 7 positions are the defaults of this backbone."""
    plain, said = (
        chain(wanted(devkit, dataclasses.replace(config_of(devkit), detector=options)), export, tmp_path)
        for options in (DetectorOptions(), DetectorOptions(freeze_at="2", roi_side=7))
    )
    assert plain.id == said.id and plain.settings(3) == said.settings(3)


def test_what_the_backbone_cannot_do_is_told_with_the_preset(devkit, export, tmp_path):
    config = dataclasses.replace(config_of(devkit), detector=DetectorOptions(dropout=0.5))
    with pytest.raises(FlagError, match=r"--dropout=0.5: .* \(of --preset=paper_la\)$"):
        _ = chain(wanted(devkit, config), export, tmp_path).resolved


def test_activations_that_cannot_be_had_do_not_stop_it(devkit, export, tmp_path, programs, capsys):
    programs.fail = "detection.activations"
    lines = chain(wanted(devkit), export, tmp_path).run()
    assert len(lines) == 2 and "warning: the batch norms are not compared" in capsys.readouterr().err


def test_the_mean_is_over_all_seeds_that_there_are(devkit, export, tmp_path, programs):
    chain(wanted(devkit), export, tmp_path).run()
    chain(wanted(devkit, with_run(wanted(devkit).config, seed=7), seeds=1), export, tmp_path).run()
    means = [line for line in results.read([tmp_path / "out"]) if line["protocol"] == "detection_mean"]
    assert [line["results"]["seeds"] for line in means] == [[3, 4, 7]]


def test_lines_of_several_steps_make_a_curve(devkit, export, tmp_path, programs):
    def at(step, weights):
        description = json.loads((export / "backbone.json").read_text()) | {"step": step}
        (export / "backbone.json").write_text(json.dumps(description))
        (export / "backbone.weights.h5").write_bytes(weights)
        made = chain(wanted(devkit), export, tmp_path, name=f"step-{step}")
        made.run()
        return made

    at(900, b"later")
    chain_of_last = at(700, b"earlier")
    found = record.by_step(results.read([tmp_path / "out"]), chain_of_last.facts(None))
    assert {step: len(lines) for step, lines in found.items()} == {700: 2, 900: 2} and [*found] == [700, 900]
    assert len(programs.of("detection.check")) == 1  # whatever the backbone
