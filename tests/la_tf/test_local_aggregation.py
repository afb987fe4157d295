"""Equations 1 to 5 against float64 NumPy, and what a training step does to the bank."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.errors import UserError
from la_tf.embedding import UnitLength
from la_tf.instance_recognition import InstanceRecognition, instance_recognition_loss
from la_tf.local_aggregation import LocalAggregation, aggregate
from la_tf.memory_bank import last_occurrences
from la_tf.neighbors import background_neighbors, similarities
from tests.la_tf import reference

N, D, B, P = 500, 16, 24, 20
TAU = 0.07


def case(kind, clusterings, seed=0):
    """A bank, a batch with duplicate indices, and labels some of which make C_i ∩ B_i empty."""
    rng = np.random.default_rng(seed)
    if kind == "clustered":
        centres = reference.unit(rng.standard_normal((12, D)))
        member_of = rng.integers(12, size=N)
        bank = reference.unit(centres[member_of] + 0.3 * rng.standard_normal((N, D)) / np.sqrt(D))
    else:
        member_of = rng.integers(12, size=N)
        bank = reference.unit(rng.standard_normal((N, D)))
    # H labellings: the true groups, shuffled a little differently each time.
    labels = np.stack(
        [np.where(rng.random(N) < 0.2, rng.integers(12, size=N), member_of) for _ in range(clusterings)], 1
    )
    indices = rng.integers(N, size=B)
    indices[5] = indices[3]
    indices[7] = indices[3]
    inputs = rng.standard_normal((B, P))
    weights = rng.standard_normal((P, D))
    # The first embeddings lie near their rows, the others anywhere: far from them, B_i holds nothing close.
    inputs[:8] = bank[indices[:8]] @ np.linalg.pinv(weights)
    labels[indices[10:16]] = 100 + np.arange(6)[:, None]  # images alone in their clusters
    written = rng.random(N) < 0.95
    written[indices[12]] = False
    labels[indices[13]] = -1  # not clustered yet
    return bank, written, labels, indices, inputs, weights


def norm_wise(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize(
    ("kind", "k", "clusterings"), [*itertools.product(["clustered", "random"], [1, 50, 500], [1, 3])]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_loss_and_gradients_are_those_of_equation_3(kind, k, clusterings, dtype, tolerance):
    bank, written, labels, indices, inputs, weights = case(kind, clusterings)
    written[:] |= k == N  # a bank that is whole has N rows to choose from
    embeddings = reference.unit(inputs @ weights)
    losses, gradients = reference.local_aggregation(embeddings, bank, written, indices, labels, k, TAU)
    empty = losses == -np.log(1e-7)
    assert k == N or empty.any(), "the case is meant to hold empty intersections"
    assert not empty.all()

    @tf.function
    def graph(x, w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            v = tf.math.l2_normalize(x @ w, axis=1)
            found, close, neighbors = aggregate(
                v,
                tf.constant(bank, dtype),
                tf.constant(written),
                tf.constant(indices),
                tf.constant(labels),
                k,
                TAU,
            )
            mean = tf.reduce_mean(found)
        return found, close, neighbors, *tape.gradient(mean, [v, w])

    found, close, neighbors, by_v, by_w = (
        t.numpy() for t in graph(tf.constant(inputs, dtype), tf.constant(weights, dtype))
    )
    for row in range(B):
        wanted = reference.background(embeddings[row], bank, written, k)
        assert set(neighbors[row]) >= set(wanted) and len(set(neighbors[row])) == k
        wanted_close = reference.close(indices[row], labels) & set(wanted)
        assert set(neighbors[row][close[row]]) == wanted_close
    assert norm_wise(found, losses) < tolerance
    # Both sides divide by the whole batch, empty intersections included.
    assert np.linalg.norm(by_v - gradients / B) <= tolerance * max(np.linalg.norm(gradients / B), 1e-3)
    wanted_by_w = reference.through_unit_linear(inputs, weights, gradients / B)
    assert np.linalg.norm(by_w - wanted_by_w) <= tolerance * max(np.linalg.norm(wanted_by_w), 1e-3)
    assert np.isfinite(by_w).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_warm_start_is_the_softmax_of_equation_1(dtype, tolerance):
    bank, _, _, indices, inputs, weights = case("clustered", 1)
    embeddings = reference.unit(inputs @ weights)
    losses, gradients = reference.instance_recognition(embeddings, bank, indices, TAU)
    v = tf.constant(embeddings, dtype)
    with tf.GradientTape() as tape:
        tape.watch(v)
        found = instance_recognition_loss(similarities(v, tf.constant(bank, dtype)), tf.constant(indices), TAU)
    assert norm_wise(found.numpy(), losses) < tolerance
    assert norm_wise(tape.gradient(found, v).numpy(), gradients) < tolerance


def test_an_image_alone_in_its_clusters_and_in_its_background_costs_nothing():
    bank = np.eye(4)
    found, *_ = aggregate(
        tf.constant(bank[:1]),
        tf.constant(bank),
        tf.fill([4], True),
        [0],
        tf.constant([[0], [1], [2], [3]]),
        1,
        TAU,
    )
    assert found.numpy() == pytest.approx([0.0], abs=1e-12)


def test_an_extreme_temperature_does_not_overflow():
    bank, written, labels, indices, *_ = case("clustered", 3)
    v = tf.constant(bank[indices], tf.float32)
    arguments = (
        tf.constant(bank, tf.float32),
        tf.constant(written),
        tf.constant(indices),
        tf.constant(labels),
    )
    losses, *_ = aggregate(v, *arguments, 50, 1e-3)  # exp(1 / 0.001) is far beyond float32
    assert np.isfinite(losses.numpy()).all()


def test_background_has_exactly_k_rows_and_ties_go_to_the_lowest_index():
    similarity = tf.constant([[0.5, 0.9, 0.5, 0.5, 0.1, 0.9]])
    written = tf.constant([True, True, True, True, True, False])
    _, neighbors = background_neighbors(similarity, written, 3)
    assert neighbors.numpy().tolist() == [[1, 0, 2]]  # row 5 was never written


def tiny_embedder(seed):
    keras.utils.set_random_seed(seed)
    images = keras.Input((None, None, 3))
    features = keras.layers.Dense(D, name="linear")(keras.layers.GlobalAveragePooling2D()(images))
    return keras.Model(images, UnitLength()(features))


def tiny_method(method, **arguments):
    embedder = tiny_embedder(0)
    model = method(embedder, 40, weight_decay=0.01, seed=3, **arguments)
    model.compile(optimizer=keras.optimizers.SGD(0.5), jit_compile=False)
    return model


def batch_with_duplicates(seed=0):
    images = np.random.default_rng(seed).random((8, 4, 4, 3), np.float32)
    indices = np.array([3, 9, 3, 17, 0, 3, 39, 9])
    return {
        "image": tf.constant(images),
        "index": tf.constant(indices),
        "label": tf.fill([8], tf.constant(-1, tf.int64)),
    }


LA = {"background_k": 12, "clusters": 5, "clusterings": 2, "warmup_epochs": 0}


@pytest.mark.parametrize("phase", ["ir", "la"])
def test_a_step_moves_the_weights_by_the_old_bank_and_the_bank_by_equation_5(phase):
    model = tiny_method(LocalAggregation, **LA)
    if phase == "la":
        model.bank.written.assign(np.ones(40, bool))
        model.renew_clusters()
    batch = batch_with_duplicates()
    indices = batch["index"].numpy()
    bank = model.bank.rows.numpy().astype(np.float64)
    kernel, bias = (weight.numpy().astype(np.float64) for weight in model.embedder.weights)
    pixels = batch["image"].numpy().astype(np.float64).mean(axis=(1, 2))
    inputs = np.concatenate([pixels, np.ones((8, 1))], axis=1)
    affine = np.concatenate([kernel, bias[None]])
    embeddings = reference.unit(inputs @ affine)

    def losses_and_gradients(rows):
        if phase == "ir":
            return reference.instance_recognition(embeddings, rows, indices, 0.07)
        labels, written = model.cluster_labels.numpy(), np.ones(40, bool)
        return reference.local_aggregation(embeddings, rows, written, indices, labels, 12, 0.07)

    losses, gradients = losses_and_gradients(bank)
    wanted_bank = reference.bank_after(bank, indices, embeddings, 0.5)
    losses_of_new_bank, _ = losses_and_gradients(wanted_bank)
    assert abs(losses.mean() - losses_of_new_bank.mean()) > 0.1, "the two banks must be told apart"

    logs = tf.function(model.train_step)(batch)

    assert float(logs["loss"]) == pytest.approx(losses.mean(), rel=1e-5)
    by_affine = reference.through_unit_linear(inputs, affine, gradients / 8)
    wanted_kernel = kernel - 0.5 * (by_affine[:3] + 0.01 * kernel)  # lambda · w on the kernel
    wanted_bias = bias - 0.5 * by_affine[3]  # and none on the bias
    assert np.abs(model.embedder.weights[0].numpy() - wanted_kernel).max() < 1e-5
    assert np.abs(model.embedder.weights[1].numpy() - wanted_bias).max() < 1e-5
    assert np.abs(model.bank.rows.numpy() - wanted_bank).max() < 1e-6
    assert set(np.flatnonzero(model.bank.written.numpy())) == (set(indices) if phase == "ir" else set(range(40)))


def test_of_duplicates_the_last_position_counts():
    assert last_occurrences(tf.constant([4, 7, 4, 9, 7, 4])).numpy().tolist() == [5, 4, 5, 3, 4, 5]


def test_a_new_bank_is_random_unit_rows_and_none_is_written():
    model = tiny_method(InstanceRecognition)
    rows = model.bank.rows.numpy()
    assert np.abs(np.linalg.norm(rows, axis=1) - 1).max() < 1e-6
    assert np.abs(rows @ rows.T - np.eye(40)).max() < 0.95
    assert not model.bank.written.numpy().any()
    assert isinstance(model.bank.rows.value, tf.Variable)


def test_the_switch_comes_after_the_warm_start_and_clusters_the_written_rows_alone():
    model = tiny_method(LocalAggregation, **(LA | {"warmup_epochs": 2}))
    model.bank.written.assign(np.arange(40) < 30)
    assert model.begin_epoch(1) == {"phase": "ir"}
    assert (model.cluster_labels.numpy() == -1).all()
    found = model.begin_epoch(2)
    assert found["phase"] == "la"
    labels = model.cluster_labels.numpy()
    assert (labels[:30] >= 0).all() and (labels[30:] == -1).all()
    assert labels[:30].max() < 5
    assert "nmi_previous" not in found  # there was none
    assert model.begin_epoch(3)["nmi_previous"] == pytest.approx(1.0)  # same bank, same seeds


def test_too_few_seen_images_for_the_clusters_is_said():
    model = tiny_method(LocalAggregation, **LA)
    with pytest.raises(UserError, match="--clusters"):
        model.begin_epoch(0)


def test_health_of_a_step_counts_what_is_close():
    model = tiny_method(LocalAggregation, **LA)
    model.bank.written.assign(np.ones(40, bool))
    model.renew_clusters()
    batch = batch_with_duplicates()
    embeddings = model(batch["image"], training=True).numpy().astype(np.float64)
    bank, labels = model.bank.rows.numpy().astype(np.float64), model.cluster_labels.numpy()
    counts, own = [], []
    for v, i in zip(embeddings, batch["index"].numpy(), strict=True):
        b = reference.background(v, bank, np.ones(40, bool), 12)
        counts.append(len(reference.close(i, labels) & set(b)))
        own.append(i in b)
    logs = model.train_step(batch)
    assert float(logs["close_mean"]) == pytest.approx(np.mean(counts))
    assert float(logs["close_min"]) == min(counts)
    assert float(logs["empty_fraction"]) == pytest.approx(np.mean(np.array(counts) == 0))
    assert float(logs["own_in_background"]) == pytest.approx(np.mean(own))
