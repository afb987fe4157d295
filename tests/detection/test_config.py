"""What the detector's options are by default, what follows from the backbone, and what is refused."""

import dataclasses

import pytest

from data.errors import FlagError
from detection.config import (
    DataOptions,
    DetectionConfig,
    DetectorOptions,
    OptimizerOptions,
    RunOptions,
    frozen_endpoints,
)

RESNET = ["conv1", "conv2", "conv3", "conv4", "conv5"]
PLAIN = [*RESNET, "fc6", "fc7"]


def config(**changes):
    parts = {"data": DataOptions(devkit="x"), "detector": DetectorOptions(), "optimizer": OptimizerOptions()}
    return DetectionConfig(**{**parts, "run": RunOptions(model_dir="m"), **changes})


def test_the_defaults_are_those_of_tf_faster_rcnn():
    """As its scripts train: config.py, the yml of the network and the shell script together."""
    detector, optimizer, run = DetectorOptions(), OptimizerOptions(), RunOptions(model_dir="m")
    assert (detector.anchor_scales, detector.anchor_ratios) == ((8, 16, 32), (0.5, 1, 2))
    assert (detector.rpn_batch, detector.rpn_positive, detector.rpn_negative) == (256, 0.7, 0.3)
    assert (detector.train_proposals, detector.test_proposals, detector.proposal_iou) == (2000, 300, 0.7)
    assert detector.proposals_before_nms is None
    assert (detector.rois, detector.roi_foreground_fraction, detector.roi_foreground) == (256, 0.25, 0.5)
    assert (detector.roi_background_low, detector.append_truth) == (0, False)
    assert (detector.nms_iou, detector.score_threshold, detector.detections) == (0.3, 0, 100)
    assert (optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay) == (0.001, 0.9, 1e-4)
    assert (optimizer.drop_steps, run.steps, run.seed) == ((50_000,), 70_000, 3)


@pytest.mark.parametrize(
    ("backbone", "endpoints", "freeze_at", "dropout", "side", "double"),
    [
        ("resnet50", RESNET, 2, 0, 7, False),
        ("vgg16", PLAIN, 2, 0.5, None, True),
        ("alexnet", PLAIN, 0, 0.5, None, True),
    ],
)
def test_what_follows_from_the_backbone(backbone, endpoints, freeze_at, dropout, side, double):
    resolved = DetectorOptions().resolved(backbone, endpoints)
    assert (resolved.freeze_at, resolved.dropout, resolved.roi_side) == (freeze_at, dropout, side)
    assert OptimizerOptions().resolved(backbone).double_bias is double


@pytest.mark.parametrize(
    ("text", "backbone", "depth"),
    [
        ("alexnet:0,vgg16:2,resnet:4", "resnet50", 4), ("alexnet:0,vgg16:2,resnet:4", "vgg16", 2),
        ("alexnet:0, vgg16:2", "alexnet", 0), ("3", "resnet18", 3), (1, "vgg16", 1),
    ],
)  # fmt: skip
def test_frozen_endpoints_by_family(text, backbone, depth):
    assert frozen_endpoints(text, backbone) == depth


@pytest.mark.parametrize("text", ["conv2", "resnet:", "resnet:4;vgg16:2", "vgg16:2", ""])
def test_frozen_endpoints_that_say_nothing_are_refused(text):
    with pytest.raises(FlagError, match=rf"^--freeze_at={text}: (give a number|says nothing for resnet)"):
        frozen_endpoints(text, "resnet50")


def test_what_is_said_stays():
    resolved = DetectorOptions(freeze_at=0, roi_side=14).resolved("resnet50", RESNET)
    assert (resolved.freeze_at, resolved.roi_side) == (0, 14)
    assert OptimizerOptions(double_bias=True).resolved("resnet50").double_bias is True


