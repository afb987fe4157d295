"""If these fail, a run goes on with bank rows that belong to other pictures, or refuses the same ones."""

import json
import os
import shutil

import pytest

from data.errors import UserError
from data.manifest import freeze, manifest
from data.sources import open_dataset
from tests.data.pictures import encoded, example, smooth, write, write_folder, write_records


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "set" / "train")
    write_folder(tmp_path / "set" / "val", count=1)
    return tmp_path / "set"


def refusal(folder, model_dir):
    with pytest.raises(UserError) as error:
        freeze(open_dataset(f"folder:{folder}"), str(model_dir))
    assert "--model_dir" in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def test_the_file_says_what_each_row_is(folder, tmp_path):
    written = freeze(open_dataset(f"folder:{folder}"), str(tmp_path / "run"))
    content = json.loads((tmp_path / "run" / "dataset.json").read_text())
    assert content == written
    train = content["splits"]["train"]
    assert train["count"] == 6 and train["names"][3] == "train/bee/0.png" and len(train["fingerprint"]) == 64
    assert (
        content["class_names"] == ["ant", "bee"] and content["kind"] == "photo" and content["common_size"] == [20, 20]
    )
    assert os.listdir(tmp_path / "run") == ["dataset.json"]  # no temporary file is left


def test_the_same_pictures_elsewhere_are_the_same(folder, tmp_path):
    first = freeze(open_dataset(f"folder:{folder}"), str(tmp_path / "run"))
    shutil.copytree(folder, tmp_path / "moved")
    second = freeze(open_dataset(f"folder:{tmp_path / 'moved'}"), str(tmp_path / "run"))
    assert first["hash"] == second["hash"]


def add(folder):
    write(folder / "train" / "ant" / "7.png", smooth(7, 20, 20))
    return "picture train/ant/7.png is new"


def remove(folder):
    (folder / "train" / "bee" / "1.png").unlink()
    return "picture train/bee/1.png is gone"


def enlarge(folder):
    path = folder / "train" / "bee" / "2.png"
    was = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"\0" * 9)
    return f"picture train/bee/2.png has {was + 9} bytes, had {was}"


def alter(folder):
    path = folder / "train" / "bee" / "2.png"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    return "pictures or labels of the train split have changed"


def lose_the_test_split(folder):
    shutil.rmtree(folder / "val")
    return "there is no test split"


def change_a_test_picture(folder):
    write(folder / "val" / "bee" / "1.png", smooth(1, 20, 20))
    return "picture val/bee/1.png is new"


@pytest.mark.parametrize("change", [add, remove, enlarge, alter, lose_the_test_split, change_a_test_picture])
def test_the_first_difference_is_named(folder, tmp_path, change):
    freeze(open_dataset(f"folder:{folder}"), str(tmp_path / "run"))
    difference = change(folder)
    assert difference in refusal(folder, tmp_path / "run")


def test_another_kind_of_data_set_and_a_damaged_file_are_refused(folder, tmp_path):
    freeze(open_dataset("digits"), str(tmp_path / "run"))
    assert "it was digits and is photo" in refusal(folder, tmp_path / "run")
    (tmp_path / "run" / "dataset.json").write_text('{"spec": "digits", ')
    assert "dataset.json: is damaged" in refusal(folder, tmp_path / "run")


def test_records_are_frozen_by_shard_and_label(tmp_path):
    def write_shards(counts, label=0):
        shutil.rmtree(tmp_path / "set", ignore_errors=True)
        (tmp_path / "set").mkdir()
        for shard, count in enumerate(counts):
            examples = [
                example(image__encoded=encoded(smooth(i, 20, 20)), image__class__label=label) for i in range(count)
            ]
            write_records(tmp_path / "set" / f"train-{shard}", examples)
        return open_dataset(f"tfrecord:{tmp_path}/set/train-*")

    first = freeze(write_shards([2, 3]), str(tmp_path / "run"))
    assert first["splits"]["train"]["names"] == ["train-0", "train-1"]
    assert first["splits"]["train"]["records"] == [2, 3]
    assert freeze(write_shards([2, 3]), str(tmp_path / "run"))["hash"] == first["hash"]
    for counts, label, difference in (
        ([2, 3, 1], 0, "shard train-2 is new"),
        ([2, 2], 0, "shard train-1 has"),
        ([2, 3], 1, "pictures or labels of the train split have changed"),
    ):
        with pytest.raises(UserError, match=difference):
            freeze(write_shards(counts, label), str(tmp_path / "run"))


def test_digits_have_one_hash():
    assert manifest(open_dataset("digits"))["hash"] == manifest(open_dataset("digits"))["hash"]


def test_classes_are_counted_where_they_have_no_names(tmp_path):
    write(tmp_path / "a.jpg", smooth(0, 9, 9))
    (tmp_path / "labels.txt").write_text("a.jpg 6\n")
    found = manifest(open_dataset(f"list:{tmp_path}/labels.txt"))
    assert (found["class_names"], found["class_count"]) == ([], 7)
    assert manifest(open_dataset("digits"))["class_count"] == 10
