"""The linear readout (section 4.2): frozen network, one linear layer on each chosen endpoint, trained in one pass."""

from collections import Counter

import keras
import numpy as np
import tensorflow as tf

from data.errors import UserError
from la_tf.readout_pooling import feature_count, pool
from la_tf.schedules import Saturation
from la_tf.trainable import Trainable, decayed_kernels, known, mean_over, weight_decay_loss


class LinearReadouts(Trainable):
    """A linear classifier on each endpoint of a network that stays as it is; each is what it would be alone.

    `features`: images `[B, H, W, 3]` -> `{endpoint: [B, h, w, C] or [B, C]}` in inference mode, and `shapes` those of
    the endpoints without the batch. The network's weights are not among the model's. Pictures without a label are not
    learned from. Raises UserError for fewer than two classes.
    """

    def __init__(self, features, shapes, classes, *, pooling="9k", weight_decay=1e-4, name="linear_readouts"):
        super().__init__(name=name)
        if classes < 2:
            raise UserError(f"a linear readout needs labels of at least 2 classes, the data set has {classes}")
        self._features = lambda images: features(images)  # hides a Keras model from the tracking of weights
        self.shapes = {endpoint: tuple(shape) for endpoint, shape in shapes.items()}
        self.pooling = pooling
        self.weight_decay = weight_decay
        # The problem is convex: it needs no random start.
        self.readouts = {
            endpoint: keras.layers.Dense(
                classes, kernel_initializer="zeros", dtype="float32", name=endpoint.replace("/", "__")
            )
            for endpoint in shapes
        }
        for endpoint, readout in self.readouts.items():
            readout.build((None, self.feature_counts[endpoint]))
        # Of the optimizer's learning rate; 0 stops a readout.
        self.rate_factors = {
            endpoint: self.add_weight(
                name=f"rate_factor_{endpoint.replace('/', '__')}",
                shape=(),
                initializer="ones",
                trainable=False,
                dtype="float32",
            )
            for endpoint in shapes
        }
        self.accuracies = {
            endpoint: keras.metrics.Mean(name=f"accuracy_{endpoint.replace('/', '__')}") for endpoint in shapes
        }
        self.compiled_features = tf.function(self.pooled, reduce_retracing=True)

    @property
    def feature_counts(self):
        """The number of features of each endpoint that its readout sees."""
        return {endpoint: feature_count(shape, self.pooling) for endpoint, shape in self.shapes.items()}

    def pooled(self, images):
        """Returns the features `{endpoint: [B, n]}` of images."""
        features = self._features(images)
        return {endpoint: pool(features[endpoint], shape, self.pooling) for endpoint, shape in self.shapes.items()}

    def classify(self, pooled):
        """Returns the logits `{endpoint: [B, classes]}` of pooled features."""
        return {endpoint: readout(pooled[endpoint]) for endpoint, readout in self.readouts.items()}

    def call(self, images, training=False):
        """Returns the logits `{endpoint: [B, classes]}` of images."""
        return self.classify(self.pooled(images))

    # -- training -----------------------------------------------------------------------------------------------------

    def begin_epoch(self, epoch):
        """Tells the learning rate of each readout."""
        rate = float(self.optimizer.learning_rate)
        return {f"learning_rate_{endpoint}": rate * float(factor) for endpoint, factor in self.rate_factors.items()}

    def train_step(self, batch):
        """Takes one step of every readout down the sum of their cross-entropies; returns the running metrics."""
        pooled = self.pooled(batch["image"])  # outside the tape: the network is not trained
        counted = known(batch)
        labels = tf.maximum(batch["label"], 0)
        step = tf.convert_to_tensor(self.optimizer.iterations)
        with tf.GradientTape() as tape:
            logits = self.classify(pooled)
            losses = tf.add_n(
                [tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=each) for each in logits.values()]
            )
            objective = mean_over(losses, counted)
            if self.weight_decay:
                objective += weight_decay_loss(decayed_kernels(self), self.weight_decay)
        factors, weights = zip(*self._rated_weights(), strict=True)
        gradients = tape.gradient(objective, weights)
        # Keras' velocity is m v - lr g: scaling g is scaling the learning rate.
        scaled = [factor * gradient for factor, gradient in zip(factors, gradients, strict=True)]
        self.optimizer.apply_gradients(zip(scaled, weights, strict=True))
        self.loss_mean.update_state(losses, counted)
        self.first_failure.note(losses, batch["index"], counted, step)
        for endpoint, each in logits.items():
            right = tf.cast(tf.argmax(each, axis=1) == labels, tf.float32)
            self.accuracies[endpoint].update_state(right, counted)
        return {metric.name: metric.result() for metric in self.metrics}

    def _rated_weights(self):
        """Pairs of rate factor and weight, in the order of `trainable_weights`."""
        return [
            (self.rate_factors[endpoint], weight)
            for endpoint, readout in self.readouts.items()
            for weight in readout.trainable_weights
        ]

    def stop(self, endpoint):
        """Leaves a readout as it is from now on."""
        self.rate_factors[endpoint].assign(0)
        if not self.optimizer.momentum:
            return
        for (factor, _), velocity in zip(self._rated_weights(), self.optimizer.momentums, strict=True):
            if factor is self.rate_factors[endpoint]:
                velocity.assign(tf.zeros(velocity.shape))

    @property
    def metrics(self):
        """The sum of the cross-entropies, and the share of training views that each readout tells rightly."""
        return [*super().metrics, *self.accuracies.values()]

    # -- judging ------------------------------------------------------------------------------------------------------

    def score(self, batches):
        """Returns the `score` of every readout, all in one pass over `batches`."""
        return score(lambda images: self.classify(self.compiled_features(images)), batches)


