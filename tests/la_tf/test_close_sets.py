"""Skewness and size of C_i by hand, and what the grid of H and m is made of."""

import numpy as np
import pytest

from la_tf import close_sets, cluster_health
from tests.la_tf.reference import close, unit

FOUR = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])  # corners on the unit circle


def test_skewness_and_size_by_hand():
    labels = np.array([[0, 0], [0, 1], [1, 0], [2, 2]])
    skewness, sizes = cluster_health.close_sets(FOUR, labels)
    # C_0 = {0, 1, 2}: centre (0, 1/3); C_1 = {0, 1}: (1/2, 1/2); C_2 = {0, 2}: the origin; C_3: itself alone.
    wanted = {3: np.sqrt(1 + 1 / 9), 2: None, 1: 0.0}
    assert sorted(sizes.tolist()) == [1, 2, 2, 3]
    assert skewness[sizes == 3] == pytest.approx(wanted[3]) and skewness[sizes == 1] == pytest.approx(wanted[1])
    assert sorted(skewness[sizes == 2]) == pytest.approx([np.sqrt(1 / 2), 1.0])


def test_the_grid_has_means_and_quartiles_over_the_first_h_clusterings():
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((60, 4))).astype(np.float32)
    labels = {m: rng.integers(m, size=(60, 10)) for m in (5, 20)}
    found = close_sets.measure(rows, labels, seed=0)
    assert [(each["clusterings"], each["clusters"]) for each in found] == [(h, m) for h in (1, 3, 10) for m in (5, 20)]
    for each in found:
        members = [sorted(close(i, labels[each["clusters"]][:, : each["clusterings"]])) for i in range(60)]
        skewness = [np.linalg.norm(rows[mine].mean(axis=0) - rows[i]) for i, mine in enumerate(members)]
        assert each["skewness"]["mean"] == pytest.approx(np.mean(skewness), rel=1e-5)
        assert each["size"]["mean"] == pytest.approx(np.mean([len(mine) for mine in members]))
        assert each["skewness"]["median"] == pytest.approx(np.median(skewness), rel=1e-5)


def test_the_values_of_m_lie_around_the_runs_own():
    assert close_sets.cluster_counts(100, 10_000) == [25, 50, 100, 200, 400]
    assert close_sets.cluster_counts(100, 300) == [25, 50, 100, 150]  # most clusters would hold one image
    assert close_sets.cluster_counts(4, 8) == [2, 4]


def test_more_clusterings_are_added_to_fewer_and_clusters_are_as_many_as_asked_for():
    rows = unit(np.random.default_rng(1).standard_normal((80, 6))).astype(np.float32)
    found = close_sets.cluster_anew(rows, [4, 16], seed=3)
    assert [labels.shape for labels in found.values()] == [(80, 10), (80, 10)]
    assert [len(np.unique(labels[:, 0])) for labels in found.values()] == [4, 16]
    sizes = [each["size"]["mean"] for each in close_sets.measure(rows, found, 3) if each["clusters"] == 4]
    assert sizes == sorted(sizes)  # a union of more is no smaller
    np.testing.assert_array_equal(close_sets.cluster_anew(rows, [4], seed=3)[4], found[4])


def test_the_shown_plane_has_its_image_at_the_origin_and_keeps_flat_distances():
    flat = unit(np.random.default_rng(2).standard_normal((30, 2)))
    rows = flat @ np.linalg.qr(np.random.default_rng(3).standard_normal((5, 5)))[0][:2]
    points = close_sets.plane(rows, 7)
    np.testing.assert_allclose(points[7], 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), np.linalg.norm(flat - flat[7], axis=1), atol=1e-9)


def test_the_typical_image_is_the_one_of_median_skewness():
    labels = np.array([[0, 0], [0, 1], [1, 0], [2, 2], [3, 3]])
    rows = np.concatenate([FOUR, FOUR[:1]])  # skewness 1.05, 0.71, 1, 0, 0
    assert close_sets.typical(rows, labels, seed=0) == 1
