"""Backbones by name: built from arguments or from a stored description (imports TensorFlow only to build)."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.precision import PRECISIONS, building_in
from models.preprocessing import Preprocessing, check_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras

RESNET = ("models.resnet", {"imagenet": 1, "small": 1})
# Name -> module, and the stems there are with the least picture side, px, that leaves anything behind the last pool.
# The module's `build(**arguments, preprocessing)` gives (model, strides).
BACKBONES = {
    "alexnet": ("models.alexnet", {"imagenet": 67, "small": 15}),
    "vgg16": ("models.vgg", {"imagenet": 32}),
    "resnet10": RESNET,
    "resnet18": RESNET,
    "resnet34": RESNET,
    "resnet50": RESNET,
}
RESNET_VERSIONS = (1, 2)
LAYOUTS = ("tensorflow", "keras")
# What descriptions written before these arguments existed leave out, and what they mean by that.
LATER_ARGUMENTS = {"channels": None, "sobel": False, "layout": "tensorflow"}
ARCHITECTURE_KEYS = ("name", "width", "resnet_version", "stem", "batch_norm", *LATER_ARGUMENTS, "preprocessing")


@dataclass(frozen=True)
class Backbone:
    """A network with named endpoints and what else one needs to know to use it.

    `model`: RGB [B, H, W, 3] in [0, 1] -> {endpoint: [B, h, w, channels]}. h and w are ceil(H / stride) and
    ceil(W / stride) in ResNets; VGG16 rounds down; AlexNet, which pads neither its first convolution nor its
    pools, has fewer. fc6 and fc7 are 1 x 1 at `preprocessing.image_size` and a map on larger pictures.
    `strides`: endpoint -> the step between its positions, px.
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

    @property
    def last(self) -> str:
        """The endpoint that embeddings are read from: "conv5" of ResNets, "fc7" of AlexNet and VGG16."""
        return list(self.strides)[-1]


def build_backbone(
    name: str = "resnet18",
    width: int = 64,
    resnet_version: int = 2,
    stem: str = "imagenet",
    batch_norm: bool = True,
    preprocessing: Preprocessing | None = None,
    channels: Sequence[int] | None = None,
    sobel: bool = False,
    layout: str = "tensorflow",
    precision: str = "float32",
) -> Backbone:
    """A freshly initialised backbone (`keras.utils.set_random_seed` before it makes the weights repeatable).

    `width` is the number of channels of the first convolution, 64 in the standard networks; all others keep their
    proportion to it. `stem` is "imagenet" or "small" (a 3x3 first convolution at stride 1, no pooling in ResNets;
    VGG16 has none). `resnet_version` is for ResNets alone. Without `batch_norm` the convolutions have biases.
    `channels` are other widths of AlexNet's five convolutions, DeepCluster's (96, 256, 384, 384, 256) for one. `sobel`
    has the network see edges (`layers.Sobel`) in place of colours. `layout="keras"` has the ResNet-50 v1 stride and pad
    as keras.applications' does (see `models.resnet`). `preprocessing=None` is ImageNet's at 224 px. `precision`, one of
    `PRECISIONS`, is how this object computes and no part of the architecture: its weights are float32 in all of them.
    Raises ValueError naming the argument.
    """
    preprocessing = preprocessing or Preprocessing()
    arguments = {
        "name": name,
        "width": width,
        "resnet_version": resnet_version,
        "stem": stem,
        "batch_norm": batch_norm,
        "channels": channels,
        "sobel": sobel,
        "layout": layout,
    }
    check_architecture(**arguments)
    _check_choice("precision", precision, PRECISIONS)
    _check_image_size(name, stem, preprocessing.image_size)
    arguments["channels"] = None if channels is None else list(channels)
    build = importlib.import_module(BACKBONES[name][0]).build
    with building_in(precision):
        model, strides = build(**arguments, preprocessing=preprocessing)
    return Backbone(
        model=model,
        strides=strides,
        channels={endpoint: model.output[endpoint].shape[-1] for endpoint in strides},
        freeze_groups={endpoint: _layers_of(model, endpoint) for endpoint in strides},
        architecture={**arguments, "preprocessing": preprocessing.to_json()},
        preprocessing=preprocessing,
    )


def stems(name: str) -> tuple[str, ...]:
    """The stems of the backbone `name`."""
    return tuple(BACKBONES[name][1])


def smallest_input(name: str, stem: str) -> int:
    """The least side of a picture, px, that the backbone can be built for."""
    return BACKBONES[name][1][stem]


