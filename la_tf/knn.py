"""The weighted nearest-neighbour classifier that judges an embedding (section 4.2; Wu et al. 2018)."""

import csv
from dataclasses import dataclass
from functools import partial

import numpy as np
import tensorflow as tf

from la_tf.nearest_rows import QUERIES, nearest_of_all
from la_tf.processes import ALONE
from la_tf.scores import Scores, decide


def knn_votes(queries, bank, labels, *, neighbors=200, tau=0.07, classes=None):
    """Returns the votes `[Q, classes]`: each of the K nearest rows votes for its label with exp(v̄_j · v / tau).

    queries `[Q, D]` and bank `[N, D]` are unit rows, labels `[N]`; rows labelled -1 do not take part. Votes are
    scaled per query so that the nearest row counts 1. K above the number of rows means all of them. Ties go to the
    lowest index.
    """
    if not (labels >= 0).any():
        raise ValueError("no row of the bank has a label to vote with")
    return _votes(queries, bank, labels, neighbors, tau, classes or int(labels.max()) + 1)


def _votes(queries, bank, labels, neighbors, tau, classes, first=0, processes=ALONE):
    """Returns the votes `[Q, classes]` of the rows of all processes, of which `bank` `[n, D]` are `first` and the next.

    labels `[N]` are of all rows; for those of another process it does not matter here whether they may vote.
    """
    own = labels[first : first + len(bank)]
    if len(own) < len(bank) or (processes.count == 1 and len(labels) > len(bank)):
        raise ValueError(f"the bank has {len(bank)} rows, but there are {len(labels)} labels")
    if labels.max(initial=-1) >= classes:
        raise ValueError(f"a row of the bank has label {labels.max()}, but there are {classes} classes")
    similarities, rows = nearest_of_all(queries, bank, neighbors, own >= 0, first, processes)
    # Relative to the nearest, exp cannot overflow, and the ranking of the classes is the same.
    weights = np.exp((similarities - similarities[:, :1]) / tau)
    somebody = rows >= 0
    ballots = np.arange(len(queries))[:, None] * classes + labels[rows]  # one slot a query and class
    votes = np.bincount(ballots[somebody], weights[somebody], minlength=len(queries) * classes)
    return votes.reshape(len(queries), classes)


def embed(model, batches):
    """Returns embeddings `[n, D]`, indices `[n]` and labels `[n]` of all valid pictures, in inference mode."""
    return embeddings(partial(_inference, model), batches)


def embeddings(embed, batches):
    """The same by a function `embed` from images `[B, S, S, 3]` to rows `[B, D]`."""
    return tuple(map(np.concatenate, zip(*(_valid(embed, batch) for batch in batches), strict=True)))


def _valid(embed, batch):
    valid = np.asarray(batch["valid"])
    return tuple(np.asarray(part)[valid] for part in (embed(batch["image"]), batch["index"], batch["label"]))


@tf.function(reduce_retracing=True)
def _inference(model, images):
    return model(images, training=False)


def judge(
    embed,
    batches,
    bank,
    labels,
    *,
    classes,
    neighbors=200,
    tau=0.07,
    report=None,
    first=0,
    processes=ALONE,
):
    """Returns the `Scores` of the pictures of `batches` (data/pipeline.py) by the kNN of a bank, as a stream.

    embed maps images `[B, S, S, 3]` to unit rows `[B, D]`; bank is `[N, D]`, an array or np.memmap, labels `[N]`
    with -1 for rows without a vote. `report(indices, truth, predicted, confidence)`, arrays `[n]`, is told what every
    readable picture was taken for, in the order of the batches, unlabelled pictures (truth -1) included.

    Of a bank spread over `processes`, `bank` `[n, D]` are this process' rows, row `first` of all and the next; labels
    `[N]` are of all. Each process then embeds its own share of the batches (of W processes, number p best takes the
    batches p, p + W, ..: `spread_rows.share`), and all get the scores, and a report, of all pictures.
    """
    scores, waiting = Scores(classes), []

    def vote():
        if waiting:
            queries, indices, truth = map(np.concatenate, zip(*waiting, strict=True))
            waiting.clear()
            votes = _votes(queries, bank, labels, neighbors, tau, classes, first, processes)
            scores.add(votes, truth)
            if report is not None:
                report(indices, truth, *decide(votes))

    for found, unreadable in _rounds(embed, batches, bank.shape[1], processes):
        scores.unreadable += unreadable
        # As many as fit share a pass over the bank: one for each batch would read and compare it too often.
        if sum(len(indices) for _, indices, _ in waiting) + len(found[1]) > QUERIES:
            vote()
        waiting.append(found)
    vote()
    return scores


