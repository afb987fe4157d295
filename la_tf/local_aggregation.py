"""Local Aggregation (Zhuang, Zhai, Yamins 2019), section 3: draw an image to its close neighbours C_i against its
background neighbours B_i."""

import math

import keras
import numpy as np
import tensorflow as tf

from data.errors import UserError
from la_tf import clustering, log_sums
from la_tf.cluster_renewal import BackgroundLabels, Renewal
from la_tf.config import interval
from la_tf.instance_recognition import InstanceRecognition
from la_tf.knn import embed
from la_tf.memory_bank import STATE
from la_tf.neighbors import background_neighbors, close_among, cluster_mates, is_own_row

# The loss of an image whose C_i and B_i do not meet: -log(0 + 1e-7), as in the authors' code. A constant, so it has
# no gradient; it is not 0, or a run that loses its close neighbours would look as if it improved.
EMPTY_INTERSECTION_LOSS = -math.log(1e-7)


def local_aggregation_loss(log_background, log_close):
    """Returns -log [P(C_i ∩ B_i | v_i) / P(B_i | v_i)] `[B]` (equation 3).

    log_background and log_close `[B]` are log sum_j exp(v̄_j · v_i / tau) over B_i and over C_i ∩ B_i, -inf where these
    do not meet. The normaliser of equation 1 cancels, and with it every overflow.
    """
    empty = log_close == -math.inf
    # Where nothing is close, all of B_i stands in: a finite number with a finite gradient that tf.where then drops.
    loss = log_background - tf.where(empty, log_background, log_close)
    return tf.where(empty, tf.constant(EMPTY_INTERSECTION_LOSS, loss.dtype), loss)


