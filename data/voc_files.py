"""The sets of `data.voc` that lie in files: the layout of a VOCdevkit, or of one folder of it."""

import functools
import os
import re
from collections.abc import Callable

from data.errors import FlagError, UserError
from data.examination import in_order
from data.picture_size import upright_size
from data.sources import FileSource
from data.voc import MISSING, Annotated, DetectionSet, complete, is_unfit
from data.voc_xml import read_annotation, shown

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif")  # of two pictures with one id the first is taken
_YEAR = re.compile(r"([0-9]{4})_(.+)")


def open_files(devkit: str, name: str, classes: tuple[str, ...], origin: int) -> DetectionSet:
    """What `data.voc.open_set` returns; raises FlagError, UserError and OSError."""
    pictures = []
    for part in name.split("+"):
        folder, path = _place(devkit, part)
        ids = _read_list(path)
        look = functools.partial(_look, folder, _picture_files(os.path.join(folder, "JPEGImages")))
        pictures += in_order(look, ids)
    pictures = complete(pictures, name)
    source = FileSource(devkit, [os.path.relpath(picture.image, devkit) for picture in pictures])
    return DetectionSet(name, classes, origin, pictures, source)


def _place(devkit, part):
    """(folder that holds Annotations, path of the list) of one part of a set's name; raises FlagError."""
    if not os.path.isdir(devkit):
        raise FlagError(f"--devkit={devkit}: there is no such folder")
    year = _YEAR.fullmatch(part)
    if year and os.path.isdir(os.path.join(devkit, f"VOC{year[1]}")):
        folder, name = os.path.join(devkit, f"VOC{year[1]}"), year[2]
    else:
        folder, name = devkit, part
    lists = os.path.join(folder, "ImageSets", "Main")
    if not os.path.isdir(lists):
        raise FlagError(f"--devkit={devkit}: {_what_is_there(devkit, part)}")
    path = os.path.join(lists, f"{name}.txt")
    if not os.path.isfile(path):
        if year and os.path.basename(os.path.abspath(devkit)) == f"VOC{year[1]}":
            raise FlagError(f"--devkit={devkit}: for {part} give the folder above it")
        there = sorted(file[:-4] for file in os.listdir(lists) if file.endswith(".txt"))
        there = [each for each in there if "_" not in each] or there  # not those of single classes
        raise FlagError(f"{part}: {lists} holds no {name}.txt, only {_some(there) or 'nothing'}")
    return folder, path


def _what_is_there(devkit, part):
    """Why a folder is none that can be read, and what to give instead."""
    if os.path.isdir(os.path.join(devkit, "VOCdevkit")):
        return f"give --devkit={os.path.join(devkit, 'VOCdevkit')}"
    years = sorted(name[3:] for name in os.listdir(devkit) if re.fullmatch("VOC[0-9]{4}", name))
    if years and not _YEAR.fullmatch(part):
        return f"holds {_some([f'VOC{year}' for year in years])}: say {years[0]}_{part}"
    if years:
        return f"holds {_some([f'VOC{year}' for year in years])}, but nothing for {part}"
    return "holds neither VOC2007 or the like, nor Annotations, JPEGImages and ImageSets/Main"


def _some(names):
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _read_list(path):
    """The ids in a list; raises UserError naming the line that is none."""
    first = {}
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for line, text in enumerate(file, 1):
            words = text.split()
            if not words:
                continue
            name = words[0]
            if len(words) > 2 or (len(words) == 2 and words[1] not in ("-1", "0", "1")):
                raise UserError(f"{path}:{line}: {shown(text)!r} is not an id, nor an id and 1, 0 or -1")
            if is_unfit(name):
                raise UserError(f"{path}:{line}: {shown(name)!r} is no id: the name of a picture's file without .jpg")
            if name in first:
                raise UserError(f"{path}:{line}: {name} stands in line {first[name]} as well; remove one")
            first[name] = line
    if not first:
        raise UserError(f"{path}: is empty; it should have one id a line")
    return [*first]


def _picture_files(folder):
    """{id: name of the picture's file} in a folder."""
    rank = {extension: -place for place, extension in enumerate(EXTENSIONS)}
    names = (os.path.splitext(name) for name in os.listdir(folder))
    found = sorted((rank[extension.lower()], stem, extension) for stem, extension in names if extension.lower() in rank)
    return {stem: stem + extension for _, stem, extension in found}  # the last one, of the first extension, stays


def _look(folder, files, name):
    """The picture with the id `name`."""
    image = os.path.join(folder, "JPEGImages", files.get(name, f"{name}.jpg"))
    annotation = os.path.join(folder, "Annotations", f"{name}.xml")
    size, image_problem = _attempt(_size_of_file, image)
    found, annotation_problem = _attempt(read_annotation, annotation)
    declared, objects = found or (None, ())
    return Annotated(name, image, annotation, size, objects, declared, image_problem, annotation_problem)


def _attempt(read: Callable, path):
    """(what `read` gives, "") or (None, why it gives nothing)."""
    try:
        return read(path), ""
    except FileNotFoundError:
        return None, MISSING
    except OSError as error:
        return None, f"cannot be read: {error.strerror}"
    except ValueError as error:
        return None, str(error)


def _size_of_file(path):
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("is no file")
    with open(path, "rb") as file:
        return upright_size(file)
