"""If these fail, a run starts on boxes that end it hours later, or good sets are refused."""

import pytest

from data.voc import open_set
from data.voc_check import KINDS, Defect, counts, defects, table
from tests.data.strange_pictures import TURNED
from tests.data.voc_folders import drawn, some_pictures, write_devkit

WIDE, HIGH = 80, 60  # px


def found_in(folder, objects, origin=1, **options):
    """The defects of one picture with these objects."""
    write_devkit(folder, {"train": {"a": objects}})
    return defects(open_set(str(folder), "train", origin=origin), **options)


def told(found):
    return [(each.kind, each.object, each.stops) for each in found]


@pytest.mark.parametrize("decode", [False, True])
def test_good_sets_have_no_defects(tmp_path, decode):
    pictures = some_pictures(6)
    pictures["whole"] = [("dog", (1, 1, WIDE, HIGH)), ("cat", (0.5, 0.5, WIDE + 0.5, HIGH + 0.5), True)]
    found = defects(open_set(str(write_devkit(tmp_path, {"train": pictures})), "train"), decode=decode)
    assert found == [] and table(found) == "no defects" and counts(found) == {}


def test_from_0_the_last_column_is_one_less(tmp_path):
    assert found_in(tmp_path, [("dog", (0, 0, WIDE - 1, HIGH - 1)), ("dog", (0, 5, 8, 9))], origin=0) == []


@pytest.mark.parametrize(
    ("box", "origin", "kind", "stops", "detail"),
    [
        ((0, 2, 9, 9), 1, "origin", True, "xmin is 0 in a picture of 80 px, which --box_origin=1 does not allow and "),
        ((2, 0, 9, 9), 1, "origin", True, "ymin is 0 in a picture of 60 px"),
        ((2, 2, WIDE, 9), 0, "origin", True, "xmax is 80 in a picture of 80 px, which --box_origin=0 does not allow"),
        ((2, 2, 9, HIGH), 0, "origin", True, "ymax is 60 in a picture of 60 px"),
        ((-1, 2, 9, 9), 1, "outside", True, "xmin is -1 in a picture of 80 px"),
        ((-1, 2, 9, 9), 0, "outside", True, "xmin is -1"),
        ((2, 2, 9, HIGH + 1), 1, "outside", True, "ymax is 61 in a picture of 60 px"),
        ((2, 2, WIDE + 1, 9), 0, "outside", True, "xmax is 81 in a picture of 80 px"),
        ((9, 2, 8, 9), 1, "flipped", True, "xmax 8 is less than xmin 9"),
        ((2, 9, 9, 8.75), 1, "flipped", True, "ymax 8.75 is less than ymin 9"),
        ((7, 8, 7, 8), 1, "empty box", True, "is the point 7, 8"),
        ((0, 0, 0, 0), 1, "empty box", True, "is the point 0, 0"),
        ((7, 8, 7, 9), 1, "empty box", False, "is a line: xmin and xmax are both 7"),
        ((7, 8, 9, 8), 1, "empty box", False, "is a line: ymin and ymax are both 8"),
    ],
)
def test_a_box_that_is_none_is_named(tmp_path, box, origin, kind, stops, detail):
    (each,) = found_in(tmp_path, [("cat", (2, 2, 9, 9)), ("dog", box)], origin)
    assert (each.kind, each.object, each.stops) == (kind, "object 2 (dog)", stops)
    assert each.file == f"{tmp_path}/Annotations/a.xml" and each.detail.startswith(detail)


def test_a_box_can_be_wrong_twice(tmp_path):
    assert told(found_in(tmp_path, [("unicorn", (9, 2, 8, 70))])) == [
        ("unknown class", "object 1 (unicorn)", True),
        ("flipped", "object 1 (unicorn)", True),
        ("outside", "object 1 (unicorn)", True),
    ]


def at_zero(count):
    return [("dog", (0, 5, 9, 9))] * count


def at_side(count):
    return [("cat", (5, 5, WIDE, 9))] * count


@pytest.mark.parametrize(
    ("zero", "side", "origin", "kind", "part"),
    [
        (3, 0, 1, "origin", "--box_origin=0 does"),
        (10, 2, 1, "origin", "--box_origin=0 does"),
        (2, 10, 1, "outside", "xmin is 0"),  # two slips: all others say that the files count from 1
        (3, 3, 1, "origin", "take 1 off all xmax, ymax; --box_origin=0"),
        (3, 3, 0, "origin", "take 1 off all xmax, ymax; --box_origin=0"),
        (0, 3, 0, "origin", "--box_origin=1 does"),
        (10, 2, 0, "outside", "xmax is 80"),
    ],
)
def test_the_whole_set_tells_which_origin_it_has(tmp_path, zero, side, origin, kind, part):
    found = found_in(tmp_path, at_zero(zero) + at_side(side), origin)
    assert {(each.kind, part in each.detail) for each in found} == {(kind, True)}
    assert len(found) == (zero if origin == 1 else side)


def test_unknown_classes_are_named_with_what_to_do(tmp_path):
    first, second = found_in(tmp_path, [("Dog", (2, 2, 9, 9)), ("bee\x7f", (2, 2, 9, 9))])
    assert (first.kind, second.kind) == ("unknown class", "unknown class")
    assert "only dog; write both alike" in first.detail and "--classes_file=FILE" in second.detail
    assert second.object == "object 2 (bee\\x7f)" and second.detail.isprintable()


