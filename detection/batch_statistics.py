"""Precise statistics: what batch norms use in evaluation, measured anew with the weights as they are.

Running averages lag behind the weights, and with few pictures in a batch they are noisy (Wu and Johnson 2021, section
3). MoCo's detectors measure over 200 batches before every evaluation.
"""

import keras
import tensorflow as tf


def measure(model, batches):
    """Gives every batch norm of a detector that learns the mean and the variance of its inputs over all `batches`.

    The variance is that of all batches together: the mean of their variances and the variance of their means.
    """
    norms = [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    momenta = [layer.momentum for layer in norms]
    sums, count = None, 0
    # With momentum 0 the moving statistics are the last batch's.
    for layer in norms:
        layer.momentum = 0.0
    try:
        forward = tf.function(lambda batch: model.losses(batch)[0], reduce_retracing=True)
        for batch in batches:
            forward(batch)
            found = [_moments(layer) for layer in norms]
            sums = found if sums is None else tf.nest.map_structure(tf.add, sums, found)
            count += 1
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
    for layer, (mean, square) in zip(norms, sums or [], strict=True):
        layer.moving_mean.assign(mean / count)
        layer.moving_variance.assign(square / count - (mean / count) ** 2)


def _moments(layer):
    mean, variance = (tf.convert_to_tensor(moving) for moving in (layer.moving_mean, layer.moving_variance))
    return mean, variance + mean**2
