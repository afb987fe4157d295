"""An export of which a file is missing, cut short or somebody else's is named, whoever opens it."""

import json
import shutil

import numpy as np
import pytest

from data.errors import UserError
from la_tf import bundle, subject
from la_tf.export_description import read_description
from la_tf.export_embedder import ExportEmbedder
from tests.la_tf.small_export import small_embedder, write_export


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("whole") / "export", small_embedder())


@pytest.fixture
def export(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "export")
    return tmp_path / "export"


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scramble(path):
    path.write_bytes(np.random.default_rng(0).bytes(2000))


def remove(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


VARIABLES = ("variables/variables.index", "variables/variables.data-00000-of-00001")


@pytest.mark.parametrize("damage", [remove, empty, halve, scramble], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("file", ["saved_model.pb", "self_check.npz", *VARIABLES])
def test_who_embeds_names_the_export(export, file, damage):
    damage(export / file)
    with pytest.raises(UserError, match=rf"^--export={export}: a file is missing or damaged \(.+\); export again$"):
        ExportEmbedder(export)


@pytest.mark.parametrize("damage", [remove, empty, halve, scramble], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("file", ["backbone.weights.h5", "self_check.npz"])
def test_who_takes_the_weights_names_the_export(export, file, damage):
    damage(export / file)
    with pytest.raises(UserError, match=rf"^--export={export}: a file is missing or damaged \(.+\); export again$"):
        bundle.load_backbone(export)


def test_who_judges_names_a_model_that_answers_otherwise(export):
    with np.load(export / "self_check.npz") as stored:
        altered = dict(stored) | {"embedding": -stored["embedding"]}
    np.savez(export / "self_check.npz", **altered)
    with pytest.raises(
        UserError, match=rf"^--export={export}: `embed` of the SavedModel does not give what was stored"
    ):
        subject.of_export(export)


@pytest.mark.parametrize(
    ("keys", "value", "said"),
    [
        (["format"], 7, "is format 7, this version reads 1"),
        (["format"], "1", "is format '1', this version reads 1"),
        (["architecture"], None, r"is damaged \(architecture is no object\)"),
        (["architecture", "width"], "wide", r"is damaged \(width='wide': must be a whole number"),
        (["architecture", "name"], ["resnet"], r"is damaged \(name=\['resnet'\]: choose one of"),
        (["architecture", "preprocessing"], 3, r"is damaged \(preprocessing=3: must be an object"),
        (["architecture", "preprocessing", "mean"], "grey", r"is damaged \(mean='grey': must be three"),
        (["architecture", "colour"], 1, r"is damaged \(architecture: unknown key colour"),
        (["embedding_dim"], 8.5, r"is damaged \(embedding_dim is no whole number\)"),
        (["endpoints"], "conv5", r"is damaged \(endpoints is no list\)"),
        (["step"], True, r"is damaged \(step is no whole number\)"),
        (["view"], {"image_size": "16", "common_size": None}, r"is damaged \(image_size is no whole number\)"),
        (["view"], {"image_size": 16, "common_size": None, "of": 1}, r"is damaged \(view has an unknown of\)"),
        (["config"], [], r"is damaged \(config is no object\)"),
    ],
)
def test_an_entry_that_cannot_be_is_named(export, keys, value, said):
    path = export / "backbone.json"
    description = node = json.loads(path.read_text())
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    path.write_text(json.dumps(description))
    with pytest.raises(UserError, match=rf"^{path}: {said}"):
        read_description(export)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_description_that_is_none_is_named(export, content):
    (export / "backbone.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"^{export}/backbone\.json: is damaged \("):
        read_description(export)
