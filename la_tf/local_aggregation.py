"""Local Aggregation (Zhuang, Zhai, Yamins 2019), section 3: draw an image to its close neighbours C_i against its
background neighbours B_i."""

import math

import keras
import numpy as np
import tensorflow as tf

from data.errors import UserError
from la_tf import clustering
from la_tf.config import interval
from la_tf.instance_recognition import InstanceRecognition
from la_tf.knn import embed
from la_tf.memory_bank import STATE
from la_tf.neighbors import background_neighbors, close_among, cluster_mates, is_own_row, nearest, similarities

# The loss of an image whose C_i and B_i do not meet: -log(0 + 1e-7), as in the authors' code. A constant, so it has
# no gradient; it is not 0, or a run that loses its close neighbours would look as if it improved.
EMPTY_INTERSECTION_LOSS = -math.log(1e-7)


def local_aggregation_loss(background_similarity, close, tau):
    """Returns -log [P(C_i ∩ B_i | v_i) / P(B_i | v_i)] `[B]` (equation 3).

    background_similarity `[B, k]` holds v̄_j · v_i for j in B_i (-inf for columns that are not), close `[B, k]` marks
    those that lie in C_i too. The normaliser of equation 1 cancels; both sums are log-sum-exps, so no temperature
    overflows.
    """
    logits = background_similarity / tau
    empty = ~tf.reduce_any(close, axis=1)
    minus_infinity = tf.constant(float("-inf"), logits.dtype)
    # Where nothing is close, all of B_i stands in: a finite number with a finite gradient that tf.where then drops.
    close_logits = tf.where(close | empty[:, None], logits, minus_infinity)
    loss = tf.reduce_logsumexp(logits, axis=1) - tf.reduce_logsumexp(close_logits, axis=1)
    return tf.where(empty, tf.constant(EMPTY_INTERSECTION_LOSS, loss.dtype), loss)


def nearest_background(embeddings, bank, written, k):
    """Returns similarities and rows `[B, k]` of B_i = N_k(v_i), found anew from the embeddings `[B, D]` (section 3.1).

    bank `[N, D]`, written `[N]` bool; a column that is none of B_i has similarity -inf.
    """
    return background_neighbors(similarities(embeddings, bank), written, k)


def fixed_background(embeddings, bank, inside):
    """Returns the same for a B_i that does not follow the embedding (section 5.2): all N rows are columns.

    inside, `[B, N]` or `[1, N]` bool, marks B_i: all written rows, or those in a cluster of the image's own.
    """
    similarity = similarities(embeddings, bank)
    rows = tf.range(tf.shape(bank)[0])[None, :]
    return tf.where(inside, similarity, tf.constant(float("-inf"), similarity.dtype)), rows


