"""`tfrecord:GLOB` or `tfrecord:DIR` (its files train-*): pictures in TFRecord files of tf.train.Example, in any order.

Fields: `image/encoded` (JPEG, PNG, ...) with `image/class/label` and `image/index`, else `image` with `label`, as TFDS
writes them.  Labels are kept as they are, -1 where there are none, but for those of TensorFlow's ImageNet script,
which count from 1.  The test split is made of the files found when the last "train" in GLOB is replaced by
"validation", "val" or "test", the first of these that finds any.

Row i is record i, counted through the files in the order of their names, unless every record has an `image/index` and
these are different numbers below N: then row i is the record with that index.  A record that is damaged keeps its row.
"""

import errno
import glob
import hashlib
import json
import os
from collections.abc import Sequence

import numpy as np

from data.errors import UserError
from data.record_frames import HEADER
from data.record_index import Shard, list_shards
from data.sources import HEADS, DataSet, Split, evenly_spaced

DESCRIPTION = "dataset.json"  # beside the shards: class names, and how many records each shard holds
MAX_LABEL = 2**20  # no data set has as many classes: such a label is a damaged one


class RecordSource:
    """Pictures inside record files.  Per row, integers [N]: `shard` and number `record` within it, `position` of the
    record in the file, `begin` of the picture in the record's data and its `length`, bytes.  `problems` {row: why}
    are the records that are known to be damaged; their length is 0."""

    def __init__(self, shards: list[str], shard, record, position, begin, length, problems: dict[int, str]):
        self.shards, self.shard, self.record = shards, shard, record
        self.position, self.begin, self.length, self.problems = position, begin, length, problems
        self.folder = os.path.commonpath([os.path.dirname(path) for path in shards])
        self.names = RecordNames([os.path.relpath(path, self.folder) for path in shards], shard, record)

    def locate(self, row: int) -> str:
        return os.path.join(self.folder, self.names[row])

    def read(self, row: int) -> bytes:
        """The encoded picture; raises OSError."""
        if row in self.problems:
            raise OSError(errno.EIO, f"the record {self.problems[row]}", self.locate(row))
        with open(self.shards[self.shard[row]], "rb") as file:
            file.seek(int(self.position[row]) + HEADER + int(self.begin[row]))
            return file.read(self.length[row])

    def places(self) -> np.ndarray:
        """[N, 4] int64: shard, position of the record in it, where in the record's data the picture begins, length."""
        return np.stack([self.shard, self.position, self.begin, self.length], axis=1, dtype=np.int64)

    def listing(self) -> dict:
        records = np.bincount(self.shard, minlength=len(self.shards))
        sizes = [os.stat(path).st_size for path in self.shards]
        return {"names": self.names.shards, "bytes": sizes, "records": records.tolist()}

    def fingerprint(self) -> str:
        """Hash of the shards' names, sizes and record counts, and of up to 1,024 evenly spaced pictures."""
        digest = hashlib.sha256(repr(self.listing()).encode())
        for row in evenly_spaced(len(self.names), HEADS):
            damaged = row in self.problems
            digest.update(b"%d" % self.position[row] if damaged else self.read(row))
        return digest.hexdigest()


class RecordNames(Sequence):
    """`"shard#record"` per row, made when asked for: a million strings would only take memory."""

    def __init__(self, shards: list[str], shard, record):
        self.shards, self._shard, self._record = shards, shard, record

    def __len__(self) -> int:
        return len(self._shard)

    def __getitem__(self, row: int) -> str:
        return f"{self.shards[self._shard[row]]}#{self._record[row]}"


def open_tfrecord(spec: str, pattern: str, first_label: int | None = None) -> DataSet:
    """Lists the records of the files that `pattern` finds; `first_label` (0, 1) is the first class's, None: told.

    Raises UserError naming a file without one record that can be read, and why.
    """
    if os.path.isdir(pattern):
        pattern = os.path.join(glob.escape(pattern), "train-*")
    paths = _find(pattern)
    if not paths:
        raise UserError(f"--dataset={spec}: no file matches {pattern}")
    head, word, tail = pattern.rpartition("train")
    candidates = [_find(f"{head}{name}{tail}") for name in ("validation", "val", "test")] if word else []
    test_paths = next((found for found in candidates if found), None)
    class_names, counts = _description(os.path.dirname(paths[0]))
    shards = list_shards(paths, counts)
    if first_label is None:
        first_label = told_first_label(shards)
    classes = len(class_names)
    train = _split(spec, "train", paths, shards, first_label, classes)
    test = test_paths and _split(spec, "test", test_paths, list_shards(test_paths, counts), first_label, classes)
    return DataSet(spec, class_names, train, test)


