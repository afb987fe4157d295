"""Local Aggregation (Zhuang, Zhai, Yamins 2019), section 3: draw an image to its close neighbours C_i against its
background neighbours B_i."""

import math

import keras
import numpy as np
import tensorflow as tf

from data.errors import UserError
from la_tf import clustering
from la_tf.instance_recognition import InstanceRecognition
from la_tf.neighbors import background_neighbors, close_among, is_own_row, similarities

# The loss of an image whose C_i and B_i do not meet: -log(0 + 1e-7), as in the authors' code. A constant, so it has
# no gradient; it is not 0, or a run that loses its close neighbours would look as if it improved.
EMPTY_INTERSECTION_LOSS = -math.log(1e-7)


def local_aggregation_loss(background_similarity, close, tau):
    """Returns -log [P(C_i ∩ B_i | v_i) / P(B_i | v_i)] `[B]` (equation 3).

    background_similarity `[B, k]` holds v̄_j · v_i for j in B_i, close `[B, k]` marks those that lie in C_i too. The
    normaliser of equation 1 cancels; both sums are log-sum-exps, so no temperature overflows.
    """
    logits = background_similarity / tau
    empty = ~tf.reduce_any(close, axis=1)
    minus_infinity = tf.constant(float("-inf"), logits.dtype)
    # Where nothing is close, all of B_i stands in: a finite number with a finite gradient that tf.where then drops.
    close_logits = tf.where(close | empty[:, None], logits, minus_infinity)
    loss = tf.reduce_logsumexp(logits, axis=1) - tf.reduce_logsumexp(close_logits, axis=1)
    return tf.where(empty, tf.constant(EMPTY_INTERSECTION_LOSS, loss.dtype), loss)


def aggregate(embeddings, bank, written, indices, cluster_labels, background_k, tau):
    """Returns the loss `[B]`, C_i ∩ B_i `[B, k]` bool and B_i `[B, k]` (section 3.1) of `embeddings` `[B, D]`.

    bank `[N, D]`, written `[N]` bool, indices `[B]`, cluster_labels `[N, H]`; B_i is found anew from the embedding.
    """
    similarity, neighbors = background_neighbors(similarities(embeddings, bank), written, background_k)
    close = close_among(neighbors, indices, cluster_labels) & tf.math.is_finite(similarity)
    return local_aggregation_loss(similarity, close, tau), close, neighbors


