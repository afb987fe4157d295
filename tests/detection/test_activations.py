"""detection.activations as a user runs it, and where it finds the pictures of the pretraining by itself."""

import json

import pytest

from data.errors import UserError
from detection.pretraining_data import options_of_run, pretraining_set
from tests.data.pictures import write_folder
from tests.data.voc_folders import some_pictures, write_devkit
from tests.programs import run

IDENTITY = {"method": "la", "backbone": "resnet10", "seed": 0}
OPTIONS = {"dataset": "digits", "tfds_data_dir": None, "tfds_split": "train", "image_root": None, "first_label": 1}


@pytest.fixture
def pretrained(tmp_path):
    """The folder of a run on the digits."""
    folder = tmp_path / "run"
    folder.mkdir()
    stored = {"identity": IDENTITY, "circumstances": {**OPTIONS, "workers": 3, "model_dir": str(folder)}}
    (folder / "config.json").write_text(json.dumps(stored))
    return folder


# -- the pictures of the pretraining ----------------------------------------------------------------------------------


@pytest.mark.parametrize("export", ["e", "export/latest/170", "detection/exports/step-00000007"])
def test_an_export_within_its_run_is_of_the_runs_pictures(pretrained, export):
    assert options_of_run(str(pretrained / export), IDENTITY) == OPTIONS
    assert pretraining_set(str(pretrained / export), IDENTITY, None, None).spec == "digits"


def test_an_export_within_another_run_is_not(pretrained, capsys):
    """One that was copied there, or that lies in the folder of a detector."""
    export = str(pretrained / "export" / "final" / "170")
    assert options_of_run(export, {**IDENTITY, "seed": 1}) is None
    assert options_of_run(export, {}) is None  # imported: nobody knows
    assert options_of_run(str(pretrained / "a" / "b" / "c" / "export"), IDENTITY) is None  # too far below
    assert pretraining_set(export, {}, None, None) is None
    assert capsys.readouterr().err.startswith(
        "note: no run around the export says what it has learned from; --pretrain"
    )


def test_the_nearest_run_of_that_config_is_taken(pretrained):
    """A detector's run may lie between the export and the run that it comes from."""
    between = pretrained / "detection"
    between.mkdir()
    (between / "config.json").write_text(json.dumps({"identity": {"classes": []}, "circumstances": {"devkit": "d"}}))
    assert options_of_run(str(between / "export"), IDENTITY) == OPTIONS


def test_pictures_that_are_gone_are_no_reason_to_stop(pretrained, tmp_path, capsys):
    stored = json.loads((pretrained / "config.json").read_text())
    stored["circumstances"]["dataset"] = f"folder:{tmp_path}/gone"
    (pretrained / "config.json").write_text(json.dumps(stored))
    assert pretraining_set(str(pretrained / "export"), IDENTITY, None, None) is None
    said = capsys.readouterr().err
    assert said.startswith(f"note: the run's --dataset=folder:{tmp_path}/gone: there is no folder")
    assert "; --pretrain_data=folder:PATH, for one" in said
    (pretrained / "config.json").write_text("{")
    assert pretraining_set(str(pretrained / "export"), IDENTITY, None, None) is None
    assert f"note: {pretrained}/config.json: is damaged (" in capsys.readouterr().err


def test_what_is_named_has_to_be_there(pretrained, tmp_path):
    with pytest.raises(UserError, match=r"^--pretrain_data=folder:.*there is no folder") as refused:
        pretraining_set(str(pretrained / "export"), IDENTITY, f"folder:{tmp_path}/gone", None)
    assert refused.value.exit_code == 1
    with pytest.raises(UserError, match=r"^--pretrain_data=fodler:x: unknown data set") as refused:
        pretraining_set(str(pretrained / "export"), IDENTITY, "fodler:x", None)
    assert refused.value.exit_code == 2
    found = pretraining_set(str(pretrained / "export"), IDENTITY, f"folder:{write_folder(tmp_path / 'p')}", None)
    assert found.spec == f"folder:{tmp_path}/p"  # above what the run says


# -- the main ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--devkit=x",), "--export: give the folder of an export"),
        (("--devkit=x", "--export=e", "--pictures=0"), "--pictures=0: must be at least 1"),
        (("--export=e",), "--devkit: say where the pictures are"),
    ],
)
def test_bad_flags_are_named_at_once(given, said):
    failed = run("detection.activations", *given)
    assert failed.returncode == 2 and failed.stderr.splitlines()[-1].startswith(f"error: {said}")


@pytest.mark.slow
def test_a_backbone_on_both_sets_of_pictures(tmp_path):
    from la_tf import bundle
    from la_tf.embedding import build_embedder
    from tests.detection.small import small_backbone

    backbone = small_backbone()
    bundle.write(tmp_path / "export", build_embedder(backbone, 16), step=7, config=IDENTITY)
    write_devkit(tmp_path, {"train": some_pictures(4, size=(72, 96))}, size=(72, 96))
    spec = f"folder:{write_folder(tmp_path / 'pretraining', size=(80, 70))}"  # of 6 pictures
    own = f"--export={tmp_path / 'export'}", f"--devkit={tmp_path}", "--train_set=train", "--short_side=96"
    finished = run("detection.activations", *own, f"--pretrain_data={spec}", "--pictures=3", "--batch_size=2")
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout.splitlines()[-1])
    kinds = {"detection", "pretraining"}
    assert (found["train_set"], found["pretrain_data"]) == ("train", spec)
    assert found["pictures"] == {kind: 3 for kind in kinds}
    assert found["stages"].keys() == found["norms"].keys() == found["drift"].keys() == kinds
    norms = {weight.path.split("/")[0] for weight in backbone.model.weights if weight.name == "moving_mean"}
    for kind in kinds:
        assert [*found["stages"][kind]] == ["conv1", "conv2", "conv3", "conv4", "conv5"]
        assert {*found["norms"][kind]} == norms
        for name in ("shift", "ratio", "drift"):
            each = [one[name] for one in found["norms"][kind].values()]
            assert found["drift"][kind][name] == pytest.approx(sum(each) / len(each))
    # Its statistics are made up, so that nothing fits them; a batch of two has no statistics of its own.
    assert found["suggestion"] == "recalibrated"
    assert found["warning"] is None or found["warning"].startswith("conv4 has a deviation of")
    lines = finished.stderr.splitlines()
    assert f"--batch_norm=recalibrated: {found['reason']}" in lines
    assert sum(line.startswith("conv4 ") for line in lines) == 2

    failed = run("detection.activations", *own, "--pretrain_data=folder:/nowhere")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: --pretrain_data=folder:/nowhere: there is no folder")
    assert "Traceback" not in failed.stderr
