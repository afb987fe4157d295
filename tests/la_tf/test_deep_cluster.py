"""DeepCluster: whitening, sampling and a step against float64 NumPy; what a round does; how collapse is told."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from data.config import DataConfig
from data.errors import UserError
from la_tf import deep_cluster
from la_tf.config import Config, MethodConfig, ModelConfig, OptimizerConfig, RunOptions, method_class
from la_tf.deep_cluster import DeepCluster, Whitening, assignment_losses, build_embedder, uniform_rows, whitening
from la_tf.embedding import UnitLength
from la_tf.estimator import Estimator
from la_tf.loss_scaling import LossScaling
from la_tf.method import TrainingSet
from la_tf.resolve import resolve
from la_tf.specs import ModeKeys, RunConfig, TrainSpec
from models.backbone import build_backbone
from models.preprocessing import Preprocessing
from tests.la_tf import reference

N, D, P, K = 60, 6, 3, 4  # pictures, features, whitened, clusters
GROUP = np.repeat(np.arange(K), [30, 15, 10, 5])  # of each picture
CENTRES = np.random.default_rng(3).random((K, 4, 4, 3))
IMAGES = (0.8 * CENTRES[GROUP] + 0.2 * np.random.default_rng(4).random((N, 4, 4, 3))).astype(np.float32)


def tiny_embedder(kernel="glorot_uniform"):
    """One linear layer of all 48 pixels, whitened."""
    images = keras.Input((4, 4, 3))
    features = keras.layers.Dense(D, kernel_initializer=kernel, name="linear")(keras.layers.Flatten()(images))
    return keras.Model(images, UnitLength(name="unit_length")(Whitening(P, name="whitening")(features)))


def central_views(valid=None, images=IMAGES, asked=None):
    """A `center_crops(rows)` of batches of 16; `asked` takes note of the rows."""
    valid = np.ones(N, bool) if valid is None else valid

    def center_crops(rows=None):
        if asked is not None:
            asked.append(rows)
        rows = np.arange(N) if rows is None else rows
        for start in range(0, len(rows), 16):
            yield batch_of(rows[start : start + 16], valid[rows[start : start + 16]], images)

    return center_crops


def batch_of(rows, valid=None, images=IMAGES):
    return {
        "image": tf.constant(images[rows]),
        "index": tf.constant(rows, tf.int64),
        "label": tf.fill([len(rows)], tf.constant(-1, tf.int64)),
        "valid": tf.fill([len(rows)], True) if valid is None else tf.constant(valid),
    }


def tiny_model(rate=0.5, momentum=0.9, kernel="glorot_uniform", model_seed=0, **arguments):
    keras.utils.set_random_seed(model_seed)
    arguments = {"clusters": K, "center_crops": central_views(), "seed": 3, "weight_decay": 0.01} | arguments
    model = DeepCluster(tiny_embedder(kernel), N, **arguments)
    model.compile(keras.optimizers.SGD(rate, momentum=momentum))
    return model


def float64(*variables):
    return [variable.numpy().astype(np.float64) for variable in variables]


def partition(labels):
    """The groups that labels describe, whatever they are called."""
    return {tuple(np.flatnonzero(labels == label)) for label in np.unique(labels)}


# -- whitening ---------------------------------------------------------------------------------------------------------


def correlated(n, d, rank, seed, mean=3.0):
    rng = np.random.default_rng(seed)
    scales = 2.0 ** -np.arange(rank)
    return (rng.standard_normal((n, rank)) * scales @ rng.standard_normal((rank, d)) + mean).astype(np.float32)


def svd_whitened(features, dimensions):
    """Whitened by the singular value decomposition: sqrt(n) times the left singular vectors."""
    features = features.astype(np.float64)
    left, *_ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    return np.sqrt(len(features)) * left[:, :dimensions]


@pytest.mark.parametrize(("n", "d", "dimensions"), [(200, 8, 8), (200, 8, 3), (9, 40, 5), (9, 40, 8)])
def test_whitened_features_are_those_of_the_singular_value_decomposition(n, d, dimensions):
    features = correlated(n, d, min(d, n - 1), seed=n)
    matrix, offset = whitening(features, dimensions)
    assert (matrix.shape, offset.shape, matrix.dtype) == ((d, dimensions), (dimensions,), np.float32)
    found, wanted = features.astype(np.float64) @ matrix + offset, svd_whitened(features, dimensions)
    wanted *= np.sign((found * wanted).sum(axis=0))
    np.testing.assert_allclose(found, wanted, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 6), st.integers(0, 99))
def test_whitened_features_are_uncorrelated_with_deviation_1_where_they_vary(n, d, dimensions, rank, seed):
    matrix, offset = whitening(features := correlated(n, d, rank, seed), dimensions)
    found = features.astype(np.float64) @ matrix + offset
    there_are = min(dimensions, rank, d, n - 1)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=2e-2)
    np.testing.assert_allclose(found.T @ found / n, np.diag(np.arange(dimensions) < there_are), atol=5e-2)


@pytest.mark.parametrize("noise", [0.0, 1e-7])
@pytest.mark.parametrize(("n", "d"), [(50, 8), (8, 50)])
def test_features_that_are_alike_whiten_to_nothing(n, d, noise):
    rng = np.random.default_rng(0)
    features = (rng.random(d) * (1 + noise * rng.standard_normal((n, d)))).astype(np.float32)
    for part in whitening(features, 4):
        np.testing.assert_array_equal(part, 0)


# -- sampling ----------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-1, 9), min_size=1, max_size=80).filter(lambda labels: max(labels) >= 0), st.integers(0, 9))
def test_every_cluster_that_holds_something_comes_equally_often(labels, epoch):
    labels = np.array(labels, np.int32)
    rows = uniform_rows(labels, 7, epoch)
    np.testing.assert_array_equal(rows, uniform_rows(labels, 7, epoch))
    assert len(rows) == len(labels)
    assert (labels[rows] >= 0).all()
    filled = np.unique(labels[labels >= 0])
    counts = [(labels[rows] == label).sum() for label in filled]
    assert set(counts) <= {len(labels) // len(filled), -(-len(labels) // len(filled))}
    for label, count in zip(filled, counts, strict=True):
        members = (labels == label).sum()
        distinct = len(np.unique(rows[labels[rows] == label]))
        assert distinct == count if members >= count else distinct <= members


def test_epochs_and_seeds_draw_differently_and_the_clusters_are_mixed():
    labels = np.repeat(np.arange(5, dtype=np.int32), 100)
    draws = [uniform_rows(labels, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert not any((draws[a] == draws[b]).mean() > 0.05 for a, b in ((0, 1), (0, 2), (1, 2)))
    assert len(np.unique(labels[draws[0][:50]])) == 5


def test_all_pictures_of_a_cluster_are_as_likely_to_be_drawn():
    labels = np.repeat(np.int32([0, 1, 2]), [20, 9, 1])  # 10 of each: half of the first, the others with replacement
    counts = np.bincount(np.concatenate([uniform_rows(labels, 0, epoch) for epoch in range(2000)]), minlength=30)
    assert counts[29] == 2000 * 10
    np.testing.assert_allclose(counts[:20], 2000 * 0.5, atol=5 * np.sqrt(2000 * 0.25))
    np.testing.assert_allclose(counts[20:29], 2000 * 10 / 9, atol=5 * np.sqrt(20000 / 9))


def test_what_is_left_over_goes_to_other_clusters_every_time():
    labels = np.repeat(np.arange(4, dtype=np.int32), [5, 4, 4, 4])  # 4 of each, and one more of some cluster
    more = [np.bincount(labels[uniform_rows(labels, 0, epoch)]).argmax() for epoch in range(400)]
    np.testing.assert_allclose(np.bincount(more, minlength=4), 100, atol=5 * np.sqrt(75))


# -- a step ------------------------------------------------------------------------------------------------------------


def head_by_hand(features, labels, kernel, bias):
    """Losses `[B]` of the class layer and the gradients of their sum by features, kernel and bias."""
    active = np.maximum(features, 0)
    logits = active @ kernel + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    own = np.arange(len(labels)), labels
    losses = -np.log(p[own])
    p[own] -= 1
    return losses, p @ kernel.T * (features > 0), active.T @ p, p.sum(axis=0)


def test_the_loss_is_the_softmax_of_a_linear_layer_on_rectified_features():
    rng = np.random.default_rng(0)
    features, kernel, bias = rng.standard_normal((9, 7)), rng.standard_normal((7, 5)), rng.standard_normal(5)
    labels = rng.integers(5, size=9)
    tensors = [tf.constant(x) for x in (features, kernel, bias)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        losses = assignment_losses(tensors[0], tf.constant(labels), *tensors[1:])
    wanted = head_by_hand(features, labels, kernel, bias)
    for found, by_hand in zip([losses, *tape.gradient(losses, tensors)], wanted, strict=True):
        np.testing.assert_allclose(found.numpy(), by_hand, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scaled", [False, True])
def test_two_steps_move_the_trunk_with_momentum_and_the_class_layer_without(scaled):
    rates = (0.5, 0.1)  # at steps 0 and 1
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], list(rates))
    model = tiny_model(schedule, 0.9)
    if scaled:
        model.compile(LossScaling(model.optimizer))
    model.begin_epoch(0)
    model.class_kernel.assign(np.random.default_rng(1).standard_normal((D, K)))  # of a size that shows
    labels = model.cluster_labels.numpy()
    labels[7] = -1  # was bad when the clusters were made
    model.cluster_labels.assign(labels)
    rows = np.array([3, 31, 59, 7, 3, 46, 12, 50])
    valid = np.array([True] * 6 + [False, True])
    counted = valid & (labels[rows, 0] >= 0)
    batch = batch_of(rows, valid)
    linear = model.embedder.get_layer("linear")
    kernel, bias, class_kernel, class_bias = float64(linear.kernel, linear.bias, model.class_kernel, model.class_bias)
    matrix, offset, bank = float64(model.whitening.matrix, model.whitening.offset, model.bank.rows)
    inputs = IMAGES[rows].reshape(8, -1).astype(np.float64)
    velocity = np.zeros_like(kernel), np.zeros_like(bias)
    losses = []
    step = tf.function(model.train_step)
    for rate in rates:
        logs = step(batch)
        features = inputs @ kernel + bias
        bank = reference.bank_after(bank, rows[valid], reference.unit(features @ matrix + offset)[valid], 0.5)
        found = head_by_hand(features[counted], labels[rows[counted], 0], class_kernel, class_bias)
        losses.append(found[0].mean())
        by_features, by_kernel, by_bias = (gradient / counted.sum() for gradient in found[1:])
        gradients = inputs[counted].T @ by_features + 0.01 * kernel, by_features.sum(axis=0)
        velocity = [0.9 * v - rate * gradient for v, gradient in zip(velocity, gradients, strict=True)]
        kernel, bias = kernel + velocity[0], bias + velocity[1]
        class_kernel, class_bias = class_kernel - rate * (by_kernel + 0.01 * class_kernel), class_bias - rate * by_bias

    assert float(logs["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)  # without the decay
    for variable, wanted in [
        (linear.kernel, kernel), (linear.bias, bias), (model.class_kernel, class_kernel),
        (model.class_bias, class_bias), (model.bank.rows, bank),
    ]:  # fmt: skip
        np.testing.assert_allclose(variable.numpy(), wanted, atol=2e-5, err_msg=variable.path)
    for variable, before in ((model.whitening.matrix, matrix), (model.whitening.offset, offset)):
        np.testing.assert_array_equal(variable.numpy(), before.astype(np.float32))
    assert not model.bank.written.numpy()[12] and model.bank.written.numpy()[np.delete(np.arange(N), 12)].all()


def test_the_optimizer_keeps_nothing_for_the_class_layer():
    model = tiny_model()
    model.optimizer.build(model.trainable_variables)
    momenta = [tuple(variable.shape) for variable in model.optimizer.variables if len(variable.shape)]
    assert sorted(momenta) == sorted([(48, D), (D,)])


def test_a_batch_without_any_picture_that_counts_moves_nothing_but_by_weight_decay():
    model = tiny_model()
    model.begin_epoch(0)
    before = [variable.numpy() for variable in (model.class_kernel, *model.trainable_variables)]
    logs = model.train_step(batch_of(np.arange(8), np.zeros(8, bool)))
    assert float(logs["loss"]) == 0
    after = [variable.numpy() for variable in (model.class_kernel, *model.trainable_variables)]
    for found, old, decay in zip(after, before, (0.01, 0.01, 0), strict=True):
        np.testing.assert_allclose(found, old * (1 - 0.5 * decay), rtol=1e-6)


# -- a round -----------------------------------------------------------------------------------------------------------


def test_a_round_clusters_whitened_unit_features_and_fills_the_bank_with_them():
    model = tiny_model(image_labels=GROUP)
    weights = [variable.numpy() for variable in model.trainable_variables]
    found = model.begin_epoch(0)
    kernel, bias = (x.astype(np.float64) for x in weights)
    features = IMAGES.reshape(N, -1).astype(np.float64) @ kernel + bias
    wanted, bank = reference.unit(svd_whitened(features, P)), model.bank.rows.numpy()
    wanted *= np.sign((bank * wanted).sum(axis=0))
    np.testing.assert_allclose(bank, wanted, atol=1e-4)
    assert model.bank.written.numpy().all()
    np.testing.assert_allclose(model(IMAGES).numpy(), bank, atol=1e-5)  # what kNN and search see
    labels = model.cluster_labels.numpy()[:, 0]
    assert labels.dtype == np.int32
    # A fixed point of k-means: every row is in the cluster of the nearest mean.
    means = np.stack([wanted[labels == label].mean(axis=0) for label in range(K)])
    np.testing.assert_array_equal(labels, np.square(wanted[:, None] - means).sum(axis=2).argmin(axis=1))
    for variable, before in zip(model.trainable_variables, weights, strict=True):
        np.testing.assert_array_equal(variable.numpy(), before)
    sizes = np.bincount(labels, minlength=K)
    of_the_commonest = sum(np.bincount(GROUP[labels == label]).max() for label in range(K))
    wanted_health = {
        "phase": "dc", "clusters_empty": 0, "cluster_min": sizes.min(), "cluster_median": np.median(sizes),
        "cluster_max": sizes.max(), "purity": pytest.approx(of_the_commonest / N),
    }  # fmt: skip
    assert {name: found[name] for name in wanted_health} == wanted_health
    assert "nmi_previous" not in found  # there was none


def test_every_round_has_its_own_class_layer_and_k_means():
    noise = np.random.default_rng(0).random(IMAGES.shape, np.float32)
    seen = []
    for model in (tiny_model(center_crops=central_views(images=noise)) for _ in range(2)):
        for number in (0, 1):
            found = model.begin_round(number)
            seen.append((model.class_kernel.numpy(), model.cluster_labels.numpy()[:, 0]))
            assert not model.class_bias.numpy().any()
            model.class_kernel.assign_add(tf.ones([D, K]))
            model.class_bias.assign_add(tf.ones([K]))
        assert found["nmi_chance"] < found["nmi_previous"] < 1
    (first, first_labels), (second, second_labels), (again, again_labels), _ = seen
    assert np.abs(first - second).max() > 0.005
    assert partition(first_labels) != partition(second_labels)  # nothing else has changed in between
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first_labels, again_labels)


def test_a_fresh_class_layer_has_deviation_one_hundredth():
    model = DeepCluster(tiny_embedder(), 1500, clusters=1000, center_crops=None, seed=1)
    model._fresh_class_layer(5)
    kernel = model.class_kernel.numpy()
    assert abs(kernel.std() - 0.01) < 5e-4 and abs(kernel.mean()) < 5e-4


def test_rounds_come_every_so_many_epochs_and_their_labels_last():
    model = tiny_model(cluster_every="3epochs")
    seen, before = [], None
    for epoch in range(7):
        found = model.begin_epoch(epoch)
        assert found["phase"] == "dc" and ("clusters_empty" in found) == (epoch % 3 == 0)
        assert ("nmi_previous" in found) == (epoch in (3, 6))
        labels, rows = model.cluster_labels.numpy()[:, 0], model.epoch_rows(epoch)
        np.testing.assert_array_equal(rows, uniform_rows(labels, 3, epoch))
        assert (np.bincount(labels[rows]) == N // K).all()
        seen.append(rows)
        if epoch % 3:
            np.testing.assert_array_equal(labels, before)
        before = labels
        model.train_step(batch_of(rows[:16]))
    assert not (seen[0] == seen[1]).all()


def test_rounds_of_steps_are_refused():
    with pytest.raises(ValueError, match=r"cluster_every='100steps'.*whole epochs"):
        tiny_model(cluster_every="100steps")


def test_bad_pictures_have_no_part_in_whitening_clusters_bank_and_epochs():
    bad = np.isin(np.arange(N), [2, 40, 58])
    other = IMAGES.copy()
    other[bad] = 50.0  # whatever stands in their place
    models = [tiny_model(center_crops=central_views(~bad, images)) for images in (IMAGES, other)]
    for model in models:
        found = model.begin_epoch(0)
        labels = model.cluster_labels.numpy()[:, 0]
        np.testing.assert_array_equal(labels == -1, bad)
        np.testing.assert_array_equal(model.bank.written.numpy(), ~bad)
        rows = model.epoch_rows(0)
        assert len(rows) == N and not bad[rows].any()
        assert all(np.isfinite(value) for value in found.values() if not isinstance(value, str))
    for a, b in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5, err_msg=a.path)


def test_a_picture_that_went_bad_has_lost_its_cluster_in_the_next_round():
    model, bad = tiny_model(), np.arange(N) == 17
    model.begin_epoch(0)
    assert model.cluster_labels.numpy()[17] >= 0
    model.center_crops = central_views(~bad)
    model.begin_epoch(1)
    np.testing.assert_array_equal(model.cluster_labels.numpy()[:, 0] == -1, bad)
    np.testing.assert_array_equal(model.bank.written.numpy(), ~bad)


def test_more_clusters_than_readable_pictures_is_said():
    model = tiny_model(center_crops=central_views(np.arange(N) < 3))
    with pytest.raises(UserError, match=r"^--clusters=4: only 3 of 60 images can be read; lower it$"):
        model.begin_epoch(0)


def test_the_whitening_of_many_pictures_is_estimated_from_a_sample(monkeypatch):
    monkeypatch.setattr(deep_cluster, "WHITENING_ROWS", 25)
    asked = []
    model = tiny_model(center_crops=central_views(asked=asked))
    model.begin_round(0)
    model.begin_round(1)
    first, everything, second, _ = asked
    assert everything is None and len(np.unique(first)) == 25 and (np.diff(first) > 0).all()
    assert not np.array_equal(first, second)
    features = model.features(IMAGES).numpy()
    matrix, offset = whitening(features[second], P)
    np.testing.assert_allclose(model.bank.rows.numpy(), reference.unit(features @ matrix + offset), atol=1e-4)
    monkeypatch.setattr(deep_cluster, "WHITENING_NUMBERS", 10 * D + 1)
    model.begin_round(2)
    assert len(asked[-2]) == 10


# -- collapse ----------------------------------------------------------------------------------------------------------


def test_a_network_that_maps_all_pictures_to_one_point_trains_on_and_is_told():
    model = tiny_model(kernel="zeros", image_labels=GROUP)
    for epoch in range(2):
        found = model.begin_epoch(epoch)
        assert all(np.isfinite(value) for value in found.values() if not isinstance(value, str))
        assert "DeepCluster is collapsing" in model.warning({"epoch": epoch, **found})
        logs = model.train_step(batch_of(model.epoch_rows(epoch)[:16]))
        assert np.isfinite(float(logs["loss"]))
    for variable in model.weights:
        assert np.isfinite(variable.numpy()).all(), variable.path


HEALTHY = {"epoch": 40, "clusters_empty": 0, "cluster_max": 4, "nmi_previous": 0.9, "nmi_chance": 0.4}


@pytest.mark.parametrize(
    ("clusters", "metrics", "wrong"),
    [
        (20, {}, None),
        (20, {"cluster_max": 20}, None),
        (20, {"cluster_max": 21}, "the largest of 20 clusters holds 35% of the images"),
        (2, {"cluster_max": 59}, None),
        (20, {"clusters_empty": 10}, None),
        (20, {"clusters_empty": 11}, "11 of 20 clusters are empty"),
        (20, {"nmi_previous": 0.42}, "next to nothing in common with the last round's"),
        (20, {"nmi_previous": 0.44}, None),
        (20, {"nmi_previous": 0.42, "epoch": 8}, None),  # the fourth round after the first
        (20, {"nmi_previous": 0.42, "epoch": 10}, "next to nothing in common"),
    ],
)
def test_trivial_clusters_are_told_with_what_to_do(clusters, metrics, wrong):
    model = tiny_model(clusters=clusters, cluster_every="2epochs")
    line = model.warning(HEALTHY | metrics)
    if wrong is None:
        assert line is None
    else:
        assert wrong in line and "--learning_rate" in line and "\n" not in line
        assert "--dc_head" not in line  # it has no hidden layers
    between = {key: value for key, value in (HEALTHY | metrics).items() if key == "epoch"}
    assert model.warning(between) is None


def test_a_network_with_hidden_layers_is_advised_to_go_without():
    model = DeepCluster(build_embedder(backbone(), 16, head_units=24), N, clusters=20)
    assert "--dc_head=a" in model.warning(HEALTHY | {"cluster_max": 59})


# -- how it lives ------------------------------------------------------------------------------------------------------


def backbone(name="resnet10", size=8, **arguments):
    stem = "imagenet" if name == "vgg16" else "small"
    return build_backbone(name, width=2, stem=stem, preprocessing=Preprocessing(image_size=size), **arguments)


@pytest.mark.parametrize(
    ("network", "width"),
    [
        (("resnet10", 16), 2 * 2 * 16),
        (("resnet10", 12, ("resnet_version", 1)), 2 * 2 * 16),
        (("alexnet", 16), 128),
        (("vgg16", 32), 128),
    ],
    ids=str,
)
def test_head_a_clusters_the_unpooled_features_before_their_relu(network, width):
    name, size, *arguments = network
    trunk = backbone(name, size, **dict(arguments))
    embedder = build_embedder(trunk, 16)
    features = keras.Model(embedder.inputs[0], embedder.get_layer("whitening").input)
    images = np.random.default_rng(0).random((3, size, size, 3), np.float32)
    found = features(images).numpy()
    rectified = trunk.model(images)[trunk.last].numpy().reshape(3, -1)
    assert found.shape == (3, width) and (found < 0).any()
    np.testing.assert_allclose(np.maximum(found, 0), rectified, atol=1e-6)
    assert embedder.output_shape[-1] == 16 and embedder.backbone is trunk
    np.testing.assert_allclose(np.linalg.norm(embedder(images), axis=1), 1, rtol=1e-5)


def test_head_b_puts_two_hidden_layers_on_top_the_second_without_its_relu():
    trunk = backbone(size=16)
    embedder = build_embedder(trunk, 16, head_units=24)
    images = np.random.default_rng(0).random((3, 16, 16, 3), np.float32)
    endpoint = trunk.model(images)["conv5"].numpy().reshape(3, -1)
    first, second = embedder.get_layer("hidden1"), embedder.get_layer("hidden2")
    assert first.kernel.shape == (64, 24) and second.kernel.shape == (24, 24)
    wanted = np.maximum(endpoint @ first.kernel.numpy() + first.bias.numpy(), 0) @ second.kernel.numpy()
    features = keras.Model(embedder.inputs[0], embedder.get_layer("whitening").input)(images).numpy()
    np.testing.assert_allclose(features, wanted, atol=1e-5)
    assert embedder.output_shape[-1] == 12  # not the last of 24 components, which are noise


def test_the_network_trains_with_the_statistics_of_the_batch_and_clusters_with_those_it_keeps():
    trunk = backbone()
    images = np.random.default_rng(0).random((N, 8, 8, 3), np.float32)
    model = DeepCluster(build_embedder(trunk, 8), N, clusters=K, center_crops=central_views(images=images))
    model.compile(keras.optimizers.SGD(0.1))
    kept = trunk.model.get_layer("conv5_bn").moving_mean
    before = kept.numpy()
    model.begin_epoch(0)
    np.testing.assert_array_equal(kept.numpy(), before)
    model.train_step(batch_of(np.arange(16), images=images))
    assert np.abs(kept.numpy() - before).max() > 1e-3


def test_a_picture_of_another_size_is_refused():
    embedder = build_embedder(backbone(size=16), 16)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        embedder(np.zeros((4, 32, 32, 3), np.float32))


def test_constructor_and_embedder_follow_the_flags():
    data = DataConfig(dataset="digits", image_size=8, batch_size=10)
    model = ModelConfig(backbone="resnet10", width=2, embedding_dim=10)
    method = MethodConfig(method="dc", clusters=7, head_units=24, cluster_every="2epochs", dc_head="b")
    config = Config(data, model, method, OptimizerConfig(), RunOptions(model_dir="unset"))
    config, _ = resolve(config, N)
    pictures = TrainingSet(N, GROUP, K, np.arange(3), 6, central_views())
    assert method_class("dc") is DeepCluster
    embedder = DeepCluster.build_embedder(backbone(), config)
    assert embedder.output_shape[-1] == 10 and embedder.get_layer("hidden2").kernel.shape == (24, 24)
    learner = DeepCluster(embedder, N, **DeepCluster.arguments(config, pictures))
    assert learner.class_kernel.shape == (24, 7) and learner.round_epochs == 2
    assert learner.center_crops is pictures.center_crops and learner.image_labels is GROUP
    config = replace(config, method=replace(config.method, dc_head="a"))
    without = DeepCluster.build_embedder(backbone(), config)
    assert without.output_shape[-1] == 8  # of 16 features
    assert not any(layer.name == "hidden1" for layer in without.layers)


def test_fit_says_that_the_rows_are_chosen():
    with pytest.raises(ValueError, match=r"by la_tf\.estimator"):
        tiny_model().fit([batch_of(np.arange(8))])


def test_labels_and_bank_mean_nothing_on_other_pictures():
    model = tiny_model()
    assert {id(variable) for variable in model.picture_variables} == {
        id(variable) for variable in (model.bank.rows, model.bank.written, model.cluster_labels)
    }


def test_interrupted_and_whole_runs_draw_the_same_rows_and_end_the_same(tmp_path):
    def trained(folder, *stops):
        drawn = []

        def input_fn(mode, context):
            assert mode == ModeKeys.TRAIN
            first = context.first_step % 6
            for rows in np.reshape(context.epoch_rows, (6, 10))[first:]:
                drawn.append(rows.tolist())
                yield batch_of(rows)

        for stop in stops:
            run = Estimator(lambda: tiny_model(0.2, cluster_every="2epochs"), RunConfig(model_dir=str(folder)))
            run.train(TrainSpec(input_fn, max_steps=stop, steps_per_epoch=6))
        return run, drawn

    whole, rows = trained(tmp_path / "whole", 29)
    parts, rows_of_parts = trained(tmp_path / "parts", 3, 6, 16, 24, 29)  # within rounds and at their ends
    assert len(rows) == 29 and rows == rows_of_parts
    for name, variable in whole.variables().items():
        np.testing.assert_array_equal(variable.numpy(), parts.variables()[name].numpy(), err_msg=name)
    assert {"deep_cluster/class_kernel", "deep_cluster/cluster_labels", "whitening/matrix"} <= whole.variables().keys()
