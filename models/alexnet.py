"""AlexNet in its one-column form (Krizhevsky 2014, "One weird trick"), as LA's authors took it from TensorFlow-Slim.

Five convolutions, the first of 11x11 pixels at stride 4, and three 3x3 max pools of stride 2, behind the first, second
and fifth; pools and first convolution pad nothing. fc6 is a convolution over the whole map behind the last pool (5x5 at
224 px), fc7 a 1x1 convolution: on pictures larger than the size it is built for the network gives a map of them.
Batch norm follows every convolution, fc6 and fc7, before the ReLU (section 4.1); without it they have biases. There is
no dropout: the authors' code has none, and with batch norm it is not missed.
The endpoints conv1 to conv5 are the rectified maps before any pooling, where the authors tap for their readouts.
For pictures of up to 64 px `stem="small"` puts a 3x3 convolution of stride 1 first, the rest unchanged.
"""

from __future__ import annotations

from functools import partial

import keras

from models import layers

# Channels as multiples of `width`: 64, 192, 384, 384, 256 and 4096.
CONVOLUTIONS = {"conv1": 1, "conv2": 3, "conv3": 6, "conv4": 6, "conv5": 4}
FULLY_CONNECTED = 64
POOLED = ("conv1", "conv2", "conv5")


def build(name, width, stem, batch_norm, channels, sobel, preprocessing, **_) -> tuple[keras.Model, dict[str, int]]:
    """Model from RGB [B, H, W, 3] in [0, 1] to {"conv1": [B, h, w, c], ...}, and the endpoints' strides.

    `channels` replaces the widths of the five convolutions. At the built size fc6 and fc7 are [B, 1, 1, 64 width].
    """
    channels = channels or [width * multiple for multiple in CONVOLUTIONS.values()]
    block = partial(layers.rectified_convolution, with_batch_norm=batch_norm)
    whole_map = _side_behind_the_last_pool(preprocessing.image_size, stem)

    image, x = layers.image_input(preprocessing, sobel, _least_side(whole_map, stem))
    endpoints, strides, stride = {}, {}, 4 if stem == "imagenet" else 1
    for endpoint, filters in zip(CONVOLUTIONS, channels, strict=True):
        if endpoint != "conv1":
            x = block(x, filters, 5 if endpoint == "conv2" else 3, endpoint)
        elif stem == "imagenet":
            x = block(x, filters, 11, endpoint, stride=4, padding="valid")
        else:
            x = block(x, filters, 3, endpoint)
        endpoints[endpoint], strides[endpoint] = x, stride
        if endpoint in POOLED:
            x = layers.max_pool(x, f"{endpoint}_pool", padding="valid")
            stride *= 2
    for endpoint, size in (("fc6", whole_map), ("fc7", 1)):
        x = block(x, FULLY_CONNECTED * width, size, endpoint, padding="valid")
        endpoints[endpoint], strides[endpoint] = x, stride
    return keras.Model(image, endpoints, name=name), strides


def _side_behind_the_last_pool(side, stem):
    side = (side - 11) // 4 + 1 if stem == "imagenet" else side
    for _ in POOLED:
        side = (side - 3) // 2 + 1
    return side


def _least_side(whole_map, stem):
    """The smallest picture with as large a map behind the last pool: 195 px for the 5x5 of 224 px."""
    side = whole_map
    for _ in POOLED:
        side = 2 * (side - 1) + 3
    return 4 * (side - 1) + 11 if stem == "imagenet" else side
