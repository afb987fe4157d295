"""Equations 1 to 5 against float64 NumPy, and what a training step does to the bank."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.errors import UserError
from la_tf import clustering, log_sums, neighbors
from la_tf.embedding import UnitLength
from la_tf.estimator import Estimator
from la_tf.instance_recognition import InstanceRecognition, instance_recognition_loss
from la_tf.local_aggregation import LocalAggregation, local_aggregation_loss
from la_tf.memory_bank import last_occurrences
from la_tf.neighbors import background_neighbors, close_among, cluster_mates
from la_tf.specs import RunConfig, TrainSpec
from la_tf.trainable import mean_over
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


def aggregate(embeddings, bank, written, indices, labels, k, tau):
    """Loss [B], C_i ∩ B_i [B, k] and B_i [B, k] of the paper's choices: nearest rows and clusters."""
    similarity, rows, _ = background_neighbors(embeddings, bank, written, k)
    there = similarity != -np.inf
    close = close_among(rows, indices, labels) & there
    logs, _ = log_sums.over_rows(embeddings, bank, tau, similarity, rows, (there, close))
    return local_aggregation_loss(logs[:, 0], logs[:, 1]), close, rows


def recognise(embeddings, bank, indices, tau):
    """Loss [B] of equation 1."""
    logs, _ = log_sums.over_bank(embeddings, bank, tau, 1, lambda rows: [tf.ones([tf.size(rows), 1], tf.bool)])
    own_similarity = tf.reduce_sum(embeddings * tf.gather(bank, indices), axis=1)
    return instance_recognition_loss(own_similarity, logs[:, 0], tau)


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
        found = recognise(v, tf.constant(bank, dtype), tf.constant(indices), TAU)
    assert norm_wise(found.numpy(), losses) < tolerance
    assert norm_wise(tape.gradient(found, v).numpy(), gradients) < tolerance


def loss_and_gradient(of_embeddings, embeddings):
    v = tf.constant(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(v)
        losses = of_embeddings(v)
    return losses.numpy(), tape.gradient(losses, v).numpy()


@pytest.mark.parametrize("clusterings", [1, 3])
def test_all_rows_as_background_is_the_loss_with_k_equal_to_n(clusterings):
    bank, written, labels, indices, inputs, weights = case("clustered", clusterings)
    written[:] = True
    bank, written, labels, indices = (tf.constant(part) for part in (bank, written, labels, indices))

    def of_all(v):
        def sets(rows):
            return [tf.gather(written, rows)[:, None], cluster_mates(rows, indices, labels)]

        return local_aggregation_loss(*tf.unstack(log_sums.over_bank(v, bank, TAU, 2, sets)[0], axis=1))

    embeddings = reference.unit(inputs @ weights)
    found, by_v = loss_and_gradient(of_all, embeddings)
    wanted, wanted_by_v = loss_and_gradient(
        lambda v: aggregate(v, bank, written, indices, labels, N, TAU)[0], embeddings
    )
    assert norm_wise(found, wanted) < 1e-9 and norm_wise(by_v, wanted_by_v) < 1e-9
    assert np.std(wanted) > 0.1


def test_the_image_alone_against_all_rows_is_instance_recognition():
    bank, _, _, indices, inputs, weights = case("clustered", 1)
    bank, indices = tf.constant(bank), tf.constant(indices)

    def of_self(v):
        def sets(rows):
            return [tf.fill([tf.size(rows), 1], True), tf.cast(rows[:, None], tf.int64) == indices]

        return local_aggregation_loss(*tf.unstack(log_sums.over_bank(v, bank, TAU, 2, sets)[0], axis=1))

    embeddings = reference.unit(inputs @ weights)
    found, by_v = loss_and_gradient(of_self, embeddings)
    wanted, wanted_by_v = loss_and_gradient(lambda v: recognise(v, bank, indices, TAU), embeddings)
    assert norm_wise(found, wanted) < 1e-9 and norm_wise(by_v, wanted_by_v) < 1e-9


def test_cluster_mates_share_a_cluster_in_any_clustering_and_unclustered_rows_only_themselves():
    labels = tf.constant([[0, 5], [0, 6], [1, 5], [2, 7], [-1, -1], [-1, -1]])
    found = cluster_mates(tf.range(6), tf.constant([0, 3, 4], tf.int64), labels).numpy().T.astype(int)
    assert found.tolist() == [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0]]


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


