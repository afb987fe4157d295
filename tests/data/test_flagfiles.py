"""Flagfiles: what they stand for, and that none of them is waited for, read without end, or told without its line."""

import os

import pytest

from data.errors import FlagError
from data.flagfiles import LARGEST, expanded, name_of


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes bytes to a file in the folder that is the current one; returns the file's name."""
    monkeypatch.chdir(tmp_path)

    def written(content, name="mine.flags"):
        (tmp_path / name).write_bytes(content)
        return name

    return written


def test_its_lines_stand_where_it_stood_and_are_known_by_their_places(write):
    write(b"# tau of the paper\n--tau=0.07\n\n// and no jitter\n  --nojitter  \n")
    found, places = expanded(["--tau=1", "--flagfile=mine.flags", "--width=4"])
    assert found == ["--tau=1", "--tau=0.07", "--nojitter", "--width=4"]
    assert places == {"--tau=0.07": "mine.flags:2", "--nojitter": "mine.flags:5"}


@pytest.mark.parametrize("spelling", [["--flagfile=a.flags"], ["-flagfile=a.flags"], ["--flagfile", "a.flags"]])
def test_every_way_to_name_one_is_understood(write, spelling):
    write(b"--tau=1\n", "a.flags")
    assert expanded(spelling)[0] == ["--tau=1"]


def test_one_may_name_others_but_not_itself(write):
    write(b"--width=4\n", "inner.flags")
    write(b"--tau=1\n--flagfile=inner.flags\n", "outer.flags")
    assert expanded(["--flagfile=outer.flags"]) == (
        ["--tau=1", "--width=4"],
        {"--tau=1": "outer.flags:1", "--width=4": "inner.flags:1"},
    )
    assert expanded(["--flagfile=inner.flags", "--flagfile=inner.flags"])[0] == ["--width=4"] * 2
    write(b"--flagfile=outer.flags\n", "inner.flags")
    with pytest.raises(FlagError, match=r"^--flagfile=outer\.flags: leads back to itself; .*inner\.flags$"):
        expanded(["--flagfile=outer.flags"])


def test_windows_line_ends_and_byte_order_marks_are_no_part_of_a_flag(write):
    write(b"\xef\xbb\xbf--tau=1\r\n--width=4\r\n")
    assert expanded(["--flagfile=mine.flags"])[0] == ["--tau=1", "--width=4"]


def test_behind_two_dashes_nothing_is_a_flagfile(write):
    assert expanded(["--", "--flagfile=none.flags"]) == (["--", "--flagfile=none.flags"], {})


def test_what_the_command_line_says_again_is_its_own(write):
    write(b"--tau=1\n")
    assert expanded(["--flagfile=mine.flags", "--tau=1"])[1] == {}


def test_the_output_of_a_command_is_read(write):
    """`--flagfile=<(echo --tau=1)`, of a shell."""
    reading, writing = os.pipe()
    os.write(writing, b"--tau=1\n")
    os.close(writing)
    try:
        assert expanded([f"--flagfile=/dev/fd/{reading}"])[0] == ["--tau=1"]
    finally:
        os.close(reading)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.mkdir(), "is a folder; "),
        (os.mkfifo, "is no file; "),
        (lambda path: path.symlink_to("/dev/zero"), "is no file; "),
        (lambda path: path.symlink_to(path), "Too many levels"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\xff"), "is no text in UTF-8; "),
        (lambda path: path.write_bytes(b"#" * (LARGEST + 1)), "is larger than 1,048,576 bytes"),
    ],
)
def test_one_that_cannot_be_read_is_named(tmp_path, monkeypatch, make, message):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "mine.flags")
    with pytest.raises(FlagError, match=rf"^--flagfile=mine\.flags: {message}"):
        expanded(["--flagfile=mine.flags"])


@pytest.mark.parametrize("arguments", [["--flagfile"], ["--flagfile="], ["--flagfile", ""]])
def test_one_without_a_name_is_asked_for(arguments):
    with pytest.raises(FlagError, match=r"^--flagfile: name the file"):
        expanded(arguments)


@pytest.mark.parametrize(
    ("content", "message"), [(b"--tau=1\n--out=a\0b\n", "has a zero byte"), (b"--tau=1\n--flagfile\n", "name the file")]
)
def test_a_line_that_cannot_be_is_named(write, content, message):
    write(content)
    with pytest.raises(FlagError, match=rf"^mine\.flags:2: {message}"):
        expanded(["--flagfile=mine.flags"])


def test_the_name_of_a_flag():
    assert [name_of(word) for word in ("--tau=0.1", "-tau", "--notau", "digits", "--")] == [
        "tau",
        "tau",
        "notau",
        "",
        "",
    ]
