"""What a method's own metrics mean, and whether their last values are good: the bounds of the field, one rule each."""

import math
from collections.abc import Callable
from dataclasses import dataclass

GOOD, WATCH, BAD, UNKNOWN = "good", "watch", "bad", "unknown"


@dataclass(frozen=True)
class Reading:
    """A metric of a run as it stands: `meaning` is a sentence, `comment` a few words that go with the sign."""

    name: str
    title: str
    value: str
    meaning: str
    sign: str
    comment: str


@dataclass(frozen=True)
class Metric:
    """How a metric is read: `judge(values, epoch, run)` returns sign and comment.

    values: those of the present phase, in order; epoch: the metrics of the epoch that the last of them is of.
    """

    title: str
    meaning: str
    judge: Callable
    form: str = "{:.3f}"


def readings(run):
    """Returns the Readings of a `PastRun`: every metric of METRICS that the present phase has, in that order.

    Each is of the newest epoch that has it: those of clusters come only where clusters are renewed.
    """
    phase = [epoch for epoch in run.epochs if epoch.get("phase") == run.epochs[-1].get("phase")]
    known = {name: [epoch for epoch in phase if name in epoch] for name in METRICS}
    return [_reading(name, epochs, run) for name, epochs in known.items() if epochs]


def _reading(name, epochs, run):
    metric, newest = METRICS[name], epochs[-1]
    values = [epoch[name] for epoch in epochs]
    sign, comment = metric.judge(values, newest, run) if math.isfinite(values[-1]) else (BAD, "not a number")
    if newest is not run.epochs[-1]:
        comment += f" (measured in epoch {newest['epoch'] + 1})"
    value = metric.form.format(values[-1], **{"cluster_min": math.nan, "cluster_median": math.nan, **newest})
    return Reading(name, metric.title, value, metric.meaning, sign, comment)


def _close_mean(values, epoch, run):
    chosen = run.identity.get("close") or "clusters"
    if chosen == "self":
        return UNKNOWN, "C_i is the picture's own row, as --close=self wants it"
    more, fewer = {
        "clusters": ("fewer clusters", "more clusters"),
        "knn": ("a larger --close_k", "a smaller --close_k"),
    }[chosen]
    close, k = values[-1], run.identity.get("background_k") or math.inf
    if run.identity.get("background", "knn") != "knn":
        k = math.inf
    if close < 2:
        return BAD, f"next to nobody is close: LA has become Instance Recognition; take {more}, or a larger k"
    if close > 0.8 * k:
        return BAD, f"C_i covers nearly all of B_i (k = {k}): no gradient is left; take {fewer}, or a larger k"
    if close > k / 2:
        return WATCH, f"a large part of B_i (k = {k}); up to a third is usual"
    return GOOD, "a few, up to a third of k" if math.isinf(k) else f"a fitting part of k = {k}"


def _empty_fraction(values, epoch, run):
    if values[-1] > 0.05:
        return BAD, "many pictures learn nothing: k is too small, or embeddings move faster than the bank follows"
    return GOOD, "next to none"


def _own_in_background(values, epoch, run):
    if values[-1] < 0.9:
        return WATCH, "below 0.9: embeddings move faster than the bank follows; a longer warm start or a larger k helps"
    return GOOD, "the bank keeps up"