def batch_with_duplicates(seed=0, masked=()):
    """Eight pictures; in place of the masked ones a copy of a valid one, as the pipeline puts there."""
    images = np.random.default_rng(seed).random((8, 4, 4, 3), np.float32)
    indices = np.array([3, 9, 3, 17, 0, 3, 39, 9])
    valid = ~np.isin(np.arange(8), list(masked))
    images[~valid] = images[valid.argmax()]
    return {
        "image": tf.constant(images),
        "index": tf.constant(indices),
        "label": tf.fill([8], tf.constant(-1, tf.int64)),
        "valid": tf.constant(valid),
    }


LA = {"background_k": 12, "clusters": 5, "clusterings": 2, "warmup_epochs": 0}


def whole_bank(model):
    """Makes a model with LA begun: every row written, clusters found."""
    model.bank.written.assign(np.ones(40, bool))
    model.renew_clusters()
    return model


def sets_of(model, embeddings, indices, background, close):
    """B_i and C_i by the words of sections 3.1 and 5.2."""
    bank, written = model.bank.rows.numpy().astype(np.float64), model.bank.written.numpy()
    rows_written = [int(j) for j in np.flatnonzero(written)]
    backgrounds = {
        "knn": lambda v, i: reference.background(v, bank, written, 12),
        "all": lambda v, i: rows_written,
        "cluster": lambda v, i: [j for j in rows_written if j in reference.close(i, model.background_labels.numpy())],
    }
    b = [backgrounds[background](v, i) for v, i in zip(embeddings, indices, strict=True)]
    closes = {
        "clusters": lambda v, i, b: reference.close(i, model.cluster_labels.numpy()),
        "self": lambda v, i, b: {i},
        "knn": lambda v, i, b: set(sorted(b, key=lambda j: (-bank[j] @ v, j))[:3]),
    }
    return b, [closes[close](v, i, b_i) for v, i, b_i in zip(embeddings, indices, b, strict=True)]


@pytest.mark.parametrize(
    ("background", "close", "in_blocks"),
    [(*choice, False) for choice in itertools.product(["knn", "all", "cluster"], ["clusters", "self", "knn"])]
    + [("knn", "clusters", True), ("all", "clusters", True), ("cluster", "knn", True)],
)
def test_every_choice_of_background_and_close_neighbours_is_the_set_it_says(background, close, in_blocks, monkeypatch):
    if in_blocks:  # forty rows searched as a million are
        for name, value in {"BLOCK": 16, "LEAST_ROWS": 0, "SAMPLE_EVERY": 2, "SIMILARITIES_AT_ONCE": 100}.items():
            monkeypatch.setattr(neighbors, name, value)
    choices = {"background": background, "close": close, "close_k": 3, "background_clusters": 4}
    model = tiny_method(LocalAggregation, **LA, **choices)
    model.bank.written.assign(np.arange(40) < 37)  # row 39 is a stranger
    model.renew_clusters()
    batch = batch_with_duplicates()
    indices = batch["index"].numpy()
    embeddings = model(batch["image"]).numpy().astype(np.float64)
    bank = model.bank.rows.numpy().astype(np.float64)
    b, c = sets_of(model, embeddings, indices, background, close)
    losses, _ = reference.of_sets(embeddings, bank, b, c, 0.07)
    logs = tf.function(model.train_step)(batch)
    assert float(logs["loss"]) == pytest.approx(losses.mean(), rel=1e-5)
    assert float(logs["close_mean"]) == pytest.approx(np.mean([len(set(x) & y) for x, y in zip(b, c, strict=True)]))
    assert float(logs["own_in_background"]) == pytest.approx(np.mean([i in x for i, x in zip(indices, b, strict=True)]))


def test_the_clusterings_of_the_background_are_others_than_those_of_the_close_neighbours():
    choices = {"background": "cluster", "background_clusters": 5, "background_clusterings": 2}
    model = whole_bank(tiny_method(LocalAggregation, **LA, **choices))
    close, background = model.cluster_labels.numpy(), model.background_labels.numpy()
    assert background.shape == (40, 2) and background.min() >= 0 and background.max() == 4
    assert not any(np.array_equal(a, b) for a in close.T for b in background.T)
    assert {variable.name for variable in model.picture_variables} >= {"cluster_labels", "background_labels"}


