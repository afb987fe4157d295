"""Scaling: its stress against scikit-learn's own and float64 NumPy; which classes are drawn."""

import warnings

import numpy as np
import pytest
from sklearn.manifold import MDS

from la_tf import mds
from tests.la_tf.reference import unit


def classes(count, images, spread, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.repeat(unit(rng.standard_normal((count, 16))), images, axis=0)
    return unit(centres + spread * rng.standard_normal(centres.shape)).astype(np.float32)


def pair_distances(rows):
    rows = rows.astype(np.float64)
    return np.linalg.norm(rows[:, None] - rows[None], axis=-1)


def own_stress(rows, **options):
    """That of scikit-learn's MDS as it comes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of defaults to come
        return MDS(n_components=2, random_state=0, normalized_stress=False, **options).fit(rows.astype(float)).stress_


@pytest.mark.parametrize(("spread", "images"), [(0.05, 12), (0.3, 12), (2.0, 8)])
def test_stress_is_not_above_scikit_learns_own_on_the_same_rows(spread, images):
    rows = classes(6, images, spread)
    found = mds.scale(rows)
    for options in ({}, {"n_init": 4}):
        assert found.stress <= own_stress(rows, **options) * (1 + 1e-6)


def test_stress_is_the_sum_over_pairs_of_the_squared_difference():
    rows = classes(3, 8, 0.3)
    found = mds.scale(rows)
    wanted, drawn = pair_distances(rows), pair_distances(found.points)
    pairs = np.triu_indices(len(rows), 1)
    stress = np.square(drawn - wanted)[pairs].sum()
    assert found.stress == pytest.approx(stress, rel=1e-6)
    assert found.stress_1 == pytest.approx(np.sqrt(stress / np.square(drawn[pairs]).sum()), rel=1e-6)


def test_what_lies_in_a_plane_is_drawn_as_it_is_along_its_widest_axis():
    flat = np.random.default_rng(1).standard_normal((20, 2)) * [3, 1]
    rows = flat @ np.linalg.qr(np.random.default_rng(2).standard_normal((7, 7)))[0][:2]
    found = mds.scale(rows)
    np.testing.assert_allclose(pair_distances(found.points), pair_distances(flat), atol=1e-2)
    assert found.stress_1 < 1e-2 and np.ptp(found.points[:, 0]) > np.ptp(found.points[:, 1])


def test_scaling_repeats_and_rows_all_alike_are_one_point():
    rows = classes(2, 10, 0.3)
    np.testing.assert_array_equal(mds.scale(rows).points, mds.scale(rows).points)
    alike = mds.scale(np.tile(rows[:1], (5, 1)))
    assert np.isfinite(alike.points).all() and np.abs(alike.points).max() < 1e-3


def test_the_extreme_classes_are_in_one_list_each():
    accuracies = np.array([0.5, 0.9, np.nan, 0.1, 0.9, 0.3])
    best, worst = mds.extremes(accuracies, most=6)  # five were judged: two of each
    assert best.tolist() == [1, 4] and worst.tolist() == [3, 5]
    best, worst = mds.extremes(np.arange(100) / 100)
    assert best.tolist() == [99, 98, 97, 96, 95, 94] and worst.tolist() == [0, 1, 2, 3, 4, 5]
    assert [len(each) for each in mds.extremes(np.array([0.5, np.nan]))] == [0, 0]


def test_a_sample_of_each_class_is_drawn_or_all_there_are():
    labels = np.repeat([0, 1, -1, 2], [50, 3, 9, 40])
    of_two, of_one = mds.sample(labels, [2, 1], most=10, seed=0)
    assert len(set(of_two)) == 10 and (labels[of_two] == 2).all()
    assert of_one.tolist() == [50, 51, 52]
    assert mds.sample(labels, [2], 10, seed=1)[0].tolist() != of_two.tolist()
