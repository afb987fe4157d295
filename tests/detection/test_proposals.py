"""Proposals against a greedy suppression in NumPy; what is not finite; fixed sizes."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.anchors import base_anchors, grid
from detection.proposals import proposals
from tests.detection import reference

SIZE = (60, 80)
INFINITY, NAN = float("inf"), float("nan")


def of_boxes(boxes, scores, size=SIZE, **options):
    """Proposals where the anchors are the boxes themselves: no delta moves them."""
    anchors = tf.constant(boxes, tf.float32)
    return proposals(tf.constant(scores, tf.float32), tf.zeros_like(anchors), anchors, size, **options)


def test_the_best_come_first_and_zeros_last():
    boxes = [[0, 0, 9, 9], [40, 40, 59, 59], [20, 0, 29, 9]]
    found, scores, count = of_boxes(boxes, [-1, 2.5, 0.5], keep=5)
    np.testing.assert_allclose(found, [boxes[1], boxes[2], boxes[0], [0] * 4, [0] * 4], atol=1e-5)
    assert scores.numpy().tolist() == [2.5, 0.5, -1, 0, 0] and int(count) == 3


def test_corners_belong_to_a_box():
    # 100 of 130 px are common: 0.769. Between the corners taken for points it is 81 / 108 = 0.75.
    boxes = [[0, 0, 9, 9], [0, 0, 9, 12]]
    assert int(of_boxes(boxes, [1, 0], threshold=0.76)[2]) == 1
    assert int(of_boxes(boxes, [1, 0], threshold=0.78)[2]) == 2


def test_what_is_suppressed_suppresses_nothing():
    # Neighbours share 8 of 12 columns (2/3), the outer ones 6 of 14: with the middle one gone both stay.
    boxes = [[0, 0, 9, 9], [2, 0, 11, 9], [4, 0, 13, 9]]
    found, _, count = of_boxes(boxes, [3, 2, 1], threshold=0.6, keep=3)
    assert int(count) == 2
    np.testing.assert_allclose(found[:2], [boxes[0], boxes[2]], atol=1e-5)


def test_deltas_move_and_the_picture_clips():
    # The middle of 20 x 20 px goes one width to the right; twice as wide: 20 + 10 - 20 to 30 + 20 - 1.
    deltas = tf.constant([[1, 0, np.log(2), 0]], tf.float32)
    found, _, _ = proposals(tf.zeros([1]), deltas, tf.constant([[0.0, 0, 19, 19]]), (15, 40), keep=1)
    np.testing.assert_allclose(found, [[10, 0, 39, 14]], atol=1e-4)


def test_no_box_is_too_small():
    assert int(of_boxes([[3, 3, 3, 3], [7, 7, 7, 8]], [0, 0])[2]) == 2


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 60), st.sampled_from([0.3, 0.5, 0.7]), st.integers(1, 40))
def test_suppression_is_that_of_a_loop(seed, count, threshold, keep):
    rng = np.random.default_rng(seed)
    boxes = reference.random_boxes(rng, count, SIZE, least=8)
    scores = rng.permutation(count).astype(np.float64)
    expected = reference.suppression(boxes, scores, threshold + 1e-6, keep)  # equal to the threshold stays
    found, found_scores, found_count = of_boxes(boxes, scores, threshold=threshold + 1e-6, keep=keep)
    assert int(found_count) == len(expected)
    np.testing.assert_allclose(found[: len(expected)], boxes[expected], atol=1e-4)
    assert found_scores.numpy()[: len(expected)].tolist() == scores[expected].tolist()
    assert not found.numpy()[len(expected) :].any() and found.shape == (keep, 4)


def test_a_limit_before_suppression_leaves_the_best():
    boxes = [[0, 0, 9, 9], [0, 0, 9, 9], [40, 40, 59, 59]]
    assert int(of_boxes(boxes, [3, 2, 1], before_nms=2)[2]) == 1
    assert int(of_boxes(boxes, [3, 2, 1], before_nms=3)[2]) == 2
    assert int(of_boxes(boxes, [3, 2, 1], before_nms=12000)[2]) == 2


@pytest.mark.parametrize("broken", [NAN, INFINITY, -INFINITY])
def test_scores_that_are_not_finite_are_left_out(broken):
    boxes = [[0, 0, 9, 9], [20, 20, 29, 29], [40, 40, 59, 59]]
    found, scores, count = of_boxes(boxes, [broken, 1, broken], keep=3)
    assert int(count) == 1 and scores.numpy().tolist() == [1, 0, 0]
    np.testing.assert_allclose(found[0], boxes[1], atol=1e-5)


@pytest.mark.parametrize("broken", [NAN, INFINITY, -INFINITY, 3e38, -3e38])
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("limit", [None, 2])
def test_deltas_without_measure_give_boxes_in_the_picture(broken, place, limit):
    anchors = tf.constant([[0, 0, 9, 9], [20, 20, 29, 29]], tf.float32)
    deltas = np.zeros((2, 4), np.float32)
    deltas[0, place] = broken
    found, _, count = proposals(tf.constant([1.0, 0]), tf.constant(deltas), anchors, SIZE, keep=2, before_nms=limit)
    assert np.isfinite(found).all() and int(count) >= 1
    assert (found.numpy() >= 0).all() and (found.numpy() <= [79, 59, 79, 59]).all()
    if not np.isfinite(broken):
        assert int(count) == 1


def test_nothing_finite_at_all():
    found, scores, count = of_boxes([[0, 0, 9, 9]] * 3, [NAN] * 3, keep=4)
    assert int(count) == 0 and not found.numpy().any() and not scores.numpy().any()


def test_no_anchors_at_all():
    found, _, count = of_boxes(np.zeros((0, 4)), [], keep=4)
    assert int(count) == 0 and found.shape == (4, 4)


def test_pictures_of_a_batch_one_by_one():
    """Sizes are known in the graph whatever the map, and each picture gets what it gets alone."""
    rng = np.random.default_rng(3)
    base = base_anchors((1, 2), (0.5, 1, 2))
    anchors = grid(base, (4, 5), 16)
    scores = tf.constant(rng.normal(size=(2, len(anchors))), tf.float32)
    deltas = tf.constant(rng.normal(0, 0.3, (2, len(anchors), 4)), tf.float32)
    sizes = tf.constant([[60, 80], [50, 64]])

    @tf.function(input_signature=[tf.TensorSpec([2, None]), tf.TensorSpec([2, None, 4]), tf.TensorSpec([None, 4])])
    def of_batch(scores, deltas, anchors):
        kinds = tf.TensorSpec([12, 4]), tf.TensorSpec([12]), tf.TensorSpec([], tf.int32)
        return tf.map_fn(
            lambda one: proposals(one[0], one[1], anchors, one[2], keep=12),
            (scores, deltas, sizes),
            fn_output_signature=kinds,
        )

    shapes = [one.shape.as_list() for one in of_batch.get_concrete_function().structured_outputs]
    assert shapes == [[2, 12, 4], [2, 12], [2]]
    together = of_batch(scores, deltas, anchors)
    for row in range(2):
        alone = proposals(scores[row], deltas[row], anchors, sizes[row], keep=12)
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_array_equal(one[row], other)


def test_no_gradient_flows():
    scores, deltas = tf.constant([1.0, 0]), tf.zeros([2, 4])
    anchors = tf.constant([[0, 0, 9, 9], [20, 20, 29, 29]], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch([scores, deltas])
        found = proposals(scores, deltas, anchors, SIZE, keep=2)
        total = tf.reduce_sum(found[0]) + tf.reduce_sum(found[1])
    assert tape.gradient(total, [scores, deltas]) == [None, None]
