"""Instance Recognition (Wu, Xiong, Yu, Lin 2018): every image is a class of its own; LA's warm start."""

import math

import keras
import tensorflow as tf

from la_tf import across_replicas, log_sums
from la_tf.method import Method
from la_tf.picture_rows import STATE, rows_at

RUNNING_WEIGHT = 0.01  # of a new estimate of Z in the running one

# When embeddings have collapsed: an untrained ResNet makes of photographs and of digits some of 0.88 to 0.98 of mean
# similarity, and learning brings that down within some hundred steps.
ALIKE, ALIKE_EPOCHS, ALIKE_STEPS = 0.95, 3, 200


def instance_recognition_loss(own_similarity, log_sum, tau):
    """Returns -log P(i|v_i) `[B]` (equation 1; Wu et al. equation 2), the softmax over all N rows.

    own_similarity `[B]` is v̄_i · v_i, log_sum `[B]` is log sum_j exp(v̄_j · v_i / tau).
    """
    return log_sum - own_similarity / tau


def noise_contrastive_loss(own_similarity, noise_similarity, size, log_normalizer, tau):
    """Returns -log h(i, v) - sum log(1 - h(i', v)) `[B]` (Wu et al. equations 5 to 7): data or noise?

    own_similarity `[B]`, noise_similarity `[B, m]` are v̄_j · v_i; P(j|v) = exp(v̄_j · v / tau) / Z, and
    h = P / (P + m P_n) with the noise uniform, P_n = 1/N. Both logarithms are softplus functions of log P - log(m P_n).
    """
    noise_rows = tf.cast(tf.shape(noise_similarity)[1], noise_similarity.dtype)
    offset = log_normalizer + tf.math.log(noise_rows / size)
    own = tf.math.softplus(offset - own_similarity / tau)
    noise = tf.math.softplus(noise_similarity / tau - offset)
    return own + tf.reduce_sum(noise, axis=1)


def log_normalizer_of(own_similarity, noise_similarity, size, tau):
    """Returns log Z as the batch estimates it: N times the mean of exp(v̄_j · v / tau) (Wu et al. equation 8)."""
    logits = tf.concat([own_similarity[:, None], noise_similarity], axis=1) / tau
    count = tf.cast(tf.size(logits), logits.dtype)
    return tf.reduce_logsumexp(logits) - tf.math.log(count) + tf.constant(math.log(size), logits.dtype)


class Normalizer(keras.layers.Layer):
    """Remembers log Z: the first estimate, or the running average of Z over all of them."""

    def __init__(self, running, name="noise_normalizer"):
        super().__init__(name=name, dtype="float32")
        self.running = running
        self.log_value = self.add_weight(name="log_value", shape=(), initializer="zeros", **STATE)
        self.known = self.add_weight(name="known", shape=(), initializer="zeros", dtype="bool", **STATE)

    def update(self, estimate):
        """Takes in a batch's estimate of log Z; returns log Z as it is now."""
        log_value = self.log_value.value
        if self.running:  # an average of Z itself, in logarithms
            terms = [log_value + math.log(1 - RUNNING_WEIGHT), estimate + math.log(RUNNING_WEIGHT)]
            kept = tf.reduce_logsumexp(tf.stack(terms))
        else:
            kept = tf.identity(log_value)
        updated = tf.where(self.known.value, kept, estimate)
        self.log_value.assign(updated)
        self.known.assign(True)
        return updated


