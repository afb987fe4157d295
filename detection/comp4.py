"""Detections as the files of VOC's competition 4: `comp4_det_<set>_<class>.txt`, a line a detection.

    <image id> <score, 3 decimals> <x1> <y1> <x2> <y2>      px with 1 decimal, 1-based, inclusive corners

The order within a class is kept, so that equal scores rank the same after reading (TFR lib/datasets/pascal_voc.py).
"""

import math
import os

import numpy as np

from data.errors import UserError
from detection.voc_ap import Detections
from la_tf.model_dir import write_text

SHOWN = 60  # characters of a line that a message repeats


def path_of(folder: str, set_name: str, name: str) -> str:
    """The file of one class."""
    return os.path.join(folder, f"comp4_det_{set_name}_{name}.txt")


def write(folder: str, detections: Detections, names, classes, set_name: str):
    """Writes a file for every class, each of them whole or not at all; a class without detections has an empty one.

    names: the image id of each row of the set, none of them twice. Raises UserError where the folder cannot be written.
    """
    columns = _columns(detections)
    order = np.argsort(detections.labels, kind="stable")
    bounds = np.searchsorted(detections.labels[order], np.arange(1, len(classes) + 2))
    for label, name in enumerate(classes):
        rows = order[bounds[label] : bounds[label + 1]]
        numbers = zip(*(column[rows].tolist() for column in columns), strict=True)
        lines = (
            f"{names[image]} {score:.3f} {x1:.1f} {y1:.1f} {x2:.1f} {y2:.1f}\n"
            for image, score, x1, y1, x2, y2 in numbers
        )
        try:
            write_text(path_of(folder, set_name, name), "".join(lines))
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error


def read(folder: str, names, classes, set_name: str) -> Detections:
    """Reads the files of all classes, one class after the other, in float64.

    Raises UserError naming the file that is missing, or file and line that are not as they should be or name a picture
    that is not in the set.
    """
    row_of = {name: row for row, name in enumerate(names)}
    image, numbers, labels = [], [], []
    for label, name in enumerate(classes, 1):
        path = path_of(folder, set_name, name)
        for number, line in enumerate(_lines(path), 1):
            if line.strip():
                row, values = _parsed(f"{path}:{number}", line, row_of, set_name)
                image.append(row)
                numbers.append(values)
        labels += [label] * (len(image) - len(labels))
    numbers = np.array(numbers, np.float64).reshape(-1, 5)
    return Detections(np.array(image, np.int64), numbers[:, 1:] - 1, numbers[:, 0], np.array(labels, np.int32))


def rounded(detections: Detections) -> Detections:
    """What writing and reading leave of detections, in their order: scores of 3 decimals, boxes of 1, float64."""
    _, score, *corners = _columns(detections)
    scores = np.array([float(f"{value:.3f}") for value in score.tolist()], np.float64)
    boxes = [[float(f"{value:.1f}") for value in column.tolist()] for column in corners]
    return detections._replace(boxes_xyxy=np.array(boxes, np.float64).T - 1, scores=scores)


def _columns(detections):
    """Row of the set, score and the 1-based corners, each [n]; float64, where adding 1 rounds nothing off."""
    corners = np.asarray(detections.boxes_xyxy, np.float64).reshape(-1, 4).T + 1
    return np.asarray(detections.image), np.asarray(detections.scores, np.float64), *corners


def _lines(path):
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise UserError(f"{path}: is no file")  # a pipe would be waited for
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            yield from file
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; each class needs its file, an empty one if nothing was found") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _parsed(where, line, row_of, set_name):
    """(row of the set, [score, x1, y1, x2, y2]) of a line."""
    name, *values = line.strip().rsplit(None, 5)
    shown = repr(line.strip() if len(line) <= SHOWN else f"{line.strip()[:SHOWN]}...")
    try:
        values = [float(value) for value in values]
    except ValueError:
        values = []
    if len(values) != 5 or not all(map(math.isfinite, values)):
        raise UserError(f"{where}: is not an image id, a score and x1 y1 x2 y2: {shown}")
    if name not in row_of:
        raise UserError(f"{where}: {set_name} has no image {name[:SHOWN]!r}; give the set that the files are of")
    return row_of[name], values
