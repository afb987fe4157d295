"""The pictures a run can draw of itself, by Matplotlib; numbers in, figure out: sheets of pictures, and curves.

Words are never read as TeX, and equal numbers give equal files.
"""

import os
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data.figures import fitting

RIGHT, WRONG, INK, PALE = "#0072b2", "#d55e00", "#222222", "#767676"  # Okabe and Ito: told apart by all eyes
FRAMES = {True: RIGHT, False: WRONG, None: None}  # of a picture, by whether it is of the class in question
PANELS = (
    ("loss", "loss (nats)"),
    ("knn_top1", "kNN top-1, test"),
    ("close_mean", "|C ∩ B|, mean"),
    ("purity", "cluster purity"),
)
STYLE = {"svg.hashsalt": "la_tf", "text.parse_math": False, "font.size": 10, "axes.titlesize": 11}
PNG_DOTS, SVG_DOTS = 150, 110  # an inch; of an SVG: of the pictures within
# Of a sheet of pictures, inches:
MARGIN, WORDS, CELL, GAP, GROUP, TITLE, LINE = 0.2, 1.75, 1.0, 0.1, 0.5, 0.4, 0.16
SMALL, NORMAL, LARGE = 8, 9, 12  # points


@dataclass
class Row:
    """A line of a sheet: `words` at its left, `pictures` `[h, w, 3]` in [0, 1], a caption and a colour for each.

    After the `lead` first pictures comes a gap. A colour (None: no frame) is that of the caption, too.
    """

    words: str
    pictures: list
    captions: list
    colors: list
    lead: int = 0


def sheet(title, groups):
    """Draws lines of pictures; groups: (heading, Rows). A caption has as many lines as the highest of its group."""
    rows = [row for _, group in groups for row in group]
    columns = max(len(row.pictures) for row in rows)
    lead = GAP if any(row.lead for row in rows) else 0
    width = MARGIN + WORDS + columns * (CELL + GAP) + lead + MARGIN
    heights = [_caption_height(group) for _, group in groups]
    lines = sum(len(group) * (CELL + GAP + high) for (_, group), high in zip(groups, heights, strict=True))
    height = MARGIN + TITLE + len(groups) * GROUP + lines + MARGIN / 2
    figure = blank(width, height)
    _words(figure, MARGIN, MARGIN, fitting(title, width - 2 * MARGIN, LARGE, "bold"), LARGE, weight="bold")
    top = MARGIN + TITLE
    for (heading, group), captions in zip(groups, heights, strict=True):
        _words(figure, MARGIN, top + 0.2, heading, NORMAL + 1, weight="bold")
        top += GROUP
        for row in group:
            _draw_row(figure, row, top + captions, lead)
            top += captions + CELL + GAP
    return figure


def _caption_height(rows):
    lines = max((caption.count("\n") + 1 for row in rows for caption in row.captions if caption), default=0)
    return lines * LINE + (0.04 if lines else 0)


def _draw_row(figure, row, top, lead):
    first, *others = row.words.split("\n")
    _words(figure, MARGIN, top, fitting(first, WORDS - GAP, NORMAL, "bold"), NORMAL, weight="bold")
    for place, line in enumerate(others):
        _words(figure, MARGIN, top + (place + 1.1) * LINE * 1.1, fitting(line, WORDS - GAP, NORMAL), NORMAL)
    left = MARGIN + WORDS
    for place, (picture, caption, color) in enumerate(zip(row.pictures, row.captions, row.colors, strict=True)):
        if lead and place == row.lead:
            left += lead
        axis = add_axes(figure, left, top, CELL, CELL)
        axis.imshow(np.clip(picture, 0, 1), interpolation="auto", aspect="auto")
        axis.set(xticks=[], yticks=[])
        for spine in axis.spines.values():
            spine.set(edgecolor=color or PALE, linewidth=3 if color else 0.5)
        if caption:
            words = "\n".join(fitting(line, CELL, SMALL) for line in caption.split("\n"))
            axis.set_title(words, fontsize=SMALL, color=color or INK, pad=4)
        left += CELL + GAP


def neighbor_sheet(rows, neighbors_title):
    """Draws query pictures with their nearest training pictures (the paper's Figure 3).

    rows: dicts with `query` and `nearest` (pictures `[h, w, 3]` in [0, 1]), `caption`, `captions`, `right`
    (`retrieval.same_class` of query and nearest), and where they are to be grouped `group`, a heading.
    """
    groups = {}
    for row in rows:
        pictures, captions = [row["query"], *row["nearest"]], ["query", *row["captions"]]
        shown = Row(row["caption"], pictures, captions, [None, *(FRAMES[right] for right in row["right"])], lead=1)
        groups.setdefault(row.get("group", ""), []).append(shown)
    return sheet(f"query, then its {neighbors_title}", list(groups.items()))


def curves(epochs):
    """Draws loss, kNN and LA's health over the epochs of `metrics.jsonl`; shaded: a warm start that has ended."""
    shown = [(name, title) for name, title in PANELS if any(name in epoch for epoch in epochs)]
    figure = blank(3.1 * len(shown), 2.7, layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False)
    ended = epochs[-1].get("phase") != "ir"  # else all of it may be Instance Recognition
    warm = [epoch["epoch"] + 1 for epoch in epochs if ended and epoch.get("phase") == "ir"]
    for axis, (name, title) in zip(axes.flat, shown, strict=True):
        points = [(epoch["epoch"] + 1, epoch[name]) for epoch in epochs if name in epoch]
        if warm:
            axis.axvspan(0.5, max(warm) + 0.5, color="#e8e8e8", label="warm start (IR)")
        axis.plot(*np.transpose(points), color=RIGHT, marker="." if len(points) < 30 else None)
        axis.set_xlim(0.5, epochs[-1]["epoch"] + 1.5)
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.set_title(title)
        axis.grid(alpha=0.3)
    if warm:
        axes[0, 0].legend(fontsize=8, loc="best")
    return figure


def save(figure, path):
    """Writes a figure as PNG and as SVG, each whole or not at all; returns both paths."""
    written = []
    for suffix, dots, facts in ((".png", PNG_DOTS, {"Software": None}), (".svg", SVG_DOTS, {"Date": None})):
        target = path.with_suffix(suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{os.getpid()}.{target.name}")
        with matplotlib.rc_context(STYLE):
            figure.savefig(temporary, dpi=dots, metadata=facts)
        os.replace(temporary, target)
        written.append(target)
    return written


def blank(width, height, **options):
    """Returns an empty figure of so many inches, on white, in the style of all."""
    matplotlib.rcParams.update(STYLE)  # texts take theirs when they are made
    return Figure(figsize=(width, height), facecolor="white", **options)


def add_axes(figure, left, top, width, height):
    """Returns new axes at a place counted in inches from the upper left corner."""
    whole = figure.get_size_inches()
    return figure.add_axes((left / whole[0], 1 - (top + height) / whole[1], width / whole[0], height / whole[1]))


def _words(figure, left, top, words, size, color=INK, **style):
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - top / height, words, fontsize=size, color=color, va="top", **style)
