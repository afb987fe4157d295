"""What a run writes down: metrics.jsonl, TensorBoard curves, progress lines."""

import math
from types import SimpleNamespace

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from la_tf.callbacks import EventFolder, MetricsWriter, Progress
from la_tf.model_dir import MetricsFile


def curves(folder):
    """What TensorBoard shows: {name: [(step, value)]}."""
    events = EventAccumulator(str(folder)).Reload()
    return {
        name: [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(name)]
        for name in events.Tags()["tensors"]
    }


def logs(step, **more):
    return {"step": step, "epoch": 0, "time": 1e9 + step, "phase": "ir", "loss": step / 4, **more}


def test_tensorboard_and_the_metrics_file_hold_the_same_numbers(tmp_path):
    events = EventFolder(tmp_path)
    events.write(3, {"loss": 0.75, "phase": "la", "epoch": 1, "time": 12.5, "knn_top1": 0.5})
    events.write(6, {"loss": 0.25, "phase": "la", "epoch": 2, "time": 13.5})
    assert curves(tmp_path) == {"loss": [(3, 0.75), (6, 0.25)], "knn_top1": [(3, 0.5)]}
    first, second = MetricsFile(tmp_path).read()
    assert first == {"step": 3, "loss": 0.75, "phase": "la", "epoch": 1, "time": 12.5, "knn_top1": 0.5}
    assert second == {"step": 6, "loss": 0.25, "phase": "la", "epoch": 2, "time": 13.5}


def test_the_numbers_are_on_disk_as_soon_as_they_are_written(tmp_path):
    events = EventFolder(tmp_path)
    for step in (1, 2):
        events.write(step, {"loss": 0.5})
        assert len(curves(tmp_path)["loss"]) == step == len(MetricsFile(tmp_path).read())


def test_logged_steps_and_epochs_are_written_and_the_steps_between_are_not(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.on_train_begin({"step": 0})
    for step in range(1, 5):
        writer.on_train_batch_end(step, logs(step) if step == 2 else None)
    writer.on_epoch_end(0, logs(4, knn_top1=0.5))
    assert MetricsFile(tmp_path).read() == [logs(2), logs(4, knn_top1=0.5)]
    assert curves(tmp_path) == {"loss": [(2, 0.5), (4, 1.0)], "knn_top1": [(4, 0.5)]}


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.on_train_begin({"step": 0})
    for step in (10, 20, 30):
        writer.on_train_batch_end(step, logs(step))
    again = MetricsWriter(tmp_path)
    again.on_train_begin({"step": 20})
    again.on_train_batch_end(30, logs(30, loss=7.0))
    assert MetricsFile(tmp_path).read() == [logs(10), logs(20), logs(30, loss=7.0)]


def progress(total_steps=100, steps_per_epoch=30, first_step=0):
    bar = Progress(total_steps, batch_size=8, steps_per_epoch=steps_per_epoch)
    bar.on_terminal = False  # as in a log file
    bar.set_model(SimpleNamespace(warning=lambda metrics: "it collapses" if metrics["loss"] > 9 else None))
    bar.on_train_begin({"step": first_step})
    return bar


def test_what_a_method_warns_of_follows_the_epochs_line(capsys):
    bar = progress()
    bar.on_epoch_end(0, logs(30, images_per_s=1.0))
    assert "warning" not in capsys.readouterr().err
    bar.on_epoch_end(1, logs(60, images_per_s=1.0, loss=10.0))
    assert capsys.readouterr().err.splitlines()[-1] == "warning: it collapses"


def test_a_log_file_gets_a_line_at_logged_steps_and_epochs(capsys):
    bar = progress()
    for step in range(1, 31):
        bar.on_train_batch_end(step, logs(step, images_per_s=99.6) if step == 10 else None)
    bar.on_epoch_end(0, logs(30, images_per_s=120.2, knn_top1=0.8125, close_mean=math.pi))
    bar.on_train_end()
    first, second = capsys.readouterr().err.strip().splitlines()
    for part in ("epoch 1/4", "step 10", "ir", "loss 2.5000", "100 images/s", " left"):
        assert part in first
    for part in ("epoch 1/4", "step 30", "knn_top1 0.8125", "close_mean 3.1416", "120 images/s"):
        assert part in second


def test_the_time_left_counts_the_steps_since_the_start_not_those_before_it(capsys, monkeypatch):
    clock = iter([1000.0, 1020.0])
    monkeypatch.setattr("la_tf.callbacks.time.monotonic", lambda: next(clock))
    bar = progress(total_steps=100, first_step=80)
    bar.on_train_batch_end(90, logs(90, images_per_s=4.0))  # 10 steps in 20 s, 10 steps to go
    assert "00:20 left" in capsys.readouterr().err


@pytest.mark.parametrize(("total", "an_epoch", "epochs"), [(90, 30, "/3"), (91, 30, "/4"), (10, 30, "/1")])
def test_a_part_of_an_epoch_counts_as_one(total, an_epoch, epochs, capsys):
    progress(total, an_epoch).on_epoch_end(0, logs(1, images_per_s=1.0))
    assert epochs + "  step" in capsys.readouterr().err
