"""Clusters described and chosen, by hand."""

import numpy as np
import pytest

from la_tf.cluster_portraits import choose, portraits

ANGLES = np.radians([0, 10, 20, 90, 92, 94, 180, 240, 300, 301, 45])
ROWS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
LABELS = np.array([0, 0, 0, 3, 3, 3, 5, 5, 5, 5, -1])  # the last: in no cluster
TRUTH = np.array([1, 1, 0, 2, 2, -1, 0, 1, 2, 2, 0])


def test_a_portrait_has_members_from_the_centre_outwards_spread_and_mixture():
    first, second, third = portraits(ROWS, LABELS, TRUTH)
    assert [each.label for each in (first, second, third)] == [0, 3, 5]
    assert first.members[0] == 1 and set(first.members) == {0, 1, 2}
    length = (1 + 2 * np.cos(np.radians(10))) / 3  # of the mean: two rows lie 10 degrees off it
    assert first.spread == pytest.approx(1 - length**2)
    assert first.purity == pytest.approx(2 / 3) and first.commonest == 1
    assert first.entropy == pytest.approx(np.log2(3) - 2 / 3)
    assert second.purity == 1 and second.entropy == 0 and second.commonest == 2  # the unlabelled one does not count
    assert third.entropy == pytest.approx(1.5)  # of 1/4, 1/4, 1/2


def test_the_largest_tightest_and_most_mixed_are_chosen():
    chosen = choose(portraits(ROWS, LABELS, TRUTH), 2)
    assert {name: [each.label for each in found] for name, found in chosen.items()} == {
        "largest": [5, 0],
        "tightest": [3, 0],
        "most mixed": [5, 0],
    }


def test_without_labels_the_widest_are_the_most_mixed():
    found = portraits(ROWS, LABELS, np.full(len(ROWS), -1))
    assert all(each.purity is each.entropy is each.commonest is None for each in found)
    assert [each.label for each in choose(found, 1)["most mixed"]] == [5]


def test_clusters_of_a_few_are_not_called_tight_or_mixed():
    rows, labels = np.tile(ROWS[:1], (12, 1)), np.repeat([0, 1, 2], [5, 6, 1])
    rows[:11] += np.linspace(-0.1, 0.1, 11)[:, None]
    chosen = choose(portraits(rows, labels, np.zeros(12, int)), 3)
    assert [each.label for each in chosen["largest"]] == [1, 0, 2]
    assert 2 not in [each.label for each in chosen["tightest"] + chosen["most mixed"]]
