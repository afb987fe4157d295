"""An exported detector: it finds what an evaluation finds, elsewhere too, and says which picture it cannot read."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data import encoded as encoded_pictures
from data.errors import UserError
from detection import serving
from detection.config import DataOptions
from detection.input import evaluation_batches
from tests.data.pictures import encoded
from tests.data.strange_pictures import PICTURE, TURNED, bad, readable, saved
from tests.detection.small import small_detector
from tests.detection.small_run import CLASSES, SIZES, draw_outputs, small_run
from tests.programs import environment, run

NAMES = [*SIZES, "grey"]
NUMBERS = ("boxes_xyxy", "scores")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def made(folder):
    """A run's model, its Experiment."""
    return small_run(folder)


@pytest.fixture(scope="module")
def detect(made):
    """Encoded pictures -> what is found, as NumPy, by what is going to be exported."""
    model, experiment = made
    function = serving.detection_of(model, experiment.config.data, experiment.classes)
    return lambda pictures: {name: each.numpy() for name, each in function(tf.constant(pictures, tf.string)).items()}


@pytest.fixture(scope="module")
def pictures(made, folder):
    """The bytes of the pictures, by name."""
    return {name: (folder / "JPEGImages" / f"{name}.jpg").read_bytes() for name in NAMES}


@pytest.fixture(scope="module")
def evaluated(made):
    """What an evaluation finds in them, a `Found` each by name."""
    model, experiment = made
    batches = evaluation_batches(experiment.open("train"), experiment.config.data)
    return {name: model.detection(batch) for name, batch in zip(NAMES, batches, strict=True)}


def assert_as_evaluated(found, evaluated):
    """`found` holds NumPy arrays by name, of the pictures NAMES."""
    for place, name in enumerate(NAMES):
        wanted = evaluated[name]
        count = int(wanted.count[0])
        assert found["count"][place] == count > 5, name
        for key in (*NUMBERS, "labels"):
            np.testing.assert_allclose(found[key][place, :count], getattr(wanted, key)[0, :count], rtol=0, atol=1e-4)
            assert not found[key][place, count:].any(), "what lies beyond the count is no zero"
        named = [CLASSES[label - 1].encode() for label in wanted.labels[0, :count].numpy()]
        assert found["class_names"][place].tolist() == named + [b""] * (30 - count)


def test_it_finds_what_an_evaluation_finds_within_each_picture(detect, pictures, evaluated):
    found = detect([*pictures.values()])
    assert found["boxes_xyxy"].shape == (len(NAMES), 30, 4) and found["boxes_xyxy"].dtype == np.float32
    assert_as_evaluated(found, evaluated)
    for place, data in enumerate(pictures.values()):
        width, height = Image.open(io.BytesIO(data)).size
        left, top, right, bottom = found["boxes_xyxy"][place, : found["count"][place]].T
        assert (left >= 0).all() and (top >= 0).all()
        assert (right <= width - 1).all() and (bottom <= height - 1).all()
        assert (left <= right + 1).all() and (top <= bottom + 1).all()
    assert len({name for row in found["class_names"] for name in row if name}) > 1
    assert np.abs(found["scores"][0] - found["scores"][1]).max() > 0.01, "pictures make no difference"


def test_pictures_of_a_batch_do_not_see_each_other(detect, pictures):
    together = detect([*pictures.values()])
    for place, data in enumerate(pictures.values()):
        alone = detect([data])
        for name, values in together.items():
            np.testing.assert_array_equal(alone[name][0], values[place])


def test_a_batch_of_none_is_one(detect):
    found = detect([])
    assert {name: each.shape for name, each in found.items()} == {
        "boxes_xyxy": (0, 30, 4), "scores": (0, 30), "labels": (0, 30), "class_names": (0, 30), "count": (0,),
    }  # fmt: skip


def test_every_format_is_read(detect):
    files = {name: data for name, (data, _) in readable().items()}
    found = detect([*files.values()])
    assert (found["count"] > 0).all(), [*files]


