"""The one-folder export: what serving, evaluation, search and detection all take as `--export`.

saved_model.pb, variables/   signatures `embed` (the default), `embed_bytes`, `features`, `nearest`: see `serving.py`
backbone.weights.h5          every weight of the embedder under its own name
backbone.json                architecture, endpoints, strides, freeze groups, preprocessing, step, versions
self_check.npz               a picture, and what the network makes of it
model_card.json, .md         all of this for people: data, method, metrics, preprocessing, limits (`model_card.py`)
"""

import json
import os
import shutil
import zipfile
import zlib
from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf

from data import augment, encoded
from data.errors import UserError
from data.stored_arrays import open_npz
from la_tf import model_card, model_dir
from la_tf.export_description import FORMAT, read_description
from la_tf.nearest_rows import nearest_rows
from la_tf.serving import NearestRows, picture_functions
from models.backbone import backbone_from_architecture
from models.precision import computing_in_float32

WEIGHTS = "backbone.weights.h5"
TOLERANCE = 1e-4  # of the self-check, relative to the largest activation: kernels differ between machines
CHECKED = 10  # neighbours
# What h5py, NumPy and TensorFlow raise on files that are cut short, altered or somebody else's.
DAMAGE = (
    OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, IndexError, zipfile.BadZipFile,
    zlib.error, tf.errors.OpError,
)  # fmt: skip
# Signature -> what the self-check asks it, and where its answer is stored. Older exports have the first alone.
QUESTIONS = {
    "embed": ("embedding", lambda stored: {"images": stored["picture"]}),
    "embed_bytes": ("embedding_of_bytes", lambda stored: {"image_bytes": [stored["image_bytes"].tobytes()]}),
    "nearest": ("similarities", lambda stored: {"embedding": stored["embedding"], "neighbors": CHECKED}),
}


