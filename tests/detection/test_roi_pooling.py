"""RoI pooling against a loop over points, worked examples, and what padding must not do."""

import numpy as np
import pytest
import tensorflow as tf

from detection.roi_pooling import legacy_crop, roi_align
from tests.detection import reference

RAMP = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
BOTH = pytest.mark.parametrize(
    ("pool", "slow"), [(legacy_crop, reference.legacy_crop), (roi_align, reference.roi_align)], ids=["legacy", "align"]
)


def on_ramp(pool, box, side=4, stride=1, **options):
    box = tf.constant([box], tf.float32)
    return pool(tf.constant(RAMP), box, tf.zeros([1], tf.int32), tf.constant([[5, 5]]), side, stride, **options)


def test_aligned_bins_on_a_ramp():
    # The continuous box (1, 1) to (3, 3); rows and columns at 0.75, 1.25, 1.75, 2.25: 5 y + x.
    middles = np.array([0.75, 1.25, 1.75, 2.25])
    found = on_ramp(roi_align, [1, 1, 2, 2])[0, :, :, 0].numpy()
    np.testing.assert_allclose(found, 5 * middles[:, None] + middles, rtol=1e-6)
    assert found[0, 0] == 4.5 and found[-1, -1] == 13.5


def test_points_from_corner_to_corner_on_a_ramp():
    points = np.linspace(1, 3, 4)
    found = on_ramp(legacy_crop, [1, 1, 3, 3])[0, :, :, 0].numpy()
    np.testing.assert_allclose(found, 5 * points[:, None] + points, rtol=1e-6)
    np.testing.assert_allclose([found[0, 0], found[-1, -1]], [6, 18], rtol=1e-6)


def test_a_single_point_is_in_the_middle():
    np.testing.assert_allclose(on_ramp(legacy_crop, [1, 1, 3, 3], side=1), [[[[12]]]])
    np.testing.assert_allclose(on_ramp(roi_align, [1, 1, 3, 3], side=1), [[[[12]]]])


def test_beyond_the_map_legacy_points_are_zero():
    found = on_ramp(legacy_crop, [-1, 3, 1, 5], side=3)[0, :, :, 0].numpy()
    assert found.tolist() == [[0, 15, 16], [0, 20, 21], [0, 0, 0]]


def test_a_point_on_the_last_position_is_not_beyond():
    """However the coordinates are rounded: these are of TFR's kind, a picture's edge in px by the stride."""
    for side in range(2, 15):
        found = on_ramp(legacy_crop, [0, 0, 64 * 0.9999999, 64 * 1.0000001], side=side, stride=16)[0, :, :, 0].numpy()
        np.testing.assert_allclose(found[-1, -1], 24, rtol=1e-4)


def test_aligned_points_beyond_take_the_value_at_the_edge():
    # Rows at -0.375, -0.125, 0.125, 0.375: the first two are row 0, the others 0.25 in the mean. Columns in the mean
    # at 1.75 and 2.25.
    found = on_ramp(roi_align, [2, 0, 2, 0], side=2)[0, :, :, 0].numpy()
    np.testing.assert_allclose(found, [[1.75, 2.25], [1.25 + 1.75, 1.25 + 2.25]], atol=1e-6)
    # Wherever the box ends: column 0 of row 2.
    np.testing.assert_allclose(on_ramp(roi_align, [-30, 2, -20, 2], side=1), [[[[10]]]], rtol=1e-6)


@pytest.mark.parametrize(("stride", "offset"), [(16, 0.0), (8, 0.0), (16, 9.5), (16, -3.0)])
@pytest.mark.parametrize("side", [1, 2, 7])
@BOTH
def test_every_value_is_that_of_a_loop(pool, slow, side, stride, offset):
    """Two pictures with maps of their own sizes; boxes anywhere in them and a little outside."""
    rng = np.random.default_rng(side)
    sizes = np.array([[6, 9], [8, 4]])
    features = np.zeros((2, 8, 9, 3))
    for row, (height, width) in enumerate(sizes):
        features[row, :height, :width] = rng.normal(size=(height, width, 3))
    rows = rng.integers(0, 2, 12)
    boxes = np.concatenate([reference.random_boxes(rng, 1, sizes[row] * stride + 12) for row in rows]) - 6
    found = pool(
        *(tf.constant(features, tf.float32), tf.constant(boxes, tf.float32)),
        *(tf.constant(rows, tf.int32), tf.constant(sizes, tf.int32), side, stride, offset),
    )
    for row, box, one in zip(rows, boxes, found.numpy(), strict=True):
        height, width = sizes[row]
        np.testing.assert_allclose(one, slow(features[row, :height, :width], box, side, stride, offset), atol=2e-5)


