"""`digits`: scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, the data set that is always there."""

import numpy as np

from data.sources import ArraySource, DataSet, Split

SIDE = 8  # px


def open_digits() -> DataSet:
    """Every fifth digit of scikit-learn's order (360) is test, the other 1,437 are train, in that order."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)  # [1797, 64] float64, whole numbers 0..16
    gray = np.round(values * 255 / 16).astype(np.uint8).reshape(-1, SIDE, SIDE, 1)
    pictures = np.repeat(gray, 3, axis=-1)
    is_test = np.arange(len(labels)) % 5 == 0

    def split(name, rows):
        source = ArraySource(np.ascontiguousarray(pictures[rows]), f"digits {name}")
        return Split("digits", name, "digits", labels[rows].astype(np.int64), source)

    return DataSet("digits", tuple("0123456789"), split("train", ~is_test), split("test", is_test))
