"""What TensorBoard shows of a run besides curves: augmented pictures, neighbours, similarities, hyper-parameters."""

import math

import keras
import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.summary import experiment_pb

from data.pipeline import views_of
from data.sources import evenly_spaced
from la_tf import projector, tiles
from la_tf.clustering import UNASSIGNED
from la_tf.config import CIRCUMSTANCES
from la_tf.nearest_rows import nearest_others
from la_tf.picture_sets import class_name
from la_tf.retrieval import same_class

SHEET, NEAREST = 6, 9  # pictures on a sheet, and neighbours of each
AUGMENTED_EPOCHS = 8  # whose views are shown
SAMPLE = 256  # images whose similarities make the histograms
DENSEST = 30  # nearest rows of the histogram that all methods have (the paper's Figure 2)
PROJECTED = 2000  # rows in the projector, at most
# Of a neighbour, by whether it is of the query's class. Okabe and Ito: told apart by colour-blind eyes too.
COLORS = {True: "#0072b2", False: "#d55e00", None: tiles.INK}
COMPARED = ("method", "backbone", "learning_rate", "epochs", "seed")  # columns that are shown at first
COUNTED = ("epochs", "max_steps")  # what of a run's circumstances counts as hyper-parameters
METRICS = {
    "knn_top1": "kNN, test split", "validation_knn_top1": "kNN, validation", "loss": "loss",
    "close_mean": "|C ∩ B|, mean", "purity": "cluster purity",
}  # fmt: skip


class Board(keras.callbacks.Callback):
    """Adds to the event file of `metrics_writer`, `updates` times in a run (0: only hyper-parameters and projector).

    All that needs a neighbourhood is of a sample of rows, evenly spaced over those of this process; a summary says
    which. Bad pictures have no row.
    """

    def __init__(self, experiment, metrics_writer, updates):
        super().__init__()
        self.experiment, self.metrics_writer, self.updates = experiment, metrics_writer, updates
        self.split = experiment.train
        self.epochs = math.ceil(experiment.max_steps / experiment.steps_per_epoch)

    def on_train_begin(self, logs=None):
        """Writes the hyper-parameters and, where a run begins, how its pictures are augmented."""
        with self._writing(logs["step"]):
            tf.summary.experimental.write_raw_pb(experiment_summary(self.experiment.config).SerializeToString())
            hparams.hparams(hyper_parameters(self.experiment.config))
            if logs["step"] == 0 and self.updates:
                tf.summary.image("augmentation", self._augmented()[None])

    def on_epoch_end(self, epoch, logs=None):
        """Writes neighbours and histograms where they are due."""
        if is_due(epoch, self.epochs, self.updates):
            self._look(logs["step"])

    def on_train_end(self, logs=None):
        """Writes the sample of the bank for the projector."""
        first, rows, written = self.model.bank.own_rows()
        here = np.flatnonzero(written)
        if not len(here):
            return
        sample = here[evenly_spaced(len(here), PROJECTED)]
        images = first + sample
        name = f"memory bank, {len(sample):,} of {self.split.size:,} rows, step {logs['step']:,}"
        columns = {"class": map(self._class, images), "file": (self.split.names[i] for i in images)}
        projector.write(self.metrics_writer.model_dir, name, rows[sample], self._pictures(images), columns)

    # -- neighbours and similarities --------------------------------------------------------------------------------

    def _look(self, step):
        first, rows, written = self.model.bank.own_rows()
        here = np.flatnonzero(written)
        if len(here) < 2:
            return
        sample = here[evenly_spaced(len(here), SAMPLE)]
        labels = self.model.clusters_here
        k = self.model.background_k if getattr(self.model, "background", None) == "knn" else None
        found = similarities(rows, written, sample, labels, k)
        with self._writing(step):
            tf.summary.text("sample", self._said_of(len(sample), len(here)))
            tf.summary.image("neighbors", self._sheet(first, rows, written, here)[None])
            for name, values in found.items():
                tf.summary.histogram(f"similarity/{name}", values)
            if labels is not None:
                tf.summary.histogram("cluster_sizes", cluster_sizes(labels))

    def _said_of(self, sampled, here):
        of = f"{here:,} rows of the memory bank" + (f" that process 0 has of {self.split.size:,}" * self._is_part())
        return (
            f"`similarity`: {sampled:,} of the {of}, evenly spaced, each with its nearest {DENSEST} rows (nearest), "
            "with B_i (background) and with those of its clusters (close: C_i), itself left out. `neighbors`: the "
            "first picture of a line, then its nearest rows; blue: of its class. `cluster_sizes`: of all clusterings."
        )

    def _is_part(self):
        return len(self.model.pictures.here) < self.split.size

    def _sheet(self, first, rows, written, here):
        queries = here[evenly_spaced(len(here), SHEET)]
        similarity, nearest = nearest_others(rows, queries, NEAREST, written)
        shown = first + np.concatenate([queries[:, None], nearest], axis=1)  # one pipeline for all of them
        pictures = self.experiment.pictures(self.split, shown.ravel())
        pictures = pictures.reshape(*shown.shape, *pictures.shape[1:])
        captions = []
        for images, row_similarity in zip(shown, similarity, strict=True):
            labels = self.split.labels[images]
            words = [(f"{self._class(images[0])}\n", tiles.INK)]
            for image, label, value in zip(images[1:], labels[1:], row_similarity, strict=True):
                words.append((f"{self._class(image)}\n{value:.2f}", COLORS[same_class(label, labels[0])]))
            captions.append(words)
        return tiles.tiled(pictures, captions)

    def _augmented(self):
        images = np.array(evenly_spaced(self.split.size, SHEET))
        plain = self.experiment.pictures(self.split, images)
        seed, views = self.experiment.config.run.seed, self.experiment.views[0]
        batches = [batch["image"].numpy() for batch in views_of(self.split, images, views, seed, AUGMENTED_EPOCHS)]
        pictures = list(zip(plain, *batches, strict=True))
        titles = ["central view", *(f"epoch {epoch}" for epoch in range(AUGMENTED_EPOCHS))]
        return tiles.tiled(pictures, [[(title, tiles.INK) for title in titles]] * len(pictures))

    def _class(self, image):
        return class_name(self.experiment.dataset, self.split.labels[image])

    def _pictures(self, images):
        """Yields the central views of `images`, a few of them at a time in memory."""
        for batch in self.experiment.batches_of(self.split, images):
            yield from np.where(batch["valid"][:, None, None, None], batch["image"], 0)

    def _writing(self, step):
        return self.metrics_writer.events.writer.as_default(step=step)


