"""Runs the inputs of a reader in child processes: one that hangs is killed, one that dies is followed by another."""

import contextlib
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

from data.errors import UserError
from tests.fuzz.child import ROOT, keep

LONGEST = 10  # seconds of processor time that an input may take
IDLE = 60  # seconds that it may wait for something
START = 600  # seconds that a process may take to begin


@dataclass
class Tally:
    """What came of the inputs of one reader; `failures` {number: traceback, or how the process ended}."""

    reader: str
    inputs: int = 0
    parsed: int = 0
    refused: int = 0
    slowest: float = 0.0  # seconds
    seconds: float = 0.0  # all together
    peak: int = 0  # bytes
    files: list[str] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    branches: tuple[int, int] = (0, 0)  # taken, there

    def add(self, found):
        """Counts one input, a dict as child.py prints it."""
        self.inputs += 1
        self.parsed += found["parsed"]
        self.refused += found["refused"]
        self.slowest = max(self.slowest, found["seconds"])
        self.seconds += found["seconds"]
        if found["failure"]:
            self.failures[found["number"]] = found["failure"]
        self.peak = max(self.peak, found["peak"])


def run(reader, seed, first, stop, out, deadline=math.inf, tick=lambda: None, longest=LONGEST) -> Tally:
    """The Tally of inputs `first` to `stop`, or fewer, but one, once the clock (time.monotonic) is at `deadline`.

    Calls `tick()` for each. Inputs that failed are kept in OUT/failures as READER-NUMBER, with a .txt that says how.
    """
    tally = Tally(reader)
    while first + tally.inputs < stop and (not tally.inputs or time.monotonic() < deadline):
        with _child(reader, seed, first + tally.inputs, stop, out) as child:
            ending = _watch(child, tally, stop - first, deadline, tick, longest)
        if ending:  # what the process was at when it ended
            number = first + tally.inputs
            tally.inputs += 1
            tally.failures[number] = ending
            keep(out, reader, number, (out / f"{reader}.input").read_bytes(), ending)
            tick()
    return tally


@contextlib.contextmanager
def _child(reader, seed, first, stop, out):
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with (
        tempfile.TemporaryDirectory(prefix=f"fuzz-{reader}-", dir=_memory_disk()) as scratch,
        open(out / f"{reader}.stderr", "ab") as log,
    ):
        command = [sys.executable, "-m", "tests.fuzz.child", reader, *map(str, (seed, first, stop, out, scratch))]
        child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log)
        try:
            yield child
        finally:
            child.kill()
            child.wait()
            child.stdout.close()


def _memory_disk():
    """A folder in memory where there is one: files there need no fsync."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _watch(child, tally, inputs, deadline, tick, longest):
    """Adds what the process tells to `tally`, up to that many inputs; returns how it ended over one, else ""."""
    lines = _lines(child)
    begun = lines(START, START)
    if not begun:
        raise UserError(
            f"{tally.reader}: the process that reads did not begin; {tally.reader}.stderr in --out says why"
        )
    tally.files = json.loads(begun)["files"]
    while tally.inputs < inputs:
        line = lines(longest, IDLE)
        if line is None:
            return f"took longer than {longest} s of processor time, or than {IDLE} s\n"
        if not line:
            code = child.wait()
            if code >= 0:
                raise UserError(
                    f"{tally.reader}: its process left with {code}; {tally.reader}.stderr in --out says why"
                )
            return f"the process was ended by {signal.Signals(-code).name}\n"
        tally.add(json.loads(line))
        tick()
        if time.monotonic() >= deadline:
            return ""
    child.wait()  # it writes its coverage
    return ""


def _lines(child):
    """A function for the next line that a process prints: b"" at its end, None where none came for so many seconds of
    its processor time, or of the clock."""
    buffer = bytearray()
    selector = selectors.DefaultSelector()
    selector.register(child.stdout, selectors.EVENT_READ)

    def line(busy, idle):
        end, most = time.monotonic() + idle, None
        while b"\n" not in buffer:
            if not selector.select(1):
                most = _processor_time(child.pid) + busy if most is None else most
                if time.monotonic() > end or _processor_time(child.pid) > most:
                    return None
                continue
            piece = os.read(child.stdout.fileno(), 65536)
            if not piece:
                return b""
            buffer.extend(piece)
        found, _, rest = bytes(buffer).partition(b"\n")
        buffer[:] = rest
        return found

    return line


def _processor_time(pid):
    """Seconds that a process has computed, on all processors together."""
    with open(f"/proc/{pid}/stat") as file:
        user, system = file.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
