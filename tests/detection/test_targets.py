"""Which anchors are taken, rule by rule, and against the rules written as loops; pictures of a batch."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.targets import AnchorRules, RoiRules, anchor_targets, roi_targets
from tests.detection import reference
from tests.detection.reference import padded

SIZE = (60, 80)
SEED = (1, 2)


def of_anchors(anchors, boxes, seed=SEED, more=2, size=SIZE, **rules):
    anchors = tf.constant(np.asarray(anchors).reshape(-1, 4), tf.float32)
    return anchor_targets(anchors, size, *padded(boxes, more), tf.constant(seed), AnchorRules(**rules))


def taken(found):
    """Rows of the sampled positive and negative anchors; none may be there twice."""
    rows, is_object, sampled = (one.numpy() for one in (found.rows, found.is_object, found.sampled))
    assert not (is_object & ~sampled).any()
    positive, negative = rows[is_object].tolist(), rows[sampled & ~is_object].tolist()
    assert len(set(positive + negative)) == len(positive + negative)
    return set(positive), set(negative)


def test_anchors_count_by_their_overlap():
    # Of 10 x 10 px: 100/100, 70/100 (at the limit), 60/100 (neither), 30/100 (at the limit, neither), 20/100, none.
    anchors = [[0, 0, 9, 9], [0, 0, 9, 6], [0, 0, 9, 5], [0, 0, 9, 2], [0, 0, 9, 1], [50, 30, 59, 39]]
    assert taken(of_anchors(anchors, [[0, 0, 9, 9]])) == ({0, 1}, {4, 5})


def test_the_best_of_a_box_counts_however_small_its_overlap():
    # 20 of 100 px is below 0.3: positives win over negatives.
    assert taken(of_anchors([[0, 0, 9, 1], [0, 0, 9, 0]], [[0, 0, 9, 9]])) == ({0}, {1})


def test_all_equally_good_anchors_of_a_box_count():
    anchors = [[0, 0, 9, 4], [0, 5, 9, 9], [0, 0, 4, 9], [0, 0, 9, 3]]  # 50, 50, 50, 40 of 100
    assert taken(of_anchors(anchors, [[0, 0, 9, 9]])) == ({0, 1, 2}, set())


def test_a_box_that_no_anchor_touches_makes_none_positive():
    assert taken(of_anchors([[0, 0, 9, 9], [20, 0, 29, 9]], [[50, 30, 59, 39]])) == (set(), {0, 1})


def test_anchors_that_reach_out_of_the_picture_are_not_looked_at():
    anchors = [[-1, 0, 8, 9], [0, -1, 9, 8], [71, 0, 80, 9], [0, 51, 9, 60], [70, 50, 79, 59], [0, 0, 9, 9]]
    assert taken(of_anchors(anchors, [])) == (set(), {4, 5})
    assert taken(of_anchors(anchors, [], across_border=True)) == (set(), {0, 1, 2, 3, 4, 5})
    # IoUs of 90 / 110 and 50 / 100: the latter is neither.
    assert taken(of_anchors([[-1, 0, 8, 9], [0, 0, 4, 9]], [[0, 0, 9, 9]], across_border=True)) == ({0}, set())


def test_an_anchor_outside_is_not_the_best_of_a_box():
    assert taken(of_anchors([[-1, 0, 9, 9], [0, 0, 4, 9]], [[0, 0, 9, 9]])) == ({1}, set())


def test_an_anchor_stands_for_the_box_that_it_overlaps_most():
    # The anchor is the best there is for both boxes (100 of 130 px, and 50 of 110).
    boxes = [[0, 0, 9, 4], [0, 0, 9, 12]]
    found = of_anchors([[0, 0, 9, 9]], boxes, batch=3)
    expected = reference.deltas(boxes[1], [0, 0, 9, 9])
    np.testing.assert_allclose(found.deltas, [expected, [0] * 4, [0] * 4], rtol=1e-5)
    assert found.is_object.numpy().tolist() == [True, False, False]


@pytest.mark.parametrize("more", [0, 1, 5])
def test_a_picture_without_boxes_has_negatives_only(more):
    found = of_anchors([[0, 0, 9, 9], [20, 0, 29, 9]], [], more=more, batch=4)
    assert taken(found) == (set(), {0, 1})
    assert found.rows.shape == (4,) and not found.deltas.numpy().any()


def test_no_anchor_in_the_picture():
    found = of_anchors([[-9, 0, 9, 9], [70, 50, 90, 59]], [[0, 0, 9, 9]], batch=4)
    assert taken(found) == (set(), set()) and found.rows.numpy().tolist() == [0] * 4


def case_of_many(seed=0, count=400):
    rng = np.random.default_rng(seed)
    boxes = reference.random_boxes(rng, 3, SIZE, least=20)
    around = np.round(boxes[rng.integers(0, 3, count)] + rng.normal(0, 4, (count, 4)))
    around[:, 2:] = np.maximum(around[:, 2:], around[:, :2])
    anchors = np.concatenate([around, reference.random_boxes(rng, count, SIZE, least=5)])
    return boxes, anchors


def test_at_most_half_are_positive_and_negatives_fill_up():
    boxes, anchors = case_of_many()
    positive, negative, _ = reference.anchor_sets(anchors, SIZE, boxes, AnchorRules())
    assert len(positive) > 40 and len(negative) > 200  # or the case tells nothing
    for rules, expected in (
        ({"batch": 32}, (16, 16)),
        ({"batch": 32, "positive_fraction": 0.25}, (8, 24)),
        ({"batch": 4 * len(positive)}, (len(positive), min(3 * len(positive), len(negative)))),
        ({"batch": 800}, (len(positive), len(negative))),
    ):
        found = taken(of_anchors(anchors, boxes, **rules))
        assert (len(found[0]), len(found[1])) == expected
        assert found[0] <= positive and found[1] <= negative


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(0, 4), st.integers(1, 60))
def test_anchors_are_those_of_the_rules_as_loops(seed, count, anchor_count):
    rng = np.random.default_rng(seed)
    boxes = reference.random_boxes(rng, count, SIZE, least=8)
    anchors = reference.random_boxes(rng, anchor_count, (72, 92), least=8) - 6
    rules = {"positive": 0.5, "batch": 2 * anchor_count}
    positive, negative, box_of = reference.anchor_sets(anchors, SIZE, boxes, AnchorRules(**rules))
    found = of_anchors(anchors, boxes, seed=(seed, 0), **rules)
    assert taken(found) == (positive, negative)
    for row, is_object, deltas in zip(found.rows.numpy(), found.is_object.numpy(), found.deltas.numpy(), strict=True):
        expected = reference.deltas(boxes[box_of[row]], anchors[row]) if is_object else [0] * 4
        np.testing.assert_allclose(deltas, expected, rtol=1e-4, atol=1e-5)


def test_every_anchor_is_as_likely_as_any_other():
    """8 of 40 positive and 8 of 40 negative anchors, 400 times: each 80 times, with a deviation of 8."""
    anchors = [[0, 0, 9, 9]] * 40 + [[50, 30, 59, 39]] * 40
    boxes, classes = padded([[0, 0, 9, 9]])
    times = np.zeros(80, int)
    draw = tf.function(lambda seed: anchor_targets(tf.constant(anchors, tf.float32), SIZE, boxes, classes, seed, rules))
    rules = AnchorRules(batch=16)
    for seed in range(400):
        found = draw(tf.constant([seed, 7]))
        assert found.sampled.numpy().all()
        times[found.rows.numpy()] += 1
    assert times.sum() == 6400 and abs(times - 80).max() < 48


# -- both in a batch -------------------------------------------------------------------------------------------------


def test_pictures_of_a_batch_one_by_one():
    """In one graph, with sizes that it knows beforehand, as alone."""
    boxes, anchors = case_of_many()
    anchors = tf.constant(anchors, tf.float32)
    truth = tf.stack([padded(boxes)[0], padded([], 5)[0]])
    classes = tf.stack([padded(boxes)[1], padded([], 5)[1]])
    seeds = tf.constant([[1, 2], [3, 4]])

    def of_one(one):
        boxes, classes, seed = one
        return (
            anchor_targets(anchors, SIZE, boxes, classes, seed, AnchorRules(batch=32)),
            roi_targets(anchors, 700, boxes, classes, seed, RoiRules(rois=16)),
        )

    alone = [of_one((truth[row], classes[row], seeds[row])) for row in range(2)]
    kinds = tf.nest.map_structure(lambda one: tf.TensorSpec(one.shape, one.dtype), alone[0])

    @tf.function(input_signature=[tf.TensorSpec([2, None, 4]), tf.TensorSpec([2, None], tf.int32)])
    def of_batch(truth, classes):
        return tf.map_fn(of_one, (truth, classes, seeds), fn_output_signature=kinds)

    together = of_batch(truth, classes)
    for row in range(2):
        for one, other in zip(tf.nest.flatten(together), tf.nest.flatten(alone[row]), strict=True):
            np.testing.assert_allclose(one[row], other, rtol=1e-6, atol=1e-6)
