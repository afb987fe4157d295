"""What a detector, of a run or of an export, finds in picture files: drawn into them, and as detections.json.

>>> detector = of_run("runs/voc")  # or of_export("runs/voc/export/manual/<time>")
>>> predict(detector, ["cat.jpg"], "found")
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from data import decoding
from detection import serving
from detection.config import SELECTED_BY
from detection.drawing import drawn
from detection.experiment import Experiment, stored_config
from detection.picture_files import drawn_names
from la_tf import checkpoints
from la_tf.estimator import Estimator
from la_tf.model_dir import write_json

LEAST_SCORE = 0.5


class Detector(NamedTuple):
    """`detect`, as `serving.detection_of` describes it; the names of the classes 1..C; where it comes from."""

    detect: Callable
    classes: tuple[str, ...]
    source: dict


def restored(folder, step=None):
    """Returns the Experiment of a run and its Estimator at the checkpoint of `step`, None: at the newest.

    It is on one device, however many the run is trained on. Raises UserError where there is no such run or checkpoint.
    """
    config = stored_config(folder)[0]
    checkpoint = checkpoints.chosen(folder, step)
    run = dataclasses.replace(config.run, export=None, strategy="one", replicas=None)
    data = dataclasses.replace(config.data, classes_file=None)  # it knows what it has learned
    experiment = Experiment(dataclasses.replace(config, data=data, run=run))
    estimator = Estimator(experiment.model_fn, experiment.run_config())
    estimator.restore(checkpoint)
    best = checkpoints.best(folder, SELECTED_BY)
    if step is None and best not in (None, checkpoint):
        print(
            f"note: {checkpoint.name} is the newest, {best.name} the best by {SELECTED_BY}; --step says",
            file=sys.stderr,
        )
    return experiment, estimator


def of_run(folder, step=None) -> Detector:
    """Returns the detector of a run at the checkpoint of `step`, None: at the newest; raises UserError."""
    experiment, estimator = restored(folder, step)
    detect = serving.detection_of(estimator.model, experiment.config.data, experiment.classes)
    return Detector(detect, experiment.classes, {"model_dir": str(folder), "step": estimator.step})


def of_export(folder) -> Detector:
    """Returns the detector that `detection.export` wrote to `folder`; raises UserError."""
    description = serving.read_description(folder)
    source = {"export": str(folder), "step": description["step"]}
    return Detector(serving.load(folder), tuple(description["classes"]), source)


def predict(detector: Detector, files, out, least_score: float = LEAST_SCORE) -> dict:
    """Draws what is found in each of the picture `files` into a PNG in the folder `out`, next to detections.json.

    Returns what stands there: "pictures", each with all of its objects, of which those from `least_score` on are drawn;
    and "bad", the files that cannot be read, which are named on stderr as well. Raises OSError.
    """
    Path(out).mkdir(parents=True, exist_ok=True)
    pictures, bad = [], []
    for file, name in tqdm([*zip(files, drawn_names(files), strict=True)], leave=False, disable=None):
        picture, data, reason = read(file)
        if reason:
            bad.append({"file": file, "reason": reason})
            tqdm.write(f"{file}: {reason}", file=sys.stderr)
            continue
        found = found_in(detector, data)
        Image.fromarray(drawn(picture, detector.classes, found=found, least_score=least_score)).save(Path(out) / name)
        height, width = picture.shape[:2]
        objects = [_described(*each, detector.classes) for each in zip(*found, strict=True)]
        pictures.append({"file": file, "drawn": name, "height": height, "width": width, "objects": objects})
    content = {"boxes": serving.BOXES, "classes": list(detector.classes), **detector.source, "least_score": least_score}
    content |= {"pictures": pictures, "bad": bad}
    write_json(Path(out) / "detections.json", content)
    return content


def read(file):
    """Returns a picture uint8 `[h, w, 3]`, its file's bytes and ""; or None, None and why it cannot be read."""
    if os.path.exists(file) and not os.path.isfile(file):  # a pipe would be waited for, a device never ends
        return None, None, "is no file"
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        return None, None, f"cannot be read: {error.strerror}"
    try:
        return _decode()(tf.constant(data)).numpy(), data, ""
    except tf.errors.OpError:
        return None, None, decoding.reason(data)


@functools.cache
def _decode():
    """`decoding.decode`, compiled once."""
    return tf.function(decoding.decode, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def found_in(detector: Detector, data: bytes):
    """Returns boxes_xyxy `[n, 4]`, scores `[n]` and labels `[n]` of the objects in one encoded picture, best first."""
    found = detector.detect(tf.constant([data]))
    count = int(found["count"][0])
    return tuple(found[name][0, :count].numpy() for name in ("boxes_xyxy", "scores", "labels"))


def _described(box, score, label, classes):
    box = [round(float(corner), 6) for corner in box]
    return {"class": classes[label - 1], "score": round(float(score), 6), "box_xyxy": box}
