"""Noise-contrastive Instance Recognition against float64 NumPy; the softmax is tested beside Local Aggregation."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from la_tf.instance_recognition import InstanceRecognition, Normalizer, log_normalizer_of, noise_contrastive_loss
from tests.la_tf import reference
from tests.la_tf.test_local_aggregation import batch_with_duplicates, tiny_embedder

N, D, B, M = 60, 16, 9, 25
TAU = 0.07


def case(seed=0):
    rng = np.random.default_rng(seed)
    bank = reference.unit(rng.standard_normal((N, D)))
    indices = rng.integers(N, size=B)
    embeddings = reference.unit(0.5 * bank[indices] + reference.unit(rng.standard_normal((B, D))))
    return bank, embeddings, indices, rng.integers(N, size=(B, M))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
@pytest.mark.parametrize("normalizer", [1.0, 2.2 * N, 1e4 * N])
def test_the_loss_with_fixed_noise_is_the_published_one(normalizer, dtype, tolerance):
    bank, embeddings, indices, noise = case()
    losses, gradients = reference.noise_contrastive(embeddings, bank, indices, noise, normalizer, TAU)
    v, rows = tf.constant(embeddings, dtype), tf.constant(bank, dtype)
    with tf.GradientTape() as tape:
        tape.watch(v)
        own = tf.reduce_sum(v * tf.gather(rows, indices), axis=1)
        noise_similarity = tf.einsum("bd,bmd->bm", v, tf.gather(rows, noise))
        found = noise_contrastive_loss(own, noise_similarity, N, tf.constant(np.log(normalizer), dtype), TAU)
    assert np.linalg.norm(found - losses) < tolerance * np.linalg.norm(losses)
    assert np.linalg.norm(tape.gradient(found, v) - gradients) < tolerance * np.linalg.norm(gradients)


def test_an_extreme_temperature_does_not_overflow():
    loss = noise_contrastive_loss(tf.constant([1.0]), tf.constant([[0.9, -1.0]]), N, tf.constant(900.0), 1e-3)
    assert np.isfinite(loss.numpy()).all()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), tau=st.floats(0.05, 1.0))
def test_the_normalizer_is_n_times_the_mean_of_all_outputs_of_the_batch(seed, tau):
    bank, embeddings, indices, noise = case(seed)
    own = np.einsum("bd,bd->b", embeddings, bank[indices])
    similarity = np.einsum("bd,bmd->bm", embeddings, bank[noise])
    wanted = np.exp(np.concatenate([own[:, None], similarity], axis=1) / tau).mean() * N
    found = float(log_normalizer_of(tf.constant(own), tf.constant(similarity), N, tau))
    assert found == pytest.approx(np.log(wanted), rel=1e-9)


def model_of(**arguments):
    arguments = {"ir_loss": "nce", "noise_rows": 400, "weight_decay": 0.0, "seed": 3} | arguments
    model = InstanceRecognition(tiny_embedder(0), 40, tau=0.1, **arguments)
    model.compile(keras.optimizers.SGD(0.05))
    return model


def true_log_normalizer(model, images):
    """log Z of the embeddings of `images` over the whole bank, float64."""
    v, rows = model(images).numpy().astype(np.float64), model.bank.rows.numpy().astype(np.float64)
    return np.log(np.exp(v @ rows.T / 0.1).mean() * 40)


def test_z_is_estimated_from_the_first_batch_and_kept():
    model = model_of()
    batch = batch_with_duplicates()
    wanted = true_log_normalizer(model, batch["image"])
    step = tf.function(model.train_step)
    step(batch)
    first = float(model.normalizer.log_value.numpy())
    assert first == pytest.approx(wanted, abs=0.3)  # 400 random rows for each of 8 images stand for all 40
    for seed in range(1, 20):
        step(batch_with_duplicates(seed))
    assert float(model.normalizer.log_value.numpy()) == first


def test_z_can_follow_the_embeddings():
    kept, running = model_of(), model_of(noise_normalizer="running")
    for model in (kept, running):
        step = tf.function(model.train_step)
        for _ in range(60):  # one batch over and over: rows gather, and Z grows
            step(batch_with_duplicates())
    truth = true_log_normalizer(running, batch_with_duplicates()["image"])
    assert truth > float(kept.normalizer.log_value.numpy()) + 0.2, "the case is meant to move Z"
    assert abs(float(running.normalizer.log_value.numpy()) - truth) < abs(
        float(kept.normalizer.log_value.numpy()) - truth
    )
    # The first step's estimate, then 99 parts of the old Z to one of the new.
    fresh = Normalizer(running=True)
    assert float(fresh.update(tf.constant(5.0))) == 5.0
    assert float(fresh.update(tf.constant(7.0))) == pytest.approx(np.log(0.99 * np.exp(5) + 0.01 * np.exp(7)), rel=1e-6)


def test_the_noise_is_a_function_of_seed_and_step():
    def losses_after(steps, seed=3):
        model = model_of(seed=seed, noise_rows=5)
        model.optimizer.learning_rate = 0.0
        model.bank.momentum = 0.0
        step = tf.function(model.train_step)
        found = []
        for _ in range(steps):
            model.reset_metrics()
            found.append(float(step(batch_with_duplicates())["loss"]))
        return found

    first = losses_after(3)
    assert first == losses_after(3)
    assert len(set(first)) == 3  # other noise at every step
    assert first != losses_after(3, seed=4)


def test_what_a_resumed_run_needs_is_among_the_variables():
    paths = {"noise_normalizer/log_value", "noise_normalizer/known"}
    assert paths <= {variable.path for variable in model_of().variables}
    assert paths <= {variable.path for variable in model_of().picture_variables}  # Z is N times something
    assert not paths & {variable.path for variable in model_of(ir_loss="softmax").variables}
