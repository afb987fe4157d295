"""A detector over a set of pictures: what it finds, what that scores, what it looks like."""

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from data import decoding
from detection.config import DataOptions
from detection.drawing import drawn
from detection.input import evaluation_batches
from detection.voc_ap import Detections, average_precisions, summary, truth_of

DRAWN_ABOVE = 0.5  # score


def detect_all(model, pictures, options: DataOptions, rows=None) -> Detections:
    """Returns what `model` finds in a `data.voc.DetectionSet`, or in some `rows` of it, in px of the pictures."""
    found = {name: [] for name in Detections._fields}
    total = pictures.size if rows is None else len(rows)
    for batch in tqdm(evaluation_batches(pictures, options, rows=rows), total=total, leave=False, disable=None):
        several = model.detection(batch)
        for place, row in enumerate(batch["index"].numpy()):
            count = int(several.count[place])
            found["image"].append(np.full(count, row, np.int64))
            found["boxes_xyxy"].append(several.boxes_xyxy[place, :count].numpy())
            found["scores"].append(several.scores[place, :count].numpy())
            found["labels"].append(several.labels[place, :count].numpy())
    return Detections(**{name: np.concatenate(parts) for name, parts in found.items()})


def scores(detections: Detections, pictures, metric: str) -> dict[str, float]:
    """Returns `ap`, `ap50`, `ap75` and the classes' AP at 0.5 (`detection.voc_ap.summary`), as numbers in [0, 1]."""
    precisions = average_precisions(detections, truth_of(pictures), len(pictures.classes), metric=metric)
    return summary(precisions, pictures.classes)


def drawn_picture(pictures, row: int, detections: Detections | None = None) -> np.ndarray:
    """Returns a picture of the set with its true boxes and what was found in it, uint8 `[h, w, 3]`."""
    picture = decoding.decode(tf.constant(pictures.read(row))).numpy()
    found = None
    if detections is not None:
        own = np.asarray(detections.image) == row
        found = detections.boxes_xyxy[own], detections.scores[own], detections.labels[own]
    return drawn(picture, pictures.classes, pictures.boxes(row), found, DRAWN_ABOVE)
