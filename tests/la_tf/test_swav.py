"""SwAV against float64 NumPy: codes, loss, gradients, queue, and what a step does to the prototypes."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from la_tf.embedding import UnitLength
from la_tf.lars import LARS
from la_tf.method import TrainingSet
from la_tf.swav import SwAV, perplexity, sinkhorn_codes, swapped_prediction_loss
from models import build_backbone
from tests import programs
from tests.la_tf import reference

B, K, D = 8, 6, 5
TAU, EPSILON = 0.1, 0.05

# -- float64 NumPy, as the paper's code has it: Q is [K, n], its entries divided by sums -------------------------------


def reference_codes(scores, epsilon=EPSILON, iterations=3):
    q = np.exp(np.asarray(scores, np.float64) / epsilon).T
    k, n = q.shape
    for _ in range(iterations):
        q = q / q.sum(axis=1, keepdims=True) / k
        q = q / q.sum(axis=0, keepdims=True) / n
    return q.T * n


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def reference_loss(codes, scores, tau=TAU):
    """Losses [B] and the gradients of their sum by each view's scores, V of [B, K]."""
    losses, by_scores = np.zeros(len(scores[0])), [np.zeros_like(score) for score in scores]
    for s, code in enumerate(codes):
        for t, score in enumerate(scores):
            if t != s:
                p = softmax(score / tau)
                parts = len(codes) * (len(scores) - 1)
                losses -= (code * np.log(p)).sum(axis=1) / parts
                by_scores[t] += (p - code) / tau / parts
    return losses, by_scores


def random_unit(*shape, seed=0):
    return reference.unit(np.random.default_rng(seed).standard_normal(shape))


# -- codes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [1.0, 0.05, 0.03])
@pytest.mark.parametrize("iterations", [1, 3, 10])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-4)])
def test_codes_are_those_of_the_valid_rows_alone(epsilon, iterations, dtype, tolerance):
    scores = random_unit(20, D) @ random_unit(K, D, seed=1).T
    valid = np.arange(20) % 3 > 0
    wanted = reference_codes(scores[valid], epsilon, iterations)
    for of_masked in (0.0, 1.0, -30.0):
        scores[~valid] = of_masked
        found = sinkhorn_codes(tf.constant(scores, dtype), epsilon, iterations, tf.constant(valid)).numpy()
        assert np.abs(found[valid] - wanted).max() < tolerance
        assert np.isfinite(found).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(2, 20), st.floats(0.001, 2.0), st.integers(1, 5), st.integers(0, 2**20))
def test_every_picture_gives_one_in_all_whatever_the_sizes(pictures, prototypes, epsilon, iterations, seed):
    rng = np.random.default_rng(seed)
    scores = rng.uniform(-1, 1, (pictures, prototypes)).astype(np.float32)
    codes = sinkhorn_codes(tf.constant(scores), epsilon, iterations, tf.constant(rng.random(pictures) < 0.7)).numpy()
    assert np.isfinite(codes).all() and (codes >= 0).all()
    assert codes.sum(axis=1) == pytest.approx(np.ones(pictures), abs=1e-4)


@settings(deadline=None, max_examples=10)
@given(st.integers(10, 40), st.integers(2, 8), st.integers(0, 2**20))
def test_in_the_end_every_prototype_gets_an_equal_share(pictures, prototypes, seed):
    scores = np.random.default_rng(seed).uniform(-1, 1, (pictures, prototypes))
    codes = sinkhorn_codes(tf.constant(scores), 0.5, 100, tf.fill([pictures], True)).numpy()
    assert codes.sum(axis=0) == pytest.approx(np.full(prototypes, pictures / prototypes), rel=1e-6)


def test_scores_that_differ_by_a_constant_have_the_same_codes_and_a_row_far_from_all_prototypes_has_one():
    scores = random_unit(20, D) @ random_unit(K, D, seed=1).T
    valid = tf.fill([20], True)
    codes, moved = (sinkhorn_codes(tf.constant(each), EPSILON, 3, valid).numpy() for each in (scores, scores + 7))
    np.testing.assert_allclose(codes, moved, rtol=1e-9)
    far = np.ones((20, K), np.float32)
    far[0] = [-1, -0.9, -1, -1, -1, -1]  # its part of any prototype is below what float32 holds at this epsilon
    assert sinkhorn_codes(tf.constant(far), 0.01, 3, valid).numpy()[0].argmax() == 1


