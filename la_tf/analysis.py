"""The figures of a run and the numbers behind them: each takes a TrainedRun and returns (figure, numbers).

What a run cannot have raises DoesNotApply. Figures of pictures and of the network need TensorFlow to be loaded.
"""

import sys
from functools import partial

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from data.figures import fitting
from la_tf import close_sets, cluster_portraits, clustering, density, embedding_figures, figures, mds, retrieval
from la_tf.nearest_rows import nearest_rows
from la_tf.scores import decide
from la_tf.summary import epochs_of
from la_tf.trained_run import DoesNotApply

CLASSES, IMAGES_OF_CLASS = 6, 100  # of Figure 4, best and worst, at most
SEED = 0  # of what a figure draws at random


def draw_curves(folder):
    """Draws a run's metrics.jsonl: loss, kNN and LA's health by epoch."""
    epochs = epochs_of(folder)
    if not epochs:
        raise DoesNotApply(f"{folder}: no epoch has ended yet")
    return figures.curves(epochs), {"epochs": epochs}


def draw_density(runs):
    """Draws local and background density over all training images of some runs (Figure 2)."""
    found = []
    for run in runs:
        of_ranks = density.ranks(len(run.rows))
        bar = partial(_bar, what=f"{run.folder.name}: neighbours", unit="block")
        found.append((of_ranks, density.densities(run.rows, of_ranks, bar)))
    curves = [
        _about(run) | {"title": run.title, "ranks": each._asdict()} for run, (each, _) in zip(runs, found, strict=True)
    ]
    for part, name in enumerate(("local", "background")):
        samples = [both[part] for _, both in found]
        edges, shares = density.histograms(samples)
        for curve, sample, share in zip(curves, samples, shares, strict=True):
            curve[name] = density.summary(sample) | {"edges": edges.tolist(), "shares": share.tolist()}
    local, background = ({words(each) for each, _ in found} for words in (_local_words, _background_words))
    return embedding_figures.density(curves, [" or ".join(sorted(local)), " or ".join(sorted(background))]), curves


def _local_words(ranks):
    return f"{ranks.local} nearest" if ranks.local > 1 else "nearest"


def _background_words(ranks):
    return f"{_ordinal(ranks.first)} to {_ordinal(ranks.last)} nearest"


def _ordinal(number):
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def draw_neighbors(run, count, nearest):
    """Draws test pictures beside their nearest training pictures (Figure 3): `count` right ones, `count` wrong ones."""
    queries, indices, truth, votes = run.judged
    predicted, confidence = decide(votes)
    both = retrieval.successes_and_failures(votes, truth, count)
    chosen = np.concatenate(both)
    if not len(chosen):
        raise DoesNotApply("no test picture with a label could be read")
    similarities, found = nearest_rows(queries[chosen], run.rows, nearest)
    shown = run.pictures(run.test, indices[chosen])
    headings = [
        "right and sure: the most confident successes",
        "wrong and unsure: the least confident failures",
    ]
    group_of = [heading for heading, part in zip(headings, both, strict=True) for _ in part]
    rows, numbers = [], []
    for place, query in enumerate(chosen):
        mates = run.images[found[place]]
        mate_labels, name = run.train.labels[mates], run.names[truth[query]]
        taken_for = run.names[predicted[query]]
        wrong = predicted[query] != truth[query]
        words = [name, *([f"taken for {taken_for}"] if wrong else []), f"confidence {confidence[query]:.2f}"]
        rows.append(
            {
                "group": group_of[place],
                "query": shown[place],
                "caption": "\n".join(words),
                "nearest": run.pictures(run.train, mates),
                "captions": [
                    f"{run.names[label]}\n{similarity:.3f}"
                    for label, similarity in zip(mate_labels, similarities[place], strict=True)
                ],
                "right": [retrieval.same_class(label, truth[query]) for label in mate_labels],
            }
        )
        numbers.append(
            {
                "index": int(indices[query]),
                "name": run.test.names[indices[query]],
                "truth": name,
                "predicted": taken_for,
                "confidence": float(confidence[query]),
                "neighbors": [
                    {
                        "index": int(mate),
                        "name": run.train.names[mate],
                        "label": run.names[label],
                        "similarity": float(s),
                    }
                    for mate, label, s in zip(mates, mate_labels, similarities[place], strict=True)
                ],
            }
        )
    title = "nearest training pictures, label and similarity (blue: of the query's class)"
    return figures.neighbor_sheet(rows, title), _about(run) | {"queries": numbers}


def draw_mds(run):
    """Draws the network's outputs for training pictures of the classes that kNN tells best and worst (Figure 4)."""
    judged = run.judged
    accuracies = retrieval.class_accuracies(judged.votes, judged.truth)
    counts = np.bincount(run.labels[run.labels >= 0], minlength=len(accuracies))
    both = mds.extremes(np.where(counts >= 2, accuracies, np.nan), CLASSES)
    if not len(both[0]):
        raise DoesNotApply("it compares classes, and needs two or more with training and with test pictures")
    panels, numbers = [], []
    for word, classes in zip(("best", "worst"), both, strict=True):
        drawn = [run.images[rows] for rows in mds.sample(run.labels, classes, IMAGES_OF_CLASS, SEED)]
        images = np.sort(np.concatenate(drawn))
        scaling = mds.scale(run.embed(images), SEED)
        shown = [
            {
                "name": run.names[label],
                "accuracy": float(accuracies[label]),
                "points": scaling.points[np.searchsorted(images, of_class)],
            }
            for label, of_class in zip(classes, drawn, strict=True)
        ]
        title = f"{len(classes)} {word} classes" if len(classes) > 1 else f"{word} class"
        panel = {"title": title, "stress_1": scaling.stress_1, "classes": shown}
        panels.append(panel)
        of_classes = [
            each | {"points": each["points"].tolist(), "images": of_class.tolist()}
            for each, of_class in zip(shown, drawn, strict=True)
        ]
        numbers.append(panel | {"stress": scaling.stress, "classes": of_classes})
    subtitle = (
        f"{fitting(run.title, 2.8, 9)} · {2 * len(both[0])} of {len(accuracies)} classes, up to {IMAGES_OF_CLASS} "
        "training images of each · percent: kNN accuracy, test split · both panels at one scale"
    )
    return embedding_figures.scaled_classes(panels, subtitle), _about(run) | {"panels": numbers}


