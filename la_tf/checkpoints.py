"""Checkpoints: one folder a step, logical arrays by name beside a readable state. No TensorFlow in here.

    checkpoints/step-00000123/arrays.npz    every variable whole, under its own path (zip: a CRC for each)
    checkpoints/step-00000123/rows/         those with a row for each picture where these were spread over replicas
    checkpoints/step-00000123/state.json    step, epoch, and the state of schedules and monitors
    checkpoints/step-00000123/sha256.json   the checksum of each of these files

Arrays are stored by name and in their logical shape, not as a replica or a shard happens to hold them, so a run can
come back on another number of devices. Every process writes the rows that it has to the files in `rows/`, which are
whole all the same. bfloat16, which NumPy cannot read back, is stored as float32, which holds every
one of its numbers. A folder appears by one rename: it is whole or absent.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

import numpy as np

from data import json_shapes
from data.errors import UserError
from data.stored_arrays import open_npz
from la_tf.model_dir import read_json
from la_tf.names_file import shown
from la_tf.processes import ALONE

FORMAT = 1
CHECKSUMS = "sha256.json"
NEEDED = ("arrays.npz", "state.json")  # of every checkpoint
DAMAGED = ".damaged"  # behind the name of a checkpoint that was set aside
REMEDY = "remove that checkpoint, and the one before it is taken"
LONGEST_WAIT = 600  # seconds, for the rows of another process
_STATE = json_shapes.record(
    {"step": json_shapes.count},
    {
        "epoch": json_shapes.whole,
        "logs": json_shapes.table(json_shapes.one_of(json_shapes.number, json_shapes.text)),
        **dict.fromkeys(("hooks", "found", "settled"), json_shapes.record()),
        **dict.fromkeys(("stopped", "finished"), json_shapes.boolean),
        "rollbacks": json_shapes.count,
    },
)
_NAME = re.compile(r"step-(\d{8,})")


class Gone(UserError):
    """A checkpoint that was there is not any more: the run trains on, and keeps its newest ones alone."""

    def __init__(self, checkpoint):
        super().__init__(f"{checkpoint}: was removed meanwhile, as the run trains on; start again")


class Damaged(UserError):
    """A checkpoint that cannot be read; the message says what of it, and what to do."""


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


def problem(checkpoint):
    """Returns what is wrong with a checkpoint folder by its checksums, in a few words; None where nothing is.

    One that was written before there were checksums has none to be wrong by.
    """
    checkpoint = Path(checkpoint)
    try:
        stored = json_shapes.read(checkpoint / CHECKSUMS, json_shapes.table(json_shapes.text))
    except FileNotFoundError:
        return next((f"{name} is missing" for name in NEEDED if not (checkpoint / name).is_file()), None)
    except UserError:
        return f"{CHECKSUMS} is damaged"
    if not {*NEEDED} <= stored.keys():
        return f"{CHECKSUMS} is damaged"
    # Nothing is opened but what lies in the folder, wherever a name may lead: /dev/zero has no end.
    there = {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()}
    for name, wanted in stored.items():
        if name not in there:
            return f"{shown(name)[:80]} is missing"
        try:
            if _checksum(checkpoint / name) != wanted:
                return f"{name} is damaged"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def set_aside_damaged(model_dir, report=print):
    """Renames the newest checkpoints that are damaged until one is whole, and reports each in a line.

    For the process that trains: it goes on from the one before, and can write one of that step anew. Raises UserError
    where there are checkpoints and none is whole.
    """
    damaged = []
    for step in reversed(steps(model_dir)):
        path = path_of(model_dir, step)
        wrong = problem(path)
        if wrong is None:
            break
        damaged.append((path, wrong))
    else:
        if damaged:
            listed = "; ".join(f"{path.name}: {wrong}" for path, wrong in damaged)
            raise UserError(
                f"--model_dir={model_dir}: not one of its checkpoints is whole ({listed}); restore them, or begin anew "
                "in another folder"
            )
    for path, wrong in damaged:
        aside = path.with_name(path.name + DAMAGED)
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        report(f"{path}: {wrong}; it is {aside.name} now, and the checkpoint before it is taken")


def best(model_dir, metric):
    """Returns the folder of the checkpoint whose epoch came to the highest `metric`, the first of equals.

    None where no checkpoint has measured it.
    """
    measured = {step: read_state(path_of(model_dir, step)).get("logs", {}).get(metric) for step in steps(model_dir)}
    measured = {step: value for step, value in measured.items() if value is not None}
    return path_of(model_dir, max(measured, key=measured.get)) if measured else None


def read_state(checkpoint):
    """Returns the state of a checkpoint folder as a dict; raises Gone, or Damaged."""
    path = Path(checkpoint) / "state.json"
    try:
        state = read_json(path)
    except UserError as error:
        raise Damaged(f"{error}; {REMEDY}") if Path(checkpoint).exists() else Gone(checkpoint) from None
    if state.get("format") != FORMAT:
        raise Damaged(f"{path}: is format {state.get('format')!r:.40}, this version reads {FORMAT}")
    try:
        return json_shapes.check(state, _STATE)
    except ValueError as error:
        raise Damaged(f"{path}: is damaged ({error}); {REMEDY}") from None


def read_arrays(checkpoint):
    """Returns the `Arrays` of a checkpoint folder; raises Gone, or Damaged."""
    try:
        return Arrays(checkpoint)
    except FileNotFoundError:
        if not Path(checkpoint).exists():
            raise Gone(checkpoint) from None
        raise Damaged(f"{checkpoint}: has no arrays.npz; {REMEDY}") from None


class Arrays:
    """The arrays of a checkpoint folder by name, read as they are asked for (never a pickle); a context manager.

    Those that were spread are np.memmap: a part of them can be read by itself.
    """

    def __init__(self, checkpoint):
        # First, so that a folder that is removed meanwhile is not taken for one without them.
        self._rows = {unquote(path.stem): path for path in (Path(checkpoint) / "rows").glob("*.npy")}
        self._path = Path(checkpoint) / "arrays.npz"
        with self._damage():
            self._npz = open_npz(self._path)
        self.files = [*self._npz.files, *self._rows]

    def __getitem__(self, name):
        """Returns the array called `name`; raises KeyError where there is none, Gone, Damaged."""
        if name not in self._rows:
            if name not in self._npz.files:
                raise KeyError(name)
            with self._damage():
                return self._npz[name]
        try:
            return _mapped(self._rows[name])
        except FileNotFoundError:
            raise Gone(self._rows[name].parents[1]) from None
        except Exception as error:  # whatever NumPy raises on a broken file
            raise Damaged(f"{self._rows[name]}: is damaged ({error})") from None

    @contextlib.contextmanager
    def _damage(self):
        """Raises UserError for what NumPy raises on a file that is cut short or altered."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # whatever NumPy and zipfile raise on broken files
            raise Damaged(f"{self._path}: is damaged ({error}); {REMEDY}") from error

    def get(self, name):
        """Returns the array called `name`, None where there is none."""
        return self[name] if name in self.files else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._npz.close()