class InstanceRecognition(Method):
    """Recognises each of `size` images by its row of the memory bank.

    ir_loss "softmax" compares it with all N rows, "nce" with `noise_rows` (m) random ones, noise-contrastive. Its Z is
    estimated from the first batch and then kept, as published, or all the time (noise_normalizer "running").
    """

    def __init__(
        self,
        embedder,
        size,
        *,
        tau=0.07,
        ir_loss="softmax",
        noise_rows=4096,
        noise_normalizer="first_batch",
        name="instance_recognition",
        **kwargs,
    ):
        super().__init__(embedder, size, name=name, **kwargs)
        self.tau = tau
        self.ir_loss = ir_loss
        self.noise_rows = noise_rows
        if ir_loss == "nce":
            self.normalizer = Normalizer(running=noise_normalizer == "running")

    @staticmethod
    def arguments(config, pictures):
        """Adds tau and the kind of loss; no label is used."""
        names = ("tau", "ir_loss", "noise_rows", "noise_normalizer")
        return Method.arguments(config, pictures) | {name: getattr(config.method, name) for name in names}

    def training_losses(self, batch):
        """Returns -log P(i|v_i) `[B]`, or its noise-contrastive estimate, and the embeddings `[B, D]`."""
        embeddings = self(batch["image"], training=True)
        return self.recognition_losses(embeddings, batch["index"]), embeddings

    def recognition_losses(self, embeddings, indices):
        """Returns the losses `[B]` of `embeddings` `[B, D]` against the bank as it is."""
        if self.ir_loss == "nce":
            return self._noise_contrastive_losses(embeddings, indices)
        logs, _ = self._log_sums(embeddings, indices, self._sums_of_recognition)
        return instance_recognition_loss(logs[:, 1] * self.tau, logs[:, 0], self.tau)

    def _log_sums(self, embeddings, indices, find):
        """Returns log-sums `[B, s]` and counts `[B, c]` of `find(embeddings, indices)`, over all rows there are.

        find sees the rows of one replica; it returns log-sums, their gradients `[B, s, D]` and counts.
        """
        if self.pictures.spread:
            return across_replicas.log_sums(embeddings, indices, find, self.replicas)
        return log_sums.with_gradient(embeddings, lambda embeddings: find(embeddings, indices))

    def _sums_of_recognition(self, embeddings, indices):
        """Returns the log-sums over all rows and over the image's own, with gradients and sizes."""
        bank, real, places = self.bank.rows.value, self.pictures.real, self.pictures.places(indices)
        every_row = lambda rows: [real(rows)[:, None]]  # noqa: E731
        of_all = log_sums.of_bank(embeddings, bank, self.tau, 1, every_row)
        own_rows = tf.maximum(places, 0)[:, None]
        similarity = tf.einsum("bd,bnd->bn", embeddings, rows_at(bank, own_rows, embeddings.dtype))
        of_own = log_sums.of_rows(bank, self.tau, similarity, own_rows, [places[:, None] >= 0])
        return tuple(tf.concat(parts, axis=1) for parts in zip(of_all, of_own, strict=True))

    def _noise_contrastive_losses(self, embeddings, indices):
        size, replicas = self.pictures.size, self.replicas
        # Drawn by (seed, step), so that a resumed run draws the same; with replacement, the image's own row not barred.
        noise = tf.random.stateless_uniform(
            [replicas.count * tf.shape(embeddings)[0], self.noise_rows],
            seed=tf.stack([tf.constant(self.seed, tf.int64), tf.cast(self.optimizer.iterations, tf.int64)]),
            maxval=size,
            dtype=tf.int32,
        )
        rows = tf.concat([tf.cast(indices, tf.int32)[:, None], replicas.own(noise)], axis=1)
        similarity = self._similarities(embeddings, rows)
        own_similarity, noise_similarity = similarity[:, 0], similarity[:, 1:]
        # Pictures that are not valid take part as the ones that stand in for them.
        estimate = tf.stop_gradient(log_normalizer_of(own_similarity, noise_similarity, size, self.tau))
        estimate = tf.reduce_logsumexp(replicas.gather(estimate[None])) - math.log(replicas.count)
        log_normalizer = self.normalizer.update(estimate)
        return noise_contrastive_loss(own_similarity, noise_similarity, size, log_normalizer, self.tau)

    def _similarities(self, embeddings, indices):
        """Returns v̄_j · v_i `[B, n]` for the rows j of `indices` `[B, n]`."""

        def rows_of(indices):
            places = self.pictures.places(indices)
            rows = rows_at(self.bank.rows.value, tf.maximum(places, 0), embeddings.dtype)
            return tf.where(places[:, :, None] >= 0, rows, tf.zeros_like(rows)) if self.pictures.spread else rows

        if self.pictures.spread:
            return across_replicas.similarities(embeddings, indices, rows_of, self.replicas)
        return tf.einsum("bd,bnd->bn", embeddings, rows_of(indices))

    @property
    def picture_variables(self):
        """The memory bank, and Z, which grows with N."""
        normalizer = [self.normalizer.log_value, self.normalizer.known] if self.ir_loss == "nce" else []
        return [*super().picture_variables, *normalizer]

    def begin_epoch(self, epoch):
        """Names the phase."""
        return {"phase": "ir"}

    def warning(self, metrics):
        """Tells of embeddings that have become alike, or never began to differ."""
        alike = metrics.get("mean_similarity", 0)
        if alike <= ALIKE or metrics["epoch"] + 1 < ALIKE_EPOCHS or metrics["step"] < ALIKE_STEPS:
            return None
        return (
            f"all embeddings are alike (mean similarity {alike:.3f}): the run has collapsed, or not begun to learn; in "
            "a new --model_dir, lower --learning_rate or --weight_decay, or take more steps (a smaller --batch_size)"
        )
