"""A run as its folder tells it, for whoever looks back: config, metrics, results, how far it came. No TensorFlow."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from data import json_shapes, manifest
from data.errors import UserError
from la_tf import checkpoints, results
from la_tf.experiment import stored_config
from la_tf.model_dir import read_json
from la_tf.names_file import shown
from la_tf.summary import epochs_of


@dataclass(frozen=True, eq=False)
class PastRun:
    """What a folder holds; without config.json (results of a network that was not trained here) most is empty.

    `epochs`: dicts of metrics.jsonl, one an epoch, in order; `dataset`: the manifest in dataset.json; `records`: lines
    of results.jsonl.
    """

    name: str
    folder: Path
    identity: dict = field(default_factory=dict)
    circumstances: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    dataset: dict = field(default_factory=dict)
    epochs: tuple[dict, ...] = ()
    records: tuple[dict, ...] = ()
    step: int = 0
    stopped: bool = False  # before its planned end, by early stopping

    @property
    def trained_here(self):
        """Whether it is a run of la_tf.train, not results alone."""
        return self.method is not None

    @property
    def config(self):
        """All flags by name."""
        return self.circumstances | self.identity

    @property
    def method(self):
        """The method, None where there was no run."""
        return self.identity.get("method")

    @property
    def classes(self):
        """Number of classes, 0 where there are none or, in old runs, none with a name."""
        return self.dataset.get("class_count", len(self.dataset.get("class_names", ())))

    def size(self, split="train"):
        """Returns the number of pictures of a split, 0 where it is unknown or not there."""
        return self.dataset.get("splits", {}).get(split, {}).get("count", 0)

    @property
    def planned_steps(self):
        """The step at which it is to end, 0 where that is unknown."""
        if self.circumstances.get("max_steps"):
            return self.circumstances["max_steps"]
        return self.circumstances.get("epochs", 0) * (self.size() // self.identity.get("batch_size", 1))

    @property
    def finished(self):
        """Whether there is nothing left to do."""
        return self.trained_here and (self.stopped or 0 < self.planned_steps <= self.step)


def read_run(folder, name=None):
    """Returns the PastRun of a folder; raises UserError where it holds neither a run nor results."""
    folder = Path(folder)
    name = shown(name or _last_name(folder))
    records = tuple(results.read([folder])) if (folder / results.FILE).exists() else ()
    stored = stored_run(folder)
    if not stored:
        if not records:
            raise UserError(
                f"--runs={folder}: holds neither a run of la_tf.train (a config.json that names a method) nor results "
                f"({results.FILE})"
            )
        return PastRun(name, folder, records=records)
    stored_config(folder)  # raises what is wrong with it
    newest = checkpoints.latest(folder)
    state = checkpoints.read_state(newest) if newest else {}
    return PastRun(
        name,
        folder,
        identity=stored["identity"],
        circumstances=stored["circumstances"],
        versions=stored.get("versions", {}),
        dataset=manifest.read(folder) if (folder / manifest.FILE).exists() else {},
        epochs=tuple(_checked(epoch, folder / "metrics.jsonl") for epoch in epochs_of(folder)),
        records=records,
        step=state.get("step", 0),
        stopped=bool(state.get("stopped")),
    )


def stored_run(folder):
    """Returns the config.json of a run of la_tf.train, {} where there is none or it is somebody else's: a detector's.

    Raises UserError where it is nobody's.
    """
    path = Path(folder) / "config.json"
    if not path.exists():
        return {}
    stored = read_json(path)
    if not all(isinstance(stored.get(part), dict) for part in ("identity", "circumstances")):
        raise UserError(f"{path}: was not written by la_tf.train")
    return stored if "method" in stored["identity"] else {}


def _checked(epoch, path):
    """Returns a line of metrics; raises UserError unless its phase is a word, and all else numbers."""
    try:
        json_shapes.check(epoch.get("phase", ""), json_shapes.text)
        json_shapes.check({**epoch, "phase": 0}, json_shapes.table(json_shapes.number))
    except ValueError as error:
        raise UserError(f"{path}: the line of step {epoch['step']} is damaged ({error}); delete it") from None
    return epoch


def read_runs(folders):
    """Returns the PastRuns of `folders`; those whose last names are the same go by their whole paths."""
    last = [_last_name(folder) for folder in folders]
    return [
        read_run(folder, name if last.count(name) == 1 else str(folder))
        for folder, name in zip(folders, last, strict=True)
    ]


def _last_name(folder):
    """The name of a folder, wherever a link leads; Path.resolve raises where it leads in a circle."""
    return os.path.basename(os.path.realpath(folder))
