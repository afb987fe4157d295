"""Lists what record files hold, once: the result is kept in a file beside them, `.la_tf-<hash of their names>.npz`.

Opened again, a set of ImageNet's size is read from there in a second.  A file whose size or time of change is not
what it was is listed anew; what the index knew of it then tells where lost records were.
"""

import hashlib
import json
import mmap
import os
import sys
import time
import uuid
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from data import json_shapes
from data.errors import UserError
from data.example_proto import bytes_span, features, first_int
from data.record_frames import FOOTER, HEADER, damage, data_length, frames, record_end
from data.stored_arrays import open_npz

# Position of the record in the file; begin of the picture in the record's data, and its length; bytes.
ROW = np.dtype([("position", "<i8"), ("begin", "<i4"), ("length", "<i4"), ("label", "<i8"), ("index", "<i8")])
PICTURES = {b"image/encoded": (b"image/class/label", b"image/index"), b"image": (b"label", None)}  # label, index
_FORMAT = 2
_STAMP = json_shapes.shaped(json_shapes.count, json_shapes.whole, json_shapes.optional(json_shapes.count))
_ABOUT = json_shapes.record(
    {
        "format": lambda value: "" if value == _FORMAT else "is not of this version",
        "shards": json_shapes.array(
            json_shapes.shaped(
                json_shapes.text,
                _STAMP,
                json_shapes.count,
                json_shapes.table(json_shapes.text),
                json_shapes.array(json_shapes.text),
            )
        ),
    }
)
_HEAD = 2**16  # bytes that are unpacked to tell whether a file is compressed
_NOTABLE = 3  # seconds of listing that are worth a word
_THREADS = 4


@dataclass(eq=False)
class Shard:
    """What one file holds: `rows` ROW [n], label and index -1 where there is none; `problems` {number of a record that
    cannot be read: why, as in "has no field ..."}; `fields`, the names in those that can, in whichever."""

    rows: np.ndarray
    problems: dict[int, str]
    fields: list[str]


def list_shards(paths: list[str], counts: dict[str, int] | None = None) -> list[Shard]:
    """What the files hold, through the index; `counts` says of how many records a file is known to be.

    Raises OSError, and UserError for a compressed file.
    """
    begun = time.monotonic()
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    names = [os.path.relpath(path, folder) for path in paths]
    stamps = [_stamp(path, (counts or {}).get(path)) for path in paths]
    places = _places(folder, names)
    indexed = _load(places)
    stale = [
        (path, name, stamp)
        for path, name, stamp in zip(paths, names, stamps, strict=True)
        if name not in indexed or indexed[name][0] != stamp
    ]
    for (_, name, stamp), shard in zip(stale, _list_all(stale, indexed, folder), strict=True):
        indexed[name] = stamp, shard
    shards = [indexed[name][1] for name in names]
    # Beside files without one record that can be read nothing is written: they are most likely something else.
    if stale and any(len(shard.rows) > len(shard.problems) for shard in shards):
        place = _store(places, names, stamps, shards)
        seconds = time.monotonic() - begun
        if seconds > _NOTABLE:
            records = sum(len(shard.rows) for shard in shards)
            kept = f"kept in {place}" if place else "not kept: neither folder nor cache can be written"
            print(f"{folder}: listed {records:,} records in {seconds:.0f} s; the list is {kept}", file=sys.stderr)
    return shards


def list_shard(path: str, count: int | None = None, old: Shard | None = None) -> Shard:
    """What one file holds: `count` records if this is known; `old` is what it held before it was damaged."""
    known = old.rows["position"].tolist() if old else []
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        if size and record_end(buffer, 0) is None and _is_compressed(buffer[:_HEAD]):
            raise UserError(
                f"{path}: is compressed, and the records of such files cannot be read in any order; "
                "rewrite it uncompressed, or with data.build_tfrecords"
            )
        rows, problems, fields = [], {}, set()
        for record, (position, end) in enumerate(frames(buffer, known, count)):
            try:
                if end is None:
                    raise ValueError(damage(buffer, position))
                found = features(buffer, position + HEADER, end - FOOTER)
                begin, length, label, index = _picture(buffer, found)
                rows.append((position, begin - position - HEADER, length, label, index))
                fields.update(found)
            except ValueError as error:
                problems[record] = str(error)
                rows.append((position, 0, 0, -1, -1))
    return Shard(np.array(rows, ROW), problems, sorted(name.decode(errors="replace") for name in fields))


