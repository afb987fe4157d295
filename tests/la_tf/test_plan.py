"""What --plan says: numbers by hand for small sizes, every line there, nothing written, nothing trained."""

import dataclasses
import json
import subprocess
import sys

import pytest

from data.errors import FlagError, UserError
from la_tf import plan
from la_tf.experiment import Experiment
from la_tf.plan import Calibration, Plan, Sizes
from la_tf.plan_table import in_bytes, in_seconds, plan_table
from la_tf.resolve import resolve
from tests.la_tf.test_config import make
from tests.la_tf.test_train import TINY
from tests.programs import ROOT, environment, run

# N = 1000, D = 16, B = 8 pictures of 192 bytes, two bytes a number of the bank: a row takes 32 bytes, the bank 32,000.
SMALL = {
    "embedding_dim": 16, "batch_size": 8, "bank_dtype": "float16", "background_k": 20, "clusterings": 3,
    "clusters": 25, "warmup_epochs": 2, "epochs": 5, "noise_rows": 10,
}  # fmt: skip


def small(devices=1, **values):
    config, _ = resolve(make(**{**SMALL, **values}), 1000)
    return config, Sizes.of(config, 1000, devices=devices)


def moved(phase="la", devices=1, **values):
    config, sizes = small(devices, **values)
    return plan.bytes_per_step(config, sizes, phase, picture_bytes=192)


def told(phase="la", devices=4, **values):
    config, sizes = small(devices, **values)
    return plan.bytes_between(config, sizes, phase, gradient_bytes=4000)


CALIBRATION = Calibration(
    step_seconds={"ir": 0.5, "la": 2.0},
    network_seconds={"ir": 0.25, "la": 1.0},
    pictures_per_s=100.0,
    cold_seconds=7.0,
    warm_seconds=3.0,
    before_seconds=0.0,
    evaluation_seconds=11.0,
    dimension=16,
    process_bytes=10_000_000,
    resident_bytes=10_900_000,
    peak_bytes=11_000_000,
    device_bytes=None,
    weight_bytes=4400,
    gradient_bytes=4000,
    optimizer_bytes=4008,
    picture_bytes=192,
    held_bytes=70,
)


def test_a_step_of_la_reads_the_bank_once_and_the_rows_and_labels_of_b():
    assert moved() == {
        "batch upload": 8 * 192,
        "bank, once": 32_000,
        "rows of B_i": 8 * 20 * 32,
        "labels of B_i": 8 * 20 * 3 * 4,
        "bank rows of the batch": 2 * 8 * 32,
    }
    assert "labels of B_i" not in moved(close="self")
    # Labels of all 1000 rows: 3 of C_i and 3 of B_i; C_i by its own pass and its k' = 10 rows.
    assert moved(background="cluster")["labels of all rows"] == 1000 * 6 * 4
    by_knn = moved(background="all", close="knn", close_k=10)
    assert (by_knn["bank, for C_i"], by_knn["rows of C_i"]) == (32_000, 8 * 10 * 32)
    assert "labels of all rows" not in by_knn


def test_a_step_of_ir_reads_the_bank_or_its_noise():
    assert moved("ir", ir_loss="softmax")["bank, once"] == 32_000
    found = moved("ir", ir_loss="nce")
    assert found["noise rows"] == 8 * 10 * 32 and "bank, once" not in found
    assert "bank, once" not in moved("supervised", method="supervised")


def test_devices_share_the_batch_and_reduce_the_gradients_in_a_ring():
    found = moved(devices=4)
    assert found["batch upload"] == 2 * 192 and found["rows of B_i"] == 2 * 20 * 32
    assert found["bank, once"] == 32_000 and found["bank rows of the batch"] == 2 * 8 * 32  # a copy each
    assert told(devices=1) == {"all-reduce of gradients": 0}
    # A ring: 2 · 3/4 of what is summed up, 3/4 of what is gathered. A row is 16 float32, an index and a flag.
    assert told() == {"all-reduce of gradients": 6000, "rows for the bank": 3 * 8 * (64 + 8 + 4) / 4}
    assert told("random", method="random") == {"all-reduce of gradients": 6000}


