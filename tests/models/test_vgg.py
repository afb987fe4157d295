"""VGG16 against parameter counts and sizes by hand and against a float64 NumPy network."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_sample_image

from models import Preprocessing, build_backbone
from tests.models.reference import assert_equals_the_reference

ENDPOINTS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]


def vgg16(width=1, image_size=224, **kwargs):
    return build_backbone("vgg16", width=width, preprocessing=Preprocessing(image_size=image_size), **kwargs)


def parameters(backbone):
    return sum(np.prod(weight.shape) for weight in backbone.model.trainable_weights)


# --- parameter counts ---------------------------------------------------------------------------------------


def counts(width):
    """The numbers in the 15 kernels at 224 px and the channels behind them, each with a bias or a gamma and a beta."""
    a, b, c, d, units = width, 2 * width, 4 * width, 8 * width, 64 * width
    pairs = [(3, a), (a, a), (a, b), (b, b), (b, c), (c, c), (c, c), (c, d), (d, d), (d, d), (d, d), (d, d), (d, d)]
    kernels = sum(9 * c_in * c_out for c_in, c_out in pairs) + 7 * 7 * d * units + units * units
    return kernels, sum(c_out for _, c_out in pairs) + 2 * units


def test_the_standard_network_has_the_known_parameters():
    known = 138_357_544 - (4096 * 1000 + 1000)  # Simonyan and Zisserman's network D without its class layer
    assert sum(counts(64)) == known == 134_260_544
    backbone = vgg16(64, batch_norm=False)
    assert parameters(backbone) == known
    shapes = backbone.model.compute_output_shape((1, 224, 224, 3))
    assert [shapes[endpoint][1:] for endpoint in ENDPOINTS] == [
        (224, 224, 64),
        (112, 112, 128),
        (56, 56, 256),
        (28, 28, 512),
        (14, 14, 512),
        (1, 1, 4096),
        (1, 1, 4096),
    ]


@pytest.mark.parametrize("width", [1, 3])
def test_batch_norm_takes_the_place_of_biases(width):
    kernels, channels = counts(width)
    assert parameters(vgg16(width)) == kernels + 2 * channels
    assert parameters(vgg16(width, batch_norm=False)) == kernels + channels


# --- layers, shapes and strides -----------------------------------------------------------------------------


def test_batch_norm_follows_all_fifteen_and_comes_before_the_relu():
    kinds = [type(layer).__name__ for layer in vgg16().model.layers]
    places = [place for place, kind in enumerate(kinds) if kind in ("SameConvolution", "ValidConvolution")]
    assert len(places) == 15
    assert all(kinds[place + 1 : place + 3] == ["FusedBatchNormalization", "ReLU"] for place in places)
    assert kinds.count("FusedBatchNormalization") == kinds.count("ReLU") == 15
    assert kinds.count("MaxPooling2D") == 5


@pytest.mark.parametrize(
    ("image_size", "size", "expected"),
    [
        (32, (32, 32), [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]),
        (95, (95, 95), [(95, 95), (47, 47), (23, 23), (11, 11), (5, 5), (1, 1), (1, 1)]),
        (64, (150, 64), [(150, 64), (75, 32), (37, 16), (18, 8), (9, 4), (3, 1), (3, 1)]),
    ],
)
def test_endpoint_shapes(image_size, size, expected):
    backbone = vgg16(image_size=image_size)
    outputs = backbone.model(np.zeros((2, *size, 3), np.float32))
    assert [outputs[endpoint].shape[1:3] for endpoint in ENDPOINTS] == expected
    assert list(backbone.strides.values()) == [1, 2, 4, 8, 16, 32, 32]
    assert backbone.last == "fc7"


def test_smaller_pictures_are_refused():
    model = vgg16(image_size=80).model  # fc6 of 2 x 2: 64 px still fill it
    traced = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 3))])
    for call in (model, traced):
        assert call(tf.zeros((1, 64, 64, 3)))["fc7"].shape == (1, 1, 1, 64)
        with pytest.raises(tf.errors.InvalidArgumentError, match="needs at least 64 px"):
            call(tf.zeros((1, 64, 63, 3)))


# --- the function -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image_size", "size", "options"),
    [
        (64, (100, 70), {}),  # 100, 50, 25, 12, 6, 3 and 70, 35, 17, 8, 4, 2; fc6 of 2 x 2 gives 2 x 1
        (32, (32, 32), {"batch_norm": False, "sobel": True}),
    ],
)
def test_endpoints_equal_a_float64_network(image_size, size, options):
    assert_equals_the_reference(vgg16(3, image_size, **options), size)


def test_fresh_activations_keep_their_size_without_batch_norm():
    # A variance of 1 / fan-in would halve their square 15 times: a factor of 1 / 180.
    keras.utils.set_random_seed(0)
    model = vgg16(16, image_size=64, batch_norm=False).model
    noise = np.random.default_rng(0).random((64, 64, 3))
    photograph = load_sample_image("flower.jpg")[100:164, 200:264] / 255
    outputs = model(np.stack([noise, photograph]).astype(np.float32))
    size = {endpoint: np.sqrt(np.mean(np.square(output), axis=(1, 2, 3))) for endpoint, output in outputs.items()}
    assert np.all((size["fc7"] > size["conv1"] / 5) & (size["fc7"] < size["conv1"] * 5)), size
