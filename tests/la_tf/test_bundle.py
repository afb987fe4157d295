"""The one-folder export: what is written can be loaded, serves without this project, and damage is noticed."""

import gc
import json
import shutil

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from data.encoded import UNREADABLE
from data.errors import UserError
from data.pipeline import evaluation_batches
from data.sources import open_dataset
from la_tf import bundle, model_card, subject
from la_tf.embedding import build_embedder
from la_tf.serving import Bank
from models.backbone import build_backbone
from models.preprocessing import Preprocessing
from tests.data.pictures import encoded, smooth

SIZE, D, N = 16, 8, 400


def shaken_embedder():
    """A small embedder none of whose weights, moving statistics included, is what a fresh one has."""
    keras.utils.set_random_seed(0)
    backbone = build_backbone("resnet10", 4, 2, "small", True, Preprocessing(image_size=SIZE))
    embedder = build_embedder(backbone, D)
    rng = np.random.default_rng(0)
    for weight in embedder.weights:
        weight.assign(weight.numpy() + 0.1 * rng.random(weight.shape))
    return embedder


@pytest.fixture(scope="module")
def embedder():
    return shaken_embedder()


@pytest.fixture(scope="module")
def bank():
    """Unit rows; every seventh was never written, and holds the very embedding that one might look for."""
    rows = np.random.default_rng(3).standard_normal((N, D)).astype(np.float32)
    written = np.arange(N) % 7 != 0
    rows[~written] = rows[1]
    return Bank(rows / np.linalg.norm(rows, axis=1, keepdims=True), written)


