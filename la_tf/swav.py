"""SwAV (Caron, Misra, Mairal, Goyal, Bojanowski, Joulin 2020): predict the code of one view from the other views."""

import math
from itertools import groupby

import keras
import tensorflow as tf

from la_tf.embedding import embedder_from, pooled
from la_tf.memory_bank import random_unit_rows
from la_tf.method import Method
from la_tf.picture_rows import STATE
from models.layers import batch_norm, relu

LARGE_VIEWS = 2  # those that codes are made of; they come first in a batch
COLLAPSED = 0.01  # a loss so near to ln K, as a part of it, tells of nothing but chance


def sinkhorn_codes(scores, epsilon, iterations, valid):
    """Returns the codes Q* `[n, K]` of `scores` `[n, K]`, the similarities of n embeddings with K prototypes.

    Q* = Diag(u) exp(scores / epsilon) Diag(v) (equation 5), in the transportation polytope of equation 4: all
    prototypes get an equal share of the pictures, and each picture gives one in all. u and v are those of `iterations`
    rounds of Sinkhorn and Knopp, prototypes first. Only rows that are `valid` `[n]` bool take part; the others' codes,
    finite where their scores are, follow from theirs. No gradient flows.
    """
    # In logarithms, so that no epsilon overflows. The shares' sizes, 1/K and 1/n, cancel out of the codes.
    counted = valid | ~tf.reduce_any(valid)  # without any, all stand in: finite numbers that the loss then drops
    minus_infinity = tf.constant(float("-inf"), scores.dtype)
    log_codes = tf.stop_gradient(scores) / epsilon
    for _ in range(iterations):
        masses = tf.where(counted[:, None], log_codes, minus_infinity)
        log_codes -= tf.reduce_logsumexp(masses, axis=0, keepdims=True)
        log_codes = tf.nn.log_softmax(log_codes, axis=1)
    return tf.exp(log_codes)


def swapped_prediction_loss(codes, scores, tau):
    """Returns the loss `[B]`: how badly each large view's code is predicted from the other views (equations 2 and 6).

    codes: q_s `[B, K]` of the large views; scores: z_t · C `[B, K]` of all views, the large ones first. The mean over s
    and over t != s of -sum_k q_s log softmax(z_t · C / tau), as in the paper's code (equation 6 is a sum).
    """
    losses = [
        tf.nn.softmax_cross_entropy_with_logits(labels=code, logits=score / tau)
        for s, code in enumerate(codes)
        for t, score in enumerate(scores)
        if t != s
    ]
    return tf.add_n(losses) / len(losses)


def perplexity(codes):
    """Returns exp(entropy) `[B]` of `codes` `[B, K]`: 1 for one prototype, K for an even share of all."""
    return tf.exp(-tf.reduce_sum(tf.math.xlogy(codes, codes), axis=1))


