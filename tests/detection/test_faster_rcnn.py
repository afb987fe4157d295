"""The detector as a whole: what its losses, its step and its detections do and do not depend on."""

import numpy as np
import pytest
import tensorflow as tf

from detection.faster_rcnn import PARTS_OF_LOSS, original
from tests.detection.small import batch_of, picture, small_backbone, small_detector

ARCHITECTURES = [
    ("resnet10", {}, {}),
    ("resnet10", {"resnet_version": 1}, {"roi_side": 14, "roi_pooling": "legacy_crop"}),
    ("vgg16", {}, {}),
    ("alexnet", {}, {"roi_pooling": "legacy_crop"}),
]


def numbers(losses):
    return {name: values.numpy() for name, values in losses.items()}


@pytest.mark.parametrize(("name", "architecture", "options"), ARCHITECTURES)
def test_padding_changes_no_loss(name, architecture, options):
    """A batch of two pictures of different size has the mean of the losses of the two alone."""
    options = {"append_truth": True, **options}  # so that there is foreground
    detector = small_detector(options=options, backbone=small_backbone(name, **architecture))
    first, second = picture(90, 131, 1), picture(120, 99, 2, boxes=3)
    both = numbers(detector.losses(batch_of(first, second))[0])
    alone = []
    for place, each in enumerate((first, second)):
        batch = batch_of(each)
        batch["index"][:] = place  # the draws are the picture's own
        alone.append(numbers(detector.losses(batch)[0]))
    assert set(both) == set(PARTS_OF_LOSS)
    for part in PARTS_OF_LOSS:
        wanted = [losses[part][0] for losses in alone]
        np.testing.assert_allclose(both[part], wanted, rtol=2e-5, atol=1e-6)
        assert (both[part] > 0).all()


def test_more_padding_changes_no_detection():
    detector = small_detector()
    near = batch_of(picture(90, 131, 1))
    far = batch_of(picture(90, 131, 1), height=160, width=192)
    found, again = detector.detect(near), detector.detect(far)
    count = int(found.count[0])
    assert count == int(again.count[0]) > 0
    np.testing.assert_allclose(found.scores, again.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes_xyxy, again.boxes_xyxy, atol=1e-2)


def test_a_step_takes_the_mean_of_the_pictures_losses():
    detector = small_detector(weight_decay=0.0)
    batch = batch_of(picture(90, 131, 1), picture(120, 99, 2))
    wanted = sum(values.numpy().mean() for values in detector.losses(batch)[0].values())
    assert float(detector.train_step(batch)["loss"]) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("batch_norm", ["frozen", "local"])
@pytest.mark.parametrize("freeze_at", [0, 1, 3])
def test_what_is_frozen_does_not_move(freeze_at, batch_norm):
    backbone = small_backbone()
    detector = small_detector(options={"freeze_at": freeze_at, "batch_norm": batch_norm}, backbone=backbone)
    before = {weight.path: weight.numpy() for weight in detector.trunk.weights + detector.head.weights}
    for step in range(2):
        detector.train_step(batch_of(picture(90, 131, step), picture(120, 99, 5 + step)))
    moved = {
        weight.path
        for weight in detector.trunk.weights + detector.head.weights
        if not np.array_equal(before[weight.path], weight.numpy())
    }
    groups = dict(backbone.freeze_groups)
    fixed = {layer for endpoint in list(groups)[:freeze_at] for layer in groups[endpoint]}
    for path in before:
        layer = path.split("/")[0]
        is_norm = layer.endswith("_bn") or "_bn" in layer
        assert (path in moved) == (layer not in fixed and not (is_norm and batch_norm == "frozen")), path


@pytest.mark.parametrize("name", ["vgg16", "alexnet"])
def test_plain_networks_freeze_whole_stages(name):
    backbone = small_backbone(name)
    detector = small_detector(options={"freeze_at": 2}, backbone=backbone)
    learning = {weight.path.split("/")[0] for weight in detector.trunk.trainable_weights}
    assert learning and not learning & {*backbone.freeze_groups["conv1"], *backbone.freeze_groups["conv2"]}
    assert {layer.split("_")[0] for layer in learning} == {"conv3", "conv4", "conv5"}


def moves_of(batch, changes):
    """How a step moves each weight, by its name, for each of `changes` to the detector; and what they were before.

    All learn from the same anchors and regions: which these are may hang on the last bit.
    """
    first, moves = small_detector(**changes[0]), []
    targets = first.losses(batch)[1]
    before = {weight.path: weight.numpy() for weight in first.weights}
    for change in changes:
        detector = small_detector(**change)
        detector.targets_of = lambda *_: targets
        for weight in detector.weights:
            weight.assign(before[weight.path])
        learning = {weight.path: weight for weight in detector.trainable_weights}
        detector.train_step(batch)
        moves.append({path: weight.numpy() - before[path] for path, weight in learning.items()})
    return moves, before


