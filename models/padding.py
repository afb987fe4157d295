"""Pictures of different sizes in one batch: padded to one size, each treated as if it were alone.

A padded picture is `OUTSIDE` in all channels where it has no pixel, below and to the right of those it has. Before
every layer that looks at neighbouring positions, those beyond a picture's own map are set to what the layer would have
found there: zero, which convolutions pad with, or the least number, which takes no part in a maximum. So a picture's
own map does not depend on the others of its batch, as long as the padded sides are multiples of the network's stride
(TensorFlow's SAME pools begin elsewhere on odd sides).
"""

from __future__ import annotations

import keras
import tensorflow as tf

from models.layers import LeastSide, Sobel

OUTSIDE = -1.0  # no pixel has it: pixels lie in [0, 1]


def for_padded_pictures(model: keras.Model, name: str) -> keras.Model:
    """The network `model`, its layers shared, as padded RGB pictures [B, H, W, 3] -> (map [B, h, w, C], sizes [B, 2]).

    `sizes` are the rows and columns of each picture's own map; beyond them the map is zero. Batch norms that learn take
    their statistics over the pictures' own positions alone.
    """
    sizes = {}  # KerasTensor -> those of its map

    def call(layer, *arguments, **keywords):
        first = arguments[0][0] if isinstance(arguments[0], (list, tuple)) else arguments[0]
        if id(first) not in sizes:
            sizes[id(first)] = PictureSizes(name="picture_sizes")(first)
        output = _masked_call(layer, arguments, keywords, sizes[id(first)])
        sizes[id(output)] = _sizes_after(layer, sizes[id(first)])
        kept.append(output)
        return output

    kept = []  # as long as their ids are in use
    cloned = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)
    own = sizes[id(cloned.output)]
    return keras.Model(cloned.inputs[0], (Within()(cloned.output, own), own), name=name)


def padded_side(side, stride):
    """The least multiple of `stride` that is no less than `side`."""
    return -(-side // stride) * stride


def _masked_call(layer, arguments, keywords, sizes):
    if isinstance(layer, LeastSide):  # asks for what lies behind the map, fc6
        return arguments[0]
    if isinstance(layer, keras.layers.BatchNormalization):
        return layer(*arguments, **{**keywords, "mask": OwnPositions()(*arguments, sizes)})
    if isinstance(layer, keras.layers.MaxPooling2D) and layer.padding == "same":
        pooled = layer(Within(fill=tf.float32.min)(*arguments, sizes), **keywords)
        return Within()(pooled, _sizes_after(layer, sizes))
    if _looks_around(layer):
        return layer(Within()(*arguments, sizes), **keywords)
    return layer(*arguments, **keywords)


def _looks_around(layer):
    """Whether zeros beyond a picture's own map would be seen from within it."""
    of_convolution = isinstance(layer, keras.layers.Conv2D) and max(layer.kernel_size) > 1
    return of_convolution or isinstance(layer, keras.layers.ZeroPadding2D | Sobel)


def _sizes_after(layer, sizes):
    """The sizes of the pictures' own maps behind a layer, whose window is square, by TensorFlow's rules."""
    if isinstance(layer, keras.layers.ZeroPadding2D):
        return sizes + sum(layer.padding[0])
    if isinstance(layer, keras.layers.Conv2D):
        window = layer.kernel_size[0]
    elif isinstance(layer, keras.layers.MaxPooling2D):
        window = layer.pool_size[0]
    else:
        return sizes
    stride = layer.strides[0]
    return (sizes + (stride - 1 if layer.padding == "same" else stride - window)) // stride


class PictureSizes(keras.layers.Layer):
    """Padded pictures [B, H, W, 3] -> the rows and columns that are theirs, int32 [B, 2]."""

    def call(self, images):
        own = images[..., 0] > OUTSIDE / 2
        rows, columns = own[:, :, 0], own[:, 0, :]
        return tf.stack([tf.reduce_sum(tf.cast(line, tf.int32), axis=1) for line in (rows, columns)], axis=1)

    def compute_output_spec(self, images):
        return keras.KerasTensor((images.shape[0], 2), "int32")


def own_positions(height, width, sizes):
    """Which positions of [B, height, width] lie within the `sizes` [B, 2] of the pictures' own maps, bool."""
    rows = tf.range(height) < sizes[:, :1]
    columns = tf.range(width) < sizes[:, 1:]
    return rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :]


class OwnPositions(keras.layers.Layer):
    """(map [B, h, w, C], sizes [B, 2]) -> which positions are the pictures' own, bool [B, h, w]."""

    def call(self, inputs, sizes):
        return own_positions(tf.shape(inputs)[1], tf.shape(inputs)[2], sizes)

    def compute_output_spec(self, inputs, sizes):
        return keras.KerasTensor(inputs.shape[:3], "bool")


class Within(keras.layers.Layer):
    """(map [B, h, w, C], sizes [B, 2]) -> the map, with `fill` beyond the pictures' own positions."""

    def __init__(self, fill=0.0, **kwargs):
        super().__init__(**kwargs)
        self.fill = fill

    def call(self, inputs, sizes):
        own = own_positions(tf.shape(inputs)[1], tf.shape(inputs)[2], sizes)
        return tf.where(own[..., tf.newaxis], inputs, tf.cast(self.fill, inputs.dtype))

    def compute_output_spec(self, inputs, sizes):
        return keras.KerasTensor(inputs.shape, inputs.dtype)
