"""Trains the digits for half an hour while everything happens to the runs, and compares what they come to.

    make soak    (or: python -m tests.soak --seconds=1800)

First a long run is left alone: its memory and its open files have to stay as they are. Then runs are killed, stopped,
their disk becomes full, their newest checkpoint is damaged, at random moments one after the other; the same command
goes on each time. All have to end as one that was left alone. The last line is JSON; the exit code is 1 where one did
not, or where memory or open files grew.
"""

import argparse
import collections
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from la_tf import checkpoints
from tests.disks import small_disk
from tests.endurance import end_state, injuries, memory, moments
from tests.endurance.training import COURSE, FLAGS, Ended, Training, leave_at_sigterm, on_one_thread, to_the_end

SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
FAULTS = ("SIGKILL", *SIGNALS, "full disk", *injuries.DAMAGES)
MOST_FAULTS = 4  # of a run
DISK = "64m"
LONGEST = 200  # epochs of the run that is left alone
GROWTH = (
    64.0  # MiB between the first third and the last that are no leak: of exports, until Python collects its garbage
)


def main():
    """Soaks; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800, help="how long (default 1800)")
    parser.add_argument("--seed", type=int, default=0, help="of what happens when (default 0)")
    arguments = parser.parse_args()
    leave_at_sigterm()
    on_one_thread()
    work = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        return Soak(work, arguments.seconds, np.random.default_rng(arguments.seed)).run()
    finally:
        shutil.rmtree(work)


class Soak:
    """Half an hour."""

    def __init__(self, work, seconds, rng):
        self.work, self.seconds, self.rng = work, seconds, rng
        self.started = time.monotonic()
        self.faults = collections.Counter()
        self.lost = 0
        self.disk = _can_mount(work)
        if not self.disk:
            self.tell("no disk becomes full: mounting a small one needs root, and a system that lets it")

    def tell(self, text):
        """Prints a line with the time since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        print(f"{minutes:>3}:{seconds:02d}  {text}", flush=True)

    def run(self):
        """Returns 0 where all went well."""
        flat = self.long_run()
        to_the_end(self.work / "whole", FLAGS)
        self.wanted = end_state.end_state(self.work / "whole")
        self.tell(f"a run that is left alone comes to {end_state.digest(self.wanted)}")
        runs = equal = 0
        while time.monotonic() - self.started < self.seconds:
            runs += 1
            equal += self.hurt_run(runs)
        passed = equal == runs and flat["flat"]
        result = {"passed": passed, "seconds": round(time.monotonic() - self.started), "runs": runs, "equal": equal}
        print(json.dumps(result | {"faults": dict(self.faults), "steps_lost": self.lost, **flat}))
        return int(not passed)

    def long_run(self):
        """Samples memory and open files at each epoch of a run that nothing happens to; returns what they come to."""
        epochs = int(np.clip(self.seconds / 9, 30, LONGEST))
        flags = [*FLAGS, f"--epochs={epochs}", "--warmup_epochs=2", "--schedule=constant", "--early_stopping=0"]
        # Without exports on the way: their garbage, some 10 MiB each, waits for Python to collect it.
        flags += ["--log_steps=1000", "--checkpoint_steps=10", "--clusterings=3", "--exporters=final"]
        samples = []
        with Training(self.work / "long", flags) as training:
            with contextlib.suppress(Ended):
                while True:
                    seen = samples[-1].epoch if samples else -1
                    training.watch(lambda seen=seen: (training.last() or {"epoch": -1})["epoch"] > seen, pause=0.01)
                    samples.append(memory.sample(training.process.pid, training.last()["epoch"]))
                    if len(samples) % (epochs // 6) == 0:
                        self.tell("epoch {}: {:.0f} MiB, {} open files".format(*samples[-1]))
            if training.process.wait():
                raise RuntimeError(f"the long run failed: {training.said()[-1:]}")
        (first, files_first), (last, files_last) = memory.thirds(samples)
        flat = last - first <= GROWTH and files_last <= files_first
        self.tell(f"{epochs} epochs left alone: {last - first:+.1f} MiB and {files_last - files_first:+.0f} open files")
        shutil.rmtree(self.work / "long")
        return {
            "flat": flat, "epochs": epochs, "mib_first_third": round(first, 1), "mib_last_third": round(last, 1),
            "files_first_third": files_first, "files_last_third": files_last,
        }  # fmt: skip

    def hurt_run(self, number):
        """Hurts a new run a few times, then lets it end; returns whether it came to what it should."""
        with small_disk(self.work, DISK) if self.disk else contextlib.nullcontext(self.work / "disk") as disk:
            try:
                differing = end_state.differences(self.hurt_end(disk / "run", number), self.wanted)
            except Exception as error:  # whatever it is, it is told, and the others go on
                self.tell(f"run {number}: FAILED, {type(error).__name__}: {error}")
                differing = [str(error)]
            else:
                same = f"the same end, {end_state.digest(self.wanted)[:12]}"
                self.tell(f"run {number}: {f'NOT THE SAME: {differing[:10]}' if differing else same}")
        shutil.rmtree(disk, ignore_errors=True)
        return not differing

    def hurt_end(self, folder, number):
        """Returns the end state of a run that is hurt a few times."""
        try:
            for _ in range(self.rng.integers(1, MOST_FAULTS + 1)):
                self.hurt(folder, number)
            to_the_end(folder, FLAGS, self.work)
        except Ended as ended:
            if "exit code 0" not in str(ended):  # else it was over before the moment came
                raise
        return end_state.end_state(folder)

    def hurt(self, folder, number):
        """Starts the command, and does one thing to it at a random moment."""
        fault = str(self.rng.choice([each for each in FAULTS if self.disk or each != "full disk"]))
        with Training(folder, FLAGS, self.work) as training:
            if fault in SIGNALS or fault == "full disk":
                latest = COURSE.steps - COURSE.per_epoch  # it must not be over before
                target = self.rng.integers(min(training.begun_at, latest), latest + 1)
                training.watch(lambda: training.last() and training.step() >= target)
                time.sleep(self.rng.uniform(0, 0.05))
                step = training.step()
                what = _stopped(training, SIGNALS[fault]) if fault in SIGNALS else _filled(training, folder.parent)
            else:
                kind = str(self.rng.choice(_to_come(training.begun_at)))
                hit = moments.strike(training, kind, self.rng, COURSE)
                step, what = hit.step, f"{kind}: {' '.join(hit.writing) or hit.place}"
        if fault in injuries.DAMAGES:
            if len(injuries.whole_steps(folder)) > 1:
                newest = checkpoints.latest(folder)
                what = f"{newest.name}/{injuries.damage(newest, fault, self.rng)}"
            else:
                fault = "SIGKILL"  # alone: without a whole checkpoint there is nothing to go on from
        lost = max(step - (injuries.whole_steps(folder) or [0])[-1], 0)
        self.faults[fault] += 1
        self.lost += lost
        self.tell(f"run {number}: {fault} at step {step}, {lost} steps lost; {what}")


def _stopped(training, number):
    training.stop(number)
    return training.said()[-1]


def _filled(training, disk):
    with injuries.full(disk):
        code = training.ended()
    said = training.said()
    if code != 1 or not said[-1].startswith("error: ") or "Traceback" in " ".join(said):
        raise Ended(f"exit code {code} on a full disk: {' | '.join(said[-3:])}")
    return said[-1]


def _to_come(step):
    """Returns the kinds of moments that a run which goes on from `step` will have."""
    last = {"ir": COURSE.switch - 2, "checkpoint": COURSE.steps * 3 // 4 - 10, "clustering": COURSE.steps * 3 // 4}
    return [kind for kind in moments.KINDS if step < last.get(kind, COURSE.steps)]


def _can_mount(work):
    if os.geteuid():
        return False
    try:
        with small_disk(work, DISK) as disk:
            pass
        disk.rmdir()
    except subprocess.CalledProcessError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
