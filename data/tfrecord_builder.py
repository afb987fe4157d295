"""Makes sharded TFRecord files of any data set of picture files, shuffled once for all.

A build looks at every picture (phase 1), then writes the shards (phase 2).  What it writes is a function of the
pictures, the seed and the number of shards, whatever the number of workers.  OUT/.build remembers what was asked and
what was found: a build that was killed, in either phase, goes on by the same command.  Each file appears whole, by a
rename; OUT/dataset.json is the last, and says that the build is finished.
"""

import contextlib
import csv
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from data import draws, json_shapes, record_writer
from data.config import MOST_WORKERS
from data.errors import FlagError, UserError
from data.findings import Findings
from data.sources import ArraySource, DataSet, Split, open_dataset

SHARD_SIZE = 128_000_000  # bytes, where the number of shards is not given
SHARD_FLAGS = {"train": "shards", "test": "test_shards"}
ON_BAD = ("skip", "stop")
DATASET_FILE, REQUEST_FILE, BAD_FILE = "dataset.json", "build.json", "bad_images.csv"
RESULT = ("bad", "converted", "hash")  # of DATASET_FILE, beside its splits


@dataclass(frozen=True)
class Request:
    """The flags of a build; raises FlagError naming the one that is wrong."""

    source: str | None  # the spec of a data set
    out: str | None  # a folder
    shards: int = 0  # of the train split; 0: by size
    test_shards: int = 0
    workers: int = 0  # threads; 0: one a core
    seed: int = 0
    on_bad: str = "skip"  # what is done about pictures that nobody can decode
    image_root: str | None = None

    def __post_init__(self):
        if not self.source:
            raise FlagError("--source is not set: give folder:PATH or list:FILE")
        if not self.out:
            raise FlagError("--out is not set: give the folder that the TFRecord files are to be in")
        object.__setattr__(self, "out", os.path.expanduser(self.out))
        for name in ("shards", "test_shards", "workers"):
            if getattr(self, name) < 0:
                raise FlagError(f"--{name}={getattr(self, name)}: must be 0 (automatic) or more")
        if self.workers > MOST_WORKERS:
            raise FlagError(f"--workers={self.workers}: must be 0 (automatic) to {MOST_WORKERS}")
        if not 0 <= self.seed < 2**31:
            raise FlagError(f"--seed={self.seed}: must be at least 0 and below 2^31")
        if self.on_bad not in ON_BAD:
            raise FlagError(f"--on_bad={self.on_bad}: must be {' or '.join(ON_BAD)}")


def open_source(request: Request) -> DataSet:
    """Opens what is to be built from; raises UserError naming what is wrong."""
    try:
        dataset = open_dataset(request.source, image_root=request.image_root)
    except UserError as error:  # which speaks of the flag of all other mains
        raise type(error)(str(error).replace("--dataset=", "--source=", 1)) from error
    if isinstance(dataset.train.source, ArraySource):
        raise FlagError(f"--source={request.source}: is no picture files; train on it as it is")
    if request.test_shards and dataset.test is None:
        raise FlagError(f"--test_shards={request.test_shards}: {request.source} has no test split")
    return dataset


@contextlib.contextmanager
def locked(out: str) -> Iterator[None]:
    """Makes OUT and keeps a second build out of it; raises UserError for a folder that is something else's."""
    with _writing(out):
        with contextlib.suppress(FileNotFoundError):
            os.stat(out)  # tells a name that is too long; makedirs would go to the end of it
        os.makedirs(out, exist_ok=True)
        if not os.path.isdir(_inside(out)) and any(name[0] != "." for name in os.listdir(out)):
            raise UserError(f"--out={out}: holds files that no build made; choose an empty folder")
        os.makedirs(_inside(out), exist_ok=True)
        lock = open(_inside(out, "lock"), "w")  # noqa: SIM115  closed below
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it, however the process ends
        except BlockingIOError:
            raise UserError(f"--out={out}: another build is at work there; wait for it or choose another") from None
        yield