def _close_skewness(values, epoch, run):
    if len(values) < 4:
        return UNKNOWN, "too few epochs for a trend"
    if values[-1] > 1.1 * min(values[: len(values) // 2]):
        return WATCH, "it rises: clusters lose their shape"
    return GOOD, "it does not rise"


def _cluster_sizes(values, epoch, run):
    if values[-1] > 10 * epoch.get("cluster_median", math.inf):
        return BAD, "the largest has over ten times the median: one cluster swallows the rest"
    return GOOD, "none swallows the rest"


def _nmi_previous(values, epoch, run):
    chance = epoch.get("nmi_chance")
    if chance is not None:
        noise = values[-1] <= 1.05 * chance
        return (BAD, "no more than chance") if noise else (GOOD, f"above chance ({chance:.2f})")
    if values[-1] < 0.2:
        return (BAD if len(values) > 3 else WATCH), "near 0: clusters are noise"
    return GOOD, "clusters last from one time to the next"


def _nmi_between(values, epoch, run):
    if values[-1] > 0.98:
        return WATCH, "all clusterings are one: H of them buy nothing"
    return GOOD, "clusterings differ"


def _purity(values, epoch, run):
    knn = epoch.get("knn_top1", epoch.get("validation_knn_top1"))
    if knn is not None and values[-1] < knn - 0.2:
        return WATCH, f"far below kNN ({knn:.2f}): warm up longer, or take more clusters"
    if len(values) > 3 and values[-1] < max(values) - 0.05:
        return WATCH, f"it was {max(values):.2f}"
    return GOOD, "in step with kNN" if knn is not None else "it does not fall"


def _search_recall(values, epoch, run):
    return (GOOD, "above 0.95") if values[-1] >= 0.95 else (WATCH, "below 0.95: raise --visited_rows")


def _unclustered(values, epoch, run):
    return (WATCH, "most are noise: raise --dbscan_eps") if values[-1] > 0.5 else (GOOD, "most have a cluster")


def _clusters_empty(values, epoch, run):
    clusters = run.identity.get("clusters") or math.inf
    return (BAD, "half of the classes are empty: collapse") if values[-1] > clusters / 2 else (GOOD, "few")


def _code_perplexity(values, epoch, run):
    prototypes = run.identity.get("prototypes") or math.inf
    near = values[-1] > 0.8 * prototypes
    return (BAD, "near the number of prototypes: collapse") if near else (GOOD, "codes tell pictures apart")


def _mean_similarity(values, epoch, run):
    if values[-1] > 0.95:
        return BAD, "all embeddings are alike: collapse, or nothing learned yet"
    if values[-1] > 0.5:
        return WATCH, "embeddings fill a narrow cone: near the start that is usual, later a sign of too few steps"
    return GOOD, "embeddings point in many directions"


def _rollbacks(values, epoch, run):
    return WATCH, "each time the loss was no number, and the learning rate was halved: begin with a lower one"


def _bad_images(values, epoch, run):
    return (WATCH, "they are left out; bad_images.csv says why") if values[-1] else (GOOD, "all can be read")


METRICS = {
    "close_mean": Metric(
        "Close neighbours that count, |C ∩ B|",
        "How many close neighbours a picture is drawn towards, on average.",
        _close_mean,
        "{:.1f}",
    ),
    "empty_fraction": Metric(
        "Pictures without close neighbours",
        "Share of pictures none of whose close neighbours is a background one; they learn nothing in that step.",
        _empty_fraction,
        "{:.1%}",
    ),
    "own_in_background": Metric(
        "Own row in the background",
        "Share of pictures that find their own row of the bank among their k nearest: whether the bank is up to date.",
        _own_in_background,
        "{:.1%}",
    ),
    "close_skewness": Metric(
        "Skewness of C",
        "Distance from a picture's row to the centre of its close neighbours: how lopsided the groups are.",
        _close_skewness,
    ),
    "cluster_max": Metric(
        "Cluster sizes",
        "Least, median and largest number of pictures in a cluster, over all clusterings.",
        _cluster_sizes,
        "{cluster_min} / {cluster_median:.0f} / {cluster_max}",
    ),
    "nmi_previous": Metric(
        "NMI with the last clustering",
        "How much a clustering tells about the one before it, from 0 (nothing) to 1 (the same).",
        _nmi_previous,
    ),
    "nmi_between": Metric(
        "NMI between clusterings",
        "How much the clusterings of one epoch tell about each other; at 1 they are all the same.",
        _nmi_between,
    ),
    "purity": Metric(
        "Purity",
        "Share of pictures in the commonest class of their cluster. Labels serve this number alone.",
        _purity,
        "{:.1%}",
    ),
    "search_recall": Metric(
        "Recall of the search in cells",
        "Share of the true background neighbours that the approximate search finds.",
        _search_recall,
    ),
    "unclustered_fraction": Metric(
        "Unclustered", "Share of pictures that DBSCAN calls noise: they are close to themselves alone.", _unclustered,
        "{:.1%}",
    ),
    "clusters_empty": Metric(
        "Empty classes", "Classes of DeepCluster that no picture is in.", _clusters_empty, "{}"
    ),
    "code_perplexity": Metric(
        "Spread of the codes", "Over how many prototypes a picture's code is spread.", _code_perplexity, "{:.1f}"
    ),
    "mean_similarity": Metric(
        "Mean similarity in the bank",
        "How alike the embeddings of two pictures are on average: 0 in all directions, 1 all the same.",
        _mean_similarity,
    ),
    "rollbacks": Metric(
        "Rollbacks", "How often the run went back to a checkpoint, as --on_nan=rollback wants it.", _rollbacks, "{}"
    ),
    "bad_images": Metric("Unreadable pictures", "Training pictures that could not be read.", _bad_images, "{}"),
}  # fmt: skip
