"""If these fail, record files of other people are misread, or a damaged one is not named."""

import json
import struct

import numpy as np
import pytest
from hypothesis import example as hypothesis_example
from hypothesis import given, settings
from hypothesis import strategies as st

from data import records
from data.errors import UserError
from data.example_proto import bytes_span, features, first_int
from data.record_index import ROW, Shard
from data.records import row_order, told_first_label
from data.sources import open_dataset
from tests.data.pictures import encoded, example, smooth, write_records

PICTURES = [encoded(smooth(i, 20, 24), "jpeg") for i in range(5)]


def opened(pattern, **options):
    return open_dataset(f"tfrecord:{pattern}", **options)


def error_of(pattern):
    with pytest.raises(UserError) as error:
        opened(pattern)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_record_is_found_in_the_order_of_files(tmp_path):
    label = [3, 1, 4, 1, 5]
    examples = [example(image__encoded=PICTURES[i], image__class__label=label[i], height=20) for i in range(5)]
    write_records(tmp_path / "train-00000-of-00002", examples[:2])
    write_records(tmp_path / "train-00001-of-00002", examples[2:])
    train = opened(tmp_path / "train-*").train
    assert train.labels.tolist() == label and train.labels.dtype == np.int64
    assert [train.source.read(row) for row in range(5)] == PICTURES
    assert list(train.names) == [f"train-00000-of-00002#{i}" for i in range(2)] + [
        f"train-00001-of-00002#{i}" for i in range(3)
    ]
    assert train.common_size == (20, 24)


def test_records_without_label_are_unlabelled(tmp_path):
    write_records(tmp_path / "a.tfrecord", [example(image__encoded=PICTURES[0])])
    dataset = opened(tmp_path / "*.tfrecord")
    assert dataset.train.labels.tolist() == [-1] and dataset.class_count == 0 and dataset.test is None


@pytest.mark.parametrize("index, order", [([2, 0, 1], [1, 2, 0]), ([2, 0, 7], [0, 1, 2]), ([2, 0, 0], [0, 1, 2])])
def test_a_dense_index_decides_the_rows(tmp_path, index, order):
    examples = [example(image__encoded=PICTURES[i], image__class__label=i, image__index=index[i]) for i in range(3)]
    write_records(tmp_path / "train.tfrecord", examples)
    train = opened(tmp_path / "train.tfrecord").train
    assert train.labels.tolist() == order
    assert [train.source.read(row) for row in range(3)] == [PICTURES[i] for i in order]
    assert [name.split("#")[1] for name in train.names] == [str(i) for i in order]


@pytest.mark.parametrize(
    "index, lost, order",
    [
        ([3, -1, 0, -1], [1, 3], [2, 1, 3, 0]),  # the lost records 1 and 3 take rows 1 and 2
        ([3, -1, 0, 1], [], [0, 1, 2, 3]),  # one has no index
        ([4, -1, 0, 1], [1], [0, 1, 2, 3]),  # there is no row 4
        ([-1, -1], [0, 1], [0, 1]),
    ],
)
def test_lost_records_take_the_rows_that_are_left(index, lost, order):
    assert row_order(np.array(index), np.isin(np.arange(len(index)), lost)).tolist() == order


def test_problems_are_told_by_row(tmp_path):
    index = [3, 2, 0, 1]
    write_records(tmp_path / "train-0", [example(image__encoded=PICTURES[i], image__index=i) for i in index])
    break_header(tmp_path / "train-0", 1)
    train = opened(tmp_path).train
    assert list(train.source.problems) == [2] and train.names[2] == "train-0#1"
    assert [train.source.read(row) for row in (0, 1, 3)] == [PICTURES[row] for row in (0, 1, 3)]


def test_the_fields_of_tfds_are_read(tmp_path):
    write_records(tmp_path / "train-0", [example(image=PICTURES[i], label=i - 1, file_name=b"n_0") for i in range(3)])
    train = opened(tmp_path).train
    assert train.labels.tolist() == [-1, 0, 1]
    assert [train.source.read(row) for row in range(3)] == PICTURES[:3]


