"""A backbone cut in two: the trunk that a picture passes once, and the head that every region of interest passes.

| backbone | the trunk ends with | pooled regions | the head |
|---|---|---|---|
| ResNets | conv4 | 7 x 7, or 14 x 14 | conv5, at stride 1 or 2, then the mean over space |
| VGG16 | conv5 | 14 x 14 at 224 px | its own pool (to 7 x 7), fc6, fc7 |
| AlexNet | conv5 | 11 x 11 at 224 px | its own pool (to 5 x 5), fc6, fc7 |

So every layer of the pretrained network is used, on maps of the size that it was trained on (tf-faster-rcnn:
lib/nets/resnet_v1.py, vgg16.py; AlexNet is not among its networks).
"""

from __future__ import annotations

from dataclasses import dataclass

import keras

from detection.config import SIDE_AT_STRIDE_1
from models import layers
from models.backbone import Backbone
from models.padding import for_padded_pictures


@dataclass(frozen=True)
class Parts:
    """The trunk, padded pictures [B, H, W, 3] -> (map [B, h, w, C], sizes [B, 2]); the head, [R, s, s, C] -> [R, F].

    `stride`: px between positions of the map. `offset`: px from where the first position would see if every layer
    padded, which AlexNet's do not, to where it sees. `side`: s, of a pooled region.
    """

    trunk: keras.Model
    head: keras.Model
    stride: int
    offset: float
    side: int


def parts_of(backbone: Backbone, roi_side=None, dropout=0.0, extra_norm=False) -> Parts:
    """Cuts a backbone in two; its layers, and so its weights, become those of the parts.

    roi_side: of ResNets, 7 (conv5 at stride 1) or 14 (at its own). dropout: behind fc6 and fc7 of the others.
    extra_norm: batch norm behind conv5 of ResNets, as MoCo's detectors have it.
    """
    network, last = backbone.model, backbone.last
    tap = trunk_end(backbone.architecture["name"])
    trunk = keras.Model(network.inputs, network.output[tap])
    rest = keras.Model(network.output[tap], network.output[last])
    if last == "conv5":
        side, rest = roi_side, _at_stride_1(rest) if roi_side == SIDE_AT_STRIDE_1 else rest
    else:
        side, rest = _side_before_fc6(rest), _with_dropout(rest, dropout)
    features = rest.output
    if extra_norm:
        features = layers.batch_norm(features, "extra_norm")
    pooled = keras.layers.GlobalAveragePooling2D(name="head_pool")(features)
    head = keras.Model(rest.inputs[0], pooled, name="head")
    return Parts(for_padded_pictures(trunk, "trunk"), head, backbone.strides[tap], _offset(backbone), side)


def trunk_end(name: str) -> str:
    """The endpoint that regions are pooled from: conv4 of ResNets, conv5 of AlexNet and VGG16."""
    return "conv4" if name.startswith("resnet") else "conv5"


def freeze(parts: Parts, backbone: Backbone, freeze_at: int, batch_norm: str) -> None:
    """Keeps conv1 to conv{freeze_at} as they are, and by `batch_norm` all statistics, scales and shifts.

    "frozen" and "recalibrated" batch norms use their stored statistics in training as well; whoever trains the latter
    measures them first (`detection.batch_statistics`). The extra norm, which is new, always learns.
    """
    fixed = {name for endpoint in list(backbone.strides)[:freeze_at] for name in backbone.freeze_groups[endpoint]}
    for layer in (*parts.trunk.layers, *parts.head.layers):
        is_norm = isinstance(layer, keras.layers.BatchNormalization) and layer.name != "extra_norm"
        if layer.name in fixed or (is_norm and batch_norm in ("frozen", "recalibrated")):
            layer.trainable = False
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = batch_norm == "synchronised"


def _at_stride_1(rest):
    """The same layers, those of a stride replaced by copies without."""

    def dense(layer):
        if not isinstance(layer, keras.layers.Conv2D) or layer.strides == (1, 1):
            return layer
        copy = type(layer).from_config({**layer.get_config(), "strides": (1, 1)})
        copy.build(layer.input.shape)
        copy.set_weights(layer.get_weights())
        return copy

    return keras.models.clone_model(rest, clone_function=dense)


def _with_dropout(rest, rate):
    def call(layer, *arguments, **keywords):
        output = layer(*arguments, **keywords)
        if layer.name in ("fc6_relu", "fc7_relu"):
            output = keras.layers.Dropout(rate, name=layer.name.replace("relu", "dropout"))(output)
        return output

    if not rate:
        return rest
    return keras.models.clone_model(rest, clone_function=lambda layer: layer, call_function=call)


def _side_before_fc6(rest):
    """The least side that the pool behind conv5 makes fc6's out of."""
    pool, fc6 = rest.get_layer("conv5_pool"), rest.get_layer("fc6_conv")
    return (fc6.kernel_size[0] - 1) * pool.strides[0] + pool.pool_size[0]


def _offset(backbone):
    """AlexNet's windows start at the picture's edge: 11 px of stride 4, then two pools of 3 and stride 2."""
    if backbone.architecture["name"] != "alexnet":
        return 0.0
    centre, stride = (5, 4) if backbone.architecture["stem"] == "imagenet" else (0, 1)
    for _ in ("conv1", "conv2"):
        centre, stride = centre + stride, 2 * stride
    return centre - (stride - 1) / 2