def check_architecture(
    name, width, resnet_version, stem, batch_norm, channels=None, sobel=False, layout="tensorflow"
) -> None:
    """Raises ValueError that names the first bad argument and the choices; builds nothing."""
    _check_choice("name", name, tuple(BACKBONES))
    _check_choice("resnet_version", resnet_version, RESNET_VERSIONS)
    if stem == "small" and stem not in stems(name):
        raise ValueError(f"stem={stem!r}: {name} has no stem of its own for small pictures; choose imagenet")
    _check_choice("stem", stem, stems(name))
    _check_choice("batch_norm", batch_norm, (True, False))
    if type(width) is not int or width < 1:
        raise ValueError(f"width={width!r}: must be a whole number of channels, at least 1")
    if channels is not None:
        _check_channels(name, channels)
    _check_choice("sobel", sobel, (True, False))
    _check_choice("layout", layout, LAYOUTS)
    if layout == "keras" and (name, resnet_version) != ("resnet50", 1):
        raise ValueError(f"layout={layout!r}: only resnet50 with resnet_version=1 has it, not {name} v{resnet_version}")


def backbone_from_architecture(architecture: dict) -> Backbone:
    """A freshly initialised backbone as `Backbone.architecture` describes; ValueError names a wrong key."""
    return build_backbone(**checked_architecture(architecture))


def checked_architecture(architecture: dict) -> dict:
    """The arguments of `build_backbone` that a `Backbone.architecture` is, as a file may have it; builds nothing.

    Raises ValueError naming a key that is missing, unknown or wrong.
    """
    architecture = {**LATER_ARGUMENTS, **architecture}
    check_keys("architecture", architecture, ARCHITECTURE_KEYS)
    preprocessing, arguments = architecture["preprocessing"], dict(architecture)
    if not isinstance(preprocessing, dict):
        raise ValueError(f"preprocessing={preprocessing!r:.40}: must be an object")
    arguments["preprocessing"] = Preprocessing.from_json(preprocessing)
    check_architecture(**{name: value for name, value in arguments.items() if name != "preprocessing"})
    return arguments


def describe(backbone: Backbone) -> str:
    """A table for people: each endpoint's stride, channels, size at the usual image size, and parameters.

    The parameters are those of the endpoint's freeze group, from the endpoint before to this one.
    """
    size = backbone.preprocessing.image_size
    shapes = backbone.model.compute_output_shape((1, size, size, 3))
    rows = [("endpoint", "stride", "channels", f"at {size} px", "parameters")]
    total = 0
    for endpoint, stride in backbone.strides.items():
        count = _parameters(backbone, endpoint)
        total += count
        _, height, width, channels = shapes[endpoint]
        rows.append((endpoint, stride, channels, f"{height} x {width}", f"{count:,}"))
    rows.append(("total", "", "", "", f"{total:,}"))
    return "\n".join(f"{a:<8} {b:>6} {c:>8} {d:>11} {e:>12}" for a, b, c, d, e in rows)


def _check_choice(argument, value, choices):
    # The type as well: True == 1, and a JSON file may say 1 for true.
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        raise ValueError(f"{argument}={value!r}: choose one of {', '.join(map(str, choices))}")


def _check_channels(name, channels):
    if name != "alexnet":
        raise ValueError(f"channels={channels!r}: only alexnet takes them, {name} has its width alone")
    is_sequence = isinstance(channels, (tuple, list))
    if not (is_sequence and len(channels) == 5 and all(type(count) is int and count >= 1 for count in channels)):
        raise ValueError(f"channels={channels!r}: must be five whole numbers, at least 1, for conv1 to conv5")


def _check_image_size(name, stem, image_size):
    if image_size < smallest_input(name, stem):
        needs = ", ".join(f"{smallest_input(name, choice)} px with stem={choice!r}" for choice in stems(name))
        raise ValueError(f"image_size={image_size}: {name} needs at least {needs}")


def _layers_of(model, endpoint):
    return [layer.name for layer in model.layers if layer.weights and layer.name.startswith(f"{endpoint}_")]


def _parameters(backbone, endpoint):
    """How many numbers of the endpoint's layers are learned (frozen ones count, moving statistics do not)."""
    group = map(backbone.model.get_layer, backbone.freeze_groups[endpoint])
    weights = (weight for layer in group for weight in layer.weights if not weight.name.startswith("moving_"))
    return sum(math.prod(weight.shape) for weight in weights)
