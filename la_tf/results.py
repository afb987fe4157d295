"""results.jsonl: one line an evaluation, added to by `la_tf.evaluate`, read by `la_tf.report`. No TensorFlow."""

import datetime
import fcntl
import hashlib
import json
import os
from pathlib import Path

from data.errors import UserError

FILE = "results.jsonl"
# What may differ between two goes at the same evaluation.
VOLATILE = {"id", "time", "versions", "command", "seconds", "results"}
NEEDED = {
    "id": str, "time": str, "protocol": str, "subject": dict, "dataset": dict, "settings": dict, "split": str,
    "selected_on": str, "results": dict,
}  # fmt: skip


def identity(record):
    """Returns the id of an evaluation, 12 hex digits: the same for the same network, pictures and settings."""
    lasting = {key: value for key, value in record.items() if key not in VOLATILE}
    if "dataset" in lasting:  # where the pictures lie is circumstance; the hashes say which they are
        lasting["dataset"] = {key: value for key, value in lasting["dataset"].items() if key != "spec"}
    canonical = json.dumps(lasting, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def identified(record):
    """Returns the record with its id in front."""
    return {"id": identity(record), **{key: value for key, value in record.items() if key != "id"}}


def append(folder, record):
    """Adds `record` with its id to folder/results.jsonl as one whole line, on disk when this returns; returns it.

    A line that a killed process left torn is cut off first. Raises UserError when the folder cannot be written.
    """
    record = identified(record)
    line = json.dumps(record) + "\n"
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with open(Path(folder) / FILE, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # evaluations of one run may go side by side
            _mend(file)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"{folder}: {FILE} cannot be written ({error.strerror}); choose another folder") from None
    return record


def _mend(file):
    """Ends the last line, or cuts it off where it is no whole record."""
    file.seek(0)
    content = file.read()
    last = content.rpartition(b"\n")[2]
    if not last:
        return
    if _is_json(last):
        file.write(b"\n")
    else:
        file.truncate(len(content) - len(last))


def read(folders):
    """Returns the records of all folders in their order; of a repeated id the newest alone, where it first stood.

    Raises UserError for a folder that is not there or holds no results.jsonl, and for a damaged line, by its number. A
    last line that a killed process left torn is passed over.
    """
    newest = {}
    for folder in folders:
        for record in _read_folder(Path(folder)):
            known = newest.get(record["id"])
            if known is None or moment(record) >= moment(known):
                newest[record["id"]] = record
    return [*newest.values()]


def find(folder, wanted):
    """Returns the newest record of a folder with the id `wanted`, None where there is none."""
    if not (Path(folder) / FILE).exists():
        return None
    return next((record for record in read([folder]) if record["id"] == wanted), None)


def moment(record):
    """Returns when a record was made, in seconds since 1970."""
    return datetime.datetime.fromisoformat(record["time"]).timestamp()


def _read_folder(folder):
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; name those that la_tf.evaluate wrote results into")
    path = folder / FILE
    if not path.exists():
        raise UserError(
            f"{folder}: holds no {FILE} yet; python -m la_tf.evaluate --model_dir={folder} --protocol=knn makes one"
        )
    *lines, last = path.read_bytes().split(b"\n")
    if _is_json(last):
        lines.append(last)
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _parse(line, place):
    try:
        record = json.loads(line)
        missing = [key for key in NEEDED if key not in record] if isinstance(record, dict) else NEEDED
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
        wrong = [key for key, kind in NEEDED.items() if not isinstance(record[key], kind)]
        if wrong:
            raise ValueError(f"{wrong[0]} is {record[wrong[0]]!r:.40}")
        moment(record)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:  # UnicodeDecodeError is a ValueError
        raise UserError(f"{place}: is damaged ({error}); delete the line and evaluate again") from None
    return record


def _is_json(line):
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
