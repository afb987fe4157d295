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
    """How a metric is read: `judge(values, run)` takes its values over the present phase, returns sign and comment."""

    title: str
    meaning: str
    judge: Callable
    form: str = "{:.3f}"


def readings(run):
    """Returns the Readings of a `PastRun`: every metric of METRICS that its last epoch has, in that order."""
    if not run.epochs:
        return []
    last = run.epochs[-1]
    phase = [epoch for epoch in run.epochs if epoch.get("phase") == last.get("phase")]
    found = []
    for name, metric in METRICS.items():
        if name in last:
            values = [epoch[name] for epoch in phase if name in epoch]
            sign, comment = metric.judge(values, run) if math.isfinite(values[-1]) else (BAD, "not a number")
            value = metric.form.format(values[-1], **last)
            found.append(Reading(name, metric.title, value, metric.meaning, sign, comment))
    return found


def _close_mean(values, run):
    close, k = values[-1], run.identity.get("background_k") or math.inf
    if run.identity.get("background", "knn") != "knn":
        k = math.inf
    if close < 2:
        return BAD, "next to nobody is close: LA has become Instance Recognition; take fewer clusters, or a larger k"
    if close > 0.8 * k:
        return BAD, f"C_i covers nearly all of B_i (k = {k}): no gradient is left; take more clusters, or a larger k"
    if close > k / 2:
        return WATCH, f"a large part of B_i (k = {k}); up to a third is usual"
    return GOOD, "a few, up to a third of k" if math.isinf(k) else f"a fitting part of k = {k}"


def _empty_fraction(values, run):
    if values[-1] > 0.05:
        return BAD, "many pictures learn nothing: k is too small, or embeddings move faster than the bank follows"
    return GOOD, "next to none"


def _own_in_background(values, run):
    if values[-1] < 0.9:
        return WATCH, "below 0.9: embeddings move faster than the bank follows; a longer warm start or a larger k helps"
    return GOOD, "the bank keeps up"


def _close_skewness(values, run):
    if len(values) < 4:
        return UNKNOWN, "too few epochs for a trend"
    if values[-1] > 1.1 * min(values[: len(values) // 2]):
        return WATCH, "it rises: clusters lose their shape"
    return GOOD, "it does not rise"


def _cluster_sizes(values, run):
    last = run.epochs[-1]
    if values[-1] > 10 * last.get("cluster_median", math.inf):
        return BAD, "the largest has over ten times the median: one cluster swallows the rest"
    return GOOD, "none swallows the rest"


def _nmi_previous(values, run):
    chance = run.epochs[-1].get("nmi_chance")
    if chance is not None:
        noise = values[-1] <= 1.05 * chance
        return (BAD, "no more than chance") if noise else (GOOD, f"above chance ({chance:.2f})")
    if values[-1] < 0.2:
        return (BAD if len(values) > 3 else WATCH), "near 0: clusters are noise"
    return GOOD, "clusters last from one time to the next"


def _nmi_between(values, run):
    if values[-1] > 0.98:
        return WATCH, "all clusterings are one: H of them buy nothing"
    return GOOD, "clusterings differ"


def _purity(values, run):
    knn = next((run.epochs[-1][name] for name in ("knn_top1", "validation_knn_top1") if name in run.epochs[-1]), None)
    if knn is not None and values[-1] < knn - 0.2:
        return WATCH, f"far below kNN ({knn:.2f}): warm up longer, or take more clusters"
    if len(values) > 3 and values[-1] < max(values) - 0.05:
        return WATCH, f"it was {max(values):.2f}"
    return GOOD, "in step with kNN" if knn is not None else "it does not fall"


def _search_recall(values, run):
    return (GOOD, "above 0.95") if values[-1] >= 0.95 else (WATCH, "below 0.95: raise --visited_rows")


def _unclustered(values, run):
    return (WATCH, "most are noise: raise --dbscan_eps") if values[-1] > 0.5 else (GOOD, "most have a cluster")


def _clusters_empty(values, run):
    clusters = run.identity.get("clusters") or math.inf
    return (BAD, "half of the classes are empty: collapse") if values[-1] > clusters / 2 else (GOOD, "few")


def _code_perplexity(values, run):
    prototypes = run.identity.get("prototypes") or math.inf
    near = values[-1] > 0.8 * prototypes
    return (BAD, "near the number of prototypes: collapse") if near else (GOOD, "codes tell pictures apart")


def _bad_images(values, run):
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
    "bad_images": Metric("Unreadable pictures", "Training pictures that could not be read.", _bad_images, "{}"),
}  # fmt: skip
