"""The two halves of a backbone: together they are the network, each on maps of the size it was made for."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from detection.parts import freeze, parts_of
from tests.detection.small import small_backbone

RESNETS = [
    ("resnet10", {}),
    ("resnet10", {"resnet_version": 1}),
    ("resnet50", {"resnet_version": 1}),
    ("resnet50", {"resnet_version": 1, "layout": "keras"}),
    ("resnet50", {}),
]


@pytest.mark.parametrize(("name", "architecture"), RESNETS)
def test_trunk_and_head_at_its_own_stride_are_the_network(name, architecture):
    backbone = small_backbone(name, **architecture)
    pictures = np.random.default_rng(0).random((2, 96, 128, 3), np.float32)
    wanted = tf.reduce_mean(backbone.model(pictures)["conv5"], axis=[1, 2])
    parts = parts_of(backbone, roi_side=14)
    features, _ = parts.trunk(pictures)
    np.testing.assert_allclose(parts.head(features), wanted, rtol=1e-4, atol=1e-5)
    assert (parts.stride, parts.offset, parts.side) == (16, 0, 14)


@pytest.mark.parametrize(("name", "side"), [("vgg16", 14), ("alexnet", 11)])
def test_what_fc6_saw_is_what_it_sees(name, side):
    backbone = small_backbone(name, width=2, image_size=224)
    pictures = np.random.default_rng(0).random((2, 224, 224, 3), np.float32)
    wanted = backbone.model(pictures)["fc7"][:, 0, 0]
    parts = parts_of(backbone)
    features, _ = parts.trunk(pictures)
    assert (parts.side, parts.stride) == (side, 16)
    np.testing.assert_allclose(parts.head(features[:, :side, :side]), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "architecture"), RESNETS)
def test_at_stride_1_every_position_of_the_head_is_kept(name, architecture):
    """At stride 1 every second position of the first convolution with a stride is what it was at stride 2."""
    backbone = small_backbone(name, **architecture)
    keys = [weight.path for weight in backbone.model.weights]
    pooled = np.random.default_rng(0).random((3, 7, 7, backbone.channels["conv4"]), np.float32)
    parts = parts_of(backbone, roi_side=7)
    last = parts.head.get_layer("conv5_unit1_projection")
    projected = keras.Model(parts.head.inputs[0], last.output)(pooled)
    assert projected.shape[1:3] == (7, 7)
    kernel = backbone.model.get_layer(last.name).kernel
    np.testing.assert_allclose(projected, np.einsum("nhwc,cd->nhwd", pooled, kernel[0, 0]), rtol=1e-4, atol=1e-5)
    assert [layer.strides for layer in parts.head.layers if isinstance(layer, keras.layers.Conv2D)] == [(1, 1)] * sum(
        isinstance(layer, keras.layers.Conv2D) for layer in parts.head.layers
    )
    assert {weight.path for weight in parts.head.weights} <= {*keys}


@pytest.mark.parametrize(("stem", "size", "position"), [("imagenet", 400, 10), ("small", 120, 12)])
def test_alexnets_positions_see_where_anchors_take_them_to_be(stem, size, position):
    """The pixels that a position of the map hangs on, weighted by how much, have their middle there."""
    backbone = small_backbone("alexnet", image_size=67, stem=stem)
    parts = parts_of(backbone)
    pictures = tf.constant(np.random.default_rng(0).random((4, size, size, 3), np.float32))
    with tf.GradientTape() as tape:
        tape.watch(pictures)
        features, _ = parts.trunk(pictures)
        seen = features[:, position, position]
    weight = np.abs(tape.gradient(seen, pictures)).sum(axis=(0, 3))
    rows, columns = (weight.sum(axis=axis) @ np.arange(size) / weight.sum() for axis in (1, 0))
    middle = parts.stride * position + parts.offset + (parts.stride - 1) / 2
    np.testing.assert_allclose([rows, columns], [middle, middle], atol=0.2 * parts.stride)


def test_dropout_lies_behind_the_fully_connected_layers():
    parts = parts_of(small_backbone("vgg16"), dropout=0.5)
    assert [layer.name for layer in parts.head.layers if isinstance(layer, keras.layers.Dropout)] == [
        "fc6_dropout",
        "fc7_dropout",
    ]
    pooled = np.random.default_rng(0).random((2, parts.side, parts.side, 64), np.float32)
    once, again = (parts.head(pooled, training=True).numpy() for _ in range(2))
    assert (once != again).any()
    np.testing.assert_array_equal(parts.head(pooled), parts.head(pooled))


def test_the_extra_norm_learns_where_all_others_are_frozen():
    backbone = small_backbone()
    parts = parts_of(backbone, roi_side=7, extra_norm=True)
    freeze(parts, backbone, 0, "frozen")
    norms = [layer for layer in parts.head.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert [layer.name for layer in norms if layer.trainable] == ["extra_norm"]


@pytest.mark.parametrize("batch_norm", ["local", "synchronised"])
def test_norms_are_synchronised_where_asked_for(batch_norm):
    backbone = small_backbone()
    parts = parts_of(backbone, roi_side=7)
    freeze(parts, backbone, 0, batch_norm)
    norms = [layer for layer in parts.trunk.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms and all(layer.synchronized == (batch_norm == "synchronised") for layer in norms)