class LocalAggregation(InstanceRecognition):
    """Instance Recognition for `warmup_epochs`, then Local Aggregation with clusters renewed as `cluster_every` says.

    background "knn": B_i is the `background_k` (k) nearest rows; "all": every row; "cluster": the union of its clusters
    in `background_clusterings` clusterings of `background_clusters` each. close "clusters": C_i is the union of its
    clusters in `clusterings` (H) clusterings of `clusters` (m) each; "self": the image alone; "knn": its `close_k` (k')
    nearest rows. cluster_on "center_crops" clusters fresh embeddings of `center_crops()` instead of the bank;
    clustering "dbscan" takes no m but a radius and a least number of neighbours; k-means goes on from the last one by
    `warm_iterations` (0: never) and learns from `cluster_sample` rows a cluster (0: all). With cluster_in_background
    training goes on with the last clusters until those that a thread finds are taken, the next time they are due.
    image_labels `[N]` (-1 unknown), where given, serve the health metric `purity` and nothing else.
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
        warm_iterations=0,
        cluster_sample=0,
        cluster_in_background=False,
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
        self.warm_iterations = warm_iterations
        self.cluster_sample = cluster_sample
        self.clusters_due = False  # no checkpoint falls between `begin_epoch`, which sets it, and `begin_step`
        self.warmup_epochs = warmup_epochs
        self.image_labels = image_labels
        self.center_crops = center_crops
        if close == "clusters":
            self.cluster_labels = self._labels("cluster_labels", size, clusterings)
        if background == "cluster":
            self.background_labels = self._labels("background_labels", size, background_clusterings)
        self.waiting_labels = BackgroundLabels(self.label_variables) if cluster_in_background else None
        self.renewal = Renewal(self._cluster, self.label_variables, self.waiting_labels, image_labels, self.seed)
        self.aggregating = self.add_weight(name="aggregating", shape=(), initializer="zeros", dtype="bool", **STATE)
        self.close_mean = keras.metrics.Mean(name="close_mean")
        self.close_min = Least(name="close_min")
        self.empty_fraction = keras.metrics.Mean(name="empty_fraction")
        self.own_in_background = keras.metrics.Mean(name="own_in_background")
        self.sorted_out_fraction = keras.metrics.Mean(name="sorted_out_fraction")

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
            "warm_iterations", "cluster_sample", "cluster_in_background", "warmup_epochs",
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
        sums = self._sums_over_nearest if self.background == "knn" else self._sums_over_fixed
        logs, sizes, own_in_background, sorted_out = sums(embeddings, indices)  # over B_i, over C_i ∩ B_i
        self.close_mean.update_state(sizes[:, 1], valid)
        self.close_min.update_state(tf.cast(sizes[:, 1], tf.float32), valid)
        self.empty_fraction.update_state(sizes[:, 1] == 0, valid)
        self.own_in_background.update_state(own_in_background, valid)
        self.sorted_out_fraction.update_state(sorted_out, valid)
        return local_aggregation_loss(logs[:, 0], logs[:, 1])

    def _sums_over_nearest(self, embeddings, indices):
        """Returns log-sums and sizes `[B, 2]` of B_i = N_k(v_i) (section 3.1) and of C_i ∩ B_i; whether i is in B_i.

        And, `[B]` too, whether B_i took the long way (`neighbors.background_neighbors`).
        """
        similarity, rows, sorted_out = self._nearest(embeddings, self.background_k)
        in_background = similarity != -math.inf  # B_i may be smaller than k
        own = is_own_row(rows, indices) & in_background
        if self.close == "self":
            close = own
        elif self.close == "knn":  # similarities fall
            close = in_background & (tf.range(self.background_k) < self.close_k)
        else:
            close = in_background & close_among(rows, indices, self.cluster_labels.value)
        bank, sets = self.bank.rows.value, (in_background, close)
        logs, sizes = log_sums.over_rows(embeddings, bank, self.tau, similarity, rows, sets)
        return logs, sizes, tf.reduce_any(own, axis=1), sorted_out

    def _sums_over_fixed(self, embeddings, indices):
        """Returns the same for a B_i that does not follow the embedding (section 5.2): all rows, or its clusters."""
        bank, written = self.bank.rows.value, self.bank.written.value

        def in_background(rows):
            mates = self.background == "all" or cluster_mates(rows, indices, self.background_labels.value)
            return tf.gather(written, rows)[:, None] & mates

        def close(rows):
            if self.close == "self":
                return rows[:, None] == tf.cast(indices, rows.dtype)
            return cluster_mates(rows, indices, self.cluster_labels.value)

        def sets(rows):
            background = in_background(rows)
            return [background] if self.close == "knn" else [background, background & close(rows)]

        sorted_out = tf.zeros(tf.shape(indices), tf.bool)
        logs, sizes = log_sums.over_bank(embeddings, bank, self.tau, 1 if self.close == "knn" else 2, sets)
        if self.close == "knn":
            inside = in_background if self.background == "cluster" else None
            similarity, rows, sorted_out = self._nearest(embeddings, self.close_k, inside)
            nearest = (similarity != -math.inf,)
            close_logs, close_sizes = log_sums.over_rows(embeddings, bank, self.tau, similarity, rows, nearest)
            logs, sizes = tf.concat([logs, close_logs], axis=1), tf.concat([sizes, close_sizes], axis=1)
        return logs, sizes, tf.gather(written, indices), sorted_out

    def _nearest(self, embeddings, k, inside=None):
        return background_neighbors(embeddings, self.bank.rows.value, self.bank.written.value, k, inside)

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
        return {"phase": "la", **(self.renew_clusters(epoch, begins) if due else {})}

    def begin_step(self, step):
        """Renews the clusters where they are renewed by steps."""
        count, of = self.cluster_every
        if of != "steps" or not bool(self.aggregating.numpy()) or not (self.clusters_due or step % count == 0):
            return {}
        begins, self.clusters_due = self.clusters_due, False
        return self.renew_clusters(step, begins)

    def renew_clusters(self, moment=0, begins=True):
        """Clusters the images anew; C_i, and B_i where it is made of clusters, follow. Returns health metrics.

        `moment` numbers the renewals. In the background, all but the one that `begins` LA take effect a renewal later.
        """
        self.aggregating.assign(True)
        if not self.label_variables:
            return {}
        return self.renewal.renew(self._to_be_clustered, moment, begins)

    def _cluster(self, name, rows, previous, moment):
        """Returns the labels `[n, H]` of `rows` for one of `label_variables`; in a thread, so without TensorFlow."""
        if name == "cluster_labels" and self.clustering == "dbscan":
            return clustering.dbscan(rows, *self.dbscan)
        flag = "clusters" if name == "cluster_labels" else "background_clusters"
        # Seeds of B_i's clusterings apart from those of C_i's, or one would be the other.
        first = 0 if name == "cluster_labels" else self.clusterings
        options = {"iterations": self.warm_iterations, "sample": self.cluster_sample, "moment": moment}
        clusters, clusterings = getattr(self, flag), previous.shape[1]
        if len(rows) < clusters:
            raise UserError(
                f"--{flag}={clusters}: only {len(rows)} of {self.bank.rows.shape[0]} images have been seen; lower it, "
                "or raise --warmup_epochs"
            )
        return clustering.cluster(rows, clusters, clusterings, self.seed, first, previous=previous, **options)

    def _to_be_clustered(self):
        """Returns unit rows `[n, D]` and which images they stand for, `[n]`."""
        if self.cluster_on == "center_crops":
            embeddings, indices, _ = embed(self, self.center_crops())
            return embeddings, indices
        written = np.flatnonzero(self.bank.written.numpy())
        return self.bank.float32_rows()[written], written

    def settle(self):
        """Waits for a clustering in the background, so that a checkpoint holds it; returns its health."""
        return {} if self.waiting_labels is None else self.waiting_labels.settle()

    def resume(self, settled):
        """Goes on from a checkpoint and what `settle` returned then."""
        if self.waiting_labels is not None:
            self.waiting_labels.resume(settled)

    @property
    def label_variables(self):
        """The clusterings behind C_i and B_i, those that there are."""
        labels = [getattr(self, name, None) for name in ("cluster_labels", "background_labels")]
        return [variable for variable in labels if variable is not None]

    @property
    def picture_variables(self):
        """The memory bank and its clusters."""
        waiting = [] if self.waiting_labels is None else self.waiting_labels.variables
        return [*super().picture_variables, *self.label_variables, *waiting]

    @property
    def metrics(self):
        """The loss, and how LA is doing: |C_i ∩ B_i| (mean, least), how often empty, how often i is in B_i.

        And for how many images B_i took the long way (`neighbors.background_neighbors`).
        """
        health = [self.close_mean, self.close_min, self.empty_fraction, self.own_in_background]
        health.append(self.sorted_out_fraction)
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
