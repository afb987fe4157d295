"""Semi-supervised fine-tuning (Wu et al. 2018): the whole network learns from the labels of a part of the pictures."""

import keras
import tensorflow as tf

from la_tf.trainable import Trainable, decayed_kernels, known, mean_over, weight_decay_loss

DROPS = (3 / 7, 6 / 7)  # of the length, where the rate falls by ten: Wu et al.'s epochs 30 and 60 of 70


class Classifier(Trainable):
    """A network with a linear layer on its pooled features; all of it learns. `network`: pictures -> maps or rows."""

    def __init__(self, network, classes, *, weight_decay=1e-4, name="classifier"):
        super().__init__(name=name)
        features = network.output
        if len(features.shape) == 4:
            features = keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")(features)
        logits = keras.layers.Dense(classes, name="fine_tuned_classes", dtype="float32")(features)
        self.network = keras.Model(network.inputs, logits)
        self.weight_decay = weight_decay
        self.accuracy = keras.metrics.Mean(name="accuracy")

    def call(self, images, training=False):
        """Returns the logits `[B, classes]` of `images` `[B, H, W, 3]` in [0, 1]."""
        return self.network(images, training=training)

    def train_step(self, batch):
        """Takes one step on cross-entropy and decay of the kernels; pictures that are not valid do not count."""
        counted = known(batch)
        labels = tf.maximum(batch["label"], 0)
        step = tf.convert_to_tensor(self.optimizer.iterations)
        with tf.GradientTape() as tape:
            logits = self(batch["image"], training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            objective = mean_over(losses, counted)
            if self.weight_decay:
                objective += weight_decay_loss(decayed_kernels(self), self.weight_decay)
        gradients = tape.gradient(objective, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.loss_mean.update_state(losses, counted)
        self.first_failure.note(losses, batch["index"], counted, step)
        self.accuracy.update_state(tf.cast(tf.argmax(logits, axis=1) == labels, tf.float32), counted)
        return {metric.name: metric.result() for metric in self.metrics}

    @property
    def metrics(self):
        """The loss, and the share of training views that are told apart rightly."""
        return [*super().metrics, self.accuracy]


def training_steps(pictures, batch_size, epochs, least_steps):
    """Returns (steps in all, steps at which the rate drops) for so many labelled pictures.

    Few labels get `least_steps` all the same.
    """
    total = max(epochs * (pictures // batch_size), least_steps)
    return total, [round(total * part) for part in DROPS]
