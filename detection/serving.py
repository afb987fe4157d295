"""A detector as a SavedModel, from encoded pictures to boxes in their pixels: the folder that detection.export makes.

saved_model.pb, variables/   signature `detect` (the default too): image_bytes [B] of pictures of any sizes
detector.json                classes, architecture, options, sides, step, versions, what a box is

Decoding, scaling, padding and suppression are part of it, so whoever loads it needs TensorFlow and nothing of ours.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import tensorflow as tf

from data.encoded import decoded
from data.errors import UserError
from detection.config import DataOptions
from detection.faster_rcnn import Found
from detection.input import scaled, to_multiples
from la_tf import bundle, model_dir

FORMAT = 1
DESCRIPTION = "detector.json"
BOXES = (
    "a box is x1, y1, x2, y2 in px of the original picture, turned upright where EXIF says so; the first pixel is 0, "
    "both corners belong to it: the box's width is x2 - x1 + 1"
)
TOLERANCE = 1e-4  # px, and of a score


def detection_of(model, data: DataOptions, classes):
    """Returns the tf.function image_bytes `[B]` -> what a `FasterRCNN` finds in B encoded pictures, by name.

    boxes_xyxy `[B, n, 4]` px of the original pictures, scores `[B, n]`, labels int32 `[B, n]` in 1..C, class_names
    `[B, n]`, the surest first, and zeros and "" beyond count int32 `[B]`. Each picture is scaled as in evaluation and
    seen alone. One that cannot be decoded raises tf.errors.InvalidArgumentError with its place in the batch.
    """
    names, most = np.array(["", *classes]), model.options.detections
    of = tf.TensorSpec
    of_a_picture = Found(of([most, 4], tf.float32), of([most], tf.float32), of([most], tf.int32), of([], tf.int32))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def detect(image_bytes):
        def of_one(place):
            with tf.device("CPU:0"):  # where decoders are and, as in training, the scaling
                batch = _batch_of_one(decoded(image_bytes[place], place), data)
            return tf.nest.map_structure(lambda each: each[0], model.detect(batch))

        # One after the other: memory holds one picture's maps, and of several broken ones the first is named.
        places = tf.range(tf.size(image_bytes))
        found = tf.map_fn(of_one, places, parallel_iterations=1, fn_output_signature=of_a_picture)
        given = tf.sequence_mask(found.count, most)
        labels = tf.where(given, found.labels, 0)
        with tf.device("CPU:0"):  # strings
            class_names = tf.gather(names, labels)
        return {
            "boxes_xyxy": tf.where(given[..., tf.newaxis], found.boxes_xyxy, 0.0),
            "scores": tf.where(given, found.scores, 0.0),
            "labels": labels,
            "class_names": class_names,
            "count": found.count,
        }

    return detect


def _batch_of_one(picture, data):
    example = scaled(picture, tf.constant(0, tf.int64), float(data.test_side), data.long_side)
    return to_multiples({name: value[tf.newaxis] for name, value in example.items()})


def write(folder, model, data: DataOptions, description: dict):
    """Writes the SavedModel of a `FasterRCNN` and detector.json to `folder`, whole or not at all.

    description: JSON-able facts, "classes" among them. Before the folder appears, what was written is loaded and
    compared with the model: raises UserError where it finds something else. Raises FileExistsError when the folder is
    there, and OSError.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        detect = detection_of(model, data, description["classes"])
        module = tf.Module()
        module.weights = [weight.value for weight in model.weights]
        concrete = detect.get_concrete_function()
        signatures = {"serving_default": concrete, "detect": concrete}
        tf.saved_model.save(module, str(temporary), signatures=signatures)
        model_dir.write_json(temporary / DESCRIPTION, description)
        check(temporary, model, data)
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def describe(experiment, step) -> dict:
    """Returns the contents of detector.json, for the run of a `detection.experiment.Experiment`."""
    data, detector = experiment.config.data, experiment.config.detector
    return {
        "format": FORMAT,
        "boxes": BOXES,
        "classes": list(experiment.classes),
        "architecture": experiment.architecture,
        "detector": asdict(detector),
        "short_side": data.test_side,
        "long_side": data.long_side,
        "step": step,
        "versions": model_dir.versions(),
    }


def summary(description) -> str:
    """Returns a line for people that says what an export holds."""
    architecture, classes = description["architecture"], len(description["classes"])
    return " · ".join(
        (
            f"Faster R-CNN on {architecture['name']} width {architecture['width']}, step {description['step']:,}",
            f"image_bytes [B], scaled to {description['short_side']} px, at most {description['long_side']}",
            f"up to {description['detector']['detections']} objects a picture, of {classes} classes",
            "loaded again, it finds what the run finds",
        )
    )


def read_description(folder) -> dict:
    """Returns detector.json of an export; raises UserError when the folder is none of `detection.export`."""
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        raise UserError(f"--export={folder}: no detector (it has no {DESCRIPTION}); make one by detection.export")
    description = model_dir.checked(path, model_dir.read_json(path), format=int, classes=list, step=int)
    if not all(isinstance(name, str) for name in description["classes"]):
        raise UserError(f"{path}: is damaged (classes are no names)")
    if description.get("format") != FORMAT:
        raise UserError(f"{path}: is format {description.get('format')}, this version reads {FORMAT}")
    return description


def load(folder):
    """Returns the function of an export that `detection_of` describes; raises UserError for a damaged one."""
    try:
        loaded = tf.saved_model.load(str(folder))
        _ = loaded.signatures["detect"]
    except bundle.DAMAGE as error:
        raise bundle.damaged(folder, error) from error
    return lambda image_bytes: loaded.signatures["detect"](image_bytes=image_bytes)


def check(folder, model, data: DataOptions):
    """Has the SavedModel in `folder` look at a picture; raises UserError when the model finds something else in it."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    picture = tf.constant(noise.repeat(16, axis=0).repeat(16, axis=1))
    image_bytes = tf.io.encode_jpeg(picture, quality=95)
    with tf.device("CPU:0"):
        batch = _batch_of_one(tf.io.decode_jpeg(image_bytes), data)
    wanted = model.detection(batch)
    found = load(folder)(image_bytes[tf.newaxis])
    count = int(wanted.count[0])
    same = int(found["count"][0]) == count and all(
        np.allclose(found[name][0, :count], getattr(wanted, name)[0, :count], rtol=0, atol=TOLERANCE)
        for name in ("boxes_xyxy", "scores", "labels")
    )
    if not same:
        raise UserError(f"{folder}: the SavedModel does not find what the run finds; nothing is kept, export again")
