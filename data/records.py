"""`tfrecord:GLOB`: pictures in TFRecord files of tf.train.Example, read in any order.

Fields: `image/encoded` (JPEG, PNG, ...), `image/class/label` (kept as it is; without it -1) and `image/index`.
The test split is made of the files found when the last "train" in GLOB is replaced by "validation", "val" or
"test", the first of these that finds any.  Row i is record i, counted through the files in the order of their names,
unless every record has an `image/index` and these are 0..N-1: then row i is the record with that index.
"""

import glob
import hashlib
import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.errors import UserError
from data.example_proto import bytes_span, features, first_int
from data.sources import HEADS, DataSet, Split, evenly_spaced

HEADER, FOOTER = 12, 4  # bytes of a record before (length, its CRC) and after the data (CRC)


@dataclass(frozen=True)
class Fields:
    """Names of the features that hold picture, label and index."""

    image: str = "image/encoded"
    label: str = "image/class/label"
    index: str = "image/index"


class RecordSource:
    """Pictures inside record files.  Per row, int64 [N]: `shard` and number `record` within it, `position` of the
    record in the file, `offset` of the picture in the file and its `length`, bytes."""

    def __init__(self, shards: list[str], shard, record, position, offset, length):
        self.shards, self.shard, self.record = shards, shard, record
        self.position, self.offset, self.length = position, offset, length
        self.folder = os.path.commonpath([os.path.dirname(path) for path in shards])
        self.names = RecordNames([os.path.relpath(path, self.folder) for path in shards], shard, record)

    def locate(self, row: int) -> str:
        return os.path.join(self.folder, self.names[row])

    def read(self, row: int) -> bytes:
        """The encoded picture; raises OSError."""
        with open(self.shards[self.shard[row]], "rb") as file:
            file.seek(self.offset[row])
            return file.read(self.length[row])

    def places(self) -> np.ndarray:
        """[N, 4] int64: shard, position of the record in it, where in the record's data the picture begins, length."""
        begin = self.offset - self.position - HEADER
        return np.stack([self.shard, self.position, begin, self.length], axis=1)

    def listing(self) -> dict:
        records = np.bincount(self.shard, minlength=len(self.shards))
        sizes = [os.stat(path).st_size for path in self.shards]
        return {"names": self.names.shards, "bytes": sizes, "records": records.tolist()}

    def fingerprint(self) -> str:
        """Hash of the shards' names, sizes and record counts, and of up to 1,024 evenly spaced pictures."""
        digest = hashlib.sha256(repr(self.listing()).encode())
        for row in evenly_spaced(len(self.names), HEADS):
            digest.update(self.read(row))
        return digest.hexdigest()


class RecordNames(Sequence):
    """`"shard#record"` per row, made when asked for: a million strings would only take memory."""

    def __init__(self, shards: list[str], shard, record):
        self.shards, self._shard, self._record = shards, shard, record

    def __len__(self) -> int:
        return len(self._shard)

    def __getitem__(self, row: int) -> str:
        return f"{self.shards[self._shard[row]]}#{self._record[row]}"


def open_tfrecord(spec: str, pattern: str) -> DataSet:
    """Lists the records of the files that `pattern` finds; raises UserError naming file and record."""
    shards = _find(pattern)
    if not shards:
        raise UserError(f"--dataset={spec}: no file matches {pattern}")
    head, word, tail = pattern.rpartition("train")
    candidates = [_find(f"{head}{name}{tail}") for name in ("validation", "val", "test")] if word else []
    test_shards = next((found for found in candidates if found), None)
    train = record_split(spec, "train", shards)
    return DataSet(spec, (), train, test_shards and record_split(spec, "test", test_shards))


def record_split(spec: str, name: str, shards: list[str], fields: Fields = Fields()) -> Split:
    """A split of all records of `shards`, in that order; raises UserError naming file and record."""
    rows = np.concatenate([_list_shard(shard, path, fields) for shard, path in enumerate(shards)])
    if not len(rows):
        raise UserError(f"{shards[0]}: no records in {'it' if len(shards) == 1 else f'{len(shards)} files'}")
    if np.array_equal(np.sort(rows[:, 0]), np.arange(len(rows))):
        rows = rows[np.argsort(rows[:, 0])]
    _, label, *columns = rows.T.copy()
    return Split(spec, name, "photo", label, RecordSource(shards, *columns))


def _find(pattern):
    return sorted(path for path in glob.glob(pattern) if os.path.isfile(path))


def _list_shard(shard, path, fields):
    """[n, 7] int64: index, label (-1 for a field not there), then the columns of RecordSource."""
    rows = []
    for record, (buffer, start, stop) in enumerate(_records(path)):
        try:
            found = features(buffer, start, stop)
            if fields.image not in found:
                raise ValueError(f"has no field {fields.image} (it has {', '.join(sorted(found)) or 'none'})")
            begin, end = _value(bytes_span, buffer, found, fields.image)
            label = _value(first_int, buffer, found, fields.label) if fields.label in found else -1
            index = _value(first_int, buffer, found, fields.index) if fields.index in found else -1
        except (ValueError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: record {record} {error}") from error
        rows.append((index, label, shard, record, start - HEADER, begin, end - begin))
    return np.array(rows, np.int64).reshape(-1, 7)


def _value(read, buffer, found, name):
    try:
        return read(buffer, found[name])
    except ValueError as error:
        raise ValueError(f"field {name} {error}") from error


def _records(path):
    """Yields (buffer, start, stop) of each record's data, hopping from length to length."""
    size = os.path.getsize(path)
    if size == 0:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        position = record = 0
        while position < size:
            length = struct.unpack_from("<Q", buffer, position)[0] if position + HEADER <= size else size
            start = position + HEADER
            if start + length + FOOTER > size:
                raise UserError(
                    f"{path}: record {record} does not end within the file: cut short, or not a TFRecord file"
                )
            yield buffer, start, start + length
            position, record = start + length + FOOTER, record + 1
