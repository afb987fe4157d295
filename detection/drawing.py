"""Objects and detections drawn into pictures, for people: true boxes are dashed in white, found ones solid in colour.

A colour stands for a class and recurs with every seventh, so each box has a label too: the class, with "difficult" for
an object that is, with the score for a detection. Labels stay inside the picture and off each other; the sure
detections choose their place first, then the objects, and a label for which no room is left near its box is left out.
"""

import itertools

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.textpath import text_to_path
from PIL import Image

from data import figures

# Okabe and Ito: told apart by colour-blind eyes too; each with the ink that is read best on it.
COLORS = (
    ("#e69f00", "black"), ("#56b4e9", "black"), ("#009e73", "black"), ("#f0e442", "black"), ("#0072b2", "white"),
    ("#d55e00", "black"), ("#cc79a7", "black"),
)  # fmt: skip
LONG_SIDE, LEAST_SIDE = 800, 200  # of what is drawn, px as all lengths here
LINE, RIM, DASHES, DOTS = 4.0, 1.0, (3, 2), (1, 2)  # dashes in widths of the line
WORDS, PAD = 13, 3
SHEET_WIDTH, SHEET_DPI, GAP = 2500, 150, 14  # data.figures.save writes so many dots an inch


def drawn(picture: np.ndarray, classes, truth=None, found=None, least_score: float = 0.5) -> np.ndarray:
    """A picture uint8 `[H, W, 3]` with boxes, as uint8 `[h, w, 3]` of 800 px in its long side, more where it is narrow.

    truth: (boxes_xyxy `[G, 4]`, labels `[G]`, difficult `[G]`), as `data.voc.DetectionSet.boxes` gives them;
    found: (boxes_xyxy `[n, 4]`, scores `[n]`, labels `[n]`), of which those below `least_score` are left out. Boxes are
    in px of `picture`, 0-based, corners inclusive; labels are 1..C. What is not finite is left out.
    """
    height, width = picture.shape[:2]
    size = _drawn_size(width, height)
    figure = Figure(figsize=size / 72, dpi=72)
    canvas = FigureCanvasAgg(figure)
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, size[0]), ylim=(size[1], 0))
    axis.set_axis_off()
    resized = Image.fromarray(picture).resize(tuple(size), Image.Resampling.BICUBIC)
    figure.figimage(np.asarray(resized), zorder=-1)
    marks = [*_found_marks(classes, found, least_score), *_true_marks(classes, truth)]
    marks = [(_placed(box, size, (width, height)), *rest) for box, *rest in marks if np.isfinite(box).all()]
    for box, color, kind, _ in marks:
        _draw_box(axis, box, color, kind)
    taken = []
    for box, color, kind, words in _by_importance(marks):
        _draw_label(axis, box, color, kind, words, size, taken)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def save(path: str, pictures, titles, heading: str):
    """Writes drawn pictures in rows under their titles and one heading, pixel for pixel; raises OSError.

    pictures: uint8 `[h, w, 3]` each; the format is that of the path's extension.
    """
    line = 2 * WORDS
    places, top, left, lowest, width = [], GAP + line, GAP, 0, 0
    for picture in pictures:
        if left > GAP and left + picture.shape[1] + GAP > SHEET_WIDTH:
            top, left, lowest = top + lowest, GAP, 0
        places.append((left, top + line))
        left += picture.shape[1] + GAP
        lowest, width = max(lowest, line + picture.shape[0] + GAP), max(width, left)
    height = top + lowest
    figure = Figure(figsize=(width / SHEET_DPI, height / SHEET_DPI), dpi=SHEET_DPI)

    def write(left, bottom, words, room, weight="normal"):
        words = _shortened(words, "", room)
        figure.text(left / width, 1 - bottom / height, words, fontsize=WORDS * 72 / SHEET_DPI, weight=weight,
                    color=figures.INK, parse_math=False)  # fmt: skip

    write(GAP, GAP + WORDS, heading, width - 2 * GAP, "bold")
    for (left, upper), picture, title in zip(places, pictures, titles, strict=True):
        write(left, upper - WORDS / 2, title, picture.shape[1])
        figure.figimage(picture, left, height - upper - picture.shape[0])
    figures.save(figure, path)


def _drawn_size(width, height):
    longer, shorter = max(width, height), min(width, height)
    scale = max(LONG_SIDE / longer, min(LEAST_SIDE / shorter, 2 * LONG_SIDE / longer))
    return np.maximum(np.round([width * scale, height * scale]), 1).astype(int)


