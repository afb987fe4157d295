"""What is shown of a data set before training: which pictures, and what they are like on the whole."""

import dataclasses

import numpy as np

from data.draws import epoch_order_numpy
from data.records import RecordSource
from data.sources import ArraySource, FileSource, Split, evenly_spaced

LOOK_AT_ALL, LOOK_AT = 20_000, 2_000  # pictures


def look_at(split: Split, workers: int = 0):
    """(the rows that are looked at, sorted; data.findings.Findings of them)."""
    from data.examination import find

    if split.size <= LOOK_AT_ALL:
        return np.arange(split.size), find(split, workers)
    rows = np.array(evenly_spaced(split.size, LOOK_AT))
    return rows, find(part(split, rows), workers)


def part(split: Split, rows: np.ndarray) -> Split:
    """The split that has `rows` of `split` alone."""
    source = split.source
    if isinstance(source, ArraySource):
        chosen = ArraySource(source.pictures[rows], split.spec)
    elif isinstance(source, FileSource):
        chosen = FileSource(source.root, [source.names[row] for row in rows])
    else:
        columns = (source.shard, source.record, source.position, source.begin, source.length)
        problems = {i: source.problems[row] for i, row in enumerate(rows.tolist()) if row in source.problems}
        chosen = RecordSource(source.shards, *(column[rows] for column in columns), problems)
    return dataclasses.replace(split, labels=split.labels[rows], source=chosen)


def chosen_rows(labels: np.ndarray, candidates: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Up to `count` rows out of `candidates`, sorted by class, spread evenly over the classes there are; within a
    class `seed` chooses.  Without labels: evenly spaced ones."""
    known = candidates[labels[candidates] >= 0]
    if not len(known):
        return candidates[evenly_spaced(len(candidates), count)]
    known = known[epoch_order_numpy(seed, 0, len(known))]
    known = known[np.argsort(labels[known], kind="stable")]
    _, first, sizes = np.unique(labels[known], return_index=True, return_counts=True)
    if len(first) > count:
        return known[first[evenly_spaced(len(first), count)]]
    place = np.arange(len(known)) - np.repeat(first, sizes)  # within its class
    return known[np.sort(np.argsort(place, kind="stable")[:count])]


def channel_statistics(split: Split, image_size: int, rows: np.ndarray, workers: int = 0):
    """Mean and standard deviation, [3] each, over all pixels of the evaluation views of `rows`, bad ones left out."""
    from data.examination import progress
    from data.pipeline import evaluation_batches

    sums, count = np.zeros([2, 3]), 0
    with progress("measuring", len(rows), 0) as bar:
        for batch in evaluation_batches(split, image_size, 50, rows, workers).as_numpy_iterator():
            views = batch["image"][batch["valid"]].astype(np.float64)
            sums += [np.sum(views, axis=(0, 1, 2)), np.sum(views**2, axis=(0, 1, 2))]
            count += len(views)
            bar.update(len(batch["valid"]))
    mean, square = sums / (count * image_size**2)
    return mean, np.sqrt(np.maximum(square - mean**2, 0))