def test_clusters_can_be_those_of_centre_crops():
    images = np.random.default_rng(4).random((40, 4, 4, 3), np.float32)
    valid = np.arange(40) != 7

    def center_crops():
        for part in np.split(np.arange(40), 5):
            batch = {"image": images[part], "index": part, "label": np.zeros(8, np.int64), "valid": valid[part]}
            yield {name: tf.constant(value) for name, value in batch.items()}

    model = tiny_method(LocalAggregation, **LA, cluster_on="center_crops", center_crops=center_crops)
    bank = reference.unit(np.random.default_rng(5).standard_normal((40, D))).astype(np.float32)
    model.bank.rows.assign(bank)
    model.renew_clusters()
    embeddings = model(images).numpy()
    wanted = clustering.cluster(embeddings[valid], 5, 2, model.seed)
    np.testing.assert_array_equal(model.cluster_labels.numpy()[valid], wanted)
    assert (model.cluster_labels.numpy()[~valid] == -1).all()
    np.testing.assert_array_equal(model.bank.rows.numpy(), bank)


@pytest.mark.parametrize(
    ("every", "renewed_at_epochs", "renewed_at_steps"),
    [("1epoch", [1, 2, 3, 4], []), ("2epochs", [1, 3], []), ("3steps", [], [2, 3, 6, 9]), ("2steps", [], [2, 4, 6, 8])],
)
def test_clusters_are_renewed_as_often_as_asked(every, renewed_at_epochs, renewed_at_steps):
    model = tiny_method(LocalAggregation, **(LA | {"warmup_epochs": 1}), cluster_every=every)
    model.bank.written.assign(np.ones(40, bool))
    epochs, steps = [], []
    for epoch in range(5):
        if "cluster_min" in model.begin_epoch(epoch):
            epochs.append(epoch)
        for step in range(2 * epoch, 2 * epoch + 2):
            if model.begin_step(step):
                steps.append(step)
    assert epochs == renewed_at_epochs
    assert steps == renewed_at_steps  # the first step of Local Aggregation is number 2


def banks(count):
    """Banks that drift."""
    rng = np.random.default_rng(6)
    rows = [rng.standard_normal((40, D))]
    for _ in range(count - 1):
        rows.append(rows[-1] + 2 * rng.standard_normal((40, D)))
    return [reference.unit(each).astype(np.float32) for each in rows]


def labels_by_epoch(model, rows):
    """What begin_epoch finds, and the labels that are then in effect, epoch by epoch."""
    model.bank.written.assign(np.ones(40, bool))
    for epoch, each in enumerate(rows):
        model.bank.rows.assign(each)
        yield model.begin_epoch(epoch), model.cluster_labels.numpy()


@pytest.mark.parametrize("iterations", [0, 2])
def test_clusters_go_on_from_the_last_ones_at_once_or_in_the_background_a_renewal_later(iterations):
    rows = banks(4)
    wanted = [clustering.cluster(rows[0], 5, 2, seed=3)]
    for epoch in (1, 2, 3):
        options = {"previous": wanted[-1], "moment": epoch, "iterations": iterations}
        wanted.append(clustering.cluster(rows[epoch], 5, 2, seed=3, **options))
    chosen = LA | {"warm_iterations": iterations}
    assert len({each.tobytes() for each in wanted}) == 4
    for (found, labels), each in zip(
        labels_by_epoch(tiny_method(LocalAggregation, **chosen), rows), wanted, strict=True
    ):
        np.testing.assert_array_equal(labels, each)
        assert found["cluster_seconds"] > 0 and 0 < found["cluster_objective"] < 1
    later = labels_by_epoch(tiny_method(LocalAggregation, **chosen, cluster_in_background=True), rows)
    for epoch, ((found, labels), effect) in enumerate(zip(later, [0, 0, 1, 2], strict=True)):
        np.testing.assert_array_equal(labels, wanted[effect])
        assert ("cluster_objective" in found) == (epoch != 1), "nothing new has come into effect"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("no room for\nthe centroids"),
            "--cluster_in_background: .*RuntimeError: no room for the",
        ),
        (MemoryError("no room"), "out of memory in clustering 40 rows: .*--cluster_sample=256"),
    ],
)
def test_what_goes_wrong_in_the_background_is_told_where_its_clusters_are_due(monkeypatch, error, said):
    model = tiny_method(LocalAggregation, **LA, cluster_in_background=True)
    epochs = labels_by_epoch(model, banks(3))
    next(epochs)

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(clustering, "cluster", fails)
    next(epochs)
    with pytest.raises(UserError, match=f"^{said}"):
        next(epochs)


