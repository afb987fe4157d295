"""What is judged: a network behind one face, be it a run of ours, an export or somebody else's."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from la_tf import bundle, checkpoints, foreign, model_dir
from la_tf.digests import digest, digest_of_files
from la_tf.embedding import embedder_for
from la_tf.experiment import stored_config
from models.backbone import backbone_from_architecture
from models.preprocessing import Preprocessing

# Of an architecture, what a line of results says.
ARCHITECTURE = ("width", "resnet_version", "batch_norm", "sobel", "layout")


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained network: pictures are RGB `[B, H, W, 3]` in [0, 1], and nothing of it changes by being looked at.

    `facts`: JSON-able, what results say of it. `features`: pictures -> {endpoint: `[B, h, w, C]` or `[B, C]`}.
    `embed`: pictures -> unit rows `[B, D]`. `network`: whether with its weights or fresh ones -> a new keras.Model
    from pictures to its endpoints, for fine-tuning; None where there is none to be had. `bank`: `rows` `[N, D]` and
    `written` `[N]` of a run. `pictures`: the fingerprint of the train split that it was trained on, None if unknown.
    """

    facts: dict
    features: Callable
    embed: Callable
    preprocessing: Preprocessing
    network: Callable | None = None
    bank: tuple[np.ndarray, np.ndarray] | None = None
    pictures: str | None = None


def of_run(folder, step=None):
    """Returns the Subject of a run's checkpoint at `step` (None: the newest), its memory bank included."""
    return of_checkpoint(folder, checkpoints.chosen(folder, step))


def of_checkpoint(folder, checkpoint):
    """Returns the Subject of a `checkpoint` of the run in `folder`; raises `checkpoints.Gone`."""
    config = stored_config(folder)
    embedder = embedder_for(config)
    checkpoints.fill(embedder.weights, checkpoint)
    with checkpoints.read_arrays(checkpoint) as arrays:
        bank = arrays["memory_bank/rows"], arrays["memory_bank/written"]
    identity = model_dir.checked(Path(folder) / "config.json", model_dir.stored_identity(folder), data=str)
    facts = _facts(
        "run",
        checkpoints.read_state(checkpoint)["step"],
        identity,
        embedder.backbone.architecture,
        digest(weight.numpy().tobytes() for weight in embedder.weights),
    )
    # No part of a run's identity, but of what it came to: the cosine falls to 0 at the end of what was planned.
    facts |= {
        "warm_started": bool(config.run.warm_start),
        "planned": config.run.max_steps or f"{config.run.epochs} epochs",
    }
    return Subject(
        facts=facts,
        features=_frozen(embedder.backbone.model),
        embed=_frozen(embedder),
        preprocessing=embedder.backbone.preprocessing,
        network=_of_backbone(embedder.backbone),
        bank=bank,
        pictures=identity["data"],
    )


def of_export(folder):
    """Returns the Subject of an export, after its self-check."""
    description = bundle.read_description(folder)
    backbone = bundle.load_backbone(folder)
    serving = bundle.load_serving(folder)
    config = description.get("config") or {}
    weights = digest_of_files([Path(folder) / "backbone.weights.h5"])  # the embedding's too
    facts = _facts("export", description["step"], config, backbone.architecture, weights)
    if "imported" in description:
        facts["name"] = description["imported"]["source"]
    return Subject(
        facts=facts,
        features=_frozen(backbone.model),
        embed=lambda images: serving.signatures["embed"](images=images)["embedding"],
        preprocessing=backbone.preprocessing,
        network=_of_backbone(backbone),
        pictures=config.get("data"),
    )


def of_foreign(chosen, image_size=None):
    """Returns the Subject of a network that is not ours, by a `SubjectConfig`; `image_size` is that of pictures, px."""
    if chosen.keras_model:
        path = chosen.keras_model
        opened = foreign.open_keras(path, chosen.input_pixels, chosen.endpoints, image_size)
        weights = digest_of_files([path])
    else:
        path = chosen.saved_model
        opened = foreign.open_saved_model(path, chosen.input_pixels, chosen.endpoints, chosen.signature, image_size)
        weights = digest_of_files([Path(path) / "saved_model.pb", *sorted(Path(path).glob("variables/*"))])
    return Subject(
        facts={
            "kind": "keras" if chosen.keras_model else "saved_model",
            "name": Path(path).name,
            "signature": chosen.signature if chosen.saved_model else None,
            "input_pixels": chosen.input_pixels,
            "endpoints": list(opened.endpoints),
            "weights": weights,
        },
        features=opened.features,
        embed=tf.function(opened.embed, reduce_retracing=True),
        preprocessing=opened.preprocessing,
        network=None if opened.model is None else _of_keras(opened),
    )


def _facts(kind, step, config, architecture, weights):
    """What results say of a network of ours; `config` is a run's identity, empty where there was no run."""
    return {
        "kind": kind,
        "method": config.get("method"),
        "backbone": architecture["name"],
        **{name: architecture[name] for name in ARCHITECTURE},
        "image_size": architecture["preprocessing"]["image_size"],
        "seed": config.get("seed"),
        "step": step,
        "weights": weights,
        "config": config,
    }


def _frozen(model):
    return tf.function(lambda images: model(images, training=False), reduce_retracing=True)


def _of_backbone(backbone):
    def network(pretrained):
        model = backbone_from_architecture(backbone.architecture).model
        if pretrained:
            model.set_weights(backbone.model.get_weights())
        return keras.Model(model.inputs, model.output[backbone.last])

    return network


def _of_keras(opened):
    def network(pretrained):
        model = keras.models.clone_model(opened.model)
        for trainable in (False, True):  # whatever was frozen when it was saved; Keras stops where nothing changes
            model.trainable = trainable
        if pretrained:
            model.set_weights(opened.model.get_weights())
        return keras.Model(model.inputs, model.output[opened.endpoints[-1]])

    return network
