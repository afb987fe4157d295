"""Objects found in anybody's pictures: by a run or its export alike, drawn, written down, bad pictures named."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from data.errors import FlagError, UserError
from detection import prediction, serving
from detection.input import evaluation_batches
from detection.picture_files import check_apart, drawn_names, picture_files
from tests.data.strange_pictures import PICTURE, TURNED, bad, saved
from tests.detection.small_run import CLASSES, SIZES, small_run
from tests.programs import run

ODD = os.fsdecode(b"odd \xff\n$.jpg")  # neither UTF-8 nor on one line


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def made(folder):
    """A run's model, its Experiment.

    The folder holds the run, an export of it, `JPEGImages/` that can be read and `mixed/`, where some cannot.
    """
    model, experiment = small_run(folder)
    serving.write(folder / "exported", model, experiment.config.data, serving.describe(experiment, 0))
    mixed = folder / "mixed"
    mixed.mkdir()
    for name in ("cut.jpg", "empty.jpg", "text.jpg"):
        (mixed / name).write_bytes(bad()[name][0])
    (mixed / "turned.jpg").write_bytes(saved(PICTURE, "jpeg", exif=TURNED))
    (mixed / ODD).write_bytes(saved(PICTURE, "jpeg"))
    PICTURE.save(mixed / "turned.png")
    (mixed / "notes.txt").write_text("no picture, and not looked at")
    (mixed / ".hidden.jpg").write_bytes(b"")
    return model, experiment


def result_of(finished, code=0):
    assert finished.returncode == code, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def numbers_of(content):
    """Scores and corners of all objects, in order."""
    each = [(one["score"], *one["box_xyxy"]) for picture in content["pictures"] for one in picture["objects"]]
    return np.array(each)


@pytest.mark.slow
def test_a_run_and_its_export_write_the_same(made, folder, tmp_path):
    files = [folder / "JPEGImages", folder / "mixed" / "cut.jpg"]
    looks = {"--model_dir": folder / "run", "--export": folder / "exported"}
    contents = []
    for flag, where in looks.items():
        out = tmp_path / flag
        result = result_of(run("detection.predict", *files, f"{flag}={where}", f"--out={out}", "--least_score=0.4"))
        content = json.loads((out / "detections.json").read_text())
        drawn = sum(one["score"] >= 0.4 for picture in content["pictures"] for one in picture["objects"])
        assert 0 < drawn < len(numbers_of(content)), "all or nothing is drawn, so the threshold is not tested"
        assert result == {
            "out": str(out), flag[2:]: str(where), "step": 0, "pictures": 6, "bad": 1, "drawn_objects": drawn,
        }  # fmt: skip
        assert content.pop(flag[2:]) == str(where) and content["least_score"] == 0.4
        contents.append(content)
    assert {path.name for path in out.iterdir()} == {"detections.json", "grey.png", *(f"{name}.png" for name in SIZES)}
    by_run, by_export = contents
    np.testing.assert_allclose(numbers_of(by_run), numbers_of(by_export), rtol=0, atol=1e-4)
    for content in contents:
        for picture in content["pictures"]:
            picture["objects"] = [one["class"] for one in picture["objects"]]
    assert by_run == by_export
    assert by_run["classes"] == [*CLASSES] and by_run["boxes"] == serving.BOXES


def test_what_is_written_is_what_an_evaluation_finds(made, folder, tmp_path):
    model, experiment = made
    detector = prediction.of_run(folder / "run")
    files = [str(folder / "JPEGImages" / f"{name}.jpg") for name in SIZES]
    content = prediction.predict(detector, files, tmp_path)
    assert [picture["file"] for picture in content["pictures"]] == files
    batches = evaluation_batches(experiment.open("train"), experiment.config.data, rows=range(len(SIZES)))
    for picture, batch, size in zip(content["pictures"], batches, SIZES.values(), strict=True):
        found = model.detection(batch)
        count = int(found.count[0])
        assert (picture["height"], picture["width"]) == size and len(picture["objects"]) == count > 5
        wanted = np.concatenate([found.scores[0, :count, np.newaxis], found.boxes_xyxy[0, :count]], axis=1)
        np.testing.assert_allclose(numbers_of({"pictures": [picture]}), wanted, rtol=0, atol=1e-4)
        names = [CLASSES[label - 1] for label in found.labels[0, :count].numpy()]
        assert [one["class"] for one in picture["objects"]] == names
        scores = [one["score"] for one in picture["objects"]]
        assert scores == sorted(scores, reverse=True)


def test_bad_pictures_are_named_and_the_others_drawn(made, folder, tmp_path, capfd):
    detector = prediction.of_export(folder / "exported")
    files = [*picture_files([str(folder / "mixed")]), "/nowhere/gone.jpg"]
    content = prediction.predict(detector, files, tmp_path / "new" / "out", least_score=0.0)
    written = json.loads((tmp_path / "new" / "out" / "detections.json").read_text())
    assert written == json.loads(json.dumps(content))
    reasons = {os.path.basename(each["file"]): each["reason"] for each in written["bad"]}
    assert {*reasons} == {"cut.jpg", "empty.jpg", "text.jpg", "gone.jpg"}
    for name in ("cut.jpg", "empty.jpg", "text.jpg"):
        assert bad()[name][1] in reasons[name]
    assert reasons["gone.jpg"] == "cannot be read: No such file or directory"
    said = capfd.readouterr().err
    for each in written["bad"]:
        assert f"{each['file']}: {each['reason']}\n" in said
    drawn = {os.path.basename(each["file"]): each for each in written["pictures"]}
    assert {*drawn} == {"turned.jpg", "turned.png", ODD}
    assert (drawn["turned.jpg"]["height"], drawn["turned.jpg"]["width"]) == (60, 40)  # 40 x 60, turned by a quarter
    assert drawn["turned.jpg"]["drawn"] == "turned.png" and drawn["turned.png"]["drawn"] == "turned-2.png"
    for each in drawn.values():
        with Image.open(os.path.join(tmp_path, "new", "out", each["drawn"])) as picture:
            assert picture.height > picture.width if each["height"] > each["width"] else picture.height < picture.width


def test_only_the_sure_ones_are_drawn(made, folder, tmp_path):
    detector = prediction.of_export(folder / "exported")
    file = str(folder / "JPEGImages" / "large.jpg")
    drawn = {}
    for least_score in (0.0, 1.0):
        prediction.predict(detector, [file], tmp_path, least_score)
        drawn[least_score] = np.asarray(Image.open(tmp_path / "large.png")).astype(int)
    plain = np.asarray(Image.open(file).resize(drawn[1.0].shape[1::-1], Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(drawn[1.0] - plain).mean() < 5, "something is drawn, though nothing is certain"
    assert np.abs(drawn[0.0] - plain).mean() > 10, "nothing is drawn"


@pytest.mark.slow
def test_with_nothing_that_can_be_read_it_fails(made, folder, tmp_path):
    files = [folder / "mixed" / name for name in ("cut.jpg", "text.jpg")]
    failed = run("detection.predict", *files, f"--export={folder / 'exported'}", f"--out={tmp_path / 'out'}")
    result = result_of(failed, code=1)
    assert (result["pictures"], result["bad"]) == (0, 2)
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())["bad"]) == 2


def test_what_is_no_detector_is_named(made, folder, tmp_path):
    def said(make, *given):
        with pytest.raises(UserError) as refused:
            make(*given)
        return str(refused.value)

    assert said(prediction.of_export, folder / "backbone").startswith(f"--export={folder / 'backbone'}: no detector")
    assert said(prediction.of_run, tmp_path).startswith(f"--model_dir={tmp_path}: no run lives there")
    assert said(prediction.of_run, folder / "run", 9).startswith("--step=9: no such checkpoint")
    (tmp_path / "detector.json").write_bytes((folder / "exported" / "detector.json").read_bytes())
    assert said(prediction.of_export, tmp_path).startswith(f"--export={tmp_path}: a file is missing or damaged")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--model_dir=m", "--out=o"), "IMAGE: name the pictures to look at"),
        (("a.jpg", "--out=o"), "--model_dir, --export: give one of them"),
        (("a.jpg", "--out=o", "--model_dir=m", "--export=e"), "--model_dir, --export: give one of them"),
        (("a.jpg", "--model_dir=m"), "--out: say which folder"),
        (("a.jpg", "--export=e", "--out=o", "--step=3"), "--step=3: goes with --model_dir"),
        (("a.jpg", "--export=e", "--out=o", "--least_score=2"), "--least_score=2.0: must lie between 0 and 1"),
        (("a.jpg", "--export=e", "--out=."), "--out=.: holds pictures that are to be looked at"),
    ],
)
def test_bad_flags_are_named_at_once(given, said):
    failed = run("detection.predict", *given)
    assert failed.returncode == 2
    (line,) = failed.stderr.splitlines()
    assert line.startswith(f"error: {said}")


def test_a_folder_stands_for_its_pictures_by_name(tmp_path):
    for name in ("b.jpg", "a.PNG", "c.txt", ".d.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "e.jpg").mkdir()
    folder = str(tmp_path)
    wanted = ["z.jpg", os.path.join(folder, "a.PNG"), os.path.join(folder, "b.jpg"), os.path.join(folder, "c.txt")]
    assert picture_files(["z.jpg", folder, os.path.join(folder, "c.txt")]) == wanted
    with pytest.raises(FlagError, match="holds no pictures"):
        picture_files([os.path.join(folder, "e.jpg")])


def test_no_picture_is_drawn_over(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(FlagError, match="--out="):
        check_apart([str(tmp_path / "a.png")], str(tmp_path / "link"))
    check_apart([str(tmp_path / "a.png")], str(tmp_path / "new"))


def test_names_are_unique_and_not_too_long():
    files = ["x/a.jpg", "y/a.png", "a-2.jpg", "y/a.gif", "b.c.jpg", ".jpg", "é" * 120 + ".jpg"]
    assert drawn_names(files)[:6] == ["a.png", "a-2.png", "a-2-2.png", "a-3.png", "b.c.png", ".jpg.png"]
    assert len(os.fsencode(drawn_names(files)[6])) <= 255
