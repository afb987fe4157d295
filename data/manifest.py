"""`model_dir/dataset.json`: which picture each row of the memory bank is, so that a changed data set is refused."""

import hashlib
import json
import os

from data import json_shapes
from data.errors import UserError
from data.sources import DataSet

FILE = "dataset.json"
_SPLIT = json_shapes.record(
    {"count": json_shapes.count, "fingerprint": json_shapes.text},
    {
        "names": json_shapes.array(json_shapes.text),
        "bytes": json_shapes.array(json_shapes.whole),
        "records": json_shapes.array(json_shapes.whole),
    },
)
_MANIFEST = json_shapes.record(
    {
        **dict.fromkeys(("spec", "kind", "hash"), json_shapes.text),
        "class_names": json_shapes.array(json_shapes.text),
        "splits": json_shapes.table(_SPLIT),
    },
    {  # which older runs do not have
        "class_count": json_shapes.count,
        "common_size": json_shapes.optional(json_shapes.shaped(json_shapes.count, json_shapes.count)),
    },
)


def manifest(dataset: DataSet) -> dict:
    """JSON-able: spec, kind, class_names, class_count, common_size (of the train split, as there), splits {name: count,
    fingerprint, and names, bytes (records) per file}, and `hash`, the data set's identity wherever it lies."""
    splits = {}
    for split in (dataset.train, dataset.test):
        if split is not None:
            fingerprint = split.fingerprint
            splits[split.name] = {"count": split.size, "fingerprint": fingerprint, **split.source.listing()}
    class_names, size = list(dataset.class_names), dataset.train.common_size
    identity = [dataset.kind, class_names, [(name, split["fingerprint"]) for name, split in splits.items()]]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return {
        "spec": dataset.spec,
        "kind": dataset.kind,
        "hash": digest,
        "class_names": class_names,
        "class_count": dataset.class_count,
        "common_size": size and list(size),
        "splits": splits,
    }


def summary(manifest: dict) -> dict:
    """What a manifest says besides its files: spec, kind, hash, class_names, splits {name: count, fingerprint}."""
    splits = {
        name: {"count": split["count"], "fingerprint": split["fingerprint"]}
        for name, split in manifest["splits"].items()
    }
    return {key: manifest[key] for key in ("spec", "kind", "hash", "class_names")} | {"splits": splits}


def freeze(dataset: DataSet, model_dir: str) -> dict:
    """Writes the manifest into `model_dir`, or compares it with the one there; returns it.

    Raises UserError naming the first difference.  The spec may differ: a data set may have been moved.
    """
    path = os.path.join(model_dir, FILE)
    new = manifest(dataset)
    if not os.path.exists(path):
        os.makedirs(model_dir, exist_ok=True)
        _write(path, new)
        return new
    old = read(model_dir)
    if old["hash"] != new["hash"]:
        raise UserError(
            f"--dataset={dataset.spec}: not what {model_dir} was started with: {first_difference(old, new)}; "
            "restore it or choose another --model_dir"
        )
    return new


def read(model_dir: str) -> dict:
    """The manifest in `model_dir`; raises UserError where it is missing or damaged."""
    path = os.path.join(model_dir, FILE)
    try:
        return json_shapes.read(path, _MANIFEST, "restore it or choose another --model_dir")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def first_difference(old: dict, new: dict) -> str:
    """Says in a few words what differs first between two manifests whose hashes differ."""
    if old["kind"] != new["kind"]:
        return f"it was {old['kind']} and is {new['kind']}"
    for gone in sorted(set(old["splits"]) ^ set(new["splits"])):
        return f"there is {'no' if gone in old['splits'] else 'now a'} {gone} split"
    for name, split in new["splits"].items():
        difference = _split_difference(name, old["splits"][name], split)
        if difference:
            return difference
    for name in sorted(set(old["class_names"]) ^ set(new["class_names"])):
        return f"class {name} is {'gone' if name in old['class_names'] else 'new'}"
    return "its classes are in another order"


def _split_difference(name, old, new):
    if old["fingerprint"] == new["fingerprint"]:
        return None
    thing = "shard" if "records" in new else "picture"
    before, now = dict.fromkeys(old.get("names", ())), dict.fromkeys(new.get("names", ()))
    for file in now:
        if file not in before:
            return f"{thing} {file} is new"
    for file in before:
        if file not in now:
            return f"{thing} {file} is gone"
    for column in ("bytes", "records"):
        for file, was, has in zip(now, old.get(column, ()), new.get(column, ()), strict=False):
            if was != has:
                return f"{thing} {file} has {has} {column}, had {was}"
    if old["count"] != new["count"]:
        return f"the {name} split has {new['count']} pictures, had {old['count']}"
    return f"pictures or labels of the {name} split have changed under the same names and sizes"


def _write(path, content):
    """A reader, or a run killed at any moment, finds the whole file or none."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