def is_due(epoch, epochs, updates):
    """Tells whether what comes `updates` times in a run of `epochs` comes after `epoch`; it does after the last."""
    return (epoch + 1) * updates // epochs > epoch * updates // epochs


def hyper_parameters(config):
    """Returns what TensorBoard's HParams tab compares runs by: all that makes a `Config` what it is, and its epochs."""
    values = config.identity() | {name: getattr(config.run, name) for name in COUNTED}
    texts = {name: ",".join(map(str, value)) for name, value in values.items() if isinstance(value, list)}
    return {name: texts.get(name, value) for name, value in values.items() if value is not None}


def experiment_summary(config):
    """Returns the summary that tells the HParams tab which columns there are, for runs of any method.

    TensorBoard takes that of one run for all, and shows first what is said to differ; its API cannot say so.
    """
    names = [name for name in config.flat() if name not in CIRCUMSTANCES or name in COUNTED]
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=title) for tag, title in METRICS.items()
    ]
    return experiment_pb([api_pb2.HParamInfo(name=name, differs=name in COMPARED) for name in names], metrics)


def similarities(rows, written, images, labels=None, k=None):
    """Returns cosines of each of `images` `[n]` to its nearest rows, to B_i and to C_i, by name, itself left out.

    rows `[N, D]` are unit vectors, `written` `[N]` tells those that count. "nearest": the 30 nearest; "background",
    where k is given: the k nearest (section 3.1, of v̄_i); "close", where `labels` `[N, H]` are given: those that share
    a cluster with it in any clustering.
    """
    count = max(DENSEST, k or 0)
    similarity, _ = nearest_others(rows, images, count, written)
    found = {"nearest": similarity[:, :DENSEST].ravel()}
    if k is not None:
        found["background"] = similarity[:, : k - 1].ravel()  # the image itself is one of the k
    if labels is not None:
        mates = [np.flatnonzero(_shares_a_cluster(labels, image) & written) for image in images]
        found["close"] = np.concatenate([rows[of] @ rows[i] for i, of in zip(images, mates, strict=True)])
    return {name: values[np.isfinite(values)] for name, values in found.items()}


def _shares_a_cluster(labels, image):
    shares = ((labels == labels[image]) & (labels[image] != UNASSIGNED)).any(axis=1)
    shares[image] = False
    return shares


def cluster_sizes(labels):
    """Returns the sizes of all clusters that hold something, of all columns of `labels` `[N, H]`."""
    columns = (column[column != UNASSIGNED] for column in labels.T)
    return np.concatenate([np.unique(column, return_counts=True)[1] for column in columns])
