"""Kills runs at random moments, resumes them, and compares what they came to with a run that was left alone.

    python -m tests.kills                    20: 10 in IR, 5 in clustering or checkpoint writing, 5 in LA
    python -m tests.kills --kills_a_run=3    several kills in each run, one after the other
    python -m tests.kills --matrix           every method on every kind of data set, stopped within epochs

The last line is JSON; the exit code is 1 where a run came to something else.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.endurance import end_state, moments
from tests.endurance.training import COURSE, FLAGS, leave_at_sigterm, on_one_thread, to_the_end

HEADER = "{:>4}  {:<10}  {:>7}  {:>4}  {:<10}  {:>4}  {:<68}  {:<12}  {}"


def main():
    """Prints a line for each kill; returns the exit code."""
    arguments = parsed()
    leave_at_sigterm()
    on_one_thread()
    work = Path(arguments.keep or tempfile.mkdtemp(prefix="kills-"))
    work.mkdir(parents=True, exist_ok=True)
    try:
        if arguments.matrix is not None:
            from tests.endurance import matrix  # TensorFlow, which kills from outside do not need

            return matrix.main(work, arguments.matrix)
        return kill_them(arguments, work)
    finally:
        if not arguments.keep:
            shutil.rmtree(work)


def parsed():
    """Reads the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--ir", type=int, default=10, help="kills in Instance Recognition (default 10)")
    parser.add_argument("--clustering", type=int, default=5, help="in clustering or checkpoint writing (default 5)")
    parser.add_argument("--la", type=int, default=5, help="in Local Aggregation (default 5)")
    parser.add_argument("--kills_a_run", type=int, default=1, help="kills in each run (default 1)")
    parser.add_argument("--matrix", nargs="*", metavar="ROW", help="methods on data sets instead, or some of them")
    parser.add_argument("--keep", help="the folder to keep the runs in (default: none is kept)")
    return parser.parse_args()


def planned(arguments):
    """Returns the kinds of kills of each run, in the order in which a run comes to them."""
    turns = ("checkpoint", "clustering")
    middle = [turns[number % 2] for number in range(arguments.clustering)]
    kinds = ["ir"] * arguments.ir + middle + ["la"] * arguments.la
    runs = -(-len(kinds) // arguments.kills_a_run)
    return [kinds[first::runs] for first in range(runs)]


def kill_them(arguments, work):
    """Trains once undisturbed, then kills; returns 1 where something differs."""
    started = time.monotonic()
    to_the_end(work / "whole", FLAGS)
    wanted = end_state.end_state(work / "whole")
    print(f"uninterrupted: {COURSE.steps} steps, {time.monotonic() - started:.1f} s, {end_state.digest(wanted)}")
    print(HEADER.format("kill", "kind", "seconds", "step", "phase", "lost", "what it hit", "hash", "equal"))
    equal = kills = 0
    for number, kinds in enumerate(planned(arguments)):
        hits, found = moments.killed_run(work / f"run{number}", kinds, np.random.default_rng([arguments.seed, number]))
        same = found == wanted
        for kind, hit, lost in hits:
            kills, equal = kills + 1, equal + same
            line = (kills, kind, f"{hit.seconds:.2f}", hit.step, hit.phase, lost, " ".join(hit.writing) or hit.place)
            print(HEADER.format(*line, end_state.digest(found)[:12], "yes" if same else "NO"), flush=True)
        if not same:
            print(f"      not the same: {', '.join(end_state.differences(found, wanted)[:10])}")
        if not arguments.keep:
            shutil.rmtree(work / f"run{number}")
    print(json.dumps({"kills": kills, "equal": equal, "seconds": round(time.monotonic() - started)}))
    return int(equal < kills)


if __name__ == "__main__":
    sys.exit(main())