def draw_close(run):
    """Clusters the embeddings anew and draws what C_i is like over H and m (supplement Figure 1, in numbers)."""
    rows, clusters = run.rows, run.clusters
    counts = close_sets.cluster_counts(clusters, len(rows))
    sample = run.experiment.config.method.cluster_sample or 0
    bar = partial(_bar, what=f"{run.folder.name}: clusterings", unit="m")
    labels = close_sets.cluster_anew(rows, counts, SEED, sample, bar)
    found = close_sets.measure(rows, labels, SEED)
    middle = min(counts, key=lambda m: abs(m - clusters))
    row = close_sets.typical(rows, labels[middle], SEED)
    members = {
        (h, m): np.flatnonzero((of_m[:, :h] == of_m[row, :h]).any(axis=1))
        for m, of_m in labels.items()
        for h in close_sets.CLUSTERINGS
    }
    subtitle = (
        f"{fitting(run.title, 8, 9)}\nC_i (blue) of one image (star) and its centre (+), in the plane of its "
        f"neighbours; below: mean skewness · mean size over {found[0]['images']:,} images"
    )
    points = close_sets.plane(rows, row)
    figure = embedding_figures.close_sets(found, points, row, members, clusters, subtitle)
    return figure, _about(run) | {"run_clusters": clusters, "grid": found, "shown_image": int(run.images[row])}


def close_table(numbers):
    """Returns the grid of `draw_close` as a table."""
    head = ["H", "m", "skewness", "quartiles", "size of C_i", "quartiles"]
    lines = [
        [
            each["clusterings"],
            each["clusters"],
            f"{each['skewness']['mean']:.4f}",
            f"{each['skewness']['q25']:.4f} {each['skewness']['q75']:.4f}",
            f"{each['size']['mean']:,.1f}",
            f"{each['size']['q25']:,.0f} {each['size']['q75']:,.0f}",
        ]
        for each in numbers["grid"]
    ]
    return tabulate(lines, head, disable_numparse=True, colalign=["right"] * len(head))


def draw_clusters(run, count, nearest):
    """Draws members of the `count` largest, tightest and most mixed clusters, those nearest to the centre first."""
    labels, own = run.cluster_labels, run.cluster_labels is not None
    if not own:
        sample = run.experiment.config.method.cluster_sample or 0
        labels = clustering.cluster(run.rows, run.clusters, 1, SEED, sample=sample)
    found = cluster_portraits.portraits(run.rows, labels[:, 0], run.labels)
    labelled = any(each.entropy is not None for each in found)
    groups, numbers = [], {}
    for name, chosen in cluster_portraits.choose(found, count).items():
        rows = [_portrait_row(run, each, nearest) for each in chosen]
        groups.append((HEADINGS[name] if labelled or name != "most mixed" else WIDEST, rows))
        numbers[name] = [_portrait_numbers(run, each) for each in chosen]
    origin = "the run's own, first clustering" if own else f"clustered anew, m = {run.clusters:,}"
    title = f"clusters of {run.title}: {origin}{OF_CLASS if labelled else ''}"
    about = _about(run) | {"origin": origin, "clusters": len(found)}
    return figures.sheet(title, [group for group in groups if group[1]]), about | numbers


HEADINGS = {
    "largest": "largest",
    "tightest": "tightest: least spread about the centre",
    "most mixed": "most mixed: highest entropy of the labels",
}
OF_CLASS = " (blue: of the commonest class)"
WIDEST = "most mixed: widest spread about the centre (no labels)"


def _portrait_row(run, portrait, nearest):
    members = run.images[portrait.members[:nearest]]
    labels = run.train.labels[members]
    words = [f"{len(portrait.members):,} images", f"spread {portrait.spread:.3f}"]
    colors = [None] * len(members)
    if portrait.purity is not None:
        words += [f"purity {portrait.purity:.0%}", f"mostly {run.names[portrait.commonest]}"]
        colors = [figures.FRAMES[retrieval.same_class(label, portrait.commonest)] for label in labels]
    return figures.Row("\n".join(words), list(run.pictures(run.train, members)), [""] * len(members), colors)


def _portrait_numbers(run, portrait):
    commonest = None if portrait.commonest is None else run.names[portrait.commonest]
    found = portrait._asdict() | {"size": len(portrait.members), "commonest": commonest}
    return found | {"members": run.images[portrait.members].tolist()}


def _about(run):
    """Returns what the numbers of a figure say of their run."""
    method, model = run.experiment.config.method, run.experiment.config.model
    return {
        "model_dir": str(run.folder),
        "method": method.method,
        "backbone": model.backbone,
        "step": run.step,
        "bank": run.bank,
        "images": len(run.images),
    }


def _bar(items, what, unit):
    return tqdm(items, desc=what, unit=unit, file=sys.stderr)
