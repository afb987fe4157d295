"""If these fail, a list gives a picture another's label, or a wrong list is taken for a right one."""

import os

import numpy as np
import pytest

from data.errors import UserError
from data.sources import open_dataset
from tests.data.pictures import smooth, write


@pytest.fixture
def folder(tmp_path):
    """A folder of pictures that lists can name."""
    for name in ("a/1.jpg", "a/two words.jpg", "b/3, 4.png", "b/5.png"):
        write(tmp_path / name, smooth(0, 10, 10))
    return tmp_path


def opened(path, text, **options):
    path.write_text(text)
    return open_dataset(f"list:{path}", **options)


def error_of(path, text, **options):
    with pytest.raises(UserError) as error:
        opened(path, text, **options)
    assert error.value.exit_code == 1 and "\n" not in str(error.value)
    return str(error.value)


def listed(split):
    return list(zip(split.names, split.labels.tolist(), strict=True))


@pytest.mark.parametrize("separator", [" ", ",", "\t", ", "])
def test_path_and_number(folder, separator):
    lines = [f"{name}{separator}{label}" for name, label in (("a/1.jpg", 7), ("b/5.png", 0), ("a/two words.jpg", 7))]
    dataset = opened(folder / "list.txt", "\n".join(lines))
    assert listed(dataset.train) == [("a/1.jpg", 7), ("b/5.png", 0), ("a/two words.jpg", 7)]
    assert dataset.train.labels.dtype == np.int64
    assert dataset.class_names == () and dataset.class_count == 8 and dataset.test is None
    assert dataset.train.source.read(1) == (folder / "b/5.png").read_bytes()


def test_the_label_is_what_follows_the_last_separator(folder):
    text = "a/two words.jpg 3\r\n\r\nb/3, 4.png 1\nb/3, 4.png,2\n"
    dataset = opened(folder / "list.txt", text)
    assert listed(dataset.train) == [("a/two words.jpg", 3), ("b/3, 4.png", 1), ("b/3, 4.png", 2)]


@pytest.mark.parametrize(
    "lines",
    [
        ["a/1.jpg,new york", "a/two words.jpg, rome", "b/3, 4.png,new york", "b/5.png,"],
        ['"a/1.jpg","new york"', '"a/two words.jpg",rome', '"b/3, 4.png", "new york"', 'b/5.png,""'],
        ['a/1.jpg,"new york"\r', "a/two words.jpg,rome\r", "\r", '"b/3, 4.png",new york\r', "b/5.png ,\r"],
    ],
)
def test_a_label_may_hold_blanks_where_commas_separate(folder, lines):
    dataset = opened(folder / "list.txt", "\n".join(lines))
    assert dataset.class_names == ("new york", "rome")
    names = ["a/1.jpg", "a/two words.jpg", "b/3, 4.png", "b/5.png"]
    assert listed(dataset.train) == list(zip(names, [0, 1, 0, -1], strict=True))


def test_a_comma_in_the_first_path_separates_nothing(folder):
    dataset = opened(folder / "list.txt", "b/3, 4.png 1\na/1.jpg 0\n")
    assert listed(dataset.train) == [("b/3, 4.png", 1), ("a/1.jpg", 0)]


def test_blanks_around_a_path_are_no_part_of_it(folder):
    dataset = opened(folder / "l.csv", "label, path\n3, a/1.jpg\n4,b/5.png \n")
    assert listed(dataset.train) == [("a/1.jpg", 3), ("b/5.png", 4)]


def test_minus_one_is_an_unknown_label(folder):
    assert listed(opened(folder / "l", "a/1.jpg -1\nb/5.png 4\n").train) == [("a/1.jpg", -1), ("b/5.png", 4)]


def test_words_become_classes_in_sorted_order(folder):
    dataset = opened(folder / "list.txt", "a/1.jpg palm\nb/5.png acorn\na/two words.jpg palm\n")
    assert dataset.class_names == ("acorn", "palm")
    assert listed(dataset.train) == [("a/1.jpg", 1), ("b/5.png", 0), ("a/two words.jpg", 1)]


