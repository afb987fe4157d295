"""Checkpoints: one folder a step, logical arrays by name beside a readable state. No TensorFlow in here.

    checkpoints/step-00000123/arrays.npz    every variable whole, under its own path (zip: a CRC for each)
    checkpoints/step-00000123/state.json    step, epoch, and the state of schedules and monitors

Arrays are stored by name and in their logical shape, not as a replica or a shard happens to hold them, so a run can
come back on another number of devices. bfloat16, which NumPy cannot read back, is stored as float32, which holds every
one of its numbers. A folder appears by one rename: it is whole or absent.
"""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np

from data.errors import UserError

FORMAT = 1
_NAME = re.compile(r"step-(\d{8,})")


def folder(model_dir):
    """Returns where the checkpoints of a run lie."""
    return Path(model_dir) / "checkpoints"


def steps(model_dir):
    """Returns the steps that have a checkpoint, in order."""
    names = (_NAME.fullmatch(entry.name) for entry in _entries(folder(model_dir)))
    return sorted(int(name[1]) for name in names if name)


def path_of(model_dir, step):
    """Returns the folder of one checkpoint."""
    return folder(model_dir) / f"step-{step:08d}"


def latest(model_dir):
    """Returns the folder of the newest checkpoint, None when there is none."""
    found = steps(model_dir)
    return path_of(model_dir, found[-1]) if found else None


def read_state(checkpoint):
    """Returns the state of a checkpoint folder as a dict."""
    state = json.loads((Path(checkpoint) / "state.json").read_text())
    if state.get("format") != FORMAT:
        raise ValueError(f"{checkpoint}: format {state.get('format')}, this version reads {FORMAT}")
    return state


def read_arrays(checkpoint):
    """Returns the arrays of a checkpoint folder by name, read as they are asked for (never a pickle)."""
    return np.load(Path(checkpoint) / "arrays.npz", allow_pickle=False)


def chosen(model_dir, step=None):
    """Returns the checkpoint folder of `step`, the newest for None; raises UserError listing the steps there are."""
    known = steps(model_dir)
    if not known:
        raise UserError(f"--model_dir={model_dir}: has no checkpoint yet")
    if step is not None and step not in known:
        raise UserError(f"--step={step}: no such checkpoint in {model_dir}; there are {', '.join(map(str, known))}")
    return path_of(model_dir, known[-1] if step is None else step)


def fill(weights, checkpoint):
    """Gives each of `weights` its value in a checkpoint folder; raises UserError naming one that has none there."""
    with read_arrays(checkpoint) as arrays:
        for weight in weights:
            if weight.path not in arrays.files:
                raise UserError(f"{checkpoint}: has no {weight.path}; it is of another network")
            value = arrays[weight.path]
            if value.shape != tuple(weight.shape):
                raise UserError(f"{checkpoint}: {weight.path} has shape {value.shape}, not {tuple(weight.shape)}")
            weight.assign(value)


def write(model_dir, step, arrays, state, keep):
    """Writes the checkpoint of `step`, then removes all but the newest `keep`; returns its folder."""
    target = path_of(model_dir, step)
    if target.exists():
        return target
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with open(temporary / "arrays.npz", "wb") as file:
        np.savez(file, **{name: _readable(array) for name, array in arrays.items()})
        _sync(file)
    with open(temporary / "state.json", "w") as file:
        json.dump({"format": FORMAT, "step": step, **state}, file, indent=1)
        _sync(file)
    os.rename(temporary, target)
    _sync_folder(target.parent)
    remove_folders(path_of(model_dir, old) for old in steps(model_dir)[:-keep])
    remove_folders(target.parent.glob(".step-*"))  # of a process that was killed while writing
    return target


def remove_folders(paths):
    """Removes whole folders, renamed first, so that none is ever seen by halves; one that is already gone is fine."""
    for path in paths:
        if not path.name.startswith("."):
            hidden = path.with_name(f".{path.name}.old")
            try:
                path = path.rename(hidden)
            except FileNotFoundError:
                continue
        shutil.rmtree(path, ignore_errors=True)


def _readable(array):
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _entries(path):
    return list(path.iterdir()) if path.is_dir() else []


def _sync(file):
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
