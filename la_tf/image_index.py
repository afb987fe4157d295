"""A Faiss index of pictures on disk: opened, searched, and pictures added to it without training anew.

index.json     which files count, kind, effort, export; replaced last, so the index is either the old or the new one
rows-N.faiss   the Faiss index, which is mapped: its memory is shared by all processes that search it, and given back
names-N.jsonl  the pictures' locations (names_file.py): absolute paths, so the same file is not added twice
"""

import itertools
import os
import re
from pathlib import Path

import faiss
import numpy as np

from data.errors import UserError
from la_tf import model_dir, names_file, vector_index

FORMAT = 1
FILE = "index.json"
NUMBERED = re.compile(r"(rows-(\d+)\.faiss|names-(\d+)\.jsonl)")  # what it names
REBUILD = "build it anew by --source and --rebuild"
CONTENTS = {  # of index.json
    "kind": str, "quantised": bool, "export_weights": str, "effort": int | None, "recall_at_10": float | int | None,
    "lists": int | None, "links": int | None, "built_of": int, "sources": list, "size": int, "rows": str, "names": str,
}  # fmt: skip
RECALL = 0.97  # that the tuning wants of its own queries, for 0.95 of others


class ImageIndex:
    """Unit rows of pictures by location: `build` or `open` one, `search` it, `add` to it.

    `description` is index.json; `names[i]` is the location of row i. One process at a time may change it.
    """

    def __init__(self, folder, description):
        self.folder = Path(folder)
        self.description = description
        path = self.folder / Path(description["rows"]).name
        try:
            self.index = vector_index.mapped(path)
            self.names = names_file.NamesFile(self.folder / Path(description["names"]).name)
        except (OSError, RuntimeError, ValueError) as error:
            # RuntimeError is Faiss's.
            reason = model_dir.reason(error)
            raise UserError(f"--index={folder}: a file is missing or damaged ({reason}); {REBUILD}") from None
        if not self.index.ntotal == len(self.names) == description["size"]:
            raise UserError(
                f"--index={folder}: {self.index.ntotal} rows and {len(self.names)} names, but {description['size']} "
                f"pictures are described; {REBUILD}"
            )
        if description.get("effort") and vector_index.effort_of(self.index):  # none of a flat one
            vector_index.set_effort(self.index, description["effort"])

    @classmethod
    def build(
        cls, folder, rows, names, weights, kind=None, quantised=False, lists=None, links=None, effort=None, sources=()
    ):
        """Makes an index of unit `rows` `[N, D]`, array or mapped file, in `folder`, in place of one that is there.

        `names` are a sequence of N locations, of which one that comes again is passed over; `weights` the hash of the
        export's (`embedded_pictures.weights_of`), `sources` the (spec, split, options) they come from. kind: flat | ivf
        | hnsw, None: by N. `lists`, `links` and `effort` (nprobe of ivf, ef_search of hnsw) override what follows from
        N and from `tune`.
        """
        rows, names = _picked(rows, names, names_file.unseen(names))
        kind = kind or vector_index.automatic_kind(len(rows))
        index = vector_index.build(rows, kind, quantised, lists, links)
        recall = None
        if effort and kind != "flat":
            vector_index.set_effort(index, effort)
        else:
            recall = vector_index.tune(index, rows, RECALL)
        description = {
            "format": FORMAT,
            "kind": kind,
            "quantised": quantised,
            "dimension": rows.shape[1],
            "export_weights": weights,
            "effort": vector_index.effort_of(index),
            "recall_at_10": recall,  # on rows of its own; None: the effort was given
            "lists": index.nlist if kind == "ivf" else None,
            "links": (links or vector_index.LINKS) if kind == "hnsw" else None,
            "built_of": len(rows),
            "sources": [list(source) for source in sources],
        }
        return cls._commit(folder, description, index, names)

    @classmethod
    def open(cls, folder, weights=None):
        """Returns the index in `folder`; raises UserError where there is none, or it is of another export."""
        description = describe(folder)
        if description is None:
            raise UserError(f"--index={folder}: there is no index yet; build one by --source=folder:PATH")
        found = description["export_weights"]
        if weights is not None and found != weights:
            raise UserError(
                f"--index={folder}: was built with another export (weights {found} there, {weights} here); give that "
                "one, or another --index"
            )
        try:
            return cls(folder, description)
        except UserError:
            if describe(folder) == description:
                raise
        return cls.open(folder, weights)  # another process has changed it in between, and removed its old files

    @classmethod
    def _commit(cls, folder, description, index, names):
        """Writes the files under new names, then index.json, which names them; then removes all that it does not."""
        folder = Path(folder)
        number = 1 + max(_numbered(folder).values(), default=-1)
        description = description | {"size": index.ntotal, "number": number}
        description |= {"rows": f"rows-{number}.faiss", "names": f"names-{number}.jsonl"}
        description |= {"versions": model_dir.versions()}
        folder.mkdir(parents=True, exist_ok=True)
        names_file.write(folder / description["names"], names)
        faiss.write_index(index, str(folder / description["rows"]))
        with open(folder / description["rows"], "rb") as file:
            os.fsync(file.fileno())
        model_dir.write_json(folder / FILE, description)
        for name in _numbered(folder).keys() - {description["rows"], description["names"]}:
            (folder / name).unlink()  # who has it open keeps it
        return cls(folder, description)

    def __len__(self):
        return self.index.ntotal

    def add(self, rows, names, sources=()):
        """Returns the index with unit `rows` `[n, D]` named `names` added, on disk; names that it has are passed over.

        Nothing is trained: lists, ranges of bytes and effort stay what they were.
        """
        rows, names = _picked(rows, names, names_file.unseen(names, self.names))
        if not len(rows):
            return self
        if rows.shape[1] != self.index.d:
            raise UserError(f"--index={self.folder}: holds rows of {self.index.d} dimensions, not {rows.shape[1]}")
        index = vector_index.extended(self.folder / self.description["rows"], rows)
        old = self.description["sources"]
        sources = [*old, *(list(source) for source in sources if list(source) not in old)]
        names = itertools.chain(self.names, names)
        return self._commit(self.folder, self.description | {"sources": sources}, index, names)

    def check(self, nearest):
        """Raises UserError where so many pictures are not there to be found."""
        if nearest > len(self):
            raise UserError(f"--nearest={nearest}: the index holds {len(self)} pictures; ask for at most as many")

    def search(self, queries, nearest=10, effort=None):
        """Returns similarities `[Q, k]`, descending, and rows `[Q, k]` nearest to unit `queries` `[Q, D]`.

        `names` has their names; -1 stands where a graph led to fewer. `effort`: nprobe or ef_search of this search.
        Raises UserError for more pictures than there are.
        """
        self.check(nearest)
        usual = vector_index.effort_of(self.index)
        if effort and usual:
            vector_index.set_effort(self.index, effort)
        similarities, found = vector_index.search(self.index, queries, nearest)
        if effort and usual:
            vector_index.set_effort(self.index, usual)
        return np.clip(similarities, -1, 1), found  # bytes, and rounding, may make a little more of it


