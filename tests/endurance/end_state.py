"""All that a run came to, but for what a clock says: two runs are the same run where these are equal, bit by bit."""

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np

from la_tf import checkpoints
from la_tf.model_dir import MetricsFile


def is_clock(name):
    """Tells whether a metric is one that differs from run to run."""
    return name in ("time", "images_per_s") or name.endswith("_seconds")


def without_clocks(value):
    """Returns what JSON holds without the entries that a clock makes, however deep they lie."""
    if isinstance(value, dict):
        return {key: without_clocks(each) for key, each in value.items() if not is_clock(key)}
    return value


def last_arrays(folder):
    """Returns the arrays of a run's newest checkpoint by name."""
    with checkpoints.read_arrays(checkpoints.latest(folder)) as arrays:
        return {name: arrays[name] for name in arrays.files}


def end_state(folder):
    """Returns the digest of each thing that a run came to, by its name.

    The arrays and the state of the newest checkpoint (schedules, monitors), the lines of each metrics.jsonl, the
    weights of the newest export of each kind, the record of the best one, and the list of bad pictures.
    """
    folder, found = Path(folder), {}
    found |= {f"arrays/{name}": _of_array(array) for name, array in last_arrays(folder).items()}
    state = checkpoints.read_state(checkpoints.latest(folder))
    found |= {f"state/{name}": _of_json(value) for name, value in without_clocks(state).items()}
    for events in [folder, *folder.glob("eval_*")]:
        for number, line in enumerate(MetricsFile(events).read()):
            found[f"{(events / 'metrics.jsonl').relative_to(folder)}:{number + 1}"] = _of_json(without_clocks(line))
    for kind in sorted((folder / "export").glob("*")):
        newest = max((path for path in kind.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
        found |= {f"export/{kind.name}/{name}": _of_array(array) for name, array in _weights(newest).items()}
    for name in ("export/best/best.json", "bad_images.csv"):
        if (folder / name).exists():
            found[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return found


def digest(state):
    """Returns one sha256 of an `end_state`."""
    return _of_json(state)


def differences(state, wanted):
    """Returns the names of what is not the same in two `end_state`s, or is in one of them alone."""
    return sorted(name for name in {*state, *wanted} if state.get(name) != wanted.get(name))


def _weights(export):
    found = {}
    with h5py.File(export / "backbone.weights.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def _of_array(array):
    header = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()


def _of_json(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