@pytest.fixture(scope="module")
def export(embedder, bank, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "7"
    return bundle.write(folder, embedder, step=7, bank=bank, metrics={"loss": 0.5})


@pytest.fixture
def copied(export, tmp_path):
    """An export of one's own to damage."""
    return shutil.copytree(export, tmp_path / "copy")


def test_exports_leave_nothing_behind_in_memory(embedder, bank, tmp_path):
    """A run writes one whenever it is better than ever before; its graphs are garbage that Python does collect."""

    def objects_after_an_export(number):
        bundle.write(tmp_path / str(number), embedder, step=number, bank=bank)
        gc.collect()
        return len(gc.get_objects())

    objects_after_an_export(0)  # traces what later ones share
    assert objects_after_an_export(1) + 100 > objects_after_an_export(2)  # of some 7,000


def pictures(count, height=SIZE, width=SIZE):
    return np.random.default_rng(1).random((count, height, width, 3), np.float32)


def weights_file(folder):
    return h5py.File(folder / "backbone.weights.h5", "r+")


def test_the_folder_holds_what_serving_and_fine_tuning_need(export, embedder):
    names = {path.name for path in export.iterdir()}
    assert names >= {"saved_model.pb", "variables", "backbone.weights.h5", "backbone.json", "self_check.npz"}
    found = json.loads((export / "backbone.json").read_text())
    assert (found["step"], found["embedding_dim"], found["metrics"]) == (7, D, {"loss": 0.5})
    assert found["endpoints"] == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert found["strides"] == {"conv1": 1, "conv2": 1, "conv3": 2, "conv4": 4, "conv5": 8}
    assert found["channels"] == {"conv1": 4, "conv2": 4, "conv3": 8, "conv4": 16, "conv5": 32}
    assert found["preprocessing"]["image_size"] == SIZE and found["versions"]["keras"] == keras.__version__
    layers = {layer.name for layer in embedder.backbone.model.layers if layer.weights}
    assert {name for group in found["freeze_groups"].values() for name in group} == layers


def test_a_loaded_backbone_computes_what_the_exported_one_did(export, embedder):
    backbone = bundle.load_backbone(export, name="resnet10", width=4)
    found, wanted = (model(pictures(2, 24, 20)) for model in (backbone.model, embedder.backbone.model))
    assert found.keys() == wanted.keys()
    for endpoint in wanted:
        np.testing.assert_allclose(found[endpoint], wanted[endpoint], rtol=1e-5, atol=1e-5, err_msg=endpoint)
    assert backbone.architecture == embedder.backbone.architecture


def test_every_weight_lies_in_the_file_under_its_name(export, embedder):
    with h5py.File(export / "backbone.weights.h5") as file:
        for weight in embedder.weights:
            np.testing.assert_array_equal(file[weight.path][()], weight.numpy())


def test_the_backbone_leaves_only_the_readout_unused(export):
    backbone = build_backbone("resnet10", 4, 2, "small", True, Preprocessing(image_size=SIZE))
    assert bundle.load_weights(backbone.model, export) == ["embedding/bias", "embedding/kernel"]


@pytest.mark.parametrize(
    ("expected", "there", "wanted"), [({"name": "resnet50"}, "resnet10", "resnet50"), ({"width": 64}, "4", "64")]
)
def test_another_architecture_than_expected_is_refused_with_both_sides(export, expected, there, wanted):
    with pytest.raises(UserError) as caught:
        bundle.load_backbone(export, **expected)
    message = str(caught.value)
    assert str(export) in message and there in message and wanted in message and next(iter(expected)) in message


def test_tampered_weights_fail_the_self_check(copied):
    with weights_file(copied) as file:
        file["conv1_conv/kernel"][0, 0, 0, 0] += 0.5
    with pytest.raises(UserError, match="self-check failed"):
        bundle.load_backbone(copied)


def test_weights_that_became_nan_fail_the_self_check(copied):
    with weights_file(copied) as file:
        file["conv1_conv/kernel"][0, 0, 0, 0] = np.nan
    with pytest.raises(UserError, match="self-check failed"):
        bundle.load_backbone(copied)


def test_a_missing_weight_is_named(copied):
    with weights_file(copied) as file:
        del file["conv3_unit1_conv1/kernel"]
    with pytest.raises(UserError, match=r"backbone\.weights\.h5: conv3_unit1_conv1/kernel"):
        bundle.load_backbone(copied)


def test_a_weight_of_another_shape_is_named_with_both_shapes(copied):
    with weights_file(copied) as file:
        del file["conv1_conv/kernel"]
        file["conv1_conv/kernel"] = np.zeros((7, 7, 3, 4), np.float32)
    with pytest.raises(UserError, match=r"conv1_conv/kernel has shape \(7, 7, 3, 4\) there, \(3, 3, 3, 4\) here"):
        bundle.load_backbone(copied)


@pytest.mark.parametrize("name", ["backbone.json", "backbone.weights.h5", "self_check.npz"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_file_that_is_gone_or_cut_short_is_said_in_one_line(copied, name, damage):
    path = copied / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=str(copied)) as caught:
        bundle.load_backbone(copied)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_export_is_said(tmp_path):
    with pytest.raises(UserError, match="no export"):
        bundle.load_backbone(tmp_path)


def test_a_later_format_is_refused(copied):
    description = json.loads((copied / "backbone.json").read_text())
    (copied / "backbone.json").write_text(json.dumps({**description, "format": 99}))
    with pytest.raises(UserError, match="format 99"):
        bundle.load_backbone(copied)


@pytest.fixture(scope="module")
def served(export):
    return tf.saved_model.load(str(export))


@pytest.mark.parametrize("shape", [(1, SIZE, SIZE), (3, SIZE, SIZE), (2, 24, 20)])
def test_plain_tensorflow_serves_the_same_numbers_for_any_batch_and_size(served, embedder, shape):
    images = tf.constant(pictures(*shape))
    wanted = embedder(images, training=False)
    for signature in ("embed", "serving_default"):
        found = served.signatures[signature](images=images)["embedding"]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-5)
    features = served.signatures["features"](images=images)
    for endpoint, wanted in embedder.backbone.model(images, training=False).items():
        np.testing.assert_allclose(features[endpoint], wanted, rtol=1e-5, atol=1e-5, err_msg=endpoint)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A data set of encoded pictures of many sizes, its split and their bytes."""
    folder = tmp_path_factory.mktemp("pictures") / "only"
    folder.mkdir()
    for i, (height, width) in enumerate([(40, 60), (16, 16), (200, 90)]):
        (folder / f"{i}.jpg").write_bytes(encoded(smooth(i, height, width), "jpeg"))
    (folder / "3.jpg").write_bytes(encoded(smooth(3, 50, 31)[..., 0], "jpeg"))
    (folder / "4.png").write_bytes(encoded(smooth(4, 33, 64)))
    split = open_dataset(f"folder:{folder.parent}").train
    return split, [split.source.read(row) for row in range(split.size)]


def test_encoded_pictures_are_embedded_as_in_evaluation(served, embedder, files):
    split, pictures = files
    (batch,) = evaluation_batches(split, SIZE, 5)
    wanted = embedder(batch["image"], training=False)
    found = served.signatures["embed_bytes"](image_bytes=tf.constant(pictures))["embedding"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3, "pictures make no difference"
    alone = served.signatures["embed_bytes"](image_bytes=tf.constant(pictures[2:3]))["embedding"]
    np.testing.assert_allclose(alone[0], wanted[2], rtol=0, atol=1e-5)
    none = served.signatures["embed_bytes"](image_bytes=tf.constant([], tf.string))["embedding"]
    assert none.shape == (0, D)
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        served.signatures["embed_bytes"](image_bytes=tf.constant([*pictures[:3], pictures[0][:200], b""]))
    assert f"image_bytes[3]: {UNREADABLE}" in raised.value.message


def test_the_nearest_written_rows_are_served(served, bank):
    queries = bank.rows[[1, 5]]
    similarity = np.where(bank.written, queries.astype(np.float64) @ bank.rows.T.astype(np.float64), -np.inf)
    wanted = np.argsort(-similarity, axis=1, kind="stable")[:, :6]
    found = served.signatures["nearest"](embedding=tf.constant(queries), neighbors=tf.constant(6))
    np.testing.assert_array_equal(found["indices"], wanted)
    np.testing.assert_allclose(found["similarities"], np.take_along_axis(similarity, wanted, 1), rtol=0, atol=1e-6)
    assert found["indices"].numpy()[0, 0] == 1, "a row that was never written has been found"
    every = served.signatures["nearest"](embedding=tf.constant(queries), neighbors=tf.constant(10 * N))
    assert every["indices"].shape == (2, bank.written.sum())


def test_the_card_says_what_the_saved_model_takes_and_gives(served, export):
    card, description = (json.loads((export / name).read_text()) for name in ("model_card.json", "backbone.json"))
    assert {*card["signatures"]} | {"serving_default"} == {*served.signatures} == {*description["signatures"]}
    for name, said in card["signatures"].items():
        function = served.signatures[name]
        takes, gives = function.structured_input_signature[1], function.structured_outputs
        for texts, specs in ((said["takes"], takes), (said["gives"], gives)):
            assert texts.keys() == specs.keys()
            for key, text in texts.items():
                assert text.startswith(specs[key].dtype.name), f"{name}: {key}"
                shape = text[text.find("[") + 1 : text.find("]")].split(", ") if specs[key].shape.rank else []
                assert [int(side) if side.isdigit() else None for side in shape] == specs[key].shape.as_list()
    assert (export / "model_card.md").read_text() == model_card.markdown(card)
    assert card["bank"]["rows"] == sum(i % 7 != 0 for i in range(N)) and card["bank"]["of"] == N


def test_the_bank_is_stored_once(export, embedder, tmp_path):
    def stored(folder):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    rows = Bank(np.eye(D, dtype=np.float32).repeat(4000, axis=0), np.ones(4000 * D, bool))
    plain, large = bundle.write(tmp_path / "1", embedder, 1), bundle.write(tmp_path / "2", embedder, 1, bank=rows)
    of_bank = 4000 * D * (4 * D + 8)
    assert of_bank < stored(large) - stored(plain) < of_bank + 100_000


@pytest.mark.parametrize("bank", ["left out to be small", Bank(np.eye(D, dtype=np.float32), np.zeros(D, bool))])
def test_without_a_bank_there_is_no_such_signature_and_the_card_says_why(embedder, tmp_path, bank):
    folder = bundle.write(tmp_path / "1", embedder, 1, bank=bank)
    assert "nearest" not in tf.saved_model.load(str(folder)).signatures
    card = json.loads((folder / "model_card.json").read_text())
    why = bank if isinstance(bank, str) else "none of its rows is written yet"
    assert card["bank"] == {"included": False, "why": why} and "nearest" not in card["signatures"]
    assert why in (folder / "model_card.md").read_text()
    bundle.check_serving(folder)


@pytest.mark.parametrize("answer", ["embedding", "embedding_of_bytes", "similarities"])
def test_a_saved_model_that_answers_something_else_is_refused(copied, answer):
    bundle.check_serving(copied)
    with np.load(copied / "self_check.npz") as stored:
        content = dict(stored)
    content[answer] = content[answer] + np.float32(1e-3)
    np.savez(copied / "self_check.npz", **content)
    name = {"embedding": "embed", "embedding_of_bytes": "embed_bytes", "similarities": "nearest"}[answer]
    with pytest.raises(UserError, match=f"`{name}` of the SavedModel"):
        bundle.check_serving(copied)


def test_an_export_from_before_these_signatures_is_still_one(copied, embedder):
    description = json.loads((copied / "backbone.json").read_text())
    older = {key: value for key, value in description.items() if key not in ("view", "signatures")}
    (copied / "backbone.json").write_text(json.dumps(older))
    with np.load(copied / "self_check.npz") as stored:
        content = {key: stored[key] for key in ("picture", "conv5", "embedding")}
    np.savez(copied / "self_check.npz", **content)
    for name in ("model_card.json", "model_card.md"):
        (copied / name).unlink()
    bundle.check_serving(copied)
    images = pictures(2)
    judged = subject.of_export(copied)  # which loads the backbone, too
    np.testing.assert_allclose(judged.embed(images), embedder(images, training=False), rtol=0, atol=1e-5)


def test_what_is_served_does_not_depend_on_the_rest_of_the_batch(served):
    images = pictures(3)
    alone = served.signatures["embed"](images=tf.constant(images[:1]))["embedding"]
    together = served.signatures["embed"](images=tf.constant(images))["embedding"]
    np.testing.assert_allclose(alone[0], together[0], rtol=1e-5, atol=1e-6)


def test_a_second_export_holds_the_weights_of_its_own_moment(tmp_path):
    embedder = shaken_embedder()
    images = tf.constant(pictures(2))
    folders, wanted = [], []
    for step in (1, 2):
        wanted.append(embedder(images).numpy())
        folders.append(bundle.write(tmp_path / str(step), embedder, step))
        embedder.get_layer("embedding").kernel.assign_add(np.random.default_rng(step).random((32, D)))
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-2
    for folder, embeddings in zip(folders, wanted, strict=True):
        found = tf.saved_model.load(str(folder)).signatures["embed"](images=images)["embedding"]
        np.testing.assert_allclose(found, embeddings, rtol=1e-5, atol=1e-6)


def test_an_export_is_never_written_over_another(export, embedder):
    with pytest.raises(FileExistsError):
        bundle.write(export, embedder, step=8)


def test_a_writer_that_dies_leaves_no_export(tmp_path, embedder, monkeypatch):
    monkeypatch.setattr(bundle, "self_check", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bundle.write(tmp_path / "8", embedder, step=8)
    assert not (tmp_path / "8").exists()
