"""When to export: Latest, Best and Final write `export/<name>/<time>/` and keep the newest few."""

import math
import time
from pathlib import Path

from la_tf.checkpoints import remove_folders
from la_tf.model_dir import folder_entries, read_json, write_json


class Exporter:
    """Writes exports of an Estimator to `model_dir/export/<name>/<seconds since 1970>/`."""

    name = "latest"
    with_bank = False  # a row for each training picture: too much to write every epoch

    def __init__(self, model_dir, keep=5, facts=None):
        self.folder = Path(model_dir) / "export" / self.name
        self.keep = keep
        self.facts = facts or {}

    def wanted(self, metrics, finished):
        """Tells whether the model of this moment is to be exported."""
        return True

    def export(self, estimator, metrics, finished):
        """Exports when `wanted`; returns the folder, None otherwise."""
        if not self.wanted(metrics, finished):
            return None
        remove_folders(self.folder.glob(".[0-9]*"))  # of a process that was killed while exporting
        stamp = max(int(time.time()), *(int(path.name) + 1 for path in self.exported()), 0)
        folder = estimator.export_saved_model(
            self.folder / str(stamp), with_bank=self.with_bank, metrics=_numbers(metrics), **self.facts
        )
        remove_folders(self.exported()[: -self.keep])
        return folder

    def exported(self):
        """Returns the folders written so far, oldest first."""
        return sorted((path for path in folder_entries(self.folder) if path.name.isdigit()), key=lambda p: int(p.name))


class LatestExporter(Exporter):
    """Exports after every evaluation."""


class FinalExporter(Exporter):
    """Exports once, when training is over; with the memory bank."""

    name = "final"
    with_bank = True

    def wanted(self, metrics, finished):
        """True at the end."""
        return finished


class BestExporter(Exporter):
    """Exports whenever the monitor is better than ever before, restarts included; a loss, within its phase."""

    name = "best"

    def __init__(self, model_dir, monitor, higher_is_better, keep=1, facts=None):
        super().__init__(model_dir, keep, facts)
        self.monitor = monitor
        self.higher_is_better = higher_is_better
        self.record = self.folder / "best.json"

    def wanted(self, metrics, finished):
        """True when the monitor beats the recorded best; the record lies beside the exports, so it survives."""
        value = metrics.get(self.monitor)
        if value is None or not math.isfinite(value):
            return False
        if not self.record.exists():
            return True
        record = read_json(self.record)
        if self.monitor == "loss" and record.get("phase") != metrics.get("phase"):
            return True  # the losses of the warm start and of Local Aggregation measure different things
        best = record.get(self.monitor)
        if not isinstance(best, int | float):
            return True  # another monitor's record, or a damaged one
        return value > best if self.higher_is_better else value < best

    def export(self, estimator, metrics, finished):
        """As the others; the record comes last, so a process killed in between exports again."""
        folder = super().export(estimator, metrics, finished)
        if folder is not None:
            kept = {self.monitor: metrics[self.monitor], "step": metrics.get("step"), "phase": metrics.get("phase")}
            write_json(self.record, kept)
        return folder


def _numbers(metrics):
    return {name: value for name, value in metrics.items() if isinstance(value, int | float | str)}
