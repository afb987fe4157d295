"""Fine-tuning: a step against float64 NumPy, and how long it goes on."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from la_tf.fine_tuning import Classifier, training_steps

RATE, MOMENTUM, DECAY = 0.1, 0.9, 0.01


def tiny_network(channels=4):
    """Pictures [B, 2, 2, 3] -> [B, 2, 2, channels]: a 1x1 convolution without anything else."""
    image = keras.Input((2, 2, 3))
    return keras.Model(image, keras.layers.Conv2D(channels, 1, use_bias=False)(image))


def batch_of(rng, valid, labels):
    count = len(labels)
    return {
        "image": tf.constant(rng.random((count, 2, 2, 3), dtype=np.float32)),
        "index": tf.range(count, dtype=tf.int64),
        "label": tf.constant(labels, tf.int64),
        "valid": tf.constant(valid),
    }


def by_hand(images, labels, counted, kernel, head, bias):
    """Loss without decay, and gradients of the objective by kernel [3, C], head [C, classes] and bias, in float64."""
    pixels = images.astype(np.float64).mean(axis=(1, 2))  # a linear network: pooling first is the same
    features = pixels @ kernel
    logits = features @ head + bias
    soft = np.exp(logits - logits.max(axis=1, keepdims=True))
    soft /= soft.sum(axis=1, keepdims=True)
    chosen = np.maximum(labels, 0)
    losses = -np.log(soft[np.arange(len(labels)), chosen])
    error = (soft - np.eye(soft.shape[1])[chosen]) * counted[:, None] / counted.sum()
    gradients = pixels.T @ (error @ head.T) + DECAY * kernel, features.T @ error + DECAY * head, error.sum(axis=0)
    return losses[counted].mean(), gradients


def test_two_steps_are_those_of_float64_and_pictures_without_label_or_pixels_do_not_count():
    rng = np.random.default_rng(0)
    model = Classifier(tiny_network(), 3, weight_decay=DECAY)
    model.compile(keras.optimizers.SGD(RATE, momentum=MOMENTUM))
    batch = batch_of(rng, [True, True, False, True, True], [0, 2, 1, -1, 1])
    counted = np.array([True, True, False, False, True])
    weights = [weight.numpy().astype(np.float64).reshape(-1, weight.shape[-1]) for weight in model.trainable_weights]
    weights[2] = weights[2][0]
    velocity = [np.zeros_like(weight) for weight in weights]
    for _ in range(2):
        loss, gradients = by_hand(batch["image"].numpy(), batch["label"].numpy(), counted, *weights)
        velocity = [MOMENTUM * v - RATE * g for v, g in zip(velocity, gradients, strict=True)]
        weights = [w + v for w, v in zip(weights, velocity, strict=True)]
        model.reset_metrics()
        assert float(model.train_step(batch)["loss"]) == pytest.approx(loss, rel=1e-5)
    for found, wanted in zip(model.trainable_weights, weights, strict=True):
        np.testing.assert_allclose(found.numpy().reshape(wanted.shape), wanted, atol=1e-6)


def test_features_that_are_no_map_are_taken_as_they_are():
    image = keras.Input((2, 2, 3))
    network = keras.Model(image, keras.layers.Dense(5)(keras.layers.Flatten()(image)))
    assert Classifier(network, 3)(tf.zeros([4, 2, 2, 3])).shape == (4, 3)


@pytest.mark.parametrize(
    ("pictures", "batch", "epochs", "least", "wanted"),
    [
        (1000, 128, 70, 0, (490, [210, 420])),  # 30 and 60 of 70 epochs
        (14, 14, 70, 0, (70, [30, 60])),
        (14, 14, 70, 500, (500, [214, 429])),
        (1000, 128, 70, 500, (500, [214, 429])),
    ],
)
def test_how_long_and_where_the_rate_drops(pictures, batch, epochs, least, wanted):
    assert training_steps(pictures, batch, epochs, least) == wanted
