"""What every method shares: one training step, the weight decay, and what happens between epochs."""

import keras
import tensorflow as tf


def decayed_kernels(model):
    """Returns the convolution and dense kernels of `model`: the weights that decay, after the authors' code."""
    return [weight for weight in model.trainable_weights if weight.name == "kernel"]


def weight_decay_loss(kernels, weight_decay):
    """Returns (lambda/2) sum ||w||², whose gradient is lambda·w (equation 4 has no one half: WORKSPACE.md)."""
    return weight_decay * tf.add_n([tf.nn.l2_loss(tf.convert_to_tensor(kernel)) for kernel in kernels])


def mean_over(losses, valid):
    """Returns the mean of `losses` `[B]` over the pictures that are `valid` `[B]` bool, 0 where none is."""
    count = tf.reduce_sum(tf.cast(valid, losses.dtype))
    return tf.reduce_sum(tf.where(valid, losses, tf.zeros_like(losses))) / tf.maximum(count, 1)


class Method(keras.Model):
    """An embedder in training: `compile(optimizer)` and `fit(batches)`, or driven by `la_tf.estimator`.

    A method adds `training_losses`, and `after_step` and `begin_epoch` where it has something to do there.
    """

    def __init__(self, embedder, weight_decay=1e-4, name=None):
        super().__init__(name=name)
        self.embedder = embedder
        self.weight_decay = weight_decay
        self.loss_mean = keras.metrics.Mean(name="loss")

    def call(self, images, training=False):
        """Returns unit embeddings `[B, D]` of `images` `[B, H, W, 3]` in [0, 1]."""
        return self.embedder(images, training=training)

    def build(self, input_shape=None):
        """Does nothing: all variables are made on construction."""
        self.built = True

    def training_losses(self, batch):
        """Returns the method's own loss of each picture `[B]` and whatever `after_step` needs to know of the batch.

        Pictures that are not valid need no care here: `train_step` leaves their losses out.
        """
        raise NotImplementedError(f"{type(self).__name__} has no training_losses")

    def after_step(self, batch, remembered):
        """Takes in what the step produced, after the weights moved."""
        return None  # AutoGraph cannot convert a function that is a docstring alone

    def begin_epoch(self, epoch):
        """Prepares an epoch; returns what it found out as a dict of metrics."""
        return {}

    def train_step(self, batch):
        """Takes one step on a batch (`data.pipeline`: image, index, label, valid) and returns the running metrics."""
        with tf.GradientTape() as tape:
            losses, remembered = self.training_losses(batch)
            loss = mean_over(losses, batch["valid"])
            objective = loss + weight_decay_loss(decayed_kernels(self.embedder), self.weight_decay)
            objective = self.optimizer.scale_loss(objective)
        gradients = tape.gradient(objective, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.after_step(batch, remembered)
        self.loss_mean.update_state(losses, batch["valid"])
        return {metric.name: metric.result() for metric in self.metrics}

    @property
    def picture_variables(self):
        """The variables whose rows stand for training pictures: on another data set they mean nothing."""
        return []

    @property
    def metrics(self):
        """The running metrics: `loss` is the method's own, without weight decay."""
        return [self.loss_mean]

    def epoch_metrics(self):
        """Returns the metrics of the epoch so far as plain numbers."""
        return {metric.name: float(metric.result()) for metric in self.metrics}

    def compile(self, optimizer, jit_compile=False, **kwargs):
        """As `keras.Model.compile`; XLA only when asked for (Keras would switch it on for a single GPU)."""
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)

    def fit(self, *args, callbacks=None, **kwargs):
        """As `keras.Model.fit`, with `begin_epoch` called where it belongs."""
        between_epochs = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: self.begin_epoch(epoch))
        return super().fit(*args, callbacks=[between_epochs, *(callbacks or [])], **kwargs)
