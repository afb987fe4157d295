"""The supervised control: the same network, the same embedding, and labels instead of neighbours."""

import keras
import numpy as np
import tensorflow as tf

from data.errors import UserError
from la_tf.method import Method


class Supervised(Method):
    """Tells `classes` classes apart by a linear layer on the embedding before it is brought to unit length.

    Pictures without a label, and those of `validation_rows`, whose labels belong to the monitor, are not learned from.
    """

    def __init__(self, embedder, size, *, classes, validation_rows=(), name="supervised", **kwargs):
        super().__init__(embedder, size, name=name, **kwargs)
        if classes < 2:
            raise UserError(f"--method=supervised: needs labels of at least 2 classes, the data set has {classes}")
        self.embedding_layer = keras.Model(embedder.inputs, embedder.get_layer("embedding").output)
        self.unit_length = embedder.get_layer("unit_length")
        self.classifier = keras.layers.Dense(classes, name="classifier", dtype="float32")
        self.classifier.build((None, embedder.output_shape[-1]))
        self.held_out = np.isin(np.arange(size), np.asarray(validation_rows, np.int64))
        self.accuracy = keras.metrics.Mean(name="accuracy")

    @staticmethod
    def arguments(config, pictures):
        """Adds the number of classes and the rows whose labels are not to be seen."""
        of_pictures = {"classes": pictures.classes, "validation_rows": pictures.validation_rows}
        return Method.arguments(config, pictures) | of_pictures

    def counted(self, batch):
        """Returns which pictures are learned from, `[B]` bool: the valid ones with a label of their own."""
        held_out = tf.gather(tf.constant(self.held_out), batch["index"])
        return batch["valid"] & (batch["label"] >= 0) & ~held_out

    def training_losses(self, batch):
        """Returns the cross-entropy `[B]` and the embeddings `[B, D]`."""
        embeddings = self.forward(self.embedding_layer, batch["image"])
        logits = self.classifier(embeddings)
        labels = tf.maximum(batch["label"], 0)
        right = tf.cast(tf.argmax(logits, axis=1) == labels, tf.float32)
        self.accuracy.update_state(right, self.counted(batch))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        return losses, self.unit_length(embeddings)

    @property
    def metrics(self):
        """The loss, and the share of training views that are told apart rightly."""
        return [*super().metrics, self.accuracy]

    def begin_epoch(self, epoch):
        """Names the phase."""
        return {"phase": "supervised"}
