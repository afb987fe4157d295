"""Instance Recognition (Wu, Xiong, Yu, Lin 2018): every image is a class of its own; LA's warm start."""

import tensorflow as tf

from la_tf.memory_bank import MemoryBank
from la_tf.method import Method
from la_tf.neighbors import similarities


def instance_recognition_loss(similarity, indices, tau):
    """Returns -log P(i|v_i) `[B]` (equation 1), the softmax over all N rows.

    similarity is `[B, N]`, indices `[B]` names each image's own row.
    """
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=indices, logits=similarity / tau)


class InstanceRecognition(Method):
    """Recognises each of `size` images by its row of the memory bank, full softmax."""

    def __init__(
        self,
        embedder,
        size,
        *,
        tau=0.07,
        bank_momentum=0.5,
        weight_decay=1e-4,
        seed=0,
        name="instance_recognition",
    ):
        super().__init__(embedder, weight_decay, name=name)
        self.tau = tau
        self.bank = MemoryBank(size, embedder.output_shape[-1], bank_momentum, seed)

    @staticmethod
    def arguments(choices, image_labels):
        """Returns what the constructor takes of a `la_tf.config.MethodConfig`; no label is used."""
        return {"tau": choices.tau, "bank_momentum": choices.bank_momentum}

    def training_losses(self, batch):
        """Returns -log P(i|v_i) `[B]` and the embeddings `[B, D]`."""
        embeddings = self(batch["image"], training=True)
        return self.recognition_losses(embeddings, batch["index"]), embeddings

    def recognition_losses(self, embeddings, indices):
        """Returns -log P(i|v_i) `[B]` of `embeddings` `[B, D]` against the bank as it is."""
        return instance_recognition_loss(similarities(embeddings, self.bank.rows.value), indices, self.tau)

    def after_step(self, batch, embeddings):
        """Writes the embeddings to the bank (equation 5); the loss has seen the bank as it was before."""
        self.bank.update(batch["index"], embeddings, batch["valid"])

    @property
    def picture_variables(self):
        """The memory bank."""
        return [self.bank.rows, self.bank.written]

    def begin_epoch(self, epoch):
        """Names the phase."""
        return {"phase": "ir"}
