"""If these fail, two runs with one seed differ, or pictures are changed in step with each other."""

import numpy as np
import pytest
import tensorflow as tf

from data import draws


def test_the_hash_is_splitmix64():
    # The published first outputs of splitmix64 for seed 1234567.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    got = draws._child(np.uint64([1234567]), np.arange(4, dtype=np.uint64), np)
    assert got.tolist() == expected


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 + 5])
def test_tensorflow_and_numpy_agree_bit_for_bit(seed):
    index = np.array([0, 1, 2, 1_281_166, 2**40], np.int64)
    in_graph = tf.function(lambda epoch, index: draws.uniforms(seed, epoch, index, 1, 33))
    got = in_graph(tf.constant(7, tf.int64), tf.constant(index)).numpy()
    assert got.dtype == np.float32
    assert np.array_equal(got, draws.uniforms_numpy(seed, 7, index, 1, 33))
    order = tf.function(lambda epoch: draws.epoch_order(seed, epoch, 1000))(tf.constant(3, tf.int64)).numpy()
    assert np.array_equal(order, draws.epoch_order_numpy(seed, 3, 1000))


def test_numbers_belong_to_the_picture_and_not_to_its_place():
    many = draws.uniforms_numpy(5, 2, np.arange(100), 0, 20)
    few = draws.uniforms_numpy(5, 2, np.array([42, 7]), 0, 8)
    assert np.array_equal(few, many[[42, 7], :8])


def test_numbers_are_uniform():
    x = draws.uniforms_numpy(0, 0, np.arange(20_000), 0, 10).astype(np.float64)
    assert x.min() >= 0 and x.max() < 1
    n = x.size
    assert abs(x.mean() - 1 / 2) < 5 * np.sqrt(1 / 12 / n)
    assert abs(x.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / n)
    counts = np.histogram(x, bins=100, range=(0, 1))[0]
    chi2 = ((counts - n / 100) ** 2 / (n / 100)).sum()
    assert abs(chi2 - 99) < 5 * np.sqrt(2 * 99)


def test_neighbouring_counters_are_uncorrelated():
    index = np.arange(20_000)
    base = draws.uniforms_numpy(3, 4, index, 0, 2)
    others = {
        "index": draws.uniforms_numpy(3, 4, index + 1, 0, 1)[:, 0],
        "epoch": draws.uniforms_numpy(3, 5, index, 0, 1)[:, 0],
        "view": draws.uniforms_numpy(3, 4, index, 1, 1)[:, 0],
        "seed": draws.uniforms_numpy(4, 4, index, 0, 1)[:, 0],
        "draw": base[:, 1],
    }
    for name, other in others.items():
        assert abs(np.corrcoef(base[:, 0], other)[0, 1]) < 5 / np.sqrt(len(index)), name


def test_epochs_are_different_permutations():
    orders = [draws.epoch_order_numpy(0, epoch, 500) for epoch in range(3)]
    for order in orders:
        assert np.array_equal(np.sort(order), np.arange(500))
    assert (orders[0] == orders[1]).mean() < 0.02 and (orders[1] == orders[2]).mean() < 0.02
    assert abs(np.corrcoef(orders[0], orders[1])[0, 1]) < 5 / np.sqrt(500)
