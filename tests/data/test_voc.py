"""If these fail, a detector learns from boxes that are shifted, of another picture or of another class."""

import io
import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from data.errors import FlagError, UserError
from data.voc import MISSING, VOC_CLASSES, VocObject, open_set, read_classes
from tests.data.pictures import smooth, write
from tests.data.strange_pictures import TURNED
from tests.data.voc_folders import annotation, drawn, some_pictures, write_devkit

OBJECTS = [("dog", (1, 1, 80, 60)), ("cat", (7.5, 8, 9, 10), True)]  # in a picture of 80 x 60 px
SETS = {
    "2007_train": {"000009": OBJECTS, "000002": [], "000005": [("person", (2, 3, 2, 3))]},
    "2007_test": {"000001": [("cow", (1, 2, 3, 4), True)]},
    "2012_train": {"2008_000001": [("sheep", (5, 6, 7, 8))]},
}


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    return write_devkit(tmp_path_factory.mktemp("devkit"), SETS)


def opened(devkit, name="train", **options):
    return open_set(str(devkit), name, **options)


def names(detection_set):
    return [picture.name for picture in detection_set.pictures]


def error_of(devkit, name="train", kind=UserError, **options):
    with pytest.raises(UserError) as error:
        opened(devkit, name, **options)
    assert type(error.value) is kind and "\n" not in str(error.value)
    return str(error.value)


# Boxes


def test_boxes_count_from_0_and_labels_from_1(devkit):
    boxes, labels, difficult = opened(devkit, "2007_train").boxes(0)
    assert boxes.tolist() == [[0, 0, 79, 59], [6.5, 7, 8, 9]]
    assert labels.tolist() == [12, 8]  # alphabetical: aeroplane is 1
    assert difficult.tolist() == [False, True]
    assert (boxes.dtype, labels.dtype, difficult.dtype) == (np.float32, np.int32, bool)


def test_files_that_count_from_0_are_taken_as_they_are(devkit):
    boxes, _, _ = opened(devkit, "2007_train", origin=0).boxes(0)
    assert boxes.tolist() == [[1, 1, 80, 60], [7.5, 8, 9, 10]]
    assert error_of(devkit, "2007_train", FlagError, origin=2).startswith("--box_origin=2: ")


def test_a_picture_without_objects_has_no_boxes(devkit):
    boxes, labels, difficult = opened(devkit, "2007_train").boxes(1)
    assert (boxes.shape, labels.shape, difficult.shape) == ((0, 4), (0,), (0,))


def test_the_classes_are_those_of_the_devkit():
    assert len(VOC_CLASSES) == 20 and list(VOC_CLASSES) == sorted(VOC_CLASSES)
    assert [VOC_CLASSES.index(name) + 1 for name in ("aeroplane", "bottle", "person", "tvmonitor")] == [1, 5, 15, 20]


def test_own_classes_keep_their_order(devkit):
    assert opened(devkit, "2007_train", classes=("dog", "bee", "cat")).boxes(0)[1].tolist() == [1, 3]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5000), min_size=4, max_size=4), max_size=5), st.sampled_from([0, 1]))
def test_whatever_the_corners_are_they_lose_the_origin_alone(tmp_path_factory, corners, origin):
    folder = write_devkit(tmp_path_factory.mktemp("own"), {"train": {"a": []}})
    (folder / "Annotations" / "a.xml").write_text(annotation([("dog", box) for box in corners]))
    boxes, _, _ = opened(folder, origin=origin).boxes(0)
    np.testing.assert_array_equal(boxes, np.reshape(corners, [-1, 4]) - origin)


def test_boxes_of_what_cannot_be_read_are_an_error_that_names_the_file(tmp_path):
    write_devkit(tmp_path, {"train": {"a": OBJECTS, "b": [("Dog", (1, 2, 3, 4))], "c": [("unicorn", (1, 2, 3, 4))]}})
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation>")
    found = opened(tmp_path)
    for row, name, part in ((0, "a", "is no XML"), (1, "b", "only dog; write both"), (2, "c", "--classes_file=FILE")):
        with pytest.raises(UserError) as error:
            found.boxes(row)
        assert str(error.value).startswith(f"{tmp_path}/Annotations/{name}.xml: ") and part in str(error.value)


# Pictures


def test_pictures_are_read_as_they_lie_on_the_disk(devkit):
    found = opened(devkit, "2007_train")
    for row, name in enumerate(SETS["2007_train"]):
        path = devkit / "VOC2007" / "JPEGImages" / f"{name}.jpg"
        assert (found.pictures[row].image, found.read(row)) == (str(path), path.read_bytes())
        assert found.pictures[row].size == found.pictures[row].declared == (60, 80)
    assert found.size == 3


