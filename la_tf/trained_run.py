"""A trained run, opened to be looked at: its embeddings, its clusters and how its test split fares, each found once.

Without a look at pictures or the network no TensorFlow is loaded.
"""

import sys
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data.errors import UserError
from la_tf import checkpoints
from la_tf.experiment import EVALUATION_BATCH, KNN_NEIGHBORS, Experiment, stored_config
from la_tf.resolve import clusters_of
from la_tf.specs import ModeKeys

BANKS = ("saved", "fresh")


class DoesNotApply(UserError):
    """Something that cannot be had of this run; the message says why."""


class Judged(NamedTuple):
    """The readable pictures of the test split: embeddings `[Q, D]`, rows of the split `[Q]`, labels, kNN votes."""

    queries: np.ndarray
    indices: np.ndarray
    truth: np.ndarray  # [Q], -1 unknown
    votes: np.ndarray  # [Q, classes]


class Stored(NamedTuple):
    """A checkpoint, all but its network read at once: a run that trains on removes its older ones.

    `images` `[n]` are those that have a row in the bank, `rows` `[n, D]` float32 these, None where they are not asked
    for, `cluster_labels` `[N, H]` None where the method has none.
    """

    checkpoint: Path
    step: int
    images: np.ndarray
    rows: np.ndarray | None
    cluster_labels: np.ndarray | None


class TrainedRun:
    """The run in `folder`, as its newest checkpoint has it.

    bank "saved" looks at the memory bank, "fresh" at embeddings of the central views by the network as it is now.
    Raises UserError where no run lives there, or where its pictures have changed.
    """

    def __init__(self, folder, bank="saved"):
        self.folder, self.bank = Path(folder), bank
        self.experiment = Experiment(stored_config(folder))
        self.experiment.check()
        self.train, self.test = self.experiment.train, self.experiment.dataset.test

    @property
    def title(self):
        """What tells this run from others: method, backbone, name."""
        config = self.experiment.config
        parts = (config.method.method, config.model.backbone, self.folder.resolve().name)
        return " · ".join([*parts, *(["fresh embeddings"] if self.bank == "fresh" else [])])

    @cached_property
    def stored(self):
        """The newest checkpoint, `Stored`; raises UserError where there is none yet."""
        checkpoint = checkpoints.chosen(self.folder)
        step = checkpoints.read_state(checkpoint)["step"]
        with checkpoints.read_arrays(checkpoint) as arrays:
            images = np.flatnonzero(arrays["memory_bank/written"])
            rows = arrays["memory_bank/rows"][images].astype(np.float32, copy=False) if self.bank == "saved" else None
            names = [name for name in arrays.files if name.endswith("/cluster_labels")]
            labels = arrays[names[0]] if names else None
        return Stored(checkpoint, step, images, rows, labels)

    @property
    def step(self):
        """The step that the checkpoint is of."""
        return self.stored.step

    # -- the training pictures ----------------------------------------------------------------------------------------

    @cached_property
    def embedded(self):
        """Unit rows `[n, D]` float32 of the training pictures that have one, and which those are, `[n]`."""
        if self.bank == "fresh":
            from la_tf import knn

            rows, images, _ = knn.embeddings(self.subject.embed, self._seen(self.train, "training pictures"))
        else:
            rows, images = self.stored.rows, self.stored.images
        if len(images) < 4:
            raise UserError(f"--model_dir={self.folder}: {len(images)} pictures have an embedding; train on, or more")
        if not np.isfinite(rows).all():
            raise UserError(f"--model_dir={self.folder}: holds embeddings that are not finite; the training has failed")
        return rows, images

    @property
    def rows(self):
        """The first of `embedded`."""
        return self.embedded[0]

    @property
    def images(self):
        """The second of `embedded`."""
        return self.embedded[1]

    @property
    def labels(self):
        """The labels `[n]` of these pictures, -1 where unknown."""
        return self.train.labels[self.images]

    @property
    def names(self):
        """The classes' names, by label, and behind them that of -1."""
        dataset = self.experiment.dataset
        known = dataset.class_names or range(dataset.class_count)
        return [*map(str, known), *map(str, range(len(known), dataset.class_count)), "?"]

    @cached_property
    def cluster_labels(self):
        """The clusters `[n, H]` of these pictures that the run was training on; None where it had none."""
        found = self.stored.cluster_labels
        return None if found is None or (found < 0).all() else found[self.images]

    @property
    def clusters(self):
        """The run's own number m of clusters, else what Local Aggregation would take for as many pictures."""
        size = len(self.images)
        chosen = self.experiment.config.method.clusters or clusters_of(size)
        return int(np.clip(chosen, 2, size // 2))

    # -- the network, the test split ----------------------------------------------------------------------------------

    @cached_property
    def subject(self):
        """The network."""
        from la_tf import subject

        return subject.of_checkpoint(self.folder, self.stored.checkpoint)

    def embed(self, images):
        """Returns unit rows `[n, D]` of the central views of training pictures, by the network as it is now."""
        from la_tf import knn

        rows, found, _ = knn.embeddings(self.subject.embed, self._seen(self.train, "pictures", images))
        if len(found) < len(images):
            raise UserError(f"--model_dir={self.folder}: {len(images) - len(found)} pictures can no longer be read")
        return rows

    def need_labels(self):
        """Raises DoesNotApply where there are no labels to tell right from wrong by."""
        if self.experiment.no_test_score:
            raise DoesNotApply(f"there is nothing to tell success by: {self.experiment.no_test_score}")

    @cached_property
    def judged(self):
        """How the test split fares by kNN (section 4.2) in the embeddings, with the run's own tau."""
        self.need_labels()
        from la_tf import knn

        batches = self._seen(self.test, "test pictures")
        queries, indices, truth = knn.embeddings(self.subject.embed, batches)
        classes, tau = self.experiment.dataset.class_count, self.experiment.config.method.tau
        votes = knn.knn_votes(queries, self.rows, self.labels, neighbors=KNN_NEIGHBORS, tau=tau, classes=classes)
        return Judged(queries, indices, truth, votes)

    def pictures(self, split, rows):
        """Returns the central views of some rows of a split, in the order of `rows`, `[n, S, S, 3]` in [0, 1]."""
        return self.experiment.pictures(split, np.asarray(rows))

    def _seen(self, split, what, rows=None):
        batches = self.experiment.batches(ModeKeys.EVAL, None, split, rows)  # not to be listed: nothing is written
        count = split.size if rows is None else len(rows)
        total = -(-count // EVALUATION_BATCH)
        return tqdm(batches, desc=f"{self.folder.name}: {what}", total=total, unit="batch", file=sys.stderr)
