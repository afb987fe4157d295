"""The layers every backbone is made of: the one place to change how convolutions and norms are computed."""

from __future__ import annotations

import math
from functools import partial

import keras
import tensorflow as tf

from models import convolutions
from models.preprocessing import Preprocessing

BATCH_NORM_EPSILON = 1e-5
# Keras' 0.99 (and the authors' 0.997) leave stale statistics after the few hundred steps of a small run.
BATCH_NORM_MOMENTUM = 0.9

# A fresh object per layer: one Keras initializer object gives the same numbers each time it is called.
INITIALIZERS = {
    "fan_in": lambda: keras.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal"),
    "he_fan_in": lambda: keras.initializers.VarianceScaling(2.0, "fan_in", "truncated_normal"),
    "he_fan_out": lambda: keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
}


def convolution(x, filters, size, name, stride=1, use_bias=False, initializer="fan_in", padding="same"):
    """An odd `size` x `size` convolution [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), filters].

    A strided one pads `size // 2` zeros on every side, so that the taps fall on the same pixels whatever the
    picture's size (TensorFlow's SAME pads an even picture on the right and bottom only). With `padding="valid"` none
    pads, `size` may be even, and a side of H gives (H - size) // stride + 1.
    """
    padded = padding == "same" and stride > 1 and size > 1
    if padded:
        x = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    if padding == "valid":
        kind = ValidConvolution
    elif stride == 1:
        kind = SameConvolution
    else:
        kind = StridedPointConvolution if size == 1 else keras.layers.Conv2D
    return kind(
        filters,
        size,
        strides=stride,
        padding="valid" if padded else padding,
        use_bias=use_bias,
        kernel_initializer=INITIALIZERS[initializer](),
        name=name,
    )(x)


def rectified_convolution(x, filters, size, name, stride=1, padding="same", with_batch_norm=True):
    """A convolution `{name}_conv`, batch norm `{name}_bn` (without: a bias) and ReLU, as in plain networks.

    Its kernel starts at variance 2 / fan-in (He et al. 2015), which keeps the size of activations through a
    ReLU, so that deep networks can be trained without batch norm as well.
    """
    x = convolution(x, filters, size, f"{name}_conv", stride, not with_batch_norm, "he_fan_in", padding)
    x = batch_norm(x, f"{name}_bn") if with_batch_norm else x
    return relu(x, f"{name}_relu")


def batch_norm(x, name):
    """Batch normalisation over [B, H, W], epsilon 1e-5, momentum 0.9."""
    return FusedBatchNormalization(momentum=BATCH_NORM_MOMENTUM, epsilon=BATCH_NORM_EPSILON, name=name)(x)


def synchronize_batch_norm(model):
    """Has the batch norms of a `model` take their statistics over the batches of all replicas."""
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True


def relu(x, name):
    """max(x, 0) as a named layer."""
    return keras.layers.ReLU(name=name)(x)


def max_pool(x, name, size=3, stride=2, padding="same"):
    """Max pooling [B, H, W, C]: a side of H gives ceil(H / stride), with VALID padding (H - size) // stride + 1."""
    return keras.layers.MaxPooling2D(size, strides=stride, padding=padding, name=name)(x)


def image_input(preprocessing: Preprocessing, sobel=False, least_side=1):
    """The input, RGB [B, H, W, 3] in [0, 1], and what the first convolution gets: normalised [B, H, W, 3].

    With `sobel` it gets the two edge maps [B, H, W, 2] of `Sobel`. Pictures with a side below `least_side` px fail.
    """
    image = keras.Input((None, None, 3), name="image")
    x = image if least_side == 1 else LeastSide(least_side, name="least_side")(image)
    x = normalise_image(x, preprocessing)
    return image, Sobel(name="sobel")(x) if sobel else x


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
class Sobel(keras.layers.Layer):
    """Grey edges of pictures [B, H, W, 3] -> [B, H, W, 2]: horizontal and vertical, nothing of it learned.

    The mean of the three channels, cross-correlated with the two 3x3 Sobel filters under one zero on every side, as
    DeepCluster does (Caron et al. 2018, section 4). Always in float32, like the normalisation before it.
    """

    HORIZONTAL = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})

    def call(self, image):
        grey = tf.reduce_mean(image, axis=-1, keepdims=True)
        horizontal = tf.constant(self.HORIZONTAL)
        filters = tf.stack([horizontal, tf.transpose(horizontal)], axis=-1)[:, :, tf.newaxis, :]
        return tf.nn.conv2d(grey, filters, strides=1, padding="SAME")

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 2)


