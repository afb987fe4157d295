"""Reads --flagfile, as absl would, but with the line in what it says, and of nothing that never ends.

A line is an argument; empty lines and those that begin with # or // are passed over; a flagfile may name others. The
arguments stand where --flagfile stood, so those behind it override them. No absl.
"""

import os
import re

from data.errors import FlagError

LARGEST = 2**20  # bytes: a preset has one or two thousand
_STREAMS = re.compile(r"/dev/stdin|/(dev|proc/(self|\d+))/fd/\d+")  # what <(...) of a shell is
_FLAGFILE = re.compile(r"--?flagfile(?:=(.*))?", re.DOTALL)


def expanded(arguments: list[str], above: tuple[str, ...] = ()) -> tuple[list[str], dict[str, str]]:
    """Returns the arguments with what flagfiles hold in place of these, and {argument: file:line} of those from files.

    above: the flagfiles that led here. Raises FlagError naming a file that cannot be read, or line that names itself.
    """
    found, places, rest = [], {}, list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return [*found, argument, *rest], places
        match = _FLAGFILE.fullmatch(argument)
        if match is None:
            found.append(argument)
            places.pop(argument, None)  # the command line says so itself
            continue
        if match[1] is None and not rest:
            raise FlagError("--flagfile: name the file, e.g. --flagfile=quickstart.flags")
        path = rest.pop(0) if match[1] is None else match[1]
        lines, inner = _inside(path, above)
        found += lines
        places |= inner
    return found, places


def name_of(argument: str) -> str:
    """Returns the name of the flag that an argument gives: "tau" of "--tau=0.1"; "" of what is no flag."""
    return argument.lstrip("-").partition("=")[0] if argument.startswith("-") else ""


def _inside(path, above):
    """The arguments in a file and where each stands."""
    real = os.path.realpath(os.path.expanduser(path))
    if real in above:
        raise FlagError(f"--flagfile={path}: leads back to itself; remove that line from {above[-1]}")
    found, places = [], {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        line = line.strip()
        if not line or line.startswith(("#", "//")):
            continue
        if "\0" in line:
            raise FlagError(f"{path}:{number}: has a zero byte, which no flag has")
        nested = _FLAGFILE.fullmatch(line)
        if nested and nested[1] is None:
            raise FlagError(f"{path}:{number}: name the file in the same line, e.g. --flagfile=quickstart.flags")
        arguments, inner = expanded([line], (*above, real)) if nested else ([line], {line: f"{path}:{number}"})
        found += arguments
        places |= inner
    return found, places


def _text(path):
    place = os.path.expanduser(path)
    try:
        if not path:
            raise FlagError("--flagfile: name the file, e.g. --flagfile=quickstart.flags")
        if not _STREAMS.fullmatch(place) and os.path.exists(place) and not os.path.isfile(place):
            if place != os.devnull:
                kind = "is a folder" if os.path.isdir(place) else "is no file"
                raise FlagError(f"--flagfile={path}: {kind}; give a file of flags, one a line")
            return ""
        with open(place, "rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise FlagError(f"--flagfile={path}: {error.strerror}") from None
    if len(data) > LARGEST:
        raise FlagError(f"--flagfile={path}: is larger than {LARGEST:,} bytes, which no file of flags is")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FlagError(f"--flagfile={path}: is no text in UTF-8; give a file of flags, one a line") from None
