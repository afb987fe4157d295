"""docs/RESULTS.md: every study's table of means and intervals, what was expected of it, and its commands."""

from __future__ import annotations

import shlex
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from tabulate import tabulate

from evidence import plans
from evidence.cells import Cell
from evidence.study import Comparison, Measure, Study
from la_tf import intervals, outcomes, results

LEAST_SEEDS = 4  # with two an interval misses the truth twice as often as it says (see its tests); four are well off
FEW = "too few seeds"
HEAD = Path(__file__).with_name("introduction.md").read_text()


def key(line):
    """Returns (study, arm, seed, evaluation) of a line."""
    cell = line["cell"]
    return cell["study"], cell["arm"], cell["seed"], cell["evaluation"]


def brief(line):
    """Returns what a line came to, in a few words."""
    found = [*_shares("", line["results"])]
    return f"{line['cell']['evaluation']}: " + ", ".join(f"{name}{value:.4f}" for name, value in found)


def _shares(name, found):
    """Yields the numbers of results, by what leads to them; of scores the top-1 alone."""
    if "top1" in found:
        yield name, found["top1"]
        return
    for each, part in found.items():
        if isinstance(part, dict):
            yield from _shares(f"{name}{each} ", part)
        elif isinstance(part, float):
            yield f"{name}{each} ", part


class Lines:
    """The newest line of each cell and evaluation, and the numbers in them."""

    def __init__(self, lines):
        self.by_key = {key(line): line for line in sorted(lines, key=results.moment)}

    def of(self, study, arm, evaluation):
        """Returns {seed: line}, by seed."""
        wanted = (study, arm, evaluation)
        found = {k[2]: line for k, line in self.by_key.items() if (k[0], k[1], k[3]) == wanted}
        return dict(sorted(found.items()))

    def values(self, study, arm, measure: Measure):
        """Returns {seed: number}."""
        return {seed: value(line, measure) for seed, line in self.of(study, arm, measure.evaluation).items()}

    def outcomes(self, study, arm, measure: Measure):
        """Returns {seed: which test pictures were told right `[n]`}; empty where lines do not say."""
        lines = self.of(study, arm, measure.evaluation)
        if measure.path != ("top1",) or not all("right" in line["results"] for line in lines.values()):
            return {}
        return {seed: outcomes.unpacked(line["results"]["right"], tested(line)) for seed, line in lines.items()}


def tested(line):
    """The number of pictures of the test split."""
    return line["dataset"]["test"]


def value(line, measure):
    """The number of a measure in a line."""
    found = line["results"]
    for name in measure.path:
        found = found[name]
    return found


def of(studies, lines):
    """Returns the page of `studies` from `lines` of results."""
    known = Lines(current(studies, lines))
    parts = [in_short(studies, known), *(of_study(study, known) for study in studies), plans.section(known)]
    return "\n".join([HEAD, *filter(None, parts)])


def in_short(studies, known):
    """Returns the section that says what is decided; nothing where that is nothing."""
    told = []
    for study in studies:
        by_verdict = {}
        for row in comparisons(study, known):
            kind = row[5].partition(";")[0]
            by_verdict.setdefault(kind, {}).setdefault(row[0], []).append(row[1])
        named = [
            f"{kind}: " + "; ".join(f"{says} ({' and '.join(measures)})" for says, measures in found.items())
            for kind, found in sorted(by_verdict.items())
            if kind != FEW
        ]
        told += [f"- {study.title}", *(f"  - {line}" for line in named)] if named else []
    return "\n".join(["## In short\n", *told, ""]) if told else ""


def current(studies, lines):
    """Returns the lines but for those of cells that are, by now, trained or judged with other flags."""
    by_name = {study.name: study for study in studies}

    def stale(line):
        study, arm, seed, _ = key(line)
        if study not in by_name:
            return False
        known = by_name[study].by_name.get(arm)
        return known is None or not Cell(by_name[study], known, seed).is_of(line)

    return [line for line in lines if not stale(line)]


def of_study(study: Study, known: Lines):
    """Returns the section of a study, or nothing where it has no line yet."""
    tables = [table for measures in study.tables if (table := of_measures(study, measures, known))]
    if not tables:
        return ""
    parts = [f"## {study.title}\n", f"{study.text} (`--studies={study.name}`)\n", *tables]
    if found := comparisons(study, known):
        head = ["expected", "measure", "difference", "95% interval", "seeds", "", "in the paper"]
        parts.append(tabulate(found, head, "pipe", disable_numparse=True) + "\n")
    return "\n".join([*parts, commands(study, known)])


def comparisons(study, known):
    """The rows of all comparisons of a study of which there is something to say."""
    return [row for each in study.comparisons if (row := compared(study, each, known))]


