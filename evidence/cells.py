"""One cell of the evidence: a run of an arm with a seed, trained and judged by the commands that one could type.

RUNS/<study>/<arm>/seed-<n>/        a model_dir
RUNS/<study>/<arm>/seed-<n>.log     what its commands said
RUNS/lists/                         lists of parts of picture sets
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evidence.study import DATA, LISTS, SEED, Arm, Study
from la_tf import commands, model_dir, results

DENSITY = "density"
SUBJECT = ("kind", "method", "backbone", "width", "image_size", "seed", "step", "weights")


@dataclass(frozen=True)
class Place:
    """Where runs and pictures are on this machine."""

    runs: Path
    data: str  # the folder of the picture sets
    environment: dict  # of every command

    def folder(self, study: str, arm: str, seed: int) -> Path:
        """Returns the model_dir of a run."""
        return self.runs / study / arm / f"seed-{seed}"

    def real(self, flag: str) -> str:
        """Returns a flag with the folders of this machine in it."""
        return flag.replace(LISTS, str(self.runs / "lists")).replace(DATA, self.data)

    def told(self, flag: str) -> str:
        """Returns it as it is told to others."""
        return flag.replace(str(self.runs / "lists"), LISTS).replace(self.data, DATA) if self.data else flag


@dataclass(frozen=True)
class Cell:
    """A run of an arm of a study with one seed."""

    study: Study
    arm: Arm
    seed: int

    @property
    def title(self):
        """What it is called."""
        return f"{self.study.name}/{self.arm.name}, seed {self.seed}"

    def key(self, evaluation):
        """What tells its line of an evaluation from all others."""
        return (self.study.name, self.arm.name, self.seed, evaluation)

    def training_flags(self, place: Place) -> list[str]:
        """Returns the flags of la_tf.train, told as they are for others."""
        start = []
        if self.arm.start:
            start = [f"--warm_start={place.folder(self.study.name, self.arm.start, self.seed)}"]
        folder = place.folder(self.study.name, self.arm.name, self.seed)
        return [*self.study.flags, *self.arm.flags, *start, f"--seed={self.seed}", f"--model_dir={folder}"]

    def run(self, place: Place, done: set) -> Iterator[dict]:
        """Trains and judges it, but for what is `done`; yields the new lines of results as they come."""
        wanted = {
            name: flags for name, flags in self.study.evaluations_of(self.arm).items() if self.key(name) not in done
        }
        if not wanted:
            return
        folder = place.folder(self.study.name, self.arm.name, self.seed)
        seconds = self.train(place)
        for name, flags in wanted.items():
            judge = _density if name == DENSITY else _judged
            flags = [flag.replace(SEED, str(self.seed)) for flag in flags]
            line = judge(place, folder, folder.with_suffix(".log"), flags)
            facts = {"study": self.study.name, "arm": self.arm.name, "seed": self.seed, "evaluation": name}
            facts |= {"train": self.training_flags(place), "train_seconds": round(seconds, 1), "machine": machine()}
            yield line | {"cell": facts}

    def train(self, place: Place) -> float:
        """Trains it where that is not done, after what it starts from; returns the seconds of all goes at it."""
        folder = place.folder(self.study.name, self.arm.name, self.seed)
        kept = folder / "evidence.json"
        before = json.loads(kept.read_text()) if kept.exists() else {"seconds": 0.0, "finished": False}
        if before["finished"]:
            return before["seconds"]
        if self.arm.start:
            Cell(self.study, self.study.by_name[self.arm.start], self.seed).train(place)
        folder.mkdir(parents=True, exist_ok=True)
        flags = map(place.real, self.training_flags(place))
        started, finished = time.monotonic(), False
        try:
            commands.run("la_tf.train", *flags, log=folder.with_suffix(".log"), environment=place.environment)
            finished = True
        finally:
            seconds = before["seconds"] + time.monotonic() - started
            model_dir.write_json(kept, {"seconds": seconds, "finished": finished})
        return seconds


def _judged(place, folder, log, flags):
    """The line that la_tf.evaluate leaves."""
    arguments = [f"--model_dir={folder}", *map(place.real, flags)]
    found = commands.run("la_tf.evaluate", *arguments, log=log, environment=place.environment)
    return thin(results.find(folder, found["id"]), place) | {"command": [*map(place.told, arguments)]}


def thin(line, place):
    """Returns a line without what its commands say as well, numbers of single classes and folders of this machine."""
    subject = {name: value for name, value in line["subject"].items() if name in SUBJECT}
    found = {name: value for name, value in line["results"].items() if name != "per_class"}
    dataset = line["dataset"] | {"spec": place.told(line["dataset"]["spec"])}
    return line | {"subject": subject, "results": found, "dataset": dataset}


def _density(place, folder, log, flags):
    """A line with the mean local and background density of a run (the paper's Figure 2), like that of an evaluation."""
    arguments = [f"--model_dir={folder}", f"--figure={DENSITY}", *flags]
    started = time.monotonic()
    commands.run("la_tf.analyze", *arguments, log=log, environment=place.environment)
    (found,) = json.loads((folder / "report" / f"{DENSITY}.json").read_text())
    known = thin(results.read([folder])[-1], place)  # of the same network on the same pictures
    return {name: known[name] for name in ("subject", "dataset", "versions")} | {
        "protocol": DENSITY,
        "settings": {"bank": found["bank"], "ranks": found["ranks"]},
        "split": "train",
        "selected_on": "none",
        "results": {part: found[part]["mean"] for part in ("local", "background")},
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
        "command": arguments,
    }


def machine():
    """Returns what a time belongs to: the cores and their kind."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        told = (line.partition(":") for line in info.read_text().splitlines())
        cpu = next((value.strip() for name, _, value in told if name.strip() == "model name"), cpu)
    return f"{os.cpu_count()} cores, {cpu}"
