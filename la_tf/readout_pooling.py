"""How many features of a layer a linear readout sees: the pooling conventions, without which accuracies say little.

The paper does not say how it pools; what is published differs twentyfold in the number of features. TensorFlow is
imported only to pool.
"""

import math

import numpy as np

POOLINGS = ("9k", "authors", "global")
LARGEST_9K = 9_600
LARGEST_AUTHORS = 200_000


def pooled_shape(shape, pooling):
    """Returns what `pooling` makes of maps of `shape`, both without the batch: `(h, w, C)`; `(C,)` is left as it is.

    `9k` is the convention of DeepCluster, VISSL and mmselfsup: average pooling to the largest square of at most 9,600
    features. `authors` is that of LA's code: maps whole up to 200,000 features, else average pooling of 2 x 2, 4 x 4,
    ... `global` is the mean over all places, which MoCo and SimCLR report. Raises ValueError for any other.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"pooling={pooling!r}: choose one of {', '.join(POOLINGS)}")
    if len(shape) == 1:
        return tuple(shape)
    height, width, channels = shape
    if pooling == "authors":
        window = _authors_window(shape)
        return -(-height // window), -(-width // window), channels
    side = max(math.isqrt(LARGEST_9K // channels), 1) if pooling == "9k" else 1
    return min(side, height), min(side, width), channels


def feature_count(shape, pooling):
    """Returns how many features `pooling` leaves of maps of `shape`, `(h, w, C)` or `(C,)`."""
    return math.prod(pooled_shape(shape, pooling))


def pool(features, shape, pooling):
    """Returns the features `[B, n]` float32 that a readout sees of `features` `[B, *shape]`."""
    import tensorflow as tf

    features = tf.cast(features, tf.float32)
    height, width, channels = pooled = (1, 1, *pooled_shape(shape, pooling))[-3:]
    if len(shape) == 3 and pooled != tuple(shape):
        if pooling == "authors":
            window = _authors_window(shape)
            features = tf.nn.avg_pool2d(features, window, window, "SAME")
        else:
            # As matrices for rows and columns this takes a third of the time of Keras' AdaptiveAveragePooling2D.
            rows = tf.reshape(features, [-1, shape[0], shape[1] * channels])
            features = tf.matmul(tf.constant(_bins(shape[0], height)), rows)
            columns = tf.reshape(features, [-1, height, shape[1], channels])
            features = tf.matmul(tf.constant(_bins(shape[1], width)), columns)
    return tf.reshape(features, [-1, height * width * channels])


def _authors_window(shape):
    """The side of the window that brings maps of `shape` to at most LARGEST_AUTHORS features.

    The authors stop at 4, which leaves VGG16's conv1 above; their pooling of VGG16 takes rows for channels by mistake.
    """
    height, width, channels = shape
    window = 1
    while -(-height // window) * -(-width // window) * channels > LARGEST_AUTHORS and window < max(height, width):
        window *= 2
    return window


def _bins(source, target):
    """Weights `[target, source]` of adaptive average pooling: bin i is floor(i source / target) up to the ceiling of
    (i + 1) source / target, so that neighbouring bins share a place where the sides do not divide."""
    weights = np.zeros((target, source), np.float32)
    for i in range(target):
        start, stop = i * source // target, -(-(i + 1) * source // target)
        weights[i, start:stop] = 1 / (stop - start)
    return weights
