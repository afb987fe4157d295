"""A small run of detection.train, made at once: no step is taken, but its outputs are drawn so that they differ."""

import numpy as np
from PIL import Image

from detection.config import DataOptions, DetectionConfig, DetectorOptions, OptimizerOptions, RunOptions
from detection.experiment import Experiment
from la_tf import bundle
from la_tf.embedding import build_embedder
from la_tf.estimator import Estimator
from tests.data.pictures import smooth
from tests.data.strange_pictures import saved
from tests.data.voc_folders import write_devkit
from tests.detection.small import small_backbone

CLASSES = ("cat", "mug", "thé")
# Height, width: scaled up and down, below what networks need, long and narrow, and one of the size it is seen at.
SIZES = {"plain": (72, 96), "large": (250, 330), "tiny": (31, 40), "thread": (20, 400), "tall": (192, 96)}


def small_run(folder):
    """Writes pictures and a run to `folder`; returns its model and its Experiment. One picture is grey.

    Its config is that of a run on two devices with norms synchronised: it has to come to one that has neither.
    """
    box = {name: (2, 2, width // 2, height // 2) for name, (height, width) in SIZES.items()}
    objects = {name: [(CLASSES[place % 3], box[name])] for place, name in enumerate([*SIZES])} | {"grey": []}
    write_devkit(folder, {"train": objects}, size=SIZES | {"grey": (80, 60)}, classes=CLASSES)
    grey = folder / "JPEGImages" / "grey.jpg"
    grey.write_bytes(grey_jpeg(80, 60))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    bundle.write(folder / "backbone", build_embedder(small_backbone(), 16), step=7)
    config = DetectionConfig(
        DataOptions(
            devkit=str(folder), train_set="train", classes_file=str(folder / "classes.txt"), short_side=(96,),
            long_side=200, batch_size=2,
        ),
        DetectorOptions(
            batch_norm="synchronised", anchor_scales=(1.0, 2.0, 4.0), rpn_channels=16, rois=16, test_proposals=50,
            detections=30,
        ),
        OptimizerOptions(),
        RunOptions(model_dir=str(folder / "run"), export=str(folder / "backbone"), strategy="mirrored", replicas=2),
    )  # fmt: skip
    experiment = Experiment(config)
    experiment.claim()
    estimator = Estimator(experiment.model_fn, experiment.run_config())
    draw_outputs(estimator.model)
    estimator.save(epoch=0, finished=False)
    return estimator.model, experiment


def draw_outputs(model, seed=0):
    """Gives the layers behind trunk and head weights with which scores and boxes depend on the picture."""
    rng = np.random.default_rng(seed)
    for weight in (*model.rpn.weights, *model.roi_outputs.weights):
        inputs = np.prod(weight.shape[:-1])
        weight.assign(rng.normal(0, 1 / np.sqrt(inputs), weight.shape) if weight.name == "kernel" else weight.value)


def grey_jpeg(height, width):
    """The bytes of a JPEG of one channel."""
    return saved(Image.fromarray(smooth(3, height, width)).convert("L"), "jpeg")
