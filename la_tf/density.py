"""How dense an embedding is around each image, near by and farther off (section 5.1, Figure 2)."""

from typing import NamedTuple

import numpy as np

from la_tf.nearest_rows import QUERIES, nearest_others
from la_tf.resolve import BACKGROUND_SHARE, LEAST_BACKGROUND

LOCAL, BACKGROUND = 30, (1000, 4096)  # ranks of the paper's neighbours, on ImageNet; the image itself has none
BINS = 40
TAIL = 0.002  # of the images, at either end: a few outliers would press all others into one bin


class Ranks(NamedTuple):
    """Which neighbours count: the first `local` ones, and the `first`th to the `last`th, inclusive."""

    local: int
    first: int
    last: int


def ranks(size):
    """Returns the Ranks for `size` (N) images, at least 3: the paper's, or the same share of a smaller N.

    As with B_i, the share is at least 128 neighbours, which begin behind the 30 nearest ones; fewer images have fewer.
    """
    last = min(size - 1, BACKGROUND[1], max(LEAST_BACKGROUND, round(size * BACKGROUND_SHARE)))
    first = max(2, round(last * BACKGROUND[0] / BACKGROUND[1]))
    return Ranks(min(LOCAL, first - 1), first, last)


def densities(rows, of_ranks, progress=iter):
    """Returns the local and the background density `[N]` of unit `rows` `[N, D]`: the mean similarity to neighbours.

    Which neighbours, `of_ranks` says. The search is exact, in blocks, and leaves the row itself out (not its copies).
    `progress` wraps the list of blocks.
    """
    local, background = np.empty(len(rows)), np.empty(len(rows))
    for start in progress(range(0, len(rows), QUERIES)):
        part = slice(start, min(start + QUERIES, len(rows)))
        others, _ = nearest_others(rows, np.arange(part.start, part.stop), of_ranks.last)
        others = others.astype(np.float64)
        local[part] = others[:, : of_ranks.local].mean(axis=1)
        background[part] = others[:, of_ranks.first - 1 :].mean(axis=1)
    return local, background


def histograms(samples):
    """Returns common edges `[BINS + 1]` and for each of `samples`, arrays, the share of it in each bin `[BINS]`.

    The edges go to the quantiles TAIL and 1 - TAIL of all samples alike; what lies beyond is in the outermost bins.
    """
    low, high = min(np.quantile(each, TAIL) for each in samples), max(np.quantile(each, 1 - TAIL) for each in samples)
    if high - low < 1e-6:  # all alike: a bin has to have a width
        low, high = low - 1e-3, high + 1e-3
    edges = np.linspace(low, high, BINS + 1)
    return edges, [np.histogram(np.clip(each, low, high), edges)[0] / len(each) for each in samples]


def summary(sample):
    """Returns mean, deviation and quantiles of an array as a dict."""
    quantiles = {f"q{share:02d}": float(np.quantile(sample, share / 100)) for share in (5, 25, 50, 75, 95)}
    return {"mean": float(np.mean(sample)), "deviation": float(np.std(sample)), **quantiles}
