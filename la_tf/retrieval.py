"""Which pictures show best what a nearest-neighbour classifier gets right and wrong (section 5.1, Figure 3)."""

from collections import Counter

import numpy as np

from la_tf.scores import decide


def successes_and_failures(votes, truth, count):
    """Returns the queries of the confident successes and of the unconfident failures, at most `count` of each.

    votes are `[Q, classes]`, truth `[Q]` (-1: unknown, neither). Successes by falling confidence, failures by rising
    confidence, as in Figure 3; each of another class as long as there are enough classes.
    """
    predicted, confidence = decide(votes)
    known, right = truth >= 0, predicted == truth
    heard = predicted >= 0  # where nobody voted, nothing was taken for anything
    return (
        _first(np.flatnonzero(known & right), -confidence, truth, count),
        _first(np.flatnonzero(known & heard & ~right), confidence, truth, count),
    )


def _first(candidates, key, truth, count):
    """Returns the `count` candidates with the least key, each of another class as long as there are enough classes."""
    ordered = candidates[np.argsort(key[candidates], kind="stable")]
    seen, places = Counter(), []
    for row in ordered:
        places.append(seen[truth[row]])  # how many of its class come before it
        seen[truth[row]] += 1
    return ordered[np.argsort(places, kind="stable")][:count]


def same_class(label, other):
    """Returns whether two pictures are of one class by their labels, None where one of these is unknown (-1)."""
    return None if min(label, other) < 0 else bool(label == other)


def class_accuracies(votes, truth):
    """Returns the share of the queries of each class that `votes` `[Q, classes]` get right, NaN for one without any."""
    classes = votes.shape[1]
    predicted, _ = decide(votes)
    known = truth >= 0
    asked = np.bincount(truth[known], minlength=classes)
    right = np.bincount(truth[known & (predicted == truth)], minlength=classes)
    return np.divide(right, asked, out=np.full(classes, np.nan), where=asked > 0)
