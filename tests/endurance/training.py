"""A training process that is watched, frozen and killed from outside, where and when one chooses."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from la_tf import checkpoints
from tests.programs import ROOT, environment

# The run of `tests.kills` and `tests.soak`: seconds, and everything takes part. Clusterings are many, to be hit.
FLAGS = [
    "--dataset=digits", "--backbone=resnet10", "--width=4", "--embedding_dim=16", "--image_size=8", "--batch_size=64",
    "--epochs=8", "--warmup_epochs=4", "--clusters=40", "--clusterings=30", "--background_k=64",
    "--learning_rate=0.05", "--schedule=plateau", "--patience=1", "--early_stopping=50", "--checkpoint_steps=5",
    "--deterministic", "--log_steps=1", "--board_updates=2",
]  # fmt: skip
CLUSTERING = ("clustering.py", "cluster_renewal.py", "cluster_health.py")
FAULT = 30.0  # seconds until something that should have happened is taken for something that will not


def on_one_thread():
    """Has every run that this process starts take one thread: sums depend on how many there are."""
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", OMP_NUM_THREADS="1")


class Course(NamedTuple):
    """What is known of a run beforehand."""

    per_epoch: int  # steps
    switch: int  # the step at which Local Aggregation begins
    steps: int


COURSE = Course(22, 4 * 22, 8 * 22)


class Ended(Exception):
    """The process ended by itself."""


class Hit(NamedTuple):
    """Where a process was when it was frozen."""

    seconds: float  # since its start
    step: int  # the last one that it told of
    phase: str  # ir, la, clustering; before the first step that it tells of: start, then begins
    place: str  # file, line and function of ours
    writing: tuple[str, ...]  # the files of a checkpoint that was half written; none: it wrote none


class Training:
    """`la_tf.train` in a process of its own; a context manager that leaves no process behind.

    What it prints goes to a file in `notes`, the folder around the run's where none is given.
    """

    def __init__(self, folder, flags, notes=None):
        self.folder = Path(folder)
        self.begun_at = newest_step(folder)
        notes = Path(notes or self.folder.parent)
        self._stacks, self._said = (notes / f"{self.folder.name}.{name}" for name in ("stacks", "said"))
        self._stacks.unlink(missing_ok=True)
        self._clock, self._started = time.time(), time.monotonic()
        traced = [sys.executable, "-m", "tests.endurance.traced", str(self._stacks), "la_tf.train"]
        with open(self._said, "w") as said:
            self.process = subprocess.Popen(
                [*traced, *flags, f"--model_dir={folder}"],
                cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=said,
            )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def seconds(self):
        """How long it has been running."""
        return time.monotonic() - self._started

    def said(self):
        """Returns the lines that it printed."""
        return self._said.read_text(errors="replace").splitlines()

    def last(self):
        """Returns the newest metrics that this process wrote, None before the first."""
        with contextlib.suppress(FileNotFoundError), open(self.folder / "metrics.jsonl", "rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - 8192, 0))
            lines = file.read().splitlines(keepends=True)[-2:]
            whole = [line for line in lines if line.endswith(b"\n")]
            if whole:
                record = json.loads(whole[-1])
                # Lines of a process before this one stay until this one trains.
                return record if record["time"] > self._clock else None
        return None

    def step(self):
        """Returns the newest step that it told of, or has a checkpoint of; -1 before it can be asked where it is."""
        if not (self._stacks.exists() and self._stacks.stat().st_size and (self.folder / "config.json").exists()):
            return -1
        last = self.last()
        return max(self.begun_at, last["step"] if last else 0, newest_step(self.folder))

    def writing(self):
        """Returns the files of a checkpoint that is half written, with their sizes; none where there is none."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(checkpoints.folder(self.folder)):
                if entry.name.startswith(".step-") and not entry.name.endswith(".old"):
                    found.append(entry.name)
                    found += [f"{file.name} {file.stat().st_size}" for file in os.scandir(entry.path)]
        return tuple(found)

    def watch(self, due, pause=0.0005):
        """Waits until `due()` is true and returns what it returned; raises Ended where the process ends before."""
        while True:
            found = due()
            if found:
                return found
            if self.process.poll() is not None:
                raise Ended(f"exit code {self.process.returncode}: {' '.join(self.said()[-1:])}")
            if self.seconds > 20 * FAULT:
                raise TimeoutError(f"the run is at step {self.step()} after {self.seconds:.0f} s")
            time.sleep(pause)

    def freeze(self, stacks=True):
        """Stops the process where it is; returns the `Hit`. Whatever it writes stays as it is until `thaw`.

        Stacks, which are written a moment before, tell whether it is clustering.
        """
        blocks = self._where() if stacks else []
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGSTOP)
        while self.process.poll() is None and _state(self.process.pid) not in "TZ":
            time.sleep(0.0002)
        last = self.last()
        files = {frame.split(":")[0] for block in blocks for frame in block}
        phase = last["phase"] if last else "begins" if "training_loop.py" in files else "start"
        phase = "clustering" if files.intersection(CLUSTERING) else phase
        place = next((frame for block in blocks for frame in block), "")
        return Hit(self.seconds, max(self.begun_at, last["step"] if last else 0), phase, place, self.writing())

    def thaw(self):
        """Lets a frozen process go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        """Ends the process as a power cut does."""
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL, f"it had ended before: {self.said()[-1:]}"

    def stop(self, number):
        """Asks the process to end, and waits for that; raises Ended where it did not end as it should."""
        self.process.send_signal(number)
        code = self.ended()
        if code != 128 + number:
            raise Ended(f"exit code {code} after {signal.Signals(number).name}: {' '.join(self.said()[-1:])}")

    def ended(self):
        """Waits for the end; returns the exit code. Raises TimeoutError where it does not come in a minute."""
        try:
            return self.process.wait(2 * FAULT)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the process has not ended; it said: {' '.join(self.said()[-1:])}") from None

    def _where(self):
        """Returns what functions of ours each thread is in, the innermost first; the main thread first."""
        before, deadline = self._stacks.stat().st_size, time.monotonic() + 1
        self.process.send_signal(signal.SIGUSR1)
        while time.monotonic() < deadline and self.process.poll() is None:
            with open(self._stacks, errors="replace") as file:
                file.seek(before)
                text = file.read()
            if text.endswith("in _run_module_as_main\n"):  # of the main thread, which comes last
                break
            time.sleep(0.0002)
        else:
            return []
        frames = re.compile(rf'File "{re.escape(str(ROOT))}/(?:la_tf|data|models)/(\S+)", line (\d+) in (\w+)')
        blocks = re.split(r"^(?:Current thread|Thread) .*$", text, flags=re.M)
        return [[f"{name}:{line} {what}" for name, line, what in frames.findall(block)] for block in reversed(blocks)]


def newest_step(folder):
    """Returns the step of a run's newest checkpoint, 0 where there is none."""
    return (checkpoints.steps(folder) or [0])[-1]


def to_the_end(folder, flags, notes=None):
    """Runs the command to its end; raises Ended where it does not end well. Returns what it said."""
    with Training(folder, flags, notes) as training:
        if training.process.wait(20 * FAULT):
            raise Ended(f"exit code {training.process.returncode}: {' '.join(training.said()[-1:])}")
        return training.said()


def leave_at_sigterm():
    """Lets SIGTERM end this process as Ctrl-C does: it leaves neither processes nor disks behind."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _state(pid):
    """Returns the letter of a process's state: R, S, D, T (stopped), Z."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"