def test_a_run_killed_while_clusters_are_found_in_the_background_ends_as_one_that_was_not(tmp_path):
    choices = LA | {"warmup_epochs": 1, "cluster_in_background": True, "background": "cluster"}
    choices |= {"background_clusters": 4, "background_clusterings": 2}

    def input_fn(mode, context):
        for step in itertools.count(context.first_step):
            rng = np.random.default_rng(step)
            indices = (8 * step + np.arange(8)) % 40
            batch = {"image": rng.random((8, 4, 4, 3), np.float32), "index": indices, "label": np.full(8, -1)}
            yield {name: tf.constant(value) for name, value in (batch | {"valid": np.ones(8, bool)}).items()}

    def trained(folder, *stops):
        for stop in stops:
            config = RunConfig(model_dir=str(folder))
            run = Estimator(lambda: tiny_method(LocalAggregation, **choices), config)
            metrics = run.train(TrainSpec(input_fn, max_steps=stop, steps_per_epoch=5))
        changing = ("time", "images_per_s", "cluster_seconds")
        return run.variables(), {name: value for name, value in metrics.items() if name not in changing}

    whole, metrics = trained(tmp_path / "whole", 20)
    parts, metrics_of_parts = trained(tmp_path / "parts", 12, 15, 20)
    for name, variable in whole.items():
        np.testing.assert_array_equal(variable.numpy(), parts[name].numpy(), err_msg=name)
    assert metrics == metrics_of_parts and "cluster_objective" in metrics
    waiting = whole["waiting_clusterings/waiting"]
    assert bool(waiting.numpy()), "the last checkpoint holds what was found for the next epoch"


def test_dbscan_joins_what_is_dense_and_leaves_the_rest_alone():
    rng = np.random.default_rng(0)
    centres = reference.unit(rng.standard_normal((2, D)))
    bank = reference.unit(np.repeat(centres, 20, axis=0) + 0.02 * rng.standard_normal((40, D)))
    bank[[0, 20]] = reference.unit(rng.standard_normal((2, D)))  # strangers
    model = tiny_method(LocalAggregation, **(LA | {"clusterings": 1}), clustering="dbscan", dbscan_eps=0.4)
    model.bank.rows.assign(bank)
    model.bank.written.assign(np.ones(40, bool))
    found = model.begin_epoch(0)
    labels = model.cluster_labels.numpy()[:, 0]
    assert labels[0] == labels[20] == -1
    assert len(set(labels[1:20])) == len(set(labels[21:])) == 1 and labels[1] != labels[21]
    assert found["unclustered_fraction"] == 2 / 40 and found["cluster_max"] == 19
    batch = batch_with_duplicates()  # index 0 is alone, 3, 9, 17 are mates
    embeddings = model(batch["image"]).numpy().astype(np.float64)
    written = np.ones(40, bool)
    losses, _ = reference.local_aggregation(embeddings, bank, written, batch["index"].numpy(), labels[:, None], 12, TAU)
    assert float(model.train_step(batch)["loss"]) == pytest.approx(losses.mean(), rel=1e-5)


def test_dbscan_that_finds_nothing_but_noise_is_told_and_survived():
    model = tiny_method(LocalAggregation, **(LA | {"clusterings": 1}), clustering="dbscan", dbscan_eps=1e-3)
    model.bank.written.assign(np.ones(40, bool))
    found = model.begin_epoch(0)
    assert found["unclustered_fraction"] == 1 and found["cluster_max"] == 0 and found["close_skewness"] == 0
    assert np.isfinite(float(model.train_step(batch_with_duplicates())["loss"]))


