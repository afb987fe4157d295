"""Padded batches: every picture's map is what it would be alone, whatever lies beside it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.backbone import build_backbone
from models.layers import FusedBatchNormalization
from models.padding import OUTSIDE, for_padded_pictures, own_positions, padded_side
from models.preprocessing import Preprocessing

NETWORKS = [
    ("resnet18", "conv4", {}),
    ("resnet18", "conv4", {"batch_norm": False}),
    ("resnet18", "conv5", {"stem": "small"}),
    ("resnet50", "conv4", {"resnet_version": 1}),
    ("resnet50", "conv4", {"resnet_version": 1, "layout": "keras"}),
    ("vgg16", "conv5", {}),
    ("alexnet", "conv5", {}),
    ("alexnet", "conv5", {"sobel": True}),
]


def padded(picture, height, width):
    """`picture` in the upper left corner of a larger one without pixels."""
    whole = np.full((height, width, 3), OUTSIDE, np.float32)
    whole[: picture.shape[0], : picture.shape[1]] = picture
    return whole


def network(name, endpoint, **arguments):
    """A backbone up to `endpoint` whose batch norms shift what they see, and the same for padded pictures."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    backbone = build_backbone(name, width=4, preprocessing=Preprocessing(image_size=67), **arguments)
    for weight in backbone.model.weights:
        if weight.name in ("beta", "bias", "moving_mean"):
            weight.assign(rng.normal(size=weight.shape) * 0.3)
    bare = keras.Model(backbone.model.inputs[0], backbone.model.output[endpoint])
    return bare, for_padded_pictures(bare, "trunk")


@pytest.mark.parametrize(("name", "endpoint", "arguments"), NETWORKS)
def test_a_map_does_not_depend_on_the_padding(name, endpoint, arguments):
    _, trunk = network(name, endpoint, **arguments)
    rng = np.random.default_rng(1)
    for height, width in ((90, 83), (81, 95), (96, 80)):
        picture, other = (rng.random((*size, 3), np.float32) for size in ((height, width), (112, 120)))
        alone = padded(picture, padded_side(height, 16), padded_side(width, 16))
        (map_alone,), sizes_alone = trunk(alone[np.newaxis])
        (map_beside, _), sizes = trunk(np.stack([padded(picture, 112, 128), padded(other, 112, 128)]))
        rows, columns = sizes_alone.numpy()[0]
        np.testing.assert_array_equal(sizes[0], (rows, columns))
        scale = np.abs(map_alone).max()
        np.testing.assert_allclose(map_beside[:rows, :columns], map_alone[:rows, :columns], atol=1e-5 * scale)
        assert not map_beside[rows:].numpy().any() and not map_beside[:, columns:].numpy().any()


@pytest.mark.parametrize(("name", "endpoint", "arguments"), NETWORKS)
def test_without_padding_it_is_the_network_itself(name, endpoint, arguments):
    bare, trunk = network(name, endpoint, **arguments)
    pictures = np.random.default_rng(2).random((2, 96, 80, 3), np.float32)
    (features, sizes), wanted = trunk(pictures), bare(pictures)
    np.testing.assert_allclose(features, wanted, atol=1e-5 * np.abs(wanted).max())
    np.testing.assert_array_equal(sizes, [wanted.shape[1:3]] * 2)
    assert {id(weight) for weight in trunk.weights} == {id(weight) for weight in bare.weights}


def test_batch_norm_takes_its_statistics_from_the_pictures_own_positions():
    inputs = keras.Input((None, None, 3))
    norm = FusedBatchNormalization(momentum=0.0, name="conv1_bn")
    trunk = for_padded_pictures(keras.Model(inputs, norm(inputs)), "trunk")
    rng = np.random.default_rng(3)
    pictures = [rng.random((5, 7, 3), np.float32), rng.random((8, 4, 3), np.float32)]
    trunk(np.stack([padded(picture, 8, 8) for picture in pictures]), training=True)
    values = np.concatenate([picture.reshape(-1, 3) for picture in pictures]).astype(np.float64)
    np.testing.assert_allclose(norm.moving_mean, values.mean(0), atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, values.var(0), atol=1e-6)


def test_own_positions_are_those_within_the_sizes():
    found = own_positions(2, 3, tf.constant([[1, 2], [2, 3], [0, 3]]))
    np.testing.assert_array_equal(found, [[[1, 1, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]], [[0, 0, 0], [0, 0, 0]]])


def test_padded_sides_are_multiples():
    assert [padded_side(side, 16) for side in (1, 16, 17, 600, 1000)] == [16, 16, 32, 608, 1008]
