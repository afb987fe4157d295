"""Random numbers by counter: each is a hash of what it is for, so no generator has a state to save.

The generator is splitmix64 (Steele, Lea, Flood 2014: "Fast splittable pseudorandom number generators"), used as a
tree: `_child(key, i)` is number i of the stream that starts at `key`, and is itself the start of a stream.
Written once for both libraries: NumPy and `tf.bitwise` have the same names for the two bit operations needed.
"""

import numpy as np

# First branch of the tree: what the numbers are for.
AUGMENTATION, EPOCH_ORDER, VALIDATION, BUILD_ORDER, LABELLED = range(5)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def _child(key, number, bits):
    """Number `number` of the stream `key`; uint64, broadcasting."""
    x = key + (number + np.uint64(1)) * _GOLDEN
    x = bits.bitwise_xor(x, bits.right_shift(x, np.uint64(30))) * _MIX[0]
    x = bits.bitwise_xor(x, bits.right_shift(x, np.uint64(27))) * _MIX[1]
    return bits.bitwise_xor(x, bits.right_shift(x, np.uint64(31)))


def _keys(purpose, numbers, bits):
    """Follows the tree from the root along `purpose` and `numbers` (uint64, each may be an array)."""
    key = np.zeros(1, np.uint64)
    for number in (np.uint64([purpose]), *numbers):
        key = _child(key, number, bits)
    return key


def _numpy_uint64(x):
    # At least one dimension: NumPy warns when a scalar wraps around, which is what is meant here.
    return np.uint64([x % 2**64]) if isinstance(x, int) else np.atleast_1d(x).astype(np.uint64)


def _tf_uint64(x):
    import tensorflow as tf

    return tf.constant(x % 2**64, tf.uint64) if isinstance(x, int) else tf.cast(x, tf.uint64)


def uniforms(seed, epoch, index, view, count):
    """Uniform numbers in [0, 1) for pictures `index` [B] in `epoch`: [B, count] float32, a TensorFlow tensor.

    Number j of a picture depends on (seed, epoch, index, view, j) and on nothing else; multiples of 2^-24.
    """
    import tensorflow as tf

    numbers = [_tf_uint64(x) for x in (seed, epoch, view)]
    draw = tf.range(count, dtype=tf.int64)
    keys = _keys(AUGMENTATION, [*numbers, _tf_uint64(index)[:, None], _tf_uint64(draw)[None]], tf.bitwise)
    return tf.cast(tf.bitwise.right_shift(keys, np.uint64(40)), tf.float32) * 2.0**-24


def uniforms_numpy(seed, epoch, index, view, count) -> np.ndarray:
    """The same numbers as `uniforms`, bit for bit, without TensorFlow."""
    numbers = [_numpy_uint64(x) for x in (seed, epoch, view)]
    draw = np.arange(count, dtype=np.uint64)
    keys = _keys(AUGMENTATION, [*numbers, _numpy_uint64(index)[:, None], draw[None]], np)
    return (keys >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def epoch_order(seed, epoch, n):
    """The order in which epoch `epoch` sees pictures 0..n-1: [n] int64, a TensorFlow tensor."""
    import tensorflow as tf

    numbers = [_tf_uint64(x) for x in (seed, epoch)]
    keys = _keys(EPOCH_ORDER, [*numbers, _tf_uint64(tf.range(n, dtype=tf.int64))], tf.bitwise)
    return tf.cast(tf.argsort(tf.bitcast(keys, tf.int64), stable=True), tf.int64)


def epoch_order_numpy(seed, epoch, n) -> np.ndarray:
    """The same order as `epoch_order`, without TensorFlow."""
    keys = _keys(EPOCH_ORDER, [_numpy_uint64(x) for x in (seed, epoch, np.arange(n))], np)
    return np.argsort(keys.view(np.int64), kind="stable")


def validation_keys(seed, n) -> np.ndarray:
    """A random uint64 for each of 0..n-1; whoever has the smallest in its class goes to the validation slice."""
    return _keys(VALIDATION, [_numpy_uint64(x) for x in (seed, np.arange(n))], np)


def labelled_keys(seed, n) -> np.ndarray:
    """A random uint64 for each of 0..n-1; whoever has the smallest in its class keeps its label."""
    return _keys(LABELLED, [_numpy_uint64(x) for x in (seed, np.arange(n))], np)


def build_order(seed, n) -> np.ndarray:
    """The order in which pictures 0..n-1 are written to record files: [n] int64."""
    return np.argsort(_keys(BUILD_ORDER, [_numpy_uint64(x) for x in (seed, np.arange(n))], np), kind="stable")
