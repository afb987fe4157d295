"""Draws what a run has learned: python -m la_tf.analyze --model_dir=runs/quickstart --figure=neighbors|curves

Figures go to MODEL_DIR/report/ as PNG and SVG; `neighbors` shows test pictures with their nearest training pictures,
confident successes above, unconfident failures below (the paper's Figure 3).
"""

from collections import Counter
from pathlib import Path

import numpy as np
from absl import flags

from data import cli
from data.errors import FlagError, UserError
from la_tf.experiment import Experiment, stored_config
from la_tf.summary import epochs_of

FIGURES = ("neighbors", "curves")

flags.DEFINE_string("model_dir", None, "The run to look at.")
flags.DEFINE_string("figure", "neighbors", f"{' | '.join(FIGURES)}.")
flags.DEFINE_integer("rows", 3, "Successes and failures to show.")
flags.DEFINE_integer("nearest", 9, "Training pictures beside each.")


def main():
    """Draws the figure; returns where it lies."""
    folder, figure = flags.FLAGS["model_dir"].value, flags.FLAGS["figure"].value
    if not folder:
        raise FlagError("--model_dir: set it to the run to look at, e.g. --model_dir=runs/quickstart")
    if figure not in FIGURES:
        raise FlagError(f"--figure={figure}: choose one of {', '.join(FIGURES)}")
    for name in ("rows", "nearest"):
        if flags.FLAGS[name].value < 1:
            raise FlagError(f"--{name}={flags.FLAGS[name].value}: must be at least 1")
    config = stored_config(folder)
    target = Path(folder) / "report" / figure
    target.parent.mkdir(parents=True, exist_ok=True)
    drawn = draw_curves(folder) if figure == "curves" else draw_neighbors(config)
    from la_tf import figures

    return {"figure": [str(path) for path in figures.save(drawn, target)]}


def draw_curves(folder):
    """Returns the figure of a run's metrics.jsonl."""
    from la_tf import figures

    epochs = epochs_of(folder)
    if not epochs:
        raise UserError(f"--model_dir={folder}: no epoch has ended yet")
    return figures.curves(epochs)


def draw_neighbors(config):
    """Returns the figure of test pictures and their nearest training pictures."""
    experiment = Experiment(config)
    if experiment.no_test_score:
        raise UserError(f"--figure=neighbors: there is nothing to tell success by: {experiment.no_test_score}")
    experiment.check()
    cli.load_tensorflow()
    from la_tf import figures
    from la_tf.estimator import Estimator
    from la_tf.knn import embed, knn_votes

    estimator = Estimator(experiment.model_fn, experiment.run_config())
    if not estimator.latest_checkpoint():
        raise UserError(f"--model_dir={config.run.model_dir}: has no checkpoint yet")
    model, train, test = estimator.model, experiment.train, experiment.dataset.test
    bank, written = model.bank.float32_rows(), model.bank.written.numpy()
    labels = np.where(written, train.labels, -1)  # rows never written are nobody's neighbours
    queries, indices, truth = embed(model, experiment.batches_of(test))
    votes = knn_votes(queries, bank, labels, tau=config.method.tau, classes=experiment.dataset.class_count)
    confidence = votes.max(axis=1) / votes.sum(axis=1)
    known, right = truth >= 0, votes.argmax(axis=1) == truth
    count, nearest = flags.FLAGS["rows"].value, flags.FLAGS["nearest"].value
    chosen = [
        *_first(np.flatnonzero(right), -confidence, truth, count),
        *_first(np.flatnonzero(known & ~right), confidence, truth, count),
    ]
    names = [*(experiment.dataset.class_names or range(experiment.dataset.class_count)), "?"]  # -1: unknown
    rows = []
    for query in chosen:
        similarity = np.where(written, bank @ queries[query], -np.inf)
        order = np.argsort(-similarity, kind="stable")[:nearest]
        rows.append(
            {
                "query": experiment.pictures(test, [indices[query]])[0],
                "caption": f"{names[truth[query]]}\n{confidence[query]:.2f} sure",
                "nearest": experiment.pictures(train, order),
                "captions": [f"{names[train.labels[i]]}\n{similarity[i]:.2f}" for i in order],
                "right": train.labels[order] == truth[query],
            }
        )
    return figures.neighbor_sheet(rows, "nearest training pictures (blue: of the query's class)")


def _first(candidates, key, truth, count):
    """Returns the `count` candidates with the least key, each of another class as long as there are enough classes."""
    ordered = candidates[np.argsort(key[candidates], kind="stable")]
    seen, places = Counter(), []
    for row in ordered:
        places.append(seen[truth[row]])  # how many of its class come before it
        seen[truth[row]] += 1
    return ordered[np.argsort(places, kind="stable")][:count]


if __name__ == "__main__":
    cli.run(main)
