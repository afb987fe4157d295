"""The K nearest rows against a full sort in float64. Small whole numbers: their similarities are exact, ties too."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from la_tf import nearest_rows as module
from la_tf.nearest_rows import nearest_of_all, nearest_others, nearest_rows
from tests.la_tf.reference import unit
from tests.la_tf.together import shares, together

SMALL = {"QUERIES": 3, "BLOCK": 7, "SAMPLE": 16, "LEAST_ROOM": 4}  # so that small banks have many blocks


def by_sorting(queries, bank, neighbors, eligible=None):
    """Similarities and indices, most similar first, ties to the lowest index."""
    rows = [j for j in range(len(bank)) if eligible is None or eligible[j]]
    similarity = np.asarray(queries, np.float64) @ np.asarray(bank, np.float64).T
    nearest = [sorted(rows, key=lambda j: (-each[j], j))[:neighbors] for each in similarity]
    places = np.array(nearest, np.int64).reshape(len(queries), min(neighbors, len(rows)))
    return np.take_along_axis(similarity, places, axis=1), places


def whole_numbers(rng, rows, dimension, most=3):
    return rng.integers(-most, most + 1, size=(rows, dimension)).astype(np.float32)


def assert_same(found, expected):
    assert found[0].dtype == np.float32 and found[1].dtype == np.int32
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[0], expected[0])


@pytest.fixture
def small(monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(module, name, value)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.tuples(st.integers(0, 8), st.integers(1, 60), st.integers(1, 4)),
    neighbors=st.integers(1, 70),
    share=st.sampled_from([0.0, 0.1, 0.7, 1.0]),
    constants=st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(1, 70), st.integers(1, 9)),
)
def test_the_nearest_are_those_of_a_full_sort_whatever_the_blocks(seed, sizes, neighbors, share, constants):
    rng = np.random.default_rng(seed)
    count, size, dimension = sizes
    queries, bank = whole_numbers(rng, count, dimension, 2), whole_numbers(rng, size, dimension, 2)
    eligible = rng.random(size) < share
    with pytest.MonkeyPatch.context() as patch:
        for name, value in zip(SMALL, constants, strict=True):
            patch.setattr(module, name, value)
        found = nearest_rows(queries, bank, neighbors, eligible)
    assert_same(found, by_sorting(queries, bank, neighbors, eligible))


ORDERS = {
    "at random": lambda similarity: np.arange(len(similarity)),
    "ever more similar": np.argsort,
    "ever less similar": lambda similarity: np.argsort(-similarity),
    "the best third last": lambda similarity: np.argsort(similarity > np.quantile(similarity, 2 / 3), kind="stable"),
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_bank_in_any_order_is_searched_exactly_with_the_block_sizes_of_use(order):
    rng = np.random.default_rng(0)
    queries, bank = whole_numbers(rng, 5, 8, 9), whole_numbers(rng, 20_000, 8, 9)
    queries[1:] = queries[0] + (np.abs(queries[1:]) > 7)  # alike, so that one order is hard for all
    bank = bank[ORDERS[order](bank @ queries[0])]
    eligible = np.arange(20_000) % 11 != 4
    assert_same(nearest_rows(queries, bank, 200, eligible), by_sorting(queries, bank, 200, eligible))


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_where_all_rows_are_equal_the_lowest_eligible_indices_are_found(small, value):
    bank, eligible = np.full((100, 4), value, np.float32), np.arange(100) % 3 == 1
    similarities, rows = nearest_rows(np.ones((4, 4), np.float32), bank, 9, eligible)
    assert rows.tolist() == [[1, 4, 7, 10, 13, 16, 19, 22, 25]] * 4
    assert (similarities == 4 * value).all()


@pytest.mark.parametrize("order", ["equal", "ever more similar"])
def test_neither_ties_nor_a_flood_of_candidates_take_memory_for_the_whole_bank(monkeypatch, order):
    for name, value in {"QUERIES": 32, "BLOCK": 64, "SAMPLE": 128, "LEAST_ROOM": 16}.items():
        monkeypatch.setattr(module, name, value)
    queries = np.ones((64, 2), np.float32)
    bank = np.ones((40_000, 2), np.float32)
    if order != "equal":
        bank[:, 0] = np.arange(40_000)
    tracemalloc.start()
    nearest_rows(queries, bank, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.2 * 64 * 40_000 * 4  # float32 similarities of 64 x 40,000


@pytest.mark.parametrize("length", [0.01, 1.0, 300.0])
def test_no_row_is_lost_where_the_products_with_the_blocks_round_lower_than_the_one_with_the_sample(
    small, monkeypatch, length
):
    rows_of = module._rows_of
    monkeypatch.setattr(
        module, "_rows_of", lambda bank, rows: rows_of(bank, rows) * np.float32(1 if len(rows) == 16 else 1 - 2e-7)
    )
    bank = (unit(np.ones((60, 37))) * length).astype(np.float32)
    assert nearest_rows(bank[:2], bank, 12)[1].tolist() == [list(range(12))] * 2


def test_zeros_are_equal_whatever_their_sign():
    first, second = module._keys(np.array([-0.0, 0.0], np.float32), np.array([3, 5]))
    assert first < second


def test_similarities_come_in_descending_order_negative_ones_included(small):
    rng = np.random.default_rng(2)
    queries, bank = (unit(rng.standard_normal((rows, 6))).astype(np.float32) for rows in (5, 50))
    similarities, rows = nearest_rows(queries, bank, 50)
    assert (np.diff(similarities, axis=1) <= 0).all() and similarities.min() < 0
    np.testing.assert_allclose(similarities, np.take_along_axis(queries @ bank.T, rows, axis=1), atol=1e-6)


@pytest.mark.parametrize("neighbors", [10, 30])  # fewer numbers in the sample, in the bank
def test_what_is_not_a_number_is_nobodys_neighbour_and_has_none(small, neighbors):
    rng = np.random.default_rng(3)
    queries, bank = whole_numbers(rng, 4, 5), whole_numbers(rng, 60, 5)
    broken = rng.random(60) < 0.7
    bank[broken] = np.nan
    queries[2] = np.nan
    similarities, rows = nearest_rows(queries, bank, neighbors)
    expected = by_sorting(np.nan_to_num(queries), np.nan_to_num(bank), neighbors, ~broken)
    others, fine = [0, 1, 3], min(neighbors, (~broken).sum())
    assert 10 <= fine < 30
    assert_same((similarities[others, :fine], rows[others, :fine]), tuple(part[others] for part in expected))
    assert (rows[:, fine:] == -1).all() and np.isnan(similarities[:, fine:]).all()
    assert (rows[2] == -1).all() and np.isnan(similarities[2]).all()


def test_a_bank_in_a_file_is_searched_as_it_lies_there(small, tmp_path):
    rng = np.random.default_rng(4)
    queries, bank = whole_numbers(rng, 4, 5), whole_numbers(rng, 60, 5)
    np.save(tmp_path / "bank.npy", bank)
    mapped = np.load(tmp_path / "bank.npy", mmap_mode="r")
    assert_same(nearest_rows(queries, mapped, 9), by_sorting(queries, bank, 9))


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.tuples(st.integers(1, 8), st.integers(0, 60), st.integers(1, 4)),
    neighbors=st.integers(1, 70),
    share=st.sampled_from([0.0, 0.1, 0.7, 1.0]),
    processes=st.integers(1, 4),
)
def test_the_nearest_of_a_bank_that_is_spread_are_those_of_the_whole(seed, sizes, neighbors, share, processes):
    rng = np.random.default_rng(seed)
    count, size, dimension = sizes
    queries, bank = whole_numbers(rng, count, dimension, 1), whole_numbers(rng, size, dimension, 1)
    bank[rng.random(size) < 0.1] = np.nan
    eligible = rng.random(size) < share
    firsts = np.sort(rng.integers(size + 1, size=processes - 1))
    sizes = np.diff(firsts, prepend=0)
    banks, marks, firsts = shares(bank, *sizes), shares(eligible, *sizes), [0, *firsts]

    def work(process):
        mine, marked, first = (part[process.index] for part in (banks, marks, firsts))
        return nearest_of_all(queries, mine, neighbors, marked, first, process)

    for found in together(processes, work):
        assert_same(found, nearest_rows(queries, bank, neighbors, eligible))


def test_others_are_the_nearest_rows_but_for_the_image_itself():
    rows = np.random.default_rng(3).standard_normal((40, 6)).astype(np.float32)
    rows[7:10] = rows[6]  # copies of each other are no reason to leave a copy out
    eligible = np.arange(40) % 5 != 0
    images = np.array([6, 8, 21])
    similarities, found = nearest_others(rows, images, 4, eligible)
    exact = rows.astype(np.float64) @ rows.T.astype(np.float64)
    for image, row_similarities, row in zip(images, similarities, found, strict=True):
        others = [j for j in range(40) if eligible[j] and j != image]
        wanted = sorted(others, key=lambda j: (-exact[image, j], j))[:4]
        np.testing.assert_array_equal(row, wanted)
        np.testing.assert_allclose(row_similarities, exact[image, wanted], rtol=1e-5)
    assert nearest_others(rows, images, 100, eligible)[1].shape == (3, 31)
    assert nearest_others(np.tile(rows[:1], (9, 1)), [8], 3)[1].shape == (1, 3)
    for nothing in nearest_others(rows, images, 4, np.zeros(len(rows), bool)):
        assert nothing.shape == (3, 0)
