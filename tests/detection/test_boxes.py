"""Overlaps by hand and box by box; deltas by hand, and back again."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from detection import boxes
from tests.detection import reference


def floats(values):
    return tf.constant(values, tf.float32)


def test_corners_belong_to_a_box():
    # 10 x 10 px each, 5 x 10 of them common: 50 / 150. Without the + 1 it would be 36 / 126.
    found = boxes.iou(floats([[0, 0, 9, 9]]), floats([[5, 0, 14, 9], [0, 0, 9, 9], [9, 9, 12, 12], [10, 0, 14, 9]]))
    np.testing.assert_allclose(found, [[1 / 3, 1, 1 / 115, 0]], rtol=1e-6)


def test_one_pixel_has_an_area():
    assert boxes.areas(floats([[3, 4, 3, 4], [0, 0, 9, 1], [5, 0, 3, 9]])).numpy().tolist() == [1, 20, 0]


def test_boxes_without_area_overlap_nothing():
    nothing = floats([[5, 5, 4, 4]])
    assert boxes.iou(nothing, nothing).numpy().tolist() == [[0]]


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (17, 11)])
def test_overlaps_are_those_of_every_pair(n, m):
    rng = np.random.default_rng(n)
    a, b = (reference.random_boxes(rng, count, (30, 40)) for count in (n, m))
    np.testing.assert_allclose(boxes.iou(floats(a), floats(b)), reference.overlaps(a, b), rtol=1e-5, atol=1e-7)


def test_deltas_by_hand():
    # The reference is 10 x 20 px with its middle at (5, 10); the box 20 x 10 px with its middle at (15, 15).
    found = boxes.encode(floats([[5, 10, 24, 19]]), floats([[0, 0, 9, 19]]))
    np.testing.assert_allclose(found, [[1, 0.25, math.log(2), math.log(0.5)]], rtol=1e-6)


def test_no_delta_leads_nowhere_else():
    references = floats([[0, 0, 9, 19], [-84, -40, 99, 55]])
    np.testing.assert_allclose(boxes.decode(tf.zeros([2, 4]), references), references, atol=1e-5)


sides = st.tuples(st.floats(-500, 1500), st.floats(0, 900)).map(lambda pair: (pair[0], pair[0] + pair[1]))
any_box = st.tuples(sides, sides).map(lambda pair: [pair[0][0], pair[1][0], pair[0][1], pair[1][1]])


@settings(deadline=None, max_examples=100)
@given(any_box, any_box)
def test_decoding_undoes_encoding(box, other):
    pair = np.array([box, other])
    widths = pair[:, 2:] - pair[:, :2] + 1
    if (widths[0] / widths[1]).max() > 60:  # beyond the largest factor
        return
    encoded = boxes.encode(floats([box]), floats([other]))
    np.testing.assert_allclose(encoded, [reference.deltas(box, other)], rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(boxes.decode(encoded, floats([other])), [box], rtol=1e-4, atol=0.1)


def test_a_factor_has_a_largest_value():
    # 16 px x 1000 / 16 around the middle, 8: -492 to 508 - 1; nothing overflows.
    found = boxes.decode(floats([[0, 0, 100, 5]]), floats([[0, 0, 15, 15]]))
    np.testing.assert_allclose(found, [[-492, -492, 507, 507]], rtol=1e-5)


def test_a_factor_has_no_least_value():
    found = boxes.decode(floats([[0, 0, math.log(1 / 160), 0]]), floats([[0, 0, 159, 159]]))
    np.testing.assert_allclose(found, [[79.5, 0, 79.5, 159]], rtol=1e-5)


def test_corners_are_moved_into_the_picture():
    # 20 px high, 30 px wide: the last pixels are 19 and 29.
    found = boxes.clip(floats([[-5, -1, 40, 40], [3, 4, 5, 6], [50, 50, 60, 60]]), (20, 30))
    assert found.numpy().tolist() == [[0, 0, 29, 19], [3, 4, 5, 6], [29, 19, 29, 19]]
