"""Rows for the benchmarks."""

import numpy as np


def unit(rows):
    """Returns `rows` at unit length."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
