"""The map's numbers against float64 NumPy: neighbours, places, histograms, and what is in a checkpoint."""

import numpy as np
import pytest

from la_tf import checkpoints
from la_tf.embedding_map import Bank, histograms_of, in_the_plane, map_of, read_bank, sampled
from la_tf.memory_bank import random_unit_rows


def bank(size, written=None, seed=0):
    return Bank(random_unit_rows(size, 16, seed), np.ones(size, bool) if written is None else written, 7)


def test_neighbours_are_the_most_similar_others_of_the_sample():
    given = bank(40, written=np.arange(40) % 7 != 0)
    sample = np.arange(0, 40, 2)
    found = map_of(given, sample)
    rows = given.rows[sample].astype(np.float64)
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    there = given.written[sample]
    similarity[:, ~there] = -np.inf
    for number in range(len(sample)):
        if not there[number]:
            assert np.isnan(found.places[number]).all() and (found.nearest[number] == -1).all()
            continue
        order = np.argsort(-similarity[number])[:10]
        np.testing.assert_array_equal(found.nearest[number], order)
        np.testing.assert_allclose(found.similarities[number], similarity[number][order], atol=1e-6)
        assert np.isfinite(found.places[number]).all()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_handful_of_rows_has_a_map(size):
    found = map_of(bank(size), np.arange(size))
    assert np.isfinite(found.places).all()
    assert ((found.nearest >= 0).sum(axis=1) == size - 1).all()


@pytest.mark.parametrize("sample", [np.arange(0), np.arange(4)])
def test_a_sample_of_which_nothing_is_written_has_an_empty_map(sample):
    found = map_of(bank(10, written=np.arange(10) >= 4), sample)
    assert found.places.shape == (len(sample), 2) and np.isnan(found.places).all()
    assert found.nearest.shape == found.similarities.shape == (len(sample), 10) and (found.nearest == -1).all()


def test_a_collapsed_bank_has_a_map_and_no_row_is_its_own_neighbour():
    given = Bank(np.tile(random_unit_rows(1, 16, 0), (30, 1)), np.ones(30, bool), 1)
    found = map_of(given, np.arange(30))
    assert np.isfinite(found.places).all()
    assert (found.nearest != np.arange(30)[:, None]).all() and (found.nearest >= 0).all()


def test_groups_stay_apart_in_the_plane():
    centres = np.repeat(np.eye(3, 16, dtype=np.float32), 20, axis=0)
    rows = centres + 0.05 * random_unit_rows(60, 16, 1)
    places = in_the_plane(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    middles = places.reshape(3, 20, 2).mean(axis=1)
    nearest = np.linalg.norm(places[:, None] - middles, axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, np.repeat([0, 1, 2], 20))


def test_histograms_against_numpy():
    given = bank(200)
    found = histograms_of(given, bins=20)
    similarity = given.rows.astype(np.float64) @ given.rows.T.astype(np.float64)
    np.fill_diagonal(similarity, -np.inf)
    ordered = -np.sort(-similarity, axis=1)
    assert (found.near_ranks, found.far_ranks) == ((1, 30), (31, 128))  # as in the figure of la_tf.analyze
    for shares, part in ((found.near, ordered[:, :30]), (found.far, ordered[:, 30:128])):
        np.testing.assert_allclose(shares, np.histogram(part, found.edges)[0] / part.size, atol=1e-3)
        assert shares.sum() == pytest.approx(1)
    assert histograms_of(bank(63)) is None


def test_samples_are_the_same_for_runs_on_the_same_pictures():
    np.testing.assert_array_equal(sampled(1000, 50), sampled(1000, 50))
    assert len({*sampled(1000, 50)}) == 50 and (np.diff(sampled(1000, 50)) > 0).all()
    np.testing.assert_array_equal(sampled(10, 50), np.arange(10))


def test_the_bank_comes_out_of_the_newest_checkpoint(tmp_path):
    assert read_bank(tmp_path) is None
    rows, written = random_unit_rows(6, 4, 0), np.array([True] * 5 + [False])
    for step in (3, 9):
        arrays = {"memory_bank/rows": rows if step == 9 else -rows, "memory_bank/written": written}
        checkpoints.write(tmp_path, step, arrays, {}, keep=2)
    found = read_bank(tmp_path)
    assert found.step == 9
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.written, written)
    failed = {"memory_bank/rows": np.where(np.arange(6)[:, None] == 2, np.nan, rows), "memory_bank/written": written}
    checkpoints.write(tmp_path, 11, failed, {}, keep=2)
    np.testing.assert_array_equal(read_bank(tmp_path).written, [True, True, False, True, True, False])
    checkpoints.write(tmp_path, 12, {"other": rows}, {}, keep=2)
    assert read_bank(tmp_path) is None