def test_the_size_is_that_of_the_upright_picture(tmp_path):
    """As `data.decoding` turns it, which does not look for a tag in other formats."""
    import tensorflow as tf

    from data.decoding import decode

    write_devkit(tmp_path, {"train": {name: [] for name in ("turned", "mirrored", "png", "late", "gray")}})
    pictures, picture = tmp_path / "JPEGImages", drawn([], (60, 80))
    mirrored = Image.Exif()
    mirrored[0x0112] = 2
    picture.save(pictures / "turned.jpg", exif=TURNED)
    picture.save(pictures / "mirrored.jpg", exif=mirrored)
    words = PngImagePlugin.PngInfo()
    words.add_text("comment", "Exif\0\0")
    picture.save(pictures / "png.jpg", "png", exif=TURNED, pnginfo=words)
    picture.save(pictures / "late.jpg", exif=b"Exif\x00\x00" + TURNED.tobytes())
    data = (pictures / "turned.jpg").read_bytes()
    (pictures / "late.jpg").write_bytes(data[:2] + b"\xff\xfe\x07\xd2" + bytes(2000) + data[2:])  # behind a comment
    picture.convert("L").save(pictures / "gray.jpg")
    found = opened(tmp_path)
    sizes = {picture.name: picture.size for picture in found.pictures}
    flat, tall = (60, 80), (80, 60)
    assert sizes == {"turned": tall, "mirrored": flat, "png": flat, "late": flat, "gray": flat}
    for row, each in enumerate(found.pictures):
        assert tuple(tf.shape(decode(found.read(row)))[:2].numpy()) == each.size, each.name


@pytest.mark.parametrize("extension", [".jpeg", ".JPG", ".png", ".bmp", ".webp", ".gif"])
def test_pictures_may_have_other_extensions(tmp_path, extension):
    write_devkit(tmp_path, {"train": {"a": OBJECTS}})
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    path = tmp_path / "JPEGImages" / f"a{extension}"
    write(path, smooth(0, 30, 40))
    (picture,) = opened(tmp_path).pictures
    assert (picture.image, picture.size, picture.image_problem) == (str(path), (30, 40), "")


def test_of_two_pictures_with_one_id_the_jpg_is_taken(tmp_path):
    write_devkit(tmp_path, {"train": {"a": OBJECTS}})
    for extension in (".png", ".gif", ".txt"):
        write(tmp_path / "JPEGImages" / "b.png", smooth(0, 30, 40))
        (tmp_path / "JPEGImages" / "b.png").rename(tmp_path / "JPEGImages" / f"a{extension}")
    assert opened(tmp_path).pictures[0].image.endswith("/a.jpg")


def test_the_input_pipeline_reads_the_same_bytes(devkit):
    import tensorflow as tf

    from data.reading import reader

    found = opened(devkit, "2007_train+2012_train")
    locate, read = reader(found)
    handles = locate(tf.range(found.size))
    assert [read(handle).numpy() for handle in handles] == [found.read(row) for row in range(found.size)]


def test_what_is_wrong_with_single_pictures_is_remembered(tmp_path):
    write_devkit(tmp_path, {"train": {name: OBJECTS for name in "abcdef"}})
    (tmp_path / "JPEGImages" / "a.jpg").unlink()
    (tmp_path / "JPEGImages" / "b.jpg").write_bytes(b"")
    (tmp_path / "JPEGImages" / "c.jpg").write_bytes(b"<html>404</html>")
    (tmp_path / "Annotations" / "d.xml").unlink()
    (tmp_path / "Annotations" / "e.xml").write_text("<annotation><object/></annotation>")
    (tmp_path / "Annotations" / "f.xml").unlink()
    (tmp_path / "Annotations" / "f.xml").mkdir()
    a, b, c, d, e, f = opened(tmp_path).pictures
    assert (a.image_problem, a.size, len(a.objects)) == (MISSING, None, 2)
    assert (b.image_problem, b.size) == ("is empty (0 bytes)", None)
    assert c.image_problem.startswith("is damaged, or of a format that is not read") and c.size is None
    assert (d.annotation_problem, d.objects, d.size) == (MISSING, (), (60, 80))
    assert (e.annotation_problem, e.objects) == ("object 1 has no <name>", ())
    assert f.annotation_problem == "is no file"


# Which pictures


