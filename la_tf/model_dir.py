"""What lies in a model_dir besides its checkpoints: config.json and metrics.jsonl. No TensorFlow in here."""

import contextlib
import errno
import fcntl
import importlib.metadata
import json
import os
import tempfile
import time
import types
import typing
from dataclasses import fields
from pathlib import Path

from data import json_shapes
from data.errors import FlagError, UserError

LOCK_TRIES = 3


def claim(model_dir, identity, circumstances, versions, begun=True, defaults=None):
    """Writes config.json into a new model_dir, or checks that an old one belongs to the same run.

    A run that has not `begun` (it failed before its first checkpoint) may still change its identity. Raises UserError
    naming the keys of the identity that differ; differing circumstances are simply written anew.
    """
    path = Path(model_dir) / "config.json"
    if path.exists():
        check_identity(path, identity if begun else None, defaults)
    elif folder_entries(model_dir):
        raise UserError(
            f"--model_dir={model_dir}: holds files but no config.json, so it is not a run; choose an empty folder"
        )
    try:
        write_json(path, {"identity": identity, "circumstances": circumstances, "versions": versions})
    except OSError as error:
        raise UserError(f"--model_dir={model_dir}: cannot be written ({error.strerror}); choose another") from None


def check_identity(path, identity, defaults=None):
    """Compares the identity stored at `path` with `identity` (None: any); raises UserError naming what differs.

    A run made before a flag existed has the flag's default; one that `defaults` lacks follows from N, so it fits.
    """
    stored = read_json(path).get("identity")
    if not isinstance(stored, dict):
        raise UserError(f"{path}: was not written by la_tf.train; choose an empty --model_dir")
    if identity is None:
        return
    if defaults is not None:
        stored = {key: defaults.get(key, value) for key, value in identity.items()} | stored
    differing = [key for key in sorted({*stored, *identity}) if stored.get(key) != identity.get(key)]
    if differing:
        listed = ", ".join(f"{key} {stored.get(key)!r} there, {identity.get(key)!r} here" for key in differing)
        raise UserError(
            f"--model_dir={path.parent}: belongs to another run ({listed}); choose another folder or undo the change"
        )


def stored_identity(folder):
    """Returns the identity of the run in `folder`, its pictures' hash (`data`) included; raises UserError."""
    return stored_config(Path(folder) / "config.json")["identity"]


def stored_config(path):
    """Returns what `claim` wrote to `path`; raises UserError where it is not of that form."""
    return checked(path, read_json(path), identity=dict, circumstances=dict)