@pytest.mark.parametrize(
    ("kind", "values", "flag"),
    [
        (DataOptions, {}, "devkit"),
        (DataOptions, {"devkit": "x", "short_side": ()}, "short_side"),
        (DataOptions, {"devkit": "x", "test_short_side": 0}, "test_short_side"),
        (DataOptions, {"devkit": "x", "box_origin": 2}, "box_origin"),
        (DataOptions, {"devkit": "x", "short_side": (1200,)}, "short_side"),
        (DataOptions, {"devkit": "x", "short_side": (20,)}, "short_side"),
        (DataOptions, {"devkit": "x", "batch_size": 0}, "batch_size"),
        (DetectorOptions, {"batch_norm": "maybe"}, "batch_norm"),
        (DetectorOptions, {"anchor_scales": (0.0,)}, "anchor_scales"),
        (DetectorOptions, {"anchor_ratios": ()}, "anchor_ratios"),
        (DetectorOptions, {"rpn_negative": 0.8}, "rpn_negative"),
        (DetectorOptions, {"roi_background_low": 0.5}, "roi_background_low"),
        (DetectorOptions, {"nms_iou": 1.5}, "nms_iou"),
        (DetectorOptions, {"rpn_beta": float("nan")}, "rpn_beta"),
        (DetectorOptions, {"detections": 101}, "detections"),
        (DetectorOptions, {"proposals_before_nms": 0}, "proposals_before_nms"),
        (OptimizerOptions, {"learning_rate": 0.0}, "learning_rate"),
        (OptimizerOptions, {"drop_steps": (20, 10)}, "drop_steps"),
        (OptimizerOptions, {"momentum": 1.0}, "momentum"),
        (RunOptions, {}, "model_dir"),
        (RunOptions, {"model_dir": "m", "steps": 0}, "steps"),
        (RunOptions, {"model_dir": "m", "seed": 2**31}, "seed"),
        (RunOptions, {"model_dir": "m", "replicas": 2}, "replicas"),
        (RunOptions, {"model_dir": "m", "metric": "coco"}, "metric"),
    ],
)
def test_bad_values_are_named(kind, values, flag):
    with pytest.raises(FlagError, match=rf"^--{flag}"):
        kind(**values)


@pytest.mark.parametrize(
    ("backbone", "options", "flag"),
    [
        ("resnet18", {"freeze_at": 5}, "freeze_at"),
        ("vgg16", {"freeze_at": 6}, "freeze_at"),
        ("resnet18", {"freeze_at": -1}, "freeze_at"),
        ("resnet18", {"dropout": 0.5}, "dropout"),
        ("vgg16", {"dropout": 1.0}, "dropout"),
        ("vgg16", {"roi_side": 7}, "roi_side"),
        ("resnet18", {"roi_side": 10}, "roi_side"),
        ("alexnet", {"extra_norm": True}, "extra_norm"),
    ],
)
def test_what_a_backbone_cannot_do_is_named(backbone, options, flag):
    with pytest.raises(FlagError, match=rf"^--{flag}"):
        DetectorOptions(**options).resolved(backbone, RESNET if backbone.startswith("resnet") else PLAIN)


def test_combinations_that_make_no_sense_are_named():
    with pytest.raises(FlagError, match=r"^--batch_norm=synchronised"):
        config(detector=DetectorOptions(batch_norm="synchronised")).check_training()
    with pytest.raises(FlagError, match=r"^--precise_batches"):
        config(run=RunOptions(model_dir="m", precise_batches=5))


@pytest.mark.parametrize(
    "detector",
    [{"batch_norm": "recalibrated"}, {"batch_norm": "local"}, {"batch_norm": "frozen", "extra_norm": True}],
)
def test_precise_batches_go_with_norms_whose_statistics_are_measured(detector):
    config(detector=DetectorOptions(**detector), run=RunOptions(model_dir="m", precise_batches=5)).check_training()


def test_a_config_survives_being_written():
    one = config(data=DataOptions(devkit="x", short_side=(480, 600), val_set="2007_val"))
    assert DetectionConfig.from_flat(one.flat()) == one
    assert {*one.identity()} | {*one.circumstances()} == {*one.flat()}
    assert not {*one.identity()} & {*one.circumstances()}


def test_where_and_how_long_a_run_goes_on_is_no_part_of_its_identity():
    one = config()
    longer = config(run=dataclasses.replace(one.run, steps=5, model_dir="elsewhere", keep=9))
    assert longer.identity() == one.identity()
    other = config(optimizer=OptimizerOptions(learning_rate=0.01))
    assert other.identity() != one.identity()
