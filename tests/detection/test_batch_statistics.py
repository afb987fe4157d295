"""Precise statistics: what float64 NumPy finds over all batches together."""

import keras
import numpy as np

from detection.batch_statistics import measure
from models.layers import FusedBatchNormalization


class OneNorm(keras.Model):
    """Stands for a detector: its losses are one batch norm away from its input."""

    def __init__(self):
        super().__init__()
        self.norm = FusedBatchNormalization(momentum=0.9)
        self.frozen = FusedBatchNormalization(momentum=0.9, trainable=False)

    def losses(self, batch):
        """Passes a batch through the norms."""
        return self.norm(batch, training=True), self.frozen(batch, training=True)


def test_statistics_are_those_of_all_batches():
    rng = np.random.default_rng(0)
    batches = [
        rng.normal(mean, deviation, (4, 5, 6, 3)).astype(np.float32) for mean, deviation in ((0, 1), (2, 0.5), (-3, 2))
    ]
    model = OneNorm()
    measure(model, batches)
    values = np.concatenate(batches).astype(np.float64).reshape(-1, 3)
    np.testing.assert_allclose(model.norm.moving_mean, values.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.norm.moving_variance, values.var(0), rtol=1e-4)
    np.testing.assert_array_equal(model.frozen.moving_mean, np.zeros(3))
    assert model.norm.momentum == 0.9


def test_training_goes_on_with_its_own_momentum():
    model = OneNorm()
    ones = np.ones((2, 3, 3, 3), np.float32)
    measure(model, [ones])
    model.norm(2 * ones, training=True)
    np.testing.assert_allclose(model.norm.moving_mean, 0.9 * np.ones(3) + 0.1 * 2, rtol=1e-5)


def test_a_large_mean_leaves_the_variance_what_it_is():
    """Squares of 37.1 would drown it in float32: 200 batches without any spread have the variance 0."""
    model = OneNorm()
    measure(model, [np.full((2, 3, 3, 3), 37.1, np.float32)] * 200)
    np.testing.assert_allclose(model.norm.moving_mean, np.full(3, 37.1), rtol=1e-6)
    np.testing.assert_allclose(model.norm.moving_variance, np.zeros(3), atol=1e-6)
