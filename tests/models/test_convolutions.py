import functools
import itertools
import os
import platform
import sys
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import build_backbone, convolutions, layers
from models.convolutions import Gradients
from models.preprocessing import Preprocessing

BOTH = Gradients(of_input=True, of_kernel=True)


def differentiated(convolve, x, kernel, upstream):
    """y and its gradients with respect to x and the kernel."""
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = convolve(x, kernel)
    return [y, *tape.gradient(y, [x, kernel], output_gradients=upstream)]


def plain(x, kernel):
    return tf.nn.conv2d(x, kernel, strides=1, padding="SAME")


def error(ours, expected):
    """Of the whole array, relative to its norm, in float64."""
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    return np.linalg.norm(ours - expected) / np.linalg.norm(expected)


def by_taps(x, kernel, upstream):
    """y and both gradients in float64, tap by tap."""
    size, (_, height, width, _) = len(kernel), x.shape
    before = (size - 1) // 2
    margins = (0, 0), (before, size // 2), (before, size // 2), (0, 0)
    padded, y = np.pad(x, margins), 0
    of_padded, of_kernel = np.zeros_like(padded), np.zeros_like(kernel)
    for i, j in itertools.product(range(size), repeat=2):
        window = np.s_[:, i : i + height, j : j + width]
        y = y + padded[window] @ kernel[i, j]
        of_padded[window] += upstream @ kernel[i, j].T
        of_kernel[i, j] = np.tensordot(padded[window], upstream, ((0, 1, 2), (0, 1, 2)))
    return y, of_padded[:, before : before + height, before : before + width], of_kernel


# B, H, W, C, D, size
SHAPES = [
    (3, 5, 4, 2, 6, 3),
    (2, 7, 8, 3, 1, 5),
    (1, 2, 3, 2, 4, 5),
    (5, 1, 1, 4, 2, 3),
    (2, 4, 4, 3, 2, 1),
    (2, 5, 6, 2, 3, 2),
]


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(tf.float64, 1e-12), (tf.float32, 1e-6)])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_tensorflows(shape, dtype, tolerance, is_known):
    batch, height, width, channels, filters, size = shape
    rng = np.random.default_rng(0)
    shapes = (batch, height, width, channels), (size, size, channels, filters), (batch, height, width, filters)
    arrays = [rng.normal(0, 1, shape) for shape in shapes]
    tensors = [tf.constant(array, dtype) for array in arrays]
    unknown = [
        tf.TensorSpec((None, None, None, channels)),
        tf.TensorSpec(shapes[1]),
        tf.TensorSpec((None,) * 3 + (filters,)),
    ]
    signature = None if is_known else [tf.TensorSpec(spec.shape, dtype) for spec in unknown]
    reference, tensorflow = by_taps(*arrays), differentiated(plain, *tensors)
    for gradients in (BOTH, Gradients(True, False), Gradients(False, True)):
        convolve = functools.partial(convolutions.convolution, gradients=gradients)
        step = tf.function(functools.partial(differentiated, convolve), input_signature=signature)
        for ours, theirs, truth in zip(step(*tensors), tensorflow, reference, strict=True):
            assert ours.dtype == dtype and ours.shape == truth.shape
            assert error(ours, truth) < tolerance and error(ours, theirs) < tolerance


@pytest.mark.parametrize(
    ("has_gpu", "has_onednn", "dtype", "shape", "size", "expected"),
    [
        (False, False, tf.float32, (128, 32, 32, 16), 3, (True, True)),
        (False, False, tf.float32, (None, None, None, 16), 3, (True, True)),
        (False, False, tf.float32, (128, 32, 32, 16), 1, (True, False)),
        (False, False, tf.bfloat16, (128, 32, 32, 16), 3, (False, False)),
        (False, True, tf.float32, (128, 8, 8, 16), 3, (False, True)),
        (False, True, tf.float32, (128, 8, 9, 16), 3, (False, False)),
        (False, True, tf.float32, (128, 8, 8, 16), 1, (False, False)),
        (False, True, tf.float32, (128, None, None, 16), 3, (False, False)),
        (False, True, tf.float64, (128, 32, 32, 16), 3, (True, True)),  # oneDNN knows no float64
        (True, False, tf.float32, (128, 8, 8, 16), 3, (False, False)),
    ],
)
def test_which_gradients_are_convolutions(monkeypatch, has_gpu, has_onednn, dtype, shape, size, expected):
    monkeypatch.setattr(convolutions, "_has_gpu", lambda: has_gpu)
    monkeypatch.setattr(convolutions, "_has_onednn", lambda: has_onednn)
    assert convolutions.faster_gradients(shape, dtype, size) == expected


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="TensorFlow may lack oneDNN here")
def test_whether_onednn_is_on_is_what_the_environment_says():
    assert convolutions._has_onednn() is (os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1")


def operations_behind(outputs):
    """The types of the operations that a graph has to run for its `outputs`."""
    seen, waiting = {}, [tensor.op for tensor in outputs]
    while waiting:
        operation = waiting.pop()
        if operation.name not in seen:
            seen[operation.name] = operation.type
            waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    return Counter(seen.values())


def two_layers(monkeypatch):
    monkeypatch.setattr(convolutions, "_has_onednn", lambda: False)
    image = keras.Input((None, None, 3))
    x = layers.convolution(image, 4, 3, "first", use_bias=True)
    return keras.Model(image, layers.convolution(x, 2, 3, "second"))


def test_nobody_computes_the_gradient_of_the_pictures(monkeypatch):
    model = two_layers(monkeypatch)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True) ** 2)
        return tape.gradient(loss, model.trainable_variables)

    graph = step.get_concrete_function(tf.TensorSpec((4, 6, 6, 3))).graph
    found = operations_behind(graph.structured_outputs)
    # Two forward, two for the kernels, one for the input of the second.
    assert {kind: count for kind, count in found.items() if kind.startswith("Conv2D")} == {"Conv2D": 5}


