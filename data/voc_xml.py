"""What the XML file of one VOC picture says, read so that no file can do harm, wherever it comes from.

A file that declares a document type is refused: entities, which may grow without end or stand for other files, need
one.  So is a file that is larger, or nested more deeply, than annotations are.
"""

import math
import os
import re
from dataclasses import dataclass
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

LARGEST = 2**21  # bytes: those of VOC end at some 10 kB, 5,000 objects take 2 MB
DEEPEST = 32  # elements inside each other: those of VOC go down to 5
FARTHEST = 10**6  # px that a corner may be away from 0
CORNERS = ("xmin", "ymin", "xmax", "ymax")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_SHOWN = 40  # characters of what a file says that a message repeats


@dataclass(frozen=True)
class VocObject:
    """One annotated object."""

    name: str  # of its class
    box: tuple[float, float, float, float]  # xmin, ymin, xmax, ymax, px, as the file has them
    difficult: bool


def read_annotation(path: str) -> tuple[tuple[int, int] | None, tuple[VocObject, ...]]:
    """((height, width) of the picture as the file declares it, None where it does not; the objects).

    Raises OSError, and ValueError saying in a few words what is wrong with the file or with which object.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError("is no file")  # a pipe would never end
    with open(path, "rb") as file:
        data = file.read(LARGEST + 1)
    return annotation_of(parse(data))


def parse(data: bytes) -> Element:
    """The root of an XML document; raises ValueError for one that is broken, or could do harm."""
    if len(data) > LARGEST:
        raise ValueError(f"is larger than {LARGEST:,} bytes, which no annotation is")
    if not data:
        raise ValueError("is empty (0 bytes)")
    builder, depth = TreeBuilder(), 0

    def start(tag, attributes):
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise _Harmful(f"is nested more than {DEEPEST} elements deep, which no annotation is")
        builder.start(tag, attributes)

    def end(tag):
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_):
        raise _Harmful("declares a document type (<!DOCTYPE ...>), which is not read; remove the declaration")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except _Harmful:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:  # the last two: of encodings that cannot be read
        raise ValueError(f"is no XML that can be read ({shown(error, 80)})") from error
    return builder.close()


def annotation_of(root: Element) -> tuple[tuple[int, int] | None, tuple[VocObject, ...]]:
    """What `read_annotation` returns, of the file's root; raises ValueError."""
    if root.tag != "annotation":
        raise ValueError(f"begins with <{shown(root.tag)}>, not with <annotation> as VOC's files do")
    sides = [_text(root, f"size/{side}") for side in ("height", "width")]
    declared = tuple(map(int, sides)) if all(re.fullmatch("[0-9]{1,6}", side) for side in sides) else None
    return declared, tuple(_object(number, each) for number, each in enumerate(root.iterfind("object"), 1))


def shown(text, length: int = _SHOWN) -> str:
    """What a file says as a message may repeat it: on one line, without control characters, not too long."""
    text = " ".join(str(text).split())
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= length else f"{text[:length]}..."


class _Harmful(ValueError):
    """What is XML and is not read all the same."""


def _object(number, element):
    name = _text(element, "name")
    where = f"object {number}" + (f" ({shown(name)})" if name else "")
    if not name:
        raise ValueError(f"{where} has no <name>")
    if element.find("bndbox") is None:
        raise ValueError(f"{where} has no <bndbox>")
    # Looked for in the object itself alone: parts of an object (head, hand) have boxes of their own.
    box = tuple(_corner(where, corner, _text(element, f"bndbox/{corner}")) for corner in CORNERS)
    difficult = _text(element, "difficult") or "0"
    if difficult not in ("0", "1"):
        raise ValueError(f"{where} has <difficult> {shown(difficult)!r}, which is neither 0 nor 1")
    return VocObject(name, box, difficult == "1")


def _corner(where, corner, text):
    if not text:
        raise ValueError(f"{where} has no <{corner}>")
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{where} has <{corner}> {shown(text)!r}, which is no number")
    value = float(text)
    if not math.isfinite(value) or abs(value) > FARTHEST:
        raise ValueError(f"{where} has <{corner}> {shown(text)}, which is no place in a picture")
    return value


def _text(element, path):
    return (element.findtext(path) or "").strip()
