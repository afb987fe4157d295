"""The one-folder export: what serving, evaluation, search and detection all take as `--export`.

saved_model.pb, variables/   signatures `embed` (the default) and `features`, float images [B, H, W, 3] in [0, 1]
backbone.weights.h5          every weight of the embedder under its own name
backbone.json                architecture, endpoints, strides, freeze groups, preprocessing, step, versions
self_check.npz               a picture, and what the network makes of it
"""

import json
import os
import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf

from data.errors import UserError
from models.backbone import backbone_from_architecture
from models.precision import computing_in_float32

FORMAT = 1
WEIGHTS = "backbone.weights.h5"
TOLERANCE = 1e-4  # of the self-check, relative to the largest activation: kernels differ between machines


def write(folder, embedder, step, **facts):
    """Writes the export of `embedder` to `folder`, whole or not at all; returns the folder.

    It computes in float32 whatever the precision of `embedder`. facts (JSON-able) are added to backbone.json. Raises
    FileExistsError when the folder is there.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with computing_in_float32(embedder):
        signatures, checked = _signatures(embedder), self_check(embedder)
    tf.saved_model.save(serving_module(embedder), str(temporary), signatures=signatures)
    with h5py.File(temporary / WEIGHTS, "w") as file:
        for weight in embedder.weights:
            file.create_dataset(weight.path, data=weight.numpy())
    (temporary / "backbone.json").write_text(json.dumps(describe(embedder, step, **facts), indent=1) + "\n")
    np.savez(temporary / "self_check.npz", **checked)
    os.rename(temporary, folder)
    return folder


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


def _signatures(embedder):
    """Returns the SavedModel signatures; traced once an embedder, for exports can come every epoch."""
    if not hasattr(embedder, "serving_signatures"):
        images = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")
        embed = tf.function(lambda images: {"embedding": embedder(images, training=False)}, [images])
        features = tf.function(lambda images: embedder.backbone.model(images, training=False), [images])
        embedder.serving_signatures = {
            "serving_default": embed.get_concrete_function(),
            "embed": embed.get_concrete_function(),
            "features": features.get_concrete_function(),
        }
    return embedder.serving_signatures


def self_check(embedder):
    """Returns a picture `[1, S, S, 3]` of fixed noise, the backbone's last endpoint by its name, and its embedding."""
    backbone = embedder.backbone
    size = backbone.preprocessing.image_size
    picture = np.random.default_rng(0).random((1, size, size, 3), dtype=np.float32)
    return {
        "picture": picture,
        backbone.last: backbone.model(picture, training=False)[backbone.last].numpy(),
        "embedding": embedder(picture, training=False).numpy(),
    }


def read_description(folder):
    """Returns backbone.json of an export; raises UserError when the folder is no export."""
    path = Path(folder) / "backbone.json"
    try:
        description = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"--export={folder}: no export (it has no backbone.json); make one by la_tf.export") from None
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); export again") from None
    if description.get("format") != FORMAT:
        raise UserError(f"{path}: is format {description.get('format')}, this version reads {FORMAT}")
    return description


def load_backbone(folder, **expected):
    """Returns the exported `models.Backbone` with its weights, after its self-check.

    expected are entries of the architecture that the caller counts on (name="resnet50", ...). Raises UserError
    naming both sides when the export is another one, its weights do not fit, or the self-check fails.
    """
    architecture = read_description(folder).get("architecture", {})
    for key, wanted in expected.items():
        if architecture.get(key) != wanted:
            raise UserError(f"--export={folder}: {key} is {architecture.get(key)!r} there, {wanted!r} wanted here")
    try:
        backbone = backbone_from_architecture(architecture)
        load_weights(backbone.model, folder)
        check(backbone, folder)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"--export={folder}: a file is missing or damaged ({error!r}); export again") from None
    return backbone


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


def check_serving(folder):
    """Runs the stored picture through the SavedModel; raises UserError when the embedding is not what was stored."""
    signature = tf.saved_model.load(str(folder)).signatures["embed"]
    with np.load(Path(folder) / "self_check.npz", allow_pickle=False) as stored:
        found, wanted = signature(images=tf.constant(stored["picture"]))["embedding"].numpy(), stored["embedding"]
    if not np.abs(found - wanted).max() <= TOLERANCE:
        raise UserError(f"--export={folder}: the SavedModel's embedding is not the one that was stored; export again")


def check(backbone, folder):
    """Runs the stored picture through `backbone`; raises UserError when its last endpoint is not what was stored."""
    with np.load(Path(folder) / "self_check.npz", allow_pickle=False) as stored:
        found = backbone.model(stored["picture"], training=False)[backbone.last].numpy()
        wanted = stored[backbone.last]
    error = np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-12)
    if not error <= TOLERANCE:
        raise UserError(
            f"--export={folder}: the self-check failed, {backbone.last} is off by {error:.1e} of its largest value (at "
            f"most {TOLERANCE:.0e} is fine); the weights do not belong to this description, export again"
        )
