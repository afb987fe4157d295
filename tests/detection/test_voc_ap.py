"""If these fail, an mAP of ours is another number than everybody's: cases by hand, and the rules as plain loops."""

import time
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import UserError
from data.voc import VOC_CLASSES, open_set
from detection.voc_ap import Detections, Truth, average_precision, average_precisions, summary, truth_of
from tests.detection.voc_cases import BOX, FAR, by_loops, found, objects


def both(detections, truth):
    """(voc07, area) of a single class at 0.5."""
    return tuple(average_precisions(detections, truth, 1, [0.5], metric).item() for metric in ("voc07", "area"))


# --- by hand --------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    detections: Detections
    truth: Truth
    voc07: float
    area: float


CASES = {
    # Recall 1/3 1/3 2/3 2/3 at precision 1 1/2 2/3 1/2: four points (to 0.3) have 1, three (to 0.6) have 2/3.
    "hits and misses": Case(
        found((0, BOX, 0.9), (0, FAR, 0.8), (1, BOX, 0.7), (1, FAR, 0.6)),
        objects((0, BOX), (1, BOX), (2, BOX)),
        voc07=(4 * 1 + 3 * 2 / 3) / 11,
        area=1 / 3 * 1 + 1 / 3 * 2 / 3,
    ),
    # The fourth of the 11 recalls is a little above 0.3.
    "recall of 3/10": Case(
        found(*((picture, BOX, 0.5) for picture in range(3))),
        objects(*((picture, BOX) for picture in range(10))),
        voc07=3 / 11,
        area=0.3,
    ),
    # Recall 1/2 1/2 1 at precision 1 1/2 2/3: six points (to 0.5), then five.
    "second hit on an object": Case(
        found((0, BOX, 0.9), (0, BOX, 0.8), (1, BOX, 0.7)),
        objects((0, BOX), (1, BOX)),
        voc07=(6 * 1 + 5 * 2 / 3) / 11,
        area=1 / 2 * 1 + 1 / 2 * 2 / 3,
    ),
    # IoU of the second: 0.8 with the first object, 0.6 with the other, which stays without a hit.
    "taken object, another near": Case(
        found((0, BOX, 0.9), (0, (0, 0, 9, 7), 0.8)),
        objects((0, BOX), (0, (0, 3, 9, 7))),
        voc07=6 / 11,
        area=0.5,
    ),
    "difficult object": Case(
        found((0, FAR, 0.9), (0, FAR, 0.8), (0, BOX, 0.7)), objects((0, FAR, 1, True), (0, BOX)), voc07=1, area=1
    ),
    "difficult object not found": Case(found((0, BOX, 0.7)), objects((0, FAR, 1, True), (0, BOX)), voc07=1, area=1),
    # Precision 1/2 at recall 1: IoU 0.1 with the difficult object is a miss, however much of the detection lies in it.
    "barely on a difficult object": Case(
        found((0, (50, 50, 59, 50), 0.9), (0, BOX, 0.7)), objects((0, FAR, 1, True), (0, BOX)), voc07=0.5, area=0.5
    ),
    "equal scores, hit first": Case(found((0, BOX, 0.5), (0, FAR, 0.5)), objects((0, BOX)), voc07=1, area=1),
    "equal scores, miss first": Case(found((0, FAR, 0.5), (0, BOX, 0.5)), objects((0, BOX)), voc07=0.5, area=0.5),
    "equal overlaps, difficult first": Case(
        found((0, BOX, 0.5), (1, BOX, 0.4)), objects((0, BOX, 1, True), (0, BOX), (1, BOX)), voc07=6 / 11, area=0.5
    ),
    "equal overlaps, difficult second": Case(
        found((0, BOX, 0.5), (1, BOX, 0.4)), objects((0, BOX), (0, BOX, 1, True), (1, BOX)), voc07=1, area=1
    ),
    "no detections": Case(found(), objects((0, BOX)), voc07=0, area=0),
    "another picture": Case(found((1, BOX, 0.5)), objects((0, BOX)), voc07=0, area=0),
    "a picture without objects": Case(found((7, BOX, 0.9), (0, BOX, 0.5)), objects((0, BOX)), voc07=0.5, area=0.5),
    "one pixel": Case(found((0, (3, 3, 3, 3), 0.5)), objects((0, (3, 3, 3, 3))), voc07=1, area=1),
    # Of width -4 and height -4, whose product is no area.
    "corners the wrong way round": Case(found((0, (9, 9, 4, 4), 0.5)), objects((0, BOX)), voc07=0, area=0),
    "not a number": Case(
        found((0, (np.nan,) * 4, 0.9), (0, BOX, 0.5), (0, FAR, np.nan)), objects((0, BOX)), voc07=0.5, area=0.5
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_cases_worked_out_by_hand(name):
    case = CASES[name]
    assert both(case.detections, case.truth) == pytest.approx((case.voc07, case.area), rel=1e-14, abs=0)


@pytest.mark.parametrize(
    ("box", "hits"),
    [
        (BOX, 10),
        ((0, 0, 9, 4), 0),  # IoU 50 / 100: not above 0.5
        ((0, 0, 9, 5), 2),  # 60 / 100: above 0.5 and 0.55, not above 0.6
        ((0, 0, 4, 9), 0),
        ((1, 0, 10, 9), 7),  # 90 / 110 = 0.818
    ],
)
def test_a_hit_is_above_the_threshold_with_corners_inclusive(box, hits):
    got = average_precisions(found((0, box, 0.5)), objects((0, BOX)), 1)
    assert got.tolist() == [[1.0] * hits + [0.0] * (10 - hits)]


def test_classes_do_not_meet_and_those_without_an_object_that_counts_have_no_ap():
    truth = objects((0, BOX, 1), (0, FAR, 2, True), (1, BOX, 4))
    detections = found((0, BOX, 0.9, 2), (0, BOX, 0.8, 1), (0, FAR, 0.7, 3), (1, BOX, 0.6, 1))
    got = average_precisions(detections, truth, 4, [0.5])
    np.testing.assert_array_equal(got, [[1], [np.nan], [np.nan], [0]])
    assert np.isnan(average_precisions(found(), objects(), 2, [0.5])).all()


def test_a_curve_is_measured_in_its_order():
    recall, precision = np.array([0, 0.5, 0.5, 1]), np.array([0, 1 / 2, 1 / 3, 1 / 4])
    assert average_precision(recall, precision, "voc07") == pytest.approx((6 / 2 + 5 / 4) / 11)
    assert average_precision(recall, precision, "area") == pytest.approx(0.5 / 2 + 0.5 / 4)
    with pytest.raises(ValueError, match="voc12"):
        average_precision(recall, precision, "voc12")


@pytest.mark.parametrize("label", [0, 3])
def test_labels_that_are_no_class_are_refused(label):
    with pytest.raises(ValueError, match="a detection has a label outside 1"):
        average_precisions(found((0, BOX, 0.5, label)), objects((0, BOX)), 2)
    with pytest.raises(ValueError, match="an object has a label outside 1"):
        average_precisions(found((0, BOX, 0.5)), objects((0, BOX, label)), 2)


# --- the rules as loops ---------------------------------------------------------------------------------------------


@st.composite
def small_sets(draw):
    """Few pictures, classes, places and scores, so that everything collides."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)

    def boxes(count):
        near = rng.integers(0, 6, (count, 2))
        return np.concatenate([near, near + rng.integers(0, 6, (count, 2))], axis=1)

    n, g = draw(st.integers(0, 40)), draw(st.integers(0, 15))
    pictures = draw(st.integers(1, 3))
    detections = Detections(rng.integers(0, pictures, n), boxes(n), rng.integers(0, 4, n) / 4, rng.integers(1, 3, n))
    return detections, Truth(rng.integers(0, pictures, g), boxes(g), rng.integers(1, 3, g), rng.random(g) < 0.3)


@given(small_sets(), st.sampled_from(["voc07", "area"]))
def test_the_rules_as_plain_loops_give_the_same(case, metric):
    np.testing.assert_allclose(average_precisions(*case, 2, metric=metric), by_loops(*case, 2, metric), rtol=1e-12)


def test_the_order_of_pictures_and_of_unequal_scores_is_all_one():
    rng = np.random.default_rng(0)
    boxes = rng.integers([0, 0, 9, 9], 18, (60, 4)) % [9, 9, 18, 18]
    detections = Detections(rng.integers(0, 5, 60), boxes, rng.permutation(60) / 60, rng.integers(1, 4, 60))
    truth = Truth(rng.integers(0, 5, 20), boxes[:20] + 1, rng.integers(1, 4, 20), np.zeros(20, bool))
    order, others = rng.permutation(60), rng.permutation(20)
    mixed = average_precisions(
        Detections(*(column[order] for column in detections)), Truth(*(column[others] for column in truth)), 3
    )
    np.testing.assert_array_equal(mixed, average_precisions(detections, truth, 3))
    assert mixed[:, 0].min() > 0 and mixed[:, 0].max() < 1


def test_the_test_set_of_voc07_takes_seconds():
    """4,952 pictures with 100 detections each: a fraction of a second, as it should be after every validation."""
    rng = np.random.default_rng(0)
    pictures, count, each = 4952, 14976, 100

    def boxes(n):
        near = rng.uniform(0, 400, (n, 2))
        return np.concatenate([near, near + rng.uniform(5, 200, (n, 2))], axis=1).astype(np.float32)

    truth = Truth(rng.integers(0, pictures, count), boxes(count), rng.integers(1, 21, count), rng.random(count) < 0.2)
    n = pictures * each
    image = np.repeat(np.arange(pictures), each)
    detections = Detections(image, boxes(n), rng.random(n).astype(np.float32), rng.integers(1, 21, n))
    start = time.perf_counter()
    assert average_precisions(detections, truth, 20).shape == (20, 10)
    assert time.perf_counter() - start < 20


# --- names and sets -------------------------------------------------------------------------------------------------


def test_the_summary_is_of_the_classes_that_have_objects():
    precisions = np.array([np.linspace(0.9, 0.0, 10), np.full(10, np.nan), np.full(10, 0.3)])
    got = summary(precisions, ("cat", "cow", "dog"))
    assert got == pytest.approx({"ap": 0.375, "ap50": 0.6, "ap75": 0.35, "ap50/cat": 0.9, "ap50/dog": 0.3})
    with pytest.raises(ValueError, match="no class"):
        summary(np.full((2, 10), np.nan), ("cat", "cow"))


class Boxes:
    """A set with a picture for each entry of `pictures`: (boxes, labels, difficult)."""

    name = "mine"

    def __init__(self, *pictures):
        self.pictures = pictures
        self.size = len(pictures)

    def boxes(self, row):
        boxes, labels, difficult = self.pictures[row]
        return np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int32), np.array(difficult, bool)


def test_the_truth_is_all_objects_with_their_pictures():
    truth = truth_of(Boxes(([BOX, FAR], [2, 1], [True, False]), ([], [], []), ([FAR], [3], [False])))
    assert truth.image.tolist() == [0, 0, 2] and truth.labels.tolist() == [2, 1, 3]
    assert truth.boxes_xyxy.tolist() == [list(BOX), list(FAR), list(FAR)] and truth.difficult.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("pictures", "reason"),
    [
        ([([BOX, FAR], [2, 1], [True, True]), ([], [], [])], "in 2 pictures (all 2 objects are difficult)"),
        ([([], [], [])], "in 1 pictures (there are no objects)"),
        ([], "in 0 pictures (there are no objects)"),
    ],
)
def test_a_set_in_which_nothing_counts_cannot_be_evaluated_on(pictures, reason):
    with pytest.raises(UserError) as error:
        truth_of(Boxes(*pictures))
    assert str(error.value) == f"mine: nothing to find {reason}; name another set"


def test_on_real_annotations_the_rules_as_loops_give_the_same(real_pictures):
    truth = truth_of(open_set(str(real_pictures("VOCdevkit")), "2007_test"))
    assert truth.difficult.any() and truth.boxes_xyxy.min() >= 0
    perfect = Detections(truth.image, truth.boxes_xyxy, np.ones(len(truth.image)), truth.labels)
    assert (average_precisions(perfect, truth, 20) == 1).all()
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(len(truth.image)), 3)
    boxes = truth.boxes_xyxy[rows] + np.round(rng.normal(0, 12, (len(rows), 4)))
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2])
    detections = Detections(truth.image[rows], boxes.astype(int), rng.random(len(rows)).round(2), truth.labels[rows])
    for metric in ("voc07", "area"):
        got = average_precisions(detections, truth, 20, metric=metric)
        wanted = by_loops(detections, truth._replace(boxes_xyxy=truth.boxes_xyxy.astype(int)), 20, metric)
        np.testing.assert_allclose(got, wanted, rtol=1e-12)
        assert 0.2 < summary(got, VOC_CLASSES)["ap50"] < 0.8