def test_no_gradient_flows_through_codes():
    scores = tf.constant(random_unit(B, K))
    with tf.GradientTape() as tape:
        tape.watch(scores)
        codes = sinkhorn_codes(scores, EPSILON, 3, tf.fill([B], True))
    assert tape.gradient(codes, scores) is None


def test_a_code_is_spread_over_as_many_prototypes_as_its_perplexity_says():
    codes = tf.constant([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0, 0.5, 0]])
    assert perplexity(codes).numpy() == pytest.approx([1, 4, 2], rel=1e-6)


# -- loss --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", [2, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_loss_and_gradient_are_those_of_the_swapped_prediction(views, dtype, tolerance):
    prototypes = random_unit(K, D, seed=9)
    embeddings = [random_unit(B, D, seed=view) for view in range(views)]
    scores = [view @ prototypes.T for view in embeddings]
    codes = [reference_codes(score) for score in scores[:2]]
    losses, by_scores = reference_loss(codes, scores)
    inputs = [tf.constant(view, dtype) for view in embeddings]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        of_views = [tf.matmul(view, tf.constant(prototypes, dtype), transpose_b=True) for view in inputs]
        found = swapped_prediction_loss([tf.constant(code, dtype) for code in codes], of_views, TAU)
    assert np.abs(found.numpy() - losses).max() < tolerance * losses.max()
    for gradient, wanted in zip(tape.gradient(found, inputs), by_scores, strict=True):
        assert np.abs(gradient.numpy() - wanted @ prototypes).max() < tolerance * np.abs(wanted).max()


# -- a step ------------------------------------------------------------------------------------------------------------


def tiny_swav(momentum=0.0, batch_norm=False, **kwargs):
    """SwAV on a linear map of the mean colour, as it takes views of any size."""
    keras.utils.set_random_seed(3)
    image = keras.Input((None, None, 3))
    x = keras.layers.Dense(D, name="embedding", bias_initializer="normal")(keras.layers.GlobalAveragePooling2D()(image))
    x = keras.layers.BatchNormalization()(x) if batch_norm else x
    embedder = keras.Model(image, UnitLength()(x))
    kwargs = {"prototypes": K, "weight_decay": 0.01, "sinkhorn_epsilon": EPSILON} | kwargs
    model = SwAV(embedder, 40, **kwargs)
    model.compile(keras.optimizers.SGD(0.5, momentum=momentum))
    model.optimizer.build(model.trainable_variables)
    return model


def weights_of(model):
    """Returns kernel, bias and prototypes."""
    named = {weight.name: weight for weight in model.trainable_weights}
    return [named[name] for name in ("kernel", "bias", "prototypes")]


def batch_of(seed=0, masked=(), small_views=0, count=B):
    rng = np.random.default_rng(seed)
    sizes = (4, 4) + (2,) * small_views
    views = tuple(tf.constant(rng.random((count, size, size, 3)), tf.float32) for size in sizes)
    return {
        "image": views[0],
        "views": views,
        "index": tf.constant(rng.permutation(40)[:count]),
        "label": tf.fill([count], tf.constant(-1, tf.int64)),
        "valid": tf.constant(~np.isin(np.arange(count), masked)),
    }


def wanted_step(model, batch, queue=None):
    """Loss, and weights after a step of rate 0.5 with weight decay 0.01 on the kernel, in float64."""
    valid = batch["valid"].numpy()
    kernel, bias, prototypes = (weight.numpy().astype(np.float64) for weight in weights_of(model))
    inputs = [np.mean(view.numpy().astype(np.float64), axis=(1, 2))[valid] for view in batch["views"]]
    inputs = [np.hstack([rows, np.ones((len(rows), 1))]) for rows in inputs]
    affine = np.vstack([kernel, bias])
    embeddings = [reference.unit(rows @ affine) for rows in inputs]
    scores = [view @ prototypes.T for view in embeddings]
    rows = scores[:2] if queue is None else [np.vstack([scores[s], queue[s] @ prototypes.T]) for s in range(2)]
    codes = [reference_codes(each)[: valid.sum()] for each in rows]
    losses, by_scores = reference_loss(codes, scores)
    by_affine = sum(
        reference.through_unit_linear(x, affine, by @ prototypes) for x, by in zip(inputs, by_scores, strict=True)
    )
    by_prototypes = sum(by.T @ view for by, view in zip(by_scores, embeddings, strict=True))
    rate = 0.5 / valid.sum()
    return {
        "loss": losses.mean(),
        "kernel": kernel - rate * by_affine[:3] - 0.5 * 0.01 * kernel,
        "bias": bias - rate * by_affine[3],
        "prototypes": reference.unit(prototypes - rate * by_prototypes),
        "perplexity": np.mean([np.exp(-(code * np.log(code)).sum(axis=1)) for code in codes]),
        "embeddings": embeddings,
    }


