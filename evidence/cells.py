"""One cell of the evidence: a run of an arm with a seed, trained and judged by the commands that one could type.

RUNS/<study>/<arm>/seed-<n>/        a model_dir
RUNS/<study>/<arm>/seed-<n>.log     what its commands said
RUNS/<study>/<arm>/seed-<n>.json    whether it is trained, from which flags (a hash), and how long that took
RUNS/lists/                         lists of parts of picture sets
"""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from data.errors import UserError
from data.flagfiles import expanded
from data.processors import cores
from evidence.study import DATA, LISTS, RUNS, SEED, Arm, Study
from la_tf import commands, model_dir, results

DENSITY = "density"
SUBJECT = ("kind", "method", "backbone", "width", "image_size", "seed", "step", "weights")


@dataclass(frozen=True)
class Place:
    """Where runs and pictures are on this machine."""

    runs: Path
    data: str  # the folder of the picture sets, a whole path; "" where there are none
    environment: dict  # of every command

    def real(self, flag: str) -> str:
        """Returns a flag with the folders of this machine in it."""
        for name, folder in ((LISTS, self.runs / "lists"), (RUNS, self.runs), (DATA, self.data)):
            flag = flag.replace(name, str(folder))
        return flag

    def told(self, spec: str) -> str:
        """Returns the spec of a data set, e.g. folder:PATH, without the folders of this machine."""
        kind, _, path = spec.partition(":")
        for name, folder in ((LISTS, str(self.runs / "lists")), (DATA, self.data)):
            if folder and path.startswith(f"{folder}/"):
                return f"{kind}:{name}{path.removeprefix(folder)}"
        return spec


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

    @property
    def folder(self) -> str:
        """Its model_dir, as flags name it."""
        return f"{RUNS}/{self.study.name}/{self.arm.name}/seed-{self.seed}"

    @property
    def start(self) -> Cell | None:
        """The cell that it starts from."""
        return Cell(self.study, self.study.by_name[self.arm.start], self.seed) if self.arm.start else None

    @property
    def training(self) -> list[str]:
        """The flags of la_tf.train."""
        start = [f"--warm_start={self.start.folder}"] if self.start else []
        return [*self.study.flags, *self.arm.flags, *start, f"--seed={self.seed}", f"--model_dir={self.folder}"]

    @property
    def evaluations(self) -> dict[str, list[str]]:
        """Its evaluations: the flags of la_tf.evaluate, or of the figure."""
        return {
            name: [f"--model_dir={self.folder}", *(flag.replace(SEED, str(self.seed)) for flag in flags)]
            for name, flags in self.study.evaluations_of(self.arm).items()
        }

    def settings(self, evaluation: str | None = None) -> str:
        """Returns a hash of all flags of its run, or of an evaluation of it: those in flagfiles, too."""
        start = [self.start.settings()] if self.start else []
        return digest([*start, *self.training, *self.evaluations.get(evaluation, ())])

    def is_of(self, line: dict) -> bool:
        """Whether a line of results is of this cell as it is meant now: trained and judged with the same flags."""
        evaluation = line["cell"]["evaluation"]
        return evaluation in self.evaluations and line["cell"].get("settings") == self.settings(evaluation)

    def run(self, place: Place, lines: dict, stopped: Event | None = None) -> Iterator[dict]:
        """Trains and judges it, but for what is done; yields the new lines of results as they come.

        lines: those that there are, by key; one that was made with other flags does not count. stopped: when set,
        nothing more is begun.
        """
        before = {name: lines.get(self.key(name)) for name in self.evaluations}
        wanted = [name for name, line in before.items() if line is None or not self.is_of(line)]
        if not wanted:
            return
        seconds = self.train(place)
        for name in wanted:
            if stopped and stopped.is_set():
                return
            judge = _density if name == DENSITY else _judged
            line = judge(place, self, self.evaluations[name])
            facts = {"study": self.study.name, "arm": self.arm.name, "seed": self.seed, "evaluation": name}
            facts |= {"train": self.training, "settings": self.settings(name)}
            facts |= {"train_seconds": seconds, "machine": machine()}
            yield line | {"cell": facts}

    def train(self, place: Place) -> float | None:
        """Trains it where that is not done, after what it starts from; returns the seconds of it all.

        None where they are not known, for a training was killed without a word. Raises UserError where there is a run
        that was trained with other flags.
        """
        state = self._state(place)
        if not (state["finished"] and self._model_dir(place).is_dir()):
            if self.start:
                self.start.train(place)
            self._train(place, state)
        return self._seconds(place)

    def _model_dir(self, place):
        return Path(place.real(self.folder))

    def _state(self, place):
        """What is kept of its run; that of a new one where there is none, or it was deleted before it had finished."""
        if self.start:
            self.start._state(place)  # raises, first
        folder = self._model_dir(place)
        kept = folder.with_suffix(".json")
        state = json.loads(kept.read_text()) if kept.exists() else {}
        fits = state.get("settings") == self.settings()
        if not fits and state and folder.is_dir():
            raise UserError(f"{folder}: was trained with other flags than the study's now; move it away")
        if fits and (state["finished"] or folder.is_dir()):
            return state
        return {"settings": self.settings(), "seconds": 0.0, "finished": False}

    def _seconds(self, place):
        """The seconds of its training and of what it starts from, as far as these are known."""
        own, start = self._state(place)["seconds"], self.start._seconds(place) if self.start else 0.0
        return None if None in (own, start) else round(own + start, 1)

    def _train(self, place, state):
        """Trains it, and keeps that and the seconds of all goes at it."""
        folder = self._model_dir(place)
        kept = folder.with_suffix(".json")
        if state["finished"]:  # and deleted since
            state = state | {"seconds": 0.0, "finished": False}
        kept.parent.mkdir(parents=True, exist_ok=True)
        model_dir.write_json(kept, state | {"seconds": None})  # what stays if this process is killed
        started, finished, seconds = time.monotonic(), False, None
        try:
            flags = map(place.real, self.training)
            commands.run("la_tf.train", *flags, log=folder.with_suffix(".log"), environment=place.environment)
            finished = True
        finally:
            if state["seconds"] is not None:
                seconds = state["seconds"] + time.monotonic() - started
            model_dir.write_json(kept, state | {"seconds": seconds, "finished": finished})


