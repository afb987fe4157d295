"""B_i from cells, against NumPy that sorts all rows of the visited cells, and against the exact search."""

import functools

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from la_tf import cells, neighbors
from la_tf.resolve import LEAST_IN_CELL, cells_for
from tests.la_tf import reference

N, D, B, C = 1000, 8, 6, 20


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """A thousand rows are searched as many are: in blocks (the last reaches back), with a bound from a sample."""
    monkeypatch.setattr(neighbors, "BLOCK", 48)
    monkeypatch.setattr(cells, "LEAST_ROWS", 0)
    monkeypatch.setattr(neighbors, "SAMPLE_EVERY", 4)


def wanted_neighbors(embeddings, bank, allowed, k):
    """Similarities and rows [B, k] in order among the rows that are allowed [B, n]; -inf where there are no more."""
    similarity = np.where(allowed, embeddings @ bank.T, -np.inf)
    rows = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarity, rows, axis=1), rows


@functools.cache
def graph(size, k):
    """As in training: a graph over variables, and the bank one that has been written to by rows."""
    shapes = {
        "bank": (size, D),
        "written": (size,),
        "cells": (size,),
        "counts": (C,),
        "order": (-(-size // 8) * 8 + 8 * C,),
    }
    dtypes = {"bank": tf.float32, "written": tf.bool}
    of = {
        name: tf.Variable(np.zeros(shape), dtype=dtypes.get(name, tf.int32), trainable=False)
        for name, shape in shapes.items()
    }
    layout = cells.Layout(of["cells"], of["counts"], of["order"])

    @tf.function(input_signature=[tf.TensorSpec([None, D]), tf.TensorSpec([None, C], tf.bool)])  # any size of batch
    def search(embeddings, visits):
        found = cells.neighbors_in_cells(embeddings, of["bank"], of["written"], k, visits, layout)
        assert [(part.shape.rank, part.shape[-1]) for part in found] == [(2, k), (2, k), (1, found[2].shape[-1])]
        return found

    return search, of


def search(embeddings, bank, written, k, visits, of_rows):
    found, variables = graph(len(bank), k)
    values = cells.layout(of_rows, C)._asdict() | {"bank": bank, "written": written}
    for name, value in values.items():
        variables[name].assign(value)
    variables["bank"].scatter_nd_update([[0]], bank[:1])
    return [part.numpy() for part in found(tf.constant(embeddings, tf.float32), visits)]


def check(embeddings, bank, written, k, visits, of_rows):
    """Compares with NumPy; rows of equal similarity may change places."""
    similarity, rows, failed = search(embeddings, bank, written, k, visits, of_rows)
    allowed = np.concatenate([visits, np.zeros((B, 1), bool)], axis=1)[:, of_rows] & written
    wanted, _ = wanted_neighbors(embeddings, bank, allowed, k)
    np.testing.assert_allclose(similarity, wanted, atol=1e-6)
    for i in range(B):
        there = rows[i][similarity[i] != -np.inf]
        assert len(set(there)) == len(there) and allowed[i, there].all()
        np.testing.assert_allclose(bank[there] @ embeddings[i], similarity[i][: len(there)], atol=1e-6)
    return failed


def random_bank(rng, size=N):
    return reference.unit(rng.standard_normal((size, D))), reference.unit(rng.standard_normal((B, D)))


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["plain", "grid", "equal"]),
    k=st.sampled_from([1, 7, 100]),
    written=st.sampled_from([0.0, 0.02, 0.9, 1.0]),
    visited=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    in_none=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 1000),
)
def test_neighbors_are_the_k_most_similar_written_rows_of_the_cells(kind, k, written, visited, in_none, seed):
    rng = np.random.default_rng(seed)
    bank, embeddings = random_bank(rng)
    if kind == "grid":
        bank = rng.integers(-2, 3, size=(N, D)) / 4
    if kind == "equal":
        bank[:] = bank[0]
    of_rows = rng.integers(C, size=N)
    of_rows[of_rows == 3] = 4  # an empty cell
    of_rows[rng.random(N) < in_none] = -1
    check(embeddings, bank, rng.random(N) < written, k, rng.random((B, C)) < visited, of_rows)