def assert_took(model, logs, wanted):
    assert float(logs["loss"]) == pytest.approx(wanted["loss"], rel=1e-5)
    assert float(logs["code_perplexity"]) == pytest.approx(wanted["perplexity"], rel=1e-4)
    assert len(model.trainable_weights) == 3
    for weight in weights_of(model):
        assert np.abs(weight.numpy() - wanted[weight.name]).max() < 1e-5, weight.name


@pytest.mark.parametrize("small_views", [0, 3])
@pytest.mark.parametrize("masked", [(), (0, 5, 6)])
def test_a_step_is_that_of_the_valid_pictures_alone(small_views, masked):
    model, batch = tiny_swav(), batch_of(masked=masked, small_views=small_views)
    wanted, valid = wanted_step(model, batch), batch["valid"].numpy()
    rows = batch["index"].numpy()[valid]
    bank = reference.bank_after(model.bank.rows.numpy(), rows, wanted["embeddings"][0], 0.5)
    assert_took(model, tf.function(model.train_step)(batch), wanted)
    np.testing.assert_allclose(model.bank.rows.numpy(), bank, atol=1e-6)
    assert set(np.flatnonzero(model.bank.written.numpy())) == set(rows)


def test_a_batch_without_a_valid_picture_moves_nothing_but_by_weight_decay():
    model, batch = tiny_swav(queue=B), batch_of(masked=range(B))
    kernel, bias, prototypes = (weight.numpy() for weight in weights_of(model))
    logs = tf.function(model.train_step)(batch)
    assert float(logs["loss"]) == 0
    after = [weight.numpy() for weight in weights_of(model)]
    np.testing.assert_allclose(after[0], kernel * (1 - 0.5 * 0.01), rtol=1e-6)
    np.testing.assert_array_equal(after[1], bias)
    np.testing.assert_allclose(after[2], prototypes, atol=1e-6)


def test_prototypes_have_unit_length_at_any_time():
    model = tiny_swav(momentum=0.9)
    step = tf.function(model.train_step)
    for seed in range(4):
        assert np.abs(np.linalg.norm(model.prototypes.numpy(), axis=1) - 1).max() < 1e-6
        step(batch_of(seed))


def test_frozen_prototypes_neither_move_nor_gather_momentum():
    model, still = tiny_swav(momentum=0.9, frozen_steps=3), tiny_swav(momentum=0.9)
    prototypes, kernel = model.prototypes.numpy(), weights_of(model)[0].numpy()
    step = tf.function(model.train_step)
    for seed in range(3):
        step(batch_of(seed))
        np.testing.assert_allclose(model.prototypes.numpy(), prototypes, atol=1e-6)
    assert np.abs(weights_of(model)[0].numpy() - kernel).max() > 1e-2  # the network learns meanwhile
    velocity = next(each for each in model.optimizer.variables if "prototypes" in each.path)
    assert not velocity.numpy().any()
    wanted = wanted_step(model, batch_of(3))  # the first step that moves them, from rest
    step(batch_of(3))
    assert np.abs(model.prototypes.numpy() - wanted["prototypes"]).max() < 1e-5
    assert np.abs(model.prototypes.numpy() - prototypes).max() > 1e-3
    tf.function(still.train_step)(batch_of(0))
    assert np.abs(still.prototypes.numpy() - prototypes).max() > 1e-3  # without freezing the first step does


def test_lars_does_not_decay_frozen_prototypes():
    model = tiny_swav(frozen_steps=1)
    model.compile(LARS(0.5, weight_decay=0.5, trust=0.1))
    prototypes, bias = model.prototypes.numpy(), weights_of(model)[1].numpy()
    tf.function(model.train_step)(batch_of())
    np.testing.assert_allclose(model.prototypes.numpy(), prototypes, atol=1e-6)
    velocities = {each.path: each.numpy() for each in model.optimizer.variables if each.path.endswith("velocity")}
    assert [name for name, velocity in velocities.items() if not velocity.any()] == ["lars/swav_prototypes_velocity"]
    assert np.abs(weights_of(model)[1].numpy() - bias).max() > 1e-3


