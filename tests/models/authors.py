"""The ResNet-18 of Local Aggregation's authors, a second time, in plain TensorFlow operations: what tests compare with.

Variables get the names that `tf.layers` gave them, by counting, as they come up while a picture passes.
"""

import numpy as np
import tensorflow as tf


class AuthorsResNet18:
    """`arrays`: name -> random values, made by the first picture and used by the next."""

    def __init__(self, rng):
        self.rng, self.arrays, self.counts = rng, {}, {}
        self(np.zeros((1, 32, 32, 3), np.float32))

    def __call__(self, images):
        """Images [B, H, W, 3] in [0, 1] -> ([B, 128] of unit length, what enters the four stages, the last map)."""
        self.counts = {}
        x = (images - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
        x = tf.nn.max_pool2d(self.convolve(x, 64, 7, 2), 3, 2, "SAME")
        taps = []
        for filters, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            x, activated = self.block(x, filters, stride, projects=True)
            taps.append(activated)
            x, _ = self.block(x, filters, 1, projects=False)
        taps.append(tf.nn.relu(self.normalise(x)))
        name = self.layer("dense")
        kernel, bias = self.variable(f"{name}/kernel", (512, 128)), self.variable(f"{name}/bias", (128,))
        return tf.nn.l2_normalize(tf.reduce_mean(taps[-1], [1, 2]) @ kernel + bias, axis=1), taps

    def block(self, x, filters, stride, projects):
        shortcut, activated = x, tf.nn.relu(self.normalise(x))
        if projects:
            shortcut = self.convolve(activated, filters, 1, stride)
        x = self.convolve(activated, filters, 3, stride)
        return self.convolve(tf.nn.relu(self.normalise(x)), filters, 3, 1) + shortcut, activated

    def convolve(self, x, filters, size, stride):
        kernel = self.variable(f"{self.layer('conv2d')}/kernel", (size, size, x.shape[-1], filters))
        if stride == 1:
            return tf.nn.conv2d(x, kernel, 1, "SAME")
        before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
        padded = tf.pad(x, [[0, 0], [before, after], [before, after], [0, 0]])
        return tf.nn.conv2d(padded, kernel, stride, "VALID")

    def normalise(self, x):
        name = self.layer("batch_normalization")
        parts = ("gamma", "beta", "moving_mean", "moving_variance")
        gamma, beta, mean, variance = (self.variable(f"{name}/{part}", x.shape[-1:]) for part in parts)
        return (x - mean) / tf.sqrt(variance + 1e-5) * gamma + beta

    def layer(self, kind):
        number = self.counts[kind] = self.counts.get(kind, -1) + 1
        return f"resnet_model/{kind}_{number}" if number else f"resnet_model/{kind}"

    def variable(self, name, shape):
        if name not in self.arrays:
            shape = tuple(shape)
            if name.endswith("kernel"):
                values = self.rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
            elif name.endswith(("gamma", "moving_variance")):
                values = self.rng.uniform(0.5, 1.5, shape)
            else:
                values = self.rng.normal(0, 0.3, shape)
            self.arrays[name] = values.astype(np.float32)
        return self.arrays[name]

    def checkpoint(self):
        """What a Saver of theirs writes: the network and what training keeps beside it."""
        beside = {
            "instance/memory_bank": np.zeros((5, 128), np.float32),
            "instance/all_labels": np.zeros(5, np.int64),
            "instance/cluster_labels": np.zeros((2, 5), np.int64),
            "global_step": np.int64(2_001_800),
            "resnet_model/conv2d/kernel/Momentum": np.zeros((7, 7, 3, 64), np.float32),
            "resnet_model/dense/bias/Momentum": np.zeros(128, np.float32),
        }
        return {**self.arrays, **beside}


def save_checkpoint(prefix, arrays):
    """Writes a checkpoint of arrays under plain names, as TensorFlow 1 did."""
    names = list(arrays)
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names),
        tensors=[tf.constant(arrays[name]) for name in names],
    )  # fmt: skip
    return prefix