def padded_case(seed):
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 24, 2)
    features = rng.normal(size=(1, *size, 5)).astype(np.float32)
    boxes = reference.random_boxes(rng, 40, size * 16) + rng.uniform(-9, 9, (40, 4))
    return size, features, tf.constant(boxes, tf.float32)


@pytest.mark.parametrize("seed", range(6))
@BOTH
def test_padding_changes_no_bit(pool, slow, seed):
    """A picture alone, and in a batch of larger ones, even with rubbish in the padding."""
    size, features, boxes = padded_case(seed)
    rows = np.zeros(40, np.int32)
    alone = pool(features, boxes, rows, tf.constant([size], tf.int32), 7, 16)
    assert np.isfinite(alone).all()
    for more in ((0, 1), (5, 0), (40, 11)):
        larger = np.full((2, *(size + more), 5), np.nan, np.float32)
        larger[1, : size[0], : size[1]] = features[0]
        sizes = tf.constant([size + more, size], tf.int32)
        np.testing.assert_array_equal(pool(larger, boxes, rows + 1, sizes, 7, 16), alone)


@BOTH
def test_the_gradient_is_that_of_a_linear_map(pool, slow):
    """<g, P f> = <P' g, f> for the P of the loop: column by column of the smallest maps."""
    rng = np.random.default_rng(0)
    sizes = tf.constant([[2, 3], [3, 2]])
    features = tf.zeros([2, 3, 4, 1])
    boxes = reference.random_boxes(rng, 6, (30, 30))
    rows = np.array([0, 1, 0, 1, 0, 0], np.int32)
    weights = rng.normal(size=(6, 2, 2, 1))
    with tf.GradientTape() as tape:
        tape.watch(features)
        found = pool(features, tf.constant(boxes, tf.float32), rows, sizes, 2, 16)
        total = tf.reduce_sum(found * weights.astype(np.float32))
    expected = np.zeros((2, 3, 4, 1))
    for row, (height, width) in enumerate(sizes.numpy()):
        for y in range(height):
            for x in range(width):
                unit = np.zeros((height, width, 1))
                unit[y, x] = 1
                for box, weight in zip(boxes[rows == row], weights[rows == row], strict=True):
                    expected[row, y, x, 0] += (slow(unit, box, 2, 16, 0.0) * weight).sum()
    np.testing.assert_allclose(tape.gradient(total, features), expected, atol=1e-5)


@BOTH
def test_no_gradient_flows_to_boxes(pool, slow):
    boxes = tf.constant([[1.0, 1, 3, 3]])
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        total = tf.reduce_sum(pool(tf.constant(RAMP), boxes, tf.zeros([1], tf.int32), tf.constant([[5, 5]]), 2, 1))
    assert tape.gradient(total, boxes) is None


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
@BOTH
def test_half_precision_stays_half(pool, slow, dtype):
    box, rows, sizes = tf.constant([[1.0, 1, 3, 3]]), tf.zeros([1], tf.int32), tf.constant([[5, 5]])
    found = pool(tf.cast(RAMP, dtype), box, rows, sizes, 4, 1)
    assert found.dtype == dtype
    np.testing.assert_allclose(tf.cast(found, tf.float32), on_ramp(pool, [1, 1, 3, 3]), rtol=1e-2)


@BOTH
def test_maps_whose_size_only_the_graph_knows(pool, slow):
    """And no boxes at all."""

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, None, 1]),
            tf.TensorSpec([None, 4]),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, 2], tf.int32),
        ]
    )
    def pooled(features, boxes, rows, sizes):
        return pool(features, boxes, rows, sizes, 4, 1)

    assert pooled.get_concrete_function().structured_outputs.shape.as_list() == [None, 4, 4, 1]
    sizes = tf.constant([[5, 5]])
    box, rows = tf.constant([[1.0, 1, 3, 3]]), tf.zeros([1], tf.int32)
    np.testing.assert_array_equal(pooled(tf.constant(RAMP), box, rows, sizes), on_ramp(pool, [1, 1, 3, 3]))
    assert pooled(tf.constant(RAMP), box[:0], rows[:0], sizes).shape == (0, 4, 4, 1)
