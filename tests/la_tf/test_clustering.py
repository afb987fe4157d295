"""The clusterings behind C_i, and the numbers that tell good ones from bad ones, against hand and float64 NumPy."""

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from la_tf import cluster_health, clustering
from tests.la_tf.reference import unit


def blobs(centres, sizes, spread, dimension=8, seed=0):
    """Unit rows around orthogonal centres, and which centre each belongs to."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(centres), sizes)
    rows = np.eye(centres, dimension)[truth] + spread * rng.standard_normal((len(truth), dimension))
    return unit(rows).astype(np.float32), truth


def partition(labels):
    """The groups that labels describe, whatever they are called."""
    return {tuple(np.flatnonzero(labels == label)) for label in np.unique(labels)}


def test_two_groups_far_apart_are_found_by_every_clustering():
    rows, truth = blobs(2, [70, 30], 0.05)
    labels = clustering.cluster(rows, 2, 3, seed=0)
    assert labels.shape == (100, 3) and labels.dtype == np.int32
    for column in labels.T:
        assert partition(column) == partition(truth)


def test_clusterings_repeat_by_seed_and_differ_within_a_call():
    rows = unit(np.random.default_rng(0).standard_normal((300, 8))).astype(np.float32)
    labels = clustering.cluster(rows, 20, 3, seed=5)
    np.testing.assert_array_equal(labels, clustering.cluster(rows, 20, 3, seed=5))
    other = clustering.cluster(rows, 20, 3, seed=6)
    for a, b in [(labels[:, 0], labels[:, 1]), (labels[:, 1], labels[:, 2]), (labels[:, 0], other[:, 0])]:
        assert partition(a) != partition(b)
    assert labels.min() >= 0 and labels.max() < 20


def test_all_rows_take_part_not_a_sample_of_256_a_centroid():
    # At its fixed point k-means puts every row to the nearest mean of the rows themselves; of a sample's means that
    # does not hold for the rows on the border.
    rows, _ = blobs(3, 2000, 0.45, dimension=3)
    (labels,) = clustering.cluster(rows, 3, 1, seed=0).T
    centroids = np.stack([rows[labels == label].astype(np.float64).mean(axis=0) for label in range(3)])
    distances = np.square(rows[:, None] - centroids[None]).sum(axis=2)
    assert (distances.argmin(axis=1) != labels).mean() < 1e-3


def test_as_many_clusters_as_rows_puts_each_by_itself():
    rows = np.eye(6, dtype=np.float32)
    assert len(np.unique(clustering.cluster(rows, 6, 1, seed=0))) == 6


@pytest.mark.parametrize("seed", [2**31 // 1000, 2**31 - 1])
def test_the_largest_seeds_fit_faiss(seed):
    rows, truth = blobs(2, [7, 5], 0.05)
    assert partition(clustering.cluster(rows, 2, 1, seed)[:, 0]) == partition(truth)


def renewed_by_hand(rows, previous, clusters, iterations):
    """Labels of over-relaxed k-means in float64 from the means of `previous`, and how clear each of them was."""
    rows = rows.astype(np.float64)

    def means(labels):
        return np.stack([rows[labels == label].mean(axis=0) for label in range(clusters)])

    def distances():
        return np.square(rows[:, None] - centroids[None]).sum(axis=2)

    centroids, margins = means(previous), []
    for iteration in range(iterations + 1):
        nearest = np.sort(distances(), axis=1)
        margins.append((nearest[:, 1] - nearest[:, 0]).min())
        labels = distances().argmin(axis=1)
        if iteration < iterations:
            further = 1 if iteration == iterations - 1 else 2
            centroids = centroids + further * (means(labels) - centroids)
    return labels, min(margins)


def test_each_clustering_goes_on_from_its_own_labels_by_k_means_on_the_present_rows(monkeypatch):
    monkeypatch.setattr(clustering, "RENEWED", 0)
    rng = np.random.default_rng(3)
    rows = unit(rng.standard_normal((300, 8)))
    previous = clustering.cluster(rows, 12, 2, seed=0)
    rows = unit(rows + 0.1 * rng.standard_normal(rows.shape)).astype(np.float32)
    previous[[5, 77], :] = clustering.UNASSIGNED  # rows that are new take part from now on
    for iterations in (1, 2, 4):
        labels = clustering.cluster(rows, 12, 2, seed=0, previous=previous, iterations=iterations)
        by_hand = [renewed_by_hand(rows, column, 12, iterations) for column in previous.T]
        assert min(margin for _, margin in by_hand) > 1e-6, "a tie that float32 may settle otherwise"
        for column, (wanted, _) in zip(labels.T, by_hand, strict=True):
            np.testing.assert_array_equal(column, wanted)
        assert (by_hand[0][0] != by_hand[1][0]).mean() > 0.5


def test_a_clustering_that_is_gone_on_from_is_nearer_to_its_last_one_and_as_good():
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((1000, 6))).astype(np.float32)
    previous = clustering.cluster(rows, 40, 3, seed=0)
    rows = unit(rows + 0.05 * rng.standard_normal(rows.shape)).astype(np.float32)
    cold = clustering.cluster(rows, 40, 3, seed=1)
    warm = clustering.cluster(rows, 40, 3, seed=0, previous=previous, iterations=5, moment=1)
    assert cluster_health.nmi_previous(warm, previous) > cluster_health.nmi_previous(cold, previous) + 0.05
    assert cluster_health.objective(rows, warm) < 1.02 * cluster_health.objective(rows, cold)
    np.testing.assert_array_equal(
        warm,
        clustering.cluster(rows, 40, 3, seed=0, previous=previous, iterations=5, moment=1),
        err_msg="same seed, other labels",
    )
    assert (warm != clustering.cluster(rows, 40, 3, seed=0, previous=previous, iterations=5, moment=2)).any(), (
        "what begins anew"
    )


def test_clusters_that_were_lost_begin_anew():
    rows, truth = blobs(20, 10, 0.02, dimension=20)
    previous = np.where(truth == 7, 3, truth)[:, None]  # two groups in one, none is called 7
    labels = clustering.cluster(rows, 20, 1, seed=0, previous=previous, iterations=5)
    assert len(np.unique(labels)) == 20
    far = np.where(truth % 2, truth, 0)[:, None]  # half of them are lost: that is another clustering
    np.testing.assert_array_equal(
        clustering.cluster(rows, 20, 1, seed=0, previous=far, iterations=5), clustering.cluster(rows, 20, 1, seed=0)
    )


@pytest.mark.parametrize("choice", ["none", "more clusters", "no iterations"])
def test_what_cannot_be_gone_on_from_begins_from_nothing(choice):
    rows = unit(np.random.default_rng(0).standard_normal((200, 8))).astype(np.float32)
    cold = clustering.cluster(rows, 10, 2, seed=0)
    previous = {"none": np.full((200, 2), -1), "more clusters": clustering.cluster(rows, 11, 2, seed=1)}
    previous = previous.get(choice, clustering.cluster(rows, 10, 2, seed=1))
    iterations = 0 if choice == "no iterations" else 3
    labels = clustering.cluster(rows, 10, 2, seed=0, previous=previous, iterations=iterations)
    np.testing.assert_array_equal(labels, cold)


def off_their_means(rows, labels):
    """The share of rows that are nearer to the mean of another cluster."""
    centroids = np.stack([rows[labels == label].astype(np.float64).mean(axis=0) for label in range(labels.max() + 1)])
    return (np.square(rows[:, None] - centroids[None]).sum(axis=2).argmin(axis=1) != labels).mean()


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_sample_is_learned_from_and_all_rows_are_assigned(goes_on):
    rows, truth = blobs(3, 2000, 0.45, dimension=3)
    previous = truth[:, None] if goes_on else None
    (of_all,) = clustering.cluster(rows, 3, 1, seed=0, previous=previous, iterations=20).T
    (of_some,) = clustering.cluster(rows, 3, 1, seed=0, previous=previous, iterations=5, sample=10).T
    assert of_some.min() == 0 and len(of_some) == 6000
    assert off_their_means(rows, of_all) < 1e-3
    assert off_their_means(rows, of_some) > 1e-2


def test_the_objective_is_the_mean_squared_distance_to_the_mean_of_the_cluster():
    rows = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    # First: {e1, -e1} with mean 0, distances 1, 1; {e2, e1} with mean (1/2, 1/2), 1/2 each. Second: one row left out,
    # {e1, e1} with distances 0, -e1 alone.
    labels = np.array([[0, 3], [0, 1], [2, -1], [2, 3]])
    assert cluster_health.objective(rows, labels) == pytest.approx((3 / 4 + 0) / 2)
    assert cluster_health.objective(rows, np.full((4, 1), -1)) == 0


def test_sizes_count_the_clusters_that_hold_something():
    rows = np.eye(6)
    labels = np.array([[0, 0], [0, 0], [0, 0], [0, 5], [3, 5], [3, 9]])  # sizes 4, 2 and 3, 2, 1
    found = cluster_health.health(rows, labels)
    assert (found["cluster_min"], found["cluster_median"], found["cluster_max"]) == (1, 2.0, 4)


def test_health_holds_only_what_can_be_known():
    rows, one, two = np.eye(4), np.array([[0], [0], [1], [1]]), np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    always = {"cluster_objective", "close_skewness", "cluster_min", "cluster_median", "cluster_max"}
    unknown = np.full(4, -1)
    assert set(cluster_health.health(rows, one)) == always
    assert set(cluster_health.health(rows, one, previous=unknown[:, None], truth=unknown)) == always
    every = {*always, "nmi_between", "nmi_previous", "purity"}
    assert set(cluster_health.health(rows, two, previous=two, truth=np.array([0, -1, 1, -1]))) == every


def test_nmi_between_is_the_mean_over_neighbouring_clusterings():
    a, b, c = [0, 0, 1, 1], [7, 7, 4, 4], [0, 1, 0, 1]  # b renames a; c says nothing of b
    assert cluster_health.nmi_between(np.array([a, b]).T) == pytest.approx(1.0)
    assert cluster_health.nmi_between(np.array([a, c]).T) == pytest.approx(0.0, abs=1e-9)
    assert cluster_health.nmi_between(np.array([a, b, c]).T) == pytest.approx(0.5)
    d = [0, 0, 0, 1]
    # H(a) = ln 2, H(d) = -3/4 ln 3/4 - 1/4 ln 1/4, H(d | a) = 1/2 ln 2
    entropy = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    wanted = 2 * (entropy - 0.5 * np.log(2)) / (np.log(2) + entropy)
    assert cluster_health.nmi_between(np.array([a, d]).T) == pytest.approx(wanted)


def test_nmi_previous_leaves_out_the_rows_that_had_no_cluster():
    labels = np.array([[0, 1], [0, 0], [1, 1], [1, 0], [1, 1]])
    previous = np.array([[3, 2], [3, 5], [0, 2], [0, 5], [-1, -1]])  # the same four pairs under other names
    assert cluster_health.nmi_previous(labels, previous) == pytest.approx(1.0)
    swapped = previous[:, ::-1]  # each clustering against the other one's: unrelated
    assert cluster_health.nmi_previous(labels, swapped) == pytest.approx(0.0, abs=1e-9)


def test_purity_counts_the_commonest_class_among_the_labelled_rows():
    truth = np.array([0, 0, 1, 1, 1, -1])
    labels = np.array([[0, 0], [0, 1], [0, 2], [1, 3], [1, 4], [1, 0]])
    # First clustering: {0, 0, 1} and {1, 1}, 4 of 5; second: every labelled row alone, 5 of 5.
    assert cluster_health.purity(labels, truth) == pytest.approx((4 / 5 + 1) / 2)


def test_skewness_is_the_distance_from_the_centre_of_the_union_of_clusters():
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((50, 4)))
    labels = rng.integers(6, size=(50, 3))
    distances = []
    for i in range(50):
        close = [j for j in range(50) if (labels[j] == labels[i]).any()]
        distances.append(np.linalg.norm(rows[close].mean(axis=0) - rows[i]))
    assert cluster_health.close_skewness(rows, labels) == pytest.approx(np.mean(distances))


def test_skewness_of_opposite_rows_is_one_and_of_rows_alone_nothing():
    rows = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert cluster_health.close_skewness(rows, np.array([[4], [4]])) == pytest.approx(1.0)  # centre 0, both at 1
    assert cluster_health.close_skewness(rows, np.array([[0], [1]])) == pytest.approx(0.0)


def test_purity_and_nmi_of_found_clusters_see_the_groups():
    rows, truth = blobs(4, 25, 0.05)
    labels = clustering.cluster(rows, 4, 2, seed=1)
    wanted = np.mean([normalized_mutual_info_score(truth, column) for column in labels.T])
    assert cluster_health.nmi_previous(labels, np.stack([truth, truth], axis=1)) == pytest.approx(wanted)
    assert cluster_health.health(rows, labels, truth=truth)["purity"] >= 0.75  # at worst k-means merges two groups
