"""Embeddings of pictures as a folder: what is in it, how it fills batch by batch and resumes. No TensorFlow.

embeddings.npy   float32 [n, D]: a unit row for each picture that could be read, in the order of the source
names.jsonl      their names, a JSON string a line (names_file.py), relative to the source's folder
bad_images.csv   the pictures that could not be read, where there are any: split, index in the source, name, reason
embed.json       which export, which source, how many of what
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np

from data.errors import FlagError, UserError
from data.folder import open_pile
from data.sources import open_dataset
from data.spec import parse_spec
from la_tf import digests, model_dir, names_file

FORMAT = 2
ROWS, NAMES, DESCRIPTION = "embeddings.npy", "names.jsonl", "embed.json"
BEGUN, JOURNAL = "begun.json", "journal.jsonl"  # of a folder that is not finished
SPLITS = ("train", "test", "all")


def open_source(spec, split=None, options=None, flag="source"):
    """Returns the Split that `spec` and `--split` name; `options` are those of `open_dataset`, errors name `--{flag}`.

    Of folder:PATH that is every picture below PATH, whatever the folders are called, unless `split` says otherwise; of
    another form with a test split one has to be chosen. Raises FlagError, UserError.
    """
    if split is not None and split not in SPLITS:
        raise FlagError(f"--split={split}: choose one of {', '.join(SPLITS)}")
    try:
        form, rest = parse_spec(spec)
        if form == "folder" and split in (None, "all"):
            return open_pile(spec, os.path.expanduser(rest))
        dataset = open_dataset(spec, **(options or {}))
    except OSError as error:
        raise UserError(f"--{flag}={spec}: {error.filename}: {error.strerror}") from error
    except UserError as error:
        raise type(error)(str(error).replace("--dataset", f"--{flag}", 1)) from error
    if dataset.test is None and split in (None, "all", "train"):
        return dataset.train
    if split not in ("train", "test"):
        raise UserError(f"--split: {spec} has a train and a test split; choose one of them")
    found = getattr(dataset, split)
    if found is None:
        raise UserError(f"--split={split}: {spec} has no test split")
    return found


def weights_of(export):
    """Returns the hash of an export's weights, the one in results.jsonl; raises UserError where there are none."""
    path = Path(export) / "backbone.weights.h5"
    try:
        return digests.digest_of_files([path])
    except OSError as error:
        raise UserError(
            f"--export={export}: no export ({path.name}: {error.strerror}); make one by la_tf.export"
        ) from None


def identity(weights, view, split, rows):
    """Returns what embeddings depend on: the export, the pictures and their order.

    `view` is what its backbone.json says of how pictures are seen, `rows` `[n]` are those wanted.
    """
    pictures = hashlib.sha256(split.fingerprint.encode() + np.asarray(rows, "<i8").tobytes())
    return {
        "export_weights": weights,
        "view": view,
        "split": split.name,
        "pictures": len(rows),
        "source_content": pictures.hexdigest()[:12],
    }


class EmbeddedPictures:
    """What is in a finished folder; raises UserError where there is none, or a damaged one."""

    def __init__(self, folder):
        self.folder = Path(folder)
        path = self.folder / DESCRIPTION
        if not path.exists():
            raise UserError(f"--embeddings={folder}: has no {DESCRIPTION}; make it by la_tf.embed")
        self.description = model_dir.read_json(path)
        if self.description.get("format") != FORMAT:
            found = self.description.get("format")
            raise UserError(f"{path}: is format {found!r:.40}, this version reads {FORMAT}; embed again")
        kinds = {"rows": int, "dimension": int, "bad": int, "identity": dict, "root": str | None}
        model_dir.checked(path, self.description, **kinds, source=str, split=str, options=dict)
        model_dir.checked(path, self.description["identity"], export_weights=str)
        try:
            mapped = "r" if self.description["rows"] else None  # an empty file cannot be
            self.rows = np.load(self.folder / ROWS, mmap_mode=mapped, allow_pickle=False)
            self.names = names_file.NamesFile(self.folder / NAMES)
        except (OSError, EOFError, ValueError) as error:
            raise UserError(
                f"--embeddings={folder}: a file is missing or damaged ({model_dir.reason(error)}); embed again"
            ) from None
        wanted = (self.description["rows"], self.description["dimension"])
        if self.rows.shape != wanted or self.rows.dtype != np.float32:
            found = f"{self.rows.dtype} {list(self.rows.shape)}"
            raise UserError(f"--embeddings={folder}: {ROWS} is {found}, not float32 {list(wanted)}; embed again")
        if len(self.rows) != len(self.names):
            raise UserError(f"--embeddings={folder}: {len(self.rows)} rows, but {len(self.names)} names; embed again")

    @property
    def weights(self):
        """The hash of the weights of the export that made them."""
        return self.description["identity"]["export_weights"]

    @property
    def locations(self):
        """Where the pictures lie: absolute paths, or names of pictures in no file."""
        root = self.description["root"]
        return names_file.Locations(root, self.names)


