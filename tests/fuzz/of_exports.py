"""Embeddings on disk, exports, indices."""

import json

import numpy as np

from la_tf import image_index
from la_tf.embedded_pictures import EmbeddedPictures, EmbeddingFolder
from la_tf.names_file import Locations, NamesFile
from tests.fuzz import json_trees, npz_files
from tests.fuzz.subjects import Subject

NAMES = ["ant/0.jpg", "bee/é 1.jpg", "\udcff.jpg"]
IDENTITY = {
    "export_weights": "a" * 12,
    "view": {"image_size": 16},
    "split": "all",
    "pictures": 3,
    "source_content": "b" * 12,
}
DESCRIPTION = {
    "format": 2, "rows": 3, "dimension": 4, "root": "/pictures", "identity": IDENTITY, "export": "a/1",
}  # fmt: skip
JOURNAL = [{"done": 2, "rows": 2, "bad": []}, {"done": 4, "rows": 3, "bad": [2]}]


def _lines(trees):
    return "".join(json.dumps(tree) + "\n" for tree in trees).encode()


def embeddings(folder) -> Subject:
    """A folder of embeddings of which one file is changed, the one that the first byte names; `j`: one that goes on."""
    out = folder / "out"
    part = EmbeddingFolder(out, IDENTITY, 4).part
    rows = npz_files.array_file(np.eye(4, dtype=np.float32)[:3])
    for place in (out, part):
        place.mkdir()
    files = {
        b"d": (out / "embed.json", json.dumps(DESCRIPTION).encode()),
        b"n": (out / "names.jsonl", _lines(NAMES)),
        b"r": (out / "embeddings.npy", rows),
        b"j": (part / "journal.jsonl", _lines(JOURNAL)),
        b"b": (part / "begun.json", json.dumps({"identity": IDENTITY}).encode()),
    }

    def mutate(numbers):
        which = numbers.choice([*files])
        if which in b"nj":
            return which + json_trees.lines(NAMES if which == b"n" else JOURNAL, numbers)
        if which == b"r":
            return which + npz_files.changed_array(rows, numbers)
        return which + json_trees.document(DESCRIPTION if which == b"d" else {"identity": IDENTITY}, numbers)

    def read(data):
        for which, (path, intact) in files.items():
            path.write_bytes(data[1:] if data.startswith(which) else intact)
        if data[:1] in (b"j", b"b"):
            files[b"d"][0].unlink()
            (part / "embeddings.npy").write_bytes(bytes(128 + 48))
            with EmbeddingFolder(folder / "out2", IDENTITY, 4) as growing:
                assert growing.done >= 0
            return
        found = EmbeddedPictures(out)
        found.weights, [*found.locations]  # noqa: B018
        assert np.asarray(found.rows).shape[0] == len(found.names)

    def parses(data):
        lines = data[1:].split(b"\n")[:-1] if data[:1] in (b"n", b"j") else [data[1:]]
        return data[:1] == b"r" or all(map(json_trees.parses, lines))

    return Subject(mutate, parses, read, ("la_tf/embedded_pictures.py", "la_tf/names_file.py"))


def names(folder) -> Subject:
    """names.jsonl alone."""
    path = folder / "names.jsonl"

    def read(data):
        path.write_bytes(data)
        found = NamesFile(path)
        assert len([*found]) == len(found) == len(found[:])
        [*Locations("/pictures", found)]

    return Subject(
        lambda numbers: json_trees.lines(NAMES * 3, numbers),
        lambda data: all(map(json_trees.parses, data.split(b"\n")[:-1])),
        read,
        ("la_tf/names_file.py",),
        (ValueError,),
    )


def backbone_json(folder) -> Subject:
    """backbone.json of an export."""
    from la_tf import bundle
    from la_tf.config import ModelConfig
    from models.preprocessing import Preprocessing

    preprocessing = Preprocessing(image_size=16)
    architecture = {**ModelConfig(width=16).architecture(16), "layout": "tensorflow"}
    tree = {
        "format": 1, "architecture": {**architecture, "preprocessing": preprocessing.to_json()}, "embedding_dim": 128,
        "endpoints": ["conv1", "conv5"], "strides": {"conv1": 2, "conv5": 16}, "channels": {"conv1": 16, "conv5": 128},
        "freeze_groups": {"conv1": ["conv1_conv"]}, "preprocessing": preprocessing.to_json(), "step": 228,
        "versions": {"keras": "3.15.1"}, "view": {"image_size": 16, "kind": "photo", "common_size": [16, 16]},
        "config": {"method": "la", "seed": 0}, "metrics": {"loss": 3.5},
    }  # fmt: skip

    def read(data):
        (folder / "backbone.json").write_bytes(data)
        bundle.view_of(bundle.read_description(folder))

    return Subject(lambda numbers: json_trees.document(tree, numbers), json_trees.parses, read, ("la_tf/bundle.py",))


def index_json(folder) -> Subject:
    """index.json of an image index."""
    rows = np.eye(4, dtype=np.float32)
    image_index.ImageIndex.build(folder, rows, [f"/pictures/{i}.jpg" for i in range(4)], "a" * 12, kind="flat")
    tree = json.loads((folder / image_index.FILE).read_text())

    def read(data):
        (folder / image_index.FILE).write_bytes(data)
        image_index.ImageIndex.open(folder, "a" * 12).search(rows, 1)

    return Subject(
        lambda numbers: json_trees.document(tree, numbers), json_trees.parses, read, ("la_tf/image_index.py",)
    )
