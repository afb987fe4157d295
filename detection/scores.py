"""What detections score by every metric, as numbers and as a table."""

import numpy as np
from tabulate import tabulate

from detection.voc_ap import METRICS, average_precisions, summary

COCO_SHOWN = {"AP": "coco_ap", "AP50": "coco_ap50", "AP75": "coco_ap75"}
COLUMNS = ("objects", "difficult", "AP50, 11 points", "AP50, area", "AP75, 11 points", "AP, 11 points")


def voc_scores(detections, truth, classes) -> dict:
    """Returns `mean`, the means over the classes of VOC's metrics, and the AP of each class by its name.

    AP at IoU 0.5 both at 11 points (VOC 2007) and as an area (VOC 2010 on), AP at 0.75 and the mean over 0.5 to 0.95.
    """
    found = {metric: average_precisions(detections, truth, len(classes), metric=metric) for metric in METRICS}
    means = {metric: summary(precisions, classes) for metric, precisions in found.items()}
    by_class = {
        f"{metric}_{name}": _named(column, classes)
        for metric, precisions in found.items()
        for name, column in (("ap50", precisions[:, 0]), ("ap75", precisions[:, 5]), ("ap", precisions.mean(axis=1)))
    }
    own = {f"{metric}_{key}": means[metric][key] for metric in METRICS for key in ("ap50", "ap75", "ap")}
    return {"mean": own, **by_class}


def table(scores: dict, coco: dict, pictures) -> str:
    """Returns the scores of each class and their means, in percent, with COCO's below."""
    counts = _counts(pictures)
    columns = ("voc07_ap50", "area_ap50", "voc07_ap75", "voc07_ap")
    rows = [
        (name, *counts[label], *(_percent(scores[column].get(name)) for column in columns))
        for label, name in enumerate(pictures.classes)
    ]
    rows.append(("mean", *counts.sum(axis=0), *(_percent(scores["mean"][column]) for column in columns)))
    shown = "  ".join(f"{word} {_percent(coco[name])}" for word, name in COCO_SHOWN.items())
    text = tabulate(
        rows,
        (pictures.name, *COLUMNS),
        tablefmt="simple",
        colalign=("left", *("right",) * len(COLUMNS)),
        disable_numparse=True,
    )
    return f"{text}\nby pycocotools, difficult objects ignored: {shown}"


def _counts(pictures):
    counts = np.zeros((len(pictures.classes), 2), int)
    for row in range(pictures.size):
        _, labels, difficult = pictures.boxes(row)
        np.add.at(counts, (labels - 1, difficult.astype(int)), 1)
    return counts


def _named(column, classes):
    return {name: float(value) for name, value in zip(classes, column, strict=True) if not np.isnan(value)}


def _percent(value):
    return "-" if value is None else f"{100 * value:.1f}"