class EmbeddingFolder:
    """A folder of embeddings in the making: what is added is on disk, and the next process goes on from there.

    It grows in a hidden folder beside `out` and gets its name when it is whole. `identity` is that of `identity()`;
    where `out` was begun, or finished, with another one, a UserError names what differs; with `scratch` it is begun
    anew instead.
    """

    def __init__(self, out, identity, dimension, scratch=False):
        self.out = Path(out)
        self.part = part_of(out)
        self.identity, self.dimension = json.loads(json.dumps(identity)), dimension  # as a file gives it back
        self.done, self.rows, self.bad = 0, 0, []
        if scratch:
            self._discard_others()
        self._look()

    def _look(self):
        """Finds out whether it is finished; raises UserError where it was made, or begun, of something else."""
        self.finished = (self.out / DESCRIPTION).exists()
        if self.finished:
            self._compare(self.out / DESCRIPTION)
        elif self.out.exists() and (not self.out.is_dir() or model_dir.folder_entries(self.out)):
            raise UserError(f"--out={self.out}: exists already and holds no embeddings; choose a new folder")
        elif (self.part / BEGUN).exists():
            self._compare(self.part / BEGUN)

    def _compare(self, path):
        stored = model_dir.checked(path, model_dir.read_json(path), identity=dict)["identity"]
        differing = [key for key in self.identity if stored.get(key) != self.identity[key]]
        if differing:
            listed = ", ".join(f"{key} {stored.get(key)!r} there, {self.identity[key]!r} here" for key in differing)
            raise UserError(
                f"--out={self.out}: holds embeddings of another export or source ({listed}); choose another folder, or "
                f"remove {path.parent}"
            )

    def _discard_others(self):
        for path in (self.out / DESCRIPTION, self.part / BEGUN):
            if not path.exists() or model_dir.read_json(path).get("identity") != self.identity:
                shutil.rmtree(path.parent, ignore_errors=True)

    def __enter__(self):
        """Opens the files, behind a lock, unless another process has finished it just now."""
        with contextlib.ExitStack() as opened:
            opened.enter_context(model_dir.locked(self.part, "out", "wait for it", doing="embedding"))
            self._look()
            if self.finished:
                shutil.rmtree(self.part, ignore_errors=True)  # what the lock has made
            else:
                self._open(opened)
            self._opened = opened.pop_all()
        return self

    def _open(self, opened):
        """Opens the files and goes back to the last batch of which all is on disk."""
        model_dir.write_json(self.part / BEGUN, {"identity": self.identity})
        self._array = opened.enter_context(open(self.part / ROWS, "a+b"))  # noqa: SIM115  closed with the block
        if self._array.seek(0, os.SEEK_END) < len(self._header(0)):
            self._array.truncate(0)
            self._array.write(self._header(0))
        there = self._array.seek(0, os.SEEK_END) - len(self._header(0))
        journal = self.part / JOURNAL
        kept = []
        for line in journal.read_text(errors="replace").splitlines(keepends=True) if journal.exists() else ():
            entry = self._entry(line)
            if entry is None or entry["rows"] * 4 * self.dimension > there:
                break  # torn, damaged, or ahead of the rows, which a failing machine has lost
            kept.append(line)
            self.done, self.rows = entry["done"], entry["rows"]
            self.bad += entry["bad"]
        model_dir.write_text(journal, "".join(kept))
        self._array.truncate(len(self._header(0)) + self.rows * 4 * self.dimension)
        self._journal = opened.enter_context(open(journal, "a"))  # noqa: SIM115

    @staticmethod
    def _entry(line):
        """What a line of the journal says, None where it is not whole."""
        try:
            entry = json.loads(line) if line.endswith("\n") else None
            good = entry and all(isinstance(entry[name], int) for name in ("done", "rows"))
            return entry if good and all(isinstance(row, int) for row in entry["bad"]) else None
        except (ValueError, KeyError, TypeError):
            return None

    def __exit__(self, *error):
        self._opened.close()

    def add(self, embeddings, bad):
        """Adds a batch: the rows `[n, D]` of its readable pictures, and the numbers of the others in the source."""
        self._array.write(np.ascontiguousarray(embeddings, "<f4").tobytes())
        self._array.flush()
        os.fsync(self._array.fileno())
        self.done += len(embeddings) + len(bad)
        self.rows += len(embeddings)
        self.bad += bad
        self._journal.write(json.dumps({"done": self.done, "rows": self.rows, "bad": bad}) + "\n")
        self._journal.flush()

    def finish(self, names, description):
        """Gives the folder its name, and the rows theirs, `names` of the readable pictures; called inside the block."""
        with open(self.part / ROWS, "r+b") as array:
            array.write(self._header(self.rows))
            os.fsync(array.fileno())
        names_file.write(self.part / NAMES, names)
        whole = {"format": FORMAT, **description, "rows": self.rows, "dimension": self.dimension}
        whole |= {"bad": len(self.bad), "identity": self.identity, "versions": model_dir.versions()}
        model_dir.write_json(self.part / DESCRIPTION, whole)
        try:
            os.rename(self.part, self.out)  # onto an empty folder, if there is one
        except OSError as error:
            raise UserError(
                f"--out={self.out}: cannot be made of {self.part} ({error.strerror}); make room for it and run again"
            ) from None
        for name in (BEGUN, JOURNAL, ".lock"):  # after it has its name: a process killed before needs them to go on
            (self.out / name).unlink()

    def _header(self, rows):
        """The first bytes of the .npy; NumPy leaves room for the number of rows, so all are equally long."""
        header = io.BytesIO()
        facts = {"descr": "<f4", "fortran_order": False, "shape": (rows, self.dimension)}
        np.lib.format.write_array_header_1_0(header, facts)
        return header.getvalue()


def part_of(out):
    """Returns the hidden folder in which `out` grows."""
    out = Path(out)
    return out.with_name(f".{out.name.lstrip('.')}.part")