# Indices 3, 9, 3, 17, 0, 3, 39, 9. Masked: the last of three and the last of two duplicates, and a picture alone.
@pytest.mark.parametrize("masked", [[], [5, 6, 7], [0, 1, 4]])
@pytest.mark.parametrize("phase", ["ir", "la"])
def test_a_step_moves_the_weights_by_the_old_bank_and_the_bank_by_equation_5(phase, masked):
    model = tiny_method(LocalAggregation, **LA)
    if phase == "la":
        whole_bank(model)
    batch = batch_with_duplicates(masked=masked)
    indices, valid = batch["index"].numpy(), batch["valid"].numpy()
    bank, count = model.bank.rows.numpy().astype(np.float64), valid.sum()
    kernel, bias = (weight.numpy().astype(np.float64) for weight in model.embedder.weights)
    pixels = batch["image"].numpy().astype(np.float64).mean(axis=(1, 2))
    inputs = np.concatenate([pixels, np.ones((8, 1))], axis=1)
    affine = np.concatenate([kernel, bias[None]])
    embeddings = reference.unit(inputs @ affine)

    def losses_and_gradients(rows):
        """Of the valid pictures, as if there were no others."""
        if phase == "ir":
            return reference.instance_recognition(embeddings[valid], rows, indices[valid], 0.07)
        labels, written = model.cluster_labels.numpy(), np.ones(40, bool)
        return reference.local_aggregation(embeddings[valid], rows, written, indices[valid], labels, 12, 0.07)

    losses, gradients = losses_and_gradients(bank)
    wanted_bank = reference.bank_after(bank, indices[valid], embeddings[valid], 0.5)
    losses_of_new_bank, _ = losses_and_gradients(wanted_bank)
    assert abs(losses.mean() - losses_of_new_bank.mean()) > 0.1, "the two banks must be told apart"
    before = model.bank.rows.numpy()

    logs = tf.function(model.train_step)(batch)

    assert float(logs["loss"]) == pytest.approx(losses.mean(), rel=1e-5)
    by_affine = reference.through_unit_linear(inputs[valid], affine, gradients / count)
    wanted_kernel = kernel - 0.5 * (by_affine[:3] + 0.01 * kernel)  # lambda · w on the kernel
    wanted_bias = bias - 0.5 * by_affine[3]  # and none on the bias
    assert np.abs(model.embedder.weights[0].numpy() - wanted_kernel).max() < 1e-5
    assert np.abs(model.embedder.weights[1].numpy() - wanted_bias).max() < 1e-5
    assert np.abs(model.bank.rows.numpy() - wanted_bank).max() < 1e-6
    untouched = sorted(set(range(40)) - set(indices[valid]))
    np.testing.assert_array_equal(model.bank.rows.numpy()[untouched], before[untouched])
    seen, bad = set(indices[valid]), set(indices) - set(indices[valid])
    written = seen if phase == "ir" else set(range(40)) - bad
    assert set(np.flatnonzero(model.bank.written.numpy())) == written


