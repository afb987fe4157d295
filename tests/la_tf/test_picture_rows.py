"""Rows of pictures on replicas: which there are where, drawn by parts, written to checkpoints by parts."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from la_tf import checkpoints
from la_tf.memory_bank import BLOCK, random_unit_rows
from la_tf.picture_rows import PictureRows, rows_at, write_at
from la_tf.processes import ALONE
from tests.la_tf.together import together


def rows_of(size, count, index):
    """PictureRows of replica `index` of `count`, each a process of its own."""
    replicas = SimpleNamespace(count=count, index=tf.constant(index), first=index, here=1, processes=ALONE)
    return PictureRows(size, spread=True, replicas=replicas)


@pytest.mark.parametrize(("size", "count"), [(10, 2), (10, 3), (9, 4), (5, 4), (7, 1)])
def test_every_picture_has_one_owner_and_the_owners_rows_follow_each_other(size, count):
    parts = [rows_of(size, count, index) for index in range(count)]
    assert [row for part in parts for row in part.here] == list(range(size))
    places = np.stack([part.places(tf.range(size, dtype=tf.int64)).numpy() for part in parts])
    assert ((places >= 0).sum(axis=0) == 1).all() and places.max() < -(-size // count)
    for part, mine in zip(parts, places, strict=True):
        np.testing.assert_array_equal(np.flatnonzero(mine >= 0), part.here)
        np.testing.assert_array_equal(mine[mine >= 0], np.arange(len(part.here)))
        np.testing.assert_array_equal(part.real(tf.range(part.length)), np.arange(part.length) < len(part.here))


def test_unspread_every_replica_has_all_rows():
    part = PictureRows(10, spread=False, replicas=SimpleNamespace(count=4, index=3, first=3, here=1, processes=None))
    assert part.here == range(10) and part.length == 10 and part.processes is ALONE
    np.testing.assert_array_equal(part.places(tf.range(10, dtype=tf.int64)), np.arange(10))


def test_random_rows_can_be_drawn_by_parts():
    whole = random_unit_rows(2 * BLOCK + 5, 3, seed=7)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-5)
    for first, size in ((0, 4), (BLOCK - 2, 5), (BLOCK, BLOCK), (2 * BLOCK + 1, 4), (3, 0)):
        np.testing.assert_array_equal(random_unit_rows(size, 3, 7, first), whole[first : first + size])
    assert len(np.unique(whole[:, 0])) > 0.99 * len(whole), "no two blocks are alike"


def test_rows_are_read_and_written_by_their_places():
    layer = keras.layers.Layer()
    weight = PictureRows(6).add(layer, "numbers", 3, (2,), "int32")
    write_at(weight.value, tf.constant([4, 1]), tf.constant([[7, 8], [9, 10]]))
    wanted = np.full((6, 2), 3)
    wanted[[4, 1]] = [[7, 8], [9, 10]]
    np.testing.assert_array_equal(weight.numpy(), wanted)
    np.testing.assert_array_equal(rows_at(weight.value, tf.constant([[1], [0]]), tf.float32), wanted[[[1], [0]]])


def test_processes_write_one_checkpoint_of_whole_arrays(tmp_path):
    rows = np.arange(22, dtype=np.float32).reshape(11, 2)
    arrays = {"network/kernel": np.ones(3)}

    def work(process):
        part = np.array_split(rows, 3)[process.index]
        first = sum(len(each) for each in np.array_split(rows, 3)[: process.index])
        parts = {"memory_bank/rows": checkpoints.Part(11, first, part)}
        return checkpoints.write(tmp_path, 5, arrays, {"epoch": 1}, 2, parts, process)

    folders = together(3, work)
    assert {*folders} == {checkpoints.latest(tmp_path)}
    with checkpoints.read_arrays(folders[0]) as found:
        assert sorted(found.files) == ["memory_bank/rows", "network/kernel"] and found.get("other") is None
        np.testing.assert_array_equal(found["memory_bank/rows"], rows)
        np.testing.assert_array_equal(found["network/kernel"], np.ones(3))
    assert [entry.name for entry in checkpoints.folder(tmp_path).iterdir()] == ["step-00000005"]


def test_a_torn_file_of_rows_is_named(tmp_path):
    part = checkpoints.Part(4, 0, np.ones((4, 2), np.float32))
    folder = checkpoints.write(tmp_path, 1, {"a": np.zeros(1)}, {}, 1, {"bank/rows": part})
    path = next((folder / "rows").iterdir())
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(checkpoints.UserError, match=r"bank%2Frows.*damaged"):
        checkpoints.read_arrays(folder)["bank/rows"]
