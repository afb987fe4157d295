"""DeepCluster (Caron, Bojanowski, Joulin, Douze 2018): cluster the features, learn to tell the clusters apart, repeat.

Every round (their section 3): features of the central views, PCA-whitened and at unit length, are clustered by k-means;
the clusters are the classes of the epochs that follow. Two trivial solutions are kept off as published (section 3.3):
Faiss fills an empty cluster from a large one, and images are drawn so that every class comes equally often. Their code
trains with dropout, which is left out.
"""

import math

import keras
import numpy as np
import tensorflow as tf

from data.errors import UserError
from la_tf import cluster_health, clustering
from la_tf.config import interval
from la_tf.embedding import embedder_from
from la_tf.knn import embed
from la_tf.method import Method
from la_tf.picture_rows import STATE
from models.layers import INITIALIZERS

# Pictures that the whitening is estimated from: 78 for each of its 256 dimensions. Features so wide that these would
# take more than 2 GB in float64 (a ResNet's conv5, unpooled) get by with fewer.
WHITENING_ROWS, WHITENING_NUMBERS = 20_000, 2**28
# Deviation, relative to the features' length, below which a direction holds rounding errors: float32 has 6e-8, a few
# layers of it some 1e-7.
ROUNDING = 1e-6
# Part of the features that is whitened at most (theirs: 256 of 4096). The last components hold next to nothing, and to
# divide by their deviation blows up noise: kNN on the digits (seed 0) is 0.98 with 64 of 128 and 0.48 with all.
MOST_WHITENED = 1 / 2
CLASS_DEVIATION = 0.01  # of a fresh class layer's kernel, as in their code

# When clusters have become trivial. The sampler hides it from the loss: what is left of the classes is learned well.
EMPTY_SHARE = 1 / 2  # of the classes; Faiss leaves next to none empty unless features coincide
UNRELATED_ROUNDS, UNRELATED = 5, 0.05  # from which round on; NMI with the last round's clusters, 0 being chance


def whitening(features, dimensions):
    """Returns matrix `[d, p]` and offset `[p]` float32 that decorrelate `features` `[n, d]`: x @ matrix + offset.

    The p = `dimensions` principal components, largest first, each divided by its deviation over the n rows (their
    section 3.4). Where fewer directions vary, at most min(d, n - 1), the rest of the columns is 0.
    """
    count, width = features.shape
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    # Covariance or Gram matrix, whichever is smaller: they share the eigenvalues that are not 0.
    wide = width > count
    product = centred @ centred.T if wide else centred.T @ centred
    variances, vectors = np.linalg.eigh(product / count)
    floor = ROUNDING**2 * (variances.sum() + mean @ mean)
    found = np.flatnonzero(variances > floor)[::-1][:dimensions]
    deviations, vectors = np.sqrt(variances[found]), vectors[:, found]
    directions = centred.T @ vectors / (deviations * np.sqrt(count)) if wide else vectors  # at unit length
    matrix = np.zeros((width, dimensions))
    matrix[:, : len(found)] = directions / deviations
    return matrix.astype(np.float32), (-mean @ matrix).astype(np.float32)


def uniform_rows(labels, seed, epoch):
    """Returns the rows of an epoch `[N]`, shuffled: as many of each cluster of `labels` `[N]` as of any other, +-1.

    Drawn by (seed, epoch), with replacement from a cluster that holds fewer. Rows without a label (-1) are not drawn.
    """
    rng = np.random.default_rng([seed, epoch])
    labelled = np.argsort(labels, kind="stable")[np.count_nonzero(labels == clustering.UNASSIGNED) :]
    clusters = np.split(labelled, np.flatnonzero(np.diff(labels[labelled])) + 1)
    share, left_over = divmod(len(labels), len(clusters))
    shares = share + (rng.permutation(len(clusters)) < left_over)
    drawn = [rng.choice(rows, n, replace=n > len(rows)) for rows, n in zip(clusters, shares, strict=True)]
    return rng.permutation(np.concatenate(drawn))


