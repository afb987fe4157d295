"""Convolutions of stride 1 whose gradients are convolutions as well: the same numbers, sooner on a CPU.

With y[p] = sum_a x[p + a] k[a] over the taps a (zeros around x), and g the gradient with respect to y:
- with respect to x it is sum_a g[p - a] k[a]', a convolution of g with the kernel turned by 180 degrees, its channels
  exchanged. TensorFlow's own CPU kernel multiplies first and then scatters the products over the map, and takes one to
  seven times as long.
- with respect to k[a] it is sum_p x[p + a]' g[p], a convolution of x with g as the kernel, in which the pictures of the
  batch play the channels. TensorFlow's own CPU kernel copies the taps of every pixel first.
The kernels of oneDNN, which TensorFlow has on older CPUs only where TF_ENABLE_ONEDNN_OPTS is 1, know neither weakness:
all that is left to gain there is the second, on small maps.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import tensorflow as tf

# Up to 8 x 8 px the batch as channels saves oneDNN a fifth of the kernel's gradient; from 16 x 16 on it costs more.
SMALL_MAP = 64


class Gradients(NamedTuple):
    """Which gradients of a convolution are computed as convolutions; TensorFlow's own kernels do the others."""

    of_input: bool
    of_kernel: bool


def faster_gradients(shape, dtype, size) -> Gradients:
    """What is faster here for maps [B, H, W, C] of a `shape` whose entries may be None, and `size` x `size` kernels.

    On a GPU, and in half precision, nothing is.
    """
    if _has_gpu() or dtype not in (tf.float32, tf.float64):
        return Gradients(False, False)
    has_taps = size > 1
    if not _has_onednn() or dtype == tf.float64:
        return Gradients(True, has_taps)
    is_small = None not in shape[1:3] and shape[1] * shape[2] <= SMALL_MAP
    return Gradients(False, has_taps and is_small)


def convolution(x, kernel, gradients: Gradients):
    """SAME convolution of stride 1, [B, H, W, C] with [s, s, C, D] -> [B, H, W, D], its `gradients` computed so."""

    @tf.custom_gradient
    def convolve(x, kernel):
        def backward(upstream):
            of_input = input_gradient if gradients.of_input else _tensorflow_input_gradient
            of_kernel = kernel_gradient if gradients.of_kernel else _tensorflow_kernel_gradient
            # In a graph the one that nobody asks for, as of the pictures themselves, is pruned.
            return of_input(x, kernel, upstream), of_kernel(x, kernel, upstream)

        return tf.nn.conv2d(x, kernel, strides=1, padding="SAME"), backward

    return convolve(x, kernel)


def input_gradient(x, kernel, upstream):
    """The gradient with respect to x [B, H, W, C], of `upstream` [B, H, W, D], as a convolution."""
    before, after = _same_padding(kernel)
    turned = tf.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
    return tf.nn.conv2d(upstream, turned, strides=1, padding=_explicit(after, before))


def kernel_gradient(x, kernel, upstream):
    """The gradient with respect to the kernel [s, s, C, D], of `upstream` [B, H, W, D], as a convolution."""
    pictures_as_channels = tf.transpose(x, (3, 1, 2, 0))
    as_kernel = tf.transpose(upstream, (1, 2, 0, 3))
    padding = _explicit(*_same_padding(kernel))
    gradient = tf.nn.conv2d(pictures_as_channels, as_kernel, strides=1, padding=padding)  # [C, s, s, D]
    return tf.transpose(gradient, (1, 2, 0, 3))


def _tensorflow_input_gradient(x, kernel, upstream):
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(x), filter=kernel, out_backprop=upstream, strides=[1, 1, 1, 1], padding="SAME"
    )


def _tensorflow_kernel_gradient(x, kernel, upstream):
    return tf.raw_ops.Conv2DBackpropFilter(
        input=x, filter_sizes=kernel.shape, out_backprop=upstream, strides=[1, 1, 1, 1], padding="SAME"
    )


def _same_padding(kernel):
    size = kernel.shape[0]
    return (size - 1) // 2, size // 2


def _explicit(before, after):
    return [[0, 0], [before, after], [before, after], [0, 0]]


def _has_gpu():
    return bool(tf.config.get_visible_devices("GPU"))


@functools.cache
def _has_onednn():
    # What TensorFlow decided when it was loaded, from the environment or else the CPU; it says so nowhere else.
    from tensorflow.python.util import _pywrap_util_port

    return _pywrap_util_port.IsMklEnabled()
