"""A DetectionConfig made concrete: sets opened and validated, the detector built, and what the Estimator needs."""

from __future__ import annotations

import hashlib
import sys
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from data.errors import FlagError, UserError
from data.voc_check import defects, table
from detection import batch_statistics, evaluation, loading
from detection.config import RECALIBRATION_BATCHES, SELECTED_BY, DetectionConfig
from detection.faster_rcnn import PARTS_OF_LOSS, FasterRCNN
from detection.input import TrainingPictures
from detection.parts import freeze, parts_of
from detection.voc_ap import truth_of
from la_tf import bundle, checkpoints, model_dir, schedules
from la_tf.callbacks import MetricsWriter, Progress
from la_tf.replicas import Replicas
from la_tf.specs import EvalSpec, ModeKeys, RunConfig, TrainSpec
from models.backbone import backbone_from_architecture

SHOWN = ("loss", *PARTS_OF_LOSS, "rpn_recall", "foreground_rois", "val_ap50")


def stored_config(folder) -> tuple[DetectionConfig, dict]:
    """Returns the config of the detection run in `folder` and its identity; raises UserError when there is none."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise UserError(f"--model_dir={folder}: no run lives there (it has no config.json)")
    stored = model_dir.stored_config(path)
    identity = stored["identity"]
    if not {"architecture", "classes"} <= identity.keys():
        raise UserError(f"{path}: was not written by detection.train")
    model_dir.checked(path, identity, architecture=dict, classes=list, weights=str)
    values = {**stored["circumstances"], **identity, "model_dir": str(folder)}
    try:
        return DetectionConfig.from_flat(values), identity
    except (ValueError, FlagError) as error:
        raise UserError(f"{path}: is damaged, or of another version ({error})") from None


class Experiment:
    """One run of a detector: everything that its config, its export and its pictures determine.

    A run that has begun needs no export: its config.json says what the backbone is, its checkpoints hold the weights.
    """

    def __init__(self, config: DetectionConfig, expected=None):
        self.folder = Path(config.run.model_dir)
        self.begun = bool(checkpoints.steps(self.folder))
        self.stored = stored_config(self.folder)[1] if self.begun else None
        self.backbone = self.weights = None
        if config.run.export:
            self.backbone = loading.load(config.run.export, expected or {})
            self.architecture = self.backbone.architecture
            random = config.run.initialization == "random"
            self.weights = "random" if random else _sha256(Path(config.run.export) / bundle.WEIGHTS)
        elif self.begun:
            self.architecture, self.weights = self.stored["architecture"], self.stored["weights"]
            self.backbone = backbone_from_architecture(self.architecture)
        else:
            raise FlagError(
                "--export: give the folder of an export to begin from (la_tf.train and la_tf.export make one)"
            )
        if config.detector.batch_norm == "recalibrated" and not self.architecture["batch_norm"]:
            raise FlagError("--batch_norm=recalibrated: the export has no batch norms; leave it out")
        self.config = config.resolved(self.architecture["name"], list(self.backbone.strides))

    # -- pictures -----------------------------------------------------------------------------------------------------

    @cached_property
    def classes(self):
        """Names of the classes 1..C; those of a run that has begun are its own."""
        path = self.config.data.classes_file
        learned = tuple(self.stored["classes"]) if self.begun else None
        if learned and not (path and Path(path).exists()):
            return learned
        named = self.config.data.classes
        if learned and named != learned:
            raise UserError(f"--classes_file={path}: names other classes than {self.folder} has learned; give its own")
        return named

    def open(self, name):
        """Returns the set called `name`."""
        return self.config.data.open(name, self.classes)

    @cached_property
    def train(self):
        """What is learned from."""
        return self.open(self.config.data.train_set)

    @cached_property
    def val(self):
        """What curves are measured on; None where nothing is."""
        return self.open(self.config.data.val_set) if self.config.data.val_set else None

    def validate(self):
        """Prints what is wrong with the annotations; raises UserError where training would go wrong by it.

        Before the first step every picture is decoded.
        """
        for pictures in filter(None, (self.train, self.val)):
            found = defects(pictures, decode=not self.begun, workers=self.config.data.workers)
            if found:
                print(f"{pictures.name}:\n{table(found)}", file=sys.stderr)
            stopping = sum(defect.stops for defect in found)
            if stopping:
                many = "1 defect" if stopping == 1 else f"{stopping} defects"
                raise UserError(
                    f"{pictures.name}: {many} in the annotations or pictures (the table above); mend them, or take the "
                    f"pictures out of the list"
                )
        if self.val is not None:
            truth_of(self.val)  # there has to be something to find

    @cached_property
    def pictures(self):
        """The training pictures in their order."""
        return TrainingPictures(self.train, self.config.data, self.config.run.seed)

    @property
    def warnings(self):
        """What the user should know, a line each."""
        if self.config.run.initialization == "random" and self.config.detector.freeze_at:
            yield "--initialization=random: what --freeze_at freezes stays random; --freeze_at=0 lets it learn"
        if self.val is None:
            yield "there will be no mAP and no drawn pictures while it trains; --val_set=2007_val, for one, gives them"
            return
        seen = {each.name for each in self.train.pictures} & {each.name for each in self.val.pictures}
        if seen:
            yield f"--val_set={self.val.name}: {len(seen)} of its pictures are learned from, so its mAP flatters"

    # -- the run ------------------------------------------------------------------------------------------------------

    def claim(self):
        """Makes the model_dir this run's own, or checks that it is."""
        identity = {
            "architecture": self.architecture,
            "weights": self.weights,
            "data": self.train.fingerprint,
            "classes": list(self.classes),
            **self.config.identity(),
        }
        circumstances, versions = self.config.circumstances(), model_dir.versions()
        model_dir.claim(self.folder, identity, circumstances, versions, self.begun, self.config.defaults())

    def headline(self):
        """Returns one line that says what is about to run."""
        data, run = self.config.data, self.config.run
        sides = "/".join(map(str, data.short_side))
        return " · ".join(
            (
                f"Faster R-CNN on {self.architecture['name']} width {self.architecture['width']}",
                f"{self.train.name}: {len(self.pictures.rows):,} of {self.train.size:,} pictures at {sides} px",
                f"batch {data.batch_size}",
                f"{run.steps:,} steps",
                str(self.folder),
            )
        )

    def run_config(self, strategy=None):
        """Returns the Estimator's RunConfig; the best checkpoint by the val set is kept."""
        return RunConfig.of(self.config.run, strategy, keep_best=SELECTED_BY if self.config.data.val_set else None)

    def model_fn(self):
        """Returns the detector, compiled; its backbone's weights are the export's."""
        replicas = Replicas()
        if self.config.data.batch_size % replicas.count:
            raise FlagError(
                f"--batch_size={self.config.data.batch_size}: cannot be split evenly over {replicas.count} replicas"
            )
        detector, optimizer = self.config.detector, self.config.optimizer
        backbone = backbone_from_architecture(self.architecture)  # anew: within the strategy's scope
        if self.config.run.initialization == "export":
            # A run that has begun takes them from its checkpoint, in place of these.
            for weight, exported in zip(backbone.model.weights, self.backbone.model.weights, strict=True):
                weight.assign(exported.numpy())
        parts = parts_of(backbone, detector.roi_side, detector.dropout, detector.extra_norm)
        freeze(parts, backbone, detector.freeze_at, detector.batch_norm)
        model = FasterRCNN(
            parts,
            len(self.classes),
            detector,
            weight_decay=optimizer.weight_decay,
            double_bias=optimizer.double_bias,
            seed=self.config.run.seed,
            replicas=replicas,
        )
        rate = schedules.by_step(
            "steps", optimizer.learning_rate, self.config.run.steps, optimizer.drop_steps,
            warmup_steps=optimizer.warmup_steps,
        )  # fmt: skip
        model.compile(keras.optimizers.SGD(rate, momentum=optimizer.momentum))
        return model

    def train_spec(self):
        """Returns what to train, with the hooks that recalibrate, write metrics and show progress."""
        run, data = self.config.run, self.config.data
        recalibrated = self.config.detector.batch_norm == "recalibrated"
        count = run.precise_batches or min(RECALIBRATION_BATCHES, self.pictures.steps_per_epoch)
        hooks = (
            *([batch_statistics.Recalibration(self.pictures.batches, count)] if recalibrated else []),
            MetricsWriter(run.model_dir),
            Progress(run.steps, data.batch_size, run.eval_steps, SHOWN, called="round"),
        )
        names = [picture.name for picture in self.train.pictures]
        return TrainSpec(self.input_fn, run.steps, run.eval_steps, hooks, names=names)

    def input_fn(self, mode, context):
        """Returns the batches of training from a step on; evaluations read their own."""
        return self.pictures.batches(context.first_step) if mode == ModeKeys.TRAIN else ()

    def eval_specs(self):
        """Returns what follows each round: precise statistics, and the evaluation on the val set, where asked for."""
        specs = []
        if self.config.run.precise_batches and self.config.detector.batch_norm != "recalibrated":
            specs.append(EvalSpec(self.input_fn, self.measure_statistics, name="statistics"))
        if self.val is not None:
            specs.append(EvalSpec(self.input_fn, self.evaluate_val, name="val"))
        return tuple(specs)

    def measure_statistics(self, model, _):
        """Gives batch norms the statistics of the next batches."""
        batches = self.pictures.batches(int(model.optimizer.iterations.numpy()))
        count = min(self.config.run.precise_batches, self.pictures.steps_per_epoch)
        # One device measures: it takes no more pictures at once than in training.
        parts = (part for _ in range(count) for part in parts_of_batch(next(batches), model.replicas.count))
        batch_statistics.measure(model, parts, batch_statistics.learning(model))
        return {"measured_batches": count}

    def evaluate_val(self, model, _):
        """Measures mAP on the val set and draws some of its pictures into TensorBoard."""
        step = int(model.optimizer.iterations.numpy())
        detections = evaluation.detect_all(model, self.val, self.config.data)
        self._draw(detections, step)
        numbers = evaluation.scores(detections, self.val, self.config.run.metric)
        return {f"val_{name}": number for name, number in numbers.items()}

    def _draw(self, detections, step):
        writer = tf.summary.create_file_writer(str(self.folder / "eval_val"), filename_suffix=".pictures")
        rows = np.linspace(0, self.val.size - 1, min(self.config.run.drawn_pictures, self.val.size), dtype=int)
        with writer.as_default(step=step):
            for row in rows:
                picture = evaluation.drawn_picture(self.val, row, detections)
                tf.summary.image(f"val/{self.val.pictures[row].name}", picture[np.newaxis])
        writer.close()


def parts_of_batch(batch, count):
    """Yields a batch in `count` parts of equal size, as replicas have them."""
    size = batch["image"].shape[0] // count
    for part in range(count):
        yield {name: each[part * size : (part + 1) * size] for name, each in batch.items()}


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
