"""Which anchors and proposals are taken, rule by rule, and against the rules written as loops."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from detection import targets
from detection.targets import AnchorRules, RoiRules, anchor_targets, proposal_recall, roi_targets
from tests.detection import reference

SIZE = (60, 80)
SEED = (1, 2)


def padded(boxes, more=2):
    """True boxes and classes 1, 2, ... with `more` boxes of padding after them."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    classes = np.concatenate([1 + np.arange(len(boxes)), np.zeros(more)]).astype(np.int32)
    return tf.constant(np.concatenate([boxes, np.zeros((more, 4), np.float32)])), tf.constant(classes)


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


# -- anchors ---------------------------------------------------------------------------------------------------------


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
    assert taken(of_anchors(anchors, [], border=1.5)) == (set(), set(range(6)))


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
@given(st.integers(0, 2**31), st.integers(0, 4), st.integers(1, 60), st.sampled_from([0.0, 6.0]))
def test_anchors_are_those_of_the_rules_as_loops(seed, count, anchor_count, border):
    rng = np.random.default_rng(seed)
    boxes = reference.random_boxes(rng, count, SIZE, least=8)
    anchors = reference.random_boxes(rng, anchor_count, (72, 92), least=8) - 6
    rules = {"positive": 0.5, "batch": 2 * anchor_count, "border": border}
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


# -- proposals -------------------------------------------------------------------------------------------------------


def of_proposals(proposals, boxes, seed=SEED, count=None, more=2, **rules):
    proposals = np.asarray(proposals, np.float32).reshape(-1, 4)
    count = len(proposals) if count is None else count
    return roi_targets(tf.constant(proposals), count, *padded(boxes, more), tf.constant(seed), RoiRules(**rules))


def rows_of(found, proposals):
    """The row of each drawn box among `proposals`, none of which are equal."""
    return [np.flatnonzero((np.asarray(proposals) == box).all(axis=1)).item() for box in found.boxes.numpy()]


def test_proposals_count_by_their_overlap():
    # 50 of 100 px is foreground, 49 of 100 background, and nothing in common as well.
    proposals = [[0, 0, 9, 4], [0, 0, 48, 0], [50, 30, 59, 39]]
    found = of_proposals(proposals, [[0, 0, 9, 9]], rois=4, foreground_fraction=0.5)
    assert found.labels.numpy().tolist() == [1, 0, 0, 0] and int(found.foreground) == 1
    rows = rows_of(found, proposals)
    assert rows[0] == 0 and set(rows[1:]) <= {1, 2}


def test_little_overlap_can_be_left_out_of_the_background():
    # 9 and 10 of 100 px.
    proposals = [[0, 0, 8, 0], [0, 0, 9, 0]]
    found = of_proposals(proposals, [[0, 0, 9, 9]], rois=4, background_low=0.1)
    assert rows_of(found, proposals) == [1] * 4 and found.counted.numpy().all()


def test_labels_and_deltas_are_those_of_the_nearest_box():
    boxes = [[0, 0, 9, 9], [40, 20, 59, 39]]
    proposals = [[42, 20, 59, 39], [0, 0, 9, 8]]
    found = of_proposals(proposals, boxes, rois=2, foreground_fraction=1.0)
    stds = [0.1, 0.1, 0.2, 0.2]
    for row, label, deltas in zip(rows_of(found, proposals), found.labels.numpy(), found.deltas.numpy(), strict=True):
        nearest = 1 - row
        assert label == nearest + 1
        expected = reference.deltas(boxes[nearest], proposals[row]) / stds
        np.testing.assert_allclose(deltas, expected, rtol=1e-4, atol=1e-5)


def many_proposals(foreground, background):
    """Proposals with 9 x 6 px or more of the box in common, and such that share nothing with it; none are equal."""
    near = [[0, 0, 9, 9 + 0.01 * row] for row in range(foreground)]
    return np.array(near + [[20 + row, 30, 29 + row, 39] for row in range(background)], np.float32).reshape(-1, 4)


@pytest.mark.parametrize(
    ("foreground", "background", "expected"),
    [
        (20, 20, 4),  # enough of both: a quarter
        (3, 20, 3),  # too little foreground: background fills up
        (3, 2, 3),  # too little background: it is drawn with replacement
        (0, 5, 0),
        (20, 0, 16),  # no background: all are foreground
        (5, 0, 16),  # with replacement
    ],
)
def test_all_places_are_filled(foreground, background, expected):
    proposals = many_proposals(foreground, background)
    for seed in range(5):
        found = of_proposals(proposals, [[0, 0, 9, 9]], seed=(seed, 3), rois=16)
        rows = np.array(rows_of(found, proposals))
        assert int(found.foreground) == expected and found.counted.numpy().all()
        assert found.labels.numpy().tolist() == [1] * expected + [0] * (16 - expected)
        assert (rows[:expected] < foreground).all() and (rows[expected:] >= foreground).all()
        for drawn, available in ((rows[:expected], foreground), (rows[expected:], background)):
            assert len(set(drawn)) == len(drawn) or available < len(drawn)
        assert not found.deltas.numpy()[expected:].any()


def test_neither_foreground_nor_background():
    found = of_proposals([[0, 0, 9, 0]], [[0, 0, 9, 9]], rois=4, background_low=0.2)
    assert not found.counted.numpy().any() and not found.labels.numpy().any() and int(found.foreground) == 0
    assert found.boxes.shape == (4, 4) and not found.deltas.numpy().any()


