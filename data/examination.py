"""Looks at every picture of a split once: can it be decoded, how large is it, what are its bytes.

Pictures are decoded by the operations that training uses, some at a time on each of N threads, where Python's lock is
not held.  Results come in the order of the rows and nothing is kept of the pictures, so memory does not grow with N.
"""

import collections
import contextlib
import functools
import hashlib
import io
import itertools
import os
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import ExifTags
from tqdm import tqdm

from data.conversion import FORMATS, to_png
from data.errors import UserError
from data.findings import FACTS, Findings
from data.pixel_limit import opened
from data.processors import cores
from data.sources import ArraySource, FileSource, Split
from data.stored_arrays import open_npz

GROUP = 16  # pictures decoded by one call, which costs as much as decoding one of 200 px
BLOCK = 4096  # pictures whose results make a file
WRONG_CHECKSUM = "is damaged: its checksum is wrong"
MAGIC = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG": "png",
    b"GIF8": "gif",
    b"RIFF": "webp",
    b"BM": "bmp",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
}


class Examined(NamedTuple):
    """What one look at a picture tells.  Without `problem` these are the columns of data.findings.FACTS."""

    problem: str | None  # why it cannot be decoded, as in "is cut short or damaged"
    sha256: bytes  # of the encoded picture
    size: int  # of the encoded picture, bytes
    height: int  # px, as stored: before an EXIF orientation is followed; 0 where even that cannot be read
    width: int
    format: str  # "jpeg", "png", "gif", "webp", "bmp", "tiff"; "" for others
    orientation: int  # EXIF's for a JPEG, 1 to 8; 1, upright, for others: they are not turned
    gray: bool  # stored without colour
    convertible: bool  # cannot be decoded, but `data.conversion.to_png` can make a PNG of it


def find(split: Split, workers: int = 0, folder: str | None = None) -> Findings:
    """Examines a whole split, with a progress bar on stderr.

    With a `folder`, results are kept there in blocks, and an examination that was killed goes on from the last.
    """
    findings = Findings(np.zeros(split.size, FACTS), {})
    done = 0 if folder is None else _load(folder, split, findings)
    with progress(f"examining {split.name}", split.size, done) as bar:
        for row, (problem, *facts) in enumerate(examine(split, workers, done), done):
            findings.facts[row] = tuple(facts)
            if problem:
                findings.problems[row] = problem
            if folder is not None and ((row + 1) % BLOCK == 0 or row + 1 == split.size):
                _save(folder, split, findings, done, row + 1)
                done = row + 1
            bar.update()
    return findings


def examine(split: Split, workers: int = 0, first: int = 0) -> Iterator[Examined]:
    """What a look at rows `first`, `first` + 1, ... tells, in that order, on `workers` threads (0: one a core)."""
    warnings.filterwarnings("ignore", module="PIL")  # on metadata that nobody here asks for
    if isinstance(split.source, ArraySource):
        yield from map(_look_at_array, split.source.pictures[first:])
        return
    if first == split.size:
        return
    groups = (range(start, min(start + GROUP, split.size)) for start in range(first, split.size, GROUP))
    for group in in_order(functools.partial(_look, split, _decoder(split)), groups, workers):
        yield from group


def in_order(function: Callable, items: Iterable, workers: int = 0) -> Iterator:
    """`function` of each item, found on `workers` threads (0: one a core) but in the order of the items.

    At most a few items for each thread are under way or waiting to be taken.
    """
    workers = workers or cores()
    with ThreadPoolExecutor(workers) as pool:
        waiting = collections.deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 3 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def progress(title: str, total: int, done: int):
    """A bar with the time left; in a log file a line a minute."""
    interval = 0.5 if sys.stderr.isatty() else 60
    with tqdm(total=total, initial=done, desc=title, unit=" images", mininterval=interval, dynamic_ncols=True) as bar:
        yield bar


def _decoder(split):
    """`decode(rows, data)` -> [n, 2] heights and widths, upright; raises tf.errors.OpError if any picture is broken."""
    import tensorflow as tf

    if isinstance(split.source, FileSource):
        sizes = _sizes_of_files()
        return lambda rows, data: sizes(tf.constant(data)).numpy()
    from data.reading import reader

    sizes = _sizes(tf.int64, *reader(split))  # reads records once more, but looks at their checksums
    return lambda rows, data: sizes(tf.constant(rows, tf.int64)).numpy()


