"""A memory bank laid out in the plane, with the nearest neighbours of every point: numbers for an interactive map.

Reads the bank out of a checkpoint's files; NumPy and scikit-learn alone.
"""

from typing import NamedTuple

import numpy as np

from la_tf import checkpoints, density
from la_tf.nearest_rows import nearest_others

NEAREST = 10
COMPONENTS = 50  # that t-SNE sees: distances in all D cost more and say the same
ITERATIONS = 500  # of t-SNE; 5,000 points take half a minute on one core
PERPLEXITY = 30
HISTOGRAM_QUERIES = 1000


class Bank(NamedTuple):
    """The rows `[N, D]` float32 of a checkpoint's memory bank, which are `written` `[N]` and numbers, and its step."""

    rows: np.ndarray
    written: np.ndarray
    step: int


class Map(NamedTuple):
    """Sampled rows in the plane: `places` `[S, 2]`, NaN for rows never written, and each one's nearest others.

    nearest `[S, K]` are positions in the sample, -1 for none, most similar first; similarities `[S, K]` their cosines.
    """

    places: np.ndarray
    nearest: np.ndarray
    similarities: np.ndarray


class Histograms(NamedTuple):
    """Shares of similarities between `edges` `[b + 1]`: to the `near` and to the `far` neighbours, `[b]` each."""

    edges: np.ndarray
    near: np.ndarray
    far: np.ndarray
    near_ranks: tuple[int, int]  # the first and the last neighbour, from 1
    far_ranks: tuple[int, int]


def read_bank(model_dir):
    """Returns the Bank of a run's newest checkpoint, None without a checkpoint or without a usable row."""
    newest = checkpoints.latest(model_dir)
    if newest is None:
        return None
    step = checkpoints.read_state(newest)["step"]
    with checkpoints.read_arrays(newest) as arrays:
        rows, written = arrays.get("memory_bank/rows"), arrays.get("memory_bank/written")
        if rows is None:
            return None
        rows, written = np.asarray(rows, np.float32), np.asarray(written)
    usable = written & np.isfinite(rows).all(axis=1)
    return Bank(rows, usable, step) if usable.any() else None


def sampled(size, most, seed=0):
    """Returns at most `most` of `size` rows, drawn at random, in order: the same for all runs on the same pictures."""
    return np.sort(np.random.default_rng(seed).permutation(size)[:most])


def map_of(bank, sample, seed=0):
    """Returns the Map of the `sample` `[S]` of a `Bank`'s rows."""
    there = np.flatnonzero(bank.written[sample])
    places = np.full((len(sample), 2), np.nan, np.float32)
    nearest = np.full((len(sample), NEAREST), -1, np.int32)
    similarities = np.full((len(sample), NEAREST), np.nan, np.float32)
    if not len(there):
        return Map(places, nearest, similarities)
    rows = bank.rows[sample[there]]
    places[there] = in_the_plane(rows, seed)
    found, others = nearest_others(rows, np.arange(len(rows)), NEAREST)
    nearest[there, : others.shape[1]] = there[others]
    similarities[there, : found.shape[1]] = found
    return Map(places, nearest, similarities)


def in_the_plane(rows, seed=0):
    """Returns places `[S, 2]` of unit `rows` `[S, D]`: t-SNE on their first COMPONENTS principal components.

    Begun at the first two components, so that what is far apart tends to stay so; those alone for fewer than 10 rows.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    left, scale, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    components = (left * scale)[:, :COMPONENTS]
    if len(rows) < 10:
        return np.pad(components, [(0, 0), (0, 2)])[:, :2]
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    # As init="pca", but no two rows begin at the same place: of a collapsed bank, t-SNE would crash.
    deviation = components[:, 0].std()
    start = components[:, :2] / deviation if deviation > 1e-6 else np.zeros((len(rows), 2))
    start = 1e-4 * (start + np.random.default_rng(seed).normal(scale=0.01, size=start.shape))
    # One thread: several wait for each other 500 times over, on a busy machine for minutes.
    with threadpool_limits(limits=1, user_api="openmp"):
        tsne = TSNE(init=start.astype(np.float32), perplexity=perplexity, max_iter=ITERATIONS, random_state=seed)
        return tsne.fit_transform(components)


def histograms_of(bank, bins=60, seed=0):
    """Returns the Histograms of a `Bank`'s similarities, over HISTOGRAM_QUERIES of its written rows; None for under 64.

    Near are the 30 nearest, far those of `density.ranks` (the paper's Figure 2).
    """
    rows = bank.rows[bank.written]
    if len(rows) < 64:
        return None
    local, first, last = density.ranks(len(rows))
    found, _ = nearest_others(rows, sampled(len(rows), HISTOGRAM_QUERIES, seed), last)
    near, far = found[:, :local], found[:, first - 1 :]
    edges = np.linspace(min(float(far.min()), 0.0), 1.0, bins + 1)
    shares = [np.histogram(np.clip(part, edges[0], 1), edges)[0] / part.size for part in (near, far)]
    return Histograms(edges, *shares, (1, near.shape[1]), (first, last))
