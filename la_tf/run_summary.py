"""Is it working? What the metrics of a run say in plain words: kNN against chance and its best, loss, health.

Every rule is a small function from numbers to Findings, so that its bounds can be read and tested.
"""

import itertools
import math
from dataclasses import dataclass
from statistics import mean

from la_tf.metric_signs import BAD, GOOD, UNKNOWN, WATCH, readings

# Of what lies between chance and 1, the share that a kNN has to win: less is nothing, or weak.
NOTHING, WEAK = 0.05, 0.25
ALIKE = 0.9  # mean cosine similarity to far neighbours above which everything is alike
FALL = 0.02  # of kNN, below its best or below the switch, that is more than noise
SPLITS = {"knn_top1": "test", "validation_knn_top1": "validation"}


@dataclass(frozen=True)
class Finding:
    """One thing that a run's numbers say: a sign of `metric_signs`, a title, and a sentence or two."""

    sign: str
    title: str
    text: str


@dataclass(frozen=True)
class Summary:
    """The verdict on a run, a few words with their sign, and what it rests on."""

    sign: str
    verdict: str
    findings: tuple[Finding, ...]


def summarize(run, untrained=None, histograms=None):
    """Returns the Summary of a `PastRun`.

    Where known, `untrained` is the kNN of an untrained network of its kind, and `histograms` (`edges`, `far`) are
    those of similarities in its bank.
    """
    if not run.trained_here:
        return Summary(UNKNOWN, "Results alone: the network was not trained here.", ())
    if not run.epochs:
        return Summary(UNKNOWN, "No epoch has ended yet: nothing can be said.", ())
    if run.method == "random":
        text = "An untrained network, which learns nothing: the bar that others have to clear."
        return Summary(UNKNOWN, text, (*_last_knn(run.epochs),))
    found = (
        *knn_findings(run.epochs, run.classes, untrained),
        *switch_findings(run.epochs),
        *loss_findings(run.epochs, run.method),
        *health_findings(run),
        *(spread_findings(histograms.edges, histograms.far) if histograms else ()),
    )
    return Summary(*verdict(found, scored=bool(_knn(run.epochs)[1])), found)


def verdict(findings, scored):
    """Returns the sign and the words that follow from all findings together; `scored`: whether there is any kNN."""
    signs = {finding.sign for finding in findings}
    by_title = {finding.title: finding.sign for finding in findings}
    judged = by_title.get("kNN", UNKNOWN)
    if judged == BAD:
        return BAD, "It is not working: neighbours tell no more than they would without training."
    if BAD in signs:
        return BAD, "Something is wrong." if judged == UNKNOWN else "It learns something, but something is wrong."
    if judged == UNKNOWN:
        if by_title.get("Loss", UNKNOWN) == UNKNOWN:
            return UNKNOWN, "Too early to tell."
        missing = "What chance comes to is unknown, and so how good" if scored else "No score tells how good"
        return (WATCH if WATCH in signs else GOOD), f"{missing} it is; the loss and the clusters are shown."
    if judged == WATCH:
        return WATCH, "It learns something, but not much yet."
    return (WATCH, "It is working, with something to look at.") if WATCH in signs else (GOOD, "It is working.")


def knn_findings(epochs, classes, untrained=None):
    """Yields how kNN stands to chance (1 / classes), to an untrained network, and to its own best."""
    metric, known = _knn(epochs)
    if not known:
        yield Finding(UNKNOWN, "kNN", "There is no kNN score: no labels, or no evaluation yet.")
        return
    last = known[-1][metric]
    text = f"{last:.1%} of the {SPLITS[metric]} pictures are of the class that their nearest training pictures vote for"
    floors = []
    if classes > 1:
        floors.append(1 / classes)
        text += f"; by chance it would be {1 / classes:.1%}"
    if untrained is not None:
        floors.append(untrained)
        text += f"; an untrained network comes to {untrained:.1%}"
    if not floors:
        yield Finding(UNKNOWN, "kNN", f"{text}. How many classes there are, and so what chance is, is unknown.")
    else:
        won = (last - max(floors)) / (1 - max(floors))
        sign, words = (BAD, "no better") if won < NOTHING else (WATCH, "better, but weak") if won < WEAK else (GOOD, "")
        yield Finding(sign, "kNN", f"{text}{': ' if words else ''}{words}.")
    best = max(known, key=lambda epoch: epoch[metric])
    if len(known) > 1:
        fallen = best[metric] - last
        where = f"The best was {best[metric]:.1%} in epoch {best['epoch'] + 1} of {known[-1]['epoch'] + 1}"
        if fallen > FALL:
            yield Finding(WATCH, "kNN and its best", f"{where}; it has fallen by {100 * fallen:.1f} points since.")
        else:
            yield Finding(GOOD, "kNN and its best", f"{where}; the last is within {100 * FALL:.0f} points of it.")


