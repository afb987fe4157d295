"""What a data set is: a train and a test split, each a list of pictures that can be read in any order."""

import errno
import functools
import hashlib
import io
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.errors import UserError
from data.spec import parse_spec

HEADS = 1024  # pictures whose bytes go into a fingerprint
PROBES = 1000  # pictures whose headers are read to tell whether all have the same size
SMALL = 64  # px: pictures up to here are kept in memory and cropped a batch at a time


class ArraySource:
    """Pictures in memory: uint8 [N, H, W, 3]."""

    def __init__(self, pictures: np.ndarray, name: str):
        self.pictures = pictures
        self.names = [f"{name}#{i}" for i in range(len(pictures))]

    def listing(self) -> dict:
        return {}

    def fingerprint(self) -> str:
        return hashlib.sha256(self.pictures.tobytes()).hexdigest()


class FileSource:
    """One picture a file; `names` are relative to `root`, so that a data set can be moved."""

    def __init__(self, root: str, names: list[str]):
        self.root, self.names = root, names

    def path(self, row: int) -> str:
        return os.path.join(self.root, self.names[row])

    def paths(self) -> list[str]:
        return [os.path.join(self.root, name) for name in self.names]

    locate = path

    def read(self, row: int) -> bytes:
        """The encoded picture; raises OSError, for a device or pipe too, which a list may name."""
        path = self.path(row)
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a pipe would be waited for, a device never ends
            raise OSError(errno.EINVAL, "is no file", path)
        with open(path, "rb") as file:
            return file.read()

    @functools.cached_property
    def sizes(self) -> list[int]:
        """Bytes; -1 for what is not there (a list may name such), or is no file."""
        return [_size(path) for path in self.paths()]

    def listing(self) -> dict:
        return {"names": self.names, "bytes": self.sizes}

    def fingerprint(self) -> str:
        """Hash of every name and size, and of the bytes of up to 1,024 evenly spaced pictures.

        Reading all of ImageNet (150 GB) at every start is out of the question; names and sizes catch what is added,
        removed, renamed or edited, the bytes a set that was encoded anew.
        """
        digest = hashlib.sha256()
        for name, size in zip(self.names, self.sizes, strict=True):
            digest.update(f"{name}\0{size}\n".encode(errors="surrogateescape"))
        for row in evenly_spaced(len(self.names), HEADS):
            digest.update(self._readable(row))
        return digest.hexdigest()

    def _readable(self, row):
        """The bytes of a picture; none where it cannot be read: it is a bad picture, and no reason to stop."""
        try:
            return self.read(row)
        except OSError:
            return b""


@dataclass(eq=False)
class Split:
    """N pictures; row i of everything here, of a batch's `index` and of a memory bank is the same picture."""

    spec: str
    name: str  # "train" or "test"
    kind: str  # "digits" (on a black ground, no colour, not to be mirrored) or "photo"
    labels: np.ndarray  # [N] int64, -1 where unknown
    source: object  # ArraySource, FileSource or data.records.RecordSource

    @property
    def size(self) -> int:
        return len(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> Sequence[str]:
        """Per row: the path relative to the data set's folder, or "shard#record"."""
        return self.source.names

    def __str__(self) -> str:
        return f"the {self.name} split of {self.spec}"

    @functools.cached_property
    def common_size(self) -> tuple[int, int] | None:
        """(height, width) if up to 1,000 evenly spaced pictures all have it and no side is over 64 px, else None.

        Only headers are decoded.  A picture that cannot be read is passed over: it is named when it is decoded.
        """
        if isinstance(self.source, ArraySource):
            return self.source.pictures.shape[1:3]
        from data.picture_size import FORMATS
        from data.pixel_limit import opened

        size = None
        for row in evenly_spaced(self.size, PROBES):
            try:
                with opened(io.BytesIO(self.source.read(row)), FORMATS) as picture:
                    width, height = picture.size
            except Exception:  # whatever Pillow's format plug-ins raise
                continue
            if max(height, width) > SMALL or size not in (None, (height, width)):
                return None  # the usual case for photographs: after one or two reads
            size = height, width
        return size

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of contents and labels, the same wherever the data set lies; see the sources for what is read.

        Raises UserError naming a file that cannot be read.
        """
        try:
            digest = hashlib.sha256(self.source.fingerprint().encode())
        except OSError as error:
            raise UserError(f"{error.filename}: {error.strerror}") from error
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()


@dataclass(eq=False)
class DataSet:
    """A train split, and a test split that nothing selects on (None: there is none)."""

    spec: str
    class_names: tuple[str, ...]  # empty where the source has no names for its labels
    train: Split
    test: Split | None

    @property
    def kind(self) -> str:
        return self.train.kind

    @property
    def class_count(self) -> int:
        """Number of classes, 0 for an unlabelled data set."""
        return max(len(self.class_names), int(self.train.labels.max(initial=-1)) + 1)


def _size(path):
    try:
        status = os.stat(path)
    except OSError:
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def evenly_spaced(n: int, count: int) -> list[int]:
    """At most `count` rows of 0..n-1, evenly spaced, first and last among them."""
    return sorted({int(row) for row in np.linspace(0, n - 1, min(n, count)).round()})


def open_dataset(
    spec: str,
    *,
    tfds_data_dir: str | None = None,
    tfds_split: str = "train",
    image_root: str | None = None,
    first_label: int | None = None,
) -> DataSet:
    """Lists the data set that `spec` names, without decoding a picture (only tfds: imports TensorFlow).

    The options are those flags of the same name that concern the form of the spec; the others are passed over.
    Raises FlagError for a spec of no known form, UserError naming the folder, file or record that is wrong.
    """
    form, rest = parse_spec(spec)
    try:
        if form == "digits":
            from data.digits import open_digits

            return open_digits()
        if form == "folder":
            from data.folder import open_folder

            return open_folder(spec, os.path.expanduser(rest))
        if form == "list":
            from data.list_file import open_list

            return open_list(spec, os.path.expanduser(rest), image_root and os.path.expanduser(image_root))
        if form == "tfrecord":
            from data.records import open_tfrecord

            return open_tfrecord(spec, os.path.expanduser(rest), first_label)
        from data.tfds_sets import open_tfds

        return open_tfds(spec, rest, tfds_data_dir, tfds_split)
    except OSError as error:
        raise UserError(f"--dataset={spec}: {error.filename}: {error.strerror}") from error