def test_paths_alone_are_unlabelled(folder):
    dataset = opened(folder / "list.txt", "a/two words.jpg\nb/3, 4.png\nb/5.png\n")
    assert listed(dataset.train) == [("a/two words.jpg", -1), ("b/3, 4.png", -1), ("b/5.png", -1)]
    assert dataset.class_count == 0


@pytest.mark.parametrize(
    "text",
    [
        "Class,width,File\npalm,10,a/1.jpg\nacorn,10,b/5.png\n",
        "\ufefffile_name;category\na/1.jpg;palm\n\nb/5.png;acorn\n",
        'IMAGE , label\n"a/1.jpg", palm\r\n"b/5.png", acorn\r\n',
        "class_name\tpath\tlabel\nx\ta/1.jpg\tpalm\ny\tb/5.png\tacorn\n",  # label comes before class_name
    ],
)
def test_a_csv_with_a_header(folder, text):
    dataset = opened(folder / "list.csv", text)
    assert dataset.class_names == ("acorn", "palm")
    assert listed(dataset.train) == [("a/1.jpg", 1), ("b/5.png", 0)]


def test_a_csv_may_leave_labels_out(folder):
    assert listed(opened(folder / "l", "path,label\na/1.jpg,3\nb/5.png,\n").train) == [("a/1.jpg", 3), ("b/5.png", -1)]
    assert listed(opened(folder / "l", "path,width\na/1.jpg,3\n").train) == [("a/1.jpg", -1)]
    assert listed(opened(folder / "l", 'path\n"b/3, 4.png"\n').train) == [("b/3, 4.png", -1)]


def test_an_unknown_header_is_refused_with_its_columns(folder):
    message = error_of(folder / "l.csv", "url,height,class\na/1.jpg,10,palm\n")
    assert "l.csv" in message and "url, height, class" in message and "image_path" in message


