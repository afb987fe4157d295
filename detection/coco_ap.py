"""The numbers of the COCO challenge, by pycocotools, for sets that mark objects as difficult.

A difficult object is one that COCO calls "ignore": it need not be found, and a detection on it does not count. It is
not passed on as a crowd: a crowd may take any number of detections, and its IoU is divided by the detection's area.
"""

import contextlib
import io

import numpy as np

from detection.voc_ap import Detections, Truth

AREAS = {"all": "", "small": "_small", "medium": "_medium", "large": "_large"}  # pycocotools' names, and ours


def coco_numbers(detections: Detections, truth: Truth, class_count: int) -> dict[str, float]:
    """COCO's twelve numbers over all classes that have objects; prints nothing.

    Keys: "coco_ap", "coco_ap50", "coco_ap75", "coco_ap_small", "..._medium", "..._large" (areas below 32² px, up to
    96² px, above), "coco_ar1", "coco_ar10", "coco_ar100" (recall with so many detections of a class in a picture) and
    "coco_ar100_small", ...; a number that nothing is there for is left out. IoU is of continuous boxes, which end at
    x2 + 1 and y2 + 1, and counts from the threshold on.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    class Evaluation(COCOeval):
        def _prepare(self):
            super()._prepare()  # sets "ignore" to "iscrowd", whatever it was
            for objects in self._gts.values():
                for each in objects:
                    each["ignore"] = each["difficult"]

    objects = _entries(truth, difficult=truth.difficult.astype(int).tolist())
    found = _entries(detections, score=np.asarray(detections.scores, np.float64).tolist())
    images = np.union1d(truth.image, detections.image).tolist()
    with contextlib.redirect_stdout(io.StringIO()):
        sides = [_indexed(COCO(), entries, images, class_count) for entries in (objects, found)]
        evaluation = Evaluation(*sides, iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return _numbers(evaluation)


def _entries(table, **more):
    """A dict for each row, as pycocotools wants them; ids start at 1, for 0 means no match there."""
    corners = np.asarray(table.boxes_xyxy, np.float64).reshape(-1, 4)
    sides = corners[:, 2:] - corners[:, :2] + 1
    columns = {
        "id": range(1, len(corners) + 1),
        "image_id": np.asarray(table.image).tolist(),
        "category_id": np.asarray(table.labels).tolist(),
        "bbox": np.concatenate([corners[:, :2], sides], axis=1).tolist(),
        "area": np.prod(sides, axis=1).tolist(),
        **more,
    }
    return [dict(zip(columns, row, strict=True), iscrowd=0) for row in zip(*columns.values(), strict=True)]


def _indexed(coco, entries, images, class_count):
    coco.dataset = {
        "images": [{"id": image} for image in images],
        "categories": [{"id": label} for label in range(1, class_count + 1)],
        "annotations": entries,
    }
    coco.createIndex()
    return coco


def _numbers(evaluation):
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]  # [T, R, C, A, M], [T, C, A, M]
    thresholds, most = evaluation.params.iouThrs, evaluation.params.maxDets
    numbers = {"coco_ap": precision[:, :, :, 0, -1]}
    for threshold in (0.5, 0.75):
        place = int(np.argmin(np.abs(thresholds - threshold)))
        numbers[f"coco_ap{threshold * 100:.0f}"] = precision[place, :, :, 0, -1]
    for place, count in enumerate(most):
        numbers[f"coco_ar{count}"] = recall[:, :, 0, place]
    for place, name in enumerate(evaluation.params.areaRngLbl):
        if AREAS[name]:
            numbers[f"coco_ap{AREAS[name]}"] = precision[:, :, :, place, -1]
            numbers[f"coco_ar{most[-1]}{AREAS[name]}"] = recall[:, :, place, -1]
    measured = {name: values[values > -1] for name, values in numbers.items()}  # -1: a class without objects
    return {name: float(values.mean()) for name, values in measured.items() if values.size}