def test_spread_devices_have_their_part_of_the_bank_and_tell_what_does_not_grow_with_it():
    config, sizes = small(4, bank_sharding="sharded", strategy="mirrored", replicas=4)
    assert (sizes.rows, sizes.bank, sizes.labels, sizes.seen, sizes.share) == (250, 8000, 250 * 3 * 4, 8, 2)
    found = plan.bytes_per_step(config, sizes, "la", picture_bytes=192)
    assert found["bank, once"] == 8000 and found["rows of B_i"] == 2 * 20 * 32
    assert found["bank rows of the batch"] == 2 * 2 * 32
    spread = {"bank_sharding": "sharded", "strategy": "mirrored", "replicas": 4}
    assert told(**spread) == {
        "all-reduce of gradients": 6000,
        "rows for the bank": 456,
        "indices and embeddings": 3 * 8 * (8 + 64) / 4,
        "labels of the batch": 3 * 8 * 3 * 4 / 2,
        # 250 rows are sorted, so there is no bound; four counts of 256, and how many are equal on each device.
        "k-th similarity": 4 * 3 * 8 * 1024 / 2 + 3 * 4 * 8 * 4 / 4,
        "log-sums and counts": 3 * 4 * 8 * 2 * 4 / 4 + 3 * 8 * 4 * 4 / 2,
        "gradient of the embeddings": 3 * 8 * 2 * 4 / 4 + 3 * 8 * 64 / 2,
    }
    of_noise = told("ir", ir_loss="nce", **spread)
    assert of_noise["similarities of noise rows"] == 3 * 8 * 11 * 4 / 2 + 3 * 8 * 11 * 4 / 4
    large = [Sizes.of(config, size, devices=4) for size in (2_000_000, 8_000_000)]
    assert {sum(plan.bytes_between(config, sizes, "la", 0).values()) for sizes in large} == {
        sum(plan.bytes_between(config, large[0], "la", 0).values())
    }


def test_in_cells_a_step_reads_what_is_visited():
    found = moved(background_search="cells", cells=10, visited_rows=50)
    assert found["rows of the cells visited"] == 8 * 50 * 32 and "bank, once" not in found
    assert moved(background_search="cells", cells=10, visited_rows=500)["rows of the cells visited"] == 32_000


def test_memory_adds_up_to_the_measured_peak_and_what_comes_between_steps():
    config, sizes = small()
    on_device, on_host = plan.memory(config, sizes, CALIBRATION)
    assert on_device is on_host
    assert on_device["bank"] == 32_000 and on_device["written"] == 1000
    assert on_device["cluster labels"] == 1000 * 3 * 4
    assert on_device["neighbour search"] == 2 * 4 * 8 * 1000  # all similarities of a batch, twice
    # A clustering takes 2 float32 copies of the rows and 3 of the labels: 164,000, and 100,000 are free between
    # steps; an evaluation a copy of the bank, 2 products of 1024 queries with 1000 rows, 16 bytes a row: 8,240,000.
    assert on_device["evaluation, beyond a step"] == 8_240_000 - 100_000
    # A thread writes the checkpoint meanwhile: copies of weights, optimizer, bank, written, labels.
    assert on_device["checkpoint, while it is written"] == 4400 + 4008 + 32_000 + 1000 + 12_000
    assert sum(on_device.values()) == 11_000_000 + 53_408 + 70 + 8_140_000
    on_device, on_host = plan.memory(config, sizes, dataclasses.replace(CALIBRATION, device_bytes=500_000))
    assert sum(on_device.values()) == 500_000 and "process, TensorFlow" not in on_device
    assert sum(on_host.values()) == 11_000_000 + 53_408 + 70 + 8_140_000


def test_at_imagenets_size_the_search_takes_what_was_measured():
    config, _ = resolve(make(), 1_281_167)
    sizes = Sizes.of(config, 1_281_167)
    assert sizes.bank == 1_281_167 * 128 * 4 and sizes.labels == 1_281_167 * 10 * 4
    assert plan.neighbour_search_bytes(sizes) == pytest.approx(220e6, rel=0.3)


def test_phases_and_renewals_follow_epochs_and_steps():
    config, _ = small(cluster_every="2epochs")
    assert plan.phases(config, 10, 45) == {"ir": 20, "la": 25}
    assert plan.phases(config, 10, 15) == {"ir": 15}
    assert plan.renewals(config, 10, 25) == 2  # at its beginning and 20 steps later
    assert plan.renewals(small(cluster_every="10steps")[0], 10, 25) == 3
    assert plan.renewals(small(close="knn")[0], 10, 25) == 0
    assert plan.phases(small(method="ir")[0], 10, 45) == {"ir": 45}


def digits(size=None, **values):
    chosen = {"dataset": "digits", "image_size": 8, "backbone": "resnet10", "width": 4, "model_dir": "nowhere/at/all"}
    return Experiment(make(**SMALL, **chosen, **values), size)


