"""What watches a run: the metrics file with its TensorBoard curves, and progress on the terminal."""

import sys
import time

import keras
import tensorflow as tf
from tqdm import tqdm

from la_tf.model_dir import MetricsFile

NOT_CURVES = {"step", "epoch", "time", "phase"}
SHOWN = ("loss", "validation_knn_top1", "knn_top1", "close_mean")  # on the terminal


class EventFolder:
    """metrics.jsonl and TensorBoard events side by side in one folder."""

    def __init__(self, folder):
        self.file = MetricsFile(folder)
        self.writer = tf.summary.create_file_writer(str(folder))

    def write(self, step, metrics):
        """Adds `metrics` at `step`; numbers become TensorBoard scalars."""
        self.file.append({"step": step, **metrics})
        with self.writer.as_default(step=step):
            for name, value in metrics.items():
                if name not in NOT_CURVES:
                    tf.summary.scalar(name, value)
        self.writer.flush()

    def close(self):
        """Closes the file of TensorBoard's events."""
        self.writer.close()


class MetricsWriter(keras.callbacks.Callback):
    """Writes the metrics of epochs, and of the steps that are logged, to metrics.jsonl and TensorBoard."""

    def __init__(self, model_dir):
        super().__init__()
        self.model_dir = model_dir
        self.events = None

    def on_train_begin(self, logs=None):
        """Forgets what a killed process wrote after its last checkpoint."""
        if self.events is not None:  # of before a rollback
            self.events.close()
        MetricsFile(self.model_dir).cut(logs["step"])
        self.events = EventFolder(self.model_dir)

    def on_train_batch_end(self, batch, logs=None):
        """Writes at the steps that are logged."""
        if logs:
            self.events.write(logs["step"], {key: value for key, value in logs.items() if key != "step"})

    def on_epoch_end(self, epoch, logs=None):
        """Writes what the epoch came to."""
        self.on_train_batch_end(logs["step"], logs)


class Progress(keras.callbacks.Callback):
    """A bar with images/s and time left on a terminal; a line an epoch, and at the logged steps in a log file.

    called: what the run calls its epochs.
    """

    def __init__(self, total_steps, batch_size, steps_per_epoch, shown=SHOWN, called="epoch"):
        super().__init__()
        self.total_steps = total_steps
        self.batch_size = batch_size
        self.shown = shown
        self.called = called
        self.epochs = -(-total_steps // steps_per_epoch)
        self.on_terminal = sys.stderr.isatty()
        self.bar = None

    def on_train_begin(self, logs=None):
        """Opens the bar where the run goes on."""
        if self.bar is not None:  # of before a rollback
            self.bar.close()
        self.first_step, self.started = logs["step"], time.monotonic()
        self.bar = tqdm(
            total=self.total_steps * self.batch_size,
            initial=logs["step"] * self.batch_size,
            unit=" images",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not self.on_terminal,
        )

    def on_train_batch_end(self, batch, logs=None):
        """Moves the bar."""
        self.bar.update(self.batch_size)
        if logs and not self.on_terminal:
            self._print(logs)

    def on_epoch_end(self, epoch, logs=None):
        """Prints what the epoch came to, and what the method thinks is wrong with it."""
        self._print(logs)
        warning = self.model.warning(logs)
        if warning:
            self.bar.write(f"warning: {warning}", file=sys.stderr)

    def on_train_end(self, logs=None):
        """Closes the bar."""
        self.bar.close()

    def _print(self, logs):
        """Prints one line; on a terminal above the bar."""
        done = logs["step"] - self.first_step
        left = (time.monotonic() - self.started) / done * (self.total_steps - logs["step"])
        shown = [f"{self.called} {logs['epoch'] + 1:>{len(str(self.epochs))}}/{self.epochs}", f"step {logs['step']}"]
        shown += [logs["phase"]] if "phase" in logs else []
        shown += [f"{name} {logs[name]:.4f}" for name in self.shown if name in logs]
        rate = logs["images_per_s"]
        shown += [f"{rate:.{0 if rate >= 10 else 2}f} images/s", f"{tqdm.format_interval(left)} left"]
        self.bar.write("  ".join(shown), file=sys.stderr)
