"""Densities against float64 NumPy, and which ranks they are of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from la_tf import density
from la_tf.nearest_rows import QUERIES
from tests.la_tf.reference import unit


def by_sorting(rows, ranks):
    """The same by sorting all similarities in float64."""
    similarity = rows.astype(np.float64) @ rows.astype(np.float64).T
    np.fill_diagonal(similarity, -np.inf)  # the image itself
    ordered = -np.sort(-similarity, axis=1)
    return ordered[:, : ranks.local].mean(axis=1), ordered[:, ranks.first - 1 : ranks.last].mean(axis=1)


@pytest.mark.parametrize("size", [3, 40, 200, QUERIES + 100])  # the last: two blocks of queries
def test_densities_are_the_mean_similarities_of_the_ranks_without_the_image_itself(size):
    rows = unit(np.random.default_rng(size).standard_normal((size, 8)) + 0.5).astype(np.float32)
    rows[size // 2] = rows[0]  # a copy is a neighbour
    of_ranks = density.ranks(size)
    for found, wanted in zip(density.densities(rows, of_ranks), by_sorting(rows, of_ranks), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_an_image_among_more_copies_than_are_looked_at_has_density_one():
    rows = np.tile(unit(np.ones((1, 4))), (50, 1)).astype(np.float32)
    rows = np.concatenate([rows, -rows[:1]])  # and one that is opposite to all
    local, background = density.densities(rows, density.Ranks(2, 3, 6))
    np.testing.assert_allclose(local, [1] * 50 + [-1], atol=1e-6)
    np.testing.assert_allclose(background, [1] * 50 + [-1], atol=1e-6)


def test_ranks_are_the_papers_on_imagenet_and_the_same_share_of_less():
    assert density.ranks(1_281_167) == (30, 1000, 4096)
    assert density.ranks(10_000_000) == (30, 1000, 4096)
    assert density.ranks(640_584) == (30, 500, 2050)  # half the images: 0.32% of them, from a quarter of that on
    assert density.ranks(2500) == (30, 31, 128)  # as B_i, never fewer than 128


@given(st.integers(3, 3_000_000))
def test_ranks_are_of_others_and_do_not_overlap(size):
    local, first, last = density.ranks(size)
    assert 1 <= local < first <= last <= size - 1


def test_histograms_share_their_edges_and_hold_every_image():
    few, many = np.full(10, 0.2), np.linspace(0.5, 0.9, 1000)
    edges, (of_few, of_many) = density.histograms([few, many])
    assert edges[0] == pytest.approx(0.2) and 0.89 < edges[-1] < 0.9  # one in five hundred lies beyond
    assert of_few[0] == 1 and of_few.sum() == pytest.approx(1) and of_many.sum() == pytest.approx(1)
    middle = of_many[edges[:-1] > 0.52][:-1]
    np.testing.assert_allclose(middle, np.diff(edges)[0] / 0.4, atol=2e-3)  # evenly spread


def test_histograms_of_equal_numbers_have_bins_all_the_same():
    edges, (shares,) = density.histograms([np.ones(5)])
    assert (np.diff(edges) > 0).all() and shares.sum() == pytest.approx(1)


def test_the_summary_by_hand():
    found = density.summary(np.arange(101) / 100)
    assert found["mean"] == pytest.approx(0.5) and found["q05"] == pytest.approx(0.05) and found["q75"] == 0.75
