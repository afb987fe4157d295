"""How sure a difference is that was measured with a few seeds on the same test pictures. No TensorFlow."""

from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean with the ends of its 95% interval, and the standard error and degrees of freedom behind them."""

    mean: float
    low: float
    high: float
    error: float
    freedom: float

    @property
    def decided(self):
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0

    @property
    def p_value(self):
        """How probable a mean at least as far from zero is where the truth is zero (Student's t, both sides)."""
        if not self.error:
            return float(not self.mean)
        return float(2 * stats.t.sf(abs(self.mean) / self.error, self.freedom))


def of_seeds(values):
    """Returns the Interval of a mean of independent `values` `[S]` by Student's t; S >= 2."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        raise ValueError(f"{len(values)} values have no interval")
    return _interval(values.mean(), values.var(ddof=1) / len(values), len(values) - 1)


def of_seeds_and_pictures(scores):
    """Returns the Interval of the mean of `scores` `[S, n]`: of S seeds, each judged on the same n test pictures.

    Both seeds and pictures count as drawn at random, so other seeds and other pictures of the same kind may be
    expected to come to a mean within it. Of paired differences of two methods `scores` are (right by the one) - (right
    by the other), with the same seeds. It is the two-way analysis of variance of crossed random effects,
    var(mean) = (MS_seeds + MS_pictures - MS_rest) / (S n), with Satterthwaite's degrees of freedom: what drawing seeds
    and pictures anew with replacement would tend to, but with Student's t for how few the seeds are. S, n >= 2.
    """
    scores = np.asarray(scores, np.float64)
    seeds, pictures = scores.shape
    if min(seeds, pictures) < 2:
        raise ValueError(f"{seeds} seeds and {pictures} pictures have no interval")
    mean, by_seed, by_picture = scores.mean(), scores.mean(axis=1), scores.mean(axis=0)
    rest = scores - by_seed[:, None] - by_picture + mean
    squares = np.array(
        [pictures * by_seed.var(ddof=1), seeds * by_picture.var(ddof=1), np.square(rest).sum() / _product(scores)]
    )
    freedoms = np.array([seeds - 1, pictures - 1, _product(scores)])
    # The estimate may fall below what one of the two alone comes to; then the larger of these stands.
    total = max(squares[0] + squares[1] - squares[2], squares[0], squares[1])
    freedom = total**2 / (np.square(squares) / freedoms).sum() if total else seeds - 1
    return _interval(mean, total / scores.size, min(freedom, seeds * pictures - 1))


def holm(p_values):
    """Returns for each of `p_values` whether it stands as one of all of them, `[n]` bool.

    That any of those that stand is of a difference that does not exist has a probability of at most 5% (Holm 1979).
    """
    p_values = np.asarray(p_values, np.float64)
    order = np.argsort(p_values)
    fine = p_values[order] <= (1 - CONFIDENCE) / np.arange(len(order), 0, -1)
    stands = np.empty(len(order), bool)
    stands[order] = np.logical_and.accumulate(fine)  # the first that does not stand ends it
    return stands


def detectable(interval, power=0.8):
    """Returns how large a true difference has to be for such an interval to exclude zero with a probability `power`."""
    return interval.error * sum(stats.t.ppf([(1 + CONFIDENCE) / 2, power], interval.freedom))


def _product(scores):
    return (scores.shape[0] - 1) * (scores.shape[1] - 1)


def _interval(mean, variance, freedom):
    error = float(np.sqrt(variance))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return Interval(float(mean), float(mean) - reach, float(mean) + reach, error, float(freedom))