def _found_marks(classes, found, least_score):
    """(box, colours, kind, words) of each detection that is drawn, the surest last and so on top."""
    marks = [mark for mark in zip(*(found or ((), (), ())), strict=True) if mark[1] >= least_score]
    for box, score, label in sorted(marks, key=lambda mark: mark[1]):
        yield box, _colors(label), "found", (classes[label - 1], f" {score:.2f}")


def _true_marks(classes, truth):
    """The same of each object."""
    for box, label, difficult in zip(*(truth or ((), (), ())), strict=True):
        kind, addition = ("difficult", " (difficult)") if difficult else ("true", "")
        yield box, _colors(label), kind, (classes[label - 1], addition)


def _colors(label):
    return COLORS[(label - 1) % len(COLORS)]


def _by_importance(marks):
    """The surest detections first, then the objects, the difficult ones last."""
    return sorted(marks[::-1], key=lambda mark: ("found", "true", "difficult").index(mark[2]))


def _placed(box, size, old_size):
    """The box (left, top, right, bottom) in the drawing, so far inside that its line is, too."""
    corners = np.add(np.reshape(box, (2, 2)), [[0], [1]]) * size / old_size  # the far pixel is part of the box
    inset = LINE / 2 + RIM
    return np.clip(corners, inset, np.maximum(size - inset, inset)).ravel()


def _draw_box(axis, box, color, kind):
    """True boxes lie over the found ones, whose colour shows between the dashes."""
    found = kind == "found"
    style = "solid" if found else (0, DASHES if kind == "true" else DOTS)
    width = LINE if found else LINE - 1
    axis.add_patch(
        Rectangle(
            box[:2], *(box[2:] - box[:2]), fill=False, linewidth=width, linestyle=style,
            edgecolor=color[0] if found else "white",
            path_effects=[withStroke(linewidth=width + 2 * RIM, foreground="black")],
        )
    )  # fmt: skip


def _draw_label(axis, box, color, kind, words, size, taken):
    """Writes at the first free place near the box; adds that to `taken`."""
    words = _shortened(*words, size[0] - 2 * PAD)
    label = np.ceil([_width(words) + 2 * PAD, 1.25 * WORDS + 2 * PAD])
    place = _free_place(box, label, size, taken, kind == "found")
    if place is None:
        return
    taken.append((place, place + label))
    found = kind == "found"
    axis.add_patch(
        Rectangle(
            place + 0.5, *(label - 1), facecolor=color[0] if found else "white", edgecolor="black", linewidth=1,
            linestyle="solid" if found else (0, DASHES),
        )
    )  # fmt: skip
    axis.text(
        place[0] + label[0] / 2, place[1] + PAD + WORDS, words, fontsize=WORDS, ha="center",
        color=color[1] if found else figures.INK, parse_math=False,
    )  # fmt: skip


def _free_place(box, label, size, taken, found):
    """Left and top of a label that overlaps no other, or None; found ones try the box's upper side first."""
    left, top, right, bottom = box
    edges = (left, right - label[0])
    outer = [(x, top - label[1]) for x in edges], [(x, bottom) for x in edges]
    inner = [(x, top) for x in edges], [(x, bottom - label[1]) for x in edges]
    sides = (0, 1) if found else (1, 0)
    corners = itertools.chain.from_iterable((outer[side] + inner[side]) for side in sides)
    downwards = ((x, y) for y in np.arange(top, bottom - label[1], label[1]) for x in edges)
    if (label > size).any():
        return None
    for place in itertools.chain(corners, downwards):
        place = np.clip(np.round(place), 0, size - label)
        if not any((place < far).all() and (near < place + label).all() for near, far in taken):
            return place
    return None


def _shortened(words, addition, room):
    """`words + addition`, of which the words' end makes way for an ellipsis where there is too little room."""
    words = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)
    whole, kept = words, min(len(words), int(4 * room / WORDS))  # no letter is narrower than a quarter of its height
    words = words if kept == len(words) else f"{whole[:kept]}…"
    while kept > 1 and _width(words + addition) > room:
        kept -= 1
        words = f"{whole[:kept]}…"
    return words + addition


def _width(words):
    """Px, and a little more: letters are wider or narrower with the resolution."""
    return 1.03 * text_to_path.get_text_width_height_descent(words, FontProperties(size=WORDS), False)[0]
