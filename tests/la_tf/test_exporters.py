"""When Latest, Best and Final export, and how many they keep."""

import json

import pytest

from la_tf.exporters import BestExporter, FinalExporter, LatestExporter


class Estimator:
    """Writes folders instead of networks and remembers with what."""

    def __init__(self, fails=False):
        self.fails = fails
        self.facts = []

    def export_saved_model(self, folder, **facts):
        if self.fails:
            raise KeyboardInterrupt
        folder.mkdir(parents=True)
        self.facts.append(facts)
        return folder


def best(folder, monitor="knn", higher_is_better=True):
    return BestExporter(folder, monitor, higher_is_better)


def exports(exporter, values, monitor="knn"):
    """Which of these values lead to an export."""
    estimator = Estimator()
    return [exporter.export(estimator, {monitor: value}, False) is not None for value in values]


def test_best_exports_only_improvements(tmp_path):
    assert exports(best(tmp_path), [0.3, 0.3, 0.2, 0.4]) == [True, False, False, True]


def test_best_of_a_loss_is_the_smallest(tmp_path):
    exporter = best(tmp_path, "loss", higher_is_better=False)
    assert exports(exporter, [3.0, 4.0, 2.0, 2.0], "loss") == [True, False, True, False]


def test_the_loss_of_local_aggregation_is_not_compared_with_that_of_the_warm_start(tmp_path):
    exporter, estimator = best(tmp_path, "loss", higher_is_better=False), Estimator()
    epochs = [("ir", 3.0), ("la", 5.0), ("la", 6.0), ("la", 4.0)]
    found = [exporter.export(estimator, {"loss": loss, "phase": phase}, False) for phase, loss in epochs]
    assert [folder is not None for folder in found] == [True, True, False, True]


def test_the_knn_score_is_compared_through_the_switch(tmp_path):
    exporter, estimator = best(tmp_path), Estimator()
    found = [exporter.export(estimator, {"knn": 0.5 - 0.1 * i, "phase": p}, False) for i, p in enumerate(("ir", "la"))]
    assert [folder is not None for folder in found] == [True, False]


def test_best_survives_a_restart(tmp_path):
    assert exports(best(tmp_path), [0.3, 0.5]) == [True, True]
    assert exports(best(tmp_path), [0.4, 0.5, 0.6]) == [False, False, True]
    record = json.loads((tmp_path / "export" / "best" / "best.json").read_text())
    assert record["knn"] == 0.6


def test_best_keeps_one_and_it_is_the_newest(tmp_path):
    exporter, estimator = best(tmp_path), Estimator()
    written = [exporter.export(estimator, {"knn": value}, False) for value in (0.1, 0.2, 0.3)]
    assert exporter.exported() == [written[-1]] and written[-1].is_dir()


@pytest.mark.parametrize("metrics", [{}, {"knn": float("nan")}])
def test_best_passes_over_an_epoch_without_a_number_and_is_not_spoilt_by_it(tmp_path, metrics):
    exporter, estimator = best(tmp_path), Estimator()
    assert exporter.export(estimator, metrics, False) is None
    assert exports(exporter, [0.3]) == [True]
    assert exporter.export(estimator, metrics, False) is None
    assert exports(exporter, [0.2]) == [False]


def test_a_best_whose_export_was_interrupted_is_exported_after_the_restart(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        best(tmp_path).export(Estimator(fails=True), {"knn": 0.5}, False)
    assert exports(best(tmp_path), [0.5, 0.5]) == [True, False]


def test_latest_exports_always_and_keeps_the_newest_few(tmp_path):
    exporter, estimator = LatestExporter(tmp_path, keep=3), Estimator()
    written = [exporter.export(estimator, {}, False) for _ in range(5)]  # within a second: each has its own name
    assert len(set(written)) == 5
    assert exporter.exported() == written[2:]
    assert LatestExporter(tmp_path, keep=3).exported() == written[2:]


def test_a_clock_that_jumps_back_changes_no_order(tmp_path, monkeypatch):
    exporter, estimator = LatestExporter(tmp_path, keep=2), Estimator()
    written = []
    for now in (2e9, 1e9, 0, 3e9, 1e9):
        monkeypatch.setattr("la_tf.exporters.time.time", lambda now=now: now)
        written.append(exporter.export(estimator, {}, False))
    assert exporter.exported() == written[3:] and len({*written}) == 5


def test_final_exports_once_when_training_is_over(tmp_path):
    exporter, estimator = FinalExporter(tmp_path), Estimator()
    written = [exporter.export(estimator, {}, finished) for finished in (False, False, True)]
    assert written[:2] == [None, None] and exporter.exported() == [written[2]]
    assert written[2].parent == tmp_path / "export" / "final"


def test_metrics_and_facts_go_into_the_export(tmp_path):
    estimator = Estimator()
    exporter = FinalExporter(tmp_path, facts={"config": {"tau": 0.1}})
    exporter.export(estimator, {"loss": 0.5, "phase": "la", "step": 3, "odd": object()}, True)
    metrics = {"loss": 0.5, "phase": "la", "step": 3}
    assert estimator.facts == [{"metrics": metrics, "config": {"tau": 0.1}, "with_bank": True}]


def test_the_last_export_alone_has_the_memory_bank(tmp_path):
    estimator = Estimator()
    for exporter in (LatestExporter(tmp_path), best(tmp_path), FinalExporter(tmp_path)):
        exporter.export(estimator, {"knn": 0.5}, True)
    assert [facts["with_bank"] for facts in estimator.facts] == [False, False, True]


def test_a_folder_half_written_by_another_process_is_no_export(tmp_path):
    exporter = LatestExporter(tmp_path)
    (exporter.folder / ".123.4711").mkdir(parents=True)
    assert exporter.exported() == []
    assert exporter.export(Estimator(), {}, False).name.isdigit()
