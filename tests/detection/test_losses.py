"""Losses by hand, and per picture."""

import math

import numpy as np
import pytest
import tensorflow as tf

from detection import losses
from detection.targets import AnchorTargets, RoiTargets


def test_up_to_beta_it_is_a_parabola_then_a_line():
    # beta 1/9 is sigma 3: (3 d)^2 / 2 below 1/9, |d| - 1/18 above.
    found = losses.smooth_l1(tf.constant([[0.1, 0], [0, -0.5], [0.1, -0.5]]), 1 / 9)
    np.testing.assert_allclose(found, [0.045, 0.5 - 1 / 18, 0.545 - 1 / 18], rtol=1e-5)
    np.testing.assert_allclose(losses.smooth_l1(tf.constant([[0.5, -2.0, 1.0]]), 1.0), [0.125 + 1.5 + 0.5], rtol=1e-6)


def test_without_beta_it_is_the_sum_of_magnitudes():
    assert losses.smooth_l1(tf.constant([[0.5, -2.0], [0, 0]]), 0).numpy().tolist() == [2.5, 0]


@pytest.mark.parametrize("beta", [0, 1 / 9, 1.0])
def test_the_slope_is_at_most_one(beta):
    difference = tf.constant([[-3.0, -0.05, 0.0, 0.05, 3.0]])
    with tf.GradientTape() as tape:
        tape.watch(difference)
        loss = losses.smooth_l1(difference, beta)
    small = 0.05 / beta if beta else 1
    np.testing.assert_allclose(tape.gradient(loss, difference), [[-1, -small, 0, small, 1]], rtol=1e-5)


def anchor_case():
    """Two pictures with 4 places: an object, a background and two empty places; and nothing at all."""
    deltas = np.zeros((2, 4, 4), np.float32)
    deltas[0, 0] = [0.5, 0, 0, 0]
    targets = AnchorTargets(
        rows=tf.constant([[7, 3, 0, 0], [0] * 4]),
        is_object=tf.constant([[True, False, False, False], [False] * 4]),
        sampled=tf.constant([[True, True, False, False], [False] * 4]),
        deltas=tf.constant(deltas),
    )
    logits = tf.constant([[[0, math.log(3)], [0, math.log(3)], [5, -5], [9, 9]], [[1, 2]] * 4], tf.float32)
    return logits, targets


def test_rpn_losses_are_divided_by_the_sampled_anchors():
    logits, targets = anchor_case()
    told = np.full((2, 4, 4), 30, np.float32)  # of no account but for the object
    told[0, 0] = [0, 0.1, 0, 0]
    of_class, of_box = losses.rpn_losses(logits, tf.constant(told), targets, 1 / 9)
    # p(object) is 3/4 in both: -log 3/4 for the object, -log 1/4 for background, over two sampled anchors.
    np.testing.assert_allclose(of_class, [(math.log(4 / 3) + math.log(4)) / 2, 0], rtol=1e-6)
    np.testing.assert_allclose(of_box, [(0.5 - 1 / 18 + 0.045) / 2, 0], rtol=1e-5)


def test_places_that_are_not_sampled_get_no_gradient():
    logits, targets = anchor_case()
    told = tf.ones([2, 4, 4])
    with tf.GradientTape() as tape:
        tape.watch([logits, told])
        loss = tf.add_n(losses.rpn_losses(logits, told, targets, 1 / 9))
    by_logits, by_deltas = tape.gradient(loss, [logits, told])
    np.testing.assert_allclose(by_logits[0, :2], [[0.125, -0.125], [-0.375, 0.375]], rtol=1e-5)
    assert not by_logits[0, 2:].numpy().any() and not by_logits[1].numpy().any()
    np.testing.assert_allclose(by_deltas[0, 0], [0.5] * 4, rtol=1e-6)
    assert not by_deltas[0, 1:].numpy().any() and not by_deltas[1].numpy().any()


def roi_case():
    """A picture with RoIs of class 2, class 1 and background, and one in which nothing counts."""
    deltas = np.zeros((2, 3, 4), np.float32)
    deltas[0, 0], deltas[0, 1] = [1, 1, 1, 1], [0, 0, 0, 4]
    return RoiTargets(
        boxes=tf.zeros([2, 3, 4]),
        labels=tf.constant([[2, 1, 0], [0, 0, 0]]),
        deltas=tf.constant(deltas),
        counted=tf.constant([[True] * 3, [False] * 3]),
        foreground=tf.constant([2, 0]),
    )


def test_roi_losses_are_divided_by_all_rois():
    targets = roi_case()
    logits = tf.zeros([2, 3, 3])  # p = 1/3 everywhere
    told = np.full((2, 3, 3, 4), 50, np.float32)
    told[0, 0, 2], told[0, 1, 1] = [1, 1, 1, 1.5], [0, 0, 0, 1]
    of_class, of_box = losses.roi_losses(logits, tf.constant(told), targets, 1.0)
    np.testing.assert_allclose(of_class, [math.log(3), 0], rtol=1e-6)
    np.testing.assert_allclose(of_box, [(0.125 + 2.5) / 3, 0], rtol=1e-5)


def test_only_the_deltas_of_the_own_class_learn():
    targets = roi_case()
    told = tf.zeros([2, 3, 3, 4])
    with tf.GradientTape() as tape:
        tape.watch(told)
        _, of_box = losses.roi_losses(tf.zeros([2, 3, 3]), told, targets, 1.0)
    gradient = tape.gradient(of_box, told).numpy()
    expected = np.zeros((2, 3, 3, 4))
    expected[0, 0, 2], expected[0, 1, 1] = [-1 / 3] * 4, [0, 0, 0, -1 / 3]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
