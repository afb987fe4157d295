"""A checkpoint of which a file is missing, cut short or somebody else's is named by whoever looks at it."""

import io
import json

import numpy as np
import pytest

from data.errors import UserError
from la_tf import checkpoints


@pytest.fixture
def checkpoint(tmp_path):
    return checkpoints.write(tmp_path, 7, {"a/weight": np.arange(1000.0)}, {"logs": {}}, keep=1)


def looked_at(checkpoint):
    checkpoints.read_state(checkpoint)
    with checkpoints.read_arrays(checkpoint) as arrays:
        return arrays["a/weight"]


def one_array():
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def cut(data):
    return data[: len(data) // 2]


def scrambled(data):
    return data[:500] + bytes(byte ^ 0x5A for byte in data[500:600]) + data[600:]


ARRAYS = [cut, scrambled, lambda data: b"", lambda data: data[:-3], lambda data: b"\x80\x04.", lambda data: one_array()]
STATES = [
    b"",
    b"[]",
    b"{}",
    b"null",
    b"[" * 100_000,
    b"\xff",
    b'{"format": 1, "step": "7"}',
    b'{"format": 9, "step": 7}',
]


@pytest.mark.parametrize("damage", ARRAYS)
def test_damaged_arrays_are_named(checkpoint, damage):
    path = checkpoint / "arrays.npz"
    path.write_bytes(damage(path.read_bytes()))
    wanted = rf"^{path}: is damaged \(.+\); remove that checkpoint, and the one before it is taken$"
    with pytest.raises(UserError, match=wanted):
        looked_at(checkpoint)


@pytest.mark.parametrize("content", STATES)
def test_a_damaged_state_is_named(checkpoint, content):
    (checkpoint / "state.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"^{checkpoint}/state\.json: "):
        looked_at(checkpoint)


def test_a_file_that_is_missing_is_not_taken_for_a_checkpoint_that_is_gone(checkpoint):
    for name in ("arrays.npz", "state.json"):
        (checkpoint / name).unlink()
        with pytest.raises(UserError) as raised:
            looked_at(checkpoint)
        assert not isinstance(raised.value, checkpoints.Gone) and name in str(raised.value)
    (checkpoint / "sha256.json").unlink()
    checkpoint.rmdir()
    with pytest.raises(checkpoints.Gone):
        looked_at(checkpoint)


@pytest.mark.parametrize("content", [b"[]", b"null", b"{", b"[" * 100_000])
def test_checksums_that_are_none_are_a_problem(checkpoint, content):
    (checkpoint / checkpoints.CHECKSUMS).write_bytes(content)
    assert checkpoints.problem(checkpoint) == "sha256.json is damaged"


def test_an_array_that_is_not_there_is_no_damage(checkpoint):
    assert json.loads((checkpoint / "state.json").read_text())["step"] == 7
    with checkpoints.read_arrays(checkpoint) as arrays, pytest.raises(KeyError):
        arrays["b"]
