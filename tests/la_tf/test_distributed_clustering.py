"""k-means and cluster health of rows that are spread over processes, against Faiss and against one process."""

import threading

import numpy as np
import pytest

from data.errors import UserError
from la_tf import cluster_health, clustering
from la_tf.processes import ALONE
from la_tf.spread_rows import SpreadRows, share
from tests.la_tf.reference import unit
from tests.la_tf.together import shares, together

CUTS = [(3000,), (0, 1), (1500, 2500), (6000,)]  # of 6000 rows: even, without any, uneven, all in the first


def mixture(size=6000, centres=20, dimension=16, seed=0):
    """Unit rows around some centres."""
    rng = np.random.default_rng(seed)
    middles = unit(rng.standard_normal((centres, dimension)))[rng.integers(centres, size=size)]
    return unit(middles + 0.1 * rng.standard_normal(middles.shape)).astype(np.float32)


def clustered(cut, rows, *args, previous=None, **options):
    """The labels `[N, H]` that processes find for `rows` cut into such parts."""
    parts = shares(rows, *cut)
    last = [None] * len(parts) if previous is None else shares(previous, *cut)

    def work(process):
        own = {"previous": last[process.index], "processes": process}
        return clustering.cluster(parts[process.index], *args, **own, **options)

    found = together(len(parts), work)
    assert [len(labels) for labels in found] == [len(part) for part in parts]
    return np.concatenate(found)


@pytest.mark.parametrize(("cut", "sample"), [((4000,), 0), ((0, 1), 0), ((1500, 4500), 0), ((4000,), 10), ((0, 1), 10)])
def test_what_processes_find_together_is_as_good_as_what_faiss_finds_in_all_rows(cut, sample):
    rows = mixture(8000, dimension=64)
    by_faiss = cluster_health.objective(rows, clustering.cluster(rows, 300, 3, seed=0, sample=sample))
    labels = clustered(cut, rows, 300, 3, seed=0, sample=sample)
    assert labels.dtype == np.int32 and [len(np.unique(column)) for column in labels.T] == [300] * 3
    assert cluster_health.objective(rows, labels) == pytest.approx(by_faiss, rel=0.005)


def differing(labels, others):
    return (labels != others).mean()


@pytest.mark.parametrize("options", [{}, {"sample": 20}])
def test_the_labels_do_not_depend_on_how_rows_are_divided(options):
    rows = mixture()
    first = clustered(CUTS[0], rows, 100, 2, seed=3, **options)
    np.testing.assert_array_equal(first, clustered(CUTS[0], rows, 100, 2, seed=3, **options))
    for cut in CUTS[1:]:
        # Sums round differently, and what lies on a border may fall to the other side.
        assert differing(first, clustered(cut, rows, 100, 2, seed=3, **options)) < 0.01
    assert differing(first, clustered(CUTS[0], rows, 100, 2, seed=4, **options)) > 0.5
    assert differing(first[:, 0], first[:, 1]) > 0.5


@pytest.mark.parametrize("options", [{}, {"sample": 20}])
@pytest.mark.parametrize("cut", CUTS)
def test_a_clustering_is_gone_on_from_as_by_one_process(cut, options):
    rows = mixture()
    previous = clustering.cluster(rows, 100, 2, seed=0)
    previous[::50] = clustering.UNASSIGNED
    drifted = unit(rows + 0.02 * np.random.default_rng(1).standard_normal(rows.shape)).astype(np.float32)
    options |= {"previous": previous, "iterations": 5, "moment": 7}
    alone = clustering.cluster(drifted, 100, 2, seed=0, **options)
    assert differing(alone, clustered(cut, drifted, 100, 2, seed=0, **options)) < 0.01


@pytest.mark.parametrize("lacking", ["none", "more clusters", "lost clusters"])
def test_whether_previous_labels_fit_is_a_question_to_all_processes(lacking):
    rows = mixture(600)
    unknown = np.full((600, 1), clustering.UNASSIGNED)
    previous = np.arange(600)[:, None] % 10
    if lacking == "none":
        previous = unknown
    elif lacking == "more clusters":
        previous[599] = 10  # in the last process alone
    else:
        previous[:300] %= 8  # 8 and 9 are in the last process alone: all ten are there
    found = clustered((300, 200), rows, 10, 1, seed=0, previous=previous, iterations=3)
    cold = clustered((300, 200), rows, 10, 1, seed=0)
    assert (differing(found, cold) < 0.01) == (lacking != "lost clusters")


