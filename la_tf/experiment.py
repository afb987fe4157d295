"""A Config made concrete: the data set opened, m and k resolved, and what the Estimator needs made of them."""

import dataclasses
import importlib.metadata
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from data import manifest, splits
from data.augmentation import AUGMENTATION_FLAGS, augmentation_for
from data.config import image_size_for, open_configured
from data.errors import UserError
from la_tf import checkpoints, model_dir
from la_tf.config import Config, method_class, resolve
from la_tf.specs import EvalSpec, ModeKeys, RunConfig, TrainSpec
from models.preprocessing import IMAGENET_MEAN, IMAGENET_STD

KNN_NEIGHBORS = 200  # K (section 4.2)
EVALUATION_BATCH = 256
# Mean and deviation of the pixels by kind of data set. On the digits' black ground ImageNet's would make the
# zero padding of every convolution a light grey frame.
PIXELS = {"photo": (IMAGENET_MEAN, IMAGENET_STD), "digits": ((0.305,) * 3, (0.376,) * 3)}


def stored_config(folder):
    """Returns the Config of the run that lives in `folder`; raises UserError when none does."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise UserError(f"--model_dir={folder}: no run lives there (it has no config.json)")
    stored = model_dir.read_json(path)
    try:
        values = {**stored["circumstances"], **stored["identity"]}
    except (KeyError, TypeError):
        raise UserError(f"{path}: was not written by la_tf.train") from None
    return Config.from_flat({**values, "model_dir": str(folder)})


class Experiment:
    """One run: everything that its Config and its data set determine. Opening it needs no TensorFlow."""

    def __init__(self, config):
        self.dataset = open_configured(config.data)
        self.train = self.dataset.train
        image_size = image_size_for(config.data, self.dataset)
        self.augmentation = augmentation_for(self.train.kind, image_size, config.data)
        chosen = {name: getattr(self.augmentation, name) for name in AUGMENTATION_FLAGS}
        data = dataclasses.replace(config.data, image_size=image_size, **chosen)
        mean, std = PIXELS[self.train.kind]
        model = dataclasses.replace(
            config.model, pixel_mean=config.model.pixel_mean or mean, pixel_std=config.model.pixel_std or std
        )
        self.config, self.warnings = resolve(dataclasses.replace(config, data=data, model=model), self.train.size)

    def claim(self):
        """Makes the model_dir this run's own, or checks that it is; writes config.json and dataset.json."""
        folder = self.config.run.model_dir
        frozen = Path(folder) / manifest.FILE
        begun = bool(checkpoints.steps(folder)) or (Path(folder) / "export").exists()
        if begun and frozen.exists():
            manifest.freeze(self.dataset, folder)  # names the picture that changed; the identity's hash could not
            self._warn_of_another_cosine()
        model_dir.claim(folder, self.identity(), self.config.circumstances(), versions(), begun)
        if not begun:
            frozen.unlink(missing_ok=True)
        manifest.freeze(self.dataset, folder)

    def identity(self):
        """Returns what makes the run the run it is, its pictures included."""
        return {"data": self.train.fingerprint, **self.config.identity()}

    def check(self):
        """Checks that the model_dir, if a run lives there, is this run's; writes nothing."""
        path = Path(self.config.run.model_dir) / "config.json"
        if path.exists():
            model_dir.check_identity(path, self.identity())

    def _warn_of_another_cosine(self):
        before, now = stored_config(self.config.run.model_dir).run, self.config.run
        changed = (before.epochs, before.max_steps) != (now.epochs, now.max_steps)
        if changed and self.config.optimizer.schedule == "cosine":
            self.warnings.append(
                f"--epochs, --max_steps: changed, so the cosine falls to 0 at step {self.max_steps} from here on"
            )

    def has_the_pictures_of(self, folder):
        """Tells whether the run in `folder` trains on the very same pictures, so that its bank means something here."""
        path = Path(folder) / "config.json"
        return path.exists() and model_dir.read_json(path)["identity"]["data"] == self.train.fingerprint

    def headline(self):
        """Returns one line that says what is about to run."""
        model, method, data = self.config.model, self.config.method, self.config.data
        parts = (
            method.method,
            f"{model.backbone} width {model.width}",
            f"{self.dataset.spec}: {self.train.size:,} images at {data.image_size} px",
            f"batch {data.batch_size}",
            f"{self.max_steps:,} steps",
            self.config.run.model_dir,
        )
        return " · ".join(parts)

    # -- how long -------------------------------------------------------------------------------------------------

    @property
    def steps_per_epoch(self):
        """Whole batches in an epoch; what is left over changes with every epoch's order."""
        return self.train.size // self.config.data.batch_size

    @property
    def max_steps(self):
        """The step at which the run ends."""
        run = self.config.run
        return run.max_steps or run.epochs * self.steps_per_epoch

    def finished(self):
        """Returns the state of the last checkpoint when the run has nothing left to do, None otherwise."""
        checkpoint = checkpoints.latest(self.config.run.model_dir)
        state = checkpoints.read_state(checkpoint) if checkpoint else None
        return state if state and (state["stopped"] or state["step"] >= self.max_steps) else None

    # -- what the monitor looks at ----------------------------------------------------------------------------------

    @cached_property
    def validation_rows(self):
        """The rows of the train split that schedules, Best and early stopping look at; none without labels."""
        if not (self.train.labels >= 0).any():
            return ()
        data, run = self.config.data, self.config.run
        return splits.validation_rows(self.train.labels, data.validation_fraction, run.seed)

    @property
    def monitor(self):
        """The metric that selects, and whether more of it is better."""
        return ("validation_knn_top1", True) if len(self.validation_rows) else ("loss", False)

    # -- for the Estimator --------------------------------------------------------------------------------------------

    def run_config(self):
        """Returns the Estimator's RunConfig."""
        run = self.config.run
        return RunConfig(
            model_dir=run.model_dir,
            seed=run.seed,
            save_checkpoints_steps=run.checkpoint_steps,
            keep_checkpoint_max=run.keep,
            log_step_count_steps=run.log_steps,
            deterministic=run.deterministic,
        )

    def model_fn(self):
        """Returns the method's keras.Model, compiled."""
        import keras

        from la_tf.embedding import embedder_for

        method, optimizer = self.config.method, self.config.optimizer
        kind = method_class(method.method)
        learner = kind(
            embedder_for(self.config),
            self.train.size,
            weight_decay=optimizer.weight_decay,
            seed=self.config.run.seed,
            **kind.arguments(method, self.train.labels),
        )
        sgd = keras.optimizers.SGD(self._learning_rate(), momentum=optimizer.momentum)
        learner.compile(sgd)
        return learner

    def _learning_rate(self):
        from la_tf import schedules

        optimizer = self.config.optimizer
        drop_steps = [epoch * self.steps_per_epoch for epoch in optimizer.drop_epochs]
        return schedules.by_step(optimizer.schedule, optimizer.learning_rate, self.max_steps, drop_steps)

    def input_fn(self, mode, context, split=None, rows=None):
        """Returns the batches of a mode: augmented without end for TRAIN, centre views in order otherwise."""
        from data import pipeline

        data, seed = self.config.data, self.config.run.seed
        if mode == ModeKeys.TRAIN:
            return pipeline.training_batches(
                self.train,
                self.augmentation,
                data.batch_size,
                seed,
                first_step=context.first_step,
                workers=data.workers,
                shard=(context.pipeline, context.pipelines),
            )
        return pipeline.evaluation_batches(
            split or self.train, data.image_size, EVALUATION_BATCH, rows=rows, workers=data.workers
        )

    def batches_of(self, split, rows=None):
        """Returns the centre views of a split, in order."""
        return self.input_fn(ModeKeys.EVAL, None, split=split, rows=rows)

    def pictures(self, split, rows):
        """Returns the centre views of some rows of a split, `[n, S, S, 3]` in [0, 1]."""
        return np.concatenate([batch["image"].numpy() for batch in self.batches_of(split, np.asarray(rows))])

    def train_spec(self):
        """Returns what to train, with the hooks of the schedule, the metrics file and the progress bar."""
        from la_tf.callbacks import MetricsWriter, Progress
        from la_tf.schedules import EarlyStopping, Plateau

        run, optimizer, data = self.config.run, self.config.optimizer, self.config.data
        hooks = []
        if optimizer.schedule == "plateau":
            hooks.append(Plateau(*self.monitor, patience=optimizer.patience))
        if run.early_stopping:
            hooks.append(EarlyStopping(*self.monitor, patience=run.early_stopping))
        hooks.append(MetricsWriter(run.model_dir))
        hooks.append(Progress(self.max_steps, data.batch_size, self.steps_per_epoch))
        return TrainSpec(
            input_fn=self.input_fn,
            max_steps=self.max_steps,
            steps_per_epoch=self.steps_per_epoch,
            hooks=tuple(hooks),
            monitor=self._validation_spec() if len(self.validation_rows) else None,
            explain_input_error=self._explain_training_error,
        )

    def eval_specs(self):
        """Returns the evaluation of the test split, if there is one with labels; nothing selects on it."""
        labels = self.train.labels
        test = self.dataset.test
        if test is not None and (labels >= 0).any() and (test.labels >= 0).any():
            return (self._knn_spec("test", "knn_top1", test),)
        return ()

    def exporters(self):
        """Returns the exporters that --exporters names."""
        from la_tf.exporters import BestExporter, FinalExporter, LatestExporter

        folder, facts = self.config.run.model_dir, {"config": self.config.identity()}
        made = {
            "latest": lambda: LatestExporter(folder, facts=facts),
            "best": lambda: BestExporter(folder, *self.monitor, facts=facts),
            "final": lambda: FinalExporter(folder, facts=facts),
        }
        return tuple(made[name]() for name in self.config.run.exporters)

    def _validation_spec(self):
        rows = self.validation_rows
        return self._knn_spec("validation", "validation_knn_top1", self.train, rows)

    def _knn_spec(self, name, metric, split, rows=None):
        from data.reading import name_broken
        from la_tf.knn import KnnEvaluation

        evaluate = KnnEvaluation(
            metric,
            self.train.labels,
            classes=self.dataset.class_count,
            neighbors=KNN_NEIGHBORS,
            tau=self.config.method.tau,
            silent_rows=() if rows is None else rows,
        )
        return EvalSpec(
            input_fn=partial(self.input_fn, split=split, rows=rows),
            evaluate=evaluate,
            name=name,
            explain_input_error=partial(name_broken, split, range(split.size) if rows is None else rows),
        )

    def _explain_training_error(self, step):
        from data import pipeline

        pipeline.name_culprit(self.train, self.config.data.batch_size, self.config.run.seed, step)


def versions():
    """Returns the versions of the packages that a number may depend on."""
    found = {}
    for name in ("tensorflow", "keras", "faiss-cpu", "faiss-gpu", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # one of the two Faiss packages is always absent
    return found
