"""Pooling before a readout: numbers of features worked out by hand, values against a float64 loop."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from la_tf.readout_pooling import feature_count, pool, pooled_shape
from models.backbone import build_backbone

FC = [4096, 4096]
# By hand: largest square side s with s² C <= 9600; maps of more than 200,000 halved until they are not; channels.
FEATURES = {
    "resnet18": {
        "9k": [12 * 12 * 64, 12 * 12 * 64, 8 * 8 * 128, 6 * 6 * 256, 4 * 4 * 512],
        "authors": [28 * 28 * 64, 28 * 28 * 64, 28 * 28 * 128, 14 * 14 * 256, 7 * 7 * 512],
        "global": [64, 64, 128, 256, 512],
    },
    "resnet50": {
        "9k": [9216, 6 * 6 * 256, 4 * 4 * 512, 3 * 3 * 1024, 2 * 2 * 2048],
        "authors": [50176, 14 * 14 * 256, 14 * 14 * 512, 7 * 7 * 1024, 7 * 7 * 2048],
        "global": [64, 256, 512, 1024, 2048],
    },
    "alexnet": {
        "9k": [9216, 7 * 7 * 192, 5 * 5 * 384, 5 * 5 * 384, 6 * 6 * 256, *FC],
        "authors": [54 * 54 * 64, 26 * 26 * 192, 12 * 12 * 384, 12 * 12 * 384, 12 * 12 * 256, *FC],
        "global": [64, 192, 384, 384, 256, *FC],
    },
    "vgg16": {
        "9k": [9216, 8192, 9216, 8192, 8192, *FC],
        # conv1 is 224 x 224: 8 x 8 brings it below, 4 x 4 leaves 200,704
        "authors": [28 * 28 * 64, 28 * 28 * 128, 14 * 14 * 256, 14 * 14 * 512, 14 * 14 * 512, *FC],
        "global": [64, 128, 256, 512, 512, *FC],
    },
}


@pytest.mark.parametrize("name", FEATURES)
def test_the_features_of_every_endpoint_at_224_px(name):
    narrow = build_backbone(name, width=1)  # all channels are multiples of the width, which is 64 in the standard ones
    shapes = narrow.model.compute_output_shape((1, 224, 224, 3))
    for pooling, expected in FEATURES[name].items():
        found = [feature_count((*shape[1:3], 64 * shape[3]), pooling) for shape in shapes.values()]
        assert found == expected, pooling


def test_the_dimensions_of_the_authors_are_those_they_have():
    assert FEATURES["resnet18"]["authors"] == [50176, 50176, 100352, 50176, 25088]
    assert FEATURES["resnet50"]["authors"] == [50176, 50176, 100352, 50176, 100352]
    assert FEATURES["alexnet"]["authors"][:5] == [186624, 129792, 55296, 55296, 36864]


def test_small_maps_are_not_blown_up_and_wide_ones_keep_one_place():
    assert pooled_shape((4, 4, 16), "9k") == (4, 4, 16)
    assert pooled_shape((3, 30, 64), "9k") == (3, 12, 64)
    assert pooled_shape((7, 7, 20_000), "9k") == (1, 1, 20_000)
    assert pooled_shape((1, 1, 300_000), "authors") == (1, 1, 300_000)


def test_vectors_pass_through():
    vectors = np.random.default_rng(0).random((3, 20_000), np.float32)
    for pooling in ("9k", "authors", "global"):
        assert feature_count((20_000,), pooling) == 20_000
        np.testing.assert_array_equal(pool(vectors, (20_000,), pooling), vectors)


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="pooling='10k': choose one of 9k, authors, global"):
        pooled_shape((4, 4, 8), "10k")


def counting(channels):
    """One picture, 3 x 3: 1 to 9 by rows in the first channel, zeros in the others."""
    maps = np.zeros((1, 3, 3, channels), np.float32)
    maps[0, :, :, 0] = np.arange(1, 10).reshape(3, 3)
    return maps


@pytest.mark.parametrize(
    ("channels", "pooling", "expected"),
    [
        (8, "global", [[5]]),
        (2400, "9k", [[3, 4], [6, 7]]),  # 2 x 2 squares that share the middle
        (2400, "authors", [[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        (30_000, "authors", [[3, 4.5], [7.5, 9]]),  # 270,000 are too many; the border's windows are cut short
    ],
)
def test_pooled_values_by_hand(channels, pooling, expected):
    maps = counting(channels)
    pooled = pool(maps, maps.shape[1:], pooling).numpy()
    assert pooled.shape == (1, np.size(expected) * channels)
    places = pooled.reshape(*np.shape(expected), channels)
    np.testing.assert_allclose(places[:, :, 0], expected, rtol=1e-6)
    assert not places[:, :, 1:].any()


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([300, 600, 1066, 2400, 9600]),
    pooling=st.sampled_from(["9k", "global"]),
)
def test_adaptive_pooling_is_the_mean_of_each_bin(height, width, channels, pooling):
    maps = np.random.default_rng(height * 10 + width).normal(size=(2, height, width, channels))
    side = 1 if pooling == "global" else int(math.sqrt(9600 / channels))
    rows, columns = min(side, height), min(side, width)
    expected = np.zeros((2, rows, columns, channels))
    for i in range(rows):
        for j in range(columns):
            top, bottom = math.floor(i * height / rows), math.ceil((i + 1) * height / rows)
            left, right = math.floor(j * width / columns), math.ceil((j + 1) * width / columns)
            expected[:, i, j] = maps[:, top:bottom, left:right].mean(axis=(1, 2))
    found = pool(maps.astype(np.float32), (height, width, channels), pooling)
    np.testing.assert_allclose(found, expected.reshape(2, -1), atol=2e-6)


@pytest.mark.parametrize("pooling", ["9k", "authors", "global"])
def test_maps_of_half_precision_and_of_unknown_size_become_float32(pooling):
    maps = counting(30_000)
    graph = tf.function(
        lambda maps: pool(maps, (3, 3, 30_000), pooling), [tf.TensorSpec([None, None, None, None], tf.float16)]
    )
    found = graph(maps.astype(np.float16))
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, pool(maps, (3, 3, 30_000), pooling))
