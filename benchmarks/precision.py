"""What half precision and XLA give on this machine: python -m benchmarks.precision"""

import statistics

import keras
import numpy as np
import tensorflow as tf

from benchmarks.timing import alternate, median_ratio, report
from la_tf.embedding import build_embedder
from la_tf.loss_scaling import LossScaling
from la_tf.supervised import Supervised
from models.backbone import build_backbone
from models.preprocessing import Preprocessing

IMAGE, BATCH, WIDTH, CLASSES = 32, 128, 16, 10  # px, B, channels
# Name -> precision, XLA.
SIDES = {
    "xla": ("float32", True),
    "mixed_bfloat16": ("mixed_bfloat16", False),
    "mixed_bfloat16_xla": ("mixed_bfloat16", True),
    "mixed_float16": ("mixed_float16", False),
}


def training_step(batch, precision, xla):
    """Returns a function that takes one step of a ResNet-18 on the cheapest loss there is, the supervised one."""
    spec = Preprocessing(image_size=IMAGE)
    backbone = build_backbone("resnet18", WIDTH, stem="small", preprocessing=spec, precision=precision)
    model = Supervised(build_embedder(backbone, 128), BATCH, classes=CLASSES, xla=xla)
    optimizer = keras.optimizers.SGD(0.03, momentum=0.9)
    model.compile(LossScaling(optimizer) if precision == "mixed_float16" else optimizer)
    model.optimizer.build(model.trainable_variables)
    step = tf.function(model.train_step)
    return lambda: step(batch)


def main():
    """Measures each side's images per second over those of float32 without XLA."""
    indices = np.arange(BATCH)
    images = np.random.default_rng(0).random((BATCH, IMAGE, IMAGE, 3), dtype=np.float32)
    batch = {"image": images, "index": indices, "label": indices % CLASSES, "valid": indices >= 0}
    batch = {name: tf.constant(value) for name, value in batch.items()}
    plain = training_step(batch, "float32", xla=False)
    for name, (precision, xla) in SIDES.items():
        seconds = alternate({"plain": plain, name: training_step(batch, precision, xla)}, rounds=3)
        report(
            f"{name}_speedup",
            median_ratio(seconds["plain"], seconds[name]),
            "ratio of images/s",
            images_per_s=BATCH / statistics.median(seconds[name]),
            float32_images_per_s=BATCH / statistics.median(seconds["plain"]),
            B=BATCH,
            network=f"resnet18 width {WIDTH} at {IMAGE} px",
            device="GPU" if tf.config.list_physical_devices("GPU") else "CPU",
        )


if __name__ == "__main__":
    main()
