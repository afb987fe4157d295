"""Measures what the project says of the method: python -m evidence [--quick]

Every study trains its arms with the same seeds and judges them by la_tf.evaluate. Each run is a model_dir below --runs,
each number a line of OUT/results.jsonl; OUT/RESULTS.md tells them all, with the command of each. The same command goes
on where it was interrupted: what has its line is not done again. Pictures are looked for in $LA_TF_DATA (--data);
studies without theirs are passed over. --quick: LA against IR on the digits alone, with four seeds.
--report writes the page anew from the lines that are there, and measures nothing.
"""

import os
import re
import sys
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event

from absl import flags
from tqdm import tqdm

from data import cli
from data.errors import FlagError, UserError
from data.processors import cores
from evidence import lists, page, plans
from evidence.cells import Cell, Place
from evidence.studies import QUICK, STUDIES
from evidence.study import DATA, LISTS
from la_tf import model_dir, results

SET = re.compile(rf"(?:{re.escape(DATA)}/|{re.escape(LISTS)}/train_)(\w+?)(?:_\d+\.csv)?$")

flags.DEFINE_string("runs", "runs/evidence", "Where the runs live.")
flags.DEFINE_string("out", None, "Folder of results.jsonl and RESULTS.md. Default: --runs.")
flags.DEFINE_string("data", None, "Folder of the unpacked picture sets. Default: $LA_TF_DATA.")
NAMES = (*STUDIES, plans.NAME)
flags.DEFINE_list("studies", [], f"Some alone: {', '.join(NAMES)}.")
flags.DEFINE_integer("seeds", None, "With so many seeds of each study at most.")
flags.DEFINE_integer("jobs", None, "Runs at a time, each on its part of the cores, up to 1.5 GB. Default: one a core.")
flags.DEFINE_boolean("quick", False, "LA against IR on the digits alone, with four seeds.")
flags.DEFINE_boolean("report", False, "Write the page alone.")


def main():
    """Flags -> runs, lines and the page; returns where they are."""
    given = {name: flags.FLAGS[name].value for name in ("runs", "out", "data", "seeds", "jobs", "quick", "report")}
    for name in ("seeds", "jobs"):
        if given[name] is not None and given[name] < 1:
            raise FlagError(f"--{name}={given[name]}: must be at least 1")
    out, names = Path(given["out"] or given["runs"]), chosen()
    for name in ("quick", "report"):
        if given[name] and len(names) < len(NAMES):
            raise FlagError(f"--{name}: cannot be combined with --studies; leave out one of them")
    if not given["report"]:
        measure([QUICK] if given["quick"] else [STUDIES[name] for name in names if name in STUDIES], given, out)
        if plans.NAME in names and not given["quick"]:
            plan(given, out)
    if not (out / results.FILE).exists():
        raise UserError(f"{out}: there is no {results.FILE} yet, and nothing to be measured")
    lines = results.read([out])
    path = out / "RESULTS.md"
    model_dir.write_text(path, page.of(STUDIES.values(), lines))
    return {"page": str(path), "results": str(out / results.FILE), "lines": len(lines)}


def chosen():
    """Returns the names that --studies gives, or all; FlagError for one that there is not."""
    names = flags.FLAGS["studies"].value or [*NAMES]
    if strange := [name for name in names if name not in NAMES]:
        raise FlagError(f"--studies={strange[0]}: there is none; choose of {', '.join(NAMES)}")
    return names


def sets_of(study):
    """Returns the picture sets below $LA_TF_DATA that the flags of a study name."""
    groups = (study.flags, *(arm.flags for arm in study.arms), *study.evaluations.values())
    return {found[1] for group in groups for flag in group if (found := SET.search(flag))}


def at_hand(name, sets, place):
    """Whether the picture sets are there; says so where they are not."""
    missing = sorted(each for each in sets if not place.data or not (Path(place.data) / each).is_dir())
    if missing:
        where = f"in {place.data}" if place.data else "without --data or LA_TF_DATA"
        print(f"{name}: passed over, for there is no {', '.join(missing)} {where}", file=sys.stderr)
    return not missing


def place_of(given, environment):
    """Returns the Place that the flags name."""
    data = given["data"] or os.environ.get("LA_TF_DATA", "")
    return Place(Path(given["runs"]), str(Path(data).resolve()) if data else "", environment)


def known(out):
    """Returns the newest lines that there are, by key."""
    lines = results.read([out]) if (out / results.FILE).exists() else []
    return page.Lines(lines).by_key


def plan(given, out):
    """Plans what is not run, one after the other, for they measure the machine."""
    place = place_of(given, {})
    if at_hand(plans.NAME, {plans.SAMPLE}, place):
        for line in plans.lines(place, known(out)):
            results.append(out, line)


def measure(studies, given, out):
    """Runs all cells that have not their lines yet, seeds side by side, the arms of a seed one after the other."""
    jobs = given["jobs"] or cores()
    threads = str(max(1, cores() // jobs))
    place = place_of(given, {"TF_NUM_INTRAOP_THREADS": threads, "OMP_NUM_THREADS": threads})
    studies = [study for study in studies if at_hand(study.name, sets_of(study), place)]
    if not studies:
        return
    model_dir.writable_folder(out)
    lists.write(studies, place)
    before, stopped = known(out), Event()
    seeds = slice(given["seeds"])
    chains = [[Cell(study, arm, seed) for arm in study.arms] for study in studies for seed in study.seeds[seeds]]
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=sum(map(len, chains)), unit=" runs") as progress:
        running = [pool.submit(run_chain, chain, place, before, out, progress, stopped) for chain in chains]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
        finally:  # Ctrl-C, too: no chain and no cell begins any more
            stopped.set()
            for each in running:
                each.cancel()
    for each in running:
        if not each.cancelled():
            each.result()


def run_chain(chain, place, before, out, progress, stopped):
    """Runs the cells of a seed one after the other until `stopped`, and keeps their lines; one that fails stops all."""
    try:
        for cell in chain:
            if stopped.is_set():
                return
            for line in cell.run(place, before, stopped):
                results.append(out, line)
                progress.write(f"{cell.title}: {page.brief(line)}", file=sys.stderr)
            progress.update()
    except BaseException:
        stopped.set()  # here: whoever waits for it would be too late for the next chain, which begins at once
        raise


if __name__ == "__main__":
    cli.run(main, resumes=True)
