"""Our results beside the paper's: which of them share a line, and their means over seeds. No TensorFlow."""

import itertools
import json
import statistics
from dataclasses import dataclass

from la_tf.paper_tables import TABLES, Row
from la_tf.placement import OTHER_NETWORKS, entries
from la_tf.wording import Wording, marks


@dataclass(frozen=True)
class Cell:
    """One number of ours: the values of all seeds, per cent, and what has to be known about them."""

    values: tuple[float, ...]
    marks: str
    split: str
    selected_on: str

    @property
    def mean(self):
        """The mean over seeds."""
        return statistics.mean(self.values)

    @property
    def sd(self):
        """The sample deviation (n - 1); None of a single run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self):
        spread = "" if self.sd is None else f" ± {self.sd:.1f}"
        return f"{self.mean:.1f}{spread}{self.marks}"


@dataclass(frozen=True)
class Line:
    """A line of ours below a row of the paper: cells by column, and what sets it apart."""

    setting: str
    data_set: str
    cells: dict[str, Cell]

    @property
    def runs(self):
        """The number of seeds, and of which columns it is another: "n = 3, KNN: 1"."""
        counts = {column: len(cell.values) for column, cell in self.cells.items()}
        usual = statistics.mode(counts.values())
        return ", ".join([f"n = {usual}", *(f"{column}: {n}" for column, n in counts.items() if n != usual)])


@dataclass(frozen=True)
class Block:
    """A row of the paper, or None, with our lines below it."""

    name: str
    paper: Row | None
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Comparison:
    """A table of the paper with our numbers in it; `columns` begins with the paper's."""

    name: str
    caption: str
    head: str
    columns: tuple[str, ...]
    sections: dict[str, tuple[Block, ...]]
    notes: tuple[str, ...]
    superseded: int  # numbers left out, for a newer one has the same settings and seed

    @property
    def lines(self):
        """All lines of ours."""
        return [line for blocks in self.sections.values() for block in blocks for line in block.lines]


def compare(name, records):
    """Returns the Comparison of the table `name` with `records`, dicts as `results.read` gives them.

    Behind the paper's columns, rows and sections come those that are ours alone.
    """
    table, placed = TABLES[name], entries(name, records)
    wording = Wording(table, placed)
    of_paper = {(section, row.name): row for section, rows in table.sections.items() for row in rows}
    places = {place: [] for place in of_paper}
    for entry in placed:
        places.setdefault((entry.section, entry.row), []).append(entry)
    sections = {section: () for section, _ in sorted(places, key=lambda place: place[0] == OTHER_NETWORKS)}
    for place, found in places.items():
        sections[place[0]] += (Block(place[1], of_paper.get(place), (*_lines(found, wording),)),)
    return Comparison(
        name=name,
        caption=wording.caption(),
        head=table.head,
        columns=(*dict.fromkeys([*table.columns, *(column for entry in placed for column in entry.cells)]),),
        sections=sections,
        notes=(*table.notes, *wording.notes()),
        superseded=sum(_superseded(group) for found in places.values() for group in _groups(found)),
    )


def _groups(found):
    """Entries of one place that agree in everything but the seed, by groups."""
    groups = {}
    for entry in found:
        groups.setdefault(json.dumps([entry.part, entry.shared, entry.own], sort_keys=True), []).append(entry)
    return [*groups.values()]


def _lines(found, wording):
    """Lines of one place: groups of different parts share one where they agree in `shared`."""
    by_shared = {}
    for group in _groups(found):
        parts = by_shared.setdefault(json.dumps(group[0].shared, sort_keys=True), {})
        parts.setdefault(group[0].part, []).append(group)
    lines = [[*filter(None, line)] for parts in by_shared.values() for line in itertools.zip_longest(*parts.values())]
    lines.sort(key=lambda line: sum(name in line[0][0].shared for name in line[0][0].departures))  # the paper's first
    described = [[group[0] for group in line] for line in lines]
    for line, one in zip(lines, described, strict=True):
        cells = {column: cell for group in line for column, cell in _cells(group).items()}
        yield Line(wording.label(one, described), wording.data_set(one[0]), cells)


def _cells(group):
    """The Cells of a group by column; of several results of one seed the newest counts."""
    values = {}
    for entry in sorted(group, key=lambda entry: entry.time):
        for column, value in entry.cells.items():
            values.setdefault(column, {})[entry.unit] = value
    one = group[0]
    return {
        column: Cell((*by_seed.values(),), marks(one), one.record["split"], one.record["selected_on"])
        for column, by_seed in values.items()
    }


def _superseded(group):
    return sum(len(entry.cells) for entry in group) - sum(len(cell.values) for cell in _cells(group).values())
