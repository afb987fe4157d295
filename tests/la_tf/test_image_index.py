"""The index on disk: what is opened was built, additions are whole or not there, refusals name both sides."""

import json
import os

import numpy as np
import pytest

from data.errors import UserError
from la_tf import image_index, model_dir, vector_index
from la_tf.image_index import ImageIndex

N, D = 300, 8


def unit_rows(count, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, D)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


ROWS = unit_rows(N)
NAMES = [*(f"/pictures/{number}.jpg" for number in range(N - 2)), "/with blank/ähnlich.jpg", "/caf\udce9.jpg"]


@pytest.fixture
def index(tmp_path):
    return ImageIndex.build(tmp_path / "index", ROWS, NAMES, "weights")


def best(found):
    """The names of the nearest rows."""
    return [found.names[row] for row in found.search(ROWS, 1)[1][:, 0]]


@pytest.mark.parametrize("kind", vector_index.KINDS)
@pytest.mark.parametrize("quantised", [False, True])
def test_what_is_opened_is_what_was_built(tmp_path, kind, quantised):
    built = ImageIndex.build(tmp_path, ROWS, NAMES, "weights", kind=kind, quantised=quantised)
    opened = ImageIndex.open(tmp_path, "weights")
    assert opened.description["kind"] == kind
    for of_built, of_opened in zip(built.search(ROWS[:20], 5), opened.search(ROWS[:20], 5), strict=True):
        np.testing.assert_array_equal(of_built, of_opened)
    assert vector_index.effort_of(opened.index) == built.description["effort"]
    assert list(opened.names) == NAMES


def test_names_follow_their_rows(index):
    assert best(index) == NAMES


def test_similarities_are_cosines(index):
    similarities, rows = index.search(ROWS[:9], 4)
    cosines = ROWS[:9].astype(np.float64) @ ROWS.astype(np.float64).T
    np.testing.assert_allclose(similarities, -np.sort(-cosines, axis=1)[:, :4], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(cosines, rows, 1), similarities, atol=1e-6)
    assert similarities.max() <= 1


def test_without_a_kind_n_decides(index):
    assert index.description["kind"] == "flat"
    assert [vector_index.automatic_kind(size) for size in (100_000, 100_001)] == ["flat", "ivf"]


@pytest.mark.parametrize("kind", vector_index.KINDS)
def test_what_is_added_is_found_and_nothing_twice(tmp_path, kind):
    ImageIndex.build(tmp_path, ROWS[:200], NAMES[:200], "weights", kind=kind)
    longer = ImageIndex.open(tmp_path).add(ROWS[150:], NAMES[150:])  # fifty of them are there
    assert len(longer) == N
    assert best(longer) == NAMES
    assert ImageIndex.open(tmp_path).add(ROWS, NAMES).description["number"] == longer.description["number"]
    assert best(ImageIndex.open(tmp_path)) == NAMES


def test_a_name_twice_in_what_is_added_is_one(index):
    longer = index.add(unit_rows(3, seed=1), ["/a.jpg", "/b.jpg", "/a.jpg"])
    assert list(longer.names)[N:] == ["/a.jpg", "/b.jpg"]


def test_a_name_twice_in_what_is_built_is_one(tmp_path):
    rows, names = ROWS[[0, 1, 2, 1]], ["/a.jpg", "/b.jpg", "/c.jpg", "/b.jpg"]
    built = ImageIndex.build(tmp_path, rows, names, "weights")
    assert list(built.names) == ["/a.jpg", "/b.jpg", "/c.jpg"]
    assert built.search(ROWS[:3], 1)[1][:, 0].tolist() == [0, 1, 2]


def test_only_the_files_that_count_are_kept(index):
    index.add(unit_rows(2, seed=1), ["/a.jpg", "/b.jpg"])
    assert sorted(os.listdir(index.folder)) == ["index.json", "names-1.jsonl", "rows-1.faiss"]
    assert best(index) == NAMES  # who has the old one open keeps it