class Build:
    """One build in the folder `request.out`, which is locked."""

    def __init__(self, request: Request, dataset: DataSet):
        """Raises UserError where the folder belongs to another build, naming what differs."""
        self.request, self.out = request, request.out
        self.class_names = dataset.class_names
        self.splits = [split for split in (dataset.train, dataset.test) if split is not None]
        for split in self.splits:
            self._asked_shards(split, split.size)
        self._claim()

    def finished(self) -> bool:
        """Whether all is there; a shard that was lost since, or is of another size, is to be made again."""
        path = os.path.join(self.out, DATASET_FILE)
        if not os.path.exists(path):
            return False
        lost = []
        for name, size in _shards_of(path, _read_json(path)):
            place = os.path.join(self.out, name)
            if not os.path.exists(place) or os.path.getsize(place) != size:
                lost.append(place)
        with _writing(self.out):
            for place in [path, *filter(os.path.exists, lost)] if lost else []:
                os.remove(place)
        return not lost

    def run(self) -> None:
        """Examines what has not been examined, writes what has not been written."""
        from data import examination

        with _writing(self.out):
            found = [examination.find(split, self.request.workers, _inside(self.out)) for split in self.splits]
            bad = self._report_bad(found)
            orders = [self._order(split, findings) for split, findings in zip(self.splits, found, strict=True)]
            with examination.progress("writing", sum(map(len, orders)), 0) as bar:
                entries = list(map(partial(self._write_split, bar), self.splits, found, orders))
            content = {
                "format": 1,
                "hash": content_hash(self.splits, found, orders),
                "class_names": self.class_names,
                "seed": self.request.seed,
                "splits": {split.name: entry for split, entry in zip(self.splits, entries, strict=True)},
                "bad": bad,
                "converted": sum(int(findings.facts["convertible"].sum()) for findings in found),
            }
            _write(os.path.join(self.out, DATASET_FILE), partial(json.dump, content, indent=1))

    def result(self) -> dict:
        """What a finished build comes to, JSON-able."""
        content = _read_json(os.path.join(self.out, DATASET_FILE))
        splits = content["splits"].items()
        return {
            "out": self.out,
            "dataset": f"tfrecord:{self.out}",
            "images": {name: split["count"] for name, split in splits},
            "shards": {name: len(split["shards"]) for name, split in splits},
            **{name: content[name] for name in RESULT},
        }

    def _claim(self):
        path = _inside(self.out, REQUEST_FILE)
        asked = {name: getattr(self.request, name) for name in ("seed", "shards", "test_shards", "on_bad")}
        content = [self.class_names, *(split.fingerprint for split in self.splits)]
        asked["source"] = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        if os.path.exists(path):
            stored = _read_json(path)
            begun = any(name.startswith(("train-", "test-")) for name in os.listdir(self.out))
            # Until a shard is written, all that is kept is what the pictures are like, which only the source settles;
            # and after --on_bad=stop that is expected to be mended.
            settled = asked if begun else [] if stored.get("on_bad") == "stop" else ["source"]
            differing = [key for key in settled if asked[key] != stored.get(key)]
            if differing:
                listed = ", ".join(
                    "source has changed" if key == "source" else f"{key} was {stored.get(key)}, is {asked[key]}"
                    for key in differing
                )
                raise UserError(f"--out={self.out}: holds another build ({listed}); choose another folder or remove it")
            if asked["source"] != stored.get("source"):
                self._remove(_inside(self.out), ("train-", "test-"), ".npz")
        self._remove(self.out, (".train-", ".test-"), ".tmp")  # a killed build was at them
        with _writing(self.out):
            _write(path, partial(json.dump, asked))

    def _remove(self, folder, beginnings, ending):
        with _writing(self.out):
            for name in os.listdir(folder):
                if name.startswith(beginnings) and name.endswith(ending):
                    os.remove(os.path.join(folder, name))

    def _asked_shards(self, split, count):
        """How many shards the flags ask for, for `count` pictures; 0: no matter."""
        name = SHARD_FLAGS[split.name]
        shards = getattr(self.request, name)
        if shards > count:
            raise FlagError(f"--{name}={shards}: more than the {count} pictures of the {split.name} split")
        return shards

    def _report_bad(self, found):
        """Writes OUT/bad_images.csv; returns how many there are, or raises UserError for --on_bad=stop."""
        bad = [
            (split.name, split.names[row], reason)
            for split, findings in zip(self.splits, found, strict=True)
            for row, reason in findings.problems.items()
            if not findings.facts["convertible"][row]
        ]
        path = os.path.join(self.out, BAD_FILE)
        if bad:
            _write(path, lambda file: csv.writer(file).writerows([("split", "filename", "reason"), *bad]))
            if self.request.on_bad == "stop":
                raise UserError(
                    f"{bad[0][1]}: {bad[0][2]}; it is the first of {len(bad)} bad pictures, all in {path}: "
                    "mend or remove them, or leave them out by --on_bad=skip"
                )
        elif os.path.exists(path):
            os.remove(path)
        return len(bad)

    def _order(self, split, findings):
        """Rows of the pictures that are written, in that order: [n]."""
        kept = findings.facts["convertible"].copy()
        kept[findings.good] = True
        if not kept.any():
            raise UserError(
                f"--source={self.request.source}: no picture of the {split.name} split can be decoded; "
                f"{os.path.join(self.out, BAD_FILE)} says why"
            )
        order = draws.build_order(self.request.seed, split.size)
        return order[kept[order]]

    def _write_split(self, bar, split, findings, order):
        """Writes the shards that are not there; returns the split's entry in OUT/dataset.json."""
        size = int(findings.facts["size"][order].sum())
        shards = self._asked_shards(split, len(order)) or min(len(order), -(-size // SHARD_SIZE))
        entries = []
        for shard in range(shards):
            start, stop = len(order) * shard // shards, len(order) * (shard + 1) // shards
            name = f"{split.name}-{shard:05d}-of-{shards:05d}"
            path = os.path.join(self.out, name)
            if os.path.exists(path):
                bar.update(stop - start)
            else:
                self._write_shard(path, bar, split, findings, order, range(start, stop))
            entries.append({"name": name, "count": stop - start, "bytes": os.path.getsize(path)})
        return {"count": len(order), "shards": entries}

    def _write_shard(self, path, bar, split, findings, order, indices):
        from data.examination import in_order

        def example(index):
            return record_writer.serialized(split, int(order[index]), index, findings)

        with record_writer.opened(path) as write:
            for record in in_order(example, indices, self.request.workers):
                write(record)
                bar.update()


def content_hash(splits: list[Split], found: list[Findings], orders: list[np.ndarray]) -> str:
    """sha256 over the sha256 of each picture's file and its label (little-endian int64), in the order of the index,
    each split headed by its name and count."""
    digest = hashlib.sha256()
    for split, findings, order in zip(splits, found, orders, strict=True):
        pairs = np.zeros(len(order), [("sha256", "V32"), ("label", "<i8")])
        pairs["sha256"], pairs["label"] = findings.facts["sha256"][order], split.labels[order]
        digest.update(f"{split.name} {len(order)}\n".encode() + pairs.tobytes())
    return digest.hexdigest()


def _write(path, fill):
    """A text file that `fill(file)` writes, which appears whole."""
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.tmp")
    with open(temporary, "w", newline="", errors="surrogateescape") as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _read_json(path):
    return json_shapes.read(path, json_shapes.record(), "choose another --out")


def _shards_of(path, content):
    """(name, bytes) of each shard that the DATASET_FILE at `path` names; raises UserError where it is damaged."""
    try:
        shards = [(shard["name"], shard["bytes"]) for split in content["splits"].values() for shard in split["shards"]]
        whole = all("count" in split for split in content["splits"].values()) and all(key in content for key in RESULT)
        if not whole or not all(isinstance(name, str) and os.path.basename(name) == name for name, _ in shards):
            raise ValueError("something is missing")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: is damaged ({error!r}); remove it, and the build makes it again") from None
    return shards


def _inside(out, name=""):
    """Where a build keeps what it needs to go on."""
    return os.path.join(out, ".build", name)


@contextlib.contextmanager
def _writing(out):
    try:
        yield
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written ({error.strerror}); mend that and run it again") from error
