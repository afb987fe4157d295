"""Small detectors and batches, for tests that are about their parts."""

import keras
import numpy as np

from detection.config import DetectorOptions
from detection.faster_rcnn import FasterRCNN
from detection.parts import freeze, parts_of
from models.backbone import build_backbone
from models.padding import OUTSIDE, padded_side
from models.preprocessing import Preprocessing


def small_backbone(name="resnet10", width=8, image_size=67, seed=0, **arguments):
    """A backbone of few channels whose batch norms have statistics of their own.

    Not of 4: of so few, oneDNN's gradient of a strided 1x1 convolution is wrong.
    """
    keras.utils.set_random_seed(seed)
    backbone = build_backbone(name, width=width, preprocessing=Preprocessing(image_size=image_size), **arguments)
    rng = np.random.default_rng(seed)
    for weight in backbone.model.weights:
        if weight.name in ("beta", "moving_mean"):
            weight.assign(0.1 * rng.normal(size=weight.shape))
    return backbone


def small_detector(name="resnet10", classes=3, options=None, backbone=None, learning_rate=0.01, **arguments):
    """A compiled detector on a small backbone, with few anchors and regions unless `options` say otherwise."""
    backbone = backbone or small_backbone(name)
    name = backbone.architecture["name"]
    given = {"anchor_scales": (1.0, 2.0), "rpn_channels": 8, "rpn_batch": 16, "rois": 12, "train_proposals": 40}
    given |= {"test_proposals": 20, "dropout": 0.0} | (options or {})
    resolved = DetectorOptions(**given).resolved(name, list(backbone.strides))
    parts = parts_of(backbone, resolved.roi_side, resolved.dropout, resolved.extra_norm)
    freeze(parts, backbone, resolved.freeze_at, resolved.batch_norm)
    detector = FasterRCNN(parts, classes, resolved, **{"weight_decay": 0.0, "double_bias": False, **arguments})
    detector.compile(keras.optimizers.SGD(learning_rate, momentum=0.9))
    return detector


def batch_of(*pictures, height=None, width=None):
    """A padded batch of (image [h, w, 3], boxes_xyxy [g, 4], labels [g])."""
    height = padded_side(height or max(image.shape[0] for image, _, _ in pictures), 16)
    width = padded_side(width or max(image.shape[1] for image, _, _ in pictures), 16)
    most = max(len(labels) for _, _, labels in pictures)
    batch = {
        "image": np.full((len(pictures), height, width, 3), OUTSIDE, np.float32),
        "size": np.array([image.shape[:2] for image, _, _ in pictures], np.int32),
        "scale": np.ones((len(pictures), 2), np.float32),
        "index": np.arange(len(pictures), dtype=np.int64),
        "boxes_xyxy": np.zeros((len(pictures), most, 4), np.float32),
        "labels": np.zeros((len(pictures), most), np.int32),
    }
    for place, (image, boxes, labels) in enumerate(pictures):
        batch["image"][place, : image.shape[0], : image.shape[1]] = image
        batch["boxes_xyxy"][place, : len(labels)] = boxes
        batch["labels"][place, : len(labels)] = labels
    return batch


def picture(height, width, seed, boxes=2, classes=3):
    """A picture of noise with boxes somewhere in it."""
    rng = np.random.default_rng(seed)
    near = rng.uniform(0, [width / 2, height / 2], (boxes, 2))
    far = near + rng.uniform([width / 4, height / 4], [width / 2 - 1, height / 2 - 1], (boxes, 2))
    labels = rng.integers(1, classes + 1, boxes)
    return rng.random((height, width, 3), np.float32), np.concatenate([near, far], axis=1), labels
