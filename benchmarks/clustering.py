"""What it costs to renew H clusterings an epoch later, beside cold runs: python -m benchmarks.clustering [--full]

The rows are those of a run of cifar10.flags on `LA_TF_DATA`/cifar10, at 16 px for its epochs to be short, without it of
quickstart.flags on the digits: its bank before and after an epoch of the warm start, and fresh embeddings of five views
of each picture by the networks of both moments. The run is made once and kept in build/. The other side is Faiss as it
comes, ITERATIONS of k-means from rows drawn at random.
"""

import hashlib
import json
import os
import statistics
import sys
import time
from itertools import combinations
from pathlib import Path

import faiss
import numpy as np
from absl import flags
from sklearn.metrics import normalized_mutual_info_score

from benchmarks.timing import alternate, median_ratio, report
from data.cli import load_tensorflow
from la_tf import clustering
from la_tf import flags as la_flags
from la_tf.cluster_health import health, objective
from la_tf.experiment import Experiment
from la_tf.resolve import WARM_ITERATIONS, clusters_of

ROOT = Path(__file__).parents[1]
CLUSTERINGS, OF_VIEWS, VIEWS = 10, 3, 5  # H, that of the views without --full, views of a picture
# Epochs of Instance Recognition before the one more, and what else.
PRESETS = {"cifar10": (10, ["--image_size=16"]), "quickstart": (44, [])}
LARGEST_BATCH = 256
VIEW_EPOCH = 1000  # of the random numbers of the five views: one that the run does not come to
CLOSE_SAMPLE = 1000  # rows whose C_i is counted


def experiment_of(preset, dataset, folder):
    """Returns the run: so many epochs of Instance Recognition, then one more."""
    epochs, more = PRESETS[preset]
    flags.FLAGS(
        [
            "clustering",
            f"--flagfile={ROOT / preset}.flags",
            f"--dataset={dataset}",
            f"--model_dir={folder}",
            f"--clusterings={CLUSTERINGS}",
            f"--epochs={epochs + 1}",
            "--method=ir",  # LA's warm start
            *more,
        ]
    )
    return Experiment(la_flags.config())


def snapshots():
    """Returns (name, rows before, rows after), each `[n, D]`, of the bank and of the views; kept in build/."""
    data = os.environ.get("LA_TF_DATA")
    preset, dataset = ("cifar10", f"folder:{data}/cifar10") if data else ("quickstart", "digits")
    scratch = ROOT / "build" / "benchmarks"
    experiment = experiment_of(preset, dataset, scratch / "unset")
    made_of = json.dumps([experiment.identity(), experiment.max_steps, VIEWS], sort_keys=True)
    folder = scratch / f"clustering-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"
    kept = folder / "rows.npz"
    if not kept.exists():
        experiment = experiment_of(preset, dataset, folder / "run")
        print(f"training {experiment.max_steps} steps of {preset}.flags for the rows", file=sys.stderr)
        rows = trained(experiment)
        with open(folder / "rows.part", "wb") as file:
            np.savez(file, **rows)
        os.rename(file.name, kept)
    with np.load(kept) as rows:
        return preset, [(name, rows[f"{name}_before"], rows[f"{name}_after"]) for name in ("bank", "views")]


def trained(experiment):
    """Trains; returns the rows of both moments by name."""
    from la_tf.estimator import Estimator
    from la_tf.specs import TrainSpec

    estimator = Estimator(experiment.model_fn, experiment.run_config())
    rows = {}
    for moment, steps in (
        ("before", experiment.max_steps - experiment.steps_per_epoch),
        ("after", experiment.max_steps),
    ):
        estimator.train(TrainSpec(experiment.input_fn, steps, experiment.steps_per_epoch))
        rows[f"bank_{moment}"] = estimator.model.bank.rows.numpy()[estimator.model.bank.written.numpy()]
        rows[f"views_{moment}"] = embedded_views(estimator.model, experiment)
    return rows


def embedded_views(model, experiment):
    """Returns embeddings `[VIEWS * N, D]` of training views, the same at every call, in one order."""
    from data import pipeline
    from la_tf.knn import embed

    split = experiment.train
    batch = next(size for size in range(LARGEST_BATCH, 0, -1) if split.size % size == 0)  # nothing is left over
    steps = split.size // batch
    views = pipeline.training_batches(split, experiment.views[0], batch, seed=0, first_step=VIEW_EPOCH * steps)
    return embed(model, views.take(VIEWS * steps))[0]


def cold_faiss(rows, clusters, clusterings):
    """Returns labels `[n, H]` of Faiss's own k-means, all rows, ITERATIONS each."""
    labels = []
    for h in range(clusterings):
        kmeans = faiss.Kmeans(
            rows.shape[1],
            clusters,
            niter=clustering.ITERATIONS,
            seed=h + 1,
            min_points_per_centroid=1,
            max_points_per_centroid=len(rows),
        )
        kmeans.train(rows)
        labels.append(kmeans.assign(rows)[1])
    return np.stack(labels, axis=1).astype(np.int32)


def close_size(labels):
    """Returns the mean |C_i| over a sample of rows."""
    rows = np.random.default_rng(0).permutation(len(labels))[:CLOSE_SAMPLE]
    return float(np.mean([(labels == labels[i]).any(axis=1).sum() for i in rows]))


def mutual_information(labels):
    """Returns the mean normalised mutual information of all pairs of clusterings."""
    return float(np.mean([normalized_mutual_info_score(a, b) for a, b in combinations(labels.T, 2)]))


def compare(rows_are, before, after, clusterings):
    """Measures a refresh of clusterings of `before` `[n, D]` on `after` against cold runs."""
    clusters = clusters_of(len(after))
    previous = cold_faiss(before, clusters, clusterings)
    found = {}

    def refresh():
        found["refresh"] = clustering.cluster(
            after, clusters, clusterings, seed=0, previous=previous, iterations=WARM_ITERATIONS, moment=1
        )

    def cold():
        found["cold"] = cold_faiss(after, clusters, clusterings)

    seconds = alternate({"refresh": refresh, "cold": cold}, rounds=3)
    size = {"rows": rows_are, "N": len(after), "m": clusters, "H": clusterings}
    report(
        "refresh_vs_cold",
        median_ratio(seconds["refresh"], seconds["cold"]),
        "ratio",
        **{f"{side}_s": statistics.median(each) for side, each in seconds.items()},
        iterations=WARM_ITERATIONS,
        **size,
    )
    objectives = {side: objective(after, labels) for side, labels in found.items()}
    report("refresh_objective", objectives["refresh"] / objectives["cold"], "ratio", **objectives, **size)
    sizes = {side: close_size(labels) for side, labels in found.items()}
    report("refresh_close_size", sizes["refresh"] / sizes["cold"], "ratio", **sizes, **size)
    shared = {side: mutual_information(labels) for side, labels in found.items()}
    report("refresh_nmi_excess", shared["refresh"] - shared["cold"], "NMI", **shared, **size)
    started = time.perf_counter()
    health(after, found["refresh"], previous)
    report(
        "health_vs_refresh", (time.perf_counter() - started) / statistics.median(seconds["refresh"]), "ratio", **size
    )


def main():
    """Measures a refresh against cold runs, on the bank and on the views."""
    load_tensorflow()
    preset, moments = snapshots()
    for name, before, after in moments:
        of_all = name == "bank" or "--full" in sys.argv[1:]
        compare(f"{preset} {name}", before, after, CLUSTERINGS if of_all else OF_VIEWS)


if __name__ == "__main__":
    main()