def versions():
    """Returns the versions of the packages that a number may depend on."""
    found = {}
    for name in ("tensorflow", "keras", "faiss-cpu", "faiss-gpu", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # one of the two Faiss packages is always absent
    return found


@contextlib.contextmanager
def locked(folder, flag="model_dir", remedy="wait for it, or watch it by --mode=eval", doing="training"):
    """Keeps a second process out of a folder while the block runs; raises UserError when one is in it.

    The system lets go of the lock when the process ends, however it ends. The error names `flag`, what the other is
    `doing`, and the `remedy`.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        file = open(Path(folder) / ".lock", "w")  # noqa: SIM115  closed below
    except OSError as error:
        raise UserError(f"--{flag}={folder}: cannot be written ({error.strerror}); choose another") from None
    with file:
        for _ in range(LOCK_TRIES - 1):  # `is_locked` may just be looking
            if _taken(file):
                break
            time.sleep(0.1)
        else:
            if not _taken(file):
                raise UserError(f"--{flag}={folder}: another process is {doing} there; {remedy}")
        yield


def is_locked(folder):
    """Tells whether a process is within `locked` in a folder, on this machine or one with which it shares locks."""
    try:
        with open(Path(folder) / ".lock") as file:
            return not _taken(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _taken(file, how=fcntl.LOCK_EX):
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def writable_folder(path, flag="out"):
    """Makes a folder where there is none; raises UserError naming `flag` where nothing can be written into it."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"--{flag}={path}: cannot be written ({error.strerror}); choose another") from None


def check_utf8(flag, path):
    """Raises FlagError naming `flag` for a name that TensorFlow or Faiss, which write there too, could not take."""
    if any("\ud800" <= sign <= "\udfff" for sign in str(path)):
        raise FlagError(f"--{flag}={path}: is no name in UTF-8; choose another")


def folder_entries(path):
    """Returns the entries of a folder, none when it does not exist; names with a dot are somebody's half-written."""
    return [entry for entry in Path(path).iterdir() if entry.name[0] != "."] if Path(path).is_dir() else []


def read_json(path):
    """Reads a JSON file, an object; raises UserError naming it when it is damaged."""
    try:
        return json_shapes.read(path, json_shapes.record())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def reason(error):
    """Returns what an exception of a library says of a file, on one line that is not too long."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{Path(os.fsdecode(error.filename)).name}: {error.strerror}"
    return f"{next(filter(str.strip, str(error).splitlines()), repr(error)):.200}"


def checked(path, content, **types):
    """Returns what was read from `path`; raises UserError unless all entries called in `types` are of these."""
    kinds = {name: json_shapes.of(each) for name, each in types.items()}
    try:
        return json_shapes.check(content, json_shapes.record(kinds))
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error})") from None


def built(kind, values):
    """Returns the dataclass `kind` of those `values`, read from a file, that are its fields, lists as tuples.

    Raises ValueError naming one that is of another type than the field, and what `kind` raises.
    """
    wanted, given = typing.get_type_hints(kind), {}
    for name in (field.name for field in fields(kind) if field.name in values):
        value = tuple(values[name]) if isinstance(values[name], list) else values[name]
        if not _fits(value, wanted[name]):
            raise ValueError(f"{name} is {values[name]!r:.40}")
        given[name] = value
    return kind(**given)


def _fits(value, kind):
    """Whether a value is of an annotated type: of float, tuple[int, ...], int | None."""
    if isinstance(kind, types.UnionType):
        return any(_fits(value, each) for each in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(each, typing.get_args(kind)[0]) for each in value)
    if isinstance(value, int) and abs(value) >= 2**63:
        return False  # JSON has no bounds, and a number that long becomes no float
    return type(value) in ((int, float) if kind is float else (kind,))


def write_json(path, value):
    """Writes `value` as JSON; the file is whole, as `write_text` has it."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path, text):
    """Writes `text` so that the file is either the old one or the new one, never half of it; raises OSError."""
    path = Path(os.path.realpath(path))  # what a link leads to is replaced, not the link
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "is no file", str(path))  # root may well replace a device
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # Names of files, which it may hold, may be any bytes.
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()  # it takes the room that is missing
        raise OSError(error.errno, error.strerror, str(path)) from None


class MetricsFile:
    """metrics.jsonl: one object a line; lines later than the checkpoint a run resumes from are cut off."""

    def __init__(self, folder):
        self.path = Path(folder) / "metrics.jsonl"

    def append(self, record):
        """Adds one line; with the newline last, a torn line is recognised as such."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(self.path, "a") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())  # a checkpoint of that step may be on disk before
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from None  # a full disk does not say where

    def read(self, *needed):
        """Returns all whole lines as dicts; raises UserError for one without `step`, or one of the counts `needed`."""
        if not self.path.exists():
            return []
        *lines, _ = self.path.read_bytes().split(b"\n")
        return [self._parsed(number, line, ("step", *needed)) for number, line in enumerate(lines, 1) if line.strip()]

    def _parsed(self, number, line, needed):
        try:
            record = json.loads(line)
            for name in needed:
                if not (isinstance(record, dict) and isinstance(record.get(name), int)):
                    raise ValueError(f"it has no {name}")
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.path}, line {number}: is damaged ({error}); delete the line") from None
        return record

    def cut(self, step):
        """Drops the lines after `step`."""
        self._keep(lambda record: record["step"] <= step)

    def drop(self, step):
        """Drops the lines of `step`: it is measured again."""
        self._keep(lambda record: record["step"] != step)

    def _keep(self, wanted):
        records = self.read()
        kept = [record for record in records if wanted(record)]
        if not self.path.exists():
            return
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
