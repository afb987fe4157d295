"""Gives every reader of files and flags inputs that are nearly right, and tells which of them it does not survive.

    python -m tests.fuzz                            10,000 inputs for each reader
    python -m tests.fuzz --reader=jpeg,records --inputs=100000 --seed=7
    python -m tests.fuzz --reader=jpeg --seed=7 --first=4711 --inputs=1     that one again

An input fails if its reader raises anything but a refusal in one line, takes over 10 s or 2 GiB of memory, or kills
its process. Inputs are functions of seed, reader and number; those that failed are kept in OUT/failures.
"""

import math
import sys
import time
from pathlib import Path

from absl import flags
from tqdm import tqdm

from data import cli
from data.errors import FlagError, UserError
from tests.fuzz import watched
from tests.fuzz.child import ROOT
from tests.fuzz.subjects import SUBJECTS

LEAST_PARSED = 0.2  # of the inputs: the others tell nothing about what lies behind the first parse
TITLES = (
    "reader",
    "inputs",
    "past the first parse",
    "refused",
    "failures",
    "mean, ms",
    "slowest, ms",
    "MiB",
    "branches",
)

flags.DEFINE_list("reader", None, f"Which readers; all by default: {', '.join(SUBJECTS)}.")
flags.DEFINE_integer("inputs", 10_000, "How many inputs for each.")
flags.DEFINE_integer("first", 0, "Number of the first.")
flags.DEFINE_integer("seconds", None, "Stops after so long, shared evenly by the readers. Default: when all is done.")
flags.DEFINE_integer("seed", None, "Of the inputs. Default: another one each time; it is printed.")
flags.DEFINE_string("out", "build/fuzz", "Folder for inputs that failed, coverage and what readers print.")


def main():
    """Runs all; prints a table; raises UserError where an input failed, or too few got past the first parse."""
    names, inputs, first, seconds, seed, out = (
        flags.FLAGS[name].value for name in ("reader", "inputs", "first", "seconds", "seed", "out")
    )
    names = [*SUBJECTS] if names is None else names
    for name in names:
        if name not in SUBJECTS:
            raise FlagError(f"--reader={name}: choose of {', '.join(SUBJECTS)}")
    if inputs < 1 or first < 0:
        raise FlagError(f"--inputs={inputs} --first={first}: at least 1 input, counted from 0")
    seed = time.time_ns() % 2**31 if seed is None else seed
    out = Path(out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("coverage.*"), *out.glob("*.input")):  # what failed before stays
        old.unlink()
    print(f"seed {seed}; failures are kept in {out / 'failures'}", file=sys.stderr)
    tallies = [*_tallies(names, seed, first, inputs, out, seconds)]
    _count_branches(tallies, out)
    print(table(tallies), file=sys.stderr)
    failures = {tally.reader: sorted(tally.failures) for tally in tallies if tally.failures}
    if failures:
        listed = "; ".join(f"{name}: {', '.join(map(str, numbers[:5]))}" for name, numbers in failures.items())
        raise UserError(
            f"{sum(map(len, failures.values()))} inputs failed ({listed}); see {out / 'failures'}, and "
            f"python -m tests.fuzz --seed={seed} --reader=NAME --first=NUMBER --inputs=1"
        )
    for tally in tallies:
        if tally.parsed < LEAST_PARSED * tally.inputs:
            raise UserError(f"{tally.reader}: only {tally.parsed} of {tally.inputs} inputs got past the first parse")
    return {"seed": seed, "inputs": sum(tally.inputs for tally in tallies), "failures": 0}


def _tallies(names, seed, first, inputs, out, seconds):
    """Yields the Tally of each reader; time that one leaves over is shared by those after it."""
    end = None if seconds is None else time.monotonic() + seconds
    with tqdm(total=len(names) * inputs, unit=" inputs", mininterval=0.5 if sys.stderr.isatty() else 60) as bar:
        for place, name in enumerate(names):
            bar.set_description(name, refresh=False)
            now = time.monotonic()
            deadline = math.inf if end is None else now + max(end - now, 0) / (len(names) - place)
            yield watched.run(name, seed, first, first + inputs, out, deadline, bar.update)


def _count_branches(tallies, out):
    """Puts into each Tally how many branches of its files its inputs took."""
    from coverage import Coverage
    from coverage.exceptions import CoverageException

    for tally in tallies:
        coverage = Coverage(data_file=str(out / f"coverage.{tally.reader}"), branch=True, messages=False)
        try:
            coverage.combine([str(path) for path in out.glob(f"coverage.{tally.reader}.*")], keep=True)
            found = [coverage._analyze(str(ROOT / file)).numbers for file in tally.files]
        except CoverageException:
            continue  # no process lived to write it
        tally.branches = sum(one.n_executed_branches for one in found), sum(one.n_branches for one in found)


def table(tallies) -> str:
    """The Tallies as a Markdown table."""
    rows = [TITLES, ["---"] * len(TITLES)]
    for tally in tallies:
        taken, there = tally.branches
        rows.append(
            [
                f"{tally.reader} ({', '.join(tally.files)})",
                f"{tally.inputs:,}",
                f"{tally.parsed:,} ({tally.parsed / max(tally.inputs, 1):.0%})",
                f"{tally.refused:,}",
                len(tally.failures),
                f"{1000 * tally.seconds / max(tally.inputs, 1):.1f}",
                f"{1000 * tally.slowest:.0f}",
                f"{tally.peak / 2**20:.0f}",
                f"{taken} of {there} ({taken / there:.0%})" if there else "none",
            ]
        )
    total, failed = (
        sum(count(tally) for tally in tallies) for count in (lambda t: t.inputs, lambda t: len(t.failures))
    )
    rows.append([f"all {len(tallies)}", f"{total:,}", "", "", failed, "", "", "", ""])
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


if __name__ == "__main__":
    cli.run(main)