def _judged(place, cell, flags):
    """The line that la_tf.evaluate leaves."""
    folder = Path(place.real(cell.folder))
    arguments, log = map(place.real, flags), folder.with_suffix(".log")
    found = commands.run("la_tf.evaluate", *arguments, log=log, environment=place.environment)
    return thin(results.find(folder, found["id"]), place) | {"command": flags}


def thin(line, place):
    """Returns a line without what its commands say as well, numbers of single classes and folders of this machine."""
    subject = {name: value for name, value in line["subject"].items() if name in SUBJECT}
    found = {name: value for name, value in line["results"].items() if name != "per_class"}
    dataset = line["dataset"] | {"spec": place.told(line["dataset"]["spec"])}
    return line | {"subject": subject, "results": found, "dataset": dataset}


def _density(place, cell, flags):
    """A line with the mean local and background density of a run (the paper's Figure 2), like that of an evaluation."""
    folder = Path(place.real(cell.folder))
    flags = [*flags, f"--figure={DENSITY}"]
    started = time.monotonic()
    log = folder.with_suffix(".log")
    commands.run("la_tf.analyze", *map(place.real, flags), log=log, environment=place.environment)
    (found,) = json.loads((folder / "report" / f"{DENSITY}.json").read_text())
    of_own = [line for line in results.read([folder]) if line["dataset"]["own"]]  # pictures, not the scenes
    known = thin(of_own[-1], place)
    return {name: known[name] for name in ("subject", "dataset", "versions")} | {
        "protocol": DENSITY,
        "settings": {"bank": found["bank"], "ranks": found["ranks"]},
        "split": "train",
        "selected_on": "nothing",
        "results": {part: found[part]["mean"] for part in ("local", "background")},
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
        "command": flags,
    }


def digest(flags):
    """Returns a hash, 12 hex digits, of flags and of what the flagfiles among them hold."""
    return hashlib.sha256(json.dumps(expanded(flags)[0]).encode()).hexdigest()[:12]


def machine():
    """Returns what a time belongs to: the cores and their kind."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        told = (line.partition(":") for line in info.read_text().splitlines())
        cpu = next((value.strip() for name, _, value in told if name.strip() == "model name"), cpu)
    return f"{cores()} cores, {cpu}"
