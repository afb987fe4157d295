"""Checkpoints: whole or absent, by name, newest found, oldest removed, never a pickle."""

import json
import os
import zipfile

import numpy as np
import pytest

from data.errors import UserError
from la_tf import checkpoints

ARRAYS = {
    "memory_bank/rows": np.arange(6, dtype=np.float32).reshape(3, 2),
    "memory_bank/written": np.array([True, False, True]),
    "optimizer/SGD/iteration": np.array(7),
    "cluster_labels": np.full((3, 2), -1, np.int32),
}


def write(folder, step, arrays=ARRAYS, state=None, keep=3):
    return checkpoints.write(folder, step, arrays, {"epoch": 1} if state is None else state, keep)


def test_arrays_come_back_by_name_with_slashes_and_kinds(tmp_path):
    with checkpoints.read_arrays(write(tmp_path, 5)) as found:
        assert sorted(found.files) == sorted(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype and found[name].shape == array.shape


def test_state_comes_back_with_its_step(tmp_path):
    state = checkpoints.read_state(write(tmp_path, 5, state={"epoch": 2, "hooks": {"Plateau": {"best": None}}}))
    assert (state["step"], state["epoch"], state["hooks"]) == (5, 2, {"Plateau": {"best": None}})


def test_the_newest_is_found_by_number_not_by_name(tmp_path):
    assert checkpoints.latest(tmp_path / "nothing") is None and checkpoints.steps(tmp_path / "nothing") == []
    for step in (99_999_999, 100_000_000):  # one digit more
        write(tmp_path, step)
    assert checkpoints.steps(tmp_path) == [99_999_999, 100_000_000]
    assert checkpoints.latest(tmp_path) == checkpoints.path_of(tmp_path, 100_000_000)


def test_only_the_newest_are_kept(tmp_path):
    for step in (0, 10, 20, 30):
        write(tmp_path, step, keep=2)
    assert checkpoints.steps(tmp_path) == [20, 30]
    write(tmp_path, 40, keep=1)
    assert sorted(os.listdir(checkpoints.folder(tmp_path))) == ["step-00000040"]


def test_the_best_is_kept_beside_the_newest(tmp_path):
    assert checkpoints.best(tmp_path, "map") is None
    for step, value in ((10, 0.1), (20, 0.7), (25, None), (30, 0.7), (40, 0.2)):
        logs = {} if value is None else {"map": value}
        checkpoints.write(tmp_path, step, ARRAYS, {"logs": logs}, keep=1, keep_best="map")
    assert checkpoints.steps(tmp_path) == [20, 40]  # the first of equals
    assert checkpoints.best(tmp_path, "map") == checkpoints.path_of(tmp_path, 20)
    checkpoints.write(tmp_path, 50, ARRAYS, {"logs": {"map": 0.8}}, keep=1, keep_best="map")
    assert checkpoints.steps(tmp_path) == [50]
    assert checkpoints.best(tmp_path, "other") is None


def test_a_checkpoint_that_is_there_is_left_as_it_is(tmp_path):
    write(tmp_path, 5)
    write(tmp_path, 5, arrays={"other": np.zeros(1)})
    assert "other" not in checkpoints.read_arrays(checkpoints.latest(tmp_path)).files


@pytest.mark.parametrize("moment", ["arrays", "state", "rename"])
def test_a_writer_killed_at_any_moment_leaves_the_last_checkpoint_the_newest(tmp_path, monkeypatch, moment):
    write(tmp_path, 10)

    def killed(*arguments, **keywords):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*{"arrays": (np, "savez"), "state": (json, "dump"), "rename": (os, "rename")}[moment], killed)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, 20)
    assert len(os.listdir(checkpoints.folder(tmp_path))) == 2, "the case is meant to leave something behind"
    assert checkpoints.steps(tmp_path) == [10]
    assert checkpoints.read_state(checkpoints.latest(tmp_path))["step"] == 10
    write(tmp_path, 20)
    assert sorted(os.listdir(checkpoints.folder(tmp_path))) == ["step-00000010", "step-00000020"]


def test_what_another_process_left_half_written_is_ignored_and_removed(tmp_path):
    left = checkpoints.folder(tmp_path) / ".step-00000030.4711"
    left.mkdir(parents=True)
    (left / "arrays.npz").write_bytes(b"PK half")
    assert checkpoints.latest(tmp_path) is None
    write(tmp_path, 20)
    assert not left.exists() and checkpoints.steps(tmp_path) == [20]


def test_files_that_are_no_checkpoints_are_neither_read_nor_removed(tmp_path):
    note = checkpoints.folder(tmp_path) / "step-notes.txt"
    note.parent.mkdir(parents=True)
    note.write_text("mine")
    write(tmp_path, 1, keep=1)
    write(tmp_path, 2, keep=1)
    assert checkpoints.steps(tmp_path) == [2] and note.exists()


