"""How the clusterings of a run are renewed: at once, or in a thread while training goes on with the last ones."""

import contextlib
import time

import keras
import numpy as np

from data.errors import UserError
from la_tf import cluster_health
from la_tf.background_job import Job
from la_tf.clustering import UNASSIGNED
from la_tf.picture_rows import STATE


class BackgroundLabels(keras.layers.Layer):
    """Holds the labels that a job finds for `variables` of `pictures`, from its end until they are taken.

    When they are taken is the caller's choice, not the thread's, so a run stays a function of its seed.
    """

    def __init__(self, variables, pictures, name="waiting_clusterings"):
        super().__init__(name=name)
        self._pictures = pictures
        self.labels = [
            pictures.add(self, variable.name, UNASSIGNED, variable.shape[1:], "int32") for variable in variables
        ]
        self.waiting = self.add_weight(name="waiting", shape=(), initializer="zeros", dtype="bool", **STATE)
        self.forget()

    def start(self, find):
        """Starts `find()`, which returns labels, an array for each variable, and their health, a dict."""
        self._job = Job(find, "clustering")

    def settle(self):
        """Waits for the job, if there is one, and keeps its labels in variables; returns their health.

        What went wrong in it is for `take` to tell: a checkpoint is written all the same.
        """
        with contextlib.suppress(UserError):
            self._keep()
        return dict(self._health)

    def _keep(self):
        if self._job is not None:
            labels, self._health = self._result()
            self._job = None
            for variable, value in zip(self.labels, labels, strict=True):
                self._pictures.write(variable, value)
            self.waiting.assign(True)

    def _result(self):
        try:
            return self._job.result()
        except UserError:
            raise
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"--cluster_in_background: the clustering failed ({what}); --nocluster_in_background needs less memory"
            ) from error

    def resume(self, health):
        """Goes on from variables that a checkpoint has filled, with the `health` that `settle` returned then."""
        self._job, self._health = None, dict(health)

    def take(self):
        """Returns labels and health of the last job, waiting for it; None when there was none."""
        self._keep()
        if not bool(self.waiting.numpy()):
            return None
        health = dict(self._health)
        labels = [self._pictures.read(variable) for variable in self.labels]
        self.forget()
        return labels, health

    def forget(self):
        """Drops what has been found or is under way."""
        self._job, self._health = None, {}
        self.waiting.assign(False)


class Renewal:
    """Renews the labels `[N, H]` in `variables` by `cluster(name, rows, previous, moment)`, in a thread or not.

    pictures says which rows of them this process has. background is a BackgroundLabels, or None to wait. image_labels
    `[N]` (-1 unknown) or None serve `purity` alone.
    """

    def __init__(self, cluster, variables, pictures, background=None, image_labels=None, seed=0):
        self._cluster = cluster
        self._variables = variables
        self._pictures = pictures
        self._background = background
        self._image_labels = image_labels
        self._seed = seed

    def renew(self, snapshot, moment, begins):
        """Finds labels of `snapshot()`: unit rows `[n, D]` and which images they are, `[n]`; returns health metrics.

        Both are of this process. In the background those of the moment before take effect instead, unless LA `begins`,
        and these are started.
        """
        if self._background is None:
            return self._assign(*self._found_by_all(snapshot, moment))
        if begins or not all((self._pictures.read(variable) != UNASSIGNED).any() for variable in self._variables):
            self._background.forget()
            return self._assign(*self._finder(snapshot(), moment)())
        waiting = self._background.take()
        found = self._assign(*waiting) if waiting else {}
        self._background.start(self._finder(snapshot(), moment))
        return found

    def _found_by_all(self, snapshot, moment):
        """Returns labels and health. Processes that all have all rows take the labels that the first one finds.

        Each for itself might find others: the sums of k-means depend on the number of threads.
        """
        everybody = self._pictures.replicas.processes
        if self._pictures.spread or everybody.count == 1:
            return self._finder(snapshot(), moment)()
        labels, found, error = [np.zeros(variable.shape, np.int32) for variable in self._variables], {}, None
        if everybody.index == 0:
            try:
                labels, found = self._finder(snapshot(), moment)()
            except UserError as raised:
                error = raised
        if everybody.sum(np.array(error is not None, np.int32)):
            raise error or UserError("the first process could not cluster the images: it says why")
        return [everybody.sum(each) for each in labels], found

    def _assign(self, labels, found):
        for variable, value in zip(self._variables, labels, strict=True):
            self._pictures.write(variable, value)
        return found

    def _finder(self, rows_and_images, moment):
        """Returns a function, free of TensorFlow, that finds the labels for all variables, and their health."""
        rows, images = rows_and_images
        here, processes = self._pictures.here, self._pictures.processes
        before = {variable.name: self._pictures.read(variable) for variable in self._variables}
        truth = None if self._image_labels is None else self._image_labels[here.start : here.stop][images]

        def find():
            started = time.perf_counter()
            try:
                labels = {name: self._cluster(name, rows, last[images], moment) for name, last in before.items()}
            except MemoryError:
                raise UserError(
                    f"out of memory in clustering {len(rows):,} rows: take --cluster_sample=256, lower --clusters "
                    "or --clusterings, or spread the bank by --bank_sharding=sharded"
                ) from None
            found = {"cluster_seconds": time.perf_counter() - started}
            if "cluster_labels" in labels:
                last = before["cluster_labels"][images]
                found |= cluster_health.health(rows, labels["cluster_labels"], last, truth, self._seed, processes)
            return [_of_all(before[name].shape, images, of_some) for name, of_some in labels.items()], found

        return find


def _of_all(shape, images, labels):
    """Returns labels of `shape` `[N, H]`: `labels` `[n, H]` at `images` `[n]`, UNASSIGNED elsewhere."""
    every_label = np.full(shape, UNASSIGNED, np.int32)
    every_label[images] = labels
    return every_label
