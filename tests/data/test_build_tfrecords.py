"""If these fail, record files hold other pictures than the source, or differ from one build of it to the next."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest
import tensorflow as tf

from data import draws, examination, record_writer, tfrecord_builder
from data.errors import FlagError, UserError
from data.sources import open_dataset
from data.tfrecord_builder import Build, Request, locked, open_source
from tests.data.pictures import encoded, smooth, write, write_folder
from tests.data.strange_pictures import bad, convertible, readable, write_all
from tests.programs import command, environment, run

MAIN = "data.build_tfrecords"


def built(source, out, **flags):
    """Builds, or goes on with, what the main would; returns its result."""
    request = Request(str(source), str(out), **flags)
    dataset = open_source(request)
    with locked(request.out):
        build = Build(request, dataset)
        if not build.finished():
            build.run()
        return build.result()


def error_of(source, out, **flags):
    with pytest.raises(UserError) as error:
        built(source, out, **flags)
    assert "\n" not in str(error.value)
    return str(error.value)


def records(out, split):
    """The fields of all records of a split's shards, in that order: [{name: value}]."""
    shards = sorted(str(path) for path in out.glob(f"{split}-*"))
    found = []
    for record in tf.data.TFRecordDataset(shards):
        example = tf.train.Example.FromString(record.numpy())
        values = {}
        for name, feature in example.features.feature.items():
            (values[name],) = feature.bytes_list.value or feature.int64_list.value
        found.append(values)
    return found