@pytest.mark.parametrize("name", ["2007_train", "2012_train+2007_test", "2007_test+2012_train+2007_train"])
def test_a_set_has_its_lists_pictures_in_their_order(devkit, name):
    assert names(opened(devkit, name)) == [each for part in name.split("+") for each in SETS[part]]


def test_an_own_folder_has_sets_without_a_year(devkit, tmp_path):
    assert names(opened(devkit / "VOC2007")) == list(SETS["2007_train"])
    folder = write_devkit(tmp_path, {"train": {"x": []}, "val-2": {"y": []}})
    shutil.copy(folder / "ImageSets/Main/train.txt", folder / "ImageSets/Main/2007_mine.txt")
    assert names(opened(f"{folder}/", "val-2+train")) == ["y", "x"]
    assert names(opened(folder, "2007_mine")) == ["x"]


def test_a_folder_may_be_named_from_home(devkit, monkeypatch):
    monkeypatch.setenv("HOME", str(devkit))
    assert opened("~", "2007_train").size == 3
    assert opened("~/VOC2007", "train").size == 3


@pytest.mark.parametrize(
    "text",
    ["x\ny\n", "x  1\ny -1\n", "\ufeffx 0\r\n\r\ny 1\r\n", "x\ny", "  x\t1  \ny\n"],
)
def test_a_list_may_be_written_in_several_ways(tmp_path, text):
    folder = write_devkit(tmp_path, {"train": {"x": [], "y": []}})
    (folder / "ImageSets/Main/train.txt").write_bytes(text.encode())
    assert names(opened(folder)) == ["x", "y"]


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("../../etc/passwd", "is no id"),
        ("/etc/passwd", "is no id"),
        ("..", "is no id"),
        (".", "is no id"),
        ("a/b", "is no id"),
        ("a\\b", "is no id"),
        ("a\x00b", "is no id"),
        ("a\x1b[2J", "is no id"),
        ("x" * 201, "is no id"),
        ("my picture", "is not an id, nor an id and 1, 0 or -1"),
        ("a 1 1", "is not an id"),
        ("a 2", "is not an id"),
        ("x 1", "x stands in line 1 as well"),
    ],
)
def test_a_line_that_is_no_id_is_refused(tmp_path, line, part):
    folder = write_devkit(tmp_path, {"train": {"x": []}})
    path = folder / "ImageSets/Main/train.txt"
    path.write_text(f"x\n\n{line}\n")
    message = error_of(folder)
    assert message.startswith(f"{path}:3: ") and part in message and message.isprintable()


def test_an_id_that_is_no_text_is_refused(tmp_path):
    folder = write_devkit(tmp_path, {"train": {"x": []}})
    (folder / "ImageSets/Main/train.txt").write_bytes(b"\xff\xfe\n")
    assert "train.txt:1: " in error_of(folder)


def test_an_empty_list_is_refused(tmp_path):
    folder = write_devkit(tmp_path, {"train": {}})
    assert error_of(folder) == f"{folder}/ImageSets/Main/train.txt: is empty; it should have one id a line"


def test_no_picture_comes_twice(devkit):
    assert "the id 000009 is there twice" in error_of(devkit, "2007_train+2007_train")


def test_a_folder_or_set_that_is_not_there_says_what_is(devkit, tmp_path):
    write_devkit(tmp_path / "VOCdevkit", SETS)
    for name in ("cat_train", "cat_trainval", "x_y"):
        (tmp_path / "VOCdevkit/VOC2012/ImageSets/Main" / f"{name}.txt").touch()

    def flag_error(folder, name):
        return error_of(folder, name, FlagError)

    assert flag_error(tmp_path / "none", "train") == f"--devkit={tmp_path}/none: there is no such folder"
    assert flag_error(tmp_path, "2007_train") == f"--devkit={tmp_path}: give --devkit={tmp_path}/VOCdevkit"
    assert "holds VOC2007, VOC2012: say 2007_train" in flag_error(devkit, "train")
    assert "holds VOC2007, VOC2012, but nothing for 2010_val" in flag_error(devkit, "2010_val")
    assert "for 2007_test give the folder above it" in flag_error(devkit / "VOC2007", "2007_test")
    assert flag_error(tmp_path / "VOCdevkit", "2012_val").endswith(
        "/VOC2012/ImageSets/Main holds no val.txt, only train"
    )
    assert "holds neither VOC2007 or the like, nor Annotations" in flag_error(devkit / "VOC2007/JPEGImages", "train")
    for name in ("", "2007_train+", "../2007_train", ".x", "a/b", "a b"):
        assert "no name of a set" in flag_error(devkit, name)