@pytest.mark.parametrize("name", ["a folder", "brackets [0]"])
def test_a_folder_stands_for_its_train_files(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    write_records(folder / "train-0", [example(image__encoded=PICTURES[0])])
    write_records(folder / "validation-0", [example(image__encoded=picture) for picture in PICTURES[:2]])
    dataset = opened(folder)
    assert (dataset.train.size, dataset.test.size) == (1, 2)
    assert "no file matches" in error_of(tmp_path)


def test_descriptions_beside_the_files_are_no_record_files(tmp_path):
    write_records(tmp_path / "a", [example(image__encoded=PICTURES[0])])
    for name in ("dataset.json", "labels.txt", "bad_images.csv"):
        (tmp_path / name).write_text("{}")
    assert opened(tmp_path / "*").train.size == 1
    assert opened(tmp_path / "*").train.size == 1  # nor is the index


@pytest.mark.parametrize("name", ["train-00000", "tiny-train.tfrecord-00000-of-00001"])
def test_a_folder_may_have_the_names_of_tfds(tmp_path, name):
    write_records(tmp_path / name, [example(image=PICTURES[0])])
    write_records(tmp_path / name.replace("train", "test"), [example(image=picture) for picture in PICTURES[:2]])
    dataset = opened(tmp_path)
    assert (dataset.train.size, dataset.test.size) == (1, 2)


def test_both_names_that_a_folder_may_have_are_told(tmp_path):
    assert f"{tmp_path}/train-* or {tmp_path}/*-train.tfrecord-*" in error_of(tmp_path)


# Files that are missing, or too many


@pytest.mark.parametrize("pattern", ["", "train-*", "train-00000*"])
def test_a_shard_that_the_description_names_must_be_there(tmp_path, pattern):
    write_own(tmp_path)
    (tmp_path / "train-00001-of-00003").unlink()
    assert error_of(tmp_path / pattern).startswith(f"{tmp_path}/train-00001-of-00003: is missing")


def test_a_test_shard_that_the_description_names_must_be_there(tmp_path):
    write_splits(tmp_path)
    (tmp_path / "test-00000-of-00002").unlink()
    assert error_of(tmp_path).startswith(f"{tmp_path}/test-00000-of-00002: is missing")


@pytest.mark.parametrize("shards", [0, 3])
def test_a_build_that_is_not_finished_is_told(tmp_path, shards):
    write_own(tmp_path, shards)
    (tmp_path / ".build").mkdir()
    assert shards == 0 or opened(tmp_path).train.size == 12
    (tmp_path / "dataset.json").unlink()
    expected = f"{tmp_path}: the build is not finished; run data.build_tfrecords again"
    assert error_of(tmp_path) == error_of(tmp_path / "train-*") == expected


@pytest.mark.parametrize("pattern", ["", "*", "train-00000-*"])
def test_the_number_of_files_is_in_their_names(tmp_path, pattern):
    for i in (0, 1, 3):
        write_records(tmp_path / f"train-{i:05d}-of-00004", [example(image__encoded=PICTURES[i])])
    assert error_of(tmp_path / pattern) == f"{tmp_path}/train-*-of-00004: 3 files are there, which should be 4"
    write_records(tmp_path / "train-00002-of-00004", [example(image__encoded=PICTURES[2])])
    assert opened(tmp_path).train.size == 4
    assert opened(tmp_path / "train-0000[02]*").train.size == 2, "some may be asked for"
    write_records(tmp_path / "train-00004-of-00004", [example(image__encoded=PICTURES[4])])
    assert "5 files are there, which should be 4" in error_of(tmp_path)


def test_files_of_an_older_set_are_not_mixed_with_the_new_ones(tmp_path):
    for name in ("train-0-of-1", "train-0-of-2", "train-1-of-2"):
        write_records(tmp_path / name, [example(image__encoded=PICTURES[0])])
    assert f"{tmp_path}/train-*: these are files of several sets, of 1 and 2 files" in error_of(tmp_path)
    assert opened(tmp_path / "*-of-2").train.size == 2


def test_a_glob_does_not_mix_splits(tmp_path):
    write_splits(tmp_path)
    (tmp_path / "bad_images.csv").write_text("split,filename,reason\n")
    message = f"--dataset=tfrecord:{tmp_path}/*: finds files of the splits test and train; say tfrecord:{tmp_path}"
    assert error_of(tmp_path / "*") == message
    assert (opened(tmp_path).train.size, opened(tmp_path).test.size) == (12, 2)
    assert opened(tmp_path / "test-*").train.size == 2


# Labels


def write_labels(path, labels, index=False, synset=True):
    extra = {"image__class__synset": b"n01440764"} if synset else {}
    examples = []
    for i, label in enumerate(labels):
        extra |= {"image__index": i} if index else {}
        examples.append(example(image__encoded=PICTURES[0], image__class__label=label, **extra))
    write_records(path, examples)


@pytest.mark.parametrize(
    "labels, options, expected",
    [
        ([1, 1000, 7], {}, [0, 999, 6]),  # TensorFlow's ImageNet script
        ([1, 1000, 7], {"index": True}, [1, 1000, 7]),  # ours keep the names of its fields
        ([1, 1000, 7], {"synset": False}, [1, 1000, 7]),
        ([0, 999, 7], {}, [0, 999, 7]),  # someone counted from 0
        ([1, 21841], {}, [1, 21841]),
        ([1, -1, 7], {}, [0, -1, 6]),  # -1 is unknown
    ],
)
def test_labels_count_from_where_the_fields_say(tmp_path, labels, options, expected):
    write_labels(tmp_path / "train-0", labels, **options)
    write_labels(tmp_path / "validation-0", [5, -1], synset=False)
    dataset = opened(tmp_path)
    assert dataset.train.labels.tolist() == expected and dataset.class_count == max(expected) + 1
    moved = int(expected[0] != labels[0])
    assert dataset.test.labels.tolist() == [5 - moved, -1], "both splits count alike"


def test_first_label_overrides_what_the_fields_say(tmp_path):
    write_labels(tmp_path / "train-0", [1, 2, -1])
    assert opened(tmp_path, first_label=0).train.labels.tolist() == [1, 2, -1]
    write_labels(tmp_path / "train-0", [1, 2, -1], synset=False)
    train = opened(tmp_path, first_label=1).train
    assert train.labels.tolist() == [0, 1, -1] and not train.source.problems


@pytest.mark.parametrize("label", [-2, 2**20, -(2**63), 2**63 - 1])
def test_a_label_that_no_data_set_has_is_damage(tmp_path, label):
    write_labels(tmp_path / "train-0", [3, label, 2**20 - 1], synset=False)
    dataset = opened(tmp_path)
    assert dataset.train.labels.tolist() == [3, -1, 2**20 - 1]
    assert list(dataset.train.source.problems) == [1] and str(label) in dataset.train.source.problems[1]
    assert dataset.train.source.places()[1, 3] == 0, "a pipeline must find no picture there"


def test_a_label_that_no_class_name_belongs_to_is_damage(tmp_path):
    """One flipped bit must not make a class more of ours."""
    write_labels(tmp_path / "train-0", [2, 0, 3, 1], index=True)
    (tmp_path / "dataset.json").write_text(json.dumps({"class_names": ["ant", "bee", "cat"]}))
    dataset = opened(tmp_path)
    assert dataset.train.labels.tolist() == [2, 0, -1, 1] and dataset.class_count == 3
    assert "has the label 3, where they count from 0 to 2" in dataset.train.source.problems[2]


def test_a_label_before_the_first_is_damage(tmp_path):
    write_labels(tmp_path / "train-0", [1, 0, 2])
    train = opened(tmp_path, first_label=1).train
    assert train.labels.tolist() == [0, -1, 1]
    assert "has the label 0, where they count from 1" in train.source.problems[1]


def test_one_damaged_label_does_not_move_the_others():
    rows = np.zeros(20_000, ROW)
    rows["label"] = np.arange(20_000) % 1000 + 1
    rows["label"][77] = 2**40
    fields = ["image/class/label", "image/class/synset", "image/encoded"]
    assert told_first_label([Shard(rows, {}, fields)]) == 1
    rows["label"] -= 1
    assert told_first_label([Shard(rows, {}, fields)]) == 0


def test_one_damaged_name_of_a_field_does_not_move_all_labels(tmp_path):
    """Not even in the very first record."""
    write_labels(tmp_path / "train-0", [1, 1000, 7])
    write_labels(tmp_path / "train-1", [2])
    for name in ("train-0", "train-1"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data.replace(b"class/synset", b"class/synreu", 1))
    assert opened(tmp_path).train.labels.tolist() == [0, 999, 6, 1]


def test_an_empty_list_of_labels_is_unknown(tmp_path):
    import tensorflow as tf

    message = tf.train.Example()
    message.features.feature["image/encoded"].bytes_list.value.append(PICTURES[0])
    message.features.feature["image/class/label"].int64_list.Clear()
    message.features.feature["image/class/label"].int64_list.SetInParent()
    message.features.feature["image/index"].SetInParent()
    write_records(tmp_path / "train-0", [message.SerializeToString()])
    assert opened(tmp_path).train.labels.tolist() == [-1]


@pytest.mark.parametrize("word", ["validation", "val", "test"])
def test_the_test_split_lies_beside_the_train_split(tmp_path, word):
    folder = tmp_path / "train"  # only the last "train" is replaced
    folder.mkdir()
    for name, count in (("train", 3), (word, 2)):
        write_records(folder / f"{name}-00000", [example(image__encoded=picture) for picture in PICTURES[:count]])
    dataset = opened(folder / "train-*")
    assert (dataset.train.size, dataset.test.size) == (3, 2)
    assert dataset.test.names[0] == f"{word}-00000#0"


# Damage


def problems_of(pattern):
    return opened(pattern).train.source.problems


def test_a_record_without_picture_is_known_with_the_fields_it_has(tmp_path):
    write_records(tmp_path / "train-0", [example(image__encoded=PICTURES[0]), example(caption=b"words", size=3)])
    problems = problems_of(tmp_path)
    assert list(problems) == [1]
    assert "no field image/encoded or image (it has caption, size)" in problems[1]


def test_where_no_record_can_be_read_the_first_is_named(tmp_path):
    write_records(tmp_path / "train-0", [])
    write_records(tmp_path / "train-1", [example(caption=b"words", size=3)] * 3)
    message = error_of(tmp_path)
    assert "train-1: record 0 has no field image/encoded or image (it has caption, size)" in message
    assert "the other 2" in message


def test_a_file_without_a_readable_record_is_named_among_others(tmp_path):
    write_records(tmp_path / "train-0", [example(image__encoded=PICTURES[0])])
    (tmp_path / "train-1").write_text("dear reader, this is a letter")
    assert error_of(tmp_path).startswith(f"{tmp_path}/train-1: record 0 has a damaged header")
    content = {"splits": {"train": {"shards": [{"name": f"train-{i}", "count": 1 + i} for i in range(2)]}}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert list(problems_of(tmp_path)) == [1, 2], "its records are known, and lost"


def test_a_field_of_the_wrong_type_is_named(tmp_path):
    write_records(tmp_path / "a", [example(image__encoded=3)])
    assert "a: record 0 has a field image/encoded that holds no bytes" in error_of(tmp_path / "a")
    write_records(tmp_path / "b", [example(image__encoded=PICTURES[0], image__class__label=1.5)])
    assert "b: record 0 has a field image/class/label that holds no integer" in error_of(tmp_path / "b")


def test_a_record_that_is_no_example_is_named(tmp_path):
    write_records(tmp_path / "a", [b"\x07 this is not a protocol buffer"])
    assert "a: record 0 is not a tf.train.Example" in error_of(tmp_path / "a")


def test_a_text_file_an_empty_file_and_no_file_are_named(tmp_path):
    (tmp_path / "text").write_text("dear reader, this is a letter")
    assert "text: record 0 has a damaged header (or the file is no TFRecord file)" in error_of(tmp_path / "text")
    (tmp_path / "empty").touch()
    assert "empty: no records" in error_of(tmp_path / "empty")
    assert "no file matches" in error_of(tmp_path / "nothing-*")


def write_own(folder, shards=3, count=4):
    """Records as our builder writes them: a running index, and dataset.json beside them."""
    described = []
    for shard in range(shards):
        path = folder / f"train-{shard:05d}-of-{shards:05d}"
        numbers = range(shard * count, (shard + 1) * count)
        pictures = [encoded(smooth(i, 80, 80 + i), "jpeg") for i in numbers]
        examples = [
            example(image__encoded=picture, image__class__label=i % 3, image__index=i)
            for i, picture in zip(numbers, pictures, strict=True)
        ]
        write_records(path, examples)
        described.append({"name": path.name, "count": count, "bytes": path.stat().st_size})
    content = {"splits": {"train": {"shards": described}}, "class_names": ["ant", "bee", "cat"]}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def write_splits(folder):
    """The same with a test split of two shards."""
    write_own(folder)
    content = json.loads((folder / "dataset.json").read_text())
    names = [f"test-{shard:05d}-of-00002" for shard in range(2)]
    for name in names:
        write_records(folder / name, [example(image__encoded=PICTURES[0], image__class__label=0)])
    content["splits"]["test"] = {"shards": [{"name": name, "count": 1} for name in names]}
    (folder / "dataset.json").write_text(json.dumps(content))


def header(path, record):
    """Where a record of `path` begins."""
    data, position = path.read_bytes(), 0
    for _ in range(record):
        position += 16 + struct.unpack_from("<Q", data, position)[0]
    return position


def break_header(path, record):
    data = bytearray(path.read_bytes())
    data[header(path, record) + 9] ^= 1  # of the length's CRC
    path.write_bytes(data)


@pytest.mark.parametrize("index", [True, False])
def test_our_records_keep_their_rows_whatever_is_damaged(tmp_path, index):
    """Headers, a cut and a lost field, with the index of an earlier start and without."""
    before = opened(write_own(tmp_path)).train
    pictures, names = [before.source.read(row) for row in range(12)], list(before.names)
    if not index:
        next(tmp_path.glob(".la_tf-*")).unlink()
    shards = sorted(tmp_path.glob("train-*"))
    for record in (0, 1):
        break_header(shards[0], record)
    data = shards[1].read_bytes()
    shards[1].write_bytes(data[: header(shards[1], 2) + 100])
    shards[2].write_bytes(shards[2].read_bytes().replace(b"image/encoded", b"image/encodef", 1))
    after = opened(tmp_path).train
    lost = {0, 1, 6, 7, 8}
    assert set(after.source.problems) == lost and list(after.names) == names
    for row in range(12):
        if row in lost:
            assert after.labels[row] == -1
            with pytest.raises(OSError) as error:
                after.source.read(row)
            assert error.value.strerror == f"the record {after.source.problems[row]}"
            assert error.value.filename == after.source.locate(row)
        else:
            assert (after.labels[row], after.source.read(row)) == (row % 3, pictures[row])
    assert len(after.fingerprint) == 64


def test_damaged_records_are_bad_pictures_to_a_pipeline(tmp_path):
    """TensorFlow must not read anything at the places of records that are known to be lost."""
    from data.pipeline import evaluation_batches

    shards = sorted(write_own(tmp_path).glob("train-*"))
    opened(tmp_path)
    break_header(shards[0], 1)
    data = bytearray(shards[0].read_bytes())
    data[header(shards[0], 0) + 300] ^= 1  # a byte of a picture: only reading sees it
    shards[0].write_bytes(data)
    shards[1].write_bytes(shards[1].read_bytes()[: header(shards[1], 2) + 100])
    shards[2].write_bytes(shards[2].read_bytes().replace(b"image/encoded", b"image/encodef", 1))
    train = opened(tmp_path).train
    assert set(train.source.problems) == {1, 6, 7, 8}
    (batch,) = evaluation_batches(train, 80, 12)
    assert np.flatnonzero(~batch["valid"].numpy()).tolist() == [0, 1, 6, 7, 8]
    assert batch["index"].numpy().tolist() == list(range(12))


def test_class_names_and_counts_come_from_the_description(tmp_path):
    dataset = opened(write_own(tmp_path))
    assert dataset.class_names == ("ant", "bee", "cat") and dataset.class_count == 3


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"splits": 3}', '{"splits": {"train": {"shards": [{}]}}}', "null", "[" * 100_000]
)
def test_a_description_that_says_nothing_is_passed_over(tmp_path, text):
    write_own(tmp_path)
    (tmp_path / "dataset.json").write_text(text)
    dataset = opened(tmp_path)
    assert dataset.class_names == () and dataset.train.size == 12