def test_views_of_one_size_share_a_forward_pass_and_its_batch_statistics():
    model, batch = tiny_swav(batch_norm=True), batch_of(small_views=3)
    embeddings = model.embed(batch["views"])
    again = tiny_swav(batch_norm=True)
    large = again.embedder(tf.concat(batch["views"][:2], axis=0), training=True)
    small = again.embedder(tf.concat(batch["views"][2:], axis=0), training=True)
    np.testing.assert_array_equal(tf.concat(embeddings, axis=0), tf.concat([large, small], axis=0))
    for one, other in zip(model.embedder.weights, again.embedder.weights, strict=True):
        np.testing.assert_array_equal(one, other)


# -- queue -------------------------------------------------------------------------------------------------------------


def test_the_queue_fills_from_its_step_on_and_serves_once_it_is_full():
    model = tiny_swav(queue=2 * B, queue_from_step=2)
    step = tf.function(model.train_step)
    seen = []
    for seed in range(7):
        batch = batch_of(seed, masked=[3])
        model.reset_metrics()
        full = len(seen) >= 2
        queue = np.concatenate(seen[::-1][:2], axis=1) if full else None  # newest first
        wanted, without = wanted_step(model, batch, queue), wanted_step(model, batch)
        embeddings = np.stack([model(view).numpy() for view in batch["views"]])
        logs = step(batch)
        assert_took(model, logs, wanted)
        if full:
            assert abs(wanted["loss"] - without["loss"]) > 1e-3, "the two are meant to be told apart"
        if seed >= 2:
            seen.append(embeddings)
        held = np.concatenate([*seen[::-1][:2], np.zeros((2, 2 * B, D))], axis=1)[:, : 2 * B]
        np.testing.assert_allclose(model.queue.numpy(), held, atol=1e-6)


def test_a_queue_that_came_with_a_warm_start_waits_for_its_step_and_starts_empty():
    model = tiny_swav(queue=B, queue_from_step=1)
    model.queue.assign(random_unit(2, B, D))
    batch = batch_of()
    wanted = wanted_step(model, batch)
    assert_took(model, tf.function(model.train_step)(batch), wanted)
    assert not model.queue.numpy().any()


def test_bank_and_queue_stand_for_pictures():
    assert [each.name for each in tiny_swav(queue=B).picture_variables] == ["rows", "written", "queue"]
    assert [each.name for each in tiny_swav().picture_variables] == ["rows", "written"]


def test_a_run_restored_by_its_variables_goes_on_as_if_it_had_not_been_stopped():
    kwargs = {"queue": 2 * B, "queue_from_step": 1, "frozen_steps": 2, "momentum": 0.9}
    batches = [batch_of(seed) for seed in range(7)]
    model = tiny_swav(**kwargs)
    step = tf.function(model.train_step)
    for batch in batches[:4]:
        step(batch)
    again = tiny_swav(seed=5, **kwargs)
    assert np.abs(again.prototypes.numpy() - model.prototypes.numpy()).max() > 0.1
    for kind in ("variables", "metrics_variables"):
        for variable, stored in zip(getattr(again, kind), getattr(model, kind), strict=True):
            variable.assign(stored)
    for variable, stored in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        variable.assign(stored)
    other_step = tf.function(again.train_step)
    for batch in batches[4:]:
        logs, other_logs = step(batch), other_step(batch)
    assert {name: float(value) for name, value in logs.items()} == {k: float(v) for k, v in other_logs.items()}
    for one, other in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    assert "swav/queue" in [each.path for each in model.variables]


# -- replicas ----------------------------------------------------------------------------------------------------------


TWO_REPLICAS = """
import json, sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.la_tf.test_swav import B, D, random_unit, tiny_swav

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = tiny_swav(queue=B)

def codes_of(step):
    def of_replica(context):
        part = slice(context.replica_id_in_sync_group * B // 2, (context.replica_id_in_sync_group + 1) * B // 2)
        views = [tf.constant(random_unit(B, D, seed=10 * step + view)[part], tf.float32) for view in range(2)]
        return *views, tf.constant(np.arange(B)[part] != 3)

    parts = strategy.experimental_distribute_values_from_function(of_replica)
    run = tf.function(lambda parts: strategy.run(lambda part: model.codes(part[:2], part[2]), args=(parts,)))
    codes = [strategy.experimental_local_results(view) for view in run(parts)]
    return [np.concatenate([part.numpy() for part in view]).tolist() for view in codes]

codes = [codes_of(step) for step in range(3)]
queues = [part.numpy().tolist() for part in strategy.experimental_local_results(model.queue.value)]
print(json.dumps({"codes": codes, "queues": queues}))
"""


