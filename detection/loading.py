"""A detector from an export: which of its weights come from there, which begin afresh, which learn."""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
from tabulate import tabulate

from data.errors import UserError
from la_tf import bundle
from models.backbone import Backbone


class Loaded(NamedTuple):
    """Names of weights: taken from the export, not there, and there but of no use to the detector."""

    loaded: list[str]
    missing: list[str]
    unused: list[str]


def load(folder: str, expected: dict) -> Backbone:
    """Returns the exported backbone after its self-check.

    expected: what the user counts on, by key of the architecture or of its preprocessing. Raises UserError naming both
    sides where the export is another.
    """
    there = bundle.read_description(folder)["architecture"].get("preprocessing", {})
    preprocessing = {key: expected[key] for key in expected.keys() & there.keys()}
    for key, wanted in preprocessing.items():
        if there[key] != wanted:
            raise UserError(f"--export={folder}: {key} is {there[key]!r} there, {wanted!r} wanted here")
    return bundle.load_backbone(folder, **{key: expected[key] for key in expected.keys() - preprocessing.keys()})


def compared(model: keras.Model, backbone: Backbone, folder: str) -> Loaded:
    """Returns which weights of a detector are those of the export."""
    own, there = ([weight.path for weight in of.weights] for of in (model, backbone.model))
    stored = bundle.weight_names(folder)
    missing = [path for path in own if path not in there and not _is_state(path)]
    return Loaded([path for path in own if path in there], missing, [path for path in stored if path not in own])


def _is_state(path):
    """Whether a variable counts something and is no weight."""
    return path.endswith("seed_generator_state")


def report(loaded: Loaded, folder: str) -> str:
    """Returns a few lines for people."""
    lines = [f"{folder}: {len(loaded.loaded)} weights taken over, self-check passed"]
    for title, paths in (("not there, begin afresh", loaded.missing), ("there, but not used", loaded.unused)):
        if paths:
            lines.append(f"  {title}: {', '.join(paths)}")
    return "\n".join(lines)


def stages(model: keras.Model) -> str:
    """Returns a table of the parameters of each stage, those that learn, and what its batch norms do."""
    found = {}
    for part in (model.trunk, model.head, model.rpn, model.roi_outputs):
        for layer in part.layers:
            if layer.weights:
                found.setdefault(layer.name.split("_")[0], []).append(layer)
    how = model.options.batch_norm
    rows = [(stage, *_counts(layers), _norms(layers, how)) for stage, layers in found.items()]
    total = [sum(row[column] for row in rows) for column in (1, 2)]
    header = ("stage", "parameters", "that learn", "batch norm")
    return tabulate([*rows, ("total", *total, "")], header, intfmt=",", tablefmt="simple", stralign="left")


def _counts(layers):
    weights = [weight for layer in layers for weight in layer.weights if not weight.name.startswith("moving_")]
    sizes = [(math.prod(weight.shape), weight.trainable) for weight in weights]
    return sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)


def _norms(layers, how):
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    if not norms:
        return ""
    learning = [layer for layer in norms if layer.trainable]
    if not learning:
        return how if how == "recalibrated" else "frozen"
    return "synchronised" if learning[0].synchronized else "of its batch"
