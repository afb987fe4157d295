"""What a detector's step and its detections spend their time on: python -m benchmarks.detection

ResNet-50 C4 on one picture of 600 x 1000 px, batch norm and the first two stages frozen, as tf-faster-rcnn trains it.
`glue` is what lies between the networks: proposals with their suppression, targets, RoI pooling and its gradient.
"""

import statistics

import keras
import numpy as np
import tensorflow as tf

from benchmarks.timing import alternate, median_ratio, report
from detection.config import DetectorOptions
from detection.faster_rcnn import FasterRCNN
from detection.parts import freeze, parts_of
from models.backbone import build_backbone
from models.padding import OUTSIDE, padded_side

HEIGHT, WIDTH, BOXES, CLASSES = 600, 1000, 3, 20
GLUE = ("proposals_and_targets", "pooling", "pooling_gradient")


def detector():
    """Returns a ResNet-50 C4 with tf-faster-rcnn's rules, compiled."""
    keras.utils.set_random_seed(0)
    backbone = build_backbone("resnet50", resnet_version=1)
    options = DetectorOptions().resolved("resnet50", list(backbone.strides))
    parts = parts_of(backbone, options.roi_side)
    freeze(parts, backbone, options.freeze_at, options.batch_norm)
    model = FasterRCNN(parts, CLASSES, options)
    model.compile(keras.optimizers.SGD(1e-6, momentum=0.9))  # the weights are to stay about where they are
    return model


def batch_of_one():
    """Returns a training batch of one picture of noise with boxes of the usual sizes."""
    rng = np.random.default_rng(0)
    image = np.full((1, padded_side(HEIGHT, 16), padded_side(WIDTH, 16), 3), OUTSIDE, np.float32)
    image[0, :HEIGHT, :WIDTH] = rng.random((HEIGHT, WIDTH, 3))
    near = rng.uniform(0, [WIDTH / 2, HEIGHT / 2], (BOXES, 2))
    far = near + rng.uniform(100, 280, (BOXES, 2))
    batch = {
        "image": image,
        "size": np.array([[HEIGHT, WIDTH]], np.int32),
        "scale": np.full((1, 2), 2.0, np.float32),
        "index": np.zeros(1, np.int64),
        "boxes_xyxy": np.concatenate([near, far], axis=1)[np.newaxis].astype(np.float32),
        "labels": rng.integers(1, CLASSES + 1, (1, BOXES)).astype(np.int32),
    }
    return tf.nest.map_structure(tf.constant, batch)


def measured_parts(model, batch):
    """Returns functions that do a part of a training step or of a detection each, on inputs as they are there."""
    features, map_sizes = model.map_of(batch["image"])
    logits, deltas = model.anchor_outputs(features)
    wanted = model.targets_of(batch, logits, deltas, map_sizes)
    keep, count = model.options.test_proposals, model.options.rois

    def proposed(number):
        return model.proposals_of(logits[0], deltas[0], map_sizes[0], batch["size"][0], number)[0]

    def pooled(features, regions):
        rows = tf.zeros(tf.shape(regions)[0], tf.int32)
        return model.pool(features, regions, rows, map_sizes)

    def gradient(features, regions, upstream):
        with tf.GradientTape() as tape:
            tape.watch(features)
            value = pooled(features, regions)
        # Interpolation is linear: the graph of its gradient holds nothing of the forward pass.
        return tape.gradient(value, features, upstream)

    rois, test_regions = wanted.rois.boxes[0], tf.Variable(proposed(keep)[0])
    crops, test_crops = pooled(features, rois), pooled(features, test_regions)
    outputs = model.region_outputs(features, map_sizes, test_regions[tf.newaxis])
    one = tf.constant(keep)[tf.newaxis]
    graph = tf.function
    # Inputs that are variables: constants would be computed once, when the graph is made.
    held = [tf.Variable(each) for each in (features, rois, crops, test_crops, logits, deltas)]
    features, rois, crops, test_crops, logits, deltas = held
    training = {
        "step": graph(lambda: model.train_step(batch)),
        "trunk": graph(lambda: model.map_of(batch["image"], training=True)[0]),
        "rpn": graph(lambda: model.anchor_outputs(features.value())),
        "proposals": graph(lambda: proposed(model.options.train_proposals)),
        "proposals_and_targets": graph(lambda: model.targets_of(batch, logits.value(), deltas.value(), map_sizes)),
        "pooling": graph(lambda: pooled(features.value(), rois.value())),
        "pooling_gradient": graph(lambda: gradient(features.value(), rois.value(), crops.value())),
        "head": graph(lambda: model.roi_outputs(model.head(crops.value(), training=True))),
    }
    held_outputs = [tf.Variable(each) for each in outputs]
    testing = {
        "image": graph(lambda: model.detect(batch)),
        "trunk": graph(lambda: model.map_of(batch["image"])[0]),
        "rpn": graph(lambda: model.anchor_outputs(features.value())),
        "proposals": graph(lambda: proposed(keep)),
        "pooling": graph(lambda: pooled(features.value(), test_regions.value())),
        "head": graph(lambda: model.roi_outputs(model.head(test_crops.value()))),
        "suppression": graph(
            lambda: model.best(
                test_regions.value()[tf.newaxis], one, *(each.value() for each in held_outputs), batch["size"],
                batch["scale"],
            )
        ),
    }  # fmt: skip
    return training, testing, count


def main():
    """Measures the parts of a training step and of a detection in turn."""
    model, batch = detector(), batch_of_one()
    training, testing, rois = measured_parts(model, batch)
    explanation = {"network": "resnet50 C4", "picture": f"{HEIGHT}x{WIDTH}", "rois": rois, "freeze_at": 2}
    seconds = alternate(training, rounds=5)
    glue = [sum(parts) for parts in zip(*(seconds[name] for name in GLUE), strict=True)]
    share = median_ratio(glue, seconds["step"])
    medians = {f"{name}_s": statistics.median(of) for name, of in seconds.items()}
    report("glue_share", share, "ratio", **medians, **explanation)
    report("detection_step_s", medians.pop("step_s"), "s", **medians, **explanation)
    found = {f"{name}_s": statistics.median(of) for name, of in alternate(testing, rounds=5).items()}
    report("detection_image_s", found.pop("image_s"), "s", **found, **explanation)


if __name__ == "__main__":
    main()
