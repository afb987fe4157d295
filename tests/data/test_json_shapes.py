"""If these fail, a damaged file is read as if it were whole, or a whole one is refused."""

import os

import pytest

from data import json_shapes
from data.errors import UserError
from data.json_shapes import array, boolean, check, count, finite, number, one_of, optional, record, shaped, table, text

SET = record(
    {"names": array(text), "splits": table(record({"count": count}))}, {"size": optional(shaped(count, count))}
)


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ({"names": [], "splits": {}}, ""),
        ({"names": ["a"], "splits": {"train": {"count": 0, "more": []}}, "size": None, "other": 1}, ""),
        ({"names": ["a"], "splits": {}, "size": [3, 4]}, ""),
        ([], "it is no object"),
        ({"names": []}, "it lacks splits"),
        ({"names": ["a", 1], "splits": {}}, "names[1] is no text"),
        ({"names": "ab", "splits": {}}, "names is no list"),
        ({"names": [], "splits": {"train": {"count": -1}}}, "splits.train.count is no whole number of 0 or more"),
        ({"names": [], "splits": {"train": {"count": True}}}, "splits.train.count is no whole number of 0 or more"),
        ({"names": [], "splits": {"train": {}}}, "splits.train lacks count"),
        ({"names": [], "splits": {}, "size": [3]}, "size is no list of 2"),
        ({"names": [], "splits": {}, "size": [3, 4.5]}, "size[1] is no whole number of 0 or more"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(value, wrong):
    if not wrong:
        assert check(value, SET) is value
    else:
        with pytest.raises(ValueError) as error:
            check(value, SET)
        assert str(error.value) == wrong


@pytest.mark.parametrize(
    ("kind", "of_it", "others"),
    [
        (number, [0, -1, 1.5, float("nan"), float("inf"), 2**63 - 1], [True, "1", None, 2**63, 10**400, 1e19, []]),
        (finite, [0, -1.5], [float("nan"), float("-inf"), 10**400]),
        (count, [0, 5], [-1, 1.0, False, 2**63]),
        (boolean, [True, False], [0, 1, None]),
        (one_of(text, count), ["a", 0], [None, -1]),
    ],
)
def test_kinds(kind, of_it, others):
    assert [value for value in of_it if kind(value)] == []
    assert [value for value in others if not kind(value)] == []


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b"[1]", b'{"names": 1}'], ids=lambda data: data[:9]
)
def test_a_damaged_file_is_named_in_a_line(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.json: is damaged \(.*\); make it again$") as error:
        json_shapes.read(tmp_path / "a.json", SET, "make it again")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_another_matter(tmp_path):
    with pytest.raises(FileNotFoundError):
        json_shapes.read(tmp_path / "a.json")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"a\.json: is no file"):
        json_shapes.read(tmp_path / "a.json")
