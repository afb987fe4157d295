"""How long a checkpoint keeps training waiting, and how long it takes: python -m benchmarks.checkpoints

A ResNet-18 with a memory bank and ten clusterings of ImageNet's size. Training stops until everything is copied; a
thread writes it. Beside it, what the copies alone would take, and what the steps meanwhile lose.
"""

import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

from benchmarks.timing import report
from la_tf.embedding import build_embedder
from la_tf.estimator import Estimator
from la_tf.local_aggregation import LocalAggregation
from la_tf.specs import RunConfig
from models import build_backbone
from models.preprocessing import Preprocessing

SIZE, DIMENSION, CLUSTERINGS = 1_281_167, 128, 10  # N, D, H
BATCH, SIDE = 32, 64  # px: steps short enough to take many while a checkpoint is written
ROUNDS, STEPS = 3, 10


def model():
    """Returns Local Aggregation at ImageNet's size, in its warm start (noise-contrastive, as there)."""
    backbone = build_backbone("resnet18", preprocessing=Preprocessing(image_size=SIDE))
    learner = LocalAggregation(
        build_embedder(backbone, DIMENSION), SIZE, ir_loss="nce", clusters=30_000, clusterings=CLUSTERINGS,
        background_k=4096,
    )  # fmt: skip
    learner.compile(keras.optimizers.SGD(0.03, momentum=0.9))
    return learner


def batch():
    """Returns a batch of noise."""
    rng = np.random.default_rng(0)
    return {
        "image": tf.constant(rng.random((BATCH, SIDE, SIDE, 3), np.float32)),
        "index": tf.constant(rng.choice(SIZE, BATCH, replace=False)),
        "label": tf.fill([BATCH], tf.constant(-1, tf.int64)),
        "valid": tf.fill([BATCH], True),
    }


def seconds(call):
    """Returns how long a call took."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main():
    """Measures copy, writing and steps in turn."""
    with tempfile.TemporaryDirectory() as folder:
        estimator = Estimator(model, RunConfig(folder, keep_checkpoint_max=1))
        learner, pictures = estimator.model, batch()
        step = tf.function(learner.train_step)
        step(pictures)
        arrays = [variable.numpy() for variable in estimator.variables().values()]
        found = {name: [] for name in ("bare_copy", "stall", "write", "step", "step_while_writing")}
        for _ in range(ROUNDS):
            found["bare_copy"].append(seconds(lambda: [array.copy() for array in arrays]))
            found["step"] += [seconds(lambda: step(pictures)) for _ in range(STEPS)]
            started = time.perf_counter()
            found["stall"].append(seconds(lambda: estimator.begin_save(epoch=0)))
            while estimator.saving:
                found["step_while_writing"].append(seconds(lambda: step(pictures)))
            estimator.written()
            found["write"].append(time.perf_counter() - started)
    median = {f"{name}_s": statistics.median(each) for name, each in found.items()}
    megabytes = sum(array.nbytes for array in arrays) / 1e6
    report("checkpoint_stall", median["stall_s"], "s", mb=megabytes, N=SIZE, D=DIMENSION, H=CLUSTERINGS, **median)
    report("checkpoint_stall_vs_copy", median["stall_s"] / median["bare_copy_s"], "ratio")
    slower = median["step_while_writing_s"] / median["step_s"]
    report("step_while_writing", slower, "ratio", steps=len(found["step_while_writing"]))


if __name__ == "__main__":
    main()
