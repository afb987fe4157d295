"""Average precision as the Pascal VOC devkit counts it, for every class and many IoU thresholds at once.

Rules (VOC devkit; TFR lib/datasets/voc_eval.py): detections of a class are ranked by score over all pictures, equal
scores in the order they come in. Each is compared with the object of its class and picture that it overlaps most,
and with no other. An IoU above the threshold, not at it, is a hit if no detection above it in the ranking has hit that
object; else it counts against the detector. One that falls on a difficult object counts neither way, and difficult
objects need not be found.
"""

from typing import NamedTuple

import numpy as np

from data.errors import UserError

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
METRICS = ("voc07", "area")
RECALLS = np.arange(0, 1.1, 0.1)  # as TFR has them: the fourth is 0.30000000000000004, which a recall of 3/10 misses


class Detections(NamedTuple):
    """What a detector found in a set of pictures, a row a detection, in any order."""

    image: np.ndarray  # int [n], row of the set
    boxes_xyxy: np.ndarray  # float [n, 4], px of the upright picture, 0-based, inclusive corners
    scores: np.ndarray  # float [n]
    labels: np.ndarray  # int [n], 1..C


class Truth(NamedTuple):
    """The objects of a set of pictures, a row an object; a picture's objects in the order of its annotation."""

    image: np.ndarray  # int [G], row of the set
    boxes_xyxy: np.ndarray  # float [G, 4], as those of Detections
    labels: np.ndarray  # int [G], 1..C
    difficult: np.ndarray  # bool [G]


def truth_of(detection_set) -> Truth:
    """All objects of a `data.voc.DetectionSet`; raises UserError naming the set if none of them counts."""
    listed = [detection_set.boxes(row) for row in range(detection_set.size)]
    image = np.repeat(np.arange(len(listed)), [len(labels) for _, labels, _ in listed])
    boxes = np.concatenate([np.zeros((0, 4)), *(boxes for boxes, _, _ in listed)])
    labels = np.concatenate([np.zeros(0, np.int32), *(labels for _, labels, _ in listed)])
    difficult = np.concatenate([np.zeros(0, bool), *(difficult for _, _, difficult in listed)])
    if difficult.all():
        reason = f"all {len(labels):,} objects are difficult" if len(labels) else "there are no objects"
        raise UserError(
            f"{detection_set.name}: nothing to find in {len(listed):,} pictures ({reason}); name another set"
        )
    return Truth(image, boxes, labels, difficult)


def average_precisions(
    detections: Detections, truth: Truth, class_count: int, thresholds=THRESHOLDS, metric: str = "voc07"
) -> np.ndarray:
    """AP of each class at each IoU threshold, float64 `[C, T]`; NaN where a class has no object that counts.

    A score that is NaN ranks last. Raises ValueError for labels outside 1..class_count and unknown metrics.
    """
    for name, labels in (("a detection", detections.labels), ("an object", truth.labels)):
        if len(labels) and not 1 <= np.min(labels) <= np.max(labels) <= class_count:
            raise ValueError(f"{name} has a label outside 1..{class_count}: {np.min(labels)} to {np.max(labels)}")
    overlap, partner = _largest_overlaps(detections, truth)
    precisions = np.full((class_count, len(thresholds)), np.nan)
    for label in range(1, class_count + 1):
        objects = np.count_nonzero((truth.labels == label) & ~truth.difficult)
        if not objects:
            continue
        rows = np.flatnonzero(detections.labels == label)
        rows = rows[np.argsort(-np.asarray(detections.scores, np.float64)[rows], kind="stable")]
        for place, threshold in enumerate(thresholds):
            hit = _hits(overlap[rows] > threshold, partner[rows], truth.difficult)
            found = np.cumsum(hit)
            recall, precision = found / objects, found / np.arange(1, len(hit) + 1)
            precisions[label - 1, place] = average_precision(recall, precision, metric)
    return precisions


def average_precision(recall: np.ndarray, precision: np.ndarray, metric: str) -> float:
    """Area under one class's curve `[n]`, in the order of the ranking; `metric` says how it is taken.

    voc07: mean over 11 recalls of the best precision at that recall or beyond (VOC 2007); area: exactly, of the best
    precision at each recall or beyond (VOC 2010 and later). Raises ValueError for another metric.
    """
    if metric not in METRICS:
        raise ValueError(f"metric {metric!r} is none of {', '.join(METRICS)}")
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)  # 0 beyond the last recall
    if metric == "area":
        return float(np.sum(np.diff(recall, prepend=0.0) * best[:-1]))
    return float(best[np.searchsorted(recall, RECALLS)].mean())


def summary(precisions: np.ndarray, classes) -> dict[str, float]:
    """Means over the classes that have objects of `[C, 10]` AP at THRESHOLDS, and those classes' AP at 0.5.

    Keys: "ap" (mean over the thresholds too), "ap50", "ap75", and "ap50/<class>". Raises ValueError where no class has
    objects.
    """
    measured = ~np.isnan(precisions[:, 0])
    if not measured.any():
        raise ValueError("no class has an object that counts: there is no average precision")
    means = precisions[measured].mean(axis=0)
    numbers = {"ap": means.mean(), "ap50": means[THRESHOLDS.index(0.5)], "ap75": means[THRESHOLDS.index(0.75)]}
    numbers |= {f"ap50/{classes[row]}": precisions[row, THRESHOLDS.index(0.5)] for row in np.flatnonzero(measured)}
    return {name: float(number) for name, number in numbers.items()}


def _hits(inside, partner, difficult):
    """Which of the detections that count are hits, in the ranking's order: the first on each object."""
    counted = ~(inside & difficult[partner])
    inside, partner = inside[counted], partner[counted]
    places = np.flatnonzero(inside)
    _, first = np.unique(partner[places], return_index=True)
    hit = np.zeros(len(inside), bool)
    hit[places[first]] = True
    return hit


def _largest_overlaps(detections, truth):
    """(IoU [n], row of the truth [n]) of the object that each detection overlaps most: 0 and -1 where none, ties first.

    All detections meet the first object of their picture and class, then those that have one the second, and so on.
    """
    keys = _keys(truth.image, truth.labels)
    order = np.argsort(keys, kind="stable")
    wanted = _keys(detections.image, detections.labels)
    start, end = (np.searchsorted(keys[order], wanted, side) for side in ("left", "right"))
    overlap, partner = np.zeros(len(wanted)), np.full(len(wanted), -1)
    found, objects = (np.asarray(boxes, np.float64) for boxes in (detections.boxes_xyxy, truth.boxes_xyxy))
    turn, rows = 0, np.flatnonzero(end > start)
    while len(rows):
        others = order[start[rows] + turn]
        iou = _iou(found[rows], objects[others])
        better = iou > overlap[rows]
        overlap[rows[better]], partner[rows[better]] = iou[better], others[better]
        turn += 1
        rows = rows[end[rows] - start[rows] > turn]
    return overlap, partner


def _keys(image, labels):
    """A number for each pair of picture and class, int64 [n]."""
    return np.asarray(image, np.int64) << 32 | np.asarray(labels, np.int64)


def _iou(a, b):
    """IoU [n] of boxes [n, 4], pair by pair, corners inclusive: a box from 3 to 3 is one px wide."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + 1
    common = np.prod(np.maximum(sides, 0), axis=1)
    area_a, area_b = (np.prod(np.maximum(box[:, 2:] - box[:, :2] + 1, 0), axis=1) for box in (a, b))
    return common / np.maximum(area_a + area_b - common, np.finfo(np.float64).tiny)
