"""Names in a file: any name comes back as it was, one by one and all in turn."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from la_tf.names_file import Locations, NamesFile, shown, unseen, write

NAMES = st.lists(st.binary(min_size=1, max_size=30).map(os.fsdecode), max_size=20)


@given(names=NAMES)
def test_names_of_any_bytes_come_back(names, tmp_path_factory):
    path = tmp_path_factory.mktemp("names") / "names.jsonl"
    write(path, names)
    found = NamesFile(path)
    assert len(found) == len(names)
    assert list(found) == names
    assert [found[place] for place in range(len(names))] == names
    assert found[1:7:2] == names[1:7:2]
    with pytest.raises(IndexError):
        found[len(names)]


def test_many_names_are_read_in_parts(tmp_path):
    names = [f"picture {number}.jpg" for number in range(10_001)]
    write(tmp_path / "names", names)
    found = NamesFile(tmp_path / "names")
    assert list(found) == names
    assert found[-1] == "picture 10000.jpg"


def test_a_file_that_is_cut_short_is_noticed(tmp_path):
    (tmp_path / "names").write_text('"a.jpg"\n"b.j')
    with pytest.raises(ValueError, match="cut short"):
        NamesFile(tmp_path / "names")


@given(names=NAMES, others=NAMES)
def test_the_unseen_are_those_of_no_other_place(names, others):
    wanted = [place for place, name in enumerate(names) if name not in others and name not in names[:place]]
    assert unseen(names, others).tolist() == wanted


def test_locations_are_those_of_each_name():
    found = Locations("/pictures", ["a.jpg", "b/../c.jpg", "b/caf\udce9.jpg"])
    assert list(found) == ["/pictures/a.jpg", "/pictures/c.jpg", "/pictures/b/caf\udce9.jpg"]
    assert [found[place] for place in range(3)] == list(found)
    assert len(found) == 3
    assert list(Locations(None, ["digits test#0"])) == ["digits test#0"]


@pytest.mark.parametrize(
    ("name", "printed"),
    [(b"a b.jpg", "a b.jpg"), ("ähnlich".encode(), "ähnlich"), (b"caf\xe9.jpg", r"caf\xe9.jpg"), (b"a\nb", r"a\nb")],
)
def test_names_are_shown_on_one_line(name, printed):
    assert shown(os.fsdecode(name)) == printed


def test_a_class_of_half_a_letter_is_shown():
    assert shown("\ud800") == r"\ud800"  # as JSON may hold it; of no file's name
