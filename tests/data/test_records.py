"""If these fail, record files of other people are misread, or a damaged one is not named."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UserError
from data.example_proto import bytes_span, features, first_int
from data.sources import open_dataset
from tests.data.pictures import encoded, example, smooth, write_records

PICTURES = [encoded(smooth(i, 20, 24), "jpeg") for i in range(5)]


def opened(pattern):
    return open_dataset(f"tfrecord:{pattern}")


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


@pytest.mark.parametrize("word", ["validation", "val", "test"])
def test_the_test_split_lies_beside_the_train_split(tmp_path, word):
    folder = tmp_path / "train"  # only the last "train" is replaced
    folder.mkdir()
    for name, count in (("train", 3), (word, 2)):
        write_records(folder / f"{name}-00000", [example(image__encoded=picture) for picture in PICTURES[:count]])
    dataset = opened(folder / "train-*")
    assert (dataset.train.size, dataset.test.size) == (3, 2)
    assert dataset.test.names[0] == f"{word}-00000#0"


def test_a_record_without_picture_names_file_record_and_field(tmp_path):
    write_records(tmp_path / "train-0", [example(image__encoded=PICTURES[0]), example(caption=b"words", size=3)])
    message = error_of(tmp_path / "train-*")
    assert "train-0: record 1" in message and "image/encoded" in message and "caption, size" in message


def test_a_field_of_the_wrong_type_is_named(tmp_path):
    write_records(tmp_path / "a", [example(image__encoded=3)])
    assert "a: record 0 field image/encoded" in error_of(tmp_path / "a")
    write_records(tmp_path / "b", [example(image__encoded=PICTURES[0], image__class__label=1.5)])
    assert "b: record 0 field image/class/label" in error_of(tmp_path / "b")


def test_a_record_that_is_no_example_is_named(tmp_path):
    write_records(tmp_path / "a", [b"\x07 this is not a protocol buffer"])
    assert "a: record 0 is not a tf.train.Example" in error_of(tmp_path / "a")


@pytest.mark.parametrize("cut", [1, 4, 100])
def test_a_truncated_file_is_named_with_the_record(tmp_path, cut):
    path = tmp_path / "train-0"
    write_records(path, [example(image__encoded=picture) for picture in PICTURES])
    path.write_bytes(path.read_bytes()[:-cut])
    assert "train-0: record 4 does not end" in error_of(tmp_path / "train-*")


def test_a_wrong_length_is_named_with_the_record(tmp_path):
    path = tmp_path / "train-0"
    write_records(path, [example(image__encoded=PICTURES[0])])
    data = bytearray(path.read_bytes())
    data[:8] = struct.pack("<Q", 2**60)
    path.write_bytes(data)
    assert "train-0: record 0 does not end" in error_of(tmp_path / "train-*")


def test_a_text_file_an_empty_file_and_no_file_are_named(tmp_path):
    (tmp_path / "text").write_text("dear reader, this is a letter")
    assert "text: record 0 does not end" in error_of(tmp_path / "text")
    (tmp_path / "empty").touch()
    assert "empty: no records" in error_of(tmp_path / "empty")
    assert "no file matches" in error_of(tmp_path / "nothing-*")


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
    integer, binary = (found[(name + kind).replace("__", "/")] for kind in "ib")
    assert first_int(serialized, integer) == value
    start, stop = bytes_span(serialized, binary)
    assert serialized[start:stop] == data


def test_the_parser_reads_unpacked_integers():
    # Feature { int64_list { value: 300 } } with the value as a plain varint (wire type 0), as old writers do.
    feature = bytes([0x1A, 0x03, 0x08, 0xAC, 0x02])
    assert first_int(feature, (0, len(feature))) == 300


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_the_parser_raises_nothing_but_value_errors(data):
    try:
        for feature in features(data, 0, len(data)).values():
            bytes_span(data, feature)
    except ValueError:
        pass
