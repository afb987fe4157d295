"""What a JSON document has to look like, told in one go when it is read, so that nobody trips over it later.

A kind is a function of a value that returns "" where the value is of it, else what is wrong, as in "is no number", or
"splits.train.count is no number" of what is inside.
"""

import json
import math
import os
import types
import typing

from data.errors import UserError

LARGEST = 2**63  # of a number: what is larger fits into none of NumPy's integers
_SHOWN = 80  # characters of a name
_LEAF = ("is ", "lacks ")  # how what is wrong with the value itself begins


def loads(text: str | bytes):
    """`json.loads`; raises ValueError for whatever is no JSON, of which one that is nested without end is a kind."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read(path, kind=None, remedy: str = ""):
    """The JSON document in a file, which is of a `kind`; raises UserError naming the file, and what to do.

    OSError is as it was: that a file is not there means something else to everyone.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path}: is no file")  # a pipe would never end
    with open(path, "rb") as file:
        data = file.read()
    try:
        value = loads(data)
        check(value, kind or anything)
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}){f'; {remedy}' if remedy else ''}") from None
    return value


def check(value, kind):
    """Returns the value; raises ValueError saying what in it is not of the `kind`."""
    if wrong := kind(value):
        raise ValueError(f"it {wrong}" if wrong.startswith(_LEAF) else wrong)
    return value


def text(value):
    return "" if isinstance(value, str) else "is no text"


def boolean(value):
    return "" if isinstance(value, bool) else "is neither true nor false"


def whole(value):
    return "" if _is_whole(value) else "is no whole number"


def count(value):
    return "" if _is_whole(value) and value >= 0 else "is no whole number of 0 or more"


def number(value):
    """NaN and infinities are numbers: a loss may become one."""
    is_float = isinstance(value, float) and (not math.isfinite(value) or abs(value) < LARGEST)
    return "" if is_float or _is_whole(value) else "is no number"


def finite(value):
    return "" if not number(value) and math.isfinite(value) else "is no finite number"


def anything(value):
    return ""


def one_of(*kinds):
    """A value of any of these kinds."""

    def kind(value):
        found = [one(value) for one in kinds]
        return "" if "" in found else found[0]

    return kind


def optional(kind):
    """null, or a value of this kind."""
    return lambda value: "" if value is None else kind(value)


def array(kind):
    """A list whose entries are of this kind."""

    def problem(value):
        if not isinstance(value, list):
            return "is no list"
        return next((_inside(f"[{place}]", wrong) for place, one in enumerate(value) if (wrong := kind(one))), "")

    return problem


def shaped(*kinds):
    """A list of one entry of each of these kinds, in this order."""

    def problem(value):
        if not isinstance(value, list) or len(value) != len(kinds):
            return f"is no list of {len(kinds)}"
        places = zip(kinds, value, strict=True)
        return next(
            (_inside(f"[{place}]", wrong) for place, (kind, one) in enumerate(places) if (wrong := kind(one))), ""
        )

    return problem


def table(kind):
    """An object whose values, whatever their names, are of this kind."""

    def problem(value):
        if not isinstance(value, dict):
            return "is no object"
        return next((_inside(name, wrong) for name, one in value.items() if (wrong := kind(one))), "")

    return problem


def record(needed=None, allowed=None):
    """An object that has the `needed` names, {name: kind}; those that are `allowed` are of their kind, or not there."""
    needed, allowed = needed or {}, allowed or {}

    def problem(value):
        if not isinstance(value, dict):
            return "is no object"
        missing = [name for name in needed if name not in value]
        if missing:
            return f"lacks {', '.join(missing)}"
        kinds = ((name, kind) for name, kind in {**needed, **allowed}.items() if name in value)
        return next((_inside(name, wrong) for name, kind in kinds if (wrong := kind(value[name]))), "")

    return problem


def of(annotation):
    """The kind of values that a Python type, or a union of some, stands for."""
    if isinstance(annotation, types.UnionType):
        return one_of(*map(of, typing.get_args(annotation)))
    return {
        bool: boolean,
        int: whole,
        float: number,
        str: text,
        list: array(anything),
        dict: record(),
        types.NoneType: lambda value: "" if value is None else "is not null",
    }[annotation]


def _is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool) and -LARGEST <= value < LARGEST


def _inside(name, wrong):
    """ "train" and "[3] is no text" -> "train[3] is no text"."""
    between = " " if wrong.startswith(_LEAF) else "" if wrong.startswith("[") else "."
    return f"{str(name)[:_SHOWN]}{between}{wrong}"
