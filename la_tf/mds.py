"""Multi-dimensional scaling of the classes that are told best and worst (section 5.1, Figure 4)."""

from typing import NamedTuple

import numpy as np
from sklearn.manifold import smacof
from sklearn.metrics import euclidean_distances

STARTS = 4  # random ones, beside classical scaling


class Scaling(NamedTuple):
    """Points of the plane `[n, 2]`, the raw `stress` (sum over pairs of (d - distance)²) and Kruskal's `stress_1`."""

    points: np.ndarray
    stress: float
    stress_1: float


def extremes(accuracies, most=6):
    """Returns the classes with the highest and the lowest of `accuracies` `[classes]`, best and worst first.

    NaN stands for a class that was not judged. Each class is in one list at most, and both are as long: `most`, or
    half of the judged classes if that is less. Ties go to the lower class.
    """
    judged = np.flatnonzero(~np.isnan(accuracies))
    ordered = judged[np.argsort(-accuracies[judged], kind="stable")]
    count = min(most, len(ordered) // 2)
    return ordered[:count], ordered[len(ordered) - count :][::-1]


def sample(labels, classes, most, seed):
    """Returns for each of `classes` at most `most` random rows of those that `labels` `[n]` say are of it."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == each) for each in classes]
    return [np.sort(rng.permutation(rows)[:most]) for rows in members]


def scale(rows, seed=0):
    """Returns the Scaling to two dimensions of `rows` `[n, D]`, n >= 2, by the Euclidean distance.

    Metric MDS by scikit-learn's SMACOF from classical scaling and from random points; the least stress counts. The
    points are turned so that they vary most along the first axis, and then so that the farthest have positive sign.
    """
    distances = euclidean_distances(np.asarray(rows, np.float64))
    distances = (distances + distances.T) / 2
    if not distances.any():  # SMACOF divides by them
        return Scaling(np.zeros((len(rows), 2)), 0.0, 0.0)
    options = {"n_components": 2, "random_state": seed, "normalized_stress": False}
    starts = [{"init": _classical(distances), "n_init": 1}, {"n_init": STARTS}]
    points, stress = min((smacof(distances, **options, **start) for start in starts), key=lambda found: found[1])
    points = points - points.mean(axis=0)
    points = points @ np.linalg.svd(points, full_matrices=False)[2].T
    farthest = np.abs(points).argmax(axis=0)
    points = points * np.where(points[farthest, [0, 1]] < 0, -1, 1)
    total = np.square(euclidean_distances(points)).sum() / 2
    return Scaling(points, float(stress), float(np.sqrt(stress / total)))


def _classical(distances):
    """Returns the points `[n, 2]` of classical scaling: the leading eigenvectors of the double-centred squares."""
    squares = np.square(distances)
    inner = -(squares - squares.mean(axis=0) - squares.mean(axis=1)[:, None] + squares.mean()) / 2
    values, vectors = np.linalg.eigh(inner)
    return vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 0))
