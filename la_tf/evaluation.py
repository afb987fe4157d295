"""An EvaluationConfig made concrete: data set and network opened, checked against each other, and their batches.

Three splits: what is learned here is learned from the train split without its validation slice, what is chosen is
chosen on that slice, and each network reads the test split once, when it has learned (but for --select_on=test).
Opening the data set needs no TensorFlow.
"""

import dataclasses
from functools import cached_property
from pathlib import Path

import numpy as np

from data import splits
from data.augmentation import given_augmentation, transfer_augmentation
from data.config import DataConfig, open_configured
from data.errors import FlagError, UserError
from la_tf import results
from la_tf.experiment import EVALUATION_BATCH, stored_config

# Where the pictures of a run are: what an evaluation without --dataset takes over from it.
PLACE = ("dataset", "tfds_data_dir", "tfds_split", "image_root", "first_label")
PATCH_BACKBONES = ("alexnet",)


class Evaluation:
    """One evaluation: everything that its EvaluationConfig, its data set and its network determine."""

    def __init__(self, config):
        self.run = stored_config(config.subject.model_dir) if config.subject.model_dir else None
        self.of_run = config.data.dataset is None  # the run's own pictures are meant
        if self.of_run:
            given = {
                name: value for name in PLACE if (value := getattr(config.data, name)) != getattr(DataConfig, name)
            }
            place = {name: getattr(self.run.data, name) for name in PLACE} | given
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, **place))
        self.config = config
        self.protocol = config.protocol
        self.dataset = open_configured(config.data)
        self.train, self.test = self.dataset.train, self.dataset.test
        self._check_labels()
        for flag in ("ten_crop", "crops"):
            if getattr(self.protocol, flag, None) and self.train.kind == "digits":
                raise FlagError(f"--{flag}: digits are not cropped; leave it out")
        self.out = Path(config.out or config.subject.model_dir)

    def _check_labels(self):
        if not (self.train.labels >= 0).any():
            raise UserError(f"--dataset={self.dataset.spec}: {self.train} has no labels to judge by")
        if self.config.split == "validation":
            if not self.config.data.validation_fraction:
                raise FlagError("--split=validation: needs a slice, and --validation_fraction is 0")
            return
        if self.test is None or not (self.test.labels >= 0).any():
            raise UserError(
                f"--dataset={self.dataset.spec}: has no test split with labels; take --split=validation, a slice of "
                f"{self.config.data.validation_fraction:.0%} of the train split"
            )
        known = set(np.unique(self.train.labels))
        strange = [int(label) for label in np.unique(self.test.labels) if label >= 0 and label not in known]
        if strange:
            name = self._class_name(strange[0])
            raise UserError(
                f"--dataset={self.dataset.spec}: {len(known - {-1})} classes in {self.train}, but {self.test} has "
                f"{len(strange)} that are not among them, the first {name}"
            )

    def _class_name(self, label):
        names = self.dataset.class_names
        return names[label] if label < len(names) else str(label)

    # -- the network -------------------------------------------------------------------------------------------------

    @cached_property
    def subject(self):
        """The network, checked against the data set."""
        from la_tf import subject

        chosen = self.config.subject
        if chosen.model_dir:
            found = subject.of_run(chosen.model_dir, chosen.step)
            if self.of_run and found.pictures != self.train.fingerprint:
                raise UserError(
                    f"--model_dir={chosen.model_dir}: was trained on other pictures than {self.train} has now "
                    f"({len(found.bank[0])} with hash {found.pictures[:12]} there, {self.train.size} with hash "
                    f"{self.train.fingerprint[:12]} here); restore them, or name a data set by --dataset"
                )
            return found
        if chosen.export:
            return subject.of_export(chosen.export)
        return subject.of_foreign(chosen, self.config.data.image_size)

    @cached_property
    def shapes(self):
        """{endpoint: its shape without the batch}; raises FlagError where pictures of this size are too small."""
        import tensorflow as tf

        subject, picture = self.subject, tf.zeros([1, self.image_size, self.image_size, 3])
        try:
            if self.config.name == "knn":  # an embedding may take one size alone
                subject.embed(picture)
            return {name: tuple(found.shape[1:]) for name, found in subject.features(picture).items()}
        except (tf.errors.OpError, ValueError) as error:
            raise FlagError(
                f"--image_size={self.image_size}: the network cannot take such pictures; it was made for "
                f"{self.subject.preprocessing.image_size} px"
            ) from error

    @property
    def own(self):
        """Whether the network was trained on this train split; None where that is not known."""
        pictures = self.subject.pictures
        return None if pictures is None else pictures == self.train.fingerprint

    @property
    def image_size(self):
        """Side of the pictures, px: --image_size, else what the network was made for."""
        return self.config.data.image_size or self.subject.preprocessing.image_size

    # -- the pictures ------------------------------------------------------------------------------------------------

    @cached_property
    def validation_rows(self):
        """The slice of the train split that selects: a run's own where it, or its export, is judged on its pictures."""
        facts, seed = self.subject.facts, getattr(self.protocol, "seed", 0)
        if self.own and facts.get("seed") is not None:
            seed, unseen = facts["seed"], facts["config"].get("validation_fraction", 0)
            if facts["method"] == "supervised" and self.config.data.validation_fraction > unseen:
                raise FlagError(
                    f"--validation_fraction={self.config.data.validation_fraction}: the network has learned the labels "
                    f"of all but {unseen}; give at most that"
                )
        return splits.validation_rows(self.train.labels, self.config.data.validation_fraction, seed)

    def labelled_rows(self, fraction=None):
        """Returns the rows to learn from: of a `fraction` of the labels; None: of all but the validation slice."""
        if fraction is None:
            return splits.labelled_rows(self.train.labels, 1.0, 0, self.validation_rows)
        aside = self.validation_rows if self.config.split == "validation" else ()
        return splits.labelled_rows(self.train.labels, fraction, self.protocol.seed, aside)

    @property
    def endpoints(self):
        """What is read out: {endpoint: its shape without the batch} of --endpoints, else of all."""
        chosen = self.config.subject.endpoints or tuple(self.shapes)
        for endpoint in chosen:
            if endpoint not in self.shapes:
                raise FlagError(f"--endpoints={endpoint}: no such endpoint; there are {', '.join(self.shapes)}")
        return {endpoint: self.shapes[endpoint] for endpoint in chosen}

    @property
    def augmentation(self):
        """How pictures are changed for readouts and fine-tuning (supplement B.1)."""
        return transfer_augmentation(self.train.kind, self.image_size, self.crops == "patch", self.config.data)

    @property
    def crops(self):
        """--crops; else areas on the network's own pictures, patches for AlexNet and on all others (as on Places).

        Digits are not cropped: "none".
        """
        chosen = getattr(self.protocol, "crops", None)
        if self.train.kind == "digits":
            return "none"
        other = self.subject.facts.get("backbone") in PATCH_BACKBONES or not self.own
        return chosen or ("patch" if other else "area")

    def training_batches(self, rows, batch_size, first_step):
        """Yields augmented batches of `rows` without end, from a step on."""
        from data import pipeline

        return self.bad_images("train").watch(
            pipeline.training_batches(
                self.train,
                self.augmentation,
                batch_size,
                self.protocol.seed,
                first_step=first_step,
                workers=self.config.data.workers,
                rows=rows,
            )
        )

    def central_batches(self, split, rows=None, ten_crop=False):
        """Yields central views of `rows` (None: all) of the train or test split, with the ten crops where asked for."""
        from data import pipeline

        chosen = {"train": self.train, "test": self.test}[split]
        batches = pipeline.evaluation_batches(
            chosen, self.image_size, EVALUATION_BATCH, rows, self.config.data.workers, ten_crop
        )
        return self.bad_images(split).watch(batches)

    def scored_batches(self, ten_crop=False):
        """Yields the batches of the split that the result is about, for a network that has learned all it will."""
        if self.config.split == "validation":
            return self.central_batches("train", self.validation_rows, ten_crop)
        return self.central_batches("test", ten_crop=ten_crop)

    @property
    def scored_names(self):
        """The names of the pictures of the split that the result is about, by index."""
        return (self.train if self.config.split == "validation" else self.test).names

    @property
    def scored_size(self):
        """How many pictures the result is about."""
        return len(self.validation_rows) if self.config.split == "validation" else self.test.size

    def bad_images(self, split):
        """Returns what is known of the bad pictures of the train or test split."""
        return self._bad_images[split]

    @cached_property
    def _bad_images(self):
        from la_tf.bad_images import BadImages

        self.folder.mkdir(parents=True, exist_ok=True)
        both = {"train": self.train, "test": self.test}
        most = self.config.data.max_bad_fraction
        return {name: BadImages(split, self.folder, most) for name, split in both.items() if split is not None}

    # -- the result --------------------------------------------------------------------------------------------------

    @cached_property
    def record(self):
        """The line of results.jsonl without its results: all that is needed to repeat it."""
        _ = self.shapes  # better known now than in the middle
        return {
            "protocol": self.config.name,
            "subject": self.subject.facts,
            "dataset": {
                "spec": self.dataset.spec,
                "hash": self.train.fingerprint,
                "test_hash": None if self.test is None else self.test.fingerprint,
                "own": self.own,
                "classes": self.dataset.class_count,
                "train": self.train.size,
                "test": None if self.test is None else self.test.size,
            },
            "settings": self.settings(),
            "split": self.config.split,
            "selected_on": self.selected_on,
        }

    def settings(self):
        """Returns the settings of the protocol, with what was left open filled in."""
        settings = self.config.settings() | {"image_size": self.image_size}
        if self.config.name == "linear":
            settings["endpoints"] = list(self.endpoints)
        if "crops" in settings:
            least = self.config.data.crop_min_area
            if self.crops == "patch" and least is not None:
                raise FlagError(f"--crop_min_area={least}: patches have one size; take --crops=area, or leave it out")
            settings |= {"crops": self.crops, **given_augmentation(self.config.data)}
        if "bank" in settings:
            settings["bank"] = self.bank
        return settings

    @property
    def bank(self):
        """--bank; else the saved one on the network's own pictures, where there is one, and a fresh one otherwise."""
        chosen, subject = self.protocol.bank, self.subject
        usable = subject.bank is not None and self.own
        if chosen == "saved" and subject.bank is None:
            raise FlagError("--bank=saved: only a run (--model_dir) has one; take --bank=fresh")
        if chosen == "saved" and not usable:
            raise FlagError(
                f"--bank=saved: its {len(subject.bank[0])} rows are the pictures that the run was trained on "
                f"({self.run.data.dataset}), not the {self.train.size} of {self.train}; take --bank=fresh"
            )
        return chosen or ("saved" if usable else "fresh")

    @property
    def selected_on(self):
        """What choices were made on: "nothing", "validation" or "test"."""
        if self.config.name == "linear" and not self.protocol.fast:
            return self.protocol.select_on
        return "nothing"

    @cached_property
    def id(self):
        """What tells this evaluation from others: the same for the same network, pictures and settings."""
        return results.identity(self.record)

    @property
    def folder(self):
        """Where this evaluation keeps its checkpoints, curves and predictions."""
        return self.out / "evaluation" / f"{self.config.name}-{self.id}"

    def finished(self):
        """Returns the line of results.jsonl of this very evaluation, None when it has not been made."""
        return results.find(self.out, self.id)
