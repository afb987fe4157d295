"""The loop of `Estimator.train`: from the newest checkpoint, step by step and epoch by epoch, to the last step."""

import contextlib
import math
import signal
import sys
import time

import numpy as np
import tensorflow as tf

from data.errors import Stopped, UserError
from la_tf import checkpoints, schedules, stop_signals
from la_tf.names_file import shown
from la_tf.specs import InputContext, ModeKeys

ROLLBACKS = 3  # of a run, at most: the last one learns at an eighth of the rate
AGREED_STEPS = 5  # how often several processes tell each other of a signal


class Diverged(UserError):
    """The loss is no number; `what` says where, the message with what to do."""

    def __init__(self, what, remedy):
        super().__init__(f"{what}: {remedy}")
        self.what = what


class TrainingLoop:
    """One call of `Estimator.train`.

    After each epoch come the monitor, the evaluations, the hooks, the exporters and a checkpoint, in this order, so
    that a checkpoint holds all that its epoch did. Hooks are keras callbacks; `on_train_batch_end` gets logs at the
    steps that are to be logged and None at the others.
    """

    def __init__(self, estimator, spec, eval_specs=(), exporters=()):
        self.estimator = estimator
        self.config = estimator.config
        self.spec = spec
        self.eval_specs = ((spec.monitor,) if spec.monitor else ()) + tuple(eval_specs)
        self.exporters = exporters
        self.model = estimator.model
        self.replicas = estimator.replicas
        self.rollbacks = 0  # of the whole run, with what its checkpoint tells
        # Batch norm that is not synchronised: its statistics are each replica's own.
        moving = [weight for weight in self.model.non_trainable_variables if weight.name.startswith("moving_")]
        self.level = self.replicas.levelling(moving)

    def _step(self, batch, variant):
        """Takes a step; a graph of it is made for each `variant`."""
        return self.replicas.run(self.model.train_step, batch)

    def run(self):
        """Trains; returns the metrics of the last epoch, those of the checkpoint when there is nothing to do."""
        with stop_signals.heard() as self.signal:
            try:
                while True:
                    try:
                        return self._train()
                    except Diverged as diverged:
                        self._roll_back(diverged)
            except BaseException:
                # Alone: one of several processes would wait in vain for what another that is gone has not written.
                if self.replicas.processes.count == 1:
                    with contextlib.suppress(UserError):  # what ended the run is to be told, not what came of it
                        self.estimator.written()
                raise

    def _train(self):
        logs = self._resume()
        if self._finished():
            return logs
        # As tf.function and not through Keras' fit, which MultiWorkerMirroredStrategy does not work with.
        self.train_step = tf.function(self._step, reduce_retracing=True)
        self.batches = None  # of the epochs to come, while the method leaves the choice of rows to the pipeline
        self._call("on_train_begin", {"step": self.step})
        while not self._finished():
            logs = self._epoch()
        self._call("on_train_end", logs)
        self.estimator.written()
        return logs

    def _roll_back(self, diverged):
        """Prepares to go on from the newest checkpoint at half the rate; raises `diverged` where that is not to be."""
        self.estimator.written()
        good = self.estimator.latest_checkpoint()
        if self.config.on_nan != "rollback" or good is None or self.rollbacks == ROLLBACKS:
            raise diverged
        self.rollbacks += 1
        self.estimator.restore(good)
        self.model.first_failure.forget()
        if self.estimator.is_chief:
            times = f"time {self.rollbacks} of {ROLLBACKS} at most"
            tell = f"warning: {diverged.what}; back to {good.name}, at half the learning rate ({times})"
            print(tell, file=sys.stderr)

    def _resume(self):
        for hook in self.spec.hooks:
            hook.set_model(self.model)
        checkpoint = self.estimator.latest_checkpoint()
        state = checkpoints.read_state(checkpoint) if checkpoint else None
        if state and state["step"] != self.estimator.step:
            self.estimator.restore(checkpoint)  # an older one has been evaluated meanwhile
        self.step = self.estimator.step
        steps = self.replicas.processes.gather(np.array([self.step]))
        if len({*steps.tolist()}) > 1:
            raise UserError(
                f"--model_dir={self.config.model_dir}: processes find checkpoints of steps {steps.tolist()} there; it "
                "must be on a file system that all of them see"
            )
        self.model.stop_training = False
        if self.estimator.is_chief:
            for eval_spec in self.eval_specs:  # what was evaluated after the checkpoint is evaluated again
                self.estimator.event_folder(eval_spec.name).file.cut(self.step)
        self.found = {}  # what `begin_epoch` said of the epoch under way
        if state is None:
            return {}
        halved = state.get("rollbacks", 0)
        self.rollbacks = max(self.rollbacks, halved)
        schedules.slow_down(self.model.optimizer, 0.5**self.rollbacks, 0.5 ** (self.rollbacks - halved))
        for hook in self.spec.hooks:
            if type(hook).__name__ in state["hooks"]:
                hook.set_state(state["hooks"][type(hook).__name__])
        self.found = state["found"]
        self.model.stop_training = state["stopped"]
        return state["logs"]

    def _finished(self):
        return self.step >= self.spec.max_steps or self.model.stop_training

    def _epoch_batches(self, epoch):
        """Returns the batches from the current step on."""
        rows = self.model.epoch_rows(epoch)
        if rows is None and self.batches is not None:
            return self.batches
        processes = self.replicas.processes
        context = InputContext(self.step, rows, pipeline=processes.index, pipelines=processes.count)
        batches = iter(self.spec.input_fn(ModeKeys.TRAIN, context))
        self.batches = batches if rows is None else None
        return batches

    def _epoch(self):
        """Runs the rest of the epoch that the current step lies in; returns its metrics."""
        epoch, position = divmod(self.step, self.spec.steps_per_epoch)
        self._stop_if_asked(epoch)
        if position == 0:
            self.model.reset_metrics()
            self.found = self.model.begin_epoch(epoch)
        self._call("on_epoch_begin", epoch, self.found)
        batches = self._epoch_batches(epoch)
        end = min(self.spec.max_steps, (epoch + 1) * self.spec.steps_per_epoch)
        started, images = time.perf_counter(), 0
        while self.step < end:
            self._stop_if_asked(epoch)
            self.estimator.check_saved()
            try:
                self.found |= self.model.begin_step(self.step)
            except UserError:
                self._check(self.model.epoch_metrics()["loss"], self.model.finite)  # it may fail of what is no number
                raise
            batch = next(batches)
            self.train_step(batch, self.model.variant(self.step))
            self.step += 1
            images += int(batch["index"].shape[0]) * self.replicas.processes.count
            logs = None
            if self.step == end or self.step % self.config.log_step_count_steps == 0:
                logs = self._running(epoch, images / (time.perf_counter() - started))
            self._call("on_train_batch_end", self.step, logs if self.step < end else None)
            every = self.config.save_checkpoints_steps
            if self.step < end and every and self.step % every == 0:
                self._save(epoch)
        return self._end_epoch(epoch, logs)

    def _stop_if_asked(self, epoch):
        """Raises Stopped where a signal came, behind a checkpoint.

        Several processes ask each other every few steps, for all of them have to stop at the same one.
        """
        asked, processes = self.signal(), self.replicas.processes
        if processes.count > 1:
            if self.step % AGREED_STEPS:
                return
            asked = int(processes.gather(np.array([asked or 0])).max())
        if not asked:
            return
        if self.step > epoch * self.spec.steps_per_epoch:  # else there is one of the epoch before
            self._save(epoch)
        self.estimator.written()
        raise Stopped(signal.Signals(asked), f"at step {self.step}")

    def _end_epoch(self, epoch, logs):
        self.level()
        self._check(logs["loss"], self.model.finite)
        logs |= self.model.end_epoch()
        for eval_spec in self.eval_specs:
            logs |= self.estimator.evaluate(eval_spec)
        self._call("on_epoch_end", epoch, logs)
        if self.estimator.is_chief:
            for exporter in self.exporters:
                exporter.export(self.estimator, logs, self._finished())
        self._save(epoch, logs)
        return logs

    def _running(self, epoch, images_per_s):
        logs = {
            "step": self.step,
            "epoch": epoch,
            "time": time.time(),
            **self.model.epoch_metrics(),
            "learning_rate": float(tf.convert_to_tensor(self.model.optimizer.learning_rate)),
            "images_per_s": images_per_s,
            **self.found,
        }
        if self.rollbacks:
            logs["rollbacks"] = self.rollbacks
        self._check(logs["loss"])
        return logs

    def _check(self, loss, finite=True):
        """Raises UserError for a loss that is no number, before it gets into a checkpoint, and for steps in vain.

        finite: whether the weights are numbers.
        """
        if not math.isfinite(loss) or not finite:
            rate = float(tf.convert_to_tensor(self.model.optimizer.learning_rate))
            what = f"the loss is {loss}" if not math.isfinite(loss) else "weights are no numbers any more"
            what += f" at step {self.step}, learning rate {rate:.2g}{self._first_failure()}"
            with contextlib.suppress(UserError):  # of writing: this comes first
                self.estimator.written()
            good = checkpoints.latest(self.config.model_dir)
            remedy = "lower --learning_rate"
            if good and self.config.on_nan is not None:
                remedy += " in a new --model_dir"
            if good and self.model.warm_starts:
                remedy += f", from scratch or by --warm_start={self.config.model_dir}"
            if good and self.config.on_nan == "stop":
                remedy += "; or take --on_nan=rollback"
            raise Diverged(what, remedy + (f" ({good.name} is kept)" if good else ""))
        # Every skipped step halves the scale: one that lies below 1 was not what made the gradients overflow.
        scale = float(tf.convert_to_tensor(getattr(self.model.optimizer, "dynamic_scale", 1)))
        if scale < 1:
            raise UserError(
                f"--precision=mixed_float16: the gradients are not finite at step {self.step}, whatever the loss is "
                f"scaled by; take --precision=mixed_bfloat16 or a lower --learning_rate in a new --model_dir"
            )

    def _first_failure(self):
        found = self.model.first_failure.read()
        if found is None:
            return ""
        step, rows = found
        names = self.spec.names
        named = ", ".join(shown(names[row]) if names is not None else f"picture {row}" for row in rows)
        return f"; it first was at step {step}, with {named}"

    def _save(self, epoch, logs=None):
        """Begins a checkpoint; training goes on while it is written."""
        self.level()
        if logs is None:  # within an epoch, whose end has checked it
            self._check(self.model.epoch_metrics()["loss"], self.model.finite)
        self.estimator.begin_save(
            self.spec.hooks,
            epoch=epoch,
            found=dict(self.found),  # they change while a thread writes them
            logs=dict(logs or {}),
            stopped=self.model.stop_training,
            finished=self._finished(),
            rollbacks=self.rollbacks,
        )

    def _call(self, event, *arguments):
        for hook in self.spec.hooks:
            getattr(hook, event)(*arguments)