def test_no_proposals_at_all():
    found = of_proposals(np.zeros((5, 4)), [[0, 0, 9, 9]], count=0, rois=4)
    assert not found.counted.numpy().any()


@pytest.mark.parametrize("more", [0, 3])
def test_a_picture_without_boxes_is_all_background(more):
    found = of_proposals(many_proposals(0, 20), [], rois=8, more=more)
    assert found.counted.numpy().all() and not found.labels.numpy().any() and int(found.foreground) == 0
    assert not found.deltas.numpy().any()


def test_proposals_beyond_the_count_are_not_drawn():
    proposals = many_proposals(3, 20)
    assert set(rows_of(of_proposals(proposals, [[0, 0, 9, 9]], count=2, rois=16), proposals)) == {0, 1}


def test_padding_is_no_background():
    """The rows of zeros after the proposals, and the boxes of zeros after the true ones."""
    proposals = np.concatenate([many_proposals(0, 1), np.zeros((9, 4), np.float32)])
    found = of_proposals(proposals, [[0, 0, 9, 9]], count=1, rois=8)
    assert set(rows_of(found, proposals[:1])) == {0} and not found.labels.numpy().any()


def test_true_boxes_can_be_proposals():
    proposals, boxes = many_proposals(0, 20), [[0, 0, 9, 9], [0, 40, 9, 59]]
    assert not of_proposals(proposals, boxes, rois=8).labels.numpy().any()
    found = of_proposals(proposals, boxes, rois=8, append_truth=True)
    assert sorted(found.labels.numpy()[:2]) == [1, 2] and int(found.foreground) == 2
    assert found.boxes.numpy()[np.argsort(found.labels.numpy()[:2])].tolist() == boxes
    assert not found.deltas.numpy().any()  # they are where they belong


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(0, 4), st.integers(1, 40), st.sampled_from([0.0, 0.1]))
def test_proposals_are_those_of_the_rules_as_loops(seed, count, proposal_count, low):
    rng = np.random.default_rng(seed)
    boxes = reference.random_boxes(rng, count, SIZE, least=8)
    proposals = reference.random_boxes(rng, proposal_count, SIZE, least=8)
    proposals[:, 3] += np.arange(proposal_count) / 1024  # none are equal
    rules = RoiRules(rois=64, background_low=low)
    foreground, background, box_of = reference.roi_sets(proposals, boxes, rules)
    found = of_proposals(proposals, boxes, seed=(seed, 0), rois=64, background_low=low)
    assert found.counted.numpy().all() == bool(foreground or background) == found.counted.numpy().any()
    if not (foreground or background):
        return
    number = min(16, len(foreground)) if background else 64
    rows = rows_of(found, proposals.astype(np.float32))
    assert int(found.foreground) == number
    assert set(rows[:number]) <= foreground and set(rows[number:]) <= background
    if len(foreground) <= 16 and background:
        assert set(rows[:number]) == foreground
    for row, label, deltas in zip(rows[:number], found.labels.numpy(), found.deltas.numpy(), strict=False):
        assert label == box_of[row] + 1
        expected = reference.deltas(boxes[box_of[row]], proposals[row]) / rules.stds
        np.testing.assert_allclose(deltas, expected, rtol=1e-3, atol=1e-4)


def test_drawing_is_by_seed():
    proposals = many_proposals(20, 40)
    rows = [rows_of(of_proposals(proposals, [[0, 0, 9, 9]], seed=seed), proposals) for seed in ((1, 2), (1, 2), (1, 3))]
    assert rows[0] == rows[1] != rows[2]


def test_with_replacement_every_row_is_as_likely():
    """30 candidates, 40 places, 100 times: each 133 times, with a deviation of 11."""
    times = np.zeros(30, int)
    for seed in range(100):
        rows = targets.drawn(tf.constant([False, True] * 30), 40, 50, tf.constant([seed, 5])).numpy()[:40]
        assert (rows % 2).all()
        np.add.at(times, rows // 2, 1)
    assert abs(times - 4000 / 30).max() < 66


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


# -- recall ----------------------------------------------------------------------------------------------------------


def test_recall_is_the_share_of_covered_boxes():
    boxes, classes = padded([[0, 0, 9, 9], [40, 20, 59, 39], [0, 40, 9, 49]])
    proposals = tf.constant([[0, 0, 9, 4], [0, 0, 9, 9], [40, 20, 59, 38], [0, 40, 9, 49]], tf.float32)
    for count, expected in ((0, 0), (1, 1), (2, 1), (3, 2), (4, 3)):
        share, number = proposal_recall(proposals, count, boxes, classes)
        np.testing.assert_allclose([share, number], [expected / 3, 3], rtol=1e-6)
    # 95 of 100 px and 50 of 100 px.
    np.testing.assert_allclose(proposal_recall(proposals, 3, boxes, classes, threshold=0.96)[0], 1 / 3)


@pytest.mark.parametrize("more", [0, 2])
def test_recall_without_boxes_weighs_nothing(more):
    share, number = proposal_recall(tf.zeros([3, 4]), 3, *padded([], more))
    assert float(share) == float(number) == 0


def test_recall_knows_no_padding():
    """Proposals of zeros and boxes of zeros cover each other, were they looked at."""
    share, number = proposal_recall(tf.zeros([3, 4]), 3, *padded([[40, 20, 59, 39]]))
    assert float(share) == 0 and float(number) == 1
    assert float(proposal_recall(tf.zeros([3, 4]), 0, *padded([[0, 0, 0, 0]]))[0]) == 0