def off(found, wanted):
    """How far off an array is, relative to its size: a rectifier at its kink may turn over by rounding."""
    return np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1e-12)


def test_biases_learn_twice_as_fast_where_asked_for():
    options = {"append_truth": True}  # so that there is foreground
    changes = [{"options": options}, {"options": options, "double_bias": True}]
    (once, twice), _ = moves_of(batch_of(picture(90, 131, 1)), changes)
    assert {path.split("/")[-1] for path in once} == {"bias", "kernel"}
    for path, move in once.items():
        assert off(twice[path], (2 if path.endswith("bias") else 1) * move) < 1e-2, path
    assert all(once[f"roi_{kind}/bias"].any() for kind in ("classes", "boxes"))


def test_the_decay_is_a_loss_of_the_kernels_that_learn():
    """lambda w is added to the gradient of a kernel: the step moves it by the rate times that as well."""
    change = {"learning_rate": 0.1}
    (bare, decayed), before = moves_of(batch_of(picture(90, 131, 1)), [change, {**change, "weight_decay": 20.0}])
    for path, move in bare.items():
        wanted = -0.1 * 20 * before[path] if path.endswith("kernel") else np.zeros_like(move)
        assert off(decayed[path], move + wanted) < 1e-2, path
        assert not wanted.any() or off(decayed[path], move) > 2e-2, path  # the decay is no small part


def test_a_picture_without_boxes_teaches_background_alone():
    detector = small_detector()
    image = picture(90, 131, 1)[0]
    losses, wanted = detector.losses(batch_of((image, np.zeros((0, 4)), np.zeros(0, int)), picture(90, 131, 2)))
    assert losses["rpn_box_loss"][0] == 0 and losses["box_loss"][0] == 0
    assert losses["rpn_class_loss"][0] > 0 and losses["class_loss"][0] > 0
    assert not wanted.rois.labels[0].numpy().any()


def test_the_first_failing_step_is_kept_with_its_pictures():
    detector = small_detector()
    batch = batch_of(picture(90, 131, 1))
    detector.train_step(batch)
    assert detector.first_failure.read() is None
    bias = detector.roi_outputs.get_layer("roi_classes").bias
    bias.assign(np.full(bias.shape, np.nan))
    for _ in range(2):
        detector.train_step(batch)
    assert detector.first_failure.read() == (2, [int(batch["index"][0])])


def test_draws_follow_from_seed_step_and_picture():
    detector, other = small_detector(seed=1), small_detector(seed=2)
    batch = batch_of(picture(90, 131, 1))
    rows = [each.losses(batch)[1].anchors.rows.numpy() for each in (detector, detector, other)]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert (rows[0] != rows[2]).any()
    detector.optimizer.iterations.assign(1)
    assert (detector.losses(batch)[1].anchors.rows.numpy() != rows[0]).any()


def test_detections_are_in_px_of_the_original_picture():
    """The regressor says "as proposed" for class 2 of picture of twice the size: proposals come back doubled."""
    detector = small_detector(options={"nms_iou": 1.0, "detections": 20})
    for layer in detector.roi_outputs.layers:
        layer.set_weights([np.zeros(weight.shape) for weight in layer.get_weights()])
    batch = batch_of(picture(96, 128, 1))
    batch["scale"][:] = 0.5
    features, map_sizes = detector.map_of(batch["image"])
    logits, deltas = detector.anchor_outputs(features)
    (proposed, _, count), _ = detector.proposals_of(logits[0], deltas[0], map_sizes[0], batch["size"][0], 20)
    found = detector.detect(batch)
    wanted = proposed[: int(count)].numpy() * 2 + [0, 0, 1, 1]
    for box in found.boxes_xyxy[0, : int(found.count[0])].numpy():
        assert np.abs(wanted - box).max(axis=1).min() < 1e-2
    assert found.boxes_xyxy.numpy().max() <= 255
    np.testing.assert_allclose(found.scores[0, : int(found.count[0])], 1 / 4, atol=1e-6)


def test_boxes_go_back_to_the_original_picture():
    """Pixels 10..19 of a picture at half the size are pixels 20..39."""
    found = original(tf.constant([[[10.0, 4.0, 19.0, 4.0]]]), tf.constant([[1.0, 0.5]]))
    np.testing.assert_allclose(found, [[[20, 4, 39, 4]]])


def test_the_same_step_in_a_graph():
    detector, twin = small_detector(), small_detector()
    for weight, same in zip(twin.weights, detector.weights, strict=True):
        weight.assign(same.numpy())
    batch = batch_of(picture(90, 131, 1), picture(120, 99, 2))
    eager = detector.train_step(batch)
    graph = tf.function(twin.train_step)(tf.nest.map_structure(tf.constant, batch))
    for name, value in eager.items():
        np.testing.assert_allclose(graph[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