def _picture(buffer, found):
    """(begin, length, label, index) out of the features of a record; raises ValueError saying what is wrong."""
    name = next((name for name in PICTURES if name in found), None)
    if name is None:
        names = ", ".join(sorted(name.decode(errors="replace") for name in found))
        raise ValueError(f"has no field image/encoded or image (it has {names or 'none'})")
    label, index = PICTURES[name]
    begin, end = _value(bytes_span, buffer, found, name)
    return begin, end - begin, _value(first_int, buffer, found, label), _value(first_int, buffer, found, index)


def _value(read, buffer, found, name):
    if name not in found:
        return -1
    try:
        value = read(buffer, found[name])
    except ValueError as error:
        raise ValueError(f"has a field {name.decode()} that {error}") from error
    return -1 if value is None else value


def _is_compressed(head):
    try:
        unpacked = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(head, _HEAD)  # gzip or zlib
    except zlib.error:
        return False
    return data_length(unpacked, 0) is not None  # a picture may begin with the bytes of a compressed file, too


def _list_all(stale, indexed, folder):
    """Yields the Shard of each (path, name, stamp); progress goes to stderr."""
    from tqdm import tqdm

    def listed(task):
        path, name, stamp = task
        old_stamp, old = indexed.get(name, (None, None))
        # What was listed of these very bytes knows no more about them than a new listing will.
        return list_shard(path, stamp[2], old if old_stamp and old_stamp[:2] != stamp[:2] else None)

    pause = 0.5 if sys.stderr.isatty() else 60  # seconds
    bar = tqdm(total=len(stale), desc=f"listing {folder}", unit="file", delay=_NOTABLE, mininterval=pause)
    pool = ThreadPoolExecutor(_THREADS)
    try:
        for shard in pool.map(listed, stale):
            bar.update()
            yield shard
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()


def _stamp(path, count):
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, count]


def _places(folder, names):
    """Where the index may lie: beside the files, else in the user's cache."""
    key = hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    absolute = hashlib.sha256(f"{folder}\0{key}".encode(errors="surrogateescape")).hexdigest()[:16]
    return os.path.join(folder, f".la_tf-{key}.npz"), os.path.join(cache, "la_tf", f"{absolute}.npz")


def _load(places):
    """{name of a file: (stamp, Shard)} as the newest index has them; empty where there is none that can be read."""
    try:
        newest = max(filter(os.path.exists, places), key=os.path.getmtime)
        with open_npz(newest) as archive:
            about, rows = json_shapes.loads(bytes(archive["about"])), archive["rows"]
        json_shapes.check(about, _ABOUT)
        if rows.dtype != ROW or rows.ndim != 1 or sum(count for _, _, count, _, _ in about["shards"]) != len(rows):
            return {}
        indexed, start = {}, 0
        for name, stamp, count, problems, fields in about["shards"]:
            problems = {int(record): problem for record, problem in problems.items()}
            shard = Shard(rows[start : start + count], problems, fields)
            if not _is_within(shard, stamp[0]):
                return {}
            indexed[name] = stamp, shard
            start += count
        return indexed
    except Exception:  # whatever zipfile and NumPy raise on broken files
        return {}  # there is none, or a broken one: it only saves time


def _is_within(shard, size):
    """Whether all that is said of a file of `size` bytes lies in it, in order; nobody knows who wrote the index."""
    position, begin, length = (shard.rows[column].astype(np.int64) for column in ("position", "begin", "length"))
    if not all(0 <= record < len(position) for record in shard.problems):
        return False
    around = np.full(len(position), HEADER + FOOTER)
    around[list(shard.problems)] = 0
    parts = (position, begin, length, np.diff(position), size - length - begin - around - position)
    # With a size below 2^62 no sum of these overflows.
    return size < 2**62 and bool((position <= size).all()) and all((part >= 0).all() for part in parts)


def _store(places, names, stamps, shards):
    """Writes the index to the first of the places that can be written; returns it, or None."""
    entries = [
        [name, stamp, len(shard.rows), shard.problems, shard.fields]
        for name, stamp, shard in zip(names, stamps, shards, strict=True)
    ]
    about = json.dumps({"format": _FORMAT, "shards": entries}).encode()
    rows = np.concatenate([shard.rows for shard in shards])
    for place in places:
        temporary = f"{place}.{uuid.uuid4().hex}.tmp"
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(temporary, "wb") as file:
                np.savez(file, about=np.frombuffer(about, np.uint8), rows=rows)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, place)
            return place
        except OSError:
            if os.path.exists(temporary):
                os.remove(temporary)
    return None
