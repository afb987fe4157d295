"""`list:FILE`: a text file that names the pictures, one a line, and their labels.

    a/abbey/gsun_0123.jpg 0         path and label, separated by a blank (or tab) or comma, as Places205 comes;
    b/my pictures/1.jpg,7           a path may hold either: the label is what follows the last of them
    c/1.jpg,new york                or the last comma, where the first line has one alone or is quoted
    c/2.jpg                         without labels: unlabelled
    file,width,class                or a CSV with a header, in which path and label are found by name

Labels that are whole numbers are kept as they are (-1 is unknown); others are class names, sorted.  Paths start from
--image_root, else from the list's own folder.  The test split is the list that is found when the last "train" in the
file's name is replaced by "val", "validation" or "test", the first of these that is there.
"""

import array
import csv
import os
import re
from typing import NamedTuple

import numpy as np

from data.errors import UserError
from data.folder import EXTENSIONS
from data.sources import DataSet, FileSource, Split

PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "category", "class_id", "class_name")
TEST_WORDS = ("val", "validation", "test")
_PATH_AND_LABEL = re.compile(r"(.*[^ ,\t])[ ,\t]+([^ ,\t\r]+)\s*$", re.DOTALL)
TRIED = 100  # pictures that are looked for, to tell a wrong root from a few that are missing


class Listing(NamedTuple):
    """What a list says, a row a picture."""

    path: str  # of the list itself
    names: list[str]  # of the pictures
    labels: list[str] | None  # as they are written, "" where a CSV leaves one out; None: the list has none
    lines: array.array  # where each is, for messages

    def first(self, labels: set[str]) -> tuple[int, str]:
        """The first row that has one of these labels, and which."""
        return next((row, label) for row, label in enumerate(self.labels) if label in labels)

    def error(self, row: int, message: str) -> UserError:
        return UserError(f"{self.path}:{self.lines[row]}: {message}")


def open_list(spec: str, path: str, image_root: str | None = None) -> DataSet:
    """Reads the list at `path` and its test list; raises UserError naming file and line, OSError where it is missing.

    A picture that is missing is found out when it is read; only if the first 100 all are, it is an error here.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe, for one, never ends
        raise UserError(f"--dataset={spec}: {path} is no file; give a text file that names a picture a line")
    root = image_root or os.path.dirname(path) or "."
    listing = _read(path)
    class_names, labels = _train_labels(listing)
    train = _split(spec, "train", root, listing, labels)
    test_path = _test_path(path)
    if test_path is None:
        return DataSet(spec, class_names, train, None)
    listing = _read(test_path)
    labels = _test_labels(listing, class_names, int(train.labels.max()))
    return DataSet(spec, class_names, train, _split(spec, "test", root, listing, labels))


def _test_path(path):
    folder, name = os.path.split(path)
    head, word, tail = name.rpartition("train")
    candidates = [os.path.join(folder, head + other + tail) for other in TEST_WORDS] if word else []
    return next(filter(os.path.isfile, candidates), None)


def _split(spec, name, root, listing, labels):
    source = FileSource(root, listing.names)
    if not any(os.path.exists(source.path(row)) for row in range(min(TRIED, len(listing.names)))):
        raise UserError(
            f"{listing.path}: none of its first pictures is there ({source.path(0)}, ...); "
            "say by --image_root from which folder its paths start"
        )
    return Split(spec, name, "photo", labels, source)


def _read(path):
    """The Listing; raises UserError."""
    try:
        listing = _read_rows(path)
    except csv.Error as error:
        raise UserError(f"{path}: is no CSV that can be read ({error})") from error
    zero = next((row for row, name in enumerate(listing.names) if "\0" in name), None)
    if zero is not None:
        raise listing.error(zero, "has a path with a zero byte, which no file has")
    return listing


def _read_rows(path):
    # Bytes that are no UTF-8 are kept as they are: a file name may be any bytes.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        first = next((line for line in file if line.strip()), None)
        if first is None:
            raise UserError(f"{path}: is empty; it should name one picture a line")
        delimiter = next((sign for sign in ",;\t" if sign in first), ",")
        header = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter))]
        file.seek(0)
        if set(PATH_COLUMNS) & set(header):
            return _read_table(path, csv.reader(file, delimiter=delimiter), header)
        if len(header) > 1 and not any(_is_value(name) for name in header):
            raise UserError(
                f"{path}: none of its columns ({', '.join(header)}) is called {', '.join(PATH_COLUMNS[:-1])} or "
                f"{PATH_COLUMNS[-1]}; rename the one that holds the pictures' paths"
            )
        return _read_lines(path, file.read().split("\n"), _comma_parted if _by_comma(first) else _parted)


def _is_value(text):
    """Whether this is a path or a number, and so no column's name."""
    return "." in text or "/" in text or text.lstrip("-").isdecimal()