@pytest.mark.parametrize(("size", "k"), [(N, 5), (N, 100), (1003, 100), (48, 5)])
def test_all_cells_give_the_exact_neighbors(size, k):
    rng = np.random.default_rng(0)
    bank, embeddings = random_bank(rng, size)
    written = rng.random(size) < 0.9
    everything = np.ones((B, C), bool)
    similarity, rows, failed = search(embeddings, bank, written, k, everything, rng.integers(C, size=size))
    exact = neighbors.background_neighbors(
        tf.constant(embeddings, tf.float32), tf.constant(bank, tf.float32), tf.constant(written), k
    )
    np.testing.assert_allclose(similarity, exact[0], atol=1e-6)
    there = similarity != -np.inf
    np.testing.assert_array_equal(rows[there], exact[1].numpy()[there])
    assert not failed.any()


def test_an_image_whose_bound_fails_is_made_good(monkeypatch):
    rng = np.random.default_rng(1)
    bank, embeddings = random_bank(rng)
    of_rows, visits, everything = rng.integers(C, size=N), rng.random((B, C)) < 0.6, np.ones(N, bool)
    assert not check(embeddings, bank, everything, 90, visits, of_rows).any()
    monkeypatch.setattr(neighbors, "SAMPLE_DEVIATIONS", -1.0)
    graph.cache_clear()
    assert check(embeddings, bank, everything, 90, visits, of_rows).any()
    graph.cache_clear()


def test_few_rows_of_the_cells_are_no_failure():
    """As on one of many replicas, which has but few of the rows that the cells hold."""
    rng = np.random.default_rng(2)
    bank, embeddings = random_bank(rng)
    visits = np.arange(C)[None, :] == rng.integers(C, size=(B, 1))
    failed = check(embeddings, bank, np.ones(N, bool), 100, visits, rng.integers(C, size=N))
    assert not failed.any()


def test_replicas_with_parts_of_the_rows_find_what_one_with_all_does():
    rng = np.random.default_rng(3)
    bank, embeddings = random_bank(rng)
    written = rng.random(N) < 0.9
    centroids = reference.unit(rng.standard_normal((C, D))).astype(np.float32)
    of_rows = np.where(written, cells.assign(bank, centroids), -1)
    counts = np.bincount(of_rows[written], minlength=C)
    visits = cells.visit(tf.constant(embeddings, tf.float32), centroids, counts, 300).numpy()
    k, half = 60, N // 2
    whole, whole_rows, _ = search(embeddings, bank, written, k, visits, of_rows)
    parts = [
        search(embeddings, bank[part], written[part], k, visits, of_rows[part])[:2]
        for part in (slice(0, half), slice(half, N))
    ]
    both = np.concatenate([similarity for similarity, _ in parts], axis=1)
    both_rows = np.concatenate([parts[0][1], parts[1][1] + half], axis=1)
    nearest = np.argsort(-both, axis=1, kind="stable")[:, :k]
    np.testing.assert_allclose(np.take_along_axis(both, nearest, axis=1), whole, atol=1e-6)
    np.testing.assert_array_equal(np.take_along_axis(both_rows, nearest, axis=1), whole_rows)
    # The measure of recall adds up over replicas as well.
    least = tf.constant(whole[:, -1])
    np.testing.assert_array_equal(sum(cells.reaching(part, least).numpy() for part, _ in parts), k)