def test_a_picture_that_exif_turns_is_seen_upright(detect):
    turned = saved(PICTURE, "jpeg", exif=TURNED)
    stored = tf.io.decode_jpeg(turned).numpy()  # which knows nothing of EXIF
    upright = encoded(np.ascontiguousarray(np.rot90(stored, -1)))
    found = detect([turned, upright, encoded(stored)])
    for values in found.values():
        np.testing.assert_array_equal(values[0], values[1])
    assert np.abs(found["boxes_xyxy"][0] - found["boxes_xyxy"][2]).max() > 1, "the turn makes no difference"


@pytest.mark.parametrize("name", bad())
def test_what_cannot_be_read_is_named_by_its_place_and_the_next_call_works(detect, pictures, name):
    broken = bad()[name][0]
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        detect([pictures["plain"], pictures["tiny"], broken, pictures["tall"], b""])
    assert f"image_bytes[2]: {encoded_pictures.UNREADABLE}" in raised.value.message
    assert detect([pictures["plain"]])["count"][0] > 0


def test_an_export_that_finds_something_else_is_not_kept(tmp_path, monkeypatch):
    detector, data = small_detector(), DataOptions(devkit="x", short_side=(96,))
    other = small_detector()
    draw_outputs(other, seed=1)
    monkeypatch.setattr(serving, "load", lambda folder: serving.detection_of(other, data, CLASSES))
    with pytest.raises(UserError, match="does not find what the run finds"):
        serving.write(tmp_path / "export", detector, data, {"classes": [*CLASSES]})
    assert [*tmp_path.iterdir()] == []


ELSEWHERE = """
import sys
import numpy as np
import tensorflow as tf

for ours in ("detection", "data", "models", "la_tf"):
    try:
        __import__(ours)
        raise SystemExit(f"{ours} is on the path: nothing is tested")
    except ModuleNotFoundError:
        pass
export, out, *files = sys.argv[1:]
detect = tf.saved_model.load(export).signatures["detect"]
pictures = [open(file, "rb").read() for file in files]
try:
    detect(image_bytes=tf.constant([*pictures[:3], pictures[0][:500], *pictures[3:]]))
    raise SystemExit("a broken picture was not noticed")
except tf.errors.InvalidArgumentError as error:
    print(error.message)
found = detect(image_bytes=tf.constant(pictures))
np.savez(out, **{name: each.numpy() for name, each in found.items() if name != "class_names"},
         class_names=found["class_names"].numpy().astype("S"))
"""


@pytest.mark.slow
def test_it_works_in_a_process_that_knows_nothing_of_us(made, folder, evaluated, tmp_path):
    exported = run("detection.export", f"--model_dir={folder / 'run'}")
    assert exported.returncode == 0, exported.stderr
    result = json.loads(exported.stdout.splitlines()[-1])
    export = folder / "run" / "export" / "manual" / os.path.basename(result["export"])
    assert result == {"export": str(export), "step": 0}
    described = json.loads((export / "detector.json").read_text())
    assert described["classes"] == [*CLASSES] and described["architecture"]["name"] == "resnet10"
    assert (described["short_side"], described["long_side"], described["step"]) == (96, 200, 0)
    assert described["detector"]["freeze_at"] == 2, "the options are not the resolved ones"

    files = [folder / "JPEGImages" / f"{name}.jpg" for name in NAMES]
    clean = {**environment(), "PYTHONPATH": ""}
    program = [sys.executable, "-c", ELSEWHERE, export, tmp_path / "found.npz", *files]
    process = subprocess.run([*map(str, program)], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stdout + process.stderr
    assert f"image_bytes[3]: {encoded_pictures.UNREADABLE}" in process.stdout
    with np.load(tmp_path / "found.npz") as found:
        assert_as_evaluated(found, evaluated)

    again = run("detection.export", f"--model_dir={folder / 'run'}", f"--out={export}")
    assert again.returncode == 1 and again.stderr == f"error: --out={export}: exists already; choose a new folder\n"


def test_the_run_has_to_be_named():
    failed = run("detection.export")
    assert failed.returncode == 2 and failed.stderr.startswith("error: --model_dir: ")
