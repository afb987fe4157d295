"""Runs the inputs of one reader in a process of its own, which may die of them; a line of JSON for each goes to stdout.

python -m tests.fuzz.child READER SEED FIRST STOP OUT SCRATCH
"""

import json
import linecache
import os
import random
import resource
import sys
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEMORY = 2 * 2**30  # bytes
COUNTED = 2000  # inputs of a process whose branches are counted: those after them find hardly any, and run faster
KEPT_EVERY = 100  # of them, after which the coverage is written: a process that dies later has told of these


def numbers_of(seed, reader, number) -> random.Random:
    """The random numbers of one input: any input can be made again without those before it."""
    return random.Random(f"{seed}/{reader}/{number}")


def main(reader, seed, first, stop, out, scratch):
    """Runs inputs `first` to `stop`, in the empty folder `scratch`; the one that is read lies in OUT/READER.input."""
    report = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # readers print
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="", XDG_CACHE_HOME=str(scratch / "cache"))
    folder = scratch / "files"
    folder.mkdir()
    coverage = _coverage(out / f"coverage.{reader}.{first}")
    from tests.fuzz.subjects import subject

    made = subject(reader, folder)
    _warm_up(made, numbers_of(seed, reader, "warm"))
    _limit_memory()
    report.write(json.dumps({"files": made.files}) + "\n")
    report.flush()
    for number in range(first, stop):
        data = made.mutate(numbers_of(seed, reader, number))
        (out / f"{reader}.input").write_bytes(data)
        found = {"number": number, "parsed": bool(made.parses(data)), **_outcome(made, data)}
        if found["failure"]:
            keep(out, reader, number, data, found["failure"])
        report.write(json.dumps(found) + "\n")
        report.flush()
        done = number + 1 - first
        if done <= COUNTED and (done % KEPT_EVERY == 0 or number + 1 == stop):
            coverage.save()
        if done == COUNTED:
            coverage.stop()


def keep(out, reader, number, data, failure):
    """Puts an input that failed into OUT/failures, with a .txt that says how."""
    folder = out / "failures"
    folder.mkdir(exist_ok=True)
    (folder / f"{reader}-{number}").write_bytes(data)
    (folder / f"{reader}-{number}.txt").write_text(failure, errors="backslashreplace")


def _coverage(path):
    from coverage import Coverage

    coverage = Coverage(data_file=str(path), branch=True, include=[f"{ROOT}/{each}/*" for each in ("data", "la_tf")])
    coverage.start()
    return coverage


def _warm_up(made, numbers):
    """A first read, whatever comes of it: libraries are loaded, and graphs traced, before the clock runs."""
    try:
        made.read(made.mutate(numbers))
    except Exception:
        return


def _limit_memory():
    """What is asked for beyond the limit is refused; nothing leaves a core behind."""
    with open("/proc/self/statm") as file:
        there = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (there + MEMORY, there + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _outcome(made, data):
    """What came of an input: `refused` (in one line) or `failure`, a traceback; its `seconds`, `peak` bytes so far."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # bytes
    begun = time.process_time()  # of this process: another one may well be in the way
    refused, failure = False, None
    try:
        made.read(data)
    except BaseException as error:  # SystemExit and KeyboardInterrupt are no answers either
        refused = _is_refusal(error, made)
        failure = None if refused else "".join(traceback.format_exception(error))
    seconds = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # bytes
    if peak - before > MEMORY and not failure:
        failure = f"the input took {(peak - before) / 2**30:.1f} GiB of memory\n"
    return {"refused": refused, "failure": failure, "seconds": seconds, "peak": peak}


def _is_refusal(error, made):
    from data.errors import UserError

    if not isinstance(error, (UserError, *made.refusals)):
        return False
    return isinstance(error, UserError) or _is_deliberate(error)


def _is_deliberate(error):
    """Whether the exception was raised by a `raise` of ours, not by what we call."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    is_ours = any(place.filename.startswith(f"{ROOT}/{package}/") for package in ("data", "la_tf"))
    return is_ours and linecache.getline(place.filename, place.lineno).strip().startswith("raise")


if __name__ == "__main__":
    reader, seed, first, stop, out, scratch = sys.argv[1:]
    main(reader, int(seed), int(first), int(stop), Path(out), Path(scratch))
