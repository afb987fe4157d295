"""`tfrecord:GLOB` or `tfrecord:DIR`: pictures in TFRecord files of tf.train.Example, in any order.

DIR stands for its files train-*, else *-train.tfrecord-*, as TFDS names them.

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
import os
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from data import json_shapes
from data.errors import UserError
from data.record_frames import HEADER
from data.record_index import Shard, list_shards
from data.sources import HEADS, DataSet, Split, evenly_spaced

DESCRIPTION = "dataset.json"  # beside the shards: class names, and how many records each shard holds
IN_FOLDER = ("train-*", "*-train.tfrecord-*")  # train files of a folder: ours and TensorFlow's script's, TFDS'
MAX_LABEL = 2**20  # no data set has as many classes: such a label is a damaged one
# Of a shard, as a description may have it: each that is missing is listed as lost, and who knows who wrote that.
MOST_RECORDS = 2**19
_SHARDS = json_shapes.array(json_shapes.record({"name": json_shapes.text, "count": json_shapes.count}))
_DESCRIPTION = json_shapes.record(
    allowed={
        "class_names": json_shapes.array(json_shapes.text),
        "splits": json_shapes.table(json_shapes.record(allowed={"shards": _SHARDS})),
    }
)
_NUMBERED = re.compile(r"(.*)-\d+-of-(\d+)(.*)", re.DOTALL)


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

    Raises UserError naming a file without one record that can be read, and why, or a file that is missing.
    """
    is_folder = os.path.isdir(pattern)
    folder = pattern if is_folder else os.path.dirname(pattern)
    patterns = [os.path.join(glob.escape(pattern), name) for name in IN_FOLDER] if is_folder else [pattern]
    pattern = next(filter(_find, patterns), patterns[0])
    paths = _find(pattern)
    folder = os.path.dirname(paths[0]) if paths else folder
    if os.path.isdir(os.path.join(folder, ".build")) and not os.path.exists(os.path.join(folder, DESCRIPTION)):
        raise UserError(f"{folder or '.'}: the build is not finished; run data.build_tfrecords again")
    if not paths:
        raise UserError(f"--dataset={spec}: no file matches {' or '.join(patterns)}")
    head, word, tail = pattern.rpartition("train")
    candidates = [_find(f"{head}{name}{tail}") for name in ("validation", "val", "test")] if word else []
    test_paths = next((found for found in candidates if found), None)
    class_names, described = _description(folder)
    counts = {path: count for shards in described.values() for path, count in shards.items()}
    for found in filter(None, (paths, test_paths)):
        _refuse_incomplete(spec, found, described)
    shards = _listed(paths, counts)
    if first_label is None:
        first_label = told_first_label(shards)
    classes = len(class_names)
    train = _split(spec, "train", paths, shards, first_label, classes)
    test = test_paths and _split(spec, "test", test_paths, _listed(test_paths, counts), first_label, classes)
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
        raise _unreadable(paths[number[0]], problems[0], len(rows))
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
    names = ((path, os.path.basename(path)) for path in files)
    # Descriptions of the data set are no record files.
    return sorted(path for path, name in names if not name.endswith((".csv", ".json", ".txt")) and name[0] != ".")


def _refuse_incomplete(spec, paths, described):
    """Raises UserError where the files are not those of one whole split."""
    splits = {name: shards for name, shards in described.items() if not shards.keys().isdisjoint(paths)}
    folder = os.path.dirname(paths[0])
    if len(splits) > 1:
        raise UserError(
            f"--dataset={spec}: finds files of the splits {' and '.join(sorted(splits))}; say tfrecord:{folder or '.'}"
        )
    for path in (path for shards in splits.values() for path in shards):
        if not os.path.exists(path):
            raise UserError(f"{path}: is missing, and {DESCRIPTION} beside it names it; restore it or build it again")
    numbered = filter(None, (_NUMBERED.fullmatch(path) for path in paths))
    sets = {(match[1], match[2], match[3]) for match in numbered}
    for begin, count, end in sorted(sets):
        # Some files of a whole set may be asked for, so those that lie there are counted.
        there = len(_find(f"{glob.escape(begin)}-*-of-{count}{glob.escape(end)}"))
        if there != int(count):
            raise UserError(f"{begin}-*-of-{count}{end}: {there} files are there, which should be {int(count)}")
    several = next((begin for begin, copies in Counter(begin for begin, _, _ in sets).items() if copies > 1), None)
    if several is not None:
        numbers = " and ".join(str(int(count)) for begin, count, _ in sorted(sets) if begin == several)
        raise UserError(f"{several}-*: these are files of several sets, of {numbers} files; remove the old ones")


def _listed(paths, counts):
    """`list_shards`; raises UserError for a file of unknown content without one record that can be read."""
    shards = list_shards(paths, counts)
    for path, shard in zip(paths, shards, strict=True):
        if path not in counts and len(shard.rows) and len(shard.problems) == len(shard.rows):
            raise _unreadable(path, shard.problems[0], len(shard.rows))
    return shards


def _unreadable(path, problem, records):
    others = f"; nor can the other {records - 1} records be used" if records > 1 else ""
    return UserError(f"{path}: record 0 {problem}{others}")


def _description(folder):
    """(class names, {split: {path of a shard: number of its records}}) as DESCRIPTION tells, none where it does not."""
    try:
        described = json_shapes.read(os.path.join(folder, DESCRIPTION), _DESCRIPTION)
    except (OSError, UserError):  # TFDS has files of that name, which say other things
        return (), {}
    splits = {
        name: {
            os.path.join(folder, shard["name"]): min(shard["count"], MOST_RECORDS) for shard in split.get("shards", [])
        }
        for name, split in described.get("splits", {}).items()
    }
    return tuple(described.get("class_names", ())), splits
