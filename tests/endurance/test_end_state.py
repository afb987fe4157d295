"""If these fail, two runs may pass for the same one that are not, or damage may go unseen."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from la_tf import checkpoints
from la_tf.model_dir import MetricsFile
from tests.endurance import injuries, memory
from tests.endurance.end_state import differences, digest, end_state


def run(folder, learned=1.0, seconds=1.0, dropped=0, loss=0.5, exported=2.0):
    """A folder as a run leaves it."""
    logs = {"loss": loss, "time": seconds, "cluster_seconds": seconds}
    checkpoints.write(folder, 3, {"kernel": np.full(4, 7.0)}, {"logs": {}}, keep=2)
    checkpoints.write(folder, 6, {"kernel": np.full(4, learned)}, {"hooks": {"P": dropped}, "logs": logs}, keep=2)
    MetricsFile(folder).append({"step": 6, **logs})
    MetricsFile(folder / "eval_test").append({"step": 6, "knn_top1": 0.25})
    for stamp, value in ((999, 1.0), (1000, exported)):
        (folder / f"export/final/{stamp}").mkdir(parents=True)
        with h5py.File(folder / f"export/final/{stamp}/backbone.weights.h5", "w") as file:
            file["conv/kernel"] = np.full(3, value)
    return folder


def test_clocks_and_older_exports_and_checkpoints_do_not_count(tmp_path):
    one, two = end_state(run(tmp_path / "one")), end_state(run(tmp_path / "two", seconds=9.0))
    assert differences(one, two) == [] and digest(one) == digest(two)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learned": np.nextafter(1.0, 2)}, ["arrays/kernel"]), ({"dropped": 1}, ["state/hooks"]),
        ({"loss": 0.25}, ["metrics.jsonl:1", "state/logs"]), ({"exported": 3.0}, ["export/final/conv/kernel"]),
    ],
)  # fmt: skip
def test_what_differs_is_named(tmp_path, change, named):
    one, two = end_state(run(tmp_path / "one")), end_state(run(tmp_path / "two", **change))
    assert differences(one, two) == named and digest(one) != digest(two)


def test_a_line_too_many_and_an_evaluation_too_few_are_seen(tmp_path):
    one, two = run(tmp_path / "one"), run(tmp_path / "two")
    MetricsFile(one).append({"step": 6})
    (two / "eval_test" / "metrics.jsonl").unlink()
    assert differences(end_state(one), end_state(two)) == ["eval_test/metrics.jsonl:1", "metrics.jsonl:2"]


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(injuries.DAMAGES), seed=st.integers(0, 2**32 - 1))
def test_every_damage_is_found_and_the_checkpoint_before_is_taken(tmp_path_factory, kind, seed):
    folder = run(tmp_path_factory.mktemp("damaged") / "run")
    name = injuries.damage(checkpoints.latest(folder), kind, np.random.default_rng(seed))
    said = []
    checkpoints.set_aside_damaged(folder, said.append)
    if (kind, name) == ("removed file", checkpoints.CHECKSUMS):  # as of a run that was before there were checksums
        assert checkpoints.steps(folder) == injuries.whole_steps(folder) == [3, 6] and not said
    else:  # a checksum that is another one speaks against its file
        assert checkpoints.steps(folder) == injuries.whole_steps(folder) == [3]
        assert name in said[0] or name == checkpoints.CHECKSUMS


def test_growth_is_between_the_first_third_and_the_last():
    samples = [memory.Sample(epoch, 100.0 + 2 * epoch, 8 + (epoch > 6)) for epoch in range(9)]
    samples[1] = memory.Sample(1, 900.0, 99)  # for a moment
    assert memory.thirds(samples) == ((104.0, 8.0), (114.0, 9.0))