@pytest.mark.parametrize("part", ["JPEGImages", "Annotations"])
def test_a_folder_that_is_missing_within_is_named(tmp_path, part):
    folder = write_devkit(tmp_path, {"train": {"x": OBJECTS}})
    shutil.rmtree(folder / part)
    if part == "JPEGImages":
        assert error_of(folder) == f"{folder}/JPEGImages: No such file or directory"
    else:  # as in the test set of VOC2012: its pictures can be looked at all the same
        assert opened(folder).pictures[0].annotation_problem == MISSING


# The fingerprint


def test_the_fingerprint_tells_what_a_detector_would_learn(tmp_path):
    pictures = some_pictures(3)
    base = opened(write_devkit(tmp_path / "a", {"train": pictures})).fingerprint
    assert opened(write_devkit(tmp_path / "moved", {"2012_mine": pictures}), "2012_mine").fingerprint == base
    first, *others = pictures.items()
    name, ((kind, box), *rest) = first
    other = {"cat": "dog", "dog": "cat"}[kind]
    changes = {
        "order": dict([*others, first]),
        "id": {"b": first[1], **dict(others)},
        "class": pictures | {name: [(other, box), *rest]},
        "box": pictures | {name: [(kind, (*box[:3], box[3] + 1)), *rest]},
        "difficult": pictures | {name: [(kind, box, True), *rest]},
        "fewer": dict(others),
    }
    prints = {
        change: opened(write_devkit(tmp_path / change, {"train": made})).fingerprint for change, made in changes.items()
    }
    sizes = {each: (61 if each == name else 60, 80) for each in pictures}
    prints["size"] = opened(write_devkit(tmp_path / "size", {"train": pictures}, size=sizes)).fingerprint
    prints["classes"] = opened(tmp_path / "a", classes=VOC_CLASSES[::-1]).fingerprint
    prints["origin"] = opened(tmp_path / "a", origin=0).fingerprint
    assert len({base, *prints.values()}) == len(prints) + 1


# Class names


def test_class_names_are_read_in_their_order(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffdining table\r\nzebra \r\nÄffin\r\n\r\n".encode())
    assert read_classes(str(path)) == ("dining table", "zebra", "Äffin")


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"", ": is empty"),
        (b"\n \n", ": is empty"),
        (b"cat\n\ndog\n", ":2: is empty; remove the line"),
        (b"cat\ndog\ncat\n", ":3: cat stands in line 1 as well"),
        (b"__background__\ncat\n", ":1: the background is class 0 without being named"),
        (b"cat\n../dog\n", ":2: '../dog' cannot be part of a file's name"),
        (b"c\x1bat\n", ":1: 'c\\\\x1bat' cannot be part of a file's name"),
        (b"\xff\xfec\0a\0t\0", ": is no text in UTF-8"),
        (b"".join(b"%d\n" % i for i in range(5001)), ": has more than 5,000 lines"),
        (b"x" * 2**21, ": has more than 5,000 lines"),
    ],
)
def test_a_list_of_classes_that_is_none_is_refused(tmp_path, data, part):
    path = tmp_path / "classes.txt"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        read_classes(str(path))
    assert str(error.value).startswith(f"{path}{part}") and "\n" not in str(error.value)


def test_a_list_of_classes_that_is_not_there_names_the_flag(tmp_path):
    with pytest.raises(UserError, match=f"--classes_file={tmp_path}/none: No such file"):
        read_classes(f"{tmp_path}/none")


# The real ones


def test_real_annotations(real_pictures):
    """Numbers of 000010 and 000014 as their files have them, read by eye."""
    devkit = real_pictures("VOCdevkit")
    found = opened(devkit, "2007_trainval")
    row = names(found).index("000010")
    assert found.pictures[row].size == (480, 354)
    assert found.pictures[row].objects == (
        VocObject("horse", (87, 97, 258, 427), False),
        VocObject("person", (133, 72, 245, 284), False),
    )
    boxes, labels, _ = found.boxes(row)
    assert boxes.tolist() == [[86, 96, 257, 426], [132, 71, 244, 283]] and labels.tolist() == [13, 15]
    train, val = opened(devkit, "2007_train"), opened(devkit, "2007_val")
    assert sorted([*names(train), *names(val)]) == names(found)
    assert not any(picture.image_problem or picture.annotation_problem for picture in found.pictures)
    for row in range(0, found.size, 50):
        assert Image.open(io.BytesIO(found.read(row))).size[::-1] == found.pictures[row].size
        assert os.path.basename(found.pictures[row].image) == f"{found.pictures[row].name}.jpg"
