"""How a run lives: one object that trains, evaluates, predicts and exports a compiled keras.Model from a model_dir."""

import itertools
import time
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from data.errors import UserError
from la_tf import bundle, checkpoints, model_dir
from la_tf.callbacks import EventFolder
from la_tf.checkpoint_writer import CheckpointWriter
from la_tf.knn import embed
from la_tf.replicas import Replicas
from la_tf.serving import Bank
from la_tf.specs import InputContext, ModeKeys
from la_tf.training_loop import TrainingLoop

NOTHING_SAID = {"found": {}, "logs": {}, "stopped": False, "finished": False}  # of a checkpoint by hand
POLL_SECONDS = 2.0  # how often an evaluator looks for a new checkpoint


class Estimator:
    """Drives the `train_step` of `model_fn()`, a compiled keras.Model, and keeps its state in `config.model_dir`.

    The model_dir is the identity of the run: a second object on the same folder goes on where the first one stopped.
    """

    def __init__(self, model_fn, config):
        self.config = config
        self._model_fn = model_fn
        self._model = None
        self._event_folders = {}
        self.replicas = Replicas(config.strategy)
        self._writer = CheckpointWriter(
            config.model_dir,
            keep=config.keep_checkpoint_max,
            keep_best=config.keep_best,
            processes=self.replicas.processes,
        )

    @property
    def is_chief(self):
        """Whether this is the process that writes; of several, the first."""
        return self.replicas.processes.index == 0

    @property
    def model(self):
        """The model, built and seeded at the first use, with the newest checkpoint's values where there is one."""
        if self._model is None:
            keras.utils.set_random_seed(self.config.seed)
            if self.config.deterministic:
                tf.config.experimental.enable_op_determinism()
            with self.replicas.strategy.scope():
                self._model = self._model_fn()
                self._model.optimizer.build(self._model.trainable_variables)
            if self.latest_checkpoint():
                self.restore(self.latest_checkpoint())
        return self._model

    @property
    def step(self):
        """The number of training steps taken."""
        return int(self.model.optimizer.iterations.numpy())

    def latest_checkpoint(self):
        """Returns the folder of the newest checkpoint, None when there is none; waits for one that is being written."""
        self._writer.wait()
        return checkpoints.latest(self.config.model_dir)

    def get_variable_names(self):
        """Returns the names of what the newest checkpoint holds; raises UserError when there is none."""
        return sorted(self._newest_arrays().files)

    def get_variable_value(self, name):
        """Returns one array of the newest checkpoint by name; raises UserError when there is none."""
        return self._newest_arrays()[name]

    def variables(self):
        """Returns everything that makes the run what it is, by name: weights, bank, optimizer, running metrics."""
        named = {variable.path: variable for variable in self.model.variables}
        if len(named) < len(self.model.variables):
            counted = Counter(variable.path for variable in self.model.variables)
            raise UserError(f"the model has two variables called {counted.most_common(1)[0][0]}; rename a layer")
        optimizer = self.model.optimizer
        named |= {f"optimizer/{_name_within(optimizer, variable)}": variable for variable in optimizer.variables}
        named |= {f"metrics/{variable.path}": variable for variable in self.model.metrics_variables}
        return named

    def restore(self, checkpoint):
        """Takes every variable's value from a checkpoint folder; raises UserError naming what does not fit."""
        with checkpoints.read_arrays(checkpoint) as arrays:
            self._assign(arrays, checkpoint)
        self.model.resume(checkpoints.read_state(checkpoint).get("settled", {}))

    def _assign(self, arrays, checkpoint):
        for name, variable in self.variables().items():
            value = arrays.get(name)
            if value is None and name.startswith("metrics/"):
                continue  # one that was not there yet when the checkpoint was written
            if value is None or value.shape != self._shape(variable):
                found = "none" if value is None else value.shape
                raise UserError(f"{checkpoint}: {name} should have shape {self._shape(variable)}, found {found}")
            self._give(variable, value)

    def _shape(self, variable):
        """Returns the logical shape: of a variable that is spread over replicas, that of the whole."""
        spread = self._is_spread(variable)
        return (self.model.pictures.size, *variable.shape[1:]) if spread else tuple(variable.shape)

    def _is_spread(self, variable):
        pictures = self.model.pictures
        return pictures is not None and pictures.spread and any(each is variable for each in pictures.weights)

    def _give(self, variable, value):
        """Assigns a whole `value`, or what this process has of it."""
        if self._is_spread(variable):
            here = self.model.pictures.here
            self.model.pictures.write(variable, value[here.start : here.stop])
        else:
            variable.assign(value)

    def warm_start(self, source, same_pictures=True):
        """Starts a run without checkpoints from another run's newest one; returns (loaded, missing, unused) names.

        Model variables of equal name and shape are taken. The bank and what else belongs to the pictures are left where
        they are if `same_pictures` is False, or if part of the embedder is missing there: its rows would lie in another
        space. Optimizer and metrics start afresh.
        """
        if self.latest_checkpoint():
            return [], [], []
        checkpoint = checkpoints.latest(source)
        if checkpoint is None:
            raise UserError(f"--warm_start={source}: holds no checkpoint; point it at the model_dir of a run")
        loaded, missing = [], []
        with checkpoints.read_arrays(checkpoint) as arrays:
            embedder = {variable.path for variable in self.model.embedder.variables}
            of_pictures = {variable.path for variable in self.model.picture_variables}
            # The embedder comes before what depends on it.
            for variable in sorted(self.model.variables, key=lambda variable: variable.path in of_pictures):
                useful = variable.path not in of_pictures or (same_pictures and embedder.isdisjoint(missing))
                value = arrays.get(variable.path) if useful else None
                if value is not None and value.shape == self._shape(variable):
                    self._give(variable, value)
                    loaded.append(variable.path)
                else:
                    missing.append(variable.path)
            weights = [name for name in arrays.files if not name.startswith(("optimizer/", "metrics/"))]
        return loaded, missing, sorted({*weights} - {*loaded})

    def save(self, hooks=(), **state):
        """Writes a checkpoint of the current step; returns its folder. Of several processes, all call it."""
        folder = self.begin_save(hooks, **state)
        self.written()
        return folder

    def begin_save(self, hooks=(), **state):
        """Does the same, but returns as soon as everything is copied: a thread writes it."""
        state["settled"] = self.model.settle()
        arrays, parts, pictures = {}, {}, self.model.pictures
        for name, variable in self.variables().items():
            if self._is_spread(variable):
                parts[name] = checkpoints.Part(pictures.size, pictures.here.start, pictures.read(variable))
            else:
                arrays[name] = variable.numpy()
        hook_states = {type(hook).__name__: hook.get_state() for hook in hooks if hasattr(hook, "get_state")}
        return self._writer.write(self.step, arrays, {**NOTHING_SAID, "hooks": hook_states, **state}, parts)

    @property
    def saving(self):
        """Whether a checkpoint is being written."""
        return self._writer.busy

    def check_saved(self):
        """Raises UserError where the checkpoint that is being written failed; does not wait for it."""
        self._writer.check()

    def written(self):
        """Returns when the last checkpoint is whole on disk, for all processes: all call it."""
        self._writer.wait()
        self.replicas.processes.sum(np.zeros(1))

    def train(self, spec, eval_specs=(), exporters=()):
        """Trains to `spec.max_steps`, evaluating and exporting after each epoch; a second call has nothing left to do.

        Returns the metrics of the last epoch.
        """
        return TrainingLoop(self, spec, eval_specs, exporters).run()

    def evaluate(self, spec, checkpoint=None):
        """Runs one EvalSpec on the model as it is, or as it was in `checkpoint`; returns its metrics.

        They are written to `eval_<name>/` as well.
        """
        if checkpoint is not None:
            self.restore(checkpoint)
        batches = itertools.islice(spec.input_fn(ModeKeys.EVAL, InputContext()), spec.steps)
        metrics = spec.evaluate(self.model, batches)
        if self.is_chief:
            events = self.event_folder(spec.name)
            events.file.drop(self.step)
            events.write(self.step, metrics)
        return metrics

    def predict(self, input_fn):
        """Yields `{"index", "embedding"}` for every valid picture of `input_fn(PREDICT, context)`, in its order."""
        for batch in input_fn(ModeKeys.PREDICT, InputContext()):
            embeddings, indices, _ = embed(self.model, [batch])
            for index, embedding in zip(indices, embeddings, strict=True):
                yield {"index": int(index), "embedding": embedding}

    def export_saved_model(self, folder, with_bank=False, **facts):
        """Writes the one-folder export of the current model to `folder`; `bundle.write` takes the facts.

        with_bank: its memory bank as well, unless other processes have rows of it; the model card says so.
        """
        bank = f"python -m la_tf.export --model_dir={self.config.model_dir} makes an export with it"
        if with_bank and len(self.model.pictures.here) < self.model.pictures.size:
            bank = f"its rows were spread over processes: {bank}"
        elif with_bank:
            bank = Bank(*self.model.bank.own_rows()[1:])
        return bundle.write(folder, self.model.embedder, step=self.step, bank=bank, **facts)

    def _newest_arrays(self):
        if not self.latest_checkpoint():
            raise UserError(f"--model_dir={self.config.model_dir}: has no checkpoint yet")
        return checkpoints.read_arrays(self.latest_checkpoint())

    def event_folder(self, name):
        """Returns the `eval_<name>/` that an evaluation writes to."""
        if name not in self._event_folders:
            self._event_folders[name] = EventFolder(Path(self.config.model_dir) / f"eval_{name}")
        return self._event_folders[name]