def of_measures(study, measures, known):
    """Returns a table of the arms that have lines of these {title: Measure}; nothing where none has."""
    rows = [[arm.name, *cells] for arm in study.arms if (cells := table_row(study, arm.name, measures, known))]
    head = ["", *measures, "seeds", "minutes"]
    right = ["right"] * (len(head) - 1)
    return tabulate(rows, head, "pipe", colalign=("left", *right), disable_numparse=True) + "\n" if rows else ""


def table_row(study, arm, measures, known):
    """The cells of an arm: a text for each measure, the seeds, the minutes of a run; None where there is no line."""
    by_measure = [known.values(study.name, arm, measure) for measure in measures.values()]
    if not any(by_measure):
        return None
    pairs = zip(by_measure, measures.values(), strict=True)
    cells = [spread([*values.values()], measure) for values, measure in pairs]
    lines = [line for k, line in known.by_key.items() if k[:2] == (study.name, arm)]
    seconds = {line["cell"]["seed"]: line["cell"]["train_seconds"] for line in lines}.values()
    told = [each for each in seconds if each is not None]
    counts = sorted({len(values) for values in by_measure if values})
    return [*cells, "–".join(map(str, counts[:1] + counts[1:][-1:])), f"{mean(told) / 60:.1f}" if told else "·"]


def spread(values, measure):
    """Mean ± deviation of a measure."""
    if not values:
        return "·"
    scale, digits = (100, 1) if measure.points else (1, 3)
    deviation = f" ± {scale * stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{scale * mean(values):.{digits}f}{deviation}"


def compared(study: Study, wanted: Comparison, known: Lines):
    """The row of a comparison; None where fewer than two seeds have both sides."""
    more = study.measures[wanted.measure]
    less = study.measures[wanted.less_measure or wanted.measure]
    sides = (*study.place(wanted.more), more), (*study.place(wanted.less), less)
    seeds, interval = difference(*sides, known)
    if interval is None:
        return None
    scale, digits = (100, 1) if more.points else (1, 3)
    shown = [signed(scale * x, digits) for x in (interval.mean, interval.low, interval.high)]
    verdict = "decided" if interval.low > 0 else "decided: the other way round"
    if seeds < LEAST_SEEDS:
        verdict = FEW
    elif not interval.decided:
        verdict = f"open; {scale * intervals.detectable(interval):.{digits}f} would be seen"
    return [wanted.says, wanted.measure, shown[0], f"{shown[1]} to {shown[2]}", str(seeds), verdict, wanted.paper]


def signed(number, digits):
    """Returns a number with its sign, and with more digits where it would read as zero: its side is what counts."""
    texts = (f"{number:+.{more}f}" for more in range(digits, digits + 3))
    return next((text for text in texts if float(text)), f"{number:+.{digits}f}")


def difference(more, less, known):
    """How many seeds two (study, arm, measure) have in common, and the Interval of their paired difference.

    None instead of it with fewer than two.
    """
    of_pictures = known.outcomes(*more), known.outcomes(*less)
    if all(of_pictures):
        seeds = sorted(of_pictures[0].keys() & of_pictures[1].keys())
        if len(seeds) >= 2:
            one, other = (np.array([each[seed] for seed in seeds], float) for each in of_pictures)
            return len(seeds), intervals.of_seeds_and_pictures(one - other)
    values = known.values(*more), known.values(*less)
    seeds = sorted(values[0].keys() & values[1].keys())
    found = intervals.of_seeds([values[0][s] - values[1][s] for s in seeds]) if len(seeds) >= 2 else None
    return len(seeds), found


def commands(study, known):
    """The commands behind the table, folded away; what else they depend on."""
    shown, versions, machines = [], set(), set()
    for arm in study.arms:
        lines = [line for k, line in known.by_key.items() if k[:2] == (study.name, arm.name)]
        if not lines:
            continue
        versions |= {f"{name} {value}" for line in lines for name, value in line["versions"].items()}
        machines |= {line["cell"]["machine"] for line in lines}
        seeds = sorted({line["cell"]["seed"] for line in lines})
        first = [line for line in lines if line["cell"]["seed"] == seeds[0]]
        shown.append(f"# {arm.name}: seeds {', '.join(map(str, seeds))}")
        start = Cell(study, arm, seeds[0]).start
        if start and not any(k[:2] == (study.name, arm.start) for k in known.by_key):  # it stands nowhere else
            shown.append(f"python -m la_tf.train {joined(start.training)}")
        shown.append(f"python -m la_tf.train {joined(first[0]['cell']['train'])}")
        for line in first:
            main = "la_tf.analyze" if line["protocol"] == "density" else "la_tf.evaluate"
            shown.append(f"python -m {main} {joined(line['command'])}")
    told = f"{'; '.join(sorted(machines))} · {', '.join(sorted(versions))}"
    return f"<details><summary>commands · {told}</summary>\n\n```\n" + "\n".join(shown) + "\n```\n</details>\n"


def joined(flags):
    """Flags as they are typed, with variables of the shell left as they are."""
    return " ".join(flag if "$" in flag and " " not in flag else shlex.quote(flag) for flag in flags)
