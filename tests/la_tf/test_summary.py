"""What a run is told to have come to: the closing table and the result, from the files in its model_dir."""

from types import SimpleNamespace

import pytest

from la_tf.model_dir import MetricsFile
from la_tf.summary import closing_table, epochs_of, newest_export, result_of, training_seconds


def experiment(folder, finished=True):
    return SimpleNamespace(
        config=SimpleNamespace(run=SimpleNamespace(model_dir=str(folder)), data=SimpleNamespace(batch_size=64)),
        train=SimpleNamespace(size=1437),
        dataset=SimpleNamespace(spec="digits"),
        finished=lambda: {"step": 20} if finished else None,
    )


def write(folder, *records):
    for record in records:
        MetricsFile(folder).append(record)


def line(step, epoch, **more):
    return {"step": step, "epoch": epoch, "time": 100.0 + step, "loss": step / 8, "images_per_s": 64.0, **more}


def test_the_last_line_of_an_epoch_stands_for_it(tmp_path):
    write(tmp_path, line(5, 0), line(10, 0, knn_top1=0.25), line(15, 1), line(20, 1, knn_top1=0.5))
    assert [(epoch["step"], epoch["knn_top1"]) for epoch in epochs_of(tmp_path)] == [(10, 0.25), (20, 0.5)]


def test_what_an_evaluator_of_its_own_found_belongs_to_the_epoch(tmp_path):
    write(tmp_path, line(10, 0), line(20, 1))
    write(tmp_path / "eval_test", {"step": 10, "knn_top1": 0.75}, {"step": 13, "knn_top1": 0.9})
    first, second = epochs_of(tmp_path)
    assert first == line(10, 0, knn_top1=0.75) and second == line(20, 1)


def test_the_table_names_last_and_best_and_where_everything_lies(tmp_path):
    write(tmp_path, line(10, 0, knn_top1=0.75), line(20, 1, knn_top1=0.5))
    export = tmp_path / "export" / "final" / "1700000000"
    export.mkdir(parents=True)
    table = closing_table(experiment(tmp_path))
    for part in (
        "1,437 of digits", "20 in 2 epochs", "last 0.5000   best 0.7500 (epoch 1)", "0 min 20 s", str(export),
        str(tmp_path / "metrics.jsonl"), f"tensorboard --logdir={tmp_path}", f"la_tf.export --model_dir={tmp_path}",
    ):  # fmt: skip
        assert part in table
    result = result_of(experiment(tmp_path))
    assert (result["step"], result["knn_top1"], result["export"]) == (20, 0.5, str(export))


def test_the_table_tells_bad_pictures_where_there_are_any(tmp_path):
    write(tmp_path, line(10, 0, bad_images=0))
    assert "bad images" not in closing_table(experiment(tmp_path))
    write(tmp_path, line(20, 1, bad_images=1234))
    assert f"1,234 left out: {tmp_path / 'bad_images.csv'}" in closing_table(experiment(tmp_path))


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_without_an_epoch_has_a_result_too(tmp_path, finished):
    assert "no epoch" in closing_table(experiment(tmp_path, finished))
    assert result_of(experiment(tmp_path, finished)) == {"model_dir": str(tmp_path), "step": 0, "finished": finished}


def test_of_the_exports_the_newest_final_counts_and_half_written_ones_do_not(tmp_path):
    assert newest_export(tmp_path) is None
    for name in ("best/30", "final/9", "final/10", "final/.11.4711"):
        (tmp_path / "export" / name).mkdir(parents=True)
    assert newest_export(tmp_path) == tmp_path / "export" / "final" / "10"


def test_the_time_leaves_out_the_nights_between_two_starts(tmp_path):
    for time in (0.0, 60.0, 50_000.0, 50_030.0):
        write(tmp_path, {"step": 10, "epoch": 0, "time": time, "images_per_s": 64.0})
    # Ten steps of 32 at 64 images/s until the first line, 60 s and 30 s afterwards.
    assert training_seconds(tmp_path, batch_size=32) == 5.0 + 90.0
