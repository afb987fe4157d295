"""The sheet that shows a data set before training, by Matplotlib: arrays and words in, figure out.

Every place is worked out in inches and words are shortened to the room they have; none of them is read as TeX.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

# Okabe and Ito: told apart by colour-blind eyes too.
RED, GREEN, BLUE, INK, PALE = "#d55e00", "#009e73", "#0072b2", "#222222", "#767676"
MOST_BARS = 30  # classes with a bar each; more of them are a curve
MARGIN, GAP, GROUP_GAP, CELL = 0.2, 0.05, 0.2, 1.0  # inches, as all lengths here
HEADING, TITLE, AXIS = 0.25, 0.55, 0.75  # above a group of columns, above a panel, below it
LEAST_LABEL, MOST_LABEL = 0.9, 1.8
NARROWEST = 11.5
LEAST_PANEL, BAR = 2.4, 0.15
SMALL, NORMAL, LARGE = 7, 8, 11  # points
LINE = 0.0195  # height of text of one point


@dataclass
class Facts:
    """What the panels below the pictures show."""

    class_names: Sequence[str]
    counts: np.ndarray  # [classes], pictures of each
    sizes: np.ndarray  # [n, 2]: width and height, px
    image_size: int
    mean: np.ndarray  # [3], of [0, 1]
    std: np.ndarray  # [3]
    measured: int  # views behind `mean` and `std`
    remarks: Sequence[str]  # lines on what was wrong; one that starts with a blank belongs to the one before


def sheet(title: str, subtitle: str, groups, rows, facts: Facts) -> Figure:
    """Draws pictures with their views, and what is known of all pictures below.

    groups: (heading, relative size up to 1 of each of its views) per group of columns; rows: (name, details, pictures
    [h, w, 3] in [0, 1], one a column).
    """
    label = _label_width([name for name, _, _ in rows], NORMAL, "bold")
    grid_width = label + sum(GROUP_GAP + sum(CELL * size + GAP for size in sizes) for _, sizes in groups)
    width = max(2 * MARGIN + grid_width, NARROWEST)
    words = _wrapped(subtitle, width - 2 * MARGIN, NORMAL)
    header = MARGIN + 0.3 + len(words) * LINE * NORMAL + 0.15
    bars = len(facts.counts) if len(facts.counts) <= MOST_BARS else 0
    panel = max(LEAST_PANEL, BAR * bars)
    height = header + HEADING + len(rows) * (CELL + GAP) + TITLE + panel + AXIS
    figure = Figure(figsize=(width, height))
    _text(figure, MARGIN, MARGIN, fitting(title, width - 2 * MARGIN, LARGE, "bold"), LARGE, weight="bold")
    for i, line in enumerate(words):
        _text(figure, MARGIN, MARGIN + 0.3 + i * LINE * NORMAL, line, NORMAL, PALE)
    _draw_pictures(figure, groups, rows, MARGIN + label, header)
    top = height - AXIS - panel
    free = (width - NARROWEST) / 4
    left = MARGIN + (0.1 + _label_width(facts.class_names, SMALL) if bars else 0.5)
    for draw, wide, gap in ((_draw_classes, 1.6, 0.85), (_draw_sizes, 1.9, 0.4), (_draw_channels, 2.0, 0.4)):
        draw(_panel(figure, left, top, wide + free, panel), facts)
        left += wide + free + gap
    _write_remarks(figure, left, top, width - left - MARGIN, panel, facts.remarks)
    return figure


def save(figure: Figure, path: str):
    """Writes a figure, 150 dots an inch, in the format of the path's extension; raises OSError."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            figure.savefig(file, format=os.path.splitext(path)[1][1:].lower(), dpi=150)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def _draw_pictures(figure, groups, rows, left, top):
    right_of_words = left + GROUP_GAP - 0.1
    columns = []  # (left, side)
    for heading, sizes in groups:
        left += GROUP_GAP
        _text(figure, left, top, heading, NORMAL)
        for size in sizes:
            columns.append((left, CELL * size))
            left += CELL * size + GAP
    for line, (name, details, pictures) in enumerate(rows):
        upper = top + HEADING + line * (CELL + GAP)
        name = fitting(name, MOST_LABEL, NORMAL, "bold")
        _text(figure, right_of_words, upper + 0.3, name, NORMAL, ha="right", weight="bold")
        _text(figure, right_of_words, upper + 0.5, fitting(details, MOST_LABEL, SMALL), SMALL, PALE, ha="right")
        for (left, side), picture in zip(columns, pictures, strict=True):
            axis = _axes(figure, left, upper + (CELL - side) / 2, side, side)
            axis.imshow(picture, vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set(color=PALE, linewidth=0.4)  # white pictures end somewhere too


def _draw_classes(axis, facts):
    counts, names = facts.counts, facts.class_names
    if not len(counts):
        return _only_words(axis, "classes", "without labels")
    _title(axis, f"pictures of each class ({len(counts):,})")
    if len(counts) <= MOST_BARS:
        axis.barh(range(len(counts)), counts, color=BLUE, height=0.7)
        for i, count in enumerate(counts):
            axis.text(count, i, f" {count:,}", fontsize=SMALL, color=INK, va="center_baseline")
        axis.set_ylim(len(counts) - 0.4, -0.6)
        axis.yaxis.set_major_locator(FixedLocator(range(len(counts))))
        axis.set_yticklabels([fitting(name, MOST_LABEL, SMALL) for name in names], parse_math=False)
        axis.tick_params(axis="y", length=0)
        axis.set_xlim(0, 1.4 * max(counts.max(), 1))
        axis.xaxis.set_major_locator(NullLocator())
        axis.spines["bottom"].set_visible(False)
        return
    order = np.argsort(-counts, kind="stable")
    axis.fill_between(range(len(counts)), counts[order], color=BLUE, step="mid")
    axis.set_xlim(0, len(counts) - 1)
    axis.set_ylim(0, 1.5 * counts.max())  # words above the curve
    axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.set_xlabel("classes, the largest first", fontsize=SMALL, color=INK)
    for line, (word, at) in enumerate((("most", order[0]), ("least", order[-1]))):
        words = fitting(f"{word}: {counts[at]:,} {names[at]}", 1.55, SMALL)
        axis.annotate(
            words, (0.03, 1), (0, -4 - 11 * line), "axes fraction", "offset points", fontsize=SMALL, va="top",
            color=INK, parse_math=False,
        )  # fmt: skip


def _draw_sizes(axis, facts):
    sizes, numbers = np.unique(facts.sizes, axis=0, return_counts=True)
    if len(sizes) == 1:
        words = "all are {} × {} px,\n".format(*sizes[0])
        return _only_words(axis, "stored sizes", f"{words}views are {facts.image_size} × {facts.image_size} px")
    _title(axis, f"stored sizes of {len(facts.sizes):,} pictures")
    axis.axvline(facts.image_size, color=RED, linestyle="--", linewidth=1)
    axis.axhline(facts.image_size, color=RED, linestyle="--", linewidth=1)
    axis.scatter(*sizes.T, s=5 + 150 * numbers / numbers.sum(), color=BLUE, alpha=0.5, linewidth=0)
    everything = [*sizes.flat, facts.image_size]
    low, high = min(everything), max(everything)
    if high > 8 * low:
        ticks = [side for side in (10, 30, 100, 300, 1000, 3000, 10000, 30000) if low / 1.2 <= side <= high * 1.2]
        axis.set(xscale="log", yscale="log", xlim=(low / 1.2, high * 1.2), ylim=(low / 1.2, high * 1.2))
        for each in (axis.xaxis, axis.yaxis):
            each.set_major_locator(FixedLocator(ticks))
            each.set_minor_locator(NullLocator())
    else:
        room = 0.08 * (high - low)
        axis.set(xlim=(low - room, high + room), ylim=(low - room, high + room))
        for each in (axis.xaxis, axis.yaxis):
            each.set_major_locator(MaxNLocator(4, integer=True))
    for each in (axis.xaxis, axis.yaxis):
        each.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    words = f"width, px\ndashed: {facts.image_size}, the side of a view\nlarger dot: more pictures"
    axis.set_xlabel(words, fontsize=SMALL, color=INK)
    axis.set_ylabel("height, px", fontsize=SMALL, color=INK)


def _draw_channels(axis, facts):
    _title(axis, "mean ± deviation of R, G, B")
    for line, (name, color) in enumerate((("R", RED), ("G", GREEN), ("B", BLUE))):
        mean, std = facts.mean[line], facts.std[line]
        axis.errorbar(mean, line, xerr=std, color=color, marker="o", capsize=3)
        axis.text(0.5, line - 0.25, f"{name}  {mean:.3f} ± {std:.3f}", fontsize=SMALL, color=INK, ha="center")
    low, high = min(0, *(facts.mean - facts.std)), max(1, *(facts.mean + facts.std))
    axis.set(xlim=(low - 0.03, high + 0.03), ylim=(2.5, -0.6))
    axis.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    axis.yaxis.set_major_locator(NullLocator())
    flags = [
        f"--pixel_{name}={','.join(f'{x:.3f}' for x in of)}"
        for name, of in zip(("mean", "std"), (facts.mean, facts.std), strict=True)
    ]
    axis.set_xlabel("\n".join([f"{facts.measured:,} evaluation views", *flags]), fontsize=SMALL, color=INK)


def _write_remarks(figure, left, top, width, height, remarks):
    axis = _panel(figure, left, top, width, height)
    axis.set_axis_off()
    _title(axis, "what was found")
    lines = [line for remark in remarks for line in _wrapped(remark, width, NORMAL)]
    most = int(height / (LINE * NORMAL))
    if len(lines) > most:
        lines = [*lines[: most - 1], "..."]
    for i, line in enumerate(lines):
        _text(figure, left, top + i * LINE * NORMAL, line, NORMAL)


def _only_words(axis, title, words):
    _title(axis, title)
    axis.set_axis_off()
    axis.text(0, 1, words, fontsize=NORMAL, color=INK, va="top", transform=axis.transAxes)


def _panel(figure, left, top, width, height):
    axis = _axes(figure, left, top, width, height)
    axis.tick_params(labelsize=SMALL, colors=INK)
    axis.spines[["top", "right"]].set_visible(False)
    return axis


def _axes(figure, left, top, width, height):
    whole_width, whole_height = figure.get_size_inches()
    return figure.add_axes(
        (left / whole_width, 1 - (top + height) / whole_height, width / whole_width, height / whole_height)
    )


def _title(axis, words):
    axis.set_title(words, fontsize=NORMAL, color=INK, loc="left", pad=6, weight="bold")


def _text(figure, left, top, words, size, color=INK, **style):
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - top / height, words, fontsize=size, color=color, va="top", parse_math=False, **style)


def _width(text, size, weight="normal"):
    """Inches, and a little more: lines are longer or shorter with the resolution."""
    points, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size, weight=weight), False)
    return 1.03 * points / 72


def fitting(text, width, size, weight="normal"):
    """Returns `text` as it fits into `width` inches at `size` points, without letters that cannot be printed.

    Where it is too long its middle makes way for an ellipsis.
    """
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    whole, kept = text, min(len(text), int(4 * width * 72 / size))  # no letter is narrower than a quarter of its height
    while kept and _width(text, size, weight) > width:
        kept -= 1
        text = f"{whole[: kept - kept // 2]}…{whole[len(whole) - kept // 2 :]}"
    return text


def _wrapped(text, width, size):
    """The lines that `text` takes, all of them as far in as the first; a word that is too long is shortened."""
    indent = " " * (len(text) - len(text.lstrip()))
    lines = []
    for word in text.split():
        if lines and _width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(fitting(indent + word, width, size))
    return lines


def _label_width(names, size, weight="normal"):
    longest = max((_width(fitting(name, MOST_LABEL, size, weight), size, weight) for name in names), default=0)
    return max(longest, LEAST_LABEL)