def switch_findings(epochs):
    """Yields what happened to kNN at the switch from the warm start (phase `ir`) to Local Aggregation."""
    metric, known = _knn(epochs)
    before = [epoch[metric] for epoch in known if epoch.get("phase") == "ir"]
    after = [epoch[metric] for epoch in known if epoch.get("phase") == "la"]
    if not before or not after:
        return
    change = after[-1] - before[-1]
    text = f"kNN was {before[-1]:.1%} at the switch from the warm start and is {after[-1]:.1%} now"
    if change < -FALL:
        yield Finding(BAD, "Switch to LA", f"{text}: switched too early, or k and m do not fit; raise --warmup_epochs.")
    else:
        yield Finding(GOOD, "Switch to LA", f"{text}.")


def loss_findings(epochs, method):
    """Yields where the loss goes within the phase that the run is in."""
    phase = epochs[-1].get("phase")
    losses = [epoch["loss"] for epoch in epochs if epoch.get("phase") == phase and "loss" in epoch]
    if not losses:
        return
    if not all(map(math.isfinite, losses)):
        yield Finding(BAD, "Loss", "It is not a number: training has failed; lower --learning_rate.")
    elif method == "dc":
        yield Finding(UNKNOWN, "Loss", "DeepCluster's begins anew with every clustering: look at its curve.")
    elif len(losses) < 4:
        yield Finding(UNKNOWN, "Loss", f"{_epochs(len(losses))} in this phase: too few for a trend.")
    else:
        quarter = len(losses) // 4
        first, last = mean(losses[:quarter]), mean(losses[-quarter:])
        where = f"from {first:.3g} to {last:.3g} over the {_epochs(len(losses))} of phase {phase}"
        change = (last - first) / max(abs(first), 1e-12)
        if change > 0.02:
            yield Finding(WATCH, "Loss", f"It rises, {where}.")
        elif change > -0.01:
            yield Finding(WATCH, "Loss", f"It stays where it was, {where}.")
        else:
            yield Finding(GOOD, "Loss", f"It falls, {where}.")


def health_findings(run):
    """Yields what of the method's own metrics is not as it should be, or that all of them are."""
    judged = [reading for reading in readings(run) if reading.sign != UNKNOWN]
    for reading in judged:
        if reading.sign != GOOD:
            yield Finding(reading.sign, reading.title, f"{reading.value}: {reading.comment}.")
    own = [reading.sign for reading in judged if reading.name != "bad_images"]  # which is the data's health
    if own and {*own} == {GOOD}:
        yield Finding(GOOD, "Health", "The method's own numbers are as they should be.")


def spread_findings(edges, far):
    """Yields whether embeddings are spread out: `far` `[b]` shares of similarities to far neighbours, by `edges`."""
    middles = [(low + high) / 2 for low, high in itertools.pairwise(edges)]
    alike = float(sum(middle * share for middle, share in zip(middles, far, strict=True)) / sum(far))
    text = f"The mean similarity to far neighbours is {alike:.2f}"
    if alike > ALIKE:
        yield Finding(BAD, "Spread", f"{text}: nearly all pictures are alike to it; collapsed, or hardly begun.")
    else:
        yield Finding(GOOD, "Spread", f"{text}: embeddings tell pictures apart.")


def untrained_knn(runs):
    """Returns for each of `runs` (PastRuns) the kNN of an untrained network of its kind among them, None without one.

    Of its kind: the same backbone and width, on the same pictures, of the same size.
    """
    found = {_kind(run): run.epochs[-1].get("knn_top1") for run in runs if run.method == "random" and run.epochs}
    return [found.get(_kind(run)) for run in runs]


def _kind(run):
    return tuple(run.identity.get(name) for name in ("data", "image_size", "backbone", "width"))


def _last_knn(epochs):
    metric, known = _knn(epochs)
    if known:
        yield Finding(UNKNOWN, "kNN", f"{known[-1][metric]:.1%} of the {SPLITS[metric]} pictures.")


def _knn(epochs):
    """Returns the metric to judge by, that of the test split where there is one, and the epochs that have it."""
    for metric in SPLITS:
        known = [epoch for epoch in epochs if metric in epoch]
        if known:
            return metric, known
    return "knn_top1", []


def _epochs(count):
    return f"{count} epoch{'s' if count > 1 else ''}"