def test_the_whole_run_is_the_sum_of_its_parts_and_the_table_names_all():
    found = Plan(digits(warm_iterations=5), CALIBRATION)  # 1437 images: 179 steps an epoch; 2 of IR, 3 of LA
    result = found.result()
    assert found.phases == {"ir": 358, "la": 537} and found.renewals == 3
    assert result["run_hours"] * 3600 == pytest.approx(358 * 0.5 + 537 * 2 + 7 + 2 * 3 + 5 * 11)
    assert result["plan"]["epoch_seconds"] == pytest.approx({"ir": 179 * 0.5 + 11, "la": 179 * 2 + 3 + 11})
    assert (result["step_seconds"], result["clustering_seconds"]) == (2.0, 3.0)
    assert Plan(digits(warm_iterations=0), CALIBRATION).result()["clustering_seconds"] == 7.0
    table = plan_table(found)
    for line in (
        "images (N)", "background neighbours (k)", "clusterings (H)", "clusters of each (m)", "devices (R)", "bank",
        "weights", "gradients", "optimizer", "activations", "cluster labels", "neighbour search", "rows of B_i",
        "all-reduce of gradients", "step of ir", "step of la", "input pipeline alone", "clustering, from nothing",
        "clustering, from the last", "kNN evaluation of an epoch", "epoch of la", "whole run, 358 ir + 537 la steps",
    ):  # fmt: skip
        assert line in table
    assert (in_bytes(655_957_504), in_bytes(1_300_000_000), in_bytes(12)) == ("656 MB", "1.3 GB", "12 B")
    assert [in_seconds(s) for s in (0.012, 90, 150, 8000, 200_000)] == [
        "12.0 ms",
        "90.0 s",
        "2.5 min",
        "2.2 h",
        "2.3 days",
    ]


def test_a_plan_may_be_of_more_images_than_there_are():
    planned = digits(size=100_000)
    assert planned.steps_per_epoch == 12_500 and planned.size == 100_000 and planned.train.size == 1437
    with pytest.raises(FlagError, match=r"--plan_size=1000: .*1437 images"):
        digits(size=1000)
    crowd = Experiment(make(**SMALL | {"batch_size": 1024, "bank_sharding": "sharded"}, dataset="digits"), None, 1024)
    assert crowd.replicas == 1024 and Sizes.of(crowd.config, crowd.size, devices=1024).rows == 2
    process = run("la_tf.train", "--dataset=digits", "--model_dir=x", "--plan_size=5000")
    assert process.returncode == 2 and "--plan_size=5000: goes with --plan" in process.stderr


def test_a_bank_that_memory_cannot_hold_is_one_line(monkeypatch):
    monkeypatch.setattr(plan, "available_memory", lambda: 10**8)
    plan.check_memory(digits(size=100_000))
    with pytest.raises(UserError, match=r"--plan: the memory bank of 10,000,000 x 16") as caught:
        plan.check_memory(digits(size=10_000_000))
    assert "\n" not in str(caught.value)


def test_clusterings_are_measured_in_part_when_they_are_long():
    from la_tf.calibration import clustering_sample

    assert clustering_sample(1437, 100, 3, 128) == (1437, 100, 3, 1.0)
    n, m, h, factor = clustering_sample(1_281_167, 30_004, 10, 128)
    assert n < 50_000 and h == 1
    assert n / m == pytest.approx(1_281_167 / 30_004, rel=0.01)
    assert factor == pytest.approx((1_281_167 * 30_004 * 10) / (n * m))


def test_planning_measures_and_writes_nothing(tmp_path, monkeypatch, capsys):
    from la_tf import calibration, train

    monkeypatch.setattr(calibration, "SECONDS", 0.05)
    monkeypatch.chdir(tmp_path)
    result = train.planned(digits(method="la", size=3000))
    assert not list(tmp_path.iterdir())
    assert set(result["plan"]["step_seconds"]) == {"ir", "la"}
    assert result["plan"]["images"] == 3000 and result["clustering_seconds"] > 0
    assert result["plan"]["memory"]["bank"] == 3000 * 2 * 16
    assert json.loads(json.dumps(result)) == result
    assert "whole run" in capsys.readouterr().err


TOLD_PEAK = """
import atexit, resource, sys
from data import cli
cli.load_tensorflow()
from la_tf import calibration, train
calibration.SECONDS = 0.5
atexit.register(lambda: print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr))
cli.run(train.main)
"""


@pytest.mark.slow
def test_the_plan_of_a_run_is_near_what_it_takes(tmp_path):
    folder = tmp_path / "run"
    found = {}
    for name, flags in (("plan", ["--plan"]), ("run", [])):
        arguments = ["--dataset=digits", f"--model_dir={folder}", *TINY, "--epochs=2", *flags]
        process = subprocess.run(
            [sys.executable, "-c", TOLD_PEAK, *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True
        )
        assert process.returncode == 0, process.stderr
        assert folder.exists() == (name == "run")
        peak = int(process.stderr.rsplit("peak", 1)[1]) * 1024
        found[name] = json.loads(process.stdout.splitlines()[-1]), peak
    planned, (ran, peak) = found["plan"][0], found["run"]
    assert sum(planned["plan"]["steps"].values()) == ran["step"]
    assert 0.5 < planned["memory_bytes"] / peak < 2
