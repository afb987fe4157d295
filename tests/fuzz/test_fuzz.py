"""If these fail, a reader does not survive an input that is nearly right, or nobody would notice."""

import json
import random
import warnings

import pytest

from tests.fuzz import json_trees, npz_files, of_nobody, picture_files, record_files, watched
from tests.fuzz.child import _outcome, numbers_of
from tests.fuzz.subjects import SUBJECTS, subject

INPUTS = 120
# Flags are parsed once a process: theirs is one of its own.
ELSEWHERE = {"flagfile"}
IN_PROCESS = [name for name in SUBJECTS if name not in ELSEWHERE]


@pytest.mark.parametrize("reader", IN_PROCESS)
def test_a_few_inputs_of_every_reader(reader, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "files").mkdir()
    with warnings.catch_warnings(action="ignore"):
        made = subject(reader, tmp_path / "files")
        parsed = 0
        for number in range(INPUTS):
            data = made.mutate(numbers_of(0, reader, number))
            parsed += bool(made.parses(data))
            failure = _outcome(made, data)["failure"]
            assert failure is None, f"--seed=0 --reader={reader} --first={number} --inputs=1\n{failure}"
    assert parsed >= 0.2 * INPUTS


def test_flagfiles_in_a_process_of_their_own(tmp_path):
    tally = watched.run("flagfile", 0, 0, INPUTS, tmp_path)
    assert (tally.inputs, tally.failures) == (INPUTS, {})


def test_whatever_a_reader_does_it_is_counted_and_kept(tmp_path):
    inputs = 8
    acts = [random.Random(f"6138/broken/{number}").choice(of_nobody.ACTS) for number in range(inputs)]
    assert {*acts} == {*of_nobody.ACTS}
    tally = watched.run("broken", 6138, 0, inputs, tmp_path, longest=1)
    assert tally.inputs == inputs
    words = {"trips": "KeyError", "leaves": "SystemExit", "dies": "SIGSEGV", "hangs": "longer", "grows": "MemoryError"}
    wanted = {number: words[act] for number, act in enumerate(acts) if act in words}
    assert tally.failures.keys() == wanted.keys()
    for number, word in wanted.items():
        assert word in tally.failures[number]
        assert (tmp_path / "failures" / f"broken-{number}").read_text() == acts[number]
        assert word in (tmp_path / "failures" / f"broken-{number}.txt").read_text()
    assert tally.refused == acts.count("refuses")


def test_an_input_is_a_function_of_its_seed(tmp_path):
    made = subject("results", tmp_path)
    once, again = ([made.mutate(numbers_of(3, "results", number)) for number in range(40)] for _ in range(2))
    assert once == again and len({*once}) > 30
    assert made.mutate(numbers_of(4, "results", 0)) != once[0]


# That the checksums of changed files are right is what gets them past the first parse: others have to agree.


def test_records_are_those_that_tensorflow_reads(tmp_path):
    import tensorflow as tf

    examples = [record_files.example(b"\xff" * size, 5, size) for size in (0, 1, 200)]
    (tmp_path / "a").write_bytes(b"".join(map(record_files.frame, examples)))
    read = [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / "a"))]
    assert read == examples
    feature = tf.train.Example.FromString(read[2]).features.feature
    assert feature["image/encoded"].bytes_list.value[0] == b"\xff" * 200
    assert feature["image/class/label"].int64_list.value[0] == 5
    assert feature["image/index"].int64_list.value[0] == 200


def test_what_is_taken_apart_and_put_together_is_the_same():
    for data in picture_files.jpegs():
        assert picture_files.jpeg(picture_files.segments(data)) == data
    for data in picture_files.others():
        assert picture_files.parses(data)


def test_changed_json_says_something_else_and_leaves_what_it_was_made_of():
    tree = {"a": [1, 2, {"b": "c"}], "d": None}
    whole = json.dumps(tree)
    found = {json_trees.text(json_trees.changed(tree, random.Random(i)), random.Random(0)) for i in range(50)}
    assert len(found - {whole.encode()}) > 40 and sum(map(json_trees.parses, found)) == len(found)
    assert json.dumps(tree) == whole


def test_changed_archives_are_archives_mostly():
    import numpy as np

    members = {"a.npy": npz_files.array_file(np.arange(3))}
    whole = [npz_files.parses(npz_files.archive(members, random.Random(number))) for number in range(50)]
    assert sum(whole) > 25