class LocalAggregation(InstanceRecognition):
    """Instance Recognition for `warmup_epochs`, then Local Aggregation with clusters renewed as `cluster_every` says.

    background "knn": B_i is the `background_k` (k) nearest rows; "all": every row; "cluster": the union of its clusters
    in `background_clusterings` clusterings of `background_clusters` each. close "clusters": C_i is the union of its
    clusters in `clusterings` (H) clusterings of `clusters` (m) each; "self": the image alone; "knn": its `close_k` (k')
    nearest rows. cluster_on "center_crops" clusters fresh embeddings of `center_crops()` instead of the bank;
    clustering "dbscan" takes no m but a radius and a least number of neighbours. image_labels `[N]` (-1 unknown), where
    given, serve the health metric `purity` and nothing else.
    """

    def __init__(
        self,
        embedder,
        size,
        *,
        background="knn",
        background_k=None,
        background_clusterings=3,
        background_clusters=None,
        close="clusters",
        close_k=None,
        clusters=None,
        clusterings=10,
        cluster_on="bank",
        cluster_every="1epoch",
        clustering="kmeans",
        dbscan_eps=0.5,
        dbscan_min_samples=5,
        warmup_epochs=10,
        image_labels=None,
        center_crops=None,
        name="local_aggregation",
        **kwargs,
    ):
        super().__init__(embedder, size, name=name, **kwargs)
        self.background = background
        self.background_k = background_k
        self.background_clusters = background_clusters
        self.close = close
        self.close_k = close_k
        self.clusters = clusters
        self.clusterings = clusterings
        self.cluster_on = cluster_on
        self.cluster_every = interval(cluster_every)
        self.clustering = clustering
        self.dbscan = (dbscan_eps, dbscan_min_samples)
        self.clusters_due = False  # no checkpoint falls between `begin_epoch`, which sets it, and `begin_step`
        self.warmup_epochs = warmup_epochs
        self.image_labels = image_labels
        self.center_crops = center_crops
        if close == "clusters":
            self.cluster_labels = self._labels("cluster_labels", size, clusterings)
        if background == "cluster":
            self.background_labels = self._labels("background_labels", size, background_clusterings)
        self.aggregating = self.add_weight(name="aggregating", shape=(), initializer="zeros", dtype="bool", **STATE)
        self.close_mean = keras.metrics.Mean(name="close_mean")
        self.close_min = Least(name="close_min")
        self.empty_fraction = keras.metrics.Mean(name="empty_fraction")
        self.own_in_background = keras.metrics.Mean(name="own_in_background")

    def _labels(self, name, size, clusterings):
        """Returns labels `[N, H]`, so that one gather fetches all of a row; -1: not clustered yet."""
        return self.add_weight(
            name=name,
            shape=(size, clusterings),
            initializer=keras.initializers.Constant(clustering.UNASSIGNED),
            dtype="int32",
            **STATE,
        )

    @staticmethod
    def arguments(config, pictures):
        """Adds LA's choices, with labels for `purity` alone."""
        names = (
            "background", "background_k", "background_clusterings", "background_clusters", "close", "close_k",
            "clusters", "clusterings", "cluster_on", "cluster_every", "clustering", "dbscan_eps", "dbscan_min_samples",
            "warmup_epochs",
        )  # fmt: skip
        chosen = {name: getattr(config.method, name) for name in names}
        of_pictures = {"image_labels": pictures.labels, "center_crops": pictures.center_crops}
        return InstanceRecognition.arguments(config, pictures) | chosen | of_pictures

    def training_losses(self, batch):
        """Returns the losses `[B]` of the phase, equation 1 before and equation 3 after the switch, and embeddings."""
        embeddings = self(batch["image"], training=True)
        losses = tf.cond(
            self.aggregating.value,
            lambda: self.aggregation_losses(embeddings, batch["index"], batch["valid"]),
            lambda: self.recognition_losses(embeddings, batch["index"]),
        )
        return losses, embeddings

    def aggregation_losses(self, embeddings, indices, valid):
        """Returns equation 3 `[B]` of `embeddings` `[B, D]` against bank and clusters as they are."""
        similarity, rows = self._background_of(embeddings, indices)
        close = self._close_among(similarity, rows, indices) & tf.math.is_finite(similarity)
        losses = local_aggregation_loss(similarity, close, self.tau)
        close_count = tf.reduce_sum(tf.cast(close, tf.float32), axis=1)  # |C_i ∩ B_i|
        own = is_own_row(rows, indices) & tf.math.is_finite(similarity)
        self.close_mean.update_state(close_count, valid)
        self.close_min.update_state(close_count, valid)
        self.empty_fraction.update_state(close_count == 0, valid)
        self.own_in_background.update_state(tf.reduce_any(own, axis=1), valid)
        return losses

    def _background_of(self, embeddings, indices):
        """Returns similarities `[B, c]` and rows `[B, c]` or `[1, c]` of B_i."""
        bank, written = self.bank.rows.value, self.bank.written.value
        if self.background == "knn":
            return nearest_background(embeddings, bank, written, self.background_k)
        inside = written[None, :]
        if self.background == "cluster":
            inside &= cluster_mates(indices, self.background_labels.value)
        return fixed_background(embeddings, bank, inside)

    def _close_among(self, similarity, rows, indices):
        """Returns which of the background `rows` are in C_i, `[B, c]` bool."""
        if self.close == "self":
            return is_own_row(rows, indices)
        if self.close == "knn":
            return nearest(similarity, self.close_k)
        if self.background == "knn":
            return close_among(rows, indices, self.cluster_labels.value)
        return cluster_mates(indices, self.cluster_labels.value)

    def begin_epoch(self, epoch):
        """Begins Local Aggregation once the warm start is over, and renews the clusters; returns their health."""
        if epoch < self.warmup_epochs:
            self.aggregating.assign(False)  # a run that was warm-started from LA is back in its own warm start
            return {"phase": "ir"}
        if not self.bank.written.numpy().any():
            raise UserError(
                "Local Aggregation begins, but the memory bank is empty: raise --warmup_epochs, or let --warm_start "
                "name a run with the same pictures and the same network"
            )
        count, of = self.cluster_every
        begins = not bool(self.aggregating.numpy())
        self.aggregating.assign(True)
        self.clusters_due = begins and of == "steps"  # at the step that comes now
        due = of == "epochs" and (begins or (epoch - self.warmup_epochs) % count == 0)
        return {"phase": "la", **(self.renew_clusters() if due else {})}

    def begin_step(self, step):
        """Renews the clusters where they are renewed by steps."""
        count, of = self.cluster_every
        if of != "steps" or not bool(self.aggregating.numpy()) or not (self.clusters_due or step % count == 0):
            return {}
        self.clusters_due = False
        return self.renew_clusters()

    def renew_clusters(self):
        """Clusters the images anew; C_i, and B_i where it is made of clusters, follow. Returns health metrics."""
        self.aggregating.assign(True)
        found = {}
        if self.background != "cluster" and self.close != "clusters":
            return found
        rows, indices = self._to_be_clustered()
        if self.background == "cluster":
            clusterings = self.background_labels.shape[1]
            self._check_enough(len(indices), "background_clusters", self.background_clusters)
            # Seeds apart from those of C_i's clusterings, or one would be the other.
            labels = clustering.cluster(rows, self.background_clusters, clusterings, self.seed, first=self.clusterings)
            self._assign(self.background_labels, indices, labels)
        if self.close == "clusters":
            previous = self.cluster_labels.numpy()[indices]
            if self.clustering == "dbscan":
                labels = clustering.dbscan(rows, *self.dbscan)
            else:
                self._check_enough(len(indices), "clusters", self.clusters)
                labels = clustering.cluster(rows, self.clusters, self.clusterings, self.seed)  # [n, H]
            self._assign(self.cluster_labels, indices, labels)
            truth = None if self.image_labels is None else self.image_labels[indices]
            found = clustering.health(rows, labels, previous, truth, seed=self.seed)
        return found

    def _to_be_clustered(self):
        """Returns unit rows `[n, D]` and which images they stand for, `[n]`."""
        if self.cluster_on == "center_crops":
            embeddings, indices, _ = embed(self, self.center_crops())
            return embeddings, indices
        written = np.flatnonzero(self.bank.written.numpy())
        return self.bank.rows.numpy()[written], written

    def _check_enough(self, seen, flag, clusters):
        if seen < clusters:
            raise UserError(
                f"--{flag}={clusters}: only {seen} of {self.bank.rows.shape[0]} images have been seen; lower it, or "
                "raise --warmup_epochs"
            )

    @staticmethod
    def _assign(variable, indices, labels):
        every_label = np.full(variable.shape, clustering.UNASSIGNED, np.int32)
        every_label[indices] = labels
        variable.assign(every_label)

    @property
    def picture_variables(self):
        """The memory bank and its clusters."""
        labels = [getattr(self, name, None) for name in ("cluster_labels", "background_labels")]
        return [*super().picture_variables, *(variable for variable in labels if variable is not None)]

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