def _rounds(embed, batches, dimension, processes):
    """Yields what there is in one batch of every process, while any has one: embeddings, indices and labels of the
    valid pictures, and the number of the others."""
    batches = iter(batches)
    while True:
        batch = next(batches, None)
        if batch is None:  # others may have one more
            found = np.zeros((0, dimension), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64)
        else:
            found = _valid(embed, batch)
        of_batch = [0, 0] if batch is None else [1, len(batch["index"]) - len(found[1])]
        count, unreadable = processes.sum(np.array(of_batch, np.int64))
        if not count:
            return
        yield tuple(processes.gather(part) for part in found), int(unreadable)


class PredictionsFile:
    """A CSV file with a line for every picture judged: index, name, truth (-1: unknown), predicted class, confidence.

    A context manager; its `write` is what `judge` takes for `report`. `names[index]` is the picture's name.
    """

    HEADER = ("index", "name", "truth", "predicted", "confidence")

    def __init__(self, path, names):
        self._path, self._names = path, names

    def __enter__(self):
        self._file = open(self._path, "w", newline="", encoding="utf-8")
        self._lines = csv.writer(self._file)
        self._lines.writerow(self.HEADER)
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, indices, truth, predicted, confidence):
        """Writes one line for each of the pictures, arrays `[n]`."""
        for index, label, guess, share in zip(indices, truth, predicted, confidence, strict=True):
            self._lines.writerow((index, self._names[index], label, guess, f"{share:.4f}"))


@dataclass(frozen=True, eq=False)
class KnnEvaluation:
    """Judges a model with a memory bank by the kNN of pictures it is shown; call it with the model and batches.

    labels `[N]` are those of the bank's rows; `silent_rows` do not vote (the validation slice when it asks).
    """

    metric: str
    labels: np.ndarray
    classes: int
    neighbors: int = 200
    tau: float = 0.07
    silent_rows: tuple[int, ...] | np.ndarray = ()

    def __call__(self, model, batches):
        """Returns `{metric: top-1}` over the valid and labelled pictures of `batches`, 0 where there is none.

        Where the model has several processes, `batches` are this one's share, as in `judge`, and all get the result.
        """
        first, rows, written = _rows_to_search(model.bank, len(self.labels), model.processes)
        labels = np.array(self.labels)
        # Rows never written hold random vectors: they have no vote.
        labels[first + np.flatnonzero(~written)] = -1
        labels[np.asarray(self.silent_rows, np.int64)] = -1
        scores = judge(
            partial(_inference, model),
            batches,
            rows,
            labels,
            classes=self.classes,
            neighbors=self.neighbors,
            tau=self.tau,
            first=first,
            processes=model.processes,
        )
        return {self.metric: scores.top1 or 0.0}


def _rows_to_search(bank, size, processes):
    """Returns the number of the first row, rows `[n, D]` and `written` `[n]`: what this process looks through.

    That is what it has of a bank of `size` rows, or a part of it where every process has them all.
    """
    first, rows, written = bank.own_rows()
    if processes.sum(np.array([len(rows)]))[0] == size:
        return first, rows, written
    length = -(-size // processes.count)
    part = slice(processes.index * length, (processes.index + 1) * length)
    return min(part.start, size), rows[part], written[part]