def test_a_pickle_is_neither_written_nor_read(tmp_path):
    path = write(tmp_path, 5)
    with zipfile.ZipFile(path / "arrays.npz") as archive:
        for member in archive.namelist():
            header = archive.read(member)[:128]
            assert member.endswith(".npy") and b"'|O'" not in header
    np.savez(path / "arrays.npz", harmful=np.array([{"a": 1}], object))
    with pytest.raises(UserError, match=r"allow_pickle|harmful\.npy is said to be object"):
        checkpoints.read_arrays(path)["harmful"]


def test_damage_to_an_array_is_noticed(tmp_path):
    path = write(tmp_path, 5, arrays={"rows": np.zeros(1000)}) / "arrays.npz"
    content = bytearray(path.read_bytes())
    content[4000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"arrays\.npz: is damaged .*CRC"):
        checkpoints.read_arrays(path.parent)["rows"]


def test_another_format_is_refused_with_both_numbers(tmp_path):
    path = write(tmp_path, 5)
    (path / "state.json").write_text(json.dumps({"format": 99, "step": 5}))
    with pytest.raises(UserError, match=rf"format 99.*{checkpoints.FORMAT}"):
        checkpoints.read_state(path)


def test_a_checkpoint_that_a_run_has_removed_is_named(tmp_path):
    path = write(tmp_path, 5)
    arrays = checkpoints.read_arrays(path)
    checkpoints.remove_folders([path])
    assert arrays["cluster_labels"].size, "what is open can be read on"
    for read in (checkpoints.read_state, checkpoints.read_arrays):
        with pytest.raises(checkpoints.Gone, match=rf"{path}: was removed meanwhile"):
            read(path)


def spoil(path, how):
    """Damages a file as disks and people do."""
    content = path.read_bytes()
    if how == "flipped":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


@pytest.mark.parametrize("name", ["arrays.npz", "state.json", "rows/bank.npy"])
@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "gone"])
def test_damage_is_told_by_the_checksums(tmp_path, name, how):
    parts = {"bank": checkpoints.Part(4, 0, np.arange(8, dtype=np.float32).reshape(4, 2))}
    path = checkpoints.write(tmp_path, 5, ARRAYS, {}, 3, parts)
    assert checkpoints.problem(path) is None
    spoil(path / name, how)
    assert checkpoints.problem(path) == f"{name} is {'missing' if how == 'gone' else 'damaged'}"


@pytest.mark.parametrize("name", ["arrays.npz", "state.json"])
def test_without_checksums_what_every_checkpoint_needs_has_to_be_there(tmp_path, name):
    path = write(tmp_path, 5)
    (path / "sha256.json").unlink()
    assert checkpoints.problem(path) is None  # one of before there were any
    (path / name).unlink()
    assert checkpoints.problem(path) == f"{name} is missing"
    (path / "sha256.json").write_text("{}")
    assert checkpoints.problem(path) == "sha256.json is damaged"


@pytest.mark.parametrize("name", ["../config.json", "/dev/zero", "rows/../../config.json", "a/b"])
def test_checksums_of_files_elsewhere_are_not_looked_at(tmp_path, name):
    path = write(tmp_path, 5)
    stored = json.loads((path / "sha256.json").read_text())
    (path / "sha256.json").write_text(json.dumps(stored | {name: "0" * 64}))
    assert checkpoints.problem(path) == f"{name} is missing"


@pytest.mark.parametrize("how", ["cut", "empty", "gone"])
def test_of_damaged_checksums_nothing_is_believed(tmp_path, how):
    path = write(tmp_path, 5)
    spoil(path / "sha256.json", how)
    assert checkpoints.problem(path) == (None if how == "gone" else "sha256.json is damaged")


def test_the_newest_whole_checkpoint_is_taken_and_damaged_ones_are_set_aside(tmp_path):
    for step in (10, 20, 30):
        write(tmp_path, step)
    for step in (20, 30):
        spoil(checkpoints.path_of(tmp_path, step) / "arrays.npz", "flipped")
    told = []
    checkpoints.set_aside_damaged(tmp_path, told.append)
    assert checkpoints.steps(tmp_path) == [10]
    folder = checkpoints.folder(tmp_path)
    assert sorted(os.listdir(folder)) == ["step-00000010", "step-00000020.damaged", "step-00000030.damaged"]
    wanted = "arrays.npz is damaged; it is step-00000030.damaged now, and the checkpoint before it is taken"
    assert told[0] == f"{folder / 'step-00000030'}: {wanted}" and len(told) == 2
    checkpoints.set_aside_damaged(tmp_path, told.append)
    assert len(told) == 2
    write(tmp_path, 20)  # one of that step can be written anew
    assert checkpoints.problem(checkpoints.path_of(tmp_path, 20)) is None


def test_where_no_checkpoint_is_whole_all_are_left_and_it_is_an_error(tmp_path):
    for step in (10, 20):
        spoil(write(tmp_path, step) / "state.json", "cut")
    with pytest.raises(UserError, match=r"not one of its checkpoints is whole .*step-00000020: state\.json is damaged"):
        checkpoints.set_aside_damaged(tmp_path)
    assert checkpoints.steps(tmp_path) == [10, 20]
    checkpoints.set_aside_damaged(tmp_path / "nothing")