def describe(folder):
    """Returns index.json of a folder, None where there is none."""
    path = Path(folder) / FILE
    if not path.exists():
        return None
    try:
        description = model_dir.read_json(path)
    except UserError as error:
        raise UserError(f"{error}; {REBUILD}") from None
    if description.get("format") != FORMAT:
        found = description.get("format")
        raise UserError(f"{path}: is format {found!r:.40}, this version reads {FORMAT}; {REBUILD}")
    try:
        model_dir.checked(path, description, **CONTENTS)
    except UserError as error:
        raise UserError(f"{error}; {REBUILD}") from None
    for name in ("rows", "names"):
        if not NUMBERED.fullmatch(description[name]):
            raise UserError(f"{path}: is damaged ({name} is {description[name]!r:.40}); {REBUILD}")
    return description


def _numbered(folder):
    """Returns the numbers of the files in a folder that an index.json names, or did, by their names."""
    found = map(NUMBERED.fullmatch, os.listdir(folder) if folder.is_dir() else ())
    return {match[0]: int(match[2] or match[3]) for match in found if match}


def _picked(rows, names, places):
    """Returns the rows `[n, D]` and names at `places` `[n]` of a sequence; they are not copied where those are all."""
    if len(places) == len(rows):
        return rows, names
    return np.asarray(rows)[places], [names[place] for place in places]