def test_as_many_clusters_as_rows_puts_each_by_itself():
    rows = np.eye(6, dtype=np.float32)
    assert len(np.unique(clustered((2, 0), rows, 6, 1, seed=0))) == 6


def test_clusters_that_nothing_is_near_are_given_half_of_a_large_one():
    rows = np.repeat(unit(np.random.default_rng(0).standard_normal((30, 8))), 40, axis=0).astype(np.float32)
    labels = clustered((500,), rows, 30, 3, seed=0)  # 30 of 1200 rows, each 40 times: a third and more begin equal
    by_faiss = clustering.cluster(rows, 30, 3, seed=0)
    for column, other in zip(labels.T, by_faiss.T, strict=True):
        assert abs(len(np.unique(column)) - len(np.unique(other))) <= 3
    assert len(np.unique(labels[:, 0])) >= 25


def test_an_empty_cluster_takes_half_of_one_that_has_more_than_a_row():
    centroids, counts = np.arange(1, 10, dtype=np.float32).reshape(3, 3), np.array([1, 7, 0])
    clustering._fill_the_empty(centroids, counts, np.random.default_rng(0))
    e = 1 / 1024
    wanted = [[1, 2, 3], [4 * (1 - e), 5 * (1 + e), 6 * (1 - e)], [4 * (1 + e), 5 * (1 - e), 6 * (1 + e)]]
    np.testing.assert_allclose(centroids, wanted, rtol=1e-6)
    assert counts.tolist() == [1, 7, 0]


def test_several_empty_clusters_divide_a_large_one_until_no_part_holds_more_than_a_row():
    centroids = np.repeat([[1.0], [5.0], [0.0], [0.0], [0.0]], 3, axis=1).astype(np.float32)
    clustering._fill_the_empty(centroids, np.array([1, 4, 0, 0, 0]), np.random.default_rng(0))
    assert (centroids[0] == 1).all()  # it had nothing to give
    assert len(np.unique(centroids[1:], axis=0)) >= 3  # (1 + e)(1 - e) may come twice
    np.testing.assert_allclose(centroids[1:], 5, rtol=4 / 1024)


def test_rows_that_are_not_finite_in_one_process_are_told_of_in_all():
    rows = mixture(30)
    parts = shares(rows, 10, 10)
    parts[1][3, 2] = np.nan

    def work(process):
        with pytest.raises(UserError, match="not all finite"):
            clustering.cluster(parts[process.index], 3, 1, seed=0, processes=process)

    together(3, work)


def test_dbscan_is_refused_where_rows_are_spread():
    with pytest.raises(UserError, match=r"^--clustering=dbscan: .*--bank_sharding=replicated"):
        together(2, lambda process: clustering.dbscan(mixture(20), 0.5, 2, process))


