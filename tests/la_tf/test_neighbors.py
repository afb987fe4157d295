"""B_i and the sums over the bank, block by block, against float64 NumPy that holds everything."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from la_tf import log_sums, neighbors
from la_tf.neighbors import background_neighbors
from tests.la_tf import reference

N, D, B = 1000, 8, 6
SHAPES = (((N, D), tf.float32), ((N,), tf.bool))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """A thousand rows are searched as a million are: in blocks (the last reaches back), with a bound from a sample."""
    monkeypatch.setattr(neighbors, "BLOCK", 48)
    monkeypatch.setattr(neighbors, "LEAST_ROWS", 0)
    monkeypatch.setattr(neighbors, "SAMPLE_EVERY", 4)
    monkeypatch.setattr(neighbors, "SIMILARITIES_AT_ONCE", 2 * N)


def bank_of(kind, rng):
    """Rows whose similarities are multiples of 1/16, exact in every dtype, so that ties are ties."""
    if kind == "grid":  # few different rows: ties everywhere
        return rng.integers(-2, 3, size=(N, D)) / 4
    if kind == "equal":  # all ties
        return np.tile(rng.integers(-2, 3, size=(1, D)) / 4, (N, 1))
    rows = rng.integers(-8, 9, size=(N, D)) / 4
    if kind == "sorted":  # the nearest rows of an image stand side by side
        rows = rows[np.argsort(rows[:, 0] + rows[:, 1])]
    return rows


def wanted_background(embeddings, bank, allowed, k):
    """Similarities and rows [B, k] in order, ties to the lowest row; -inf and any row where there are no more."""
    similarity = np.where(allowed.T, embeddings @ bank.T, -np.inf)
    rows = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarity, rows, axis=1), rows


@functools.cache
def graph(k, deviations, with_inside):
    """As in training: a graph over variables, and the bank one that has been written to by rows."""
    bank, written = (tf.Variable(np.zeros(shape), dtype=dtype, trainable=False) for shape, dtype in SHAPES)
    inside = tf.Variable(np.ones((N, B), bool), trainable=False)

    @tf.function(input_signature=[tf.TensorSpec([None, D])])  # a batch may have any size
    def search(embeddings):
        found = background_neighbors(
            embeddings, bank, written, k, (lambda rows: tf.gather(inside, rows)) if with_inside else None
        )
        assert [(part.shape.rank, part.shape[-1]) for part in found] == [(2, k), (2, k), (1, found[2].shape[-1])]
        return found

    return search, bank, written, inside


def search(embeddings, bank, written, k, inside=None):
    found, its_bank, its_written, its_inside = graph(k, neighbors.SAMPLE_DEVIATIONS, inside is not None)
    its_bank.assign(bank)
    its_bank.scatter_nd_update([[0]], bank[:1])
    its_written.assign(written)
    if inside is not None:
        its_inside.assign(inside)
    return [part.numpy() for part in found(tf.constant(embeddings, tf.float32))]


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["plain", "grid", "sorted", "equal"]),
    k=st.sampled_from([1, 7, 100]),
    written=st.sampled_from([0.0, 0.02, 0.9, 1.0]),
    seed=st.integers(0, 1000),
)
def test_background_is_the_k_most_similar_written_rows_ties_to_the_lowest(kind, k, written, seed):
    rng = np.random.default_rng(seed)
    bank, embeddings = bank_of(kind, rng), rng.integers(-4, 5, size=(B, D)) / 4
    is_written = rng.random(N) < written
    similarity, rows, failed = search(embeddings, bank, is_written, k)
    wanted_similarity, wanted_rows = wanted_background(embeddings, bank, is_written[:, None], k)
    np.testing.assert_array_equal(similarity, wanted_similarity)
    there = wanted_similarity > -np.inf
    np.testing.assert_array_equal(rows[there], wanted_rows[there])
    if not is_written.any() or (kind == "equal" and k == 7):
        assert failed.all()  # no candidate is too few, a thousand equal ones are too many


def test_the_bound_holds_on_random_rows_and_a_failed_one_is_made_good(monkeypatch):
    rng = np.random.default_rng(0)
    bank, embeddings = reference.unit(rng.standard_normal((N, D))), reference.unit(rng.standard_normal((B, D)))
    everything = np.ones(N, bool)
    similarity, rows, failed = search(embeddings, bank, everything, 100)
    assert not failed.any()
    # The expected rank, with no margin: the bound of some images is above their k-th similarity.
    monkeypatch.setattr(neighbors, "SAMPLE_DEVIATIONS", 0.0)
    mended_similarity, mended_rows, failed = search(embeddings, bank, everything, 100)
    assert 0 < failed.sum() < B
    np.testing.assert_array_equal(rows, mended_rows)
    np.testing.assert_allclose(similarity, mended_similarity, atol=1e-6)
    np.testing.assert_array_equal(rows, wanted_background(embeddings, bank, everything[:, None], 100)[1])


@pytest.mark.parametrize("k", [5, 100])
def test_background_within_a_set_of_its_own_for_each_image(k):
    rng = np.random.default_rng(1)
    bank, embeddings = bank_of("grid", rng), rng.integers(-4, 5, size=(B, D)) / 4
    written, inside = rng.random(N) < 0.8, rng.random((N, B)) < 0.3
    similarity, rows, _ = search(embeddings, bank, written, k, inside)
    wanted_similarity, wanted_rows = wanted_background(embeddings, bank, inside & written[:, None], k)
    np.testing.assert_array_equal(similarity, wanted_similarity)
    np.testing.assert_array_equal(rows, wanted_rows)


@pytest.mark.parametrize("tau", [1.0, 0.07, 1e-3])
def test_log_sums_and_their_gradients_over_several_sets(tau):
    rng = np.random.default_rng(3)
    bank, embeddings = reference.unit(rng.standard_normal((N, D))), reference.unit(rng.standard_normal((B, D)))
    some = rng.random((N, B)) < 0.2
    some[:, 2] = False  # an empty set
    some[:, 3] = np.arange(N) == 777  # a row of a late block alone
    weights = rng.standard_normal((B, 2))

    @tf.function
    def graph(v):
        sets = lambda rows: [tf.fill([tf.size(rows), 1], True), tf.gather(tf.constant(some), rows)]  # noqa: E731
        with tf.GradientTape() as tape:
            tape.watch(v)
            logs, counts = log_sums.over_bank(v, tf.constant(bank), tau, 2, sets)
            weighted = tf.reduce_sum(tf.where(counts > 0, logs, 0.0) * weights)
        return logs, counts, tape.gradient(weighted, v)

    logs, counts, found = (part.numpy() for part in graph(tf.constant(embeddings)))
    logits = embeddings @ bank.T / tau
    gradient = np.zeros((B, D))
    for s, members in enumerate((np.ones((B, N), bool), some.T)):
        np.testing.assert_array_equal(counts[:, s], members.sum(axis=1))
        for i in range(B):
            if not members[i].any():
                assert logs[i, s] == -np.inf
                continue
            largest = logits[i][members[i]].max()
            terms = np.where(members[i], np.exp(np.minimum(logits[i] - largest, 0)), 0)
            assert logs[i, s] == pytest.approx(largest + np.log(terms.sum()), rel=1e-12)
            gradient[i] += weights[i, s] * terms @ bank / terms.sum() / tau
    np.testing.assert_allclose(found, gradient, rtol=1e-9, atol=1e-9)


def test_no_variable_is_ever_read_as_a_whole():
    search, *_ = graph(100, neighbors.SAMPLE_DEVIATIONS, False)
    program = search.get_concrete_function(tf.TensorSpec([None, D])).graph.as_graph_def()
    operations = {node.op for node in program.node}
    operations |= {node.op for function in program.library.function for node in function.node_def}
    assert "ResourceGather" in operations and "ReadVariableOp" not in operations
