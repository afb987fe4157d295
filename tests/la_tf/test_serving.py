"""The nearest rows of an exported bank, against float64 NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from la_tf import serving
from la_tf.serving import Bank, NearestRows


def unit_rows(rng, *shape):
    rows = rng.standard_normal(shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def asked(bank, queries, neighbors):
    function = NearestRows(bank).concrete_function()
    found = function(embedding=tf.constant(queries), neighbors=tf.constant(neighbors))
    assert (found["indices"].dtype, found["similarities"].dtype) == (tf.int64, tf.float32)
    return found["indices"].numpy(), found["similarities"].numpy()


def by_numpy(bank, queries, neighbors):
    """Indices and similarities `[Q, n]`, most similar first, ties to the lowest index, by sorting everything."""
    similarity = queries.astype(np.float64) @ bank.rows.astype(np.float64).T
    similarity[:, ~bank.written] = -np.inf
    order = np.argsort(-similarity, axis=1, kind="stable")[:, : min(neighbors, bank.written.sum())]
    return order, np.take_along_axis(similarity, order, axis=1)


@pytest.mark.parametrize("block", [7, 100, serving.BLOCK])
@pytest.mark.parametrize("neighbors", [1, 10, 1000])
def test_the_nearest_rows_are_those_of_float64(monkeypatch, block, neighbors):
    monkeypatch.setattr(serving, "BLOCK", block)
    rng = np.random.default_rng(0)
    bank = Bank(unit_rows(rng, 300, 16), rng.random(300) < 0.8)
    queries = np.concatenate([unit_rows(rng, 3, 16), bank.rows[:2]])
    indices, similarities = asked(bank, queries, neighbors)
    wanted, exact = by_numpy(bank, queries, neighbors)
    np.testing.assert_allclose(similarities, exact, rtol=0, atol=1e-6)
    # Rows may change places where float32 cannot tell them apart, nowhere else.
    moved = indices != wanted
    of_found = np.einsum("qd,qnd->qn", queries.astype(np.float64), bank.rows[indices].astype(np.float64))
    assert np.abs(of_found - exact)[moved].max(initial=0) < 1e-6
    assert bank.written[indices].all() and all(len({*row}) == len(row) for row in indices.tolist())
    assert moved.mean() < 0.01


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 40),
    block=st.integers(1, 50),
    neighbors=st.integers(1, 50),
    queries=st.integers(0, 3),
)
def test_of_equals_the_lowest_index_comes_first(seed, size, block, neighbors, queries):
    rng = np.random.default_rng(seed)
    # Halves: sums are exact in whatever order they are added up, so equal means equal.
    bank = Bank(rng.choice(np.float32([-0.5, 0.5]), (size, 4)), rng.random(size) < 0.7)
    bank.written[rng.integers(size)] = True
    asking = rng.choice(np.float32([-0.5, 0.5]), (queries, 4))
    before, serving.BLOCK = serving.BLOCK, block
    try:
        indices, similarities = asked(bank, asking, neighbors)
    finally:
        serving.BLOCK = before
    wanted, exact = by_numpy(bank, asking, neighbors)
    np.testing.assert_array_equal(indices, wanted)
    np.testing.assert_array_equal(similarities, exact)


def test_16_bit_rows_are_compared_as_float32():
    rng = np.random.default_rng(0)
    bank = Bank(unit_rows(rng, 50, 8).astype(np.float16), np.ones(50, bool))
    queries = unit_rows(rng, 4, 8)
    indices, similarities = asked(bank, queries, 3)
    wanted, exact = by_numpy(bank, queries, 3)
    np.testing.assert_array_equal(indices, wanted)
    np.testing.assert_allclose(similarities, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("neighbors", [0, -3])
def test_no_neighbours_are_no_question(neighbors):
    bank = Bank(unit_rows(np.random.default_rng(0), 5, 4), np.ones(5, bool))
    with pytest.raises(tf.errors.InvalidArgumentError, match="neighbors: must be at least 1"):
        asked(bank, bank.rows, neighbors)