def test_pictures_without_anything_to_learn_are_a_note(tmp_path):
    write_devkit(tmp_path, {"train": {"a": [], "b": [("dog", (1, 1, 5, 5), True)], "c": [("dog", (1, 1, 5, 5))]}})
    found = defects(open_set(str(tmp_path), "train"))
    assert told(found) == [("no objects", "", False), ("all difficult", "", False)]
    assert [each.file for each in found] == [f"{tmp_path}/Annotations/{name}.xml" for name in "ab"]


@pytest.fixture
def broken(tmp_path):
    """A set with a picture, or an annotation, for each way to be missing or damaged."""
    write_devkit(tmp_path, {"train": {name: [("dog", (2, 2, 9, 9))] for name in "abcdefg"}})
    pictures, annotations = tmp_path / "JPEGImages", tmp_path / "Annotations"
    (pictures / "a.jpg").unlink()
    (pictures / "b.jpg").write_bytes(b"<html>404</html>")
    whole = (pictures / "c.jpg").read_bytes()
    (pictures / "c.jpg").write_bytes(whole[: len(whole) * 2 // 3])  # its head is whole
    (annotations / "d.xml").unlink()
    (annotations / "e.xml").write_text("<annotation><object>")
    drawn([], (50, 80)).save(pictures / "f.jpg")
    drawn([], (60, 80)).save(pictures / "g.jpg", exif=TURNED)
    return open_set(str(tmp_path), "train")


@pytest.mark.parametrize("decode", [False, True])
def test_what_is_missing_or_damaged_is_named(broken, decode):
    found = {(each.file.rpartition("/")[2], each.kind): each for each in defects(broken, decode=decode)}
    assert found["a.jpg", "picture"].detail == "is missing" and found["a.jpg", "picture"].stops
    assert found["b.jpg", "picture"].detail.startswith("is damaged, or of a format that is not read")
    assert found["d.xml", "no annotation"].stops
    assert "is no XML" in found["e.xml", "damaged annotation"].detail and found["e.xml", "damaged annotation"].stops
    smaller, turned = found["f.xml", "size differs"], found["g.xml", "size differs"]
    assert smaller.detail == "the annotation says 80 x 60, the picture is 80 x 50 px" and not smaller.stops
    assert turned.detail.endswith("the picture is 60 x 80 px; was it annotated before it was turned upright?")
    assert len(found) == (7 if decode else 6)
    if decode:
        assert found["c.jpg", "picture"].detail == "is cut short or damaged" and found["c.jpg", "picture"].stops


def test_the_table_shows_some_of_each_kind_and_counts_the_rest():
    found = [Defect(f"{i}.xml", f"object {i} (dog)", "no objects", "left out", False) for i in range(3)]
    found += [Defect(f"{i}.xml", "", "unknown class", f"class {min(i, 1)}", True) for i in (0, 0, 0, 0, 0, 0, 0, 1)]
    lines = table(found).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["error"] * 6 + ["note"] * 3
    assert lines[2].split()[3:] == ["1.xml", "class", "1"]  # the other class is not hidden behind the first
    assert "... and 3 more" in lines[6]
    assert len(table(found * 1000).splitlines()) == 1 + 2 * 6
    assert counts(found) == {"unknown class": 8, "no objects": 3}
    assert list(counts(found)) == [kind for kind in KINDS if kind in ("unknown class", "no objects")]


def test_a_record_with_a_wrong_checksum_is_found_out_when_it_is_decoded(tmp_path):
    """Sets of TFDS lie in records: what data.reading says of one is said here."""
    tfds = pytest.importorskip("tensorflow_datasets")
    from tensorflow_datasets.object_detection import voc

    pictures = some_pictures(3)
    sets = {f"2007_{name}": {f"{name}{each}": made for each, made in pictures.items()} for name in ("train", "val")}
    write_devkit(tmp_path / "VOCdevkit", sets)
    with tfds.core.registered.skip_registration():

        class Voc(voc.Voc):
            __module__ = "la_checked_voc"  # TFDS looks a dotted one up as a package's file

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples(str(tmp_path), "train")}

    Voc(config="2007", data_dir=tmp_path).download_and_prepare()
    opened = open_set("tfds:voc", "2007_train", tfds_data_dir=str(tmp_path))
    assert defects(opened, decode=True) == []
    (path,) = tmp_path.glob("voc/2007/*/voc-train.tfrecord*")
    data = bytearray(path.read_bytes())
    data[data.index(b"\xff\xd8\xff") + 500] ^= 1
    path.write_bytes(data)
    (each,) = defects(open_set("tfds:voc", "2007_train", tfds_data_dir=str(tmp_path)), decode=True)
    assert (each.kind, each.detail, each.stops) == ("picture", "is damaged: its checksum is wrong", True)
    assert each.file.startswith(f"{path}#")


def test_the_real_sets_have_nothing_that_stops(real_pictures):
    devkit = str(real_pictures("VOCdevkit"))
    assert not any(each.stops for each in defects(open_set(devkit, "2007_trainval+2007_test")))
    wrong = defects(open_set(devkit, "2007_trainval", origin=0))
    assert {(each.kind, "--box_origin=1 does" in each.detail) for each in wrong} == {("origin", True)}