def _mapped(path):
    """Returns the array in a file as np.memmap; by a head of no bytes an entry NumPy would divide, which kills."""
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if not dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError(f"it is said to be {dtype} {list(shape)}")
    return np.load(path, mmap_mode="r", allow_pickle=False)


class Part(NamedTuple):
    """What a process has of an array that is spread over processes: `rows` `[n, ...]` from `first` on, of `size`."""

    size: int
    first: int
    rows: np.ndarray


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


def write(model_dir, step, arrays, state, keep, parts=None, processes=ALONE, keep_best=None):
    """Writes the checkpoint of `step`, then removes all but the newest `keep`; returns its folder.

    keep_best: a metric; the checkpoint with the highest one stays as well.

    All `processes` call it together: the first one writes the `arrays`, each its own `parts`, a dict of `Part`.
    """
    target, finish = begin(model_dir, step, arrays, state, keep, parts, processes, keep_best)
    finish()
    processes.sum(np.zeros(1))
    return target


def begin(model_dir, step, arrays, state, keep, parts=None, processes=ALONE, keep_best=None):
    """Prepares what `write` does; returns the folder to be, and a function that does the rest of it.

    That function is not collective, so a thread can call it. Until it returns, `arrays` and `parts` must not change.
    """
    target, first = path_of(model_dir, step), processes.index == 0
    # What the first one sees and how it calls the folder holds for all.
    exists, writer = processes.sum(np.array([target.exists(), os.getpid()], np.int64) * first)
    if exists:
        return target, lambda: None
    temporary = target.with_name(f".{target.name}.{writer}")
    with _told(target, first):
        if first:
            _begin(temporary, parts or {})
    if parts:
        processes.sum(np.zeros(1))  # the files are there

    def finish():
        with _told(target, first):
            if parts:
                _write_parts(temporary, parts, processes)
            if first:
                _finish(target, temporary, arrays, {"format": FORMAT, "step": step, **state})
                _remove_old(target, keep, keep_best)

    return target, finish