def write(folder, embedder, step, *, view=None, bank="none was given", data=None, licence=None, **facts):
    """Writes the export of `embedder` to `folder`, whole or not at all; returns the folder.

    It computes in float32 whatever the precision of `embedder`. view: the `data.encoded.View` in which encoded pictures
    are seen; None: that of photographs. bank: a `serving.Bank`, or why there is none, in words. data, a
    `data.manifest.summary`, and licence, that of the weights in words, are for the model card. facts (JSON-able) are
    added to backbone.json. Raises FileExistsError when the folder is there.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        _write(temporary, embedder, step, view, bank, data, licence, facts)
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _write(folder, embedder, step, view, bank, data, licence, facts):
    view = view or encoded.View(embedder.backbone.preprocessing.image_size)
    with computing_in_float32(embedder):
        signatures, checked = dict(_signatures(embedder, view)), self_check(embedder, view)
    module = serving_module(embedder)
    if isinstance(bank, str):
        of_bank = model_card.no_bank(bank)
    elif not bank.written.any():
        of_bank = model_card.no_bank("none of its rows is written yet")
    else:
        module.bank = NearestRows(bank)
        signatures["nearest"] = module.bank.concrete_function()
        checked["similarities"], _ = nearest_rows(checked["embedding"], bank.rows, CHECKED, bank.written)
        config = facts.get("config", {})
        trained = config.get("bank_dtype", "float32"), config.get("method")
        of_bank = model_card.bank_facts(bank.written, bank.rows.shape[1], *trained)
    tf.saved_model.save(module, str(folder), signatures=signatures)
    with h5py.File(folder / WEIGHTS, "w") as file:
        for weight in embedder.weights:
            file.create_dataset(weight.path, data=weight.numpy())
    description = describe(embedder, step, view=view._asdict(), signatures=list(signatures), **facts)
    (folder / "backbone.json").write_text(json.dumps(description, indent=1) + "\n")
    np.savez(folder / "self_check.npz", **checked)
    model_card.write(folder, model_card.model_card(description, data, of_bank, licence))


def describe(embedder, step, **facts):
    """Returns the contents of backbone.json."""
    backbone = embedder.backbone
    return {
        "format": FORMAT,
        "architecture": backbone.architecture,
        "embedding_dim": embedder.output_shape[-1],
        "endpoints": list(backbone.strides),
        "strides": backbone.strides,
        "channels": backbone.channels,
        "freeze_groups": backbone.freeze_groups,
        "preprocessing": backbone.preprocessing.to_json(),
        "step": step,
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        **facts,
    }


def serving_module(embedder):
    """Returns the tf.Module that owns the weights in the SavedModel."""
    module = tf.Module()
    module.weights = [weight.value for weight in embedder.weights]
    return module


def _signatures(embedder, view):
    """Returns the SavedModel signatures for pictures; traced once an embedder, for exports can come every epoch."""
    if getattr(embedder, "serving_view", None) != view:
        embedder.serving_view, embedder.serving_signatures = view, picture_functions(embedder, view)
    return embedder.serving_signatures


def self_check(embedder, view):
    """Returns a picture `[1, S, S, 3]` of fixed noise, the backbone's last endpoint by its name, and its embedding.

    And `image_bytes`, a PNG file as uint8, with the embedding of what is seen of it in an `encoded.View`.
    """
    backbone = embedder.backbone
    size = backbone.preprocessing.image_size
    rng = np.random.default_rng(0)
    picture = rng.random((1, size, size, 3), dtype=np.float32)
    file = rng.integers(0, 256, (*encoded.unscaled_size(view), 3), np.uint8)
    seen = augment.evaluation_view(file[None], view.kind, size)  # without decoding, and as quick as an epoch wants it
    embedding, of_bytes = np.split(embedder(tf.concat([picture, seen], axis=0), training=False), 2)
    return {
        "picture": picture,
        backbone.last: backbone.model(picture, training=False)[backbone.last].numpy(),
        "embedding": embedding,
        "image_bytes": np.frombuffer(tf.io.encode_png(file).numpy(), np.uint8),
        "embedding_of_bytes": of_bytes,
    }


def view_of(description):
    """Returns the `data.encoded.View` in which an export sees encoded pictures, by its `read_description`."""
    stored = description.get("view")  # exports that are older than this entry saw any picture as a photograph
    if stored is None:
        before = description.get("preprocessing")
        size = before.get("image_size") if isinstance(before, dict) else None
        if not isinstance(size, int):
            raise UserError("the export does not say how large its pictures are (preprocessing); export again")
        return encoded.View(size)
    size = stored.get("common_size")
    return encoded.View(**stored | {"common_size": tuple(size) if size else None})


def load_backbone(folder, **expected):
    """Returns the exported `models.Backbone` with its weights, after its self-check.

    expected are entries of the architecture that the caller counts on (name="resnet50", ...). Raises UserError
    naming both sides when the export is another one, its weights do not fit, or the self-check fails.
    """
    architecture = read_description(folder)["architecture"]
    for key, wanted in expected.items():
        if architecture.get(key) != wanted:
            raise UserError(f"--export={folder}: {key} is {architecture.get(key)!r} there, {wanted!r} wanted here")
    try:
        backbone = backbone_from_architecture(architecture)
        load_weights(backbone.model, folder)
        check(backbone, folder)
    except DAMAGE as error:
        raise damaged(folder, error) from error
    return backbone


def load_serving(folder):
    """Returns the SavedModel of an export, loaded; raises UserError where it is damaged, or answers something else."""
    try:
        loaded = tf.saved_model.load(str(folder))
        check_serving(folder, loaded, ["embed"])
    except DAMAGE as error:
        raise damaged(folder, error) from error
    return loaded


def damaged(folder, error):
    """Returns the UserError that stands for one of `DAMAGE`."""
    return UserError(f"--export={folder}: a file is missing or damaged ({model_dir.reason(error)}); export again")


def load_weights(model, folder):
    """Sets every weight of `model` from backbone.weights.h5 by name; returns the names in the file that it lacks."""
    path = Path(folder) / WEIGHTS
    with h5py.File(path) as file:
        stored = _datasets(file)
        for weight in model.weights:
            shape = stored[weight.path].shape if weight.path in stored else None
            if shape != tuple(weight.shape):
                raise UserError(f"{path}: {weight.path} has shape {shape} there, {tuple(weight.shape)} here")
            weight.assign(stored[weight.path][()])
        return sorted(stored.keys() - {weight.path for weight in model.weights})


def weight_names(folder):
    """Returns the names of all weights that an export holds, those behind the backbone too."""
    with h5py.File(Path(folder) / WEIGHTS) as file:
        return sorted(_datasets(file))


def _datasets(file):
    found = {}
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    return found


def check_serving(folder, loaded=None, asked=tuple(QUESTIONS)):
    """Asks the SavedModel for what was stored; raises UserError naming a signature that answers something else.

    `loaded` is the SavedModel where it is loaded already; `asked` are the signatures that count.
    """
    loaded = tf.saved_model.load(str(folder)) if loaded is None else loaded
    with open_npz(Path(folder) / "self_check.npz") as stored:
        for name in asked:
            answer, question = QUESTIONS[name]
            if answer in stored.files:
                arguments = {key: tf.constant(value) for key, value in question(stored).items()}
                found = loaded.signatures[name](**arguments)["similarities" if name == "nearest" else "embedding"]
                if not np.abs(found - stored[answer]).max() <= TOLERANCE:
                    raise UserError(
                        f"--export={folder}: `{name}` of the SavedModel does not give what was stored; export again"
                    )


def check(backbone, folder):
    """Runs the stored picture through `backbone`; raises UserError when its last endpoint is not what was stored."""
    with open_npz(Path(folder) / "self_check.npz") as stored:
        found = backbone.model(stored["picture"], training=False)[backbone.last].numpy()
        wanted = stored[backbone.last]
    error = np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-12)
    if not error <= TOLERANCE:
        raise UserError(
            f"--export={folder}: the self-check failed, {backbone.last} is off by {error:.1e} of its largest value (at "
            f"most {TOLERANCE:.0e} is fine); the weights do not belong to this description, export again"
        )
