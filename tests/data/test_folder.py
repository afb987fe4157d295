"""If these fail, a row is not the picture that it was, or a folder that cannot be right is taken."""

import numpy as np
import pytest

from data.errors import UserError
from data.sources import open_dataset
from tests.data.pictures import smooth, write, write_folder


def opened(path):
    return open_dataset(f"folder:{path}")


def error_of(path):
    with pytest.raises(UserError) as error:
        opened(path)
    assert error.value.exit_code == 1 and "\n" not in str(error.value)
    return str(error.value)


def test_train_and_test_with_classes_in_sorted_order(tmp_path):
    write_folder(tmp_path / "train", count=2, classes=("bee", "ant"))
    write_folder(tmp_path / "val", count=1, classes=("bee",))
    dataset = opened(tmp_path)
    assert dataset.class_names == ("ant", "bee") and dataset.class_count == 2
    assert list(dataset.train.names) == ["train/ant/0.png", "train/ant/1.png", "train/bee/0.png", "train/bee/1.png"]
    assert dataset.train.labels.tolist() == [0, 0, 1, 1] and dataset.train.labels.dtype == np.int64
    assert list(dataset.test.names) == ["val/bee/0.png"]
    assert dataset.test.labels.tolist() == [1]  # the train split's number of the class
    assert dataset.train.source.read(2) == (tmp_path / "train/bee/0.png").read_bytes()


def test_without_class_folders_it_is_unlabelled(tmp_path):
    for name in ("b.JPG", "a.jpeg", "c.webp", "d.gif", "e.bmp", ".hidden.png"):
        write(tmp_path / name, smooth(0, 20, 20))
    (tmp_path / "readme.txt").write_text("not looked at")
    dataset = opened(tmp_path)
    assert list(dataset.train.names) == ["a.jpeg", "b.JPG", "c.webp", "d.gif", "e.bmp"]
    assert dataset.train.labels.tolist() == [-1] * 5
    assert dataset.class_names == () and dataset.class_count == 0 and dataset.test is None


def test_pictures_that_have_to_be_converted_are_listed(tmp_path):
    names = ["a.tif", "b.TIFF", "c.jp2", "d.ppm", "e.pgm"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert list(opened(tmp_path).train.names) == names


def test_a_folder_named_like_a_picture_is_a_folder(tmp_path):
    write_folder(tmp_path, count=1, classes=("ant.jpg", "bee"))
    (tmp_path / "bee" / "gone.jpg").symlink_to(tmp_path / "nowhere")  # a picture that cannot be read
    dataset = opened(tmp_path)
    assert dataset.class_names == ("ant.jpg", "bee")
    assert list(dataset.train.names) == ["ant.jpg/0.png", "bee/0.png", "bee/gone.jpg"]


def test_unlabelled_train_folder_with_labelled_test(tmp_path):
    write(tmp_path / "train" / "0.png", smooth(0, 20, 20))
    write_folder(tmp_path / "test", count=1)
    dataset = opened(tmp_path)
    assert list(dataset.train.names) == ["train/0.png"]
    assert dataset.test.size == 2 and dataset.test.labels.tolist() == [-1, -1]


def test_class_folders_at_the_top_and_folders_within_classes(tmp_path):
    write_folder(tmp_path, count=1)
    write(tmp_path / "ant" / "more" / "9.png", smooth(9, 20, 20))
    write_folder(tmp_path / "test", count=1)
    dataset = opened(tmp_path)
    assert list(dataset.train.names) == ["ant/0.png", "ant/more/9.png", "bee/0.png"]
    assert dataset.train.labels.tolist() == [0, 0, 1]
    assert list(dataset.test.names) == ["test/ant/0.png", "test/bee/0.png"]


def test_a_test_folder_with_classes_comes_before_one_without(tmp_path):
    write_folder(tmp_path / "train", count=1)
    write(tmp_path / "test" / "0.png", smooth(0, 20, 20))  # as ImageNet's: no labels
    write_folder(tmp_path / "val", count=1)
    assert opened(tmp_path).test.names[0] == "val/ant/0.png"


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    root = tmp_path / "pictures"
    write_folder(root / "train", count=1)
    write(tmp_path / "elsewhere" / "far" / "7.png", smooth(7, 20, 20))
    (root / "train" / "ant" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root / "train" / "ant")
    (root / "train" / "bee" / "up").symlink_to(root)
    (root / "train" / "bee" / "same").symlink_to(root / "train" / "bee")
    assert list(opened(root).train.names) == ["train/ant/0.png", "train/ant/linked/far/7.png", "train/bee/0.png"]


def test_a_missing_folder_is_named(tmp_path):
    assert str(tmp_path / "nowhere") in error_of(tmp_path / "nowhere")


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "hollow").mkdir()
    assert "hollow is empty" in error_of(tmp_path / "hollow")


def test_a_folder_without_pictures_is_named(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.md").write_text("words")
    assert "no pictures in" in error_of(tmp_path / "notes") and "notes" in error_of(tmp_path / "notes")


def test_a_class_folder_without_pictures_is_named(tmp_path):
    write_folder(tmp_path / "train")
    (tmp_path / "train" / "unicorn").mkdir()
    assert "train/unicorn" in error_of(tmp_path)


def test_pictures_beside_class_folders_are_refused(tmp_path):
    write_folder(tmp_path / "train")
    write(tmp_path / "train" / "stray.png", smooth(0, 20, 20))
    assert "stray.png" in error_of(tmp_path)


def test_a_test_class_that_train_lacks_is_named(tmp_path):
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "val", classes=("ant", "yak"))
    assert "val/yak" in error_of(tmp_path)


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "pictures", count=1)
    assert opened("~/pictures").train.size == 2


def test_cifar10_folder(real_pictures):
    dataset = opened(real_pictures("cifar10"))
    assert dataset.train.size == 10_000 and dataset.test.size == 2_000
    assert dataset.class_names[0] == "airplane" and np.bincount(dataset.train.labels).tolist() == [1000] * 10
    assert dataset.train.common_size == (32, 32)


def test_imagenette_folder(real_pictures):
    dataset = opened(real_pictures("imagenette224"))
    assert (dataset.train.size, dataset.test.size, dataset.class_count) == (2500, 500, 10)
    assert dataset.train.common_size is None