def score(logits, batches):
    """Returns `{name: {"top1", "top5"}}` of `logits`, images -> `{name: [B, classes]}`, over `batches`.

    The valid and labelled pictures count. Where batches have `views` (ten crops), `ten_crop_top1` and `ten_crop_top5`
    come with them, by the mean of the softmax over the views. Raises UserError where no picture counts.
    """
    hits, count = {}, 0
    for batch in batches:
        chosen = np.flatnonzero(known(batch))
        labels = tf.gather(batch["label"], chosen)
        views = [logits(view) for view in batch.get("views", (batch["image"],))]
        for name in views[0]:
            of_views = [tf.gather(view[name], chosen) for view in views]
            sums = hits.setdefault(name, Counter())
            sums.update(top_hits(of_views[0], labels))
            if "views" in batch:
                summed = tf.add_n([tf.nn.softmax(each) for each in of_views])
                sums.update({f"ten_crop_{top}": found for top, found in top_hits(summed, labels).items()})
        count += len(chosen)
    if not count:
        raise UserError("there is no picture with a label to judge by")
    return {name: {top: found / count for top, found in sums.items()} for name, sums in hits.items()}


def top_hits(scores, labels):
    """Returns how many of `labels` `[B]` are first, and among the first five, by `scores` `[B, C]`.

    Ties go to the lowest class.
    """
    best = tf.math.top_k(scores, min(5, scores.shape[1])).indices
    found = (tf.cast(best, labels.dtype) == labels[:, None]).numpy()
    return {"top1": int(found[:, 0].sum()), "top5": int(found.sum())}


def accuracies(model, batches, split="validation"):
    """Returns `{"<split>_<endpoint>": top-1}`, which `EachPlateau` looks at: what an EvalSpec evaluates."""
    return {f"{split}_{endpoint}": found["top1"] for endpoint, found in model.score(batches).items()}


def results(model, test, validation=None):
    """Returns per endpoint what is reported: the `score` of the `test` batches, `features`, and `validation_top1`."""
    found = model.score(test)
    for endpoint, count in model.feature_counts.items():
        found[endpoint]["features"] = count
    if validation is not None:
        for endpoint, scores in model.score(validation).items():
            found[endpoint]["validation_top1"] = scores["top1"]
    return found


class EachPlateau(keras.callbacks.Callback):
    """Multiplies a readout's learning rate by `factor` when its accuracy on `monitor` saturates, `drops` times.

    Each readout by itself (section 4.2). One that saturates once more is left as it is; the run ends with the last.
    """

    def __init__(self, endpoints, patience=10, drops=2, factor=0.1, monitor="validation"):
        super().__init__()
        self.saturations = {endpoint: Saturation(patience, higher_is_better=True) for endpoint in endpoints}
        self.saturated = dict.fromkeys(endpoints, 0)  # how often
        self.drops = drops
        self.monitor = monitor
        self.factor = factor

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the accuracies."""
        for endpoint, saturation in self.saturations.items():
            reached = saturation.reached(epoch, logs[f"{self.monitor}_{endpoint}"])
            if not reached or self.saturated[endpoint] > self.drops:
                continue
            self.saturated[endpoint] += 1
            saturation.rest()
            if self.saturated[endpoint] > self.drops:
                self.model.stop(endpoint)
            else:
                self.model.rate_factors[endpoint].assign(self.factor ** self.saturated[endpoint])
        if all(times > self.drops for times in self.saturated.values()):
            self.model.stop_training = True

    def get_state(self):
        """Returns what a checkpoint has to hold; the rates are weights of the model."""
        return {
            endpoint: {"saturated": self.saturated[endpoint], **saturation.memory}
            for endpoint, saturation in self.saturations.items()
        }

    def set_state(self, state):
        """Takes back what `get_state` gave."""
        for endpoint, saturation in self.saturations.items():
            memory = dict(state[endpoint])
            self.saturated[endpoint] = memory.pop("saturated")
            saturation.memory = memory
