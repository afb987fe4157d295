"""Figures of runs by the command; the runs' checkpoints are made up, so that their numbers are known."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from data.errors import UserError
from la_tf import analysis, checkpoints, cluster_portraits, density, figures
from la_tf.config import Config
from la_tf.experiment import Experiment
from la_tf.model_dir import MetricsFile
from la_tf.trained_run import DoesNotApply, Judged, TrainedRun
from tests.la_tf.reference import unit
from tests.la_tf.test_bad_images import make_set
from tests.la_tf.test_train import result_of
from tests.programs import run

SIZE, CLUSTERS = 40, 5
FLAGS = {
    "backbone": "resnet10", "width": 4, "embedding_dim": 16, "image_size": 8, "batch_size": 8, "epochs": 1,
    "warmup_epochs": 1, "clusters": CLUSTERS, "clusterings": 2, "background_k": 8, "workers": 1,
}  # fmt: skip


def rows_of(seed):
    return unit(np.random.default_rng(seed).standard_normal((SIZE, 16))).astype(np.float32)


def experiment_of(pictures, folder):
    return Experiment(Config.from_flat({"dataset": f"folder:{pictures}", "model_dir": str(folder)} | FLAGS))


def made_up(pictures, folder, rows, labels=None):
    """A run of pictures whose bank holds `rows`, but for the last one, which was never written."""
    experiment_of(pictures, folder).claim()
    written = np.arange(SIZE) < SIZE - 1
    arrays = {"memory_bank/rows": np.where(written[:, None], rows, 0), "memory_bank/written": written}
    if labels is not None:
        arrays["local_aggregation/cluster_labels"] = labels
    state = {"step": 5, "epoch": 0, "stopped": False, "finished": True, "hooks": {}, "settled": {}}
    checkpoints.write(folder, 5, arrays, state, keep=1)
    MetricsFile(folder).append({"step": 5, "epoch": 0, "loss": 3.0, "time": 0.0, "images_per_s": 1.0, "phase": "la"})
    return folder


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory):
    """A run on pictures without labels, with clusters of its own: row i is in cluster i % CLUSTERS, 39 in none."""
    place = tmp_path_factory.mktemp("unlabelled")
    labels = np.stack([np.arange(SIZE) % CLUSTERS, np.zeros(SIZE, int)], axis=1).astype(np.int32)
    labels[-1] = -1
    pictures = make_set(place / "set", 12, train=SIZE, test=0, labelled=False)
    return made_up(pictures, place / "first", rows_of(0), labels)


def looks_drawn(paths):
    png, svg = paths
    with Image.open(png) as picture:
        assert picture.width > 400 and len(picture.convert("L").getcolors()) > 20  # not blank
    with open(svg, encoding="utf-8") as file:
        assert "<svg" in file.read(2000)


def test_all_draws_what_applies_and_names_what_does_not(unlabelled):
    process = run("la_tf.analyze", f"--model_dir={unlabelled}", "--figure=all", "--rows=2", "--nearest=4")
    result = result_of(process)
    assert set(result["figures"]) == {"density", "close", "clusters", "curves"}
    assert set(result["skipped"]) == {"neighbors", "mds"}
    for name in result["skipped"]:
        assert f"skipped {name}: " in process.stderr and "no labels" in result["skipped"][name]
    found = {}
    for name, files in result["figures"].items():
        looks_drawn(files["figure"])
        with open(files["numbers"]) as file:
            found[name] = json.load(file)
    (curve,) = found["density"]
    assert curve["images"] == SIZE - 1 and curve["step"] == 5  # the row never written is nobody's neighbour
    similarity = rows_of(0)[:-1].astype(np.float64) @ rows_of(0)[:-1].T
    np.fill_diagonal(similarity, -np.inf)
    nearest = -np.sort(-similarity, axis=1)
    ranks = density.ranks(SIZE - 1)
    assert curve["ranks"] == ranks._asdict()
    assert curve["local"]["mean"] == pytest.approx(nearest[:, : ranks.local].mean(), abs=1e-6)
    assert curve["background"]["mean"] == pytest.approx(nearest[:, ranks.first - 1 : ranks.last].mean(), abs=1e-6)
    largest = found["clusters"]["largest"]
    assert found["clusters"]["clusters"] == CLUSTERS and "own" in found["clusters"]["origin"]
    assert [each["label"] for each in largest] == [0, 1] and largest[0]["purity"] is None
    assert sorted(largest[0]["members"]) == list(range(0, SIZE - 1, CLUSTERS))
    assert found["close"]["run_clusters"] == CLUSTERS and len(found["close"]["grid"]) == 3 * 4  # m of 2, 5, 10 .. 19
    assert f"{found['close']['grid'][0]['skewness']['mean']:.4f}" in process.stdout


def test_densities_of_several_runs_lie_in_one_figure(unlabelled, tmp_path):
    pictures = unlabelled.parent / "set"
    second = made_up(pictures, tmp_path / "second", np.abs(rows_of(1)))  # all in one corner: denser
    flags = [f"--model_dir={unlabelled},{second}", "--figure=density", f"--out={tmp_path / 'out'}"]
    result = result_of(run("la_tf.analyze", *flags))
    assert result["numbers"] == str(tmp_path / "out" / "density.json") and not (second / "report").exists()
    looks_drawn(result["figure"])
    first, other = json.loads((tmp_path / "out" / "density.json").read_text())
    assert other["local"]["mean"] > first["local"]["mean"] + 0.2
    assert other["local"]["edges"] == first["local"]["edges"] and other["title"] == "la · resnet10 · second"


def test_what_a_run_has_not_is_said(unlabelled, tmp_path):
    run_of_it = TrainedRun(unlabelled)
    assert run_of_it.cluster_labels.shape == (SIZE - 1, 2) and run_of_it.clusters == CLUSTERS
    with pytest.raises(DoesNotApply, match="no labels"):
        run_of_it.need_labels()
    second = TrainedRun(made_up(unlabelled.parent / "set", tmp_path / "second", rows_of(1)))
    assert second.cluster_labels is None
    broken = TrainedRun(made_up(unlabelled.parent / "set", tmp_path / "third", np.full((SIZE, 16), np.nan)))
    with pytest.raises(UserError, match="not finite"):
        _ = broken.rows
    experiment_of(unlabelled.parent / "set", tmp_path / "new").claim()
    with pytest.raises(UserError, match="no checkpoint"):
        _ = TrainedRun(tmp_path / "new").rows


def test_a_run_that_trains_on_may_remove_what_is_looked_at(unlabelled, tmp_path):
    labels = np.arange(SIZE, dtype=np.int32)[:, None] % CLUSTERS  # DeepCluster's have one column
    run_of_it = TrainedRun(made_up(unlabelled.parent / "set", tmp_path / "run", rows_of(1), labels))
    assert run_of_it.step == 5
    shutil.rmtree(checkpoints.folder(tmp_path / "run"))
    np.testing.assert_array_equal(run_of_it.rows, rows_of(1)[:-1])
    np.testing.assert_array_equal(run_of_it.cluster_labels, labels[:-1])
    with pytest.raises(checkpoints.Gone, match="was removed meanwhile"):
        _ = run_of_it.subject


def test_looking_leaves_the_run_as_it_is(tmp_path):
    pictures = make_set(tmp_path / "set", 12, train=SIZE, test=0, labelled=False)
    run_of_it = TrainedRun(made_up(pictures, tmp_path / "run", rows_of(0)))
    for name in run_of_it.train.names[:9]:  # of 40: more than --max_bad_fraction
        path = pictures / name
        path.write_bytes(b"x" * path.stat().st_size)
    before = sorted((tmp_path / "run").rglob("*"))
    shown = run_of_it.pictures(run_of_it.train, np.arange(SIZE))
    assert (shown[:9] == 0).all() and (shown[9:].max(axis=(1, 2, 3)) > 0).all()
    run_of_it.subject = SimpleNamespace(embed=lambda images: np.ones((len(images), 16)))
    with pytest.raises(UserError, match="9 pictures can no longer be read"):
        run_of_it.embed(np.arange(SIZE))
    assert sorted((tmp_path / "run").rglob("*")) == before


@pytest.mark.parametrize("flags", [("la_tf.analyze", "--figure=curves"), ("la_tf.export",)])
def test_a_place_that_cannot_be_written_is_named_before_anything_is_done(unlabelled, tmp_path, flags):
    (tmp_path / "file").write_text("")
    process = run(*flags, f"--model_dir={unlabelled}", f"--out={tmp_path / 'file' / 'out'}")
    assert process.returncode == 1 and process.stderr.count("\n") == 1, process.stderr
    assert process.stderr.startswith(f"error: --out={tmp_path / 'file'}") and "cannot be written" in process.stderr


def test_a_run_without_an_epoch_has_no_curves(tmp_path):
    with pytest.raises(DoesNotApply, match="no epoch has ended yet"):
        analysis.draw_curves(tmp_path)


def test_members_and_neighbours_without_a_label_have_no_frame(monkeypatch):
    labels = np.array([1, 0, -1])
    run_of_it = SimpleNamespace(
        train=SimpleNamespace(labels=labels, names="abc"), test=SimpleNamespace(names="q"), names=["ant", "bee", "?"],
        images=np.arange(3), rows=np.array([[1, 0], [0.8, 0.6], [0.6, 0.8]], np.float32),
        judged=Judged(np.array([[1, 0]], np.float32), np.array([0]), np.array([1]), np.array([[0.0, 1.0]])),
        pictures=lambda split, rows: np.zeros((len(rows), 2, 2, 3)),
    )  # fmt: skip
    portrait = cluster_portraits.portraits(run_of_it.rows, np.zeros(3, int), np.array([1, 1, -1]))[0]
    row = analysis._portrait_row(run_of_it, portrait._replace(members=np.arange(3)), 3)
    assert row.colors == [figures.RIGHT, figures.WRONG, None]
    drawn = []
    monkeypatch.setattr(analysis.figures, "neighbor_sheet", lambda rows, title: drawn.extend(rows))
    monkeypatch.setattr(analysis, "_about", lambda run: {})
    analysis.draw_neighbors(run_of_it, 1, 3)
    assert [row["right"] for row in drawn] == [[True, False, None]]


@pytest.mark.parametrize(
    ("flags", "culprit"),
    [
        (("--model_dir=a,b", "--figure=mds"), "--model_dir=a,b"),
        ((f"--model_dir={','.join('abcdefgh')}", "--figure=density"), "--model_dir"),
        (("--model_dir=a", "--bank=old"), "--bank=old"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, culprit):
    process = run("la_tf.analyze", *flags)
    assert process.returncode == 2 and process.stderr.startswith(f"error: {culprit}")