@pytest.mark.parametrize("count", [10**30, 1e999, float("nan"), -1, "5", 4294967297])
def test_a_count_that_no_shard_has_costs_neither_time_nor_memory(tmp_path, count):
    write_own(tmp_path)
    content = json.loads((tmp_path / "dataset.json").read_text())
    content["splits"]["train"]["shards"][0]["count"] = count
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert len(records._description(str(tmp_path))[1].get("train", {})) in (0, 3)
    believed = [number for shards in records._description(str(tmp_path))[1].values() for number in shards.values()]
    assert max(believed, default=0) <= records.MOST_RECORDS


def test_the_fingerprint_does_not_depend_on_the_index(tmp_path):
    fingerprint = opened(write_own(tmp_path)).train.fingerprint
    assert opened(tmp_path).train.fingerprint == fingerprint  # through the index
    next(tmp_path.glob(".la_tf-*")).unlink()
    assert opened(tmp_path).train.fingerprint == fingerprint
    break_header(tmp_path / "train-00000-of-00003", 2)
    assert opened(tmp_path).train.fingerprint != fingerprint


# The parser


@settings(max_examples=50, deadline=None)
@given(
    name=st.text(min_size=1, max_size=8),
    value=st.integers(-(2**63), 2**63 - 1),
    data=st.binary(max_size=300),
)
def test_the_parser_reads_what_tensorflow_writes(name, value, data):
    serialized = example(**{name + "i": value, name + "b": data, "float": 1.5})
    found = features(serialized, 0, len(serialized))
    # `example` writes / for __
    integer, binary = (found[(name + kind).replace("__", "/").encode()] for kind in "ib")
    assert first_int(serialized, integer) == value
    start, stop = bytes_span(serialized, binary)
    assert serialized[start:stop] == data


