"""A Config made concrete: the data set opened, m and k resolved, and what the Estimator needs made of them."""

import dataclasses
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np

from data import manifest, splits
from data.augmentation import AUGMENTATION_FLAGS, augmentation_for, multi_crop
from data.config import image_size_for, open_configured
from data.errors import FlagError, UserError
from la_tf import checkpoints, model_dir
from la_tf.config import SEVERAL_VIEWS, Config, method_class
from la_tf.processes import ALONE
from la_tf.resolve import resolve
from la_tf.specs import EvalSpec, ModeKeys, RunConfig, TrainSpec
from la_tf.spread_rows import share
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
    if not isinstance(stored.get("identity"), dict) or not isinstance(stored.get("circumstances"), dict):
        raise UserError(f"{path}: was not written by la_tf.train")
    if "method" not in stored["identity"]:
        raise UserError(f"{path}: belongs to no run of la_tf.train, but of another program, as detection.train")
    model_dir.checked(path, {"data": "", **stored["identity"]}, data=str)
    values = {**stored["circumstances"], **stored["identity"], "model_dir": str(folder)}
    try:
        return Config.from_flat(values)
    except (ValueError, FlagError) as error:
        raise UserError(f"{path}: is damaged, or of another version ({error})") from None


def check_division(config, replicas):
    """Raises FlagError where a batch cannot be divided by the number of `replicas`."""
    size = config.data.batch_size
    if size % replicas:
        raise FlagError(f"--batch_size={size}: cannot be split evenly over {replicas} replicas")


