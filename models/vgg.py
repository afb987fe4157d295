"""VGG16 (Simonyan and Zisserman 2015, configuration D).

Thirteen 3x3 convolutions in five stages with a 2x2 max pool behind each; an odd side loses its last row there. fc6 is a
convolution over the whole map behind the fifth pool (7x7 at 224 px), fc7 a 1x1 convolution: on pictures larger than the
size it is built for the network gives a map of them. There is no dropout.
Batch norm follows every convolution, fc6 and fc7, before the ReLU, as the paper says (section 4.1); without it they
have biases. The authors' code has it behind the last convolution of each stage, fc6 and fc7 only.
The endpoints conv1 to conv5 are the last rectified maps of the stages, before pooling. `conv3_2_conv` is the second
convolution of the third stage.
"""

from __future__ import annotations

from functools import partial

import keras

from models import layers

# Convolutions of a stage and their channels as multiples of `width`: 64, 128, 256, 512, 512 and 4096.
STAGES = {"conv1": (2, 1), "conv2": (2, 2), "conv3": (3, 4), "conv4": (3, 8), "conv5": (3, 8)}
FULLY_CONNECTED = 64


def build(name, width, batch_norm, sobel, preprocessing, **_) -> tuple[keras.Model, dict[str, int]]:
    """Model from RGB [B, H, W, 3] in [0, 1] to {"conv1": [B, h, w, c], ...}, and the endpoints' strides.

    At the built size fc6 and fc7 are [B, 1, 1, 64 width].
    """
    block = partial(layers.rectified_convolution, with_batch_norm=batch_norm)
    whole_map = preprocessing.image_size // 2 ** len(STAGES)

    image, x = layers.image_input(preprocessing, sobel, least_side=whole_map * 2 ** len(STAGES))
    endpoints, strides, stride = {}, {}, 1
    for endpoint, (convolutions, multiple) in STAGES.items():
        for number in range(1, convolutions + 1):
            x = block(x, multiple * width, 3, f"{endpoint}_{number}")
        endpoints[endpoint], strides[endpoint] = x, stride
        x = layers.max_pool(x, f"{endpoint}_pool", size=2, padding="valid")
        stride *= 2
    for endpoint, size in (("fc6", whole_map), ("fc7", 1)):
        x = block(x, FULLY_CONNECTED * width, size, endpoint, padding="valid")
        endpoints[endpoint], strides[endpoint] = x, stride
    return keras.Model(image, endpoints, name=name), strides