def test_what_a_killed_process_left_is_removed(index):
    for name in ("rows-7.faiss", "names-7.jsonl", "names-3.jsonl"):
        (index.folder / name).write_bytes(b"left")
    (index.folder / "rows-of-mine.faiss").write_bytes(b"not the index's")
    index.add(unit_rows(1, seed=1), ["/a.jpg"])
    assert sorted(os.listdir(index.folder)) == ["index.json", "names-8.jsonl", "rows-8.faiss", "rows-of-mine.faiss"]
    assert best(ImageIndex.open(index.folder)) == NAMES


def test_who_opens_it_while_it_is_changed_gets_the_new_one(index, monkeypatch):
    """Another process commits between the reading of index.json and the opening of the files it names."""
    describe = image_index.describe

    def outrun(folder):
        found = describe(folder)
        if found["number"] == 0:
            monkeypatch.setattr(image_index, "describe", describe)
            index.add(unit_rows(1, seed=1), ["/a.jpg"])
        return found

    monkeypatch.setattr(image_index, "describe", outrun)
    opened = ImageIndex.open(index.folder)
    assert (len(opened), opened.names[N]) == (N + 1, "/a.jpg")


@pytest.mark.parametrize("damage", ["{", '{"format": 99}'])
def test_a_damaged_description_is_built_over(index, damage):
    (index.folder / "index.json").write_text(damage)
    ImageIndex.build(index.folder, ROWS[:9], NAMES[:9], "weights")
    assert len(ImageIndex.open(index.folder)) == 9
    assert len(os.listdir(index.folder)) == 3


def test_an_addition_that_fails_leaves_the_index_as_it_was(index, monkeypatch):
    def killed(path, value):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(model_dir, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            index.add(unit_rows(2, seed=1), ["/a.jpg", "/b.jpg"])
    assert len(ImageIndex.open(index.folder)) == N
    assert len(ImageIndex.open(index.folder).add(unit_rows(2, seed=1), ["/a.jpg", "/b.jpg"])) == N + 2


def test_a_given_effort_counts_for_one_search_or_all(tmp_path):
    index = ImageIndex.build(tmp_path, ROWS, NAMES, "weights", kind="ivf", lists=30, effort=2)
    assert (index.description["effort"], index.description["recall_at_10"]) == (2, None)
    every, few = (index.search(ROWS, 5, effort)[0] for effort in (30, None))
    assert every.sum() > few.sum()
    np.testing.assert_allclose(every, -np.sort(-(ROWS @ ROWS.T), axis=1)[:, :5], atol=1e-6)
    np.testing.assert_array_equal(index.search(ROWS, 5)[0], few)


def test_the_index_of_another_export_is_refused(index):
    with pytest.raises(UserError) as refusal:
        ImageIndex.open(index.folder, "others")
    assert "another export (weights weights there, others here)" in str(refusal.value)
    assert str(index.folder) in str(refusal.value)


def test_no_index_says_how_to_build_one(tmp_path):
    with pytest.raises(UserError, match="there is no index yet; build one by --source"):
        ImageIndex.open(tmp_path)


def test_more_pictures_than_there_are_are_refused(index):
    with pytest.raises(UserError, match=r"--nearest=301: the index holds 300 pictures"):
        index.search(ROWS, 301)


def damage_rows(folder):
    path = folder / "rows-0.faiss"
    path.write_bytes(path.read_bytes()[:1000])


def damage_names(folder):
    (folder / "names-0.jsonl").write_text('"a.jpg"\n')


def lose_rows(folder):
    (folder / "rows-0.faiss").unlink()


def damage_description(folder):
    path = folder / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


def tear_description(folder):
    (folder / "index.json").write_text("{")


@pytest.mark.parametrize("damage", [damage_rows, damage_names, lose_rows, damage_description, tear_description])
def test_damage_is_told(index, damage):
    damage(index.folder)
    with pytest.raises(UserError, match="build it anew"):
        ImageIndex.open(index.folder)


def test_there_is_no_description_without_an_index(tmp_path):
    assert image_index.describe(tmp_path) is None
