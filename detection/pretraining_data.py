"""The pictures that an exported backbone has learned from, where somebody says which. No TensorFlow."""

from __future__ import annotations

import sys
from pathlib import Path

from data.config import DataConfig, open_configured
from data.errors import UserError
from data.sources import DataSet
from la_tf import model_dir

HIGHEST = 3  # folders above an export: RUN/export/final/TIME
OPTIONS = ("dataset", "tfds_data_dir", "tfds_split", "image_root", "first_label")


def pretraining_set(folder: str, config: dict, spec: str | None, tfds_data_dir: str | None) -> DataSet | None:
    """Returns the data set called `spec`, None: that of the run in whose `folder` the export lies.

    config: that of the export. Where neither is known, or the run's pictures are no longer there, says so and returns
    None. Raises FlagError or UserError where `spec` is wrong.
    """
    if spec:
        try:
            return open_configured(DataConfig(dataset=spec, tfds_data_dir=tfds_data_dir))
        except UserError as error:
            raise type(error)(str(error).replace("--dataset", "--pretrain_data", 1)) from None
    try:
        if options := options_of_run(folder, config):
            return open_configured(model_dir.built(DataConfig, options))
        why = "no run around the export says what it has learned from"
    except (UserError, ValueError) as error:
        why = str(error).replace("--dataset", "the run's --dataset", 1)
    print(f"note: {why}; --pretrain_data=folder:PATH, for one, lets its own pictures be compared", file=sys.stderr)
    return None


def options_of_run(folder: str, config: dict) -> dict | None:
    """Returns the options that a run opened its data set by; None unless one of that `config` is around `folder`."""
    for above in list(Path(folder).absolute().parents)[:HIGHEST]:
        path = above / "config.json"
        stored = model_dir.read_json(path) if path.exists() else {}
        if config and stored.get("identity") == config and isinstance(stored.get("circumstances"), dict):
            return {name: stored["circumstances"][name] for name in OPTIONS if name in stored["circumstances"]}
    return None