def test_two_replicas_find_the_codes_of_the_whole_batch_and_keep_equal_queues():
    done = subprocess.run(
        [sys.executable, "-c", TWO_REPLICAS],
        cwd=programs.ROOT,
        env=programs.environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    model = tiny_swav(queue=B)
    valid = tf.constant(np.arange(B) != 3)
    for step, codes in enumerate(found["codes"]):
        views = [tf.constant(random_unit(B, D, seed=10 * step + view), tf.float32) for view in range(2)]
        np.testing.assert_allclose(codes, model.codes(views, valid), atol=1e-5)
    assert len(found["queues"]) == 2
    for queue in found["queues"]:
        np.testing.assert_allclose(queue, model.queue.numpy(), atol=1e-6)


# -- what comes of flags, and what is said -----------------------------------------------------------------------------


def config(**method):
    chosen = {
        "prototypes": 7, "tau": 0.2, "sinkhorn_epsilon": 0.04, "sinkhorn_iterations": 5, "queue": 256,
        "queue_from_epoch": 3, "frozen_prototype_epochs": 0.5, "projection_units": None, "bank_momentum": 0.6,
        "bank_dtype": "float16",
    }  # fmt: skip
    run = SimpleNamespace(bank_sharding="sharded")
    return SimpleNamespace(method=SimpleNamespace(**(chosen | method)), model=SimpleNamespace(embedding_dim=D), run=run)


def test_epochs_of_the_flags_become_steps():
    pictures = TrainingSet(100, np.zeros(100), 2, np.arange(3), steps_per_epoch=11, center_crops=list)
    assert SwAV.arguments(config(), pictures) == {
        "prototypes": 7, "tau": 0.2, "sinkhorn_epsilon": 0.04, "sinkhorn_iterations": 5, "queue": 256,
        "queue_from_step": 33, "frozen_steps": 6, "bank_momentum": 0.6, "bank_dtype": "float16",
        "bank_sharding": "sharded",
    }  # fmt: skip


@pytest.mark.parametrize(("units", "hidden"), [(None, 64), (24, 24)])
def test_the_projection_has_one_hidden_layer(units, hidden):
    backbone = build_backbone("resnet10", width=8, stem="small")
    embedder = SwAV.build_embedder(backbone, config(projection_units=units))
    of_head = [each.shape for each in embedder.trainable_weights[len(backbone.model.trainable_weights) :]]
    assert of_head == [(64, hidden), (hidden,), (hidden,), (hidden,), (hidden, D), (D,)]  # dense, norm, dense
    embeddings = embedder(np.random.default_rng(0).random((4, 8, 8, 3), np.float32)).numpy()
    assert embeddings.shape == (4, D)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(4), rel=1e-5)
    assert embedder.backbone is backbone


def test_a_loss_at_chance_is_said_once_the_prototypes_learn():
    model = tiny_swav(frozen_steps=10, queue=B)
    chance = math.log(K)
    assert model.warning({"step": 10, "loss": chance}) is None
    assert model.warning({"step": 11, "loss": 0.98 * chance}) is None
    assert model.warning({"step": 11, "loss": 1.02 * chance}) is None
    for loss in (0.995 * chance, 1.005 * chance):
        said = model.warning({"step": 11, "loss": loss})
        assert "\n" not in said
        for part in (
            f"{loss:.3f}",
            "1.792",
            "--prototypes=6",
            "--sinkhorn_epsilon",
            "--frozen_prototype_epochs",
            "--queue",
        ):
            assert part in said
    gentle = tiny_swav(sinkhorn_epsilon=0.03).warning({"step": 11, "loss": chance})
    assert "--sinkhorn_epsilon" not in gentle and "--queue" not in gentle  # nothing that is done already


def test_each_epoch_names_its_phase():
    assert tiny_swav().begin_epoch(0) == {"phase": "swav"}
