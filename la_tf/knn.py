"""The weighted nearest-neighbour classifier that judges an embedding (section 4.2; Wu et al. 2018)."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

QUERIES_AT_ONCE = 256  # bounds the similarities held at a time to 256 x N floats


@tf.function(reduce_retracing=True)
def _vote(queries, bank, labels, neighbors, classes, tau):
    similarity, nearest = tf.math.top_k(tf.matmul(queries, bank, transpose_b=True), neighbors)
    # Relative to the nearest, exp cannot overflow, and the ranking of the classes is the same.
    weights = tf.exp((similarity - similarity[:, :1]) / tau)
    ballots = tf.range(tf.shape(queries)[0])[:, None] * classes + tf.gather(
        labels, nearest
    )  # one slot a query and class
    votes = tf.math.unsorted_segment_sum(weights, ballots, tf.shape(queries)[0] * classes)
    return tf.reshape(votes, [-1, classes])


def knn_votes(queries, bank, labels, *, neighbors=200, tau=0.07, classes=None):
    """Returns the votes `[Q, classes]`: each of the K nearest rows votes for its label with exp(v̄_j · v / tau).

    queries `[Q, D]` and bank `[N, D]` are unit rows, labels `[N]`; rows labelled -1 do not take part. Votes are
    scaled per query so that the nearest row counts 1. K above the number of rows means all of them. Ties go to the
    lowest index.
    """
    eligible = labels >= 0
    if not eligible.any():
        raise ValueError("no row of the bank has a label to vote with")
    bank, labels = tf.constant(bank[eligible], tf.float32), tf.constant(labels[eligible], tf.int32)
    classes = classes or int(labels.numpy().max()) + 1
    neighbors = min(neighbors, len(labels))
    blocks = range(0, len(queries), QUERIES_AT_ONCE)
    votes = [
        _vote(
            tf.constant(queries[start : start + QUERIES_AT_ONCE], tf.float32),
            bank,
            labels,
            tf.constant(neighbors),
            tf.constant(classes),
            tf.constant(tau, tf.float32),
        ).numpy()
        for start in blocks
    ]
    return np.concatenate(votes) if votes else np.zeros((0, classes), np.float32)


def embed(model, batches):
    """Returns embeddings `[n, D]`, indices `[n]` and labels `[n]` of all valid pictures, in inference mode."""
    embeddings, indices, labels = [], [], []
    for batch in batches:
        valid = batch["valid"].numpy()
        embeddings.append(_embed(model, batch["image"]).numpy()[valid])
        indices.append(batch["index"].numpy()[valid])
        labels.append(batch["label"].numpy()[valid])
    return np.concatenate(embeddings), np.concatenate(indices), np.concatenate(labels)


@tf.function(reduce_retracing=True)
def _embed(model, images):
    return model(images, training=False)


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
        """Returns `{metric: top-1}` over the valid and labelled pictures of `batches`."""
        embeddings, _, truth = embed(model, batches)
        # Rows never written hold random vectors: they have no vote.
        labels = np.where(model.bank.written.numpy(), self.labels, -1)
        labels[np.asarray(self.silent_rows, np.int64)] = -1
        known = truth >= 0
        if not (labels >= 0).any() or not known.any():
            return {self.metric: 0.0}  # so few steps that no row with a vote has been written; nothing to judge by
        votes = knn_votes(
            embeddings[known],
            model.bank.rows.numpy(),
            labels,
            neighbors=self.neighbors,
            tau=self.tau,
            classes=self.classes,
        )
        return {self.metric: float(np.mean(votes.argmax(axis=1) == truth[known]))}
