"""What four more readouts cost beside the deepest: python -m benchmarks.readout"""

import statistics

import keras
import numpy as np
import tensorflow as tf

from benchmarks.timing import alternate, median_ratio, report
from la_tf.linear_probe import LinearReadouts
from models.backbone import build_backbone

BATCH, CLASSES, POOLING = 16, 10, "9k"


def training_step(backbone, endpoints):
    """Returns the training step of the readouts of `endpoints` as a graph."""
    size = backbone.preprocessing.image_size
    shapes = backbone.model.compute_output_shape((None, size, size, 3))
    readouts = LinearReadouts(
        lambda images: backbone.model(images, training=False),
        {endpoint: shapes[endpoint][1:] for endpoint in endpoints},
        CLASSES,
        pooling=POOLING,
    )
    readouts.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    return tf.function(readouts.train_step), readouts.feature_counts


def main():
    """Measures a step of all readouts over a step of the deepest alone."""
    backbone = build_backbone("resnet18")
    size = backbone.preprocessing.image_size
    rng = np.random.default_rng(0)
    batch = {
        "image": tf.constant(rng.random((BATCH, size, size, 3), dtype=np.float32)),
        "index": tf.range(BATCH, dtype=tf.int64),
        "label": tf.constant(rng.integers(CLASSES, size=BATCH)),
        "valid": tf.fill([BATCH], True),
    }
    all_steps, features = training_step(backbone, backbone.strides)
    deepest_step, _ = training_step(backbone, [backbone.last])
    seconds = alternate({"all": lambda: all_steps(batch), "deepest": lambda: deepest_step(batch)}, rounds=9, repeats=2)
    report(
        "readout_all_vs_deepest",
        median_ratio(seconds["all"], seconds["deepest"]),
        "ratio",
        all_s=statistics.median(seconds["all"]),
        deepest_s=statistics.median(seconds["deepest"]),
        B=BATCH,
        features=list(features.values()),
        network=f"resnet18 at {size} px",
    )


if __name__ == "__main__":
    main()
