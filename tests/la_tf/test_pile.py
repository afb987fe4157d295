"""What stands out in a pile: made-up embeddings in which it is known."""

import numpy as np
import pytest

from la_tf import pile, vector_index
from la_tf.memory_bank import random_unit_rows


def by_hand(rows):
    similarities = rows.astype(np.float64) @ rows.T.astype(np.float64)
    np.fill_diagonal(similarities, -np.inf)
    nearest = np.argsort(-similarities, axis=1, kind="stable")
    return np.take_along_axis(similarities, nearest, axis=1), nearest


@pytest.mark.parametrize("size", [2, 20, 31, 300])
def test_the_nearest_others_of_all(size):
    rows = random_unit_rows(size, 6, 0)
    similarities, nearest = pile.others_of_all(rows)
    wanted = by_hand(rows)
    count = min(30, size - 1)
    assert nearest.shape == (size, count)
    np.testing.assert_array_equal(nearest, wanted[1][:, :count])
    np.testing.assert_allclose(similarities, wanted[0][:, :count], atol=1e-6)


def test_of_many_pictures_nearly_all_of_the_nearest_others_are_found(monkeypatch):
    monkeypatch.setattr(vector_index, "FLAT_UP_TO", 1000)
    rng = np.random.default_rng(0)
    rows = random_unit_rows(40, 16, 0)[rng.integers(0, 40, 3000)] + 0.05 * rng.standard_normal((3000, 16))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    rows[7:60] = rows[6]  # more copies than are looked for
    similarities, nearest = pile.others_of_all(rows)
    assert (nearest != np.arange(3000)[:, None]).all()
    wanted, _ = by_hand(rows)
    found = (similarities >= wanted[:, [29]] - 1e-6).mean()
    assert found > 0.93


def test_what_stands_out_is_found():
    rng = np.random.default_rng(1)
    centres = np.eye(8)[:3]
    sizes = (30, 20, 50)
    rows = np.concatenate([c + 0.05 * rng.standard_normal((n, 8)) for c, n in zip(centres, sizes, strict=True)])
    rows[17] = np.eye(8)[7]  # far from all
    rows[95] = rows[90]  # a near-duplicate whose picture is mirrored
    rows[40] = rows[41]  # as near, but its picture is another
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    small = rng.integers(0, 256, (100, 16, 16, 3)).astype(np.uint8)
    small[95] = small[90, :, ::-1]
    small[3] = small[97]  # looks the same, but the network sees something else
    truth = np.repeat([4, 5, 6], sizes)
    small[[60, 61]], rows[61] = 0, rows[60]
    seen = ~np.isin(np.arange(100), [60, 61])  # near, but they cannot be seen
    found = pile.look_through(rows, small, seen, truth, least=0.85, outliers=5, clusters=3)
    assert [group.tolist() for group in found.duplicates] == [[90, 95]]
    assert found.likeness[[90, 95]] == pytest.approx([1, 1], abs=1e-5) and np.count_nonzero(found.likeness) == 2
    assert len(found.outliers) == 5 and found.outliers[0] == 17
    np.testing.assert_allclose(found.similarities, by_hand(rows)[0][:, 9], atol=1e-6)
    sizes_found = [len(each.members) for each in found.clusters]
    assert sizes_found == sorted(sizes_found, reverse=True) and sum(sizes_found) == 100
    assert [each.commonest for each in found.clusters] == [6, 4, 5]
    for number, each in enumerate(found.clusters):
        assert (found.labels[each.members] == number).all()


@pytest.mark.parametrize(("size", "wanted"), [(2, 1), (50, 5), (1800, 30), (20_000, 100), (10**6, 100)])
def test_how_many_clusters(size, wanted):
    assert pile.default_clusters(size) == wanted
