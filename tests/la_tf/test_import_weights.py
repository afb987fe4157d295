"""Exports of weights that are not ours, made as a user makes them."""

import hashlib
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from la_tf import bundle, foreign
from tests import programs
from tests.models.authors import AuthorsResNet18, save_checkpoint

MAIN = "la_tf.import_weights"


def pictures(side):
    return np.random.default_rng(1).random((2, side, side, 3), np.float32)


def imported(source, weights, out):
    """Runs the main; returns its last line and the export's description."""
    run = programs.run(MAIN, f"--source={source}", f"--weights={weights}", f"--out={out}")
    assert run.returncode == 0, run.stderr
    result, description = json.loads(run.stdout.splitlines()[-1]), json.loads((out / "backbone.json").read_text())
    assert result["export"] == str(out) and result["source"] == source
    assert description["imported"] == {key: result[key] for key in ("source", "file", "sha256")}
    assert description["imported"]["file"] == weights.name
    assert "conv5" in run.stderr and "total" in run.stderr
    return run.stderr, description


@pytest.mark.slow
def test_the_authors_resnet18_becomes_an_export(tmp_path):
    authors = AuthorsResNet18(np.random.default_rng(0))
    path = save_checkpoint(tmp_path / "model.ckpt-7", authors.checkpoint())
    said, description = imported("authors_resnet18", path, tmp_path / "export")
    assert "not used: global_step, instance/all_labels, " in said
    assert (description["step"], description["embedding_dim"]) == (2_001_800, 128)
    files = [tmp_path / "model.ckpt-7.data-00000-of-00001", tmp_path / "model.ckpt-7.index"]
    assert (
        description["imported"]["sha256"] == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    )
    embeddings, taps = authors(pictures(64))
    backbone = bundle.load_backbone(tmp_path / "export", name="resnet18", width=64, resnet_version=2)
    found = backbone.model(pictures(64), training=False)["conv5"]
    np.testing.assert_allclose(found, taps[-1], atol=1e-4 * np.max(taps[-1]))
    served = foreign.open_saved_model(tmp_path / "export", "unit")  # which takes any SavedModel, this one too
    assert served.endpoints == ("embedding",)
    np.testing.assert_allclose(served.features(pictures(64))["embedding"], embeddings, atol=1e-4)
    maps = foreign.open_saved_model(tmp_path / "export", "unit", ("conv1", "conv5"), "features").features(pictures(64))
    np.testing.assert_allclose(maps["conv5"], taps[-1], atol=1e-4 * np.max(taps[-1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "build", "side", "last"),
    [
        ("keras_resnet50", keras.applications.ResNet50, 224, "conv5_block3_out"),
        ("keras_vgg16", keras.applications.VGG16, 32, "fc2"),
    ],
)
def test_a_network_of_keras_applications_becomes_an_export(source, build, side, last, tmp_path):
    keras.utils.set_random_seed(0)
    model = build(weights=None, include_top=True, input_shape=(side, side, 3), classes=2)
    path = tmp_path / "mine.weights.h5"
    model.save_weights(path)
    said, description = imported(source, path, tmp_path / "export")
    assert "not used: predictions/kernel, predictions/bias" in said
    assert description["imported"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    tapped = keras.Model(model.input, model.get_layer(last).output)
    features = tapped(keras.applications.imagenet_utils.preprocess_input(pictures(side) * 255, mode="caffe")).numpy()
    rows = features.mean(axis=(1, 2)) if features.ndim == 4 else features
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    served = tf.saved_model.load(str(tmp_path / "export")).signatures["embed"](images=tf.constant(pictures(side)))
    np.testing.assert_allclose(served["embedding"], rows, atol=1e-4)


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ([], 2, "--source: set it to one of keras_resnet50, keras_vgg16, authors_resnet18"),
        (["--source=torch"], 2, "--source=torch"),
        (["--source=keras_vgg16"], 2, "--weights: set it to the file"),
        (["--source=keras_vgg16", "--weights=x.h5"], 2, "--out: set it to the folder"),
        (["--source=keras_vgg16", "--weights=x.h5", "--out=la_tf"], 1, "--out=la_tf: exists already"),
        (["--source=keras_vgg16", "--weights=x.h5", "--out=nowhere"], 1, "--weights=x.h5: no such file"),
    ],
)
def test_what_is_wrong_with_the_flags_is_said_in_one_line(flags, code, message):
    run = programs.run(MAIN, *flags)
    assert (run.returncode, run.stdout) == (code, "")
    assert run.stderr.startswith("error: ") and message in run.stderr and run.stderr.count("\n") == 1
