"""Which picture files a command line names, and how what is drawn of them is called. No TensorFlow.

Names may be any bytes: those that are no UTF-8 are str as Python has them (surrogateescape).
"""

import os

from data.errors import FlagError
from data.folder import EXTENSIONS

LONGEST = 200  # bytes of a name that is kept: with what is added, file systems take 255


def picture_files(paths) -> list[str]:
    """Returns the files among `paths` and, in the place of a folder, the pictures in it by name.

    Raises FlagError where there is nothing to look at. That a file is there and is a picture is not checked.
    """
    if not paths:
        raise FlagError("IMAGE: name the pictures to look at, files or folders, e.g. photos/ cat.jpg")
    return [file for path in paths for file in (_pictures_in(path) if os.path.isdir(path) else [path])]


def _pictures_in(folder):
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file() and entry.name[0] != ".")
    pictures = [os.path.join(folder, name) for name in names if name.lower().endswith(EXTENSIONS)]
    if not pictures:
        raise FlagError(f"{folder}: holds no pictures ({' '.join(EXTENSIONS)}); name a folder that does, or files")
    return pictures


def check_apart(files, out):
    """Raises FlagError where a picture to look at lies in the folder `out`: what is drawn could overwrite it."""
    if os.path.realpath(out) in {os.path.realpath(os.path.dirname(file) or ".") for file in files}:
        raise FlagError(f"--out={out}: holds pictures that are to be looked at; choose another folder")


def drawn_names(files) -> list[str]:
    """Returns a name for the PNG of each file: its own, with -2, -3, ... where an earlier one has it already."""
    taken = {}  # a dict keeps their order
    for file in files:
        stem = os.path.splitext(os.path.basename(file))[0]
        stem = os.fsdecode(os.fsencode(stem)[:LONGEST])
        name, number = f"{stem}.png", 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}.png"
        taken[name] = file
    return list(taken)
