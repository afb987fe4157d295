"""If these fail, COCO numbers on VOC are not comparable: cases whose precision and recall are worked out by hand."""

import numpy as np
import pytest

from data.voc import open_set
from detection.coco_ap import coco_numbers
from detection.voc_ap import Detections, Truth, truth_of
from tests.detection.voc_cases import BOX, FAR, found, objects

HALF = 51 / 101  # AP of a recall of 1/2 without misses: at 51 of the recalls 0, 0.01, .. 1


def numbers(detections, truth, classes=1):
    return coco_numbers(detections, truth, classes)


def ap50(*case):
    return numbers(*case)["coco_ap50"]


def test_a_box_that_is_nearly_right():
    """IoU 0.72: a hit at 0.5, 0.55, 0.6, 0.65 and 0.7. The object has 100 px, so it is a small one."""
    got = numbers(found((0, (0, 0, 9, 6.2), 0.9)), objects((0, BOX)))
    one_half = {"coco_ap", "coco_ap_small", "coco_ar1", "coco_ar10", "coco_ar100", "coco_ar100_small"}
    assert got == pytest.approx({**dict.fromkeys(one_half, 0.5), "coco_ap50": 1, "coco_ap75": 0})


def test_boxes_end_after_their_last_pixel_and_the_threshold_is_a_hit():
    """50 px of 100; between the corners it would be 36 of 81."""
    got = numbers(found((0, (0, 0, 9, 4), 0.9)), objects((0, BOX)))
    assert got["coco_ap50"] == pytest.approx(1) and got["coco_ap"] == pytest.approx(0.1)


def test_hits_misses_and_objects_that_are_not_found():
    assert ap50(found((0, BOX, 0.9)), objects((0, BOX), (0, FAR))) == pytest.approx(HALF)
    # Precision 1/2 at all recalls: the miss comes first.
    assert ap50(found((0, FAR, 0.9), (0, BOX, 0.8)), objects((0, BOX))) == pytest.approx(0.5)
    # A picture without objects is looked at as well.
    assert ap50(found((5, BOX, 0.9), (0, BOX, 0.8)), objects((0, BOX))) == pytest.approx(0.5)
    assert ap50(found(), objects((0, BOX))) == 0


def test_a_difficult_object_need_not_be_found():
    assert ap50(found((0, BOX, 0.9)), objects((0, BOX), (0, FAR, 1, True))) == pytest.approx(1)


def test_a_detection_on_a_difficult_object_does_not_count():
    assert ap50(found((0, FAR, 0.9), (0, BOX, 0.8)), objects((0, BOX), (0, FAR, 1, True))) == pytest.approx(1)


def test_a_difficult_object_is_no_crowd():
    """A crowd's IoU would be 1 with any box inside it, and a crowd would take the second box too."""
    truth = objects((0, BOX), (0, FAR, 1, True))
    assert ap50(found((0, (50, 50, 59, 50), 0.9), (0, BOX, 0.8)), truth) == pytest.approx(0.5)
    assert ap50(found((0, FAR, 0.9), (0, FAR, 0.85), (0, BOX, 0.8)), truth) == pytest.approx(0.5)


def test_classes_without_objects_have_no_part_in_the_mean():
    truth = objects((0, BOX, 1), (0, FAR, 3), (1, BOX, 4, True))
    detections = found((0, BOX, 0.9, 1), (0, FAR, 0.9, 2), (0, FAR, 0.8, 4))
    assert ap50(detections, truth, 4) == pytest.approx(0.5)
    assert numbers(found(), objects((0, BOX, 1, True))) == {}


def test_sizes_are_those_of_the_objects():
    """Sides of 20, 50 and 200 px: one object of each size, of which the middle one is not found."""
    truth = objects((0, (0, 0, 19, 19)), (1, (0, 0, 49, 49)), (2, (0, 0, 199, 199)))
    got = numbers(found((0, (0, 0, 19, 19), 0.9), (2, (0, 0, 199, 199), 0.9)), truth)
    for name in ("coco_ap", "coco_ar100"):
        assert [got[f"{name}_{size}"] for size in ("small", "medium", "large")] == pytest.approx([1, 0, 1])
    assert got["coco_ar100"] == pytest.approx(2 / 3)


def test_recall_is_of_so_many_detections_a_picture():
    """12 objects side by side: of one detection, of 10, of all."""
    boxes = [(20 * i, 0, 20 * i + 9, 9) for i in range(12)]
    got = numbers(found(*((0, box, 0.5) for box in boxes)), objects(*((0, box) for box in boxes)))
    assert [got[f"coco_ar{count}"] for count in (1, 10, 100)] == pytest.approx([1 / 12, 10 / 12, 1])


def test_nothing_is_printed_and_nothing_changed(capfd):
    detections, truth = found((0, BOX, 0.9), (1, FAR, 0.8)), objects((0, BOX), (1, FAR, 1, True))
    copies = [[column.copy() for column in table] for table in (detections, truth)]
    numbers(detections, truth)
    assert capfd.readouterr() == ("", "")
    for copy, table in zip(copies, (detections, truth), strict=True):
        for before, after in zip(copy, table, strict=True):
            np.testing.assert_array_equal(before, after)


def test_real_annotations_found_perfectly_and_in_part(real_pictures):
    truth = truth_of(open_set(str(real_pictures("VOCdevkit")), "2007_test"))
    detections = Detections(truth.image, truth.boxes_xyxy, np.full(len(truth.image), 0.5, np.float32), truth.labels)
    perfect = numbers(detections, truth, 20)
    assert {name: value for name, value in perfect.items() if name not in ("coco_ar1", "coco_ar10")} == pytest.approx(
        {name: 1 for name in perfect if name not in ("coco_ar1", "coco_ar10")}
    )
    assert len(perfect) == 12
    counted = Truth(*(column[~truth.difficult] for column in truth))
    every_class = [np.flatnonzero(counted.labels == label) for label in range(1, 21)]
    half = np.concatenate([rows[: len(rows) // 2] for rows in every_class])  # so many of each class, and no miss
    got = numbers(
        Detections(*(column[half] for column in counted[:2]), np.ones(len(half)), counted.labels[half]), truth, 20
    )
    recalls = [(len(rows) // 2) / len(rows) for rows in every_class]
    assert got["coco_ar100"] == pytest.approx(np.mean(recalls))
    assert got["coco_ap"] == pytest.approx(np.mean([(np.linspace(0, 1, 101) <= recall).mean() for recall in recalls]))