def assignment_losses(features, labels, kernel, bias):
    """Returns -log P(cluster of i | x_i) `[B]` (their equation 1): the softmax of a linear layer on ReLU(features).

    features `[B, d]`, labels `[B]`, kernel `[d, k]`, bias `[k]`.
    """
    logits = tf.matmul(tf.nn.relu(features), kernel) + bias
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


class Whitening(keras.layers.Layer):
    """A linear map `[B, d]` -> `[B, p]` that is not learned but set: a random projection until it is."""

    def __init__(self, dimensions, **kwargs):
        super().__init__(**kwargs)
        self.dimensions = dimensions

    def build(self, input_shape):
        """Makes `matrix` `[d, p]` and `offset` `[p]`."""
        random = keras.initializers.RandomNormal(stddev=self.dimensions**-0.5)
        self.matrix = self.add_weight(
            name="matrix", shape=(input_shape[-1], self.dimensions), initializer=random, **STATE
        )
        self.offset = self.add_weight(name="offset", shape=(self.dimensions,), initializer="zeros", **STATE)

    def call(self, features):
        """Returns `[B, p]`."""
        return keras.ops.matmul(features, self.matrix) + self.offset

    def assign(self, matrix, offset):
        """Sets the map."""
        self.matrix.assign(matrix)
        self.offset.assign(offset)


def build_embedder(backbone, dimensions=256, head_units=None):
    """Returns the model from images to the space that DeepCluster clusters in, unit rows `[B, p]`.

    The features are what the last ReLU before the class layer takes in (their code drops it to cluster): of the
    backbone (head A), whose last endpoint is not pooled, or with `head_units` of two hidden layers on top (head B;
    supplement B.2). p is `dimensions`, at most half as many as there are features. Pictures must be of the backbone's
    `image_size`.
    """
    size = backbone.preprocessing.image_size
    shape = backbone.model.compute_output_shape((1, size, size, 3))[backbone.last]
    endpoint = backbone.model.output[backbone.last]
    last_relu = next(layer for layer in backbone.model.layers if layer.output is endpoint)
    flat = keras.layers.Reshape((math.prod(shape[1:]),), name="flat", dtype="float32")
    if head_units is None:
        features = flat(last_relu.input)
    else:
        hidden = keras.layers.ReLU(name="hidden1_relu")(_hidden("hidden1", head_units)(flat(endpoint)))
        features = _hidden("hidden2", head_units)(hidden)
    p = min(dimensions, int(features.shape[-1] * MOST_WHITENED))
    return embedder_from(backbone, Whitening(p, name="whitening", dtype="float32")(features))


def _hidden(name, units):
    return keras.layers.Dense(units, kernel_initializer=INITIALIZERS["he_fan_in"](), name=name, dtype="float32")


