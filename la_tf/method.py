"""What every method shares: one training step, the memory bank, the weight decay, and what happens between epochs."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from la_tf.embedding import build_embedder
from la_tf.memory_bank import MemoryBank
from la_tf.picture_rows import PictureRows
from la_tf.trainable import Trainable, decayed_kernels, mean_over, weight_decay_loss

SAMPLE = 4096  # rows of the bank that are looked at for how alike they are


class TrainingSet(NamedTuple):
    """What a method may know of the pictures it is trained on."""

    size: int  # N
    labels: np.ndarray  # [N], -1 unknown
    classes: int
    validation_rows: np.ndarray  # rows whose labels serve the monitor and nothing else
    steps_per_epoch: int
    center_crops: Callable  # (rows=None) -> batches of the central views of those rows, or of all, in order


class Method(Trainable):
    """An embedder in training: `compile(optimizer)` and `fit(batches)`, or driven by `la_tf.estimator`.

    A method adds `training_losses`, and overrides what else it does its own way. All keep a memory bank of their
    embeddings, one row for each of `size` pictures, which kNN and search read. Made within the scope of a tf.distribute
    strategy it learns on its replicas, a part of each batch on every one; bank_sharding "sharded" then spreads what
    has a row for each picture over them, "replicated" keeps it whole on each. replicas, a `Replicas`, where they are
    not those of the scope.
    """

    warm_starts = True
    spreads = True  # whether it can do with a bank that is spread

    def __init__(
        self,
        embedder,
        size,
        *,
        bank_momentum=0.5,
        bank_dtype="float32",
        bank_sharding="replicated",
        weight_decay=1e-4,
        seed=0,
        xla=False,
        replicas=None,
        name=None,
    ):
        super().__init__(name=name, replicas=replicas)
        self.embedder = embedder
        if bank_sharding == "sharded" and not self.spreads:
            raise ValueError(f"{type(self).__name__} needs its bank whole: bank_sharding='replicated'")
        self.pictures = PictureRows(size, bank_sharding == "sharded", replicas)
        self.replicas = self.pictures.replicas
        dimension = embedder.output_shape[-1]
        self.bank = MemoryBank(size, dimension, bank_momentum, seed, bank_dtype, self.pictures)
        self.xla = xla
        self._by_xla = {}  # name of a network -> its compiled forward pass
        self.weight_decay = weight_decay
        self.seed = seed

    @staticmethod
    def arguments(config, pictures):
        """Returns what the constructor takes of a `la_tf.config.Config` and a `TrainingSet`."""
        return {
            "bank_momentum": config.method.bank_momentum,
            "bank_dtype": config.method.bank_dtype,
            "bank_sharding": config.run.bank_sharding,
        }

    @staticmethod
    def build_embedder(backbone, config):
        """Returns the model from images to unit embeddings on a `models.Backbone`."""
        return build_embedder(backbone, config.model.embedding_dim)

    def call(self, images, training=False):
        """Returns unit embeddings `[B, D]` of `images` `[B, H, W, 3]` in [0, 1]."""
        return self.forward(self.embedder, images) if training else self.embedder(images, training=False)

    def forward(self, network, images):
        """Returns what `network`, the embedder or a part of it, makes of `images` in training.

        With `xla` it is compiled, and with it its gradient. The whole step cannot be: the neighbours' shapes follow
        from their similarities.
        """
        if not self.xla:
            return network(images, training=True)
        if network.name not in self._by_xla:
            learning = partial(network, training=True)
            self._by_xla[network.name] = tf.function(learning, jit_compile=True)
        return self._by_xla[network.name](images)

    @property
    def processes(self):
        """Those that the replicas belong to."""
        return self.replicas.processes

    # -- a step -----------------------------------------------------------------------------------------------------

    def training_losses(self, batch):
        """Returns the method's own loss of each picture `[B]`, and the embeddings `[B, D]` that the bank is to take.

        Pictures that do not count need no care here: `train_step` leaves their losses out.
        """
        raise NotImplementedError(f"{type(self).__name__} has no training_losses")

    def counted(self, batch):
        """Returns which pictures the loss is the mean of, `[B]` bool."""
        return batch["valid"]

    def train_step(self, batch):
        """Takes one step on a batch (`data.pipeline`: image, index, label, valid) and returns the running metrics.

        On several replicas, on this one's part of the batch: all together take the step of the whole.
        """
        step = tf.convert_to_tensor(self.optimizer.iterations)
        with tf.GradientTape() as tape:
            losses, embeddings = self.training_losses(batch)
            objective = mean_over(losses, self.counted(batch), self.replicas)
            if self.weight_decay:  # the replicas' gradients are added up
                objective += weight_decay_loss(decayed_kernels(self), self.weight_decay / self.replicas.count)
            objective = self.optimizer.scale_loss(objective)
        self.descend(tape, objective)
        self.after_step(batch, embeddings)
        self.loss_mean.update_state(losses, self.counted(batch))
        self.first_failure.note(losses, batch["index"], self.counted(batch), step)
        return {metric.name: metric.result() for metric in self.metrics}

    def descend(self, tape, objective):
        """Moves the weights down the gradient of `objective`."""
        gradients = tape.gradient(objective, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))

    def after_step(self, batch, embeddings):
        """Writes the embeddings to the bank (equation 5); the loss has seen the bank as it was before."""
        whole = map(self.replicas.gather, (batch["index"], tf.stop_gradient(embeddings), batch["valid"]))
        self.bank.update(*whole)

    def end_epoch(self):
        """Returns how alike the embeddings in the bank are: the mean of v̄_i · v̄_j, i ≠ j, over SAMPLE of its rows."""
        rows = self.pictures.sample(self.bank.rows, SAMPLE)
        written = self.pictures.sample(self.bank.written, SAMPLE)
        sums = np.append(rows[written].astype(np.float64).sum(axis=0), written.sum())
        *total, count = self.pictures.processes.sum(sums)
        return {} if count < 2 else {"mean_similarity": float((np.square(total).sum() - count) / (count * (count - 1)))}

    @property
    def clusters_here(self):
        """The clusters `[n, H]` int32 of the pictures whose rows this process has; None: it learns by none now."""
        return None

    @property
    def picture_variables(self):
        """The variables whose rows stand for training pictures: on another data set they mean nothing."""
        return [self.bank.rows, self.bank.written]

    def fit(self, *args, callbacks=None, **kwargs):
        """As `keras.Model.fit`, with `begin_epoch` and `begin_step` called where they belong.

        Raises ValueError for a method that chooses its own rows: `la_tf.estimator` feeds it those.
        """
        if type(self).epoch_rows is not Trainable.epoch_rows:
            raise ValueError(f"{type(self).__name__} chooses the rows of its epochs: train it by la_tf.estimator")
        functions = {}  # variant -> Keras' function that was made for it

        def begin_step(batch, logs):
            step = int(self.optimizer.iterations.numpy())
            self.begin_step(step)
            if self.variant(step) not in functions:
                self.make_train_function(force=True)
                functions[self.variant(step)] = self.train_function
            self.train_function = functions[self.variant(step)]

        between = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: self.begin_epoch(epoch), on_train_batch_begin=begin_step
        )
        return super().fit(*args, callbacks=[between, *(callbacks or [])], **kwargs)