@keras.saving.register_keras_serializable(package="la_tf")
class LeastSide(keras.layers.Layer):
    """Passes pictures [B, H, W, C] on and fails with InvalidArgumentError when H or W is below `side` px.

    TensorFlow itself does not: on a map smaller than their window its VALID convolutions and pools have been
    seen to give an empty map, a map of the wrong shape, and to end the process. In float32: see `ImageNormalization`.
    """

    def __init__(self, side, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.side = side

    def call(self, image):
        message = f"the pictures are too small: this network needs at least {self.side} px on either side"
        check = tf.debugging.assert_greater_equal(tf.shape(image)[1:3], self.side, message=message)
        # In a graph nothing but this orders the check before the layers behind it; eagerly it has raised by now.
        with tf.control_dependencies([check]):
            return tf.identity(image)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "side": self.side}


@keras.saving.register_keras_serializable(package="la_tf")
class SameConvolution(keras.layers.Conv2D):
    """Keras' SAME Conv2D of stride 1, in training with the gradients that are fastest where it runs.

    Outside of training it is Keras' own, so that an exported graph holds nothing but the convolution.
    """

    def call(self, inputs, training=None):
        gradients = convolutions.faster_gradients(inputs.shape, inputs.dtype, self.kernel_size[0])
        if not (training and any(gradients)):
            return super().call(inputs)
        outputs = convolutions.convolution(inputs, tf.convert_to_tensor(self.kernel), gradients)
        return self.activation(tf.nn.bias_add(outputs, self.bias) if self.use_bias else outputs)


@keras.saving.register_keras_serializable(package="la_tf")
class StridedPointConvolution(keras.layers.Conv2D):
    """Keras' Conv2D of one tap and a stride, as the plain one of the pixels that the stride leaves.

    The gradient of a strided kernel with few channels, of a batch of one, overruns its memory in the oneDNN of
    TensorFlow 2.21 on CPUs with AVX-512: later on the process aborts ("double free or corruption").
    """

    def convolution_op(self, inputs, kernel):
        down, across = self.strides
        return tf.nn.conv2d(inputs[:, ::down, ::across], kernel, strides=1, padding="VALID")


@keras.saving.register_keras_serializable(package="la_tf")
class ValidConvolution(keras.layers.Conv2D):
    """Keras' VALID Conv2D; where the kernel covers the map, as fc6 does at its built size, a matrix product.

    On a CPU the convolution of such a map and its gradients take seven to nine times as long. A map whose size is
    unknown when the graph is made is convolved.
    """

    def convolution_op(self, inputs, kernel):
        if tuple(inputs.shape[1:3]) != self.kernel_size:
            return super().convolution_op(inputs, kernel)
        rows = tf.reshape(inputs, (-1, math.prod(kernel.shape[:3])))
        return tf.matmul(rows, tf.reshape(kernel, (-1, self.filters)))[:, tf.newaxis, tf.newaxis, :]


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

    def _moments(self, inputs, mask):
        """Returns mean and variance `[C]` over the positions of `mask`; synchronised, over those of all replicas."""
        if not self.synchronized and mask is None:
            return super()._moments(inputs, mask)
        if mask is None:
            count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), inputs.dtype)
            own = tf.identity
        else:
            count = tf.reduce_sum(tf.cast(mask, inputs.dtype))
            own = partial(tf.where, mask[..., tf.newaxis], y=tf.zeros([], inputs.dtype))
        count = self._of_all(count)
        # The deviations from the common mean: Keras' mean of squares less the squared mean loses what they share.
        mean = self._of_all(tf.reduce_sum(own(inputs), self._reduction_axes)) / count
        return mean, self._of_all(tf.reduce_sum(own(tf.square(inputs - mean)), self._reduction_axes)) / count

    def _of_all(self, tensor):
        if not self.synchronized:
            return tensor
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensor)

    def compute_mask(self, inputs, previous_mask):
        """Returns None: a mask says which positions this layer's statistics are of, and no other layer's."""
        return None

    def _kernel_applies(self, inputs):
        is_plain = self.scale and self.center and not self.renorm and not self.synchronized
        is_image = len(inputs.shape) == 4 and self.axis in (-1, 3)
        return is_plain and is_image and inputs.dtype in (tf.float32, tf.float16, tf.bfloat16)
