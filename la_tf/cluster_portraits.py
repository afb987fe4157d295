"""Which clusters of a clustering are worth a look: the largest, the tightest, the most mixed."""

from typing import NamedTuple

import numpy as np

LEAST_MEMBERS = 3  # of a cluster that is called tight or mixed
LEAST_SHARE = 0.5  # of the median size, likewise: small clusters are tight or mixed by chance


class Portrait(NamedTuple):
    """One cluster: `members` (rows, the nearest to the centre first), and what is known of them.

    spread is the mean squared distance to the centre, of unit rows 0 to 1. Where no member has a label, purity,
    entropy (bits) and commonest (a class) are None.
    """

    label: int
    members: np.ndarray
    spread: float
    purity: float | None
    entropy: float | None
    commonest: int | None


def portraits(rows, labels, truth):
    """Returns a Portrait of every cluster of `labels` `[n]` (-1: in none) of unit `rows` `[n, D]`.

    truth `[n]` holds the classes, -1 where unknown; these members count neither for nor against purity.
    """
    found = []
    for label in np.unique(labels[labels >= 0]):
        members = np.flatnonzero(labels == label)
        centre = rows[members].mean(axis=0, dtype=np.float64)
        distances = np.square(rows[members] - centre).sum(axis=1)
        members = members[np.argsort(distances, kind="stable")]
        found.append(Portrait(int(label), members, float(distances.mean()), *_mixture(truth[members])))
    return found


def _mixture(truth):
    """Returns purity, entropy in bits and the commonest class (of equals the lowest) of the known `truth` `[n]`."""
    counts = np.bincount(truth[truth >= 0])
    if not counts.sum():
        return None, None, None
    shares = counts[counts > 0] / counts.sum()
    entropy = abs(float(shares @ np.log2(shares)))
    return float(shares.max()), entropy, int(counts.argmax())


def choose(found, count):
    """Returns {"largest": .., "tightest": .., "most mixed": ..}, at most `count` of the Portraits `found` each.

    Mixed is what has the highest entropy, or without any label the widest spread. Ties go to the lower label.
    """
    median = np.median([len(each.members) for each in found])
    typical = [each for each in found if len(each.members) >= max(LEAST_MEMBERS, LEAST_SHARE * median)]
    labelled = [each for each in typical if each.entropy is not None]
    if labelled:
        mixed = sorted(labelled, key=lambda each: -each.entropy)
    else:
        mixed = sorted(typical, key=lambda each: -each.spread)
    return {
        "largest": sorted(found, key=lambda each: -len(each.members))[:count],
        "tightest": sorted(typical, key=lambda each: each.spread)[:count],
        "most mixed": mixed[:count],
    }
