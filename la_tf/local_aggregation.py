"""Local Aggregation (Zhuang, Zhai, Yamins 2019), section 3: draw an image to its close neighbours C_i against its
background neighbours B_i."""

import math
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from data.errors import UserError
from la_tf import cells, cluster_health, clustering, log_sums
from la_tf.background_search import BackgroundSearch
from la_tf.cell_search import CHECK_EVERY, CHECKED, CellSearch
from la_tf.cluster_renewal import BackgroundLabels, Renewal
from la_tf.clustering import UNASSIGNED
from la_tf.config import interval
from la_tf.instance_recognition import InstanceRecognition
from la_tf.knn import embed
from la_tf.least import Least
from la_tf.neighbors import close_among, cluster_mates, is_own_row
from la_tf.picture_rows import STATE, rows_at

# The loss of an image whose C_i and B_i do not meet: -log(0 + 1e-7), as in the authors' code. A constant, so it has
# no gradient; it is not 0, or a run that loses its close neighbours would look as if it improved.
EMPTY_INTERSECTION_LOSS = -math.log(1e-7)
TRIVIAL_NOISE = 0.99  # of the images, that DBSCAN leaves without a cluster


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
    background_search "cells" looks for B_i in some of `cells` (C) parts of the bank alone, which hold `visited_rows`.
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
        background_search="exact",
        cells=None,
        visited_rows=None,
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
        # Labels `[N, H]`, so that one gather fetches all of a row; -1: not clustered yet.
        labels = partial(self.pictures.add, self, value=UNASSIGNED, dtype="int32")
        if close == "clusters":
            self.cluster_labels = labels("cluster_labels", columns=(clusterings,))
        if background == "cluster":
            self.background_labels = labels("background_labels", columns=(background_clusterings,))
        variables, pictures = self.label_variables, self.pictures
        self.waiting_labels = BackgroundLabels(variables, pictures) if cluster_in_background else None
        self.renewal = Renewal(self._cluster, variables, pictures, self.waiting_labels, image_labels, self.seed)
        self.cell_search = None
        if background_search == "cells":
            dimension = embedder.output_shape[-1]
            self.cell_search = CellSearch(self.pictures, dimension, cells, visited_rows, self.seed)
            self.search_recall = keras.metrics.Mean(name="search_recall")
            self.search_loss_error = keras.metrics.Mean(name="search_loss_error")
        self.search = BackgroundSearch(self.bank, self.cell_search)
        self.checking = False  # whether the step compares what is found in cells with what there is
        self.begun = self.add_weight(name="aggregating", shape=(), initializer="zeros", dtype="bool", **STATE)
        self._aggregating = False
        self.close_mean = keras.metrics.Mean(name="close_mean")
        self.close_min = Least(name="close_min")
        self.empty_fraction = keras.metrics.Mean(name="empty_fraction")
        self.own_in_background = keras.metrics.Mean(name="own_in_background")
        self.sorted_out_fraction = keras.metrics.Mean(name="sorted_out_fraction")

    @property
    def aggregating(self):
        """Whether the warm start is over. The weight behind it, `begun`, is for checkpoints."""
        return self._aggregating

    @aggregating.setter
    def aggregating(self, value):
        self._aggregating = value
        self.begun.assign(value)

    def variant(self, step):
        """The phase, and whether the search in cells is checked: such steps have graphs of their own."""
        return self.aggregating, self.checking

    @staticmethod
    def arguments(config, pictures):
        """Adds LA's choices, with labels for `purity` alone."""
        names = (
            "background", "background_k", "background_clusterings", "background_clusters", "close", "close_k",
            "clusters", "clusterings", "cluster_on", "cluster_every", "clustering", "dbscan_eps", "dbscan_min_samples",
            "warm_iterations", "cluster_sample", "cluster_in_background", "background_search", "cells",
            "visited_rows", "warmup_epochs",
        )  # fmt: skip
        chosen = {name: getattr(config.method, name) for name in names}
        of_pictures = {"image_labels": pictures.labels, "center_crops": pictures.center_crops}
        return InstanceRecognition.arguments(config, pictures) | chosen | of_pictures

    def training_losses(self, batch):
        """Returns the losses `[B]` of the phase, equation 1 before and equation 3 after the switch, and embeddings."""
        embeddings = self(batch["image"], training=True)
        if self.aggregating:
            losses = self.aggregation_losses(embeddings, batch["index"], batch["valid"])
            if self.checking:
                self._check_search(embeddings, batch["index"], losses)
            return losses, embeddings
        return self.recognition_losses(embeddings, batch["index"]), embeddings

    def aggregation_losses(self, embeddings, indices, valid):
        """Returns equation 3 `[B]` of `embeddings` `[B, D]` against bank and clusters as they are."""
        find = self._sums_over_nearest if self.background == "knn" else self._sums_over_fixed
        logs, counts = self._log_sums(embeddings, indices, find)  # of B_i, of C_i ∩ B_i
        close = counts[:, 1]
        self.close_mean.update_state(close, valid)
        self.close_min.update_state(tf.cast(close, tf.float32), valid)
        self.empty_fraction.update_state(close == 0, valid)
        self.own_in_background.update_state(counts[:, 2] > 0, valid)
        self.sorted_out_fraction.update_state(counts[:, 3] > 0, valid)
        return local_aggregation_loss(logs[:, 0], logs[:, 1])

    def _check_search(self, embeddings, indices, losses):
        """Looks for B_i of some of the images everywhere: how much of it was found, and what that does to the loss."""
        some, find = slice(CHECKED), partial(self._sums_over_nearest, exact=True)
        logs, _ = self._log_sums(embeddings[some], indices[some], find)
        exact = local_aggregation_loss(logs[:, 0], logs[:, 1])
        self.search_loss_error.update_state(cells.loss_error(*map(self.replicas.gather, (losses[some], exact))))
        self.search_recall.update_state(self.search.recall(embeddings[some], self.background_k))

    def _sums_over_nearest(self, embeddings, indices, exact=False):
        """Returns log-sums `[B, 2]` of B_i = N_k(v_i) (section 3.1) and of C_i ∩ B_i, their gradients, and counts.

        Counts `[B, 4]` are the sizes, whether i is in B_i, and whether B_i took the long way
        (`neighbors.background_neighbors`).
        """
        places = self.pictures.places(indices)
        similarity, rows, sorted_out = self.search.nearest(embeddings, self.background_k, exact=exact)
        in_background = self.search.among_largest(similarity, self.background_k)  # B_i may be smaller than k
        own = is_own_row(rows, places) & in_background
        if self.close == "self":
            close = own
        elif self.close == "knn":
            close = in_background & self.search.among_largest(similarity, self.close_k)
        else:
            own_labels = self.pictures.of_all(self.cluster_labels, indices)
            close = in_background & close_among(rows, places, self.cluster_labels.value, own_labels)
        sets = (in_background, close)
        logs, slopes, sizes = log_sums.of_rows(self.bank.rows.value, self.tau, similarity, rows, sets)
        return logs, slopes, _counts(sizes, tf.reduce_any(own, axis=1), sorted_out)

    def _sums_over_fixed(self, embeddings, indices):
        """Returns the same for a B_i that does not follow the embedding (section 5.2): all rows, or its clusters."""
        bank, written = self.bank.rows.value, self.bank.written.value
        places = self.pictures.places(indices)
        own_labels = {labels.name: self.pictures.of_all(labels, indices) for labels in self.label_variables}

        def mates(rows, labels):
            return cluster_mates(rows, places, labels.value, own_labels[labels.name])

        def in_background(rows):
            everybody = self.background == "all"
            return rows_at(written, rows, tf.bool)[:, None] & (everybody or mates(rows, self.background_labels))

        def close(rows):
            return rows[:, None] == places if self.close == "self" else mates(rows, self.cluster_labels)

        def sets(rows):
            background = in_background(rows)
            return [background] if self.close == "knn" else [background, background & close(rows)]

        sorted_out = tf.zeros(tf.shape(indices), tf.bool)
        found = log_sums.of_bank(embeddings, bank, self.tau, 1 if self.close == "knn" else 2, sets)
        if self.close == "knn":
            inside = in_background if self.background == "cluster" else None
            similarity, rows, sorted_out = self.search.nearest(embeddings, self.close_k, inside)
            nearest = [self.search.among_largest(similarity, self.close_k)]
            of_close = log_sums.of_rows(bank, self.tau, similarity, rows, nearest)
            found = [tf.concat(parts, axis=1) for parts in zip(found, of_close, strict=True)]
        logs, slopes, sizes = found
        own = (places >= 0) & rows_at(written, tf.maximum(places, 0), tf.bool)
        return logs, slopes, _counts(sizes, own, sorted_out)

    def begin_epoch(self, epoch):
        """Begins Local Aggregation once the warm start is over, and renews the clusters; returns their health."""
        if epoch < self.warmup_epochs:
            self.aggregating = False  # a run that was warm-started from LA is back in its own warm start
            return {"phase": "ir"}
        if not self._any_written():
            raise UserError(
                "Local Aggregation begins, but the memory bank is empty: raise --warmup_epochs, or let --warm_start "
                "name a run with the same pictures and the same network"
            )
        count, of = self.cluster_every
        begins, self.aggregating = not self.aggregating, True
        self.clusters_due = begins and of == "steps"  # at the step that comes now
        due = of == "epochs" and (begins or (epoch - self.warmup_epochs) % count == 0)
        return {"phase": "la", **(self.renew_clusters(epoch, begins) if due else {})}

    def begin_step(self, step):
        """Renews the clusters where they are renewed by steps."""
        self.checking = self.aggregating and self.cell_search is not None and step % CHECK_EVERY == 0
        count, of = self.cluster_every
        if of != "steps" or not self.aggregating or not (self.clusters_due or step % count == 0):
            return {}
        begins, self.clusters_due = self.clusters_due, False
        return self.renew_clusters(step, begins)

    def renew_clusters(self, moment=0, begins=True):
        """Clusters the images anew; C_i, and B_i where it is made of clusters, follow. Returns health metrics.

        `moment` numbers the renewals. In the background, all but the one that `begins` LA take effect a renewal later.
        """
        self.aggregating = True
        if self.cell_search is not None:
            self.cell_search.renew(*self.bank.own_rows()[1:], moment)
        if not self.label_variables:
            return {}
        return self.renewal.renew(self._to_be_clustered, moment, begins)

    def _cluster(self, name, rows, previous, moment):
        """Returns the labels `[n, H]` of `rows` for one of `label_variables`; in a thread, so without TensorFlow."""
        processes = self.pictures.processes
        if name == "cluster_labels" and self.clustering == "dbscan":
            return clustering.dbscan(rows, *self.dbscan, processes)
        flag = "clusters" if name == "cluster_labels" else "background_clusters"
        # Seeds of B_i's clusterings apart from those of C_i's, or one would be the other.
        first = 0 if name == "cluster_labels" else self.clusterings
        options = {"iterations": self.warm_iterations, "sample": self.cluster_sample, "moment": moment}
        options["processes"] = processes
        clusters, clusterings = getattr(self, flag), previous.shape[1]
        count = int(processes.sum(np.array(len(rows))))
        if count < clusters:
            raise UserError(
                f"--{flag}={clusters}: only {count} of {self.pictures.size} images have been seen; lower it, "
                "or raise --warmup_epochs"
            )
        return clustering.cluster(rows, clusters, clusterings, self.seed, first, previous=previous, **options)

    def _to_be_clustered(self):
        """Returns unit rows `[n, D]` of this process' images and which of these they stand for, `[n]`."""
        if self.cluster_on == "center_crops":
            here = self.pictures.here
            if not len(here):
                return np.zeros((0, self.bank.rows.shape[1]), np.float32), np.zeros(0, np.int64)
            own = (np.arange(here.start, here.stop),) if self.pictures.spread else ()
            embeddings, indices, _ = embed(self, self.center_crops(*own))
            return embeddings, indices - here.start
        _, rows, written = self.bank.own_rows()
        written = np.flatnonzero(written)
        return rows[written], written

    def _any_written(self):
        written = self.pictures.read(self.bank.written)
        return bool(self.pictures.processes.sum(np.array(written.any(), np.int32)))

    def warning(self, metrics):
        """Tells of embeddings that have become alike, and of clusterings that have become trivial."""
        alike = super().warning(metrics)
        if alike or not self.label_variables:
            return alike
        density = self.clustering == "dbscan"
        share = cluster_health.giant(metrics, self.pictures.size, self.clusters if not density else self.pictures.size)
        if share is not None:
            remedy = "lower --dbscan_eps" if density else "raise --warmup_epochs or --clusters"
            return f"the largest cluster holds {share:.0%} of the images: C_i says nothing; in a new run, {remedy}"
        if metrics.get("unclustered_fraction", 0) > TRIVIAL_NOISE:
            return "next to no image is in a cluster: C_i is the image alone; in a new --model_dir, raise --dbscan_eps"
        return None

    def settle(self):
        """Waits for a clustering in the background, so that a checkpoint holds it; returns its health."""
        return {} if self.waiting_labels is None else self.waiting_labels.settle()

    def resume(self, settled):
        """Goes on from a checkpoint and what `settle` returned then."""
        self._aggregating = bool(self.begun.numpy())
        if self.cell_search is not None:
            self.cell_search.resume()
        if self.waiting_labels is not None:
            self.waiting_labels.resume(settled)

    @property
    def clusters_here(self):
        """The clusterings that C_i is made of, once the warm start is over."""
        by_clusters = self.aggregating and hasattr(self, "cluster_labels")
        return self.pictures.read(self.cluster_labels) if by_clusters else None

    @property
    def label_variables(self):
        """The clusterings behind C_i and B_i, those that there are."""
        labels = [getattr(self, name, None) for name in ("cluster_labels", "background_labels")]
        return [variable for variable in labels if variable is not None]

    @property
    def picture_variables(self):
        """The memory bank and its clusters."""
        waiting = [] if self.waiting_labels is None else self.waiting_labels.variables
        by_cells = [] if self.cell_search is None else self.cell_search.weights
        return [*super().picture_variables, *self.label_variables, *waiting, *by_cells]

    @property
    def metrics(self):
        """The loss, and how LA is doing: |C_i ∩ B_i| (mean, least), how often empty, how often i is in B_i.

        And for how many images B_i took the long way (`neighbors.background_neighbors`).
        """
        health = [self.close_mean, self.close_min, self.empty_fraction, self.own_in_background]
        health.append(self.sorted_out_fraction)
        if self.cell_search is not None:
            health += [self.search_recall, self.search_loss_error]
        return [*super().metrics, *health]

    def epoch_metrics(self):
        """Returns the metrics of the epoch so far; those of LA only once it has begun."""
        metrics = super().epoch_metrics()
        if not self.aggregating:
            return {"loss": metrics["loss"]}
        if self.cell_search is not None and not float(tf.convert_to_tensor(self.search_recall.count)):
            del metrics["search_recall"], metrics["search_loss_error"]  # nothing has been checked yet
        return metrics


def _counts(sizes, *marks):
    """Returns `[B, 2 + n]` int32: `sizes` `[B, 2]`, and 1 for each of n `marks` `[B]` bool that is true."""
    return tf.concat([sizes, tf.cast(tf.stack(marks, axis=1), tf.int32)], axis=1)