@functools.cache
def _sizes_of_files():
    import tensorflow as tf

    return _sizes(tf.string, lambda data: data, lambda data: data)


def _sizes(dtype, locate, read):
    """A compiled function of pictures given by `dtype` [n], with `locate` and `read` as `data.reading` has them."""
    import tensorflow as tf

    from data import decoding

    @tf.function(input_signature=[tf.TensorSpec([None], dtype)], autograph=False)
    def sizes(pictures):
        with tf.device("/CPU:0"):
            size = lambda handle: tf.shape(decoding.decode(read(handle)))[:2]  # noqa: E731
            specification = tf.TensorSpec([2], tf.int32)
            return tf.map_fn(size, locate(pictures), fn_output_signature=specification, parallel_iterations=1)

    return sizes


def _look(split, decode, rows):
    """What is to be said of `rows`, [Examined]."""
    read = {}
    for row in rows:
        try:
            read[row] = split.source.read(row)
        except OSError as error:
            read[row] = Examined(f"cannot be read: {error.strerror}", b"", 0, 0, 0, "", 1, False, False)
    whole = [row for row in rows if isinstance(read[row], bytes)]
    found = dict(zip(whole, _outcomes(decode, whole, [read[row] for row in whole]), strict=True))
    return [_examined(read[row], *found[row]) if row in found else read[row] for row in rows]


def _outcomes(decode, rows, data):
    """Of each of `rows` with its `data`: (problem, height, width), the last two None if there is a problem."""
    import tensorflow as tf

    from data import decoding

    try:
        return [(None, *size) for size in (decode(rows, data).tolist() if rows else [])]
    except tf.errors.OpError as error:
        if len(rows) > 1:  # which one?
            return [_outcomes(decode, [row], [each])[0] for row, each in zip(rows, data, strict=True)]
        if isinstance(error, tf.errors.DataLossError):
            return [(WRONG_CHECKSUM, None, None)]
        return [(decoding.reason(data[0]), None, None)]


def _examined(data, problem, height, width):
    form = next((form for magic, form in MAGIC.items() if data.startswith(magic)), "")
    orientation, gray = 1, False
    try:
        with opened(io.BytesIO(data), FORMATS) as picture:  # its header alone is read
            width, height = picture.size
            gray = picture.mode.startswith(("1", "L", "I", "F"))
            if form == "jpeg":
                orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever Pillow's plug-ins raise: TensorFlow may read it all the same
        pass
    orientation = orientation if orientation in range(2, 9) else 1
    convertible = problem not in (None, WRONG_CHECKSUM) and to_png(data) is not None
    digest = hashlib.sha256(data).digest()
    return Examined(problem, digest, len(data), height or 0, width or 0, form, orientation, gray, convertible)


def _look_at_array(pixels):
    data, gray = pixels.tobytes(), bool((pixels == pixels[..., :1]).all())
    return Examined(None, hashlib.sha256(data).digest(), len(data), *pixels.shape[:2], "", 1, gray, False)


def _block(folder, split, start):
    return os.path.join(folder, f"{split.name}-{start:09d}.npz")


def _save(folder, split, findings, start, stop):
    rows = list(itertools.takewhile(lambda row: row >= start, reversed(findings.problems)))[::-1]
    path = _block(folder, split, start)
    with open(f"{path}.tmp", "wb") as file:
        reasons = np.array([findings.problems[row].encode(errors="replace") for row in rows], "S")
        np.savez(file, facts=findings.facts[start:stop].view("u1"), rows=np.array(rows, np.int64), reasons=reasons)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.tmp", path)


def _load(folder, split, findings):
    """Puts what was found before into `findings`; returns for how many rows, from the first on."""
    done = 0
    while done < split.size and os.path.exists(path := _block(folder, split, done)):
        try:
            with open_npz(path) as block:
                facts = block["facts"].view(FACTS)
                findings.facts[done : done + len(facts)] = facts
                reasons = [reason.decode() for reason in block["reasons"]]
                findings.problems |= zip(block["rows"].tolist(), reasons, strict=True)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: is damaged ({error}); remove it and run the same command again") from error
        done += len(facts)
    return done