def record_split(
    spec: str, name: str, paths: list[str], counts: dict[str, int] | None = None, classes: int = 0
) -> Split:
    """A split of all records of the files, in that order, with the labels as they are; `counts` says how many records
    a file holds, `classes` how many classes there are, where this is known.  Raises UserError as `open_tfrecord`."""
    return _split(spec, name, paths, list_shards(paths, counts), 0, classes)


def told_first_label(shards: list[Shard]) -> int:
    """1 for records of TensorFlow's classic ImageNet script, which has classes 1..1000 and a synset; else 0."""
    fields = {name for shard in shards for name in shard.fields}
    if "image/class/synset" not in fields or "image/index" in fields:
        return 0
    labels = np.concatenate([shard.rows["label"] for shard in shards])
    labels = labels[labels != -1]
    strays = np.count_nonzero((labels < 1) | (labels > 1000))  # a damaged label must not move all others
    return int(strays <= 1e-4 * len(labels))


def row_order(index: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """[N] int64: which record each row is, by the records' `index`, -1 where there is none.

    Records that are `lost` (bool [N]) take the rows that are left, in their order.  Where the others' indices are not
    different numbers in 0..N-1, row i is record i.
    """
    rows = index[~lost]
    taken = np.bincount(rows, minlength=len(index)) if rows.size and rows.min() >= 0 and rows.max() < len(index) else []
    if not len(taken) or taken.max() > 1:
        return np.arange(len(index))
    order = np.empty(len(index), np.int64)
    order[rows] = np.flatnonzero(~lost)
    order[taken == 0] = np.flatnonzero(lost)
    return order


def _split(spec, name, paths, shards, first_label, classes):
    counts = [len(shard.rows) for shard in shards]
    rows = np.concatenate([shard.rows for shard in shards])
    number = np.repeat(np.arange(len(paths), dtype=np.int32), counts)
    record = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    problems = {}
    for first, shard in zip(np.cumsum([0, *counts]).tolist(), shards, strict=False):
        problems |= {first + record: problem for record, problem in shard.problems.items()}
    lost = np.zeros(len(rows), bool)
    lost[list(problems)] = True
    labels = rows["label"].copy()
    labels[labels != -1] -= first_label
    limit = classes or MAX_LABEL
    unheard_of = np.flatnonzero((labels >= limit) | (labels < -1) | ((labels == -1) & (rows["label"] != -1)))
    for row in unheard_of.tolist():
        last = f" to {first_label + classes - 1}" if classes else ""
        problems[row] = f"has the label {rows['label'][row]}, where they count from {first_label}{last}"
    if not len(rows):
        raise UserError(f"{paths[0]}: no records in {'it' if len(paths) == 1 else f'{len(paths)} files'}")
    if len(problems) == len(rows):
        others = f"; nor can the other {len(rows) - 1} records be used" if len(rows) > 1 else ""
        raise UserError(f"{paths[number[0]]}: record 0 {problems[0]}{others}")
    rows["length"][unheard_of] = 0
    labels[unheard_of] = -1
    order = row_order(rows["index"], lost)
    place = np.argsort(order)
    source = RecordSource(
        paths,
        number[order],
        record[order],
        *(rows[column][order] for column in ("position", "begin", "length")),
        {int(place[record]): problem for record, problem in sorted(problems.items())},
    )
    return Split(spec, name, "photo", labels[order], source)


def _find(pattern):
    files = (path for path in glob.glob(pattern) if os.path.isfile(path))
    return sorted(path for path in files if not path.endswith((".json", ".txt")))  # descriptions of the data set


def _description(folder):
    """(class names, {path of a shard: number of its records}) as DESCRIPTION tells, none where it does not."""
    try:
        with open(os.path.join(folder, DESCRIPTION)) as file:
            described = json.load(file)
        splits = [split.get("shards", []) for split in described.get("splits", {}).values()]
        counts = {os.path.join(folder, shard["name"]): int(shard["count"]) for shards in splits for shard in shards}
        return tuple(str(name) for name in described.get("class_names", ())), counts
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return (), {}
