"""What the input pipeline delivers on its own: python -m benchmarks.input_pipeline"""

import statistics
import time

import numpy as np

from benchmarks.timing import report
from data.augmentation import augmentation_for
from data.pipeline import training_batches
from data.sources import ArraySource, Split

SIZE, IMAGE, BATCH = 10_000, 32, 128
STEPS, ROUNDS = 300, 5


def main():
    """Measures the training view of 32 px pictures in memory, all augmentation on."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(256, size=(SIZE, IMAGE, IMAGE, 3), dtype=np.uint8)
    split = Split("random", "train", "photo", np.full(SIZE, -1), ArraySource(pictures, "random"))
    batches = iter(training_batches(split, augmentation_for("photo", IMAGE), BATCH, seed=0))
    for _ in range(20):
        next(batches)
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(STEPS):
            next(batches)
        rates.append(STEPS * BATCH / (time.perf_counter() - started))
    report("small32_images_per_s", statistics.median(rates), "images/s", B=BATCH, N=SIZE)


if __name__ == "__main__":
    main()
