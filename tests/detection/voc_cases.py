"""Small tables of objects and detections, and VOC's rules for them as plain loops."""

import itertools

import numpy as np

from detection.voc_ap import THRESHOLDS, Detections, Truth

BOX = (0, 0, 9, 9)  # 10 px wide and high
FAR = (50, 50, 59, 59)


def found(*rows):
    """Detections of (picture, box, score) or (picture, box, score, label)."""
    image, boxes, scores, labels = zip(*((*row, 1)[:4] for row in rows), strict=True) if rows else ((), (), (), ())
    return Detections(np.array(image, int), np.reshape(boxes, (-1, 4)), np.array(scores, float), np.array(labels, int))


def objects(*rows):
    """Truth of (picture, box), (picture, box, label) or (picture, box, label, difficult)."""
    rows = [(*row, *(1, False)[len(row) - 2 :]) for row in rows]
    image, boxes, labels, difficult = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Truth(np.array(image, int), np.reshape(boxes, (-1, 4)), np.array(labels, int), np.array(difficult, bool))


def is_above(a, b, percent):
    """Whether the IoU of two boxes of whole px is above percent / 100, told in whole numbers, and the IoU."""
    width, height = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + 1 for k in (0, 1))
    common = max(width, 0) * max(height, 0)
    union = sum((box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)) - common
    return 100 * common > percent * union, common / union


def ap_by_loops(detections, truth, label, percent, metric):
    """One class at one threshold."""
    mine = [i for i in range(len(truth.labels)) if truth.labels[i] == label]
    count = sum(not truth.difficult[i] for i in mine)
    if count == 0:
        return float("nan")
    ranking = [i for i in range(len(detections.labels)) if detections.labels[i] == label]
    ranking.sort(key=lambda i: -detections.scores[i])  # Python's sort is stable
    taken, hits, misses, curve = set(), 0, 0, []
    for i in ranking:
        best, best_iou, above = None, 0.0, False
        for j in mine:
            if truth.image[j] == detections.image[i]:
                at_least, iou = is_above(detections.boxes_xyxy[i].tolist(), truth.boxes_xyxy[j].tolist(), percent)
                if iou > best_iou:
                    best, best_iou, above = j, iou, at_least
        if above and truth.difficult[best]:
            continue
        if above and best not in taken:
            taken.add(best)
            hits += 1
        else:
            misses += 1
        curve.append((hits / count, hits / (hits + misses)))
    if metric == "voc07":
        return sum(max((p for r, p in curve if r >= 0.1 * k), default=0) for k in range(11)) / 11
    steps = sorted({recall for recall, _ in curve} | {0})
    return sum((b - a) * max(p for r, p in curve if r >= b) for a, b in itertools.pairwise(steps))


def by_loops(detections, truth, class_count, metric):
    return [
        [ap_by_loops(detections, truth, label, round(100 * threshold), metric) for threshold in THRESHOLDS]
        for label in range(1, class_count + 1)
    ]