@pytest.mark.parametrize("warm", [False, True])
def test_what_processes_tell_each_other_follows_the_clusters_not_the_rows(warm):
    def traffic(size):
        parts = shares(mixture(size), size // 2)
        previous = np.arange(size // 2)[:, None] % 10
        options = {"previous": previous, "iterations": 5} if warm else {}

        def work(process):
            clustering.cluster(parts[process.index], 10, 1, seed=0, processes=process, **options)
            return process.calls

        calls, others = together(2, work)
        assert calls == others
        return [size for _, size in calls]

    # Sums and counts at the start and an iteration; little else.
    sizes, sums, turns = traffic(400), 10 * 16 * 4, 1 + (5 if warm else clustering.ITERATIONS)
    assert traffic(4000) == sizes
    assert max(sizes) == sums and sizes.count(sums) == turns
    assert sum(sizes) < (turns + 1) * (sums + 10 * 8)


def labels_and_truth(size, clusters, clusterings, seed=0):
    rng = np.random.default_rng(seed)
    labels, previous = rng.integers(-1, clusters, (2, size, clusterings)).astype(np.int32)
    return labels, previous, rng.integers(-1, 9, size)


@pytest.mark.parametrize("cut", [(300,), (0, 120), (200, 399)])
@pytest.mark.parametrize("known", ["all", "labels", "nothing", "last part"])
def test_health_is_that_of_all_rows_in_every_process(monkeypatch, cut, known):
    monkeypatch.setattr(cluster_health, "SKEWNESS_SAMPLE", 150)
    rows = mixture(600)
    labels, previous, truth = labels_and_truth(600, 40, 5)
    labels[:, 0] = np.maximum(labels[:, 0], 0)
    if known == "labels":
        previous = truth = None
    elif known == "nothing":
        labels[:], previous[:], truth[:] = -1, -1, -1
    elif known == "last part":
        labels[:590], previous[:590], truth[:590] = -1, -1, -1
    alone = cluster_health.health(rows, labels, previous, truth, 3)
    parts = [[None] * 3 if part is None else shares(part, *cut) for part in (rows, labels, previous, truth)]
    found = together(
        len(cut) + 1,
        lambda process: cluster_health.health(*(part[process.index] for part in parts), 3, process),
    )
    for each in found:
        assert each == found[0]
        assert each == pytest.approx(alone, rel=1e-5)
        assert [each[name] for name in ("cluster_min", "cluster_median", "cluster_max")] == [
            alone[name] for name in ("cluster_min", "cluster_median", "cluster_max")
        ]
        for name in ("nmi_between", "nmi_previous", "purity", "unclustered_fraction"):
            assert each.get(name) == alone.get(name)  # made of counts


def test_mutual_information_is_of_every_so_many_rows_where_there_are_more_than_may_be_told(monkeypatch):
    rows, (labels, previous, truth) = mixture(600), labels_and_truth(600, 10, 2)
    monkeypatch.setattr(cluster_health, "GATHERED", 250)
    parts = [shares(part, 100, 301) for part in (rows, labels, previous, truth)]

    def work(process):
        return cluster_health.health(*(part[process.index] for part in parts), 0, process)

    for found in together(3, work):
        assert found["nmi_between"] == cluster_health.nmi_between(labels[::3])
        assert found["nmi_previous"] == cluster_health.nmi_previous(labels[::3], previous[::3])
    alone = cluster_health.health(rows, labels, previous, truth)
    assert alone["nmi_between"] == cluster_health.nmi_between(labels)  # it has them all


def test_rows_are_fetched_by_number_from_whoever_has_them():
    rows = np.arange(12.0).reshape(6, 2)
    numbers = np.array([5, 0, 3, 5])
    parts = shares(rows, 2, 0)

    def work(process):
        spread = SpreadRows(parts[process.index], process)
        return spread.first, spread.total, spread.everywhere(numbers), spread.here(numbers)

    found = together(3, work)
    assert [each[:2] for each in found] == [(0, 6), (2, 6), (2, 6)]
    for _, _, everywhere, _ in found:
        np.testing.assert_array_equal(everywhere, rows[numbers])
    assert [here.tolist() for *_, here in found] == [[[0, 1]], [], [[10, 11], [6, 7], [10, 11]]]
    np.testing.assert_array_equal(SpreadRows(rows, ALONE).everywhere(numbers), rows[numbers])


@pytest.mark.parametrize("size", [0, 1, 6, 20, 24])
def test_batches_dealt_out_one_by_one_are_those_of_one_process(size):
    rows = np.arange(size) * 10
    parts = [[part.tolist() for part in np.split(share(rows, 4, p, 3), range(4, size, 4))] for p in range(3)]
    rounds = [batch for turn in zip(*(part + [[]] * 9 for part in parts), strict=False) for batch in turn if batch]
    assert rounds == [rows[start : start + 4].tolist() for start in range(0, size, 4)]


def test_a_process_that_fails_fails_the_others_instead_of_letting_them_wait():
    def work(process):
        if process.index:
            raise ValueError("lost")
        with pytest.raises(threading.BrokenBarrierError):
            process.sum(np.ones(1))

    with pytest.raises(ValueError, match="lost"):
        together(2, work)
