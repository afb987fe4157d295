"""Precise statistics: what batch norms use in evaluation, measured anew with the weights as they are.

Running averages lag behind the weights, and with few pictures in a batch they are noisy (Wu and Johnson 2021, section
3). MoCo's detectors measure over 200 batches before every evaluation. Norms that are to stay frozen can be measured
once, before the first step: those of an export have the statistics of other pictures at another size.
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm


class Recalibration(keras.callbacks.Callback):
    """Before the first step of a run, has the batch norms that come from the export measured over some batches.

    `batches(first_step)` yields those of training. What is found is in the checkpoints from then on, so that a resumed
    run keeps it.
    """

    def __init__(self, batches, count):
        super().__init__()
        self.batches, self.count = batches, count

    def on_train_begin(self, logs=None):
        """Measures where no step has been taken."""
        if logs["step"]:
            return
        norms, batches = exported(self.model), self.batches(0)
        measured = (next(batches) for _ in tqdm(range(self.count), "statistics", leave=False, disable=None))
        measure(self.model, measured, norms)
        print(f"recalibrated: {len(norms)} batch norms, statistics of {self.count} batches", file=sys.stderr)


def exported(model):
    """Returns the batch norms of a detector that come from the export, frozen ones too: all but the extra norm."""
    return [layer for layer in _norms(model) if layer.name != "extra_norm"]


def learning(model):
    """Returns the batch norms of a detector that learn."""
    return [layer for layer in _norms(model) if layer.trainable]


def measure(model, batches, norms):
    """Gives batch `norms` of a detector, frozen or not, the mean and the variance of their inputs over all `batches`.

    The variance is that of all batches together: the mean of their variances plus the variance of their means; each
    counts the same, whatever the size of its pictures. Its other norms keep what they have.
    """
    before = [(layer, layer.momentum, layer.trainable) for layer in _norms(model)]
    found = []
    for layer, *_ in before:
        layer.momentum = 1.0
    # With momentum 0 the moving statistics are the last batch's. One pass measures all norms, each behind others that
    # normalise by their batch: so what it gets is of the scale that it will be of once all have taken theirs over. By
    # their stored statistics they would hand on their own drift, to be measured again in every norm behind them. What
    # is left is the difference between a batch's statistics and all batches', less with more pictures in a batch; to be
    # rid of it takes a pass for each norm.
    for layer in norms:
        layer.momentum, layer.trainable = 0.0, True
    try:
        forward = None
        for batch in batches:
            forward = forward or tf.function(lambda batch: model.losses(batch)[0], [_signature(batch)])
            forward(batch)
            found.append([(layer.moving_mean.numpy(), layer.moving_variance.numpy()) for layer in norms])
    finally:
        for layer, momentum, trainable in before:
            layer.momentum, layer.trainable = momentum, trainable
    for layer, moments in zip(norms, zip(*found, strict=True), strict=True):
        means, variances = (np.array(each, np.float64) for each in zip(*moments, strict=True))
        layer.moving_mean.assign(means.mean(axis=0))
        layer.moving_variance.assign(variances.mean(axis=0) + means.var(axis=0))


def _signature(batch):
    """What batches of pictures of other sizes, with other numbers of boxes, have in common: one graph does for all."""
    free = {"image": (1, 2), "boxes_xyxy": (1,), "labels": (1,)}

    def of(name, values):
        shape = [None if axis in free.get(name, ()) else length for axis, length in enumerate(values.shape)]
        return tf.TensorSpec(shape, values.dtype)

    return {name: of(name, values) for name, values in batch.items()}


def _norms(model):
    found = model._flatten_layers(include_self=False)
    return [layer for layer in found if isinstance(layer, keras.layers.BatchNormalization)]