class LocalAggregation(InstanceRecognition):
    """Instance Recognition for `warmup_epochs`, then Local Aggregation with clusters renewed every epoch.

    background_k is k, clusterings H, clusters m. image_labels `[N]` (-1 unknown), where given, serve the health
    metric `purity` and nothing else.
    """

    def __init__(
        self,
        embedder,
        size,
        *,
        background_k,
        clusters,
        clusterings=10,
        warmup_epochs=10,
        tau=0.07,
        bank_momentum=0.5,
        weight_decay=1e-4,
        seed=0,
        image_labels=None,
        name="local_aggregation",
    ):
        super().__init__(
            embedder,
            size,
            tau=tau,
            bank_momentum=bank_momentum,
            weight_decay=weight_decay,
            seed=seed,
            name=name,
        )
        self.background_k = background_k
        self.clusters = clusters
        self.clusterings = clusterings
        self.warmup_epochs = warmup_epochs
        self.seed = seed
        self.image_labels = image_labels
        # [N, H], so that one gather fetches all labels of a row; -1: not clustered yet.
        self.cluster_labels = self.add_weight(
            name="cluster_labels",
            shape=(size, clusterings),
            initializer=keras.initializers.Constant(clustering.UNASSIGNED),
            dtype="int32",
            trainable=False,
            aggregation="only_first_replica",
        )
        self.aggregating = self.add_weight(
            name="aggregating",
            shape=(),
            initializer="zeros",
            dtype="bool",
            trainable=False,
            aggregation="only_first_replica",
        )
        self.close_mean = keras.metrics.Mean(name="close_mean")
        self.close_min = Least(name="close_min")
        self.empty_fraction = keras.metrics.Mean(name="empty_fraction")
        self.own_in_background = keras.metrics.Mean(name="own_in_background")

    @staticmethod
    def arguments(choices, image_labels):
        """Returns what the constructor takes of a `la_tf.config.MethodConfig`, with labels for `purity` alone."""
        return InstanceRecognition.arguments(choices, image_labels) | {
            "background_k": choices.background_k,
            "clusters": choices.clusters,
            "clusterings": choices.clusterings,
            "warmup_epochs": choices.warmup_epochs,
            "image_labels": image_labels,
        }

    def training_losses(self, batch):
        """Returns the losses `[B]` of the phase, equation 1 before and equation 3 after the switch, and embeddings."""
        embeddings = self(batch["image"], training=True)
        losses = tf.cond(
            self.aggregating.value,
            lambda: self._aggregation_losses(embeddings, batch["index"], batch["valid"]),
            lambda: self.recognition_losses(embeddings, batch["index"]),
        )
        return losses, embeddings

    def _aggregation_losses(self, embeddings, indices, valid):
        losses, close, neighbors = aggregate(
            embeddings,
            self.bank.rows.value,
            self.bank.written.value,
            indices,
            self.cluster_labels.value,
            self.background_k,
            self.tau,
        )
        close_count = tf.reduce_sum(tf.cast(close, tf.float32), axis=1)  # |C_i ∩ B_i|
        self.close_mean.update_state(close_count, valid)
        self.close_min.update_state(close_count, valid)
        self.empty_fraction.update_state(close_count == 0, valid)
        self.own_in_background.update_state(tf.reduce_any(is_own_row(neighbors, indices), axis=1), valid)
        return losses

    def begin_epoch(self, epoch):
        """Renews the H clusterings once the warm start is over; returns the health of the new clusters."""
        if epoch < self.warmup_epochs:
            self.aggregating.assign(False)  # a run that was warm-started from LA is back in its own warm start
            return {"phase": "ir"}
        return {"phase": "la", **self.renew_clusters()}

    def renew_clusters(self):
        """Clusters the written rows of the bank H times anew and lets C_i follow; returns health metrics."""
        written = np.flatnonzero(self.bank.written.numpy())
        if len(written) < self.clusters:
            raise UserError(
                f"--clusters={self.clusters}: only {len(written)} of {self.bank.rows.shape[0]} images have been seen; "
                "lower it, or raise --warmup_epochs"
            )
        rows = self.bank.rows.numpy()[written]
        previous = self.cluster_labels.numpy()[written]
        labels = clustering.cluster(rows, self.clusters, self.clusterings, self.seed)  # [n, H]
        every_label = np.full(self.cluster_labels.shape, clustering.UNASSIGNED, np.int32)
        every_label[written] = labels
        self.cluster_labels.assign(every_label)
        self.aggregating.assign(True)
        truth = None if self.image_labels is None else self.image_labels[written]
        return clustering.health(rows, labels, previous, truth, seed=self.seed)

    @property
    def picture_variables(self):
        """The memory bank and its clusters."""
        return [*super().picture_variables, self.cluster_labels]

    @property
    def metrics(self):
        """The loss, and how LA is doing: |C_i ∩ B_i| (mean, least), how often empty, how often i is in B_i."""
        health = [self.close_mean, self.close_min, self.empty_fraction, self.own_in_background]
        return [*super().metrics, *health]

    def epoch_metrics(self):
        """Returns the metrics of the epoch so far; those of LA only once it has begun."""
        metrics = super().epoch_metrics()
        return metrics if bool(self.aggregating.numpy()) else {"loss": metrics["loss"]}


class Least(keras.metrics.Metric):
    """The smallest value seen since the last reset."""

    def __init__(self, name):
        super().__init__(name=name)
        self.least = self.add_variable(shape=(), initializer=keras.initializers.Constant(np.inf), name="least")

    def update_state(self, values, valid):
        """Takes in those of `values` `[B]` that are `valid` `[B]` bool."""
        values = tf.where(valid, values, tf.constant(np.inf, values.dtype))
        self.least.assign(tf.minimum(self.least.value, tf.reduce_min(values)))

    def result(self):
        """Returns the smallest value, inf when there was none."""
        return self.least.value

    def reset_state(self):
        """Forgets what it saw."""
        self.least.assign(np.inf)
