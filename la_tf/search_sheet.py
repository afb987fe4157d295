"""The sheet of la_tf.search: each query, then the pictures nearest to it, with their file names and similarities."""

import contextlib
import functools
import os
import warnings

import matplotlib

matplotlib.use("Agg")  # files, never windows

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from data import decoding, reading
from data.errors import UserError
from data.sources import ArraySource
from data.spec import parse_spec
from la_tf import names_file
from la_tf.embedded_pictures import open_source

INK, FAINT, QUERY = "#222222", "#888888", "#0072b2"
TILE = 200  # px of the longer side of a picture
COLUMNS = 10  # pictures in a line; more go on in the next
LETTERS, LINES = 18, 2  # of a name below a picture


def draw(queries, sources=()):
    """Returns the figure of queries (location, [(location, similarity), ...]); `sources` as `Pictures` takes them."""
    lines = []  # of (location, caption, colour), None where a line begins without the query
    for query, nearest in queries:
        tiles = [(name, f"{similarity:.3f}\n{_short(name)}", INK) for name, similarity in nearest]
        for start in range(0, len(tiles), COLUMNS):
            first = (query, f"query\n{_short(query)}", QUERY) if start == 0 else None
            lines.append([first, *tiles[start : start + COLUMNS]])
    columns = max(len(line) for line in lines)
    figure, axes = plt.subplots(
        len(lines), columns, figsize=(1.35 * columns, 1.85 * len(lines) + 0.1), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.set_axis_off()
        axis.set_anchor("N")  # pictures of a line begin at one height
    pictures = Pictures(sources)
    for row, line in zip(axes, lines, strict=True):
        for axis, tile in zip(row, line, strict=False):
            if tile is not None:
                _tile(axis, pictures.at(tile[0]), *tile[1:])
    return figure


def save(figure, path):
    """Writes the figure to `path`, in the format that its ending names; the file is whole or not there.

    Raises UserError where it cannot be written.
    """
    path = os.fspath(path)
    head, tail = os.path.split(path)
    temporary = os.path.join(head, f".{os.getpid()}.{tail}")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.stat(path)  # tells a name that is too long; makedirs would go to the end of it
        os.makedirs(head or ".", exist_ok=True)
        with warnings.catch_warnings():  # a name in letters that the font lacks is printed beside the sheet
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            figure.savefig(temporary, dpi=150)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"--out={path}: cannot be written ({error.strerror}); choose another") from None
    finally:
        plt.close(figure)


def _tile(axis, picture, caption, color):
    if picture is None:
        axis.add_patch(plt.Rectangle((0, 0), 1, 1, color="#eeeeee"))
        axis.text(0.5, 0.5, "not there\nany more", ha="center", va="center", fontsize=7, color=FAINT)
        axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    else:
        axis.imshow(picture, interpolation="nearest" if max(picture.shape[:2]) < TILE // 2 else "antialiased")
    place = {"transform": axis.transAxes, "ha": "center", "va": "top"}
    axis.text(0.5, -0.04, caption, fontsize=6.5, color=color, parse_math=False, **place)


def _short(location):
    """Returns folder and name of a picture in at most two lines, the middle left out where they are longer."""
    name = names_file.shown("/".join(location.split("/")[-2:]))
    folder, slash, own = name.rpartition("/")
    if len(name) > LETTERS >= max(len(folder + slash), len(own)):
        return f"{folder}{slash}\n{own}"
    most = LETTERS * LINES
    if len(name) > most:
        name = f"{name[: most // 2 - 1]}…{name[-(most - most // 2) :]}"
    return "\n".join(name[start : start + LETTERS] for start in range(0, len(name), LETTERS))


class Pictures:
    """Pictures by location: files, and those of data sets `sources` that lie in no file.

    `sources` are (spec, split, options) as `embedded_pictures.open_source` takes them.
    """

    def __init__(self, sources=()):
        self._sources = [source for source in sources if parse_spec(source[0])[0] not in ("folder", "list")]

    def at(self, location):
        """Returns the picture `[h, w, 3]` in [0, 1], whole, made smaller; None where it is no longer there."""
        try:
            picture = self._pixels(location)
        except (OSError, UserError, tf.errors.OpError):
            return None
        if picture is None:
            return None
        height, width = picture.shape[:2]
        scale = min(1, TILE / max(height, width))
        sides = [max(1, round(side * scale)) for side in (height, width)]
        return np.clip(reading.resize(picture, *sides).numpy() / 255, 0, 1)

    def _pixels(self, location):
        if os.path.exists(location):
            with open(location, "rb") as file:
                return decoding.decode(tf.constant(file.read()))
        for split, rows in self._splits:
            row = rows.get(location)
            if row is not None:
                if isinstance(split.source, ArraySource):
                    return tf.constant(split.source.pictures[row])
                return decoding.decode(tf.constant(split.source.read(row)))
        return None

    @functools.cached_property
    def _splits(self):
        splits = [open_source(*source) for source in self._sources]
        return [(split, _rows_by_location(split)) for split in splits]


def _rows_by_location(split):
    root = names_file.root(split)
    return {names_file.location(root, name): row for row, name in enumerate(split.names)}