class DeepCluster(Method):
    """Learns the clusters of `size` pictures, `clusters` (k) many, which are found anew `cluster_every` so many epochs.

    center_crops(rows) gives batches of the central views of those rows, or without rows of all; the embedder is one of
    `build_embedder`. image_labels `[N]` (-1 unknown), where given, serve the health metric `purity` and nothing else.
    """

    spreads = False  # every process looks at all clusters to choose the rows of an epoch

    def __init__(
        self,
        embedder,
        size,
        *,
        clusters=100,
        cluster_every="1epoch",
        image_labels=None,
        center_crops=None,
        name="deep_cluster",
        **kwargs,
    ):
        super().__init__(embedder, size, name=name, **kwargs)
        self.round_epochs, of = interval(cluster_every)
        if of != "epochs":
            raise ValueError(f"cluster_every={cluster_every!r}: DeepCluster's rounds are whole epochs")
        self.clusters = clusters
        self.image_labels = image_labels
        self.center_crops = center_crops
        self.whitening = embedder.get_layer("whitening")
        self.features = keras.Model(embedder.inputs[0], self.whitening.input, name="features")
        self.cluster_labels = self.add_weight(
            name="cluster_labels",
            shape=(size, 1),
            initializer=keras.initializers.Constant(clustering.UNASSIGNED),
            dtype="int32",
            **STATE,
        )
        width = self.features.output_shape[-1]
        # Trainable for the tape to watch them; the optimizer does not get to see them (`trainable_variables`).
        self.class_kernel = self.add_weight(name="class_kernel", shape=(width, clusters), initializer="zeros")
        self.class_bias = self.add_weight(name="class_bias", shape=(clusters,), initializer="zeros")

    @staticmethod
    def arguments(config, pictures):
        """Adds the number of clusters and how often they are renewed, with labels for `purity` alone."""
        chosen = {name: getattr(config.method, name) for name in ("clusters", "cluster_every")}
        of_pictures = {"image_labels": pictures.labels, "center_crops": pictures.center_crops}
        return Method.arguments(config, pictures) | chosen | of_pictures

    @staticmethod
    def build_embedder(backbone, config):
        """Returns the embedder of `build_embedder`, with hidden layers for head B."""
        method = config.method
        return build_embedder(
            backbone, config.model.embedding_dim, method.head_units if method.dc_head == "b" else None
        )

    # -- a step -----------------------------------------------------------------------------------------------------

    def training_losses(self, batch):
        """Returns the loss `[B]` of the class layer against the clusters, and embeddings `[B, p]` as whitened now."""
        features = self.forward(self.features, batch["image"])
        labels = tf.maximum(self._labels_of(batch), 0)  # where there is none, the loss is not counted
        losses = assignment_losses(features, labels, self.class_kernel.value, self.class_bias.value)
        return losses, self.project(features)

    def counted(self, batch):
        """Pictures without a cluster, which were bad when the round began, do not count."""
        return batch["valid"] & (self._labels_of(batch) != clustering.UNASSIGNED)

    def _labels_of(self, batch):
        return tf.gather(self.cluster_labels.value, batch["index"])[:, 0]

    def project(self, features):
        """Returns unit rows `[B, p]` of features `[B, d]`: whitened, then L2."""
        return self.embedder.get_layer("unit_length")(self.whitening(features))

    @property
    def trainable_variables(self):
        """What the optimizer moves: all but the class layer, which has its own rule (`descend`)."""
        return self.embedder.trainable_variables

    trainable_weights = trainable_variables

    def descend(self, tape, objective):
        """Moves the class layer by plain gradient descent: momentum would be that of other classes, rounds ago."""
        trunk, rate = self.trainable_variables, tf.convert_to_tensor(self.optimizer.learning_rate)
        by_trunk, by_kernel, by_bias = tape.gradient(objective, [trunk, self.class_kernel.value, self.class_bias.value])
        by_kernel, by_bias = self.replicas.sum([by_kernel, by_bias])
        rate_of_scaled = rate / self.optimizer.scale_loss(1.0)  # read before `apply_gradients` adapts the scale
        self.optimizer.apply_gradients(zip(by_trunk, trunk, strict=True))
        self.class_kernel.assign_sub(rate_of_scaled * by_kernel + rate * self.weight_decay * self.class_kernel)
        self.class_bias.assign_sub(rate_of_scaled * by_bias)

    @property
    def finite(self):
        """Whether what is learned consists of numbers, the class layer too."""
        layer = (self.class_kernel, self.class_bias)
        return super().finite and all(np.isfinite(weight.numpy()).all() for weight in layer)

    # -- a round ------------------------------------------------------------------------------------------------------

    def begin_epoch(self, epoch):
        """Begins a round where one is due; returns the health of its clusters."""
        number, position = divmod(epoch, self.round_epochs)
        return {"phase": "dc", **(self.begin_round(number) if position == 0 else {})}

    def begin_round(self, number):
        """Whitens and clusters the pictures anew, for a fresh class layer to tell apart; returns health metrics."""
        embeddings, indices = self._whitened_embeddings(number)
        if len(indices) < self.clusters:
            size = self.cluster_labels.shape[0]
            raise UserError(f"--clusters={self.clusters}: only {len(indices)} of {size} images can be read; lower it")
        labels = clustering.cluster(embeddings, self.clusters, 1, self.seed, first=number)  # [n, 1]
        previous = self.cluster_labels.numpy()[indices]
        every_label = np.full(self.cluster_labels.shape, clustering.UNASSIGNED, np.int32)
        every_label[indices] = labels
        self.cluster_labels.assign(every_label)
        self.bank.fill(indices, embeddings)
        self._fresh_class_layer(number)
        truth = None if self.image_labels is None else self.image_labels[indices]
        found = cluster_health.health(embeddings, labels, previous, truth, seed=self.seed)
        if "nmi_previous" in found:
            # By chance alone clusters share much information when there are many: 0.47 for ImageNet's 10,000.
            shuffled = np.random.default_rng([self.seed, number]).permutation(previous)
            found["nmi_chance"] = cluster_health.nmi_previous(labels, shuffled)
        return {"clusters_empty": self.clusters - len(np.unique(labels)), **found}

    def _whitened_embeddings(self, number):
        """Sets the whitening anew; returns unit rows `[n, p]` and which pictures they stand for, `[n]`."""
        size, width = self.cluster_labels.shape[0], self.features.output_shape[-1]
        rows = np.random.default_rng([self.seed, number]).permutation(size)
        rows = np.sort(rows[: min(WHITENING_ROWS, WHITENING_NUMBERS // width)])
        features, indices, _ = embed(self.features, self.center_crops(rows))
        self.whitening.assign(*whitening(features, self.whitening.dimensions))
        if len(rows) == size:
            return self.project(features).numpy(), indices
        embeddings, indices, _ = embed(self, self.center_crops())  # features of all would not fit
        return embeddings, indices

    def _fresh_class_layer(self, number):
        """Draws the kernel anew: the classes of two rounds have nothing but their number in common."""
        random = tf.random.stateless_normal(self.class_kernel.shape, [self.seed, number], stddev=CLASS_DEVIATION)
        self.class_kernel.assign(random)
        self.class_bias.assign(tf.zeros_like(self.class_bias.value))

    def epoch_rows(self, epoch):
        """Returns rows `[N]` in which every cluster comes equally often (their section 3.3)."""
        return uniform_rows(self.cluster_labels.numpy()[:, 0], self.seed, epoch)

    def warning(self, metrics):
        """Tells of clusters that have become trivial."""
        if "clusters_empty" not in metrics:
            return None  # no round began in this epoch
        share = cluster_health.giant(metrics, self.cluster_labels.shape[0], self.clusters)
        empty = metrics["clusters_empty"]
        relation = 1.0
        if "nmi_chance" in metrics and metrics["epoch"] // self.round_epochs >= UNRELATED_ROUNDS:
            relation = (metrics["nmi_previous"] - metrics["nmi_chance"]) / max(1 - metrics["nmi_chance"], 1e-6)
        if share is not None:
            wrong = f"the largest of {self.clusters} clusters holds {share:.0%} of the images"
        elif empty > EMPTY_SHARE * self.clusters:
            wrong = f"{empty} of {self.clusters} clusters are empty"
        elif relation < UNRELATED:
            wrong = "the clusters have next to nothing in common with the last round's"
        else:
            return None
        return f"{wrong}: DeepCluster is collapsing; {self._remedies()}"

    def _remedies(self):
        has_hidden = any(layer.name == "hidden1" for layer in self.embedder.layers)
        head = "--dc_head=a, " if has_hidden else ""
        return f"try {head}a lower --learning_rate or --embedding_dim, fewer --clusters, or --sobel for photographs"

    @property
    def clusters_here(self):
        """The clusters of this round `[N, 1]`."""
        return self.cluster_labels.numpy()

    @property
    def picture_variables(self):
        """The memory bank and the clusters."""
        return [*super().picture_variables, self.cluster_labels]