@contextlib.contextmanager
def _told(target, first):
    """Raises UserError for an OSError of the block, and removes what is half there: it takes the room needed."""
    try:
        yield
    except OSError as error:
        if first:
            remove_folders(target.parent.glob(".step-*"))
        raise UserError(
            f"{target}: the checkpoint cannot be written ({error.strerror}); make room, or lower --keep: the same "
            "command goes on from the one before"
        ) from None


def _remove_old(target, keep, keep_best):
    model_dir = target.parents[1]
    spared = best(model_dir, keep_best) if keep_best else None
    old = [path_of(model_dir, each) for each in steps(model_dir)[:-keep]]
    remove_folders(path for path in old if path != spared)
    remove_folders(target.parent.glob(".step-*"))  # of a process that was killed while writing


def _begin(temporary, parts):
    """Makes the folder, with files for the rows that processes are to write."""
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, part in parts.items():
        path = _rows_file(temporary, name)
        path.parent.mkdir(exist_ok=True)
        shape = (part.size, *part.rows.shape[1:])
        np.lib.format.open_memmap(path, mode="w+", dtype=_readable(part.rows[:0]).dtype, shape=shape).flush()


def _write_parts(temporary, parts, processes):
    """Writes this process' parts. The first one waits for those of the others, who say by a file that theirs are."""
    for name, part in parts.items():
        _write_part(_rows_file(temporary, name), part)
    if processes.index:
        (temporary / f"written-{processes.index}").touch()
        return
    waited = time.monotonic()
    for number in range(1, processes.count):
        written = temporary / f"written-{number}"
        while not written.exists():
            if time.monotonic() - waited > LONGEST_WAIT:
                raise UserError(f"{temporary}: worker {number} has not written its rows; see what it says")
            time.sleep(0.05)
        written.unlink()


def _write_part(path, part):
    rows = np.ascontiguousarray(_readable(part.rows))
    each = rows.dtype.itemsize * math.prod(rows.shape[1:])
    # Not by mmap: over NFS a page that two processes have a part of would come back with one part alone.
    with open(path, "r+b") as file:
        header = os.fstat(file.fileno()).st_size - part.size * each
        file.seek(header + part.first * each)
        file.write(rows.tobytes())
        _sync(file)


def _rows_file(folder, name):
    return folder / "rows" / f"{quote(name, safe='')}.npy"


def _finish(target, temporary, arrays, state):
    """Writes the rest, and lets the checkpoint appear."""
    with open(temporary / "arrays.npz", "wb") as file:
        np.savez(file, **{name: _readable(array) for name, array in arrays.items()})
        _sync(file)
    with open(temporary / "state.json", "w") as file:
        json.dump(state, file, indent=1)
        _sync(file)
    files = sorted(path for path in temporary.rglob("*") if path.is_file())
    with open(temporary / CHECKSUMS, "w") as file:
        json.dump({str(path.relative_to(temporary)): _checksum(path) for path in files}, file, indent=1)
        _sync(file)
    for folder_ in {path.parent for path in files} | {temporary}:
        _sync_folder(folder_)
    os.rename(temporary, target)
    _sync_folder(target.parent)


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


def _checksum(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
