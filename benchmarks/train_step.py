"""What a training step costs: LA's beside a bare one, and a bare one beside PyTorch's: python -m benchmarks.train_step

PyTorch runs on the CPU, so both sides of that comparison do. It needs `make bench-torch` once.
"""

import os
import statistics

import keras
import numpy as np
import tensorflow as tf

from benchmarks.timing import alternate, median_ratio, report
from benchmarks.torch_process import torch_python, torch_side
from la_tf.embedding import build_embedder
from la_tf.local_aggregation import LocalAggregation
from la_tf.method import Method
from la_tf.resolve import BACKGROUND_SHARE, LEAST_BACKGROUND, clusters_of
from models.backbone import build_backbone
from models.preprocessing import Preprocessing

SIZE, IMAGE, BATCH, WIDTH = 10_000, 32, 128, 16  # N, px, B, channels
CLUSTERINGS = 10
# Width, px, B, rounds, steps in a round.
AGAINST_TORCH = ((16, 32, 128, 7, 6), (64, 32, 128, 5, 1), (64, 224, 32, 3, 1))


class Bare(Method):
    """Forward, backward and update with the cheapest loss there is."""

    def training_losses(self, batch):
        """Returns the mean output of each picture."""
        return tf.reduce_mean(self(batch["image"], training=True), axis=1), None

    def after_step(self, batch, embeddings):
        """Writes no bank."""
        return None


def embedder(width, side):
    """Returns a ResNet-18 with D = 128, at 32 px with the small stem."""
    stem = "small" if side <= 64 else "imagenet"
    backbone = build_backbone("resnet18", width, stem=stem, preprocessing=Preprocessing(image_size=side))
    return build_embedder(backbone, 128)


def random_batch(rng, size, side):
    """Returns a batch of `size` pictures of noise."""
    return {
        "image": tf.constant(rng.random((size, side, side, 3), dtype=np.float32)),
        "index": tf.constant(rng.permutation(SIZE)[:size]),
        "label": tf.fill([size], tf.constant(-1, tf.int64)),
        "valid": tf.fill([size], True),
    }


def compiled(method):
    """Returns the training step of a method as a graph."""
    method.compile(optimizer=keras.optimizers.SGD(0.03, momentum=0.9), jit_compile=False)
    return tf.function(method.train_step)


def measure_la(rng):
    """Measures the LA step over the bare one."""
    batch = random_batch(rng, BATCH, IMAGE)
    clusters = clusters_of(SIZE)
    background_k = max(LEAST_BACKGROUND, round(SIZE * BACKGROUND_SHARE))
    la = LocalAggregation(
        embedder(WIDTH, IMAGE),
        SIZE,
        background_k=background_k,
        clusters=clusters,
        clusterings=CLUSTERINGS,
        warmup_epochs=0,
    )
    la.bank.written.assign(np.ones(SIZE, bool))
    la.cluster_labels.assign(rng.integers(clusters, size=(SIZE, CLUSTERINGS)))
    la.aggregating = True
    la_step, bare_step = compiled(la), compiled(Bare(embedder(WIDTH, IMAGE), 1))
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


def measure_against_torch(python, rng, width, side, size, rounds, repeats):
    """Measures the images per second of a bare step over those of the same step in PyTorch."""
    threads = tf.config.threading.get_intra_op_parallelism_threads() or len(os.sched_getaffinity(0))
    with (
        tf.device("CPU"),
        torch_side(python, "torch_step.py", width=width, side=side, batch=size, threads=threads) as theirs,
    ):
        batch = random_batch(rng, size, side)
        step = compiled(Bare(embedder(width, side), 1))
        seconds = alternate({"torch": theirs, "ours": lambda: step(batch)}, rounds, repeats)
    report(
        f"step_vs_torch_w{width}_{side}",
        median_ratio(seconds["torch"], seconds["ours"]),
        "ratio of images/s",
        images_per_s=size / statistics.median(seconds["ours"]),
        torch_images_per_s=size / statistics.median(seconds["torch"]),
        B=size,
        network=f"resnet18 width {width} at {side} px",
        threads=threads,
    )


def main():
    """Measures LA's step, and the bare one in three sizes where there is a PyTorch to compare with."""
    rng = np.random.default_rng(0)
    measure_la(rng)
    python = torch_python()
    for shape in AGAINST_TORCH if python else ():
        measure_against_torch(python, rng, *shape)


if __name__ == "__main__":
    main()
