"""The TensorFlow 1 checkpoint of Local Aggregation's authors (neuroailab/LocalAggregation): their ResNet-18 in ours.

Their network lies under `resnet_model`, its layers numbered by `tf.layers` in the order in which they are built:
`conv2d`, `conv2d_1`, ..., `batch_normalization`, ..., and `dense`, the 128-dimensional embedding. What else their
training saves is known and not used: memory bank, labels, cluster labels, momentum.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from models import resnet
from models.backbone import Backbone, build_backbone
from models.named_weights import check_names_and_shapes

SOURCE = "the authors' ResNet-18"
STEP = "global_step"
# The last part of the names of what training keeps beside the network.
OF_TRAINING = (STEP, "Momentum", "memory_bank", "all_labels", "cluster_labels")
FILE_SUFFIX = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")
EMBEDDING = {"resnet_model/dense/kernel": (512, 128), "resnet_model/dense/bias": (128,)}


@dataclass(frozen=True, eq=False)
class AuthorsResNet18:
    """What a checkpoint of theirs holds; `embedding`: kernel [512, 128] and bias [128] behind the mean of conv5."""

    backbone: Backbone
    embedding: tuple[np.ndarray, np.ndarray]
    step: int
    unused: list[str]


def resnet18(path) -> AuthorsResNet18:
    """The authors' ResNet-18 from `model.ckpt-STEP`, one of its files (.index, .data-...), or the folder they lie in.

    Raises ValueError, one line that names the file and every name that is missing, unknown or of another shape.
    """
    backbone = build_backbone("resnet18", resnet_version=2)
    weights = {weight.path: weight for weight in backbone.model.weights}
    names = _variable_names()
    wanted = {theirs: tuple(weights[ours].shape) for theirs, ours in names.items()} | EMBEDDING
    try:
        reader = tf.train.load_checkpoint(checkpoint_prefix(path))
        shapes = reader.get_variable_to_shape_map()
        unused = sorted(name for name in shapes if name.split("/")[-1] in OF_TRAINING)
        network = {name: shape for name, shape in shapes.items() if name not in unused}
        check_names_and_shapes(path, SOURCE, network, wanted)
        for theirs, ours in names.items():
            weights[ours].assign(reader.get_tensor(theirs))
        embedding = tuple(reader.get_tensor(name) for name in EMBEDDING)
        step = int(reader.get_tensor(STEP)) if STEP in shapes else 0
    except (tf.errors.OpError, RuntimeError, IndexError) as error:  # the reader turns some into Python's own
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: no TensorFlow checkpoint, or a damaged one ({reason})") from None
    return AuthorsResNet18(backbone, embedding, step, unused)


def checkpoint_prefix(path) -> str:
    """What a checkpoint's files are called before their endings: from that, from one of them, or from their folder.

    Raises ValueError when there is no such checkpoint.
    """
    is_folder = Path(path).is_dir()
    prefix = tf.train.latest_checkpoint(str(path)) if is_folder else FILE_SUFFIX.sub("", str(path))
    if prefix is None:
        raise ValueError(f"{path}: the folder names no checkpoint; give the file, e.g. model.ckpt-2001800.index")
    if not Path(f"{prefix}.index").is_file():
        raise ValueError(f"{path}: no such TensorFlow checkpoint; there is no {prefix}.index")
    return prefix


def _variable_names():
    """Their variable -> our weight, in the order in which they build: projection, convolutions; norms in between."""
    convolutions, norms = ["conv1_conv"], ["conv1_bn"]
    for stage, units in zip(resnet.STAGES, resnet.DEPTHS["resnet18"][1], strict=True):
        for unit in (f"{stage}_unit{number}" for number in range(1, units + 1)):
            is_first = unit == f"{stage}_unit1"
            convolutions += [f"{unit}_projection"] * is_first + [f"{unit}_conv1", f"{unit}_conv2"]
            # The first unit's first norm is, with us, the last of the endpoint before.
            norms += [f"{unit}_bn1"] * (not is_first) + [f"{unit}_bn2"]
        norms.append(f"{stage}_bn")
    return _numbered("conv2d", convolutions, ("kernel",)) | _numbered(
        "batch_normalization", norms, ("gamma", "beta", "moving_mean", "moving_variance")
    )


def _numbered(kind, layers, parts):
    """{"resnet_model/conv2d_1/kernel": "conv2_unit1_projection/kernel", ...}; the first layer has no number."""
    return {
        f"resnet_model/{kind}{f'_{number}' if number else ''}/{part}": f"{layer}/{part}"
        for number, layer in enumerate(layers)
        for part in parts
    }