def test_outside_of_training_there_is_nothing_but_the_convolution(monkeypatch):
    model = two_layers(monkeypatch)
    graph = (
        tf.function(lambda x: model(x, training=False))
        .get_concrete_function(tf.TensorSpec((None, None, None, 3)))
        .graph
    )
    found = Counter(operation.type for operation in graph.get_operations())
    assert found["Conv2D"] == 2 and found["IdentityN"] == 0


def test_a_layer_in_training_equals_keras_with_bias_activation_and_after_saving(monkeypatch, tmp_path):
    monkeypatch.setattr(convolutions, "_has_onednn", lambda: False)
    image = keras.Input((5, 6, 3))
    arguments = {"use_bias": True, "bias_initializer": "normal", "activation": "relu"}
    ours = keras.Model(image, layers.SameConvolution(4, 3, padding="same", name="conv", **arguments)(image))
    ours.save(tmp_path / "ours.keras")
    ours = keras.saving.load_model(tmp_path / "ours.keras")
    theirs = keras.Model(image, keras.layers.Conv2D(4, 3, padding="same", name="conv", **arguments)(image))
    theirs.set_weights(ours.get_weights())
    assert isinstance(ours.get_layer("conv"), layers.SameConvolution)
    x = np.random.default_rng(1).normal(0, 1, (2, 5, 6, 3)).astype(np.float32)
    for found, expected in zip(*(gradients_of(model, x) for model in (ours, theirs)), strict=True):
        assert error(found, expected) < 1e-6


@pytest.mark.parametrize("sides", [(5, 7), (6, 8), (1, 2)])
def test_a_strided_convolution_of_one_tap_sees_every_other_pixel(sides):
    rng = np.random.default_rng(2)
    x, kernel = rng.normal(0, 1, (2, *sides, 3)), rng.normal(0, 1, (3, 4))
    image = keras.Input((*sides, 3))
    model = keras.Model(image, layers.convolution(image, 4, 1, "conv", stride=2))
    model.set_weights([kernel[None, None].astype(np.float32)])
    y = x[:, ::2, ::2] @ kernel
    loss, of_kernel = gradients_of(model, x.astype(np.float32))
    np.testing.assert_allclose(model(x.astype(np.float32)), y, atol=1e-5)
    assert error(loss, (y**2).sum()) < 1e-6
    assert error(of_kernel[0, 0], np.einsum("bhwc,bhwd->cd", x[:, ::2, ::2], 2 * y)) < 1e-6
    theirs = keras.Sequential([image, keras.layers.Conv2D(4, 1, strides=2, padding="same", use_bias=False)])
    theirs.set_weights(model.get_weights())
    np.testing.assert_allclose(model(x.astype(np.float32)), theirs(x.astype(np.float32)), atol=1e-5)


def gradients_of(model, x):
    """The sum of the squares of what a model makes of x in training, and its gradients; as a graph."""

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = tf.add_n([tf.reduce_sum(output**2) for output in tf.nest.flatten(outputs)])
        return [loss, *tape.gradient(loss, model.trainable_variables)]

    return step(x)


@pytest.mark.parametrize("has_onednn", [False, True])
def test_a_step_of_a_network_has_the_gradients_of_plain_convolutions(monkeypatch, has_onednn):
    keras.utils.set_random_seed(0)
    model = build_backbone("resnet18", 16, stem="small", preprocessing=Preprocessing(image_size=16)).model
    x = np.random.default_rng(2).random((16, 16, 16, 3), dtype=np.float32)
    monkeypatch.setattr(convolutions, "_has_onednn", lambda: has_onednn)
    fast = gradients_of(model, x)
    monkeypatch.setattr(convolutions, "_has_gpu", lambda: True)
    for found, expected in zip(fast, gradients_of(model, x), strict=True):
        assert error(found, expected) < 1e-5