def test_layout_holds_the_rows_of_each_cell_in_order():
    rng = np.random.default_rng(4)
    of_rows = rng.integers(-1, C - 2, size=N)  # the last cells are empty
    layout = cells.layout(of_rows, C)
    assert [part.dtype for part in layout] == [np.int32] * 3
    np.testing.assert_array_equal(layout.cells, of_rows)
    start = 0
    for c in range(C):
        wanted = np.flatnonzero(of_rows == c)
        assert layout.counts[c] == len(wanted) and start % 8 == 0
        np.testing.assert_array_equal(layout.order[start : start + len(wanted)], wanted)
        padded = start + -(-len(wanted) // 8) * 8
        assert (layout.order[start + len(wanted) : padded] == -1).all()
        start = padded
    assert (layout.order[start:] == -1).all()


@pytest.mark.parametrize("visited", [1, 250, N, 2 * N])
def test_cells_are_visited_by_similarity_until_they_hold_enough(visited):
    rng = np.random.default_rng(5)
    embeddings, centroids = rng.standard_normal((B, D)), 0.3 * rng.standard_normal((C, D))
    optimism = cells.DEVIATIONS * np.sqrt(np.maximum(1 - (centroids**2).sum(axis=1), 0) / D)
    counts = np.bincount(rng.integers(C, size=N), minlength=C)
    counts[[2, 5]] = 0
    found = cells.visit(tf.constant(embeddings), tf.constant(centroids), tf.constant(counts), visited).numpy()
    for i in range(B):
        wanted, held = set(), 0
        for cell in np.argsort(-centroids @ embeddings[i] - optimism):
            if held < visited:
                wanted.add(cell)
                held += counts[cell]
        assert set(np.flatnonzero(found[i])) == wanted


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_each_row_is_in_the_nearest_cell(dtype, monkeypatch):
    monkeypatch.setattr(cells, "ASSIGNED_AT_ONCE", 300)
    rng = np.random.default_rng(6)
    bank = random_bank(rng)[0].astype(dtype)
    centroids = cells.centroids(bank[:400], C, seed=3)
    assert centroids.shape == (C, D) and centroids.dtype == np.float32
    np.testing.assert_array_equal(centroids, cells.centroids(bank[:400], C, seed=3))
    distance = ((bank.astype(np.float64)[:, None] - centroids) ** 2).sum(axis=2)
    found = cells.assign(bank, centroids)
    assert found.dtype == np.int32
    np.testing.assert_allclose(distance[np.arange(N), found], distance.min(axis=1), atol=1e-5)


def test_most_neighbors_in_a_mixture_are_found(monkeypatch):
    monkeypatch.setattr(neighbors, "BLOCK", 4096)
    rng = np.random.default_rng(7)
    size, dimension, k = 20_000, 32, 128
    centres = rng.standard_normal((200, dimension))
    bank = reference.unit(centres[rng.integers(200, size=size)] + 0.7 * rng.standard_normal((size, dimension)))
    bank = bank.astype(np.float32)
    embeddings = tf.constant(bank[rng.integers(size, size=16)])
    count = cells_for(size)
    centroids = cells.centroids(bank[rng.permutation(size)[: cells.SAMPLED * count]], count, seed=0)
    layout = cells.layout(cells.assign(bank, centroids), count)
    recalls = []
    for visited in (2 * k, 16 * k, size):
        visits = cells.visit(embeddings, centroids, layout.counts, visited)
        assert visited <= (visits.numpy() @ layout.counts).min()
        found, *_ = cells.neighbors_in_cells(embeddings, bank, tf.ones(size, tf.bool), k, visits, layout)
        exact, *_ = neighbors.background_neighbors(embeddings, tf.constant(bank), tf.ones(size, tf.bool), k)
        recalls.append(cells.recall(found, exact).numpy().mean())
    assert recalls[0] < recalls[1] < recalls[2] == 1
    assert recalls[1] > 0.9


def test_recall_counts_what_reaches_the_least_similar_of_the_exact_ones():
    exact = tf.constant([[0.9, 0.8, 0.7, 0.6], [0.5, 0.4, -np.inf, -np.inf], [-np.inf] * 4])
    found = tf.constant([[0.9, 0.7, 0.5, 0.4], [0.5, 0.4, -np.inf, -np.inf], [-np.inf] * 4])
    np.testing.assert_allclose(cells.recall(found, exact), [0.5, 1, 0])
    assert float(cells.loss_error(tf.constant([1.0, 2.0]), tf.constant([2.0, 2.0]))) == pytest.approx(0.25)


def test_as_many_cells_as_the_root_of_the_rows_but_none_too_small():
    assert cells_for(10) == 1 and cells_for(10_000_000) == 12_649
    for size in (1000, 100_000, 10**6, 10**8):
        assert size / cells_for(size) >= LEAST_IN_CELL


def test_no_variable_as_long_as_the_bank_is_read_as_a_whole():
    search, variables = graph(N, 100)
    program = search.get_concrete_function().graph.as_graph_def()
    nodes = [*program.node, *(node for function in program.library.function for node in function.node_def)]
    assert any(node.op == "ResourceGather" for node in nodes)
    assert [node.attr["dtype"].type for node in nodes if node.op == "ReadVariableOp"] == [tf.int32.as_datatype_enum]
    assert variables["counts"].shape == (C,)  # that one
