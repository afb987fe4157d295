"""If these fail, the digits or their split are not those that every number on them was measured with."""

import numpy as np
from sklearn.datasets import load_digits

from data.sources import open_dataset


def test_every_fifth_digit_is_test():
    dataset = open_dataset("digits")
    pictures, labels = load_digits(return_X_y=True)
    assert (dataset.train.size, dataset.test.size, dataset.kind) == (1437, 360, "digits")
    assert dataset.class_names == tuple("0123456789")
    train = [i for i in range(1797) if i % 5]
    assert np.array_equal(dataset.train.labels, labels[train]) and dataset.train.labels.dtype == np.int64
    assert np.array_equal(dataset.test.labels, labels[::5])
    got = dataset.train.source.pictures
    assert got.shape == (1437, 8, 8, 3) and got.dtype == np.uint8
    assert np.abs(got[..., 1].reshape(-1, 64) - pictures[train] * 255 / 16).max() <= 0.5
    assert (got[..., :1] == got).all()