class SwAV(Method):
    """Assigns the large views of a picture to `prototypes` (K) and predicts the assignment of one from the others.

    The prototypes learn only from step `frozen_steps` on. From step `queue_from_step` on, a `queue` of that many
    embeddings of earlier batches (0: none) helps to balance the codes once it is full.
    """

    def __init__(
        self,
        embedder,
        size,
        *,
        prototypes=300,
        tau=0.1,
        sinkhorn_epsilon=0.05,
        sinkhorn_iterations=3,
        queue=0,
        queue_from_step=0,
        frozen_steps=0,
        name="swav",
        **kwargs,
    ):
        super().__init__(embedder, size, name=name, **kwargs)
        self.tau = tau
        self.sinkhorn_epsilon = sinkhorn_epsilon
        self.sinkhorn_iterations = sinkhorn_iterations
        self.queue_from_step = queue_from_step
        self.frozen_steps = frozen_steps
        dimension = embedder.output_shape[-1]
        # Rows are brought back to unit length after every step, that is, before every forward pass. The loss does not
        # decay them (they are no "kernel"): decay along a row would only make its steps longer by rate · decay.
        self.prototypes = self.add_weight(
            name="prototypes",
            shape=(prototypes, dimension),
            initializer=lambda shape, dtype: random_unit_rows(*shape, (self.seed, 1)),  # the bank starts from the seed
            constraint=keras.constraints.UnitNorm(axis=1),
            aggregation="only_first_replica",
        )
        self.queue = None
        if queue:
            # Newest first; zeros are places that nothing has come to yet.
            self.queue = self.add_weight(
                name="queue",
                shape=(LARGE_VIEWS, queue, dimension),
                initializer="zeros",
                **STATE,
            )
        self.code_perplexity = keras.metrics.Mean(name="code_perplexity")

    @staticmethod
    def arguments(config, pictures):
        """Adds SwAV's choices; what the flags count in epochs, in steps."""
        method, per_epoch = config.method, pictures.steps_per_epoch
        names = ("prototypes", "tau", "sinkhorn_epsilon", "sinkhorn_iterations", "queue")
        steps = {
            "queue_from_step": method.queue_from_epoch * per_epoch,
            "frozen_steps": round(method.frozen_prototype_epochs * per_epoch),
        }
        return Method.arguments(config, pictures) | {name: getattr(method, name) for name in names} | steps

    @staticmethod
    def build_embedder(backbone, config):
        """Returns the embedder with a projection of one hidden layer (section 4 and the paper's code)."""
        features = pooled(backbone)
        units = config.method.projection_units or features.shape[-1]
        hidden = keras.layers.Dense(units, name="projection")(features)
        hidden = relu(batch_norm(hidden, "projection_bn"), "projection_relu")
        readout = keras.layers.Dense(config.model.embedding_dim, name="projection_out", dtype="float32")
        return embedder_from(backbone, readout(hidden))

    def training_losses(self, batch):
        """Returns the losses `[B]` and the embeddings of the first large view, of a batch with `views`."""
        valid = batch["valid"]
        embeddings = self.embed(batch["views"])
        codes = self.codes(embeddings[:LARGE_VIEWS], valid)
        frozen = self.optimizer.iterations < self.frozen_steps
        prototypes = tf.convert_to_tensor(self.prototypes)
        prototypes = tf.where(frozen, tf.stop_gradient(prototypes), prototypes)
        scores = [tf.matmul(view, prototypes, transpose_b=True) for view in embeddings]
        for code in codes:
            self.code_perplexity.update_state(perplexity(code), valid)
        return swapped_prediction_loss(codes, scores, self.tau), embeddings[0]

    def embed(self, views):
        """Returns embeddings `[B, D]` of each of `views`, with one forward pass for all of one size."""
        embeddings = []
        for _, same in groupby(views, key=lambda view: view.shape[1:]):
            same = list(same)
            embeddings += tf.split(self(tf.concat(same, axis=0), training=True), len(same))
        return embeddings

    def codes(self, embeddings, valid):
        """Returns the code `[B, K]` of each of the large views' `embeddings` `[B, D]`, and moves the queue on by them.

        They are balanced over all that is `valid` `[B]` bool on any replica, and the queue. A picture that could not be
        read enters the queue as the one that stands in for it.
        """
        views = tf.stack([self.replicas.gather(tf.stop_gradient(view)) for view in embeddings])  # [2, B, D] of all
        taking_part = self.replicas.gather(valid)
        batch = tf.shape(taking_part)[0]
        rows, taking_part = self._with_queue(views, taking_part)
        scores = tf.matmul(rows, self.prototypes, transpose_b=True)
        codes = [
            sinkhorn_codes(of_view, self.sinkhorn_epsilon, self.sinkhorn_iterations, taking_part)
            for of_view in tf.unstack(scores)
        ]
        return [self.replicas.own(of_view[:batch]) for of_view in codes]

    def _with_queue(self, views, taking_part):
        """Returns both with the queue's embeddings behind them, and puts `views` in front of the queue."""
        if self.queue is None:
            return views, taking_part
        queue, length = tf.convert_to_tensor(self.queue), self.queue.shape[1]
        begun = self.optimizer.iterations >= self.queue_from_step
        full = begun & tf.reduce_any(queue[:, -1] != 0)
        rows = tf.concat([views, queue], axis=1)
        # Until its time comes the queue is empty, that of a warm start too.
        self.queue.assign(tf.where(begun, rows[:, :length], tf.zeros_like(queue)))
        return rows, tf.concat([taking_part, tf.fill([length], full)], axis=0)

    def begin_epoch(self, epoch):
        """Names the phase."""
        return {"phase": "swav"}

    def warning(self, metrics):
        """Returns a line where the loss is that of chance, ln K, though prototypes learn: all pictures look alike."""
        chance = math.log(self.prototypes.shape[0])
        if metrics["step"] <= self.frozen_steps or abs(metrics["loss"] - chance) > COLLAPSED * chance:
            return None
        remedies = ["raise --frozen_prototype_epochs"]
        if self.sinkhorn_epsilon > 0.03:
            remedies.insert(0, "lower --sinkhorn_epsilon to 0.03")
        if self.queue is not None:
            remedies.append("make --queue smaller or --queue_from_epoch later")
        return (
            f"the loss {metrics['loss']:.3f} is that of chance, ln K = {chance:.3f} for --prototypes="
            f"{self.prototypes.shape[0]}: SwAV has collapsed; in a new --model_dir, {' or '.join(remedies)}"
        )

    @property
    def picture_variables(self):
        """The memory bank and the queue."""
        return [*super().picture_variables, *([] if self.queue is None else [self.queue])]

    @property
    def metrics(self):
        """The loss, and over how many prototypes a code is spread: over all K of them once all pictures look alike."""
        return [*super().metrics, self.code_perplexity]
