"""A reader that does all that no reader should."""

import os
import signal

from data.errors import UserError
from tests.fuzz.subjects import Subject

ACTS = ("reads", "refuses", "trips", "dies", "hangs", "grows", "leaves")


def broken(folder) -> Subject:
    """Does one of ACTS, the one that the input names."""

    def read(data):
        act = data.decode()
        if act == "refuses":
            raise UserError("no")
        if act == "trips":
            raise KeyError("a")
        if act == "leaves":
            raise SystemExit(0)
        if act == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        while act == "hangs":
            pass
        if act == "grows":
            bytearray(5 * 2**30)

    return Subject(
        lambda numbers: numbers.choice(ACTS).encode(), lambda data: data != b"reads", read, ("data/errors.py",)
    )
