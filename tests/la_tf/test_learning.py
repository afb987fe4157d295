"""Every method learns the digits by the quickstart's flags, far above the untrained network."""

import pytest

from tests.la_tf.test_train import lines, result_of
from tests.programs import run

UNTRAINED = 0.65  # seeds 0 to 2 had 0.647, 0.600 and 0.608


def last_knn(folder, *flags):
    process = run("la_tf.train", "--flagfile=quickstart.flags", f"--model_dir={folder}", "--deterministic", *flags)
    assert result_of(process)["finished"]
    return lines(folder)[-1]["knn_top1"]


def test_the_untrained_network_is_what_the_others_have_to_beat(tmp_path):
    assert last_knn(tmp_path, "--method=random") == pytest.approx(UNTRAINED, abs=0.08)
    assert last_knn(tmp_path, "--method=random") == lines(tmp_path)[-1]["knn_top1"]  # finished already


# The means of three seeds are in the README; LA's is tested with the quickstart (test_train.py). One seed of a mean that
# has to be 0.93 (dc 0.88) may be two digits in a hundred below it.
@pytest.mark.slow
@pytest.mark.parametrize(("method", "least"), [("ir", 0.93), ("swav", 0.93), ("dc", 0.88), ("supervised", 0.97)])
def test_a_method_learns_the_digits(method, least, tmp_path):
    assert last_knn(tmp_path, f"--method={method}") >= least - 0.02


@pytest.mark.slow
def test_dbscan_is_trivial_to_the_last_bit(tmp_path):
    """Where every image is noise to DBSCAN, C_i is the image alone (section 5.2: trivial representations)."""
    short = ["--epochs=12", "--warmup_epochs=6"]
    last_knn(tmp_path / "dbscan", *short, "--clustering=dbscan", "--dbscan_eps=0.1")
    last_knn(tmp_path / "self", *short, "--close=self")
    dbscan, alone = lines(tmp_path / "dbscan"), lines(tmp_path / "self")
    assert dbscan[-1]["unclustered_fraction"] == 1
    assert [line["loss"] for line in dbscan] == [line["loss"] for line in alone]
    assert [line["knn_top1"] for line in dbscan if "knn_top1" in line] == [
        line["knn_top1"] for line in alone if "knn_top1" in line
    ]