class Experiment:
    """One run: everything that its Config and its data set determine. Opening it needs no TensorFlow.

    For a plan, `size` stands for more images than the train split has, and `replicas` for more devices than there are.
    `processes` are the number of this one and of all that train together (`la_tf.processes.task`).
    """

    def __init__(self, config, size=None, replicas=None, processes=(0, 1)):
        self.process, self.processes = processes
        self.replicas = replicas or config.run.replicas or self.processes  # R, as far as flags tell
        check_division(config, self.replicas)
        self.dataset = open_configured(config.data)
        self.train = self.dataset.train
        if size is not None and size < self.train.size:
            raise FlagError(f"--plan_size={size}: {self.train} has {self.train.size} images; give as many or more")
        self.size = size or self.train.size
        image_size = image_size_for(config.data, self.dataset)
        mean, std = PIXELS[self.train.kind]
        model = dataclasses.replace(
            config.model, pixel_mean=config.model.pixel_mean or mean, pixel_std=config.model.pixel_std or std
        )
        data = dataclasses.replace(config.data, image_size=image_size)
        resolved, self.warnings = resolve(dataclasses.replace(config, data=data, model=model), self.size)
        if config.method.method in SEVERAL_VIEWS:
            small_views = resolved.method.small_views
            if small_views and self.train.kind == "digits":
                raise FlagError(f"--small_views={small_views}: digits have none; set it to 0")
            self.views = multi_crop(self.train.kind, image_size, small_views, data)
        else:
            self.views = (augmentation_for(self.train.kind, image_size, data),)
        if config.method.method == "supervised" and not self.labelled:
            raise FlagError(f"--method=supervised: {self.train} has no labels; choose another --method")
        if config.run.bank_sharding == "sharded" and config.run.strategy == "one" and self.replicas == 1:
            self.warnings.append("--bank_sharding=sharded: there is one replica, which has all rows; set --strategy")
        chosen = {name: getattr(self.views[0], name) for name in AUGMENTATION_FLAGS}
        self.config = dataclasses.replace(resolved, data=dataclasses.replace(data, **chosen))
        if not self.labelled:
            self.warnings.append(f"there will be no kNN score: {self.no_test_score}")

    def claim(self):
        """Makes the model_dir this run's own, or checks that it is; writes config.json and dataset.json."""
        folder = self.config.run.model_dir
        frozen = Path(folder) / manifest.FILE
        begun = bool(checkpoints.steps(folder)) or (Path(folder) / "export").exists()
        if begun and frozen.exists():
            manifest.freeze(self.dataset, folder)  # names the picture that changed; the identity's hash could not
            self._warn_of_another_cosine()
        circumstances, versions = self.config.circumstances(), model_dir.versions()
        model_dir.claim(folder, self.identity(), circumstances, versions, begun, Config.defaults())
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
            model_dir.check_identity(path, self.identity(), Config.defaults())

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
        return path.exists() and model_dir.stored_identity(folder).get("data") == self.train.fingerprint

    def headline(self):
        """Returns one line that says what is about to run."""
        model, method, data = self.config.model, self.config.method, self.config.data
        parts = (
            method.method,
            f"{model.backbone} width {model.width}",
            f"{self.dataset.spec}: {self.size:,} images at {data.image_size} px",
            f"batch {data.batch_size}",
            f"{self.max_steps:,} steps",
            self.config.run.model_dir,
        )
        return " · ".join(parts)

    # -- how long -------------------------------------------------------------------------------------------------

    @property
    def steps_per_epoch(self):
        """Whole batches in an epoch; what is left over changes with every epoch's order."""
        return self.size // self.config.data.batch_size

    @property
    def max_steps(self):
        """The step at which the run ends."""
        run = self.config.run
        return run.max_steps or run.epochs * self.steps_per_epoch

    def finished(self):
        """Returns the state of the last checkpoint when the run has nothing left to do, None otherwise."""
        checkpoint = checkpoints.latest(self.config.run.model_dir)
        state = checkpoints.read_state(checkpoint) if checkpoint else None
        return state if state and (state.get("stopped") or state["step"] >= self.max_steps) else None

    # -- what a score needs -----------------------------------------------------------------------------------------

    @property
    def labelled(self):
        """Whether any training picture has a label, and so a vote."""
        return bool((self.train.labels >= 0).any())

    @property
    def no_test_score(self):
        """Why nothing can be measured on the test split, in a few words; None where it can."""
        test = self.dataset.test
        if not self.labelled:
            return f"{self.train} has no labels"
        if test is None:
            return f"{self.dataset.spec} has no test split"
        return None if (test.labels >= 0).any() else f"{test} has no labels"

    @cached_property
    def validation_rows(self):
        """The rows of the train split that schedules, Best and early stopping look at; none without labels."""
        if not self.labelled:
            return ()
        data, run = self.config.data, self.config.run
        return splits.validation_rows(self.train.labels, data.validation_fraction, run.seed)

    @property
    def monitor(self):
        """The metric that selects, and whether more of it is better."""
        return ("validation_knn_top1", True) if len(self.validation_rows) else ("loss", False)

    # -- for the Estimator --------------------------------------------------------------------------------------------

    def run_config(self, strategy=None):
        """Returns the Estimator's RunConfig, with a tf.distribute strategy where there is more than one device."""
        return RunConfig.of(self.config.run, strategy)

    def model_fn(self, replicas=None):
        """Returns the method's keras.Model, compiled, for the replicas of the scope or those that are given."""
        from la_tf.embedding import embedder_for
        from models.layers import synchronize_batch_norm

        kind, run = method_class(self.config.method.method), self.config.run
        learner = kind(
            embedder_for(self.config, self.config.model.precision),
            self.size,
            # LARS decays weights within its own rule.
            weight_decay=0.0 if self.config.optimizer.optimizer == "lars" else self.config.optimizer.weight_decay,
            seed=run.seed,
            xla=run.xla,
            replicas=replicas,
            **kind.arguments(self.config, self._training_set()),
        )
        if learner.replicas.count > 1 and run.sync_batch_norm:
            synchronize_batch_norm(learner.embedder)
        learner.compile(self._optimizer())
        return learner

    def _training_set(self):
        from la_tf.method import TrainingSet

        return TrainingSet(
            size=self.size,
            labels=self.train.labels,
            classes=self.dataset.class_count,
            validation_rows=np.asarray(self.validation_rows, np.int64),
            steps_per_epoch=self.steps_per_epoch,
            center_crops=partial(self.batches_of, self.train),
        )

    def _optimizer(self):
        import keras

        chosen = self.config.optimizer
        if chosen.optimizer == "lars":
            from la_tf.lars import LARS

            optimizer = LARS(self._learning_rate(), chosen.momentum, chosen.weight_decay, chosen.trust)
        else:
            optimizer = keras.optimizers.SGD(self._learning_rate(), momentum=chosen.momentum)
        if self.config.model.precision != "mixed_float16":
            return optimizer
        from la_tf.loss_scaling import LossScaling

        return LossScaling(optimizer)

    def _learning_rate(self):
        from la_tf import schedules

        chosen, per_epoch = self.config.optimizer, self.steps_per_epoch
        drop_steps = [epoch * per_epoch for epoch in chosen.drop_epochs]
        warmup_steps = round(chosen.learning_rate_warmup * per_epoch)
        return schedules.by_step(
            chosen.schedule, chosen.learning_rate, self.max_steps, drop_steps, warmup_steps=warmup_steps
        )

    def input_fn(self, mode, context, split=None, rows=None):
        """Yields the batches of a mode (`batches`); bad pictures among them are listed in the model_dir."""
        split = split or self.train
        return self.bad_images[split.name].watch(self.batches(mode, context, split, rows))

    def batches(self, mode, context, split=None, rows=None):
        """Returns the batches of a mode: augmented without end for TRAIN, centre views in order otherwise."""
        from data import pipeline

        data, seed = self.config.data, self.config.run.seed
        split = split or self.train
        if mode == ModeKeys.TRAIN:
            return pipeline.training_batches(
                self.train,
                self.views if len(self.views) > 1 else self.views[0],
                data.batch_size,
                seed,
                first_step=context.first_step,
                workers=data.workers,
                shard=(context.pipeline, context.pipelines),
                epoch_rows=context.epoch_rows,
            )
        return pipeline.evaluation_batches(split, data.image_size, EVALUATION_BATCH, rows, data.workers)

    @cached_property
    def bad_images(self):
        """What is known of the bad pictures of each split, by its name."""
        from la_tf.bad_images import BadImages

        folder, most = self.config.run.model_dir, self.config.data.max_bad_fraction
        both = (self.train, self.dataset.test)
        return {split.name: BadImages(split, folder, most) for split in both if split is not None}

    def batches_of(self, split, rows=None):
        """Returns the centre views of a split, in order."""
        return self.input_fn(ModeKeys.EVAL, None, split=split, rows=rows)

    def pictures(self, split, rows):
        """Returns the centre views of some rows of a split, `[n, S, S, 3]` in [0, 1]; a bad picture's is black.

        To be looked at: bad ones are not listed.
        """
        batches = self.batches(ModeKeys.EVAL, None, split, np.asarray(rows))
        return np.concatenate([np.where(b["valid"][:, None, None, None], b["image"], 0) for b in batches])

    def train_spec(self, processes=ALONE):
        """Returns what to train, with the hooks of the schedule, the metrics file and the progress bar.

        Of several `processes` the first one writes and tells.
        """
        from la_tf.board import Board
        from la_tf.callbacks import MetricsWriter, Progress
        from la_tf.schedules import EarlyStopping, Plateau

        run, optimizer, data = self.config.run, self.config.optimizer, self.config.data
        for bad in self.bad_images.values():
            bad.processes = processes
        hooks = [self.bad_images[self.train.name]]
        if optimizer.schedule == "plateau":
            hooks.append(Plateau(*self.monitor, patience=optimizer.patience))
        if run.early_stopping:
            hooks.append(EarlyStopping(*self.monitor, patience=run.early_stopping))
        if processes.index == 0:
            metrics_writer = MetricsWriter(run.model_dir)
            hooks += [metrics_writer, Board(self, metrics_writer, run.board_updates)]
            hooks.append(Progress(self.max_steps, data.batch_size, self.steps_per_epoch))
        return TrainSpec(
            input_fn=self.input_fn,
            max_steps=self.max_steps,
            steps_per_epoch=self.steps_per_epoch,
            hooks=tuple(hooks),
            monitor=self._validation_spec() if len(self.validation_rows) else None,
            names=self.train.names,
        )

    def eval_specs(self):
        """Returns the evaluation of the test split, if there is one with labels; nothing selects on it."""
        return () if self.no_test_score else (self._knn_spec("test", "knn_top1", self.dataset.test),)

    def exporters(self):
        """Returns the exporters that --exporters names."""
        from data import encoded
        from la_tf.exporters import BestExporter, FinalExporter, LatestExporter

        folder, image_size = self.config.run.model_dir, self.config.data.image_size
        facts = {
            "config": self.identity(),
            "data": manifest.summary(manifest.manifest(self.dataset)),
            "view": encoded.view_of(self.train, image_size),
        }
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
        from la_tf.knn import KnnEvaluation

        knn = KnnEvaluation(
            metric,
            self.train.labels,
            classes=self.dataset.class_count,
            neighbors=KNN_NEIGHBORS,
            tau=self.config.method.tau,
            silent_rows=() if rows is None else rows,
        )

        def evaluate(model, batches):
            found, bad = knn(model, batches), self.bad_images[split.name]
            bad.share()
            return found | {"bad_images": bad.count(rows)}

        looked_at = np.arange(split.size) if rows is None else np.asarray(rows)
        mine = share(looked_at, EVALUATION_BATCH, self.process, self.processes)
        batches = cache(partial(self.batches, ModeKeys.EVAL, None, split, mine))  # made once: tracing takes its time

        def input_fn(mode, context):
            return self.bad_images[split.name].watch(batches())

        return EvalSpec(input_fn=input_fn, evaluate=evaluate, name=name)
