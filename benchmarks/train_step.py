"""What LA itself costs in a training step: python -m benchmarks.train_step"""

import statistics

import keras
import numpy as np
import tensorflow as tf

from benchmarks.timing import alternate, median_ratio, report
from la_tf.embedding import build_embedder
from la_tf.local_aggregation import LocalAggregation
from la_tf.method import Method
from la_tf.resolve import BACKGROUND_SHARE, IMAGES_PER_CLUSTER, LEAST_BACKGROUND
from models.backbone import build_backbone
from models.preprocessing import Preprocessing

SIZE, IMAGE, BATCH, WIDTH = 10_000, 32, 128, 16  # N, px, B, channels
CLUSTERINGS = 10


class Bare(Method):
    """Forward, backward and update with the cheapest loss there is."""

    def training_losses(self, batch):
        """Returns the mean output of each picture."""
        return tf.reduce_mean(self(batch["image"], training=True), axis=1), None

    def after_step(self, batch, embeddings):
        """Writes no bank."""
        return None


def embedder():
    """Returns a ResNet-18 of width 16 with the small stem and D = 128."""
    backbone = build_backbone("resnet18", WIDTH, stem="small", preprocessing=Preprocessing(image_size=IMAGE))
    return build_embedder(backbone, 128)


def compiled(method):
    """Returns the training step of a method as a graph."""
    method.compile(optimizer=keras.optimizers.SGD(0.03, momentum=0.9), jit_compile=False)
    return tf.function(method.train_step)


def main():
    """Measures the LA step over the bare one."""
    rng = np.random.default_rng(0)
    batch = {
        "image": tf.constant(rng.random((BATCH, IMAGE, IMAGE, 3), dtype=np.float32)),
        "index": tf.constant(rng.permutation(SIZE)[:BATCH]),
        "label": tf.fill([BATCH], tf.constant(-1, tf.int64)),
        "valid": tf.fill([BATCH], True),
    }
    clusters = round(SIZE / IMAGES_PER_CLUSTER)
    background_k = max(LEAST_BACKGROUND, round(SIZE * BACKGROUND_SHARE))
    la = LocalAggregation(
        embedder(), SIZE, background_k=background_k, clusters=clusters, clusterings=CLUSTERINGS, warmup_epochs=0
    )
    la.bank.written.assign(np.ones(SIZE, bool))
    la.cluster_labels.assign(rng.integers(clusters, size=(SIZE, CLUSTERINGS)))
    la.aggregating.assign(True)
    la_step, bare_step = compiled(la), compiled(Bare(embedder(), 1))
    seconds = alternate({"la": lambda: la_step(batch), "bare": lambda: bare_step(batch)}, rounds=9, repeats=4)
    report(
        "la_step_vs_bare",
        median_ratio(seconds["la"], seconds["bare"]),
        "ratio",
        la_s=statistics.median(seconds["la"]),
        bare_s=statistics.median(seconds["bare"]),
        N=SIZE,
        B=BATCH,
        k=background_k,
        H=CLUSTERINGS,
        m=clusters,
        network=f"resnet18 width {WIDTH} at {IMAGE} px",
    )


if __name__ == "__main__":
    main()
