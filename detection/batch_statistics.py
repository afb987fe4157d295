"""Precise statistics: what batch norms use in evaluation, measured anew with the weights as they are.

Running averages lag behind the weights, and with few pictures in a batch they are noisy (Wu and Johnson 2021, section
3). MoCo's detectors measure over 200 batches before every evaluation.
"""

import keras
import numpy as np
import tensorflow as tf


def measure(model, batches):
    """Gives every batch norm of a detector that learns the mean and the variance of its inputs over all `batches`.

    The variance is that of all batches together: the mean of their variances plus the variance of their means.
    """
    norms = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    momenta = [layer.momentum for layer in norms]
    found = []
    # With momentum 0 the moving statistics are the last batch's.
    for layer in norms:
        layer.momentum = 0.0
    try:
        forward = tf.function(lambda batch: model.losses(batch)[0], reduce_retracing=True)
        for batch in batches:
            forward(batch)
            found.append([(layer.moving_mean.numpy(), layer.moving_variance.numpy()) for layer in norms])
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
    for layer, moments in zip(norms, zip(*found, strict=True), strict=True):
        means, variances = (np.array(each, np.float64) for each in zip(*moments, strict=True))
        layer.moving_mean.assign(means.mean(axis=0))
        layer.moving_variance.assign(variances.mean(axis=0) + means.var(axis=0))
