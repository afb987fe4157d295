"""docs/RESULTS.md: every study's table of means and intervals, what was expected of it, and its commands."""

from __future__ import annotations

import shlex
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
from tabulate import tabulate

from data.errors import UserError
from evidence import plans
from evidence.cells import Cell
from evidence.study import Measure, Study
from la_tf import intervals, outcomes, results

LEAST_SEEDS = 4  # with two an interval misses the truth in 10% of the cases instead of 5, with four in 6 (its tests)
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
    found = standing({study.name: differences(study, known) for study in studies})
    parts = [in_short(studies, found), *(of_study(study, known, found[study.name]) for study in studies)]
    return "\n".join([HEAD, *filter(None, parts), plans.section(known)])


def standing(found):
    """Returns {study: [Difference]} with those marked that stand as one of all that have a verdict."""
    stands = iter(intervals.holm([each.interval.p_value for ones in found.values() for each in ones if each.judged]))
    return {
        study: [each._replace(stands=bool(next(stands))) if each.judged else each for each in ones]
        for study, ones in found.items()
    }


def in_short(studies, found):
    """Returns the section that says what is decided, and of how many; nothing where there is no verdict."""
    told, judged = [], [each for ones in found.values() for each in ones if each.judged]
    for study in studies:
        by_expectation, open_ones = {}, 0
        for each in found[study.name]:
            if each.decided:
                against = "" if each.interval.low > 0 else "**against**: "
                by_expectation.setdefault(f"{against}{each.says}", []).append(f"{each.measure} {each.told}")
            else:
                open_ones += each.judged
        named = [f"{says}: {'; '.join(numbers)}" for says, numbers in by_expectation.items()]
        named += [f"open: {open_ones}{' more' if named else ''}"] if open_ones else []
        told += [f"- {study.title} (`{study.name}`)", *(f"  - {line}" for line in named)] if named else []
    if not told:
        return ""
    decided, stand = sum(each.decided for each in judged), sum(each.stands for each in judged)
    count = (
        f"Of {len(judged)} differences {decided} are decided; if nothing differed, about {len(judged) / 20:.2g} would "
        f"be called so by chance. {stand}, in bold, remain decided after a correction for all {len(judged)} (Holm's).\n"
    )
    return "\n".join(["## In short\n", count, *told, ""])


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


def of_study(study: Study, known: Lines, found: list[Difference]):
    """Returns the section of a study, or nothing where it has no line yet."""
    tables = [table for measures in study.tables if (table := of_measures(study, measures, known))]
    if not tables:
        return ""
    parts = [f"## {study.title}\n", f"{study.text} (`--studies={study.name}`)\n", *tables]
    if found:
        head = ["expected", "measure", "difference", "95% interval", "seeds", "verdict", "in the paper"]
        parts.append(tabulate(map(comparison_row, found), head, "pipe", disable_numparse=True) + "\n")
    return "\n".join([*parts, commands(study, known)])


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


class Difference(NamedTuple):
    """What came of a comparison: the interval of its paired differences. stands: also as one of all of the page."""

    says: str
    measure: str
    paper: str
    points: bool
    seeds: int
    interval: intervals.Interval
    stands: bool = False

    @property
    def judged(self):
        """Whether there are seeds enough for a verdict."""
        return self.seeds >= LEAST_SEEDS

    @property
    def decided(self):
        """Whether the verdict is for or against what is expected."""
        return self.judged and self.interval.decided

    @property
    def scale(self):
        """What numbers are told in, and how many digits behind the point they have."""
        return (100, 1) if self.points else (1, 3)

    @property
    def told(self):
        """The mean, bold where it stands."""
        scale, digits = self.scale
        text = signed(scale * self.interval.mean, digits)
        return f"**{text}**" if self.stands else text


def differences(study: Study, known: Lines):
    """Returns the Difference of each comparison of a study that at least two seeds have both sides of."""
    found = []
    for each in study.comparisons:
        more, less = study.measures[each.measure], study.measures[each.less_measure or each.measure]
        seeds, interval = difference((*study.place(each.more), more), (*study.place(each.less), less), known)
        if interval is not None:
            found.append(Difference(each.says, each.measure, each.paper, more.points, seeds, interval))
    return found


def comparison_row(found: Difference):
    """The cells of a difference."""
    scale, digits = found.scale
    low, high = (signed(scale * end, digits) for end in (found.interval.low, found.interval.high))
    verdict = FEW
    if found.decided:
        verdict = "decided" if found.interval.low > 0 else "decided against"
        verdict = f"**{verdict}**" if found.stands else verdict
    elif found.judged:
        verdict = f"open (80% power from {scale * intervals.detectable(found.interval):.{digits}f})"
    return [found.says, found.measure, found.told, f"{low} to {high}", str(found.seeds), verdict, found.paper]


def signed(number, digits):
    """Returns a number with its sign, and with more digits where it would read as zero: its side is what counts."""
    texts = (f"{number:+.{more}f}" for more in range(digits, digits + 3))
    return next((text for text in texts if float(text)), f"{number:+.{digits}f}")


def difference(more, less, known):
    """How many seeds two (study, arm, measure) have in common, and the Interval of their paired difference.

    None instead of it with fewer than two. Raises UserError where they were judged on different pictures.
    """
    sides = [known.of(study, arm, measure.evaluation) for study, arm, measure in (more, less)]
    if len({line["dataset"]["test_hash"] for lines in sides for line in lines.values()}) > 1:
        (study, arm, _), (other, other_arm, _) = more, less
        raise UserError(f"{study}/{arm}, {other}/{other_arm}: judged on different pictures; measure one of them again")
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
    told = f"of the first seed · {'; '.join(sorted(machines))} · {', '.join(sorted(versions))}"
    return f"<details><summary>commands · {told}</summary>\n\n```\n" + "\n".join(shown) + "\n```\n</details>\n"


def joined(flags):
    """Flags as they are typed, with variables of the shell left as they are."""
    return " ".join(flag if "$" in flag and " " not in flag else shlex.quote(flag) for flag in flags)
