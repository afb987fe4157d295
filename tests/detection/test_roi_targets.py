"""Which proposals are taken, rule by rule, and against the rules written as loops; what they cover."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from detection import targets
from detection.targets import RoiRules, proposal_recall, roi_targets
from tests.detection import reference
from tests.detection.reference import padded

SIZE = (60, 80)
SEED = (1, 2)


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