def _name_within(optimizer, variable):
    """Without the optimizers' own names: Keras numbers those of a process (`sgd`, `sgd_1`, ...)."""
    inner = getattr(optimizer, "inner_optimizer", None)  # of one that scales the loss
    if inner is not None and variable.path.startswith(f"{inner.name}/"):
        return f"inner/{variable.path.removeprefix(f'{inner.name}/')}"
    return variable.path.removeprefix(f"{optimizer.name}/")


def train_and_evaluate(estimator, train_spec, eval_specs=(), exporters=()):
    """Trains, and after every epoch evaluates and exports; returns the last metrics and the folders exported."""
    metrics = estimator.train(train_spec, eval_specs, exporters)
    return metrics, [path for exporter in exporters for path in exporter.exported()]


def follow(estimator, eval_specs, report=print, warn=print):
    """Evaluates each checkpoint that a training process writes, until that process has finished; returns metrics.

    Tells by `warn` when nobody trains there, and waits all the same: a run that was killed is resumed some time.
    """
    seen, alone = None, False
    while True:
        checkpoint = estimator.latest_checkpoint()
        if checkpoint == seen:
            was_alone, alone = alone, not model_dir.is_locked(estimator.config.model_dir)
            if alone and not was_alone:
                warn(f"nobody trains in {estimator.config.model_dir}: waiting until somebody does (Ctrl-C ends this)")
            time.sleep(POLL_SECONDS)
            continue
        try:
            state = checkpoints.read_state(checkpoint)
            estimator.restore(checkpoint)
        except checkpoints.Gone:
            time.sleep(POLL_SECONDS)  # the training process has removed it meanwhile: a newer one is there
            continue
        except checkpoints.Damaged as error:
            warn(f"{error}; waiting for another one")
            seen = checkpoint
            continue
        seen = checkpoint
        metrics = {"step": state["step"], "epoch": state["epoch"]}
        for spec in eval_specs:
            found = estimator.evaluate(spec)
            if "bad_images" in found:  # of the split it looked at
                found = found | {"bad_images": metrics.get("bad_images", 0) + found["bad_images"]}
            metrics |= found
        report(metrics)
        if state["finished"]:
            return metrics
