"""The layers every backbone is made of: the one place to change how convolutions and norms are computed."""

from __future__ import annotations

import keras
import tensorflow as tf

from models.preprocessing import Preprocessing

BATCH_NORM_EPSILON = 1e-5
# Keras' 0.99 (and the authors' 0.997) leave stale statistics after the few hundred steps of a small run.
BATCH_NORM_MOMENTUM = 0.9

# A fresh object per layer: one Keras initializer object gives the same numbers each time it is called.
INITIALIZERS = {
    "fan_in": lambda: keras.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal"),
    "he_fan_out": lambda: keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
}


def convolution(x, filters, size, name, stride=1, use_bias=False, initializer="fan_in"):
    """An odd `size` x `size` convolution [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), filters].

    A strided one pads `size // 2` zeros on every side, so that the taps fall on the same pixels whatever the
    picture's size (TensorFlow's SAME pads an even picture on the right and bottom only).
    """
    padded = stride > 1 and size > 1
    if padded:
        x = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    return keras.layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding="valid" if padded else "same",
        use_bias=use_bias,
        kernel_initializer=INITIALIZERS[initializer](),
        name=name,
    )(x)


def batch_norm(x, name):
    """Batch normalisation over [B, H, W], epsilon 1e-5, momentum 0.9."""
    return FusedBatchNormalization(momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, name=name)(x)


def relu(x, name):
    """max(x, 0) as a named layer."""
    return keras.layers.ReLU(name=name)(x)


def max_pool(x, name, size=3, stride=2):
    """Max pooling with SAME padding: [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), C]."""
    return keras.layers.MaxPooling2D(size, strides=stride, padding="same", name=name)(x)


def normalise_image(x, preprocessing: Preprocessing, name="normalise"):
    """RGB pixels [B, H, W, 3] in [0, 1] -> (x - mean) / std in the network's channel order."""
    mean, std, order = preprocessing.mean, preprocessing.std, preprocessing.channel_order
    return ImageNormalization(mean, std, order, name=name)(x)


@keras.saving.register_keras_serializable(package="la_tf")
class ImageNormalization(keras.layers.Layer):
    """(x - mean) / std of RGB pictures [B, H, W, 3] in [0, 1], then the channels in `channel_order`.

    Always in float32: bfloat16 holds an 8-bit pixel only just, before its mean is taken off.
    """

    def __init__(self, mean, std, channel_order="RGB", **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.mean, self.std, self.channel_order = tuple(mean), tuple(std), channel_order

    def call(self, image):
        normalised = (image - tf.constant(self.mean)) / tf.constant(self.std)
        return normalised if self.channel_order == "RGB" else tf.reverse(normalised, [-1])

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        own = {"mean": self.mean, "std": self.std, "channel_order": self.channel_order}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="la_tf")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras' BatchNormalization, computing batch statistics of [B, H, W, C] by TensorFlow's fused kernel.

    Same weights, same numbers, less memory traffic: Keras 3 puts the result together from a dozen elementwise
    operations over the whole activation. Inference, and what the kernel cannot do (other ranks, masks,
    float64), is Keras' own.
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable and mask is None and self._kernel_applies(inputs)):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta), epsilon=self.epsilon
        )
        # The kernel normalises by the biased variance (/ n) but returns the unbiased one (/ (n - 1)); Keras
        # averages the biased.
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), variance.dtype)
        variance *= tf.maximum(count - 1, 1) / count
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs

    def _kernel_applies(self, inputs):
        is_plain = self.scale and self.center and not self.renorm and not self.synchronized
        is_image = len(inputs.shape) == 4 and self.axis in (-1, 3)
        return is_plain and is_image and inputs.dtype in (tf.float32, tf.float16, tf.bfloat16)