def _read_table(path, rows, header):
    path_at = next(header.index(name) for name in PATH_COLUMNS if name in header)
    label_at = next((header.index(name) for name in LABEL_COLUMNS if name in header), None)
    columns = {path_at} if label_at is None else {path_at, label_at}
    names, labels, lines, begun = [], [], array.array("q"), False
    try:
        for row in rows:
            if row and begun:
                if len(row) <= max(columns) or not row[path_at].strip():
                    missing = path_at if len(row) <= path_at or not row[path_at].strip() else label_at
                    raise UserError(f"{path}:{rows.line_num}: has no {header[missing]}")
                names.append(row[path_at].strip())
                labels.append(row[label_at].strip() if label_at is not None else "")
                lines.append(rows.line_num)
            begun = begun or bool(row)  # the first row is the header
    except csv.Error as error:
        raise UserError(f"{path}:{rows.line_num}: {error}") from error
    if not names:
        raise UserError(f"{path}: names no pictures below its header")
    return Listing(path, names, None if label_at is None else labels, lines)


def _by_comma(first):
    """Whether a comma alone separates path and label, so that a label may hold blanks: the first line tells."""
    plain = first.count(",") == 1 and first.partition(",")[0].strip().lower().endswith(EXTENSIONS)
    return plain or first.lstrip().startswith('"')


def _read_lines(path, text, parted):
    """The simple form, in seconds for millions of lines; `parted(line)` -> (path, label)."""
    names, labels, lines, labelled = [], [], array.array("q"), None
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        name, label = parted(line)
        if not name:
            raise UserError(f"{path}:{number}: has no path")
        if labelled is None:
            labelled = label is not None
        if (label is not None) != labelled:
            raise UserError(f"{path}:{number}: has {'no' if labelled else 'a'} label, unlike the first line")
        names.append(name)
        labels.append(label)
        lines.append(number)
    return Listing(path, names, labels if labelled else None, lines)


def _parted(line):
    """(path, label) of a line, label None for a path alone."""
    match = _PATH_AND_LABEL.match(line)
    if match is None or (not match[2].isdecimal() and match[2].lower().endswith(EXTENSIONS)):
        return line.strip(), None
    return match[1], match[2]


def _comma_parted(line):
    """The same where the label is what follows the last comma, and either may be quoted."""
    line = line.strip()
    fields = next(csv.reader([line], skipinitialspace=True)) if '"' in line else line.split(",")
    if len(fields) == 1:
        return _parted(fields[0])
    *name, label = fields
    return ",".join(name).strip(), label.strip()


def _unlabelled(listing):
    return np.full(len(listing.names), -1, np.int64)


def _train_labels(listing):
    """(class names, labels [N] int64)."""
    if listing.labels is None:
        return (), _unlabelled(listing)
    given = {*listing.labels} - {""}
    numbers = {label for label in given if _is_number(label)}
    words = given - numbers
    if not words:
        return (), _numbers(listing)
    if numbers:  # one of them is a mistake
        few, others = (numbers, "words") if len(numbers) < len(words) else (words, "numbers")
        row, label = listing.first(few)
        header = "; is this line a header?" if row == 0 else ""
        raise listing.error(row, f"label {label!r}, where others are {others}{header}")
    class_names = tuple(sorted(words))
    return class_names, _positions(listing, class_names)


def _test_labels(listing, class_names, last_label):
    if listing.labels is None or last_label < 0:
        return _unlabelled(listing)  # classes that the train list knows nothing of
    if class_names:
        return _positions(listing, class_names)
    labels = _numbers(listing)
    if labels.max() > last_label:
        raise listing.error(labels.argmax(), f"label {labels.max()}: the train list ends at {last_label}")
    return labels


def _is_number(label):
    return label.removeprefix("-").isdecimal()


def _numbers(listing):
    given = {*listing.labels} - {""}
    wrong = {label for label in given if not label.isdecimal() or len(label) > 9} - {"-1"}
    if wrong:
        row, label = listing.first(wrong)
        raise listing.error(row, f"label {label!r} is not a whole number from 0 to 999999999, nor -1 for unknown")
    return _coded(listing, {label: int(label) for label in given})


def _positions(listing, class_names):
    unknown = {*listing.labels} - {*class_names, ""}
    if unknown:
        row, label = listing.first(unknown)
        raise listing.error(row, f"the train list has no class {label!r}")
    return _coded(listing, {name: label for label, name in enumerate(class_names)})


def _coded(listing, code):
    """Labels [N] int64 as `code` says, -1 where none is given."""
    code = {**code, "": -1}
    return np.array([code[label] for label in listing.labels], np.int64)
