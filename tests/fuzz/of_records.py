"""Record files, the index beside them, and the description of their set."""

import json
import os

import numpy as np

from data.errors import UserError
from data.record_index import ROW, list_shards
from data.sources import open_dataset
from tests.fuzz import json_trees, npz_files, octets, picture_files, record_files
from tests.fuzz.subjects import Subject

READ = ("data/record_frames.py", "data/example_proto.py", "data/record_index.py", "data/records.py")


def _pictures():
    return [picture_files.saved(picture_files.smooth(4 + i, 6), "png") for i in range(5)]


def _intact():
    return b"".join(record_files.frame(record_files.example(each, i % 3, i)) for i, each in enumerate(_pictures()))


def _read_all(spec):
    """Opens the set and reads every picture, as training would; a record that cannot be read is an OSError."""
    dataset = open_dataset(spec)
    source = dataset.train.source
    for row in range(dataset.train.size):
        source.locate(row)
        try:
            data = source.read(row)
        except OSError:
            continue
        assert len(data) <= source.length[row], "more was read than the record says"
    dataset.train.fingerprint, dataset.class_count, source.listing(), source.places()
    return dataset


def records(folder) -> Subject:
    """tfrecord: of one file."""
    pictures, path = _pictures(), folder / "train-00000-of-00001"

    def read(data):
        for old in folder.iterdir():
            old.unlink()
        path.write_bytes(data)
        rows = _read_all(f"tfrecord:{folder}").train.source.position
        if len(data) % 8 == 0:  # it takes its time
            again = open_dataset(f"tfrecord:{folder}").train.source.position  # through the index
            assert rows.tolist() == again.tolist(), "the index says something else than the file"

    return Subject(
        lambda numbers: record_files.document(pictures, numbers), record_files.begins_with_a_header, read, READ
    )


def record_data(folder) -> Subject:
    """A record read by TensorFlow at its place, in a file that was changed after it was listed.

    Not beyond its end: listing refuses a header that says so, and TensorFlow takes the memory for whatever one says.
    """
    import tensorflow as tf

    from data.reading import record_at

    path, intact = folder / "a", _intact()
    at = tf.function(record_at, input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)])
    length = len(record_files.frame(record_files.example(_pictures()[0], 0, 0)))

    def mutate(numbers):
        position = numbers.choice((0, 0, 0, length, octets.boundary(numbers)))
        position = min(max(position, -(2**63)), 2**63 - 1)
        data = record_files.document(_pictures(), numbers) if numbers.random() < 0.7 else intact
        return position.to_bytes(8, "little", signed=True) + data

    def read(data):
        path.write_bytes(data[8:])
        position = int.from_bytes(data[:8], "little", signed=True)
        if position >= 0 and int.from_bytes(data[8:][position : position + 8], "little") > len(data):
            raise UserError("refused when it is listed")
        try:
            at(tf.constant(os.fsencode(path)), tf.constant(position, tf.int64))
        except tf.errors.OpError as error:  # what `reading.problem` and `ignore_errors` expect
            str(error)

    return Subject(mutate, lambda data: record_files.begins_with_a_header(data[8:]), read, ("data/reading.py",))


def sidecar(folder) -> Subject:
    """The index of a whole record file."""
    path = folder / "train-00000-of-00001"
    path.write_bytes(_intact())
    list_shards([str(path)])
    index = next(folder.glob(".la_tf-*.npz"))
    with np.load(index) as archive:
        about, rows = json.loads(bytes(archive["about"])), archive["rows"]

    def mutate(numbers):
        members = {"rows.npy": npz_files.array_file(rows)}
        if numbers.random() < 0.5:
            changed = (
                np.concatenate([rows, rows[:1]])[: numbers.randrange(7)] if numbers.random() < 0.3 else rows.copy()
            )
            for _ in range(numbers.randint(1, 3)):
                if len(changed):
                    column = numbers.choice(ROW.names)
                    value = octets.fitted(octets.boundary(numbers), "<q" if ROW[column].itemsize == 8 else "<i")
                    changed[column][numbers.randrange(len(changed))] = np.frombuffer(value, ROW[column])[0]
            members["rows.npy"] = npz_files.array_file(changed)
        elif numbers.random() < 0.5:
            members["rows.npy"] = npz_files.changed_array(members["rows.npy"], numbers)
        tree = json_trees.changed(about, numbers) if numbers.random() < 0.5 else about
        text = np.frombuffer(json_trees.text(tree, numbers), np.uint8)
        members["about.npy"] = npz_files.array_file(text)
        return npz_files.archive(members, numbers)

    def read(data):
        index.write_bytes(data)
        _read_all(f"tfrecord:{folder}")

    return Subject(mutate, npz_files.parses, read, READ)


def description(folder) -> Subject:
    """dataset.json beside the shards."""
    (folder / "train-00000-of-00001").write_bytes(_intact())
    entry = {"name": "train-00000-of-00001", "count": 5, "bytes": len(_intact())}
    tree = {
        "format": 1, "hash": "a" * 64, "class_names": ["ant", "bee", "cat"], "seed": 0, "bad": 0, "converted": 0,
        "splits": {"train": {"count": 5, "shards": [entry]}},
    }  # fmt: skip

    def read(data):
        (folder / "dataset.json").write_bytes(data)
        _read_all(f"tfrecord:{folder}")

    return Subject(lambda numbers: json_trees.document(tree, numbers), json_trees.parses, read, READ)
