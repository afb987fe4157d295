"""The two controls: labels instead of neighbours, and no training at all."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.errors import UserError
from la_tf.embedding import embedder_from
from la_tf.random_initialization import RandomInitialization
from la_tf.supervised import Supervised
from tests.la_tf import reference

N, D, CLASSES = 12, 5, 3


class OneLayer:
    """As much of a backbone as an embedder needs."""

    def __init__(self):
        keras.utils.set_random_seed(0)
        image = keras.Input((None, None, 3))
        self.model = keras.Model(image, {"conv5": image * 1.0})
        self.last = "conv5"


def embedder():
    backbone = OneLayer()
    features = keras.layers.GlobalAveragePooling2D()(backbone.model.outputs[0])
    return embedder_from(backbone, keras.layers.Dense(D, name="embedding")(features))


def batch():
    """Eight pictures: one invalid, one without a label, one (row 6) of the validation slice."""
    images = np.random.default_rng(0).random((8, 4, 4, 3), np.float32)
    return {
        "image": tf.constant(images),
        "index": tf.range(8, dtype=tf.int64),
        "label": tf.constant([0, 1, 2, -1, 0, 1, 2, 2], tf.int64),
        "valid": tf.constant([True, True, False, True, True, True, True, True]),
    }


def test_a_step_is_cross_entropy_of_the_labelled_pictures_and_decays_both_kernels():
    model = Supervised(embedder(), N, classes=CLASSES, validation_rows=[6, 9], weight_decay=0.01)
    model.compile(keras.optimizers.SGD(0.5))
    given = batch()
    learned_from = [0, 1, 4, 5, 7]
    kernel, bias, class_kernel, class_bias = (weight.numpy().astype(np.float64) for weight in model.trainable_weights)
    pixels = given["image"].numpy().astype(np.float64).mean(axis=(1, 2))
    raw = pixels @ kernel + bias
    logits = (raw @ class_kernel + class_bias)[learned_from]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = given["label"].numpy()[learned_from]
    by_logits = (p - np.eye(CLASSES)[labels]) / len(learned_from)

    logs = tf.function(model.train_step)(given)

    assert float(logs["loss"]) == pytest.approx(-np.log(p[np.arange(5), labels]).mean(), rel=1e-5)
    assert float(logs["accuracy"]) == pytest.approx(np.mean(p.argmax(axis=1) == labels))
    wanted = class_kernel - 0.5 * (raw[learned_from].T @ by_logits + 0.01 * class_kernel)
    np.testing.assert_allclose(model.classifier.kernel.numpy(), wanted, atol=1e-5)
    wanted = kernel - 0.5 * (pixels[learned_from].T @ (by_logits @ class_kernel.T) + 0.01 * kernel)
    np.testing.assert_allclose(model.embedder.get_layer("embedding").kernel.numpy(), wanted, atol=1e-5)
    # The bank takes all valid pictures, labelled or not.
    assert np.flatnonzero(model.bank.written.numpy()).tolist() == [0, 1, 3, 4, 5, 6, 7]


def test_labels_of_the_validation_slice_change_nothing():
    models = [Supervised(embedder(), N, classes=CLASSES, validation_rows=[6], seed=1) for _ in range(2)]
    models[1].set_weights(models[0].get_weights())
    for model, label in zip(models, (2, 0), strict=True):
        model.compile(keras.optimizers.SGD(0.5))
        labels = batch()["label"].numpy()
        labels[6] = label
        model.train_step({**batch(), "label": tf.constant(labels)})
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)


def test_labels_are_needed():
    with pytest.raises(UserError, match=r"^--method=supervised: needs labels"):
        Supervised(embedder(), N, classes=0)


def test_the_untrained_network_stays_as_it_is_and_its_bank_holds_every_valid_picture():
    images = np.random.default_rng(1).random((N, 4, 4, 3), np.float32)
    valid = np.arange(N) != 5

    def center_crops():
        for part in (slice(0, 8), slice(8, N)):
            parts = {"image": images[part], "index": np.arange(N)[part], "label": np.zeros(N)[part]}
            yield {name: tf.constant(value) for name, value in (parts | {"valid": valid[part]}).items()}

    model = RandomInitialization(embedder(), N, center_crops=center_crops)
    model.compile(keras.optimizers.SGD(0.5))
    before = [weight.numpy() for weight in model.embedder.weights]
    assert model.begin_epoch(0) == {"phase": "random"}
    tf.function(model.train_step)(batch())
    assert int(model.optimizer.iterations) == 1
    for weight, was in zip(model.embedder.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), was)
    wanted = reference.unit(images.astype(np.float64).mean(axis=(1, 2)) @ before[0] + before[1])
    np.testing.assert_allclose(model.bank.rows.numpy()[valid], wanted[valid], atol=1e-6)
    assert (model.bank.written.numpy() == valid).all()
