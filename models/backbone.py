"""Backbones by name: built from arguments or from a stored description (imports TensorFlow only to build)."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.preprocessing import Preprocessing, check_keys

if TYPE_CHECKING:
    import keras

# Name -> module; its `build(name, width, resnet_version, stem, batch_norm, preprocessing)` gives (model,
# strides).
BACKBONES = {
    "resnet10": "models.resnet",
    "resnet18": "models.resnet",
    "resnet34": "models.resnet",
    "resnet50": "models.resnet",
}
STEMS = ("imagenet", "small")
RESNET_VERSIONS = (1, 2)
ARCHITECTURE_KEYS = ("name", "width", "resnet_version", "stem", "batch_norm", "preprocessing")


@dataclass(frozen=True)
class Backbone:
    """A network with named endpoints and what else one needs to know to use it.

    `model`: RGB [B, H, W, 3] in [0, 1] -> {endpoint: [B, ceil(H / stride), ceil(W / stride), channels]}.
    `freeze_groups`: endpoint -> names of the layers with weights that lie between the endpoint before and
    this one; with the groups conv1..convN frozen, endpoint convN is a fixed function of the picture.
    `architecture`: the JSON-able arguments that `backbone_from_architecture` builds the same network from.
    """

    model: keras.Model
    strides: dict[str, int]
    channels: dict[str, int]
    freeze_groups: dict[str, list[str]]
    architecture: dict
    preprocessing: Preprocessing


def build_backbone(
    name: str = "resnet18",
    width: int = 64,
    resnet_version: int = 2,
    stem: str = "imagenet",
    batch_norm: bool = True,
    preprocessing: Preprocessing | None = None,
) -> Backbone:
    """A freshly initialised backbone (`keras.utils.set_random_seed` before it makes the weights repeatable).

    `width` is the number of channels of the stem, 64 in the standard networks; `stem` is "imagenet" (7x7
    stride 2, pooling) or "small" (3x3, no pooling); without `batch_norm` the convolutions have biases.
    `preprocessing=None` is ImageNet's at 224 px. Raises ValueError naming the argument.
    """
    preprocessing = preprocessing or Preprocessing()
    arguments = {
        "name": name,
        "width": width,
        "resnet_version": resnet_version,
        "stem": stem,
        "batch_norm": batch_norm,
    }
    check_architecture(**arguments)
    build = importlib.import_module(BACKBONES[name]).build
    model, strides = build(**arguments, preprocessing=preprocessing)
    return Backbone(
        model=model,
        strides=strides,
        channels={endpoint: model.output[endpoint].shape[-1] for endpoint in strides},
        freeze_groups={endpoint: _layers_of(model, endpoint) for endpoint in strides},
        architecture={**arguments, "preprocessing": preprocessing.to_json()},
        preprocessing=preprocessing,
    )


def check_architecture(name, width, resnet_version, stem, batch_norm) -> None:
    """Raises ValueError that names the first bad argument and the choices; builds nothing."""
    for argument, value, choices in (
        ("name", name, tuple(BACKBONES)),
        ("resnet_version", resnet_version, RESNET_VERSIONS),
        ("stem", stem, STEMS),
        ("batch_norm", batch_norm, (True, False)),
    ):
        # The type as well: True == 1, and a JSON file may say 1 for true.
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            raise ValueError(f"{argument}={value!r}: choose one of {', '.join(map(str, choices))}")
    if type(width) is not int or width < 1:
        raise ValueError(f"width={width!r}: must be a whole number of channels, at least 1")


def backbone_from_architecture(architecture: dict) -> Backbone:
    """A freshly initialised backbone as `Backbone.architecture` describes; ValueError names a wrong key."""
    check_keys("architecture", architecture, ARCHITECTURE_KEYS)
    preprocessing = Preprocessing.from_json(architecture["preprocessing"])
    return build_backbone(**{**architecture, "preprocessing": preprocessing})


def describe(backbone: Backbone) -> str:
    """A table for people: each endpoint's stride, channels, size at the usual image size, and parameters.

    The parameters are those of the endpoint's freeze group, from the endpoint before to this one.
    """
    size = backbone.preprocessing.image_size
    rows = [("endpoint", "stride", "channels", f"at {size} px", "parameters")]
    total = 0
    for endpoint, stride in backbone.strides.items():
        count = _parameters(backbone, endpoint)
        total += count
        side = -(-size // stride)
        rows.append((endpoint, stride, backbone.channels[endpoint], f"{side} x {side}", f"{count:,}"))
    rows.append(("total", "", "", "", f"{total:,}"))
    return "\n".join(f"{a:<8} {b:>6} {c:>8} {d:>11} {e:>12}" for a, b, c, d, e in rows)


def _layers_of(model, endpoint):
    return [layer.name for layer in model.layers if layer.weights and layer.name.startswith(f"{endpoint}_")]


def _parameters(backbone, endpoint):
    """How many numbers of the endpoint's layers are learned (frozen ones count, moving statistics do not)."""
    group = map(backbone.model.get_layer, backbone.freeze_groups[endpoint])
    weights = (weight for layer in group for weight in layer.weights if not weight.name.startswith("moving_"))
    return sum(math.prod(weight.shape) for weight in weights)
