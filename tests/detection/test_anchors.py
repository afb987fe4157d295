"""Anchors against TFR's published values and against a loop over positions."""

import numpy as np
import pytest
import tensorflow as tf

from detection import anchors

SCALES, RATIOS = (8, 16, 32), (0.5, 1, 2)
PUBLISHED = [  # of TFR and py-faster-rcnn, generate_anchors.py
    (-84, -40, 99, 55),
    (-176, -88, 191, 103),
    (-360, -184, 375, 199),
    (-56, -56, 71, 71),
    (-120, -120, 135, 135),
    (-248, -248, 263, 263),
    (-36, -80, 51, 95),
    (-80, -168, 95, 183),
    (-168, -344, 183, 359),
]


def test_the_nine_anchors_are_the_published_ones():
    assert [tuple(row) for row in anchors.base_anchors(SCALES, RATIOS)] == PUBLISHED


def test_fifteen_anchors_of_five_scales():
    found = anchors.base_anchors((2, 4, 8, 16, 32), RATIOS)
    assert found.shape == (15, 4) and found.dtype == np.float64
    assert [tuple(found[row]) for row in (2, 3, 4, 7, 8, 9, 12, 13, 14)] == PUBLISHED
    assert found[0].tolist() == [-15, -4, 30, 19]  # 2 x (23 x 12) around 7.5
    assert found[5].tolist() == [-8, -8, 23, 23]


def test_another_base_is_around_its_own_middle():
    assert anchors.base_anchors((1,), (1,), base=8).tolist() == [[0, 0, 7, 7]]


def test_order_is_rows_columns_anchors():
    found = anchors.grid(anchors.base_anchors(SCALES, RATIOS), (3, 4), 16).numpy().reshape(3, 4, 9, 4)
    for y in range(3):
        for x in range(4):
            expected = np.array(PUBLISHED) + 16 * np.array([x, y, x, y])
            np.testing.assert_array_equal(found[y, x], expected)


def test_a_picture_of_600_by_1000_has_21546():
    found = anchors.grid(anchors.base_anchors(SCALES, RATIOS), (38, 63), 16)
    assert found.shape == (21546, 4) and found.dtype == tf.float32
    assert found[-1].numpy().tolist() == [-168 + 62 * 16, -344 + 37 * 16, 183 + 62 * 16, 359 + 37 * 16]


@pytest.mark.parametrize(("stride", "offset"), [(16, 0.0), (8, 0.0), (16, 9.5), (4, -1.5)])
def test_middles_are_those_of_the_positions(stride, offset):
    """The middle of position p is stride p + offset + (stride - 1) / 2, whatever the base; sides stay as they are."""
    base = anchors.base_anchors((4, 8), (0.5, 2))
    found = anchors.grid(base, (2, 3), stride, offset).numpy().astype(np.float64).reshape(2, 3, 4, 4)
    middles = (found[..., :2] + found[..., 2:]) / 2
    for y in range(2):
        for x in range(3):
            expected = np.array([x, y]) * stride + offset + (stride - 1) / 2
            np.testing.assert_allclose(middles[y, x], np.tile(expected, (4, 1)), atol=1e-5)
    sides = found[..., 2:] - found[..., :2]
    np.testing.assert_allclose(sides, np.broadcast_to(base[:, 2:] - base[:, :2], sides.shape), atol=1e-4)


def test_a_map_whose_size_only_the_graph_knows():
    base = anchors.base_anchors(SCALES, RATIOS)

    @tf.function(input_signature=[tf.TensorSpec([2], tf.int32)])
    def of_size(size):
        return anchors.grid(base, size, 16)

    assert of_size.get_concrete_function().structured_outputs.shape.as_list() == [None, 4]
    for size in ((5, 7), (2, 1)):
        np.testing.assert_array_equal(of_size(tf.constant(size)), anchors.grid(base, size, 16))
