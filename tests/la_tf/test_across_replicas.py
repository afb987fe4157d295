"""What replicas find out together about a bank that is spread over them is what one would see in the whole bank."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from la_tf import across_replicas, log_sums
from la_tf.neighbors import background_neighbors, neighbors_of_part
from la_tf.one_of_many import OneOfMany
from tests.la_tf import reference
from tests.la_tf.together import Replica, shares, together

D = 6
TAU = 0.1


def in_order(similarity, k):
    """`[B, N]` bool: the k largest of a row that are not -inf, equal ones by the lowest index; by a stable sort."""
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    chosen = np.zeros(similarity.shape, bool)
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen & (similarity != -np.inf)


def chosen_by_replicas(similarity, k, *sizes):
    """The same by replicas that have these shares of the columns."""
    parts = shares(similarity.T, *sizes)

    def work(process):
        part = tf.constant(np.ascontiguousarray(parts[process.index].T))
        return across_replicas.among_largest(part, k, Replica(process)).numpy()

    return np.concatenate(together(len(parts), work), axis=1)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**31), st.integers(1, 5), st.booleans()
)
def test_the_k_largest_of_all_replicas_are_those_of_a_stable_sort(images, columns, k, seed, levels, apart):
    rng = np.random.default_rng(seed)
    values = rng.choice(np.float32([-0.0, 0.0, 0.5, -0.25, 1.0, -np.inf, 2e-38, -1.0])[: levels + 3], (images, columns))
    if apart:
        values = rng.standard_normal((images, columns)).astype(np.float32)
    cuts = sorted(rng.integers(0, columns + 1, 2))
    found = chosen_by_replicas(values, k, cuts[0], cuts[1] - cuts[0])
    np.testing.assert_array_equal(found, in_order(values, k))


def test_numbers_that_differ_in_the_last_bit_alone_are_told_apart():
    middle = np.float32(0.3)
    values = np.array([[middle, np.nextafter(middle, np.float32(1)), np.nextafter(middle, np.float32(0)), middle]])
    found = chosen_by_replicas(values.astype(np.float32), 2, 2)
    np.testing.assert_array_equal(found, [[True, True, False, False]])


def bank_of(size, seed=0, equal=0):
    """Unit rows `[N, D]` with the first `equal` of a random order alike, and which are written."""
    rng = np.random.default_rng(seed)
    rows = reference.unit(rng.standard_normal((size, D))).astype(np.float32)
    rows[rng.permutation(size)[:equal]] = rows[0]
    return rows, rng.random(size) < 0.9


@pytest.mark.parametrize("equal", [0, 9_000])
@pytest.mark.parametrize("ordered", [False, True])
def test_neighbours_of_parts_are_those_of_the_whole_bank(equal, ordered):
    rows, written = bank_of(40_000, equal=equal)
    if ordered:  # all near rows are one replica's
        order = np.argsort(-rows @ rows[0], kind="stable")
        rows, written = rows[order], written[order]
    written[0] = True
    embeddings = tf.constant(np.concatenate([rows[:2], rows[20_000:20_002]]))
    k, parts, marks = 500, np.split(rows, 2), np.split(written, 2)

    def work(process):
        replica = Replica(process)
        part, mark = tf.constant(parts[process.index]), tf.constant(marks[process.index])
        similarity, places, _ = neighbors_of_part(embeddings, part, mark, k, replica)
        chosen = across_replicas.among_largest(similarity, k, replica).numpy()
        return [places.numpy()[image][chosen[image]] + 20_000 * process.index for image in range(4)], chosen.shape[1]

    (first, width), (second, other_width) = together(2, work)
    _, wanted, _ = background_neighbors(embeddings, tf.constant(rows), tf.constant(written), k)
    for image in range(4):
        found = np.concatenate([first[image], second[image]])
        np.testing.assert_array_equal(np.sort(found), np.sort(wanted.numpy()[image]))
    if not equal:
        assert width + other_width < 4 * k, "a replica is to look at its share of B_i more closely, not at k rows"


@pytest.mark.parametrize("sizes", [(7, 5), (1, 0, 9)])
def test_log_sums_and_their_gradient_are_those_of_the_whole_bank(sizes):
    rng = np.random.default_rng(3)
    replicas, size = len(sizes) + 1, 20
    rows, _ = bank_of(size, 5)
    batch = 2 * replicas
    embeddings = reference.unit(rng.standard_normal((batch, D))).astype(np.float32)
    members = rng.random((size, batch, 2)) < 0.4
    members[:, 1, 0], members[:, 2] = False, False  # images with an empty set
    weights = rng.standard_normal((batch, 2)).astype(np.float32)
    parts, marks = shares(rows, *sizes), shares(members, *sizes)

    def objective(logs, some):
        return tf.reduce_sum(tf.where(tf.math.is_finite(logs), logs, 0.0) * some)

    def work(process):
        replica = Replica(process)
        part, mark = parts[process.index], tf.constant(marks[process.index])
        v = tf.constant(np.split(embeddings, replicas)[process.index])

        def find(all_embeddings, indices):
            np.testing.assert_array_equal(indices, np.arange(batch))
            if not len(part):
                none = tf.zeros([batch, 2])
                return none - np.inf, tf.zeros([batch, 2, D]), tf.cast(none, tf.int32)
            sets = lambda rows: tf.unstack(tf.gather(mark, rows), axis=2)  # noqa: E731
            return log_sums.of_bank(all_embeddings, tf.constant(part), TAU, 2, sets)

        with tf.GradientTape() as tape:
            tape.watch(v)
            indices = tf.constant(np.split(np.arange(batch), replicas)[process.index])
            logs, counts = across_replicas.log_sums(v, indices, find, replica)
            loss = objective(logs, np.split(weights, replicas)[process.index])
        return logs.numpy(), counts.numpy(), tape.gradient(loss, v).numpy()

    logs, counts, gradients = (np.concatenate(part) for part in zip(*together(replicas, work), strict=True))
    exponentials = np.exp(rows.astype(np.float64) @ embeddings.T.astype(np.float64) / TAU)[:, :, None] * members
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(logs, np.log(exponentials.sum(axis=0)), rtol=2e-5)
    np.testing.assert_array_equal(counts, members.sum(axis=0))
    shared = exponentials / np.maximum(exponentials.sum(axis=0), 1e-300)
    wanted = np.einsum("nbs,nd,bs->bd", shared, rows.astype(np.float64), weights) / TAU
    np.testing.assert_allclose(gradients, wanted, atol=2e-4)


def test_similarities_are_found_by_the_rows_owners_with_their_gradient():
    rng = np.random.default_rng(4)
    rows, _ = bank_of(11, 6)
    embeddings = rng.standard_normal((4, D)).astype(np.float32)
    wanted = rng.integers(11, size=(4, 3)).astype(np.int32)
    weights = rng.standard_normal((4, 3)).astype(np.float32)

    def work(process):
        first, part = 6 * process.index, shares(rows, 6)[process.index]

        def rows_of(indices):
            places = indices - first
            mine = (places >= 0) & (places < len(part))
            return tf.where(mine[:, :, None], tf.gather(part, tf.clip_by_value(places, 0, len(part) - 1)), 0.0)

        v = tf.constant(embeddings[2 * process.index :][:2])
        with tf.GradientTape() as tape:
            tape.watch(v)
            asked = tf.constant(wanted[2 * process.index :][:2])
            found = across_replicas.similarities(v, asked, rows_of, Replica(process))
            loss = tf.reduce_sum(found * weights[2 * process.index :][:2])
        return found.numpy(), tape.gradient(loss, v).numpy()

    found, gradients = (np.concatenate(part) for part in zip(*together(2, work), strict=True))
    np.testing.assert_allclose(found, np.einsum("bd,bnd->bn", embeddings, rows[wanted]), atol=1e-5)
    np.testing.assert_allclose(gradients, np.einsum("bn,bnd->bd", weights, rows[wanted]), atol=1e-5)


def test_zero_and_minus_zero_are_one_number_in_a_graph_too():
    signed = tf.Variable([0.0, -0.0])
    keys = tf.function(lambda: across_replicas._in_order(signed + 0.0 * signed))().numpy()
    assert keys[0] == keys[1]
    keys = tf.function(lambda: across_replicas._in_order(tf.identity(signed)))().numpy()
    assert keys[0] == keys[1]


def test_a_part_may_have_fewer_rows_in_the_sample_than_make_the_bound():
    rows, written = bank_of(20_000)
    found = neighbors_of_part(tf.constant(rows[:2]), tf.constant(rows), tf.constant(written), 19_000, OneOfMany(64))
    assert found[0].shape[0] == 2 and np.isfinite(found[0].numpy()).any()


def test_what_replicas_tell_each_other_does_not_grow_with_n():
    told = []
    for size in (40_000, 160_000):
        rows, _ = bank_of(size)
        parts, written = np.split(rows, 2), tf.ones([size // 2], tf.bool)
        embeddings = tf.constant(rows[:4])

        def work(process, parts=parts, written=written, embeddings=embeddings):
            replica = Replica(process)
            part = tf.constant(parts[process.index])

            def find(all_embeddings, indices):
                similarity, places, _ = neighbors_of_part(all_embeddings, part, written, 100, replica)
                chosen = across_replicas.among_largest(similarity, 100, replica)
                return log_sums.of_rows(part, TAU, similarity, places, (chosen,))

            v = tf.constant(embeddings.numpy()[2 * process.index :][:2])
            with tf.GradientTape() as tape:
                tape.watch(v)
                logs, _ = across_replicas.log_sums(v, tf.range(2), find, replica)
                loss = tf.reduce_sum(logs)
            tape.gradient(loss, v)
            return process.calls

        first, second = together(2, work)
        assert first == second
        told.append(first)
    assert told[0] == told[1]
