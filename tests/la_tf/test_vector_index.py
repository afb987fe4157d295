"""Faiss indexes of unit rows: flat is exact, the others find enough, and what is added is found."""

import faiss
import numpy as np
import pytest

from data.errors import UserError
from la_tf import vector_index

N, D, CENTRES = 6000, 16, 60


def mixture(count, seed):
    """Unit rows around fixed centres."""
    centres = np.random.default_rng(0).standard_normal((CENTRES, D))
    rng = np.random.default_rng(seed)
    return unit(centres[rng.integers(CENTRES, size=count)] + 0.5 * rng.standard_normal((count, D)))


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


ROWS, QUERIES = mixture(N, seed=1), mixture(200, seed=2)


def nearest(rows, queries, count):
    """(similarities, numbers) of the nearest rows, in float64."""
    similarities = queries.astype(np.float64) @ rows.astype(np.float64).T
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(similarities, order, 1), order


def recall(found, wanted):
    return np.mean([len({*a} & {*b}) / len(b) for a, b in zip(found, wanted, strict=True)])


def copy_of(index):
    return faiss.clone_index(index)


def test_flat_is_exact():
    similarities, found = vector_index.search(vector_index.build(ROWS, "flat"), QUERIES, 10)
    wanted, order = nearest(ROWS, QUERIES, 10)
    np.testing.assert_allclose(similarities, wanted, atol=1e-6)
    np.testing.assert_allclose(np.einsum("qkd,qd->qk", ROWS[found], QUERIES), wanted, atol=1e-6)
    assert recall(found, order) > 0.999  # float32 may exchange two that are equal in seven digits


def test_flat_is_exact_for_one_query_too(monkeypatch):
    monkeypatch.setattr(faiss, "omp_get_max_threads", lambda: 4)
    monkeypatch.setattr(vector_index, "PARTED", 0)
    index = vector_index.build(ROWS, "flat")
    wanted, order = nearest(ROWS, QUERIES[:3], 10)
    similarities, found = vector_index.search(index, QUERIES[:3], 10)
    np.testing.assert_allclose(similarities, wanted, atol=1e-6)
    assert recall(found, order) > 0.999
    assert sorted(vector_index.search(index, QUERIES[:1], N)[1][0]) == list(range(N))  # all of them


def test_a_few_rows_for_many_threads(monkeypatch):
    monkeypatch.setattr(faiss, "omp_get_max_threads", lambda: 16)
    monkeypatch.setattr(vector_index, "PARTED", 0)
    similarities, found = vector_index.search(vector_index.build(ROWS[:5], "flat"), QUERIES[:2], 4)
    wanted, order = nearest(ROWS[:5], QUERIES[:2], 4)
    np.testing.assert_allclose(similarities, wanted, atol=1e-6)
    np.testing.assert_array_equal(found, order)


def test_exact_search_in_parts_is_that_of_all_rows(monkeypatch):
    monkeypatch.setattr(vector_index, "CHUNK", 700)  # the last part has fewer
    similarities, found = vector_index.exact(QUERIES, ROWS, 10)
    wanted, order = nearest(ROWS, QUERIES, 10)
    np.testing.assert_allclose(similarities, wanted, atol=1e-6)
    assert recall(found, order) > 0.999


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_the_tuned_index_finds_what_it_promises(kind, quantised):
    index = vector_index.build(ROWS, kind, quantised)
    promised = vector_index.tune(index, ROWS, 0.97)
    _, found = vector_index.search(index, QUERIES, 10)
    _, order = nearest(ROWS, QUERIES, 10)
    assert promised >= 0.95
    assert recall(found, order) >= 0.95
    assert abs(recall(found, order) - promised) < 0.04