def contents(out):
    """The bytes of every file in the folder, but for what is kept there to go on or to list records faster."""
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name[0] != "." or path.suffix == ".tmp"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of 40 train and 6 test pictures in two classes, one of each split bad."""
    root = tmp_path_factory.mktemp("pictures")
    write_folder(root / "train", count=20)
    write_folder(root / "val", count=3)
    (root / "train" / "bee" / "4.png").write_bytes(b"not a picture")
    (root / "val" / "ant" / "1.png").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """That folder, built."""
    out = tmp_path_factory.mktemp("built") / "out"
    return out, built(f"folder:{folder}", out, shards=4, test_shards=2, seed=3)


def test_every_good_picture_is_there_once_as_it_is(folder, whole):
    out, result = whole
    for split, subfolder, count in (("train", "train", 39), ("test", "val", 5)):
        found = records(out, split)
        assert [record["image/index"] for record in found] == list(range(count))
        names = {f"{subfolder}/{path.parent.name}/{path.name}" for path in (folder / subfolder).glob("*/*")}
        names -= {"train/bee/4.png", "val/ant/1.png"}
        assert {record["image/filename"].decode() for record in found} == names
        for record in found:
            name = record["image/filename"].decode()
            assert record["image/encoded"] == (folder / name).read_bytes()
            assert record["image/class/label"] == ["ant", "bee"].index(name.split("/")[1])
            assert (record["image/format"], record["image/height"], record["image/width"]) == (b"png", 20, 20)
    assert result == {
        "out": str(out),
        "dataset": f"tfrecord:{out}",
        "images": {"train": 39, "test": 5},
        "shards": {"train": 4, "test": 2},
        "bad": 2,
        "converted": 0,
        "hash": result["hash"],
    }


def test_the_order_is_a_shuffle_by_the_seed(folder, whole, tmp_path):
    out, _ = whole
    rows = open_dataset(f"folder:{folder}").train.names
    names = [record["image/filename"].decode() for record in records(out, "train")]
    keys = draws._keys(draws.BUILD_ORDER, [np.uint64([3]), np.arange(40, dtype=np.uint64)], np)
    expected = [rows[row] for row in sorted(range(40), key=lambda row: int(keys[row])) if rows[row] in names]
    assert names == expected and names != sorted(names)
    built(f"folder:{folder}", tmp_path / "other", seed=4)
    assert names != [record["image/filename"].decode() for record in records(tmp_path / "other", "train")]


def test_the_description_tells_what_is_there(folder, whole):
    out, result = whole
    described = json.loads((out / "dataset.json").read_text())
    assert described["format"] == 1 and described["class_names"] == ["ant", "bee"] and described["seed"] == 3
    assert (described["bad"], described["converted"]) == (2, 0)
    digest = hashlib.sha256()
    for split in ("train", "test"):
        entry, found = described["splits"][split], records(out, split)
        assert entry["count"] == len(found) == sum(shard["count"] for shard in entry["shards"])
        for number, shard in enumerate(entry["shards"]):
            assert shard["name"] == f"{split}-{number:05d}-of-{len(entry['shards']):05d}"
            assert shard["bytes"] == (out / shard["name"]).stat().st_size
            assert shard["count"] == sum(1 for _ in tf.data.TFRecordDataset(str(out / shard["name"])))
        digest.update(f"{split} {len(found)}\n".encode())
        for record in found:
            digest.update(hashlib.sha256(record["image/encoded"]).digest())
            digest.update(record["image/class/label"].to_bytes(8, "little"))
    assert described["hash"] == result["hash"] == digest.hexdigest()
    counts = [shard["count"] for shard in described["splits"]["train"]["shards"]]
    assert max(counts) - min(counts) <= 1


def test_bad_pictures_are_listed(whole):
    with open(whole[0] / "bad_images.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["split", "filename", "reason"]
    assert [row[:2] for row in rows] == [["train", "train/bee/4.png"], ["test", "val/ant/1.png"]]
    assert "text" in rows[0][2] and "empty" in rows[1][2]


def test_it_is_a_data_set_to_train_on(folder, whole):
    source, dataset = open_dataset(f"folder:{folder}"), open_dataset(whole[1]["dataset"])
    assert dataset.class_names == ("ant", "bee")
    assert (dataset.train.size, dataset.test.size) == (39, 5)
    row = {source.train.source.read(row): row for row in range(40)}
    for index in range(39):
        assert dataset.train.labels[index] == source.train.labels[row[dataset.train.source.read(index)]]


def test_the_number_of_workers_changes_nothing(folder, whole, tmp_path):
    for workers in (1, 5):
        out = tmp_path / str(workers)
        built(f"folder:{folder}", out, shards=4, test_shards=2, seed=3, workers=workers)
        assert contents(out) == contents(whole[0])


def test_what_tensorflow_does_not_read_is_converted_and_all_else_kept(tmp_path):
    write_all(tmp_path / "pictures" / "odd")
    out = tmp_path / "out"
    result = built(f"folder:{tmp_path}/pictures", out)
    assert (result["bad"], result["converted"]) == (len(bad()), len(convertible()))
    found = {record["image/filename"].decode().split("/")[1]: record for record in records(out, "train")}
    assert {*found} == {*readable(), *convertible()}
    for name, (data, form) in readable().items():
        assert found[name]["image/encoded"] == data and found[name]["image/format"] == form.encode()
    turned = found["turned.jpg"]
    assert (turned["image/height"], turned["image/width"]) == (40, 60)  # as stored
    for name, (_, pixels) in convertible().items():
        record = found[name]
        assert record["image/format"] == b"png"
        assert (record["image/height"], record["image/width"]) == pixels.shape[:2]
        assert np.array_equal(tf.io.decode_image(record["image/encoded"], channels=3), pixels)


def test_without_labels_there_is_no_label(tmp_path):
    write(tmp_path / "pictures" / "0.png", smooth(0, 9, 9))
    built(f"folder:{tmp_path}/pictures", tmp_path / "out")
    (record,) = records(tmp_path / "out", "train")
    assert "image/class/label" not in record and not list((tmp_path / "out").glob("test-*"))


def test_a_list_with_missing_pictures(tmp_path):
    write(tmp_path / "a" / "0.png", smooth(0, 9, 9))
    (tmp_path / "train.txt").write_text("0.png 1\ngone.png 0\n")
    result = built(f"list:{tmp_path}/train.txt", tmp_path / "out", image_root=str(tmp_path / "a"))
    assert (result["images"], result["bad"]) == ({"train": 1}, 1)
    assert "gone.png,cannot be read: No such file" in (tmp_path / "out" / "bad_images.csv").read_text()
    assert [record["image/class/label"] for record in records(tmp_path / "out", "train")] == [1]


def test_shards_are_of_the_size_unless_their_number_is_given(folder, tmp_path, monkeypatch):
    train = sum(path.stat().st_size for path in (folder / "train").glob("*/*")) - len(b"not a picture")
    monkeypatch.setattr(tfrecord_builder, "SHARD_SIZE", train // 3 + 1)
    assert built(f"folder:{folder}", tmp_path / "out")["shards"] == {"train": 3, "test": 1}


class Killed(BaseException):
    """What a test stops a build by: nothing catches it."""


@pytest.mark.parametrize("survived", [5, 25, 43])
def test_a_build_killed_while_it_writes_goes_on_to_the_same_files(folder, whole, tmp_path, monkeypatch, survived):
    arguments, made = dict(shards=4, test_shards=2, seed=3, workers=2), []
    serialized = record_writer.serialized

    def until_killed(split, row, index, findings):
        made.append(index)
        if len(made) > survived:
            raise Killed
        return serialized(split, row, index, findings)

    monkeypatch.setattr(record_writer, "serialized", until_killed)
    with pytest.raises(Killed):
        built(f"folder:{folder}", tmp_path / "out", **arguments)
    assert not (tmp_path / "out" / "dataset.json").exists()
    first = contents(tmp_path / "out")
    kept = {name: data for name, data in first.items() if name[0] != "." and name != "bad_images.csv"}
    assert kept.items() < contents(whole[0]).items()  # each shard is whole or not there
    made.clear()
    monkeypatch.setattr(record_writer, "serialized", lambda *about: made.append(about) or serialized(*about))
    monkeypatch.setattr(examination, "_look", None)  # nothing is looked at again
    result = built(f"folder:{folder}", tmp_path / "out", **arguments)
    assert contents(tmp_path / "out") == contents(whole[0]) and result["hash"] == whole[1]["hash"]
    counts = {name: sum(1 for _ in tf.data.TFRecordDataset(str(whole[0] / name))) for name in kept}
    assert len(made) == 44 - sum(counts.values())  # whole shards were not made again


def test_a_build_killed_while_it_looks_goes_on_to_the_same_files(folder, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(examination, "BLOCK", 16)
    looked, look = [], examination._look

    def until_killed(split, decode, rows):
        looked.extend(rows)
        if rows[0] >= 32:
            raise Killed
        return look(split, decode, rows)

    monkeypatch.setattr(examination, "_look", until_killed)
    arguments = dict(shards=4, test_shards=2, seed=3)
    with pytest.raises(Killed):
        built(f"folder:{folder}", tmp_path / "out", **arguments)
    looked.clear()
    monkeypatch.setattr(
        examination, "_look", lambda split, decode, rows: looked.extend(rows) or look(split, decode, rows)
    )
    built(f"folder:{folder}", tmp_path / "out", **arguments)
    assert looked == [*range(32, 40), *range(6)]
    assert contents(tmp_path / "out") == contents(whole[0])


def test_a_finished_build_is_left_alone_and_a_lost_shard_made_again(folder, whole, tmp_path, monkeypatch):
    out, arguments = tmp_path / "out", dict(shards=4, test_shards=2, seed=3)
    built(f"folder:{folder}", out, **arguments)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()}
    monkeypatch.setattr(examination, "_look", None)
    assert built(f"folder:{folder}", out, **arguments)["hash"] == whole[1]["hash"]
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()} == before
    (out / "train-00002-of-00004").unlink()
    (out / "test-00001-of-00002").write_bytes(b"cut")
    built(f"folder:{folder}", out, **arguments)
    assert contents(out) == contents(whole[0])


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (dict(seed=4), "seed was 3, is 4"),
        (dict(shards=5), "shards was 4, is 5"),
        (dict(test_shards=0, on_bad="stop"), "test_shards was 2, is 0, on_bad was skip, is stop"),
    ],
)
def test_another_build_is_refused_and_the_differences_named(folder, whole, flags, named):
    message = error_of(f"folder:{folder}", whole[0], **{**dict(shards=4, test_shards=2, seed=3), **flags})
    assert named in message and str(whole[0]) in message


def test_another_source_is_refused(folder, whole, tmp_path):
    write_folder(tmp_path)
    assert "source has changed" in error_of(f"folder:{tmp_path}", whole[0], shards=4, seed=3)


def test_a_folder_that_was_moved_is_the_same_source(whole, folder, tmp_path):
    (tmp_path / "moved").symlink_to(folder)
    arguments = dict(shards=4, test_shards=2, seed=3)
    assert built(f"folder:{tmp_path}/moved", whole[0], **arguments)["hash"] == whole[1]["hash"]


def test_files_of_others_are_left_alone(folder, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "thesis" not in error_of(f"folder:{folder}", tmp_path) and os.listdir(tmp_path) == ["thesis.tex"]


def test_a_second_build_in_the_folder_is_refused(folder, tmp_path):
    with locked(str(tmp_path / "out")):
        assert "another build" in error_of(f"folder:{folder}", tmp_path / "out")
    built(f"folder:{folder}", tmp_path / "out")


def test_stop_ends_after_all_are_looked_at_and_can_be_changed_to_skip(folder, whole, tmp_path, monkeypatch):
    out, arguments = tmp_path / "out", dict(shards=4, test_shards=2, seed=3)
    message = error_of(f"folder:{folder}", out, on_bad="stop", **arguments)
    assert "train/bee/4.png" in message and "2 bad" in message and str(out / "bad_images.csv") in message
    assert not list(out.glob("train-*"))
    monkeypatch.setattr(examination, "_look", None)  # what was found is kept
    built(f"folder:{folder}", out, on_bad="skip", **arguments)
    assert contents(out) == contents(whole[0])


def test_after_stop_the_pictures_may_be_mended(tmp_path):
    broken = tmp_path / "pictures" / "bee" / "1.png"
    write_folder(tmp_path / "pictures")
    good = broken.read_bytes()
    broken.write_bytes(good[:50])
    assert "bee/1.png" in error_of(f"folder:{tmp_path}/pictures", tmp_path / "out", on_bad="stop")
    broken.write_bytes(good)
    result = built(f"folder:{tmp_path}/pictures", tmp_path / "out", on_bad="stop")
    assert (result["images"], result["bad"]) == ({"train": 6}, 0)
    assert not (tmp_path / "out" / "bad_images.csv").exists()


def test_what_was_found_out_about_another_source_is_not_thrown_away(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Build, "_order", lambda *about: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        built(f"folder:{folder}", tmp_path / "out")
    write_folder(tmp_path / "pictures")
    assert "source has changed" in error_of(f"folder:{tmp_path}/pictures", tmp_path / "out")


def test_a_picture_that_changes_between_the_phases_is_named(tmp_path, monkeypatch):
    write_folder(tmp_path / "pictures")
    name = tmp_path / "pictures" / "bee" / "1.png"
    order = Build._order

    def changes_then_order(build, split, findings):
        if data is None:
            name.unlink(missing_ok=True)
        else:
            name.write_bytes(data)
        return order(build, split, findings)

    monkeypatch.setattr(Build, "_order", changes_then_order)
    was = name.read_bytes()
    data = encoded(smooth(77, 20, 20))
    message = error_of(f"folder:{tmp_path}/pictures", tmp_path / "out")
    assert str(name) in message and "changed" in message
    name.write_bytes(was)
    data = None
    message = error_of(f"folder:{tmp_path}/pictures", tmp_path / "out")
    assert str(name) in message and "cannot be read" in message
    assert not list((tmp_path / "out").glob("train-*"))


def test_all_bad_is_an_error(tmp_path):
    write_folder(tmp_path / "pictures", count=1)
    for path in (tmp_path / "pictures").glob("*/*"):
        path.write_bytes(b"words")
    message = error_of(f"folder:{tmp_path}/pictures", tmp_path / "out")
    assert "no picture of the train split" in message and str(tmp_path / "out" / "bad_images.csv") in message


def test_more_shards_than_pictures_is_a_flag_error(folder, tmp_path):
    for flags, named in (
        (dict(shards=41), "--shards=41: more than the 40"),
        (dict(shards=40), "--shards=40: more than the 39"),  # one is bad
        (dict(test_shards=7), "--test_shards=7: more than the 6"),
    ):
        with pytest.raises(FlagError, match=named):
            built(f"folder:{folder}", tmp_path / named[2:9], **flags)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (dict(source=None), "--source is not set"),
        (dict(out=""), "--out is not set"),
        (dict(shards=-1), "--shards=-1"),
        (dict(workers=-2), "--workers=-2"),
        (dict(on_bad="cry"), "--on_bad=cry"),
        (dict(source="digits"), "--source=digits"),
        (dict(source="folder:"), "--source=folder:"),
    ],
)
def test_flag_errors_name_the_flag(flags, named):
    with pytest.raises(FlagError) as error:
        open_source(Request(**{"source": "folder:/", "out": "x", **flags}))
    assert str(error.value).startswith(named)


def test_a_missing_source_and_a_missing_test_split_are_named(tmp_path):
    with pytest.raises(UserError, match=f"--source=folder:{tmp_path}/no"):
        open_source(Request(f"folder:{tmp_path}/no", "x"))
    write_folder(tmp_path / "pictures")
    with pytest.raises(FlagError, match=r"--test_shards=1: .*no test split"):
        open_source(Request(f"folder:{tmp_path}/pictures", "x", test_shards=1))


def test_a_folder_that_cannot_be_written_is_named(folder, tmp_path):
    (tmp_path / "file").write_text("")
    assert f"--out={tmp_path}/file/out" in error_of(f"folder:{folder}", tmp_path / "file" / "out")


def test_records_can_be_built_anew(whole, tmp_path):
    result = built(f"tfrecord:{whole[0]}", tmp_path / "out", shards=2)
    assert (result["images"], result["shards"]["train"]) == ({"train": 39, "test": 5}, 2)
    was = {record["image/encoded"]: record["image/class/label"] for record in records(whole[0], "train")}
    assert was == {
        record["image/encoded"]: record["image/class/label"] for record in records(tmp_path / "out", "train")
    }


def test_the_main_ends_with_json_and_then_is_finished_without_tensorflow(tmp_path):
    write_folder(tmp_path / "pictures")
    flags = f"--source=folder:{tmp_path}/pictures", f"--out={tmp_path}/out", "--shards=2"
    process = run(MAIN, *flags)
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout.splitlines()[-1])
    assert result["images"] == {"train": 6} and result["seconds"] > 0
    assert "examining train" in process.stderr and "writing" in process.stderr
    (tmp_path / "trap" / "tensorflow").mkdir(parents=True)
    (tmp_path / "trap" / "tensorflow" / "__init__.py").write_text("raise SystemExit('TensorFlow was imported')")
    trapped = environment()
    trapped["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "trap"), trapped["PYTHONPATH"]])
    process = subprocess.run(command(MAIN, *flags), env=trapped, capture_output=True, text=True)
    assert process.returncode == 0 and "is finished" in process.stderr, process.stderr
    assert json.loads(process.stdout)["hash"] == result["hash"]
    process = subprocess.run(command(MAIN, "--help"), env=trapped, capture_output=True, text=True)
    assert process.returncode == 0 and "--image_root" in process.stdout, process.stderr
    process = subprocess.run(command(MAIN, *flags, "--seed=1"), env=trapped, capture_output=True, text=True)
    assert process.returncode == 1 and process.stderr.startswith("error: --out=")
    assert len(process.stderr.splitlines()) == 1 and process.stdout == ""


@pytest.mark.slow
def test_a_build_killed_by_the_system_at_any_time_ends_as_one_that_was_not(tmp_path):
    write_folder(tmp_path / "pictures", count=3000, extension="bmp", size=(60, 60))
    flags = f"--source=folder:{tmp_path}/pictures", "--shards=40"
    assert run(MAIN, *flags, f"--out={tmp_path}/whole").returncode == 0
    out, kills, states = tmp_path / "out", 0, set()
    while True:
        process = subprocess.Popen(command(MAIN, *flags, f"--out={out}"), env=environment(), stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        shards = len(list(out.glob("train-*")))
        blocks = len(list(out.glob(".build/*.npz")))
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(out.glob(".build/*.npz"))) > blocks or len(list(out.glob("train-*"))) > shards + 12:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == 0:
            break
        kills += 1
        states.add("writing" if list(out.glob("train-*")) else "examining")
    assert kills >= 2 and states == {"examining", "writing"}
    assert contents(out) == contents(tmp_path / "whole")