@pytest.mark.parametrize("phase", ["ir", "la"])
def test_a_step_is_the_step_on_the_valid_pictures_alone(phase):
    batch = batch_with_duplicates(masked=[0, 5, 6])
    alone = {name: tensor[batch["valid"]] for name, tensor in batch.items()}
    models = [tiny_method(LocalAggregation, **LA) for _ in range(2)]
    for model in models if phase == "la" else ():
        whole_bank(model)
        rows, labels = model.bank.rows.numpy(), model.cluster_labels.numpy()
        rows[39], labels[39] = -model(batch["image"]).numpy()[6], 99  # far from itself and alone: C ∩ B is empty
        model.bank.rows.assign(rows)
        model.cluster_labels.assign(labels)
    logs = [tf.function(model.train_step)(each) for model, each in zip(models, (batch, alone), strict=True)]
    assert logs[0].keys() == logs[1].keys() >= {"loss", "close_mean", "close_min", "own_in_background"}
    for name, value in logs[0].items():
        assert float(value) == pytest.approx(float(logs[1][name]), rel=1e-6), name
    assert float(logs[0]["empty_fraction"]) == 0
    for masked, wanted in zip(models[0].trainable_weights, models[1].trainable_weights, strict=True):
        # Terms of the size of 1 cancel out in some weights: float32 leaves them 1e-7 or two, by the CPU's kernels.
        np.testing.assert_allclose(masked.numpy(), wanted.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(models[0].bank.rows.numpy(), models[1].bank.rows.numpy(), rtol=1e-5, atol=1e-7)


def test_the_loss_is_a_mean_over_valid_pictures_and_0_without_any():
    losses = tf.constant([1.0, 5.0, 3.0, 7.0])
    assert float(mean_over(losses, tf.constant([True, False, True, False]))) == 2
    assert float(mean_over(losses, tf.fill([4], True))) == 4
    assert float(mean_over(losses, tf.fill([4], False))) == 0


@pytest.mark.parametrize("phase", ["ir", "la"])
def test_a_batch_without_a_valid_picture_costs_nothing_and_leaves_weight_decay_alone(phase):
    model = tiny_method(LocalAggregation, **LA)
    whole_bank(model)
    model.aggregating = phase == "la"
    batch = {**batch_with_duplicates(masked=range(8)), "image": tf.zeros([8, 4, 4, 3])}
    kernel, bias = (weight.numpy() for weight in model.embedder.weights)
    rows = model.bank.rows.numpy()
    logs = tf.function(model.train_step)(batch)
    assert float(logs["loss"]) == 0
    np.testing.assert_allclose(model.embedder.weights[0].numpy(), kernel * (1 - 0.5 * 0.01), rtol=1e-6)
    np.testing.assert_array_equal(model.embedder.weights[1].numpy(), bias)
    np.testing.assert_array_equal(model.bank.rows.numpy(), rows)
    assert set(np.flatnonzero(~model.bank.written.numpy())) == set(batch["index"].numpy())


def test_a_picture_that_went_bad_is_in_no_background_and_no_cluster_any_more():
    model = tiny_method(LocalAggregation, **LA)
    model.optimizer.learning_rate = 0.0
    batch = batch_with_duplicates(seed=1)
    embeddings = model(batch["image"]).numpy()
    rows = model.bank.rows.numpy()
    rows[[17, 39]] = embeddings[:2]  # near, so that they are in B
    model.bank.rows.assign(rows)
    whole_bank(model)
    model.train_step(batch_with_duplicates(masked=[3, 6]))  # pictures 17 and 39
    bank, labels = model.bank.rows.numpy().astype(np.float64), model.cluster_labels.numpy()
    indices = np.where(np.isin(batch["index"], [17, 39]), 0, batch["index"])
    all_rows = np.ones(40, bool)
    without = ~np.isin(np.arange(40), [17, 39])
    losses, _ = reference.local_aggregation(embeddings, bank, without, indices, labels, 12, 0.07)
    with_them, _ = reference.local_aggregation(embeddings, bank, all_rows, indices, labels, 12, 0.07)
    assert abs(losses.mean() - with_them.mean()) > 1e-3
    model.reset_metrics()
    logs = model.train_step({**batch, "index": tf.constant(indices)})
    assert float(logs["loss"]) == pytest.approx(losses.mean(), rel=1e-5)
    model.renew_clusters()
    assert ((model.cluster_labels.numpy() >= 0).all(axis=1) == without).all()


def test_the_running_metrics_are_means_over_all_valid_pictures_however_they_are_spread():
    few, many = batch_with_duplicates(seed=1, masked=range(1, 8)), batch_with_duplicates(seed=2, masked=[4])

    def running(*batches):
        model = whole_bank(tiny_method(LocalAggregation, **LA))
        model.optimizer.learning_rate = 0.0
        for batch in batches:
            logs = model.train_step(batch)
        return {name: float(value) for name, value in logs.items()}

    first = running(few)
    model = whole_bank(tiny_method(LocalAggregation, **LA))
    model.optimizer.learning_rate = 0.0
    model.train_step(few)
    model.reset_metrics()
    second = {name: float(value) for name, value in model.train_step(many).items()}
    both = running(few, many)
    for name in ("loss", "close_mean", "empty_fraction", "own_in_background"):
        assert both[name] == pytest.approx((1 * first[name] + 7 * second[name]) / 8), name
    assert abs(first["loss"] - second["loss"]) > 0.01
    assert both["close_min"] == min(first["close_min"], second["close_min"])


def test_of_duplicates_the_last_valid_position_counts():
    indices = tf.constant([4, 7, 4, 9, 7, 4])
    assert last_occurrences(indices, tf.fill([6], True)).numpy().tolist() == [5, 4, 5, 3, 4, 5]
    valid = tf.constant([True, True, True, False, True, False])
    assert last_occurrences(indices, valid).numpy().tolist() == [2, 4, 2, -1, 4, 2]


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
    model.bank.written.assign(np.arange(40) < 3)
    with pytest.raises(UserError, match="--clusters=5: only 3 of 40"):
        model.begin_epoch(0)


@pytest.mark.parametrize("choices", [{}, {"close": "self"}, {"clusterings": 1, "clustering": "dbscan"}])
def test_an_empty_bank_is_no_beginning(choices):
    model = tiny_method(LocalAggregation, **(LA | choices))
    with pytest.raises(UserError, match="the memory bank is empty: raise --warmup_epochs"):
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
