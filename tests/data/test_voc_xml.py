"""If these fail, an annotation is misread, or a file from anywhere can fill the memory or reach other files."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.voc_xml import LARGEST, VocObject, annotation_of, parse, read_annotation, shown
from tests.data.voc_folders import annotation

# In the manner of VOC2007's 000005 and of VOC2012, whose objects have parts and corners between pixels.
WHOLE = """<?xml version="1.0"?>
<annotation>
	<folder>VOC2012</folder>
	<size><width>500</width><height>375</height><depth>3</depth></size>
	<object>
		<name> person </name>
		<part><name>head</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></part>
		<difficult>1</difficult>
		<bndbox><ymax>372</ymax><ymin>211.5</ymin><xmax>3.24e2</xmax><xmin>263</xmin></bndbox>
	</object>
	<object>
		<name>tr&#228;n</name>
		<bndbox><xmin>-1</xmin><ymin>+2</ymin><xmax>3.</xmax><ymax>.5</ymax></bndbox>
	</object>
</annotation>
"""


def read(text):
    return annotation_of(parse(text.encode() if isinstance(text, str) else text))


def reason(text):
    with pytest.raises(ValueError) as error:
        read(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200
    return str(error.value)


def test_a_whole_annotation():
    size, objects = read(WHOLE)
    assert size == (375, 500)
    assert objects == (
        VocObject("person", (263.0, 211.5, 324.0, 372.0), True),
        VocObject("trän", (-1.0, 2.0, 3.0, 0.5), False),
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "iso-8859-1", "cp1252", "koi8-r"])
def test_other_encodings_are_read(encoding):
    name = "поезд" if encoding in ("koi8-r", "utf-16") else "trän"
    declared = encoding.removesuffix("-sig")
    text = f'<?xml version="1.0" encoding="{declared}"?>' + annotation([(name, (1, 2, 3, 4))])
    assert read(text.encode(encoding))[1][0].name == name


@given(st.lists(st.tuples(st.tuples(*[st.integers(-999, 99999)] * 4), st.booleans())))
def test_what_is_written_is_read(objects):
    _, found = read(annotation([("dog", box, difficult) for box, difficult in objects]))
    assert [(each.box, each.difficult) for each in found] == objects


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width>5</width></size>", "<size><width>x</width></size>"])
def test_a_size_that_is_not_declared(size):
    assert read(f"<annotation>{size}</annotation>") == (None, ())


# What could do harm

LAUGHS = (
    "<!DOCTYPE lolz [<!ENTITY a0 'ha'>"
    + "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 10))
    + "]><annotation><object><name>&a9;</name></object></annotation>"
)
OUTSIDE = "<!DOCTYPE a [<!ENTITY secret SYSTEM 'file:///etc/passwd'>]><annotation>&secret;</annotation>"
PARAMETER = "<!DOCTYPE a [<!ENTITY % dtd SYSTEM 'http://localhost:1/x.dtd'> %dtd;]><annotation/>"


@pytest.mark.parametrize(
    "text",
    [LAUGHS, OUTSIDE, PARAMETER, "<!DOCTYPE annotation><annotation/>", "<!DOCTYPE a SYSTEM 'x.dtd'><annotation/>"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-bom"])
def test_a_document_type_is_refused_in_any_encoding(text, encoding):
    data = b"\xfe\xff" + text.encode("utf-16-be") if encoding == "utf-16-be-bom" else text.encode(encoding)
    begun = time.monotonic()
    assert "declares a document type" in reason(data)
    assert time.monotonic() - begun < 1


def test_entities_cannot_be_used_without_being_declared():
    assert "undefined entity" in reason("<annotation>&secret;</annotation>")
    assert (
        read("<annotation><object><name>&lt;&amp;</name></object></annotation>".replace("</name>", "</name>" + BOX))[1][
            0
        ].name
        == "<&"
    )


BOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>"


def test_a_huge_file_is_refused_without_being_read(tmp_path):
    path = tmp_path / "huge.xml"
    with open(path, "wb") as file:
        file.truncate(2**40)  # a hole: it takes no place
    with pytest.raises(ValueError, match="larger than 2,097,152 bytes"):
        read_annotation(str(path))
    fitting = b"<annotation>" + b" " * (LARGEST - 25) + b"</annotation>"
    assert len(fitting) == LARGEST and read(fitting) == (None, ())
    assert "larger" in reason(fitting + b"\n")


@pytest.mark.parametrize("depth", [33, 100_000])
def test_deep_nesting_is_refused(depth):
    assert "nested more than 32 elements deep" in reason("<a>" * depth + "</a>" * depth)
    assert read("<annotation>" * 32 + "</annotation>" * 32) == (None, ())


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.xml")  # to open it would wait for ever
    with pytest.raises(ValueError, match="is no file"):
        read_annotation(str(tmp_path / "pipe.xml"))
    with pytest.raises(ValueError, match="is no file"):
        read_annotation(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        read_annotation(str(tmp_path / "none.xml"))


# What is broken


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", "is empty (0 bytes)"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not well-formed (invalid token): line 1, column 0"),
        (b"hello", "is no XML that can be read"),
        (b"<annotation></annotation><annotation/>", "junk after document element"),
        (b"<html><body>404</body></html>", "begins with <html>, not with <annotation>"),
        (b"<annotation>\xff\xfe</annotation>", "not well-formed"),
        ("<annotation/>".encode("utf-16-le")[:-1], "is no XML that can be read"),
        (b"<?xml version='1.0' encoding='gb2312'?><annotation/>", "multi-byte encodings are not supported"),
        (b"<?xml version='1.0' encoding='martian'?><annotation/>", "unknown encoding"),
        (b"<?xml version='1.0' encoding='zlib'?><annotation/>", "is no XML that can be read"),
        (b"<?xml version='1.0' encoding='undefined'?><annotation/>", "is no XML that can be read"),
    ],
)
def test_what_is_no_xml_is_named(data, part):
    assert part in reason(data)


def test_a_file_that_is_cut_short_is_never_taken_for_whole():
    data = WHOLE.rstrip().encode()
    for length in range(1, len(data)):
        assert reason(data[:length]).startswith("is no XML that can be read (")


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda data: WHOLE[:200].encode() + data))
def test_any_bytes_end_in_an_annotation_or_one_line(data):
    try:
        annotation_of(parse(data))
    except ValueError as error:
        assert "\n" not in str(error)


def one_object(inside):
    return f"<annotation><object><name>cat</name>{BOX}</object><object>{inside}</object></annotation>"


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        (BOX, "object 2 has no <name>"),
        (f"<name> </name>{BOX}", "object 2 has no <name>"),
        ("<name>dog</name>", "object 2 (dog) has no <bndbox>"),
        (f"<name>dog</name><part>{BOX}</part>", "object 2 (dog) has no <bndbox>"),
        (f"<name>dog</name>{BOX.replace('<ymin>1</ymin>', '')}", "object 2 (dog) has no <ymin>"),
        (f"<name>dog</name>{BOX}<difficult>maybe</difficult>", "has <difficult> 'maybe', which is neither 0 nor 1"),
        *(
            (f"<name>dog</name>{BOX.replace('<ymin>1<', f'<ymin>{text}<')}", f"object 2 (dog) has <ymin> '{text}'")
            for text in ("nan", "inf", "1,5", "1_0", "0x10", "٣", "1 2", "--1", "e5")
        ),
        *(
            (f"<name>dog</name>{BOX.replace('<ymin>1<', f'<ymin>{text}<')}", f"has <ymin> {text}, which is no place")
            for text in ("1e999", "-1000001")
        ),
    ],
)
def test_an_object_that_is_broken_is_named(inside, expected):
    assert expected in reason(one_object(inside))


def test_messages_repeat_no_control_characters_and_not_too_much():
    name = "\t\x7f[2J" + "long" * 100
    message = reason(f"<annotation><object><name>{name}</name></object></annotation>")
    assert message.startswith("object 1 (\\x7f[2Jlong") and message.isprintable()
    assert shown("a\n b\r\n\tc") == "a b c" and shown("x" * 40) == "x" * 40 and shown("x" * 41) == "x" * 40 + "..."
