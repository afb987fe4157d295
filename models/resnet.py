"""ResNet-10/18/34/50, pre-activation (v2, the authors') or post-activation (v1), for large or small images.

Names: `conv3_unit2_conv1` is the first convolution of the second unit of the third stage. Every layer is
named after the endpoint it helps to compute, so the layers from one endpoint to the next are one freeze
group.

v2 (He et al. 2016b, as in TensorFlow's official model, which LA's authors used): no batch norm between the
stem's convolution and its pooling; the first unit of every stage, the second included, has a 1x1 projection
shortcut, applied to the pre-activated input. That makes the pre-activated input of a stage its only input,
and it is the endpoint of the stage before, where the authors tap for their readouts.
v1 (He et al. 2016a): batch norm after each convolution, a projection only where the shape changes.
In both, the stride of a bottleneck sits in its 3x3, and the stem's pooling pads as TensorFlow's SAME does.
`layout="keras"` is the v1 ResNet-50 of keras.applications, for weights that were trained so: the stride sits in the
first 1x1, as in the Caffe network of the papers, and the stem's pooling has one zero on every side.
Initial kernels: v2 truncated normal of variance 1 / fan-in, as the authors; v1 normal of variance 2 /
fan-out, as usual.
"""

from __future__ import annotations

from functools import partial

import keras

from models import layers

DEPTHS = {
    "resnet10": ("basic", (1, 1, 1, 1)),
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
}
EXPANSION = {"basic": 1, "bottleneck": 4, "keras_bottleneck": 4}
STAGES = ("conv2", "conv3", "conv4", "conv5")


def build(
    name, width, resnet_version, stem, batch_norm, sobel, preprocessing, layout, **_
) -> tuple[keras.Model, dict[str, int]]:
    """Model from RGB [B, H, W, 3] in [0, 1] to {"conv1": [B, h, w, c], ...}, and the endpoints' strides."""
    kind, depths = DEPTHS[name]
    kind = "keras_bottleneck" if layout == "keras" else kind
    convolution = partial(
        layers.convolution,
        use_bias=not batch_norm,
        initializer="fan_in" if resnet_version == 2 else "he_fan_out",
    )
    normalise = layers.batch_norm if batch_norm else _unchanged
    stage = _preactivation_stage if resnet_version == 2 else _postactivation_stage

    image, x = layers.image_input(preprocessing, sobel)
    x, stride = _stem(x, width, stem, resnet_version, layout, convolution, normalise)
    endpoints, strides = {"conv1": x}, {"conv1": stride}
    for position, (endpoint, units) in enumerate(zip(STAGES, depths, strict=True)):
        first_stride = 1 if position == 0 else 2
        stride *= first_stride
        x = stage(x, endpoint, kind, width * 2**position, units, first_stride, convolution, normalise)
        endpoints[endpoint], strides[endpoint] = x, stride
    return keras.Model(image, endpoints, name=name), strides


def _stem(x, width, stem, version, layout, convolution, normalise):
    """The endpoint conv1 and its stride; BN and ReLU come before the pooling (v1) or behind it (v2)."""
    imagenet = stem == "imagenet"
    x = convolution(x, width, 7 if imagenet else 3, "conv1_conv", stride=2 if imagenet else 1)
    if imagenet and version == 2:
        x = layers.max_pool(x, "conv1_pool")
    x = layers.relu(normalise(x, "conv1_bn"), "conv1_relu")
    if imagenet and layout == "keras":
        x = keras.layers.ZeroPadding2D(1, name="conv1_pool_pad")(x)
        x = layers.max_pool(x, "conv1_pool", padding="valid")
    elif imagenet and version == 1:
        x = layers.max_pool(x, "conv1_pool")
    return x, 4 if imagenet else 1


def _unit_convolutions(kind, filters, stride):
    """(filters, kernel size, stride) of the convolutions of one unit."""
    if kind == "basic":
        return (filters, 3, stride), (filters, 3, 1)
    first, second = (stride, 1) if kind == "keras_bottleneck" else (1, stride)
    return (filters, 1, first), (filters, 3, second), (filters * EXPANSION[kind], 1, 1)


def _preactivation_stage(x, stage, kind, filters, units, stride, convolution, normalise):
    """v2: pre-activated [B, H, W, C] -> pre-activated input of the next stage (final BN and ReLU)."""
    for number in range(1, units + 1):
        unit = f"{stage}_unit{number}"
        shortcut = x
        if number == 1:
            shortcut = convolution(x, filters * EXPANSION[kind], 1, f"{unit}_projection", stride=stride)
        convolutions = _unit_convolutions(kind, filters, stride if number == 1 else 1)
        for position, (channels, size, step) in enumerate(convolutions, start=1):
            if number > 1 or position > 1:
                x = layers.relu(normalise(x, f"{unit}_bn{position}"), f"{unit}_relu{position}")
            x = convolution(x, channels, size, f"{unit}_conv{position}", stride=step)
        x = keras.layers.Add(name=f"{unit}_add")([shortcut, x])
    return layers.relu(normalise(x, f"{stage}_bn"), f"{stage}_relu")


def _postactivation_stage(x, stage, kind, filters, units, stride, convolution, normalise):
    """v1: rectified [B, H, W, C] -> rectified output of the stage's last unit."""
    for number in range(1, units + 1):
        unit = f"{stage}_unit{number}"
        shortcut = x
        if number == 1 and (stride > 1 or x.shape[-1] != filters * EXPANSION[kind]):
            shortcut = convolution(x, filters * EXPANSION[kind], 1, f"{unit}_projection", stride=stride)
            shortcut = normalise(shortcut, f"{unit}_projection_bn")
        convolutions = _unit_convolutions(kind, filters, stride if number == 1 else 1)
        for position, (channels, size, step) in enumerate(convolutions, start=1):
            if position > 1:
                x = layers.relu(x, f"{unit}_relu{position - 1}")
            x = convolution(x, channels, size, f"{unit}_conv{position}", stride=step)
            x = normalise(x, f"{unit}_bn{position}")
        x = layers.relu(keras.layers.Add(name=f"{unit}_add")([shortcut, x]), f"{unit}_relu")
    return x


def _unchanged(x, name):
    return x