@settings(max_examples=50, deadline=None)
@given(
    name=st.binary(max_size=200),
    feature=st.binary(max_size=200),
    order=st.lists(st.sampled_from("nvop"), unique=True),
    pieces=st.booleans(),
)
@hypothesis_example(name=b"a", feature=b"", order=["n", "o"], pieces=False)
@hypothesis_example(name=b"nine_char", feature=bytes(1300), order=["n", "v"], pieces=False)
def test_the_parser_reads_entries_of_any_layout(name, feature, order, pieces):
    """Name and value in any order and size, fields that nobody knows, Features in several pieces."""

    def field(number, content):
        size = len(content)
        length = bytes([size & 127 | 128, size >> 7]) if size > 127 else bytes([size])
        return bytes([number << 3 | 2]) + length + content

    parts = {"n": field(1, name), "v": field(2, feature), "o": field(3, b"other"), "p": b"\x20\x07"}
    entry = field(1, b"".join(parts[part] for part in order))
    last = field(1, field(1, b"last") + field(2, b""))
    serialized = field(1, entry) + field(1, last) if pieces else field(1, entry + last)
    found = features(serialized, 0, len(serialized))
    name, feature = name if "n" in order else b"", feature if "v" in order else b""
    assert set(found) == {name, b"last"}
    if name != b"last":
        assert serialized[slice(*found[name])] == feature
    assert found[b"last"] == (len(serialized), len(serialized))


def test_the_parser_reads_unpacked_integers():
    # Feature { int64_list { value: 300 } } with the value as a plain varint (wire type 0), as old writers do.
    feature = bytes([0x1A, 0x03, 0x08, 0xAC, 0x02])
    assert first_int(feature, (0, len(feature))) == 300


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_the_parser_raises_nothing_but_value_errors(data):
    for read in (bytes_span, first_int):
        try:
            for feature in features(data, 0, len(data)).values():
                read(data, feature)
        except ValueError:
            pass