def test_paths_start_from_the_image_root(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("lists") / "train.txt"
    dataset = opened(elsewhere, "1.jpg 0\n", image_root=str(folder / "a"))
    assert dataset.train.source.path(0) == str(folder / "a" / "1.jpg")
    message = error_of(elsewhere, "1.jpg 0\n")
    assert "--image_root" in message and str(elsewhere.parent / "1.jpg") in message


def test_paths_may_be_absolute(folder, tmp_path_factory):
    dataset = opened(tmp_path_factory.mktemp("lists") / "train.txt", f"{folder}/a/1.jpg 0\n")
    assert dataset.train.source.path(0) == f"{folder}/a/1.jpg"


def test_some_missing_pictures_are_found_out_later(folder):
    lines = [f"gone/{i}.jpg 0\n" for i in range(99)]
    assert opened(folder / "l", "".join([*lines, "a/1.jpg 1\n"])).train.size == 100
    message = error_of(folder / "l", "".join([*lines, "gone/99.jpg 0\n", "a/1.jpg 1\n"]))
    assert "gone/0.jpg" in message and "--image_root" in message


def test_a_file_name_may_be_any_bytes(folder):
    (folder / "list.txt").write_bytes(b"a/\xff.jpg 3\n")
    (folder / "a" / b"\xff.jpg".decode(errors="surrogateescape")).write_bytes(b"here")
    dataset = open_dataset(f"list:{folder}/list.txt")
    assert dataset.train.source.read(0) == b"here"


@pytest.mark.parametrize(
    ("name", "test_name"),
    [
        ("train_places205.csv", "val_places205.csv"),
        ("places-train.txt", "places-test.txt"),
        ("train.train", "train.validation"),
    ],
)
def test_the_test_list_is_found_by_name(folder, name, test_name):
    (folder / test_name).write_text("b/5.png 1\n")
    dataset = opened(folder / name, "a/1.jpg 0\nb/5.png 1\n")
    assert listed(dataset.test) == [("b/5.png", 1)] and dataset.test.name == "test"


def test_val_comes_before_test_and_the_folder_is_not_renamed(folder):
    (folder / "train").mkdir()
    (folder / "test").mkdir()
    (folder / "test" / "list.txt").write_text("b/5.png 1\n")
    root = str(folder)
    assert opened(folder / "train" / "list.txt", "a/1.jpg 0\n", image_root=root).test is None
    (folder / "test.txt").write_text("b/5.png 0\n")
    (folder / "val.txt").write_text("b/5.png 1\n")
    assert listed(opened(folder / "train.txt", "a/1.jpg 1\n").test) == [("b/5.png", 1)]


def test_test_labels_are_numbers_of_train_classes(folder):
    (folder / "val.csv").write_text("class,file\npalm,b/5.png\n,a/1.jpg\n")
    dataset = opened(folder / "train.csv", "file,class\na/1.jpg,acorn\na/two words.jpg,palm\n")
    assert listed(dataset.test) == [("b/5.png", 1), ("a/1.jpg", -1)]
    (folder / "val.csv").write_text("class,file\npalm,b/5.png\n\nyak,a/1.jpg\n")
    assert "val.csv:4:" in error_of(folder / "train.csv", "file,class\na/1.jpg,palm\n")


def test_a_test_label_beyond_those_of_train_is_named(folder):
    (folder / "val.txt").write_text("a/1.jpg 1\nb/5.png 2\n")
    message = error_of(folder / "train.txt", "a/1.jpg 0\nb/5.png 1\n")
    assert "val.txt:2:" in message and "label 2" in message


def test_an_unlabelled_train_list_makes_the_test_list_unlabelled(folder):
    (folder / "val.txt").write_text("a/1.jpg 1\n")
    assert listed(opened(folder / "train.txt", "a/1.jpg\n").test) == [("a/1.jpg", -1)]


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("", "list:", "empty"),
        ("\n \n", "list:", "empty"),
        ("path,label\n", "list:", "names no pictures"),
        ("a/1.jpg 1\n\nb/5.png\n", "list:3:", "has no label"),
        ("a/1.jpg\nb/5.png 1\n", "list:2:", "has a label"),
        ("a/1.jpg,1\nb/5.png\n", "list:2:", "has no label"),
        ("a/1.jpg,1\n,2\n", "list:2:", "has no path"),
        ("file,label\na/1.jpg,1\nb/5.png\n", "list:3:", "has no label"),
        ("label,file\n1,a/1.jpg\n\n2,\n", "list:4:", "has no file"),
        ("a/1.jpg 1\nb/5.png -3\na/1.jpg 2\n", "list:2:", "'-3'"),
        ("a/1.jpg palm\nb/5.png fig\na/1.jpg 2\n", "list:3:", "'2', where others are words"),
        ("a/1.jpg 1\nb/5.png 12345678901\n", "list:2:", "12345678901"),
        ("name.of label\na/1.jpg 1\nb/5.png 2\n", "list:1:", "header"),
    ],
)
def test_errors_name_file_and_line(folder, text, where, what):
    message = error_of(folder / "list", text)
    assert where in message.replace("list: ", "list:") and what in message


def test_a_list_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.txt"):
        open_dataset(f"list:{tmp_path}/nowhere.txt")


@pytest.mark.parametrize("device", ["/dev/zero", "pipe"])
def test_what_never_ends_is_not_read(device, folder):
    os.mkfifo(folder / "pipe")
    split = opened(folder / "list.txt", f"{device} 0\n").train
    with pytest.raises(OSError, match="is no file"):
        split.source.read(0)
    assert split.common_size is None and len(split.fingerprint) == 64


@pytest.mark.parametrize("text", ["a/1.jpg\0 0\n", "a/1.jpg,0\nb/\0.png,1\n", "path,label\na/1.jpg,0\n\0,1\n"])
def test_a_zero_byte_is_refused_for_no_file_has_one(folder, text):
    assert "has a path with a zero byte" in error_of(folder / "list.txt", text)


@pytest.mark.parametrize("first", ["a/1.jpg\r,x\r,y", '"' + "x" * 200_000])
def test_what_is_no_csv_is_refused(folder, first):
    error_of(folder / "list.txt", f"{first}\n")