def test_tuning_takes_no_more_than_it_needs():
    index = vector_index.build(ROWS, "ivf")
    vector_index.tune(index, ROWS, 0.97)
    effort = vector_index.effort_of(index)
    assert 1 < effort < index.nlist / 4
    own = np.arange(0, N, 20)
    _, order = nearest(ROWS, ROWS[own], 11)
    at_half = copy_of(index)
    vector_index.set_effort(at_half, effort // 2)
    assert recall(at_half.search(ROWS[own], 11)[1][:, 1:], order[:, 1:]) < 0.985


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("kind", vector_index.KINDS)
def test_rows_are_added_without_training(kind, quantised, tmp_path, monkeypatch):
    monkeypatch.setattr(vector_index, "CHUNK", 700)  # several parts of the file
    index = vector_index.build(ROWS[:5000], kind, quantised)
    vector_index.tune(index, ROWS[:5000], 0.97)
    centroids = index.quantizer.reconstruct_n(0, index.nlist) if kind == "ivf" else None
    ranges = faiss.vector_to_array(index.sq.trained) if quantised and kind != "hnsw" else None
    faiss.write_index(index, str(tmp_path / "index"))
    longer = vector_index.extended(tmp_path / "index", ROWS[5000:])
    assert longer.ntotal == N
    _, found = vector_index.search(longer, QUERIES, 10)
    _, order = nearest(ROWS, QUERIES, 10)
    assert recall(found, order) >= 0.94
    _, own = vector_index.search(longer, ROWS[5000:5200], 1)
    assert (own[:, 0] == np.arange(5000, 5200)).mean() > 0.98
    if centroids is not None:
        np.testing.assert_array_equal(longer.quantizer.reconstruct_n(0, longer.nlist), centroids)
    if ranges is not None:
        np.testing.assert_array_equal(faiss.vector_to_array(longer.sq.trained), ranges)


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_bytes_take_a_quarter(kind):
    sizes = [
        faiss.serialize_index(vector_index.build(ROWS, kind, quantised, lists=20)).nbytes for quantised in (False, True)
    ]
    ids = 8 * N if kind == "ivf" else 0
    assert (sizes[0] - ids) / (sizes[1] - ids) > 3.8


def test_lists_are_no_longer_than_what_is_in_them():
    index = vector_index.build(ROWS, "ivf", lists=20)
    lists = [index.invlists.list_size(number) for number in range(20)]
    assert sum(lists) == N
    numbers = [faiss.rev_swig_ptr(index.invlists.get_ids(number), size) for number, size in enumerate(lists)]
    assert sorted(np.concatenate(numbers)) == list(range(N))
    for number in range(20):
        rows = faiss.rev_swig_ptr(index.invlists.get_codes(number), lists[number] * 4 * D).view(np.float32)
        np.testing.assert_array_equal(rows.reshape(-1, D), ROWS[numbers[number]])


def test_lists_with_too_few_rows_are_made_up_for():
    index = vector_index.build(ROWS, "ivf", lists=500)
    vector_index.set_effort(index, 1)
    _, found = vector_index.search(index, QUERIES[:5], 900)
    assert (found >= 0).all()
    assert all(len({*row}) == 900 for row in found.tolist())
    assert vector_index.effort_of(index) == 1  # as it was


@pytest.mark.parametrize("kind", vector_index.KINDS)
@pytest.mark.parametrize("size", [1, 2, 11])
def test_a_few_rows_are_an_index_too(kind, size):
    for quantised in (False, True):
        index = vector_index.build(ROWS[:size], kind, quantised)
        vector_index.tune(index, ROWS[:size], 0.97)
        assert vector_index.search(index, ROWS[:1], 1)[1][0, 0] == 0


def test_equal_rows_count_as_found():
    rows = np.repeat(ROWS[:50], 30, axis=0)  # whichever of thirty equal rows is found is right
    index = vector_index.build(rows, "ivf", lists=5)
    assert vector_index.tune(index, rows, 0.97) > 0.97
    assert vector_index.tune(vector_index.build(rows, "flat"), rows, 0.97) == 1


def test_more_lists_than_rows_are_refused():
    with pytest.raises(UserError, match=r"--lists=7: there are 6 pictures"):
        vector_index.build(ROWS[:6], "ivf", lists=7)


def test_a_mapped_file_is_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_index, "CHUNK", 700)
    np.save(tmp_path / "rows.npy", ROWS)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for kind in ("flat", "ivf"):
        index = vector_index.build(mapped, kind, lists=20)
        if kind == "ivf":
            vector_index.set_effort(index, 20)
        assert (vector_index.search(index, ROWS[:200], 1)[1][:, 0] == np.arange(200)).all()
