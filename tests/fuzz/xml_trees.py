"""Annotations in the manner of VOC that are well-formed, mostly, and say what no annotation should."""

import copy
import io
from xml.etree import ElementTree

from tests.fuzz import octets

TEXTS = (
    "", " ", "0", "1", "-1", "2", "+3.", ".5", "1e3", "1e999", "9" * 400, "nan", "inf", "0x10", "1_000", "٣", "1,5",
    "3 4", "999999", "1000000", "1000001", "-0", "\t7\n", "dog", "p\x85q", "‮", "ä" * 500, "a/../b", "person" * 20,
)  # fmt: skip
TAGS = (
    "annotation",
    "object",
    "name",
    "bndbox",
    "xmin",
    "ymax",
    "difficult",
    "size",
    "width",
    "part",
    "{urn:x}name",
    "é",
)
DOCTYPES = (
    "<!DOCTYPE a>",
    "<!DOCTYPE a [<!ENTITY b 'c'>]>",
    "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>",
    "<!DOCTYPE a SYSTEM 'http://localhost:1/x.dtd'>",
    "<!DOCTYPE a [<!ENTITY % p SYSTEM 'file:///dev/zero'> %p;]>",
)
ENCODINGS = ("utf-8", "utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "ascii")


def document(root, numbers) -> bytes:
    """An ElementTree changed 1 to 4 times, as XML; one in six broken as bytes besides."""
    root = copy.deepcopy(root)
    for _ in range(numbers.randint(1, 4)):
        _change(root, numbers)
    text = io.StringIO()
    ElementTree.ElementTree(root).write(text, encoding="unicode", short_empty_elements=numbers.random() < 0.5)
    data = _prolog(text.getvalue(), numbers)
    return octets.changed(data, numbers) if numbers.random() < 1 / 6 else data


def parses(data: bytes) -> bool:
    """Whether it is XML without a document type."""
    try:
        ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError):
        return False
    return b"<!DOCTYPE" not in data


def _change(root, numbers):
    parent = numbers.choice([each for each in root.iter()])
    kind = numbers.randrange(9)
    if kind == 0:
        parent.tag = numbers.choice(TAGS)
    elif kind == 1 and len(parent):
        parent.remove(numbers.choice([*parent]))
    elif kind == 2 and len(parent):
        parent.append(copy.deepcopy(numbers.choice([*parent])))
    elif kind == 3:
        inner = parent
        for _ in range(numbers.choice((2, 31, 40, 200))):
            inner = ElementTree.SubElement(inner, parent.tag)
    elif kind == 4:
        parent.set(numbers.choice(("a", "xml:lang", "é")), numbers.choice(TEXTS).replace("\x85", ""))
    elif kind == 5 and len(parent) > 1:
        parent[:] = numbers.sample([*parent], len(parent))
    elif kind == 6:
        parent.append(ElementTree.Comment("of somebody"))
    else:
        leaf = numbers.choice([each for each in root.iter() if not len(each)] or [root])
        leaf.text = numbers.choice(TEXTS)


def _prolog(text, numbers):
    if numbers.random() < 0.08:
        text = numbers.choice(DOCTYPES) + text
    encoding = numbers.choice(ENCODINGS)
    if numbers.random() < 0.2:
        declared = numbers.choice((encoding.removesuffix("-sig"), "koi8-r", "utf-32", "x-unknown", "utf-7", "rot13"))
        text = f'<?xml version="1.0" encoding="{declared}"?>{text}'
    return text.encode(encoding, "xmlcharrefreplace" if encoding in ("ascii", "iso-8859-1") else "replace")
