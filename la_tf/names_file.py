"""Names of pictures in a file, one a line, each a JSON string: any name, and any of a million without reading all.

A name that is not UTF-8 has a surrogate, written `\\udcXX`, for each byte XX that is none (Python's surrogateescape:
`os.fsencode` gives the bytes back).
"""

import json
import os
from collections.abc import Sequence

import numpy as np

from data.errors import UserError

BLOCK = 2**20  # bytes that are read at once to find the lines
LINES = 4096  # names that are read at once on the way through all


def write(path, names):
    """Writes the file, name by name: all of a million would be a hundred MB."""
    with open(path, "w", encoding="ascii") as file:
        file.writelines(json.dumps(name) + "\n" for name in names)
        file.flush()
        os.fsync(file.fileno())


class NamesFile(Sequence):
    """The names of a file, read when they are asked for; 8 bytes of memory each. Raises OSError, ValueError.

    A line that is no name raises UserError when it is asked for.
    """

    def __init__(self, path):
        self._path = path
        self._file = open(path, "rb")  # noqa: SIM115  open as long as this is
        bounds, position = [np.zeros(1, np.int64)], 0
        while block := self._file.read(BLOCK):
            bounds.append(np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + position + 1)
            position += len(block)
        self._bounds = np.concatenate(bounds)
        if self._bounds[-1] != position:
            raise ValueError("its last line is cut short")

    def __len__(self):
        return len(self._bounds) - 1

    def __getitem__(self, place):
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        place = range(len(self))[place]  # negative ones count from the end; raises IndexError
        return self._read(place, place + 1)[0]

    def __iter__(self):
        for start in range(0, len(self), LINES):
            yield from self._read(start, min(start + LINES, len(self)))

    def _read(self, start, stop):
        first, end = (int(bound) for bound in self._bounds[[start, stop]])
        lines = os.pread(self._file.fileno(), end - first, first).split(b"\n")[:-1]
        return [self._parsed(start + place, line) for place, line in enumerate(lines)]

    def _parsed(self, place, line):
        try:
            name = json.loads(line)
            if isinstance(name, str):
                return name
        except (ValueError, RecursionError):
            pass
        raise UserError(f"{self._path}, line {place + 1}: is damaged, it is no name; make the folder anew")


class Locations(Sequence):
    """`location` of each of a sequence of names, when it is asked for: those of a million would be a hundred MB."""

    def __init__(self, root, names):
        self._root, self._names = root, names

    def __len__(self):
        return len(self._names)

    def __getitem__(self, place):
        return location(self._root, self._names[place])

    def __iter__(self):
        return (location(self._root, name) for name in self._names)


def unseen(names, others=()):
    """Returns the places `[n]`, in order, of the `names` that are not among `others`, each name once.

    Names are told apart by 64 bits of hash, 8 bytes of memory a name: where a million meet a million others, one is
    taken for another in less than one of ten million cases.
    """
    hashes, known = (np.fromiter(map(hash, each), np.int64) for each in (names, others))
    places = np.sort(np.unique(hashes, return_index=True)[1])
    return places[~np.isin(hashes[places], known)]


def root(split):
    """Returns the folder that the names of a Split start from, None where its pictures are in no file."""
    source = split.source
    folder = getattr(source, "root", getattr(source, "folder", None))
    return None if folder is None else os.path.abspath(folder)


def location(root, name):
    """Returns where a picture lies: an absolute path ("shard#record" in a record file), or its name without a root."""
    return name if root is None else os.path.abspath(os.path.join(root, name))


def shown(name):
    """Returns a name as it can be printed and drawn: bytes that are no UTF-8, and control characters, as escapes."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in str(name))


def _escaped(letter):
    byte = ord(letter) - 0xDC00  # of one that was no UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else letter.encode("unicode_escape").decode()
