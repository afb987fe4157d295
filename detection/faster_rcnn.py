"""Faster R-CNN (Ren et al. 2015) on a pretrained backbone, with the rules of tf-faster-rcnn.

A picture passes the trunk; a small network tells at every position of its map which anchors hold an object and how to
move them (RPN); the best of them, the proposals, are pooled from the map and pass the head, which tells their class and
moves them again, class by class.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import keras
import tensorflow as tf

from detection import boxes, losses, roi_pooling, targets
from detection.anchors import base_anchors, grid
from detection.config import DetectorOptions
from detection.parts import Parts
from detection.proposals import proposals
from la_tf.replicas import Replicas
from la_tf.trainable import Trainable, decayed_kernels, weight_decay_loss
from models.layers import SameConvolution

ANCHOR_BASE = 16  # px: scales are multiples of it, whatever the stride
PARTS_OF_LOSS = ("rpn_class_loss", "rpn_box_loss", "class_loss", "box_loss")
POOLINGS = {"legacy_crop": roi_pooling.legacy_crop, "roi_align": roi_pooling.roi_align}


class Found(NamedTuple):
    """What was detected in B pictures: the first `count` of every row, the surest first.

    boxes_xyxy [B, n, 4] px of the original picture, inclusive; scores [B, n]; labels int32 [B, n] in 1..C; count [B].
    """

    boxes_xyxy: tf.Tensor
    scores: tf.Tensor
    labels: tf.Tensor
    count: tf.Tensor


class Targets(NamedTuple):
    """What the networks are to say of B pictures, and how good the proposals are."""

    anchors: targets.AnchorTargets
    rois: targets.RoiTargets
    recall: tf.Tensor  # [B] share of the true boxes that a proposal covers with an IoU of 0.5
    boxes: tf.Tensor  # [B] true boxes


class FasterRCNN(Trainable):
    """A detector of `classes` kinds of objects; `options` are resolved for the backbone that the `parts` are of.

    Batches (`detection.input`): image [B, H, W, 3] padded, size [B, 2] and scale [B, 2] of each, index [B], and in
    training boxes_xyxy [B, G, 4] with labels [B, G], 0 where there is no box.
    """

    def __init__(
        self, parts: Parts, classes: int, options: DetectorOptions, *, weight_decay=1e-4, double_bias=False, seed=0,
        replicas=None, name="faster_rcnn",
    ):  # fmt: skip
        super().__init__(name=name, replicas=replicas)
        self.trunk, self.head, self.stride, self.offset = parts.trunk, parts.head, parts.stride, parts.offset
        self.classes, self.options, self.seed = classes, options, seed
        self.weight_decay, self.double_bias = weight_decay, double_bias
        self.replicas = replicas or Replicas()
        self.detection = tf.function(self.detect, reduce_retracing=True)
        self.anchors = base_anchors(options.anchor_scales, options.anchor_ratios, ANCHOR_BASE)
        self.anchor_rules = targets.AnchorRules(
            options.rpn_positive,
            options.rpn_negative,
            options.rpn_batch,
            options.rpn_positive_fraction,
            options.anchors_across_border,
        )
        self.roi_rules = targets.RoiRules(
            options.rois, options.roi_foreground_fraction, options.roi_foreground, options.roi_background_low,
            append_truth=options.append_truth,
        )  # fmt: skip
        self.pool = partial(POOLINGS[options.roi_pooling], side=parts.side, stride=self.stride, offset=self.offset)
        self._add_outputs()
        self.means = {name: keras.metrics.Mean(name=name) for name in PARTS_OF_LOSS}
        self.recall, self.foreground = keras.metrics.Mean(name="rpn_recall"), keras.metrics.Mean(name="foreground_rois")

    def _add_outputs(self):
        count, channels = len(self.anchors), self.trunk.output[0].shape[-1]
        normal = keras.initializers.RandomNormal
        hidden = SameConvolution(
            self.options.rpn_channels, 3, padding="same", activation="relu", kernel_initializer=normal(stddev=0.01),
            name="rpn_conv",
        )  # fmt: skip
        shared = keras.Input((None, None, channels))
        features = hidden(shared)
        outputs = [
            keras.layers.Conv2D(filters, 1, kernel_initializer=normal(stddev=0.01), name=name)(features)
            for filters, name in ((2 * count, "rpn_classes"), (4 * count, "rpn_boxes"))
        ]
        self.rpn = keras.Model(shared, outputs, name="rpn")
        described = keras.Input(self.head.output.shape[1:])
        outputs = [
            keras.layers.Dense(units, kernel_initializer=normal(stddev=deviation), name=name)(described)
            for units, deviation, name in (
                (self.classes + 1, 0.01, "roi_classes"),
                (4 * (self.classes + 1), 0.001, "roi_boxes"),
            )
        ]
        self.roi_outputs = keras.Model(described, outputs, name="roi_outputs")

    # -- a picture's way through the networks -----------------------------------------------------------------------

    def map_of(self, images, training=False):
        """Returns the trunk's map `[B, h, w, C]` of padded pictures, and the sizes `[B, 2]` of their own maps."""
        return self.trunk(images, training=training)

    def anchor_outputs(self, features, training=False):
        """Returns what the RPN says of all anchors: logits `[B, h, w, A, 2]` and deltas `[B, h, w, A, 4]`.

        The logits are of nothing and of an object; its channels hold all of the first, then all of the second.
        """
        logits, deltas = self.rpn(features, training=training)
        shape, count = tf.shape(features)[:3], len(self.anchors)
        logits = tf.reshape(logits, tf.concat([shape, [2, count]], 0))
        return tf.transpose(logits, [0, 1, 2, 4, 3]), tf.reshape(deltas, tf.concat([shape, [count, 4]], 0))

    def proposals_of(self, logits, deltas, map_size, size, keep):
        """Returns the proposals of one picture (`detection.proposals`), and the anchors `[N, 4]` of its own map."""
        anchors = grid(self.anchors, map_size, self.stride, self.offset)
        logits, deltas = (_own(tensor, map_size) for tensor in (logits, deltas))
        options = self.options
        surer = logits[:, 1] - logits[:, 0]  # in the order of the softmax
        found = proposals(surer, deltas, anchors, size, options.proposal_iou, keep, options.proposals_before_nms)
        return found, anchors

    def region_outputs(self, features, map_sizes, regions, training=False):
        """Returns class logits `[B, R, C + 1]` and deltas `[B, R, C + 1, 4]` of regions `[B, R, 4]`, px."""
        batch, count = tf.shape(regions)[0], regions.shape[1]
        rows = tf.repeat(tf.range(batch), count)
        pooled = self.pool(features, tf.reshape(regions, [-1, 4]), rows, map_sizes)
        logits, deltas = self.roi_outputs(self.head(pooled, training=training), training=training)
        classes = self.classes + 1
        return tf.reshape(logits, [batch, count, classes]), tf.reshape(deltas, [batch, count, classes, 4])

    # -- training ---------------------------------------------------------------------------------------------------

    def targets_of(self, batch, logits, deltas, map_sizes):
        """Returns the `Targets` of a batch; draws depend on the seed, the step and the picture, on nothing else."""
        step = tf.cast(tf.convert_to_tensor(self.optimizer.iterations), tf.int32)
        seed = tf.stack([tf.constant(self.seed, tf.int32), step])

        def of_one(inputs):
            logits, deltas, map_size, size, true_boxes, labels, index = inputs
            own_seed = tf.random.experimental.stateless_fold_in(seed, index)
            seeds = tf.random.experimental.stateless_split(own_seed, 2)
            (regions, _, count), anchors = self.proposals_of(
                logits, deltas, map_size, size, self.options.train_proposals
            )
            of_anchors = targets.anchor_targets(anchors, size, true_boxes, labels, seeds[0], self.anchor_rules)
            of_anchors = of_anchors._replace(rows=self._padded_rows(of_anchors.rows, map_size, tf.shape(logits)[1]))
            of_rois = targets.roi_targets(regions, count, true_boxes, labels, seeds[1], self.roi_rules)
            recall, number = targets.proposal_recall(regions, count, true_boxes, labels)
            return Targets(of_anchors, of_rois, recall, number)

        inputs = (
            tf.stop_gradient(logits), tf.stop_gradient(deltas), map_sizes, batch["size"], batch["boxes_xyxy"],
            batch["labels"], tf.cast(batch["index"], tf.int32),
        )  # fmt: skip
        return tf.map_fn(of_one, inputs, fn_output_signature=self._target_signature())

    def _padded_rows(self, rows, map_size, padded_width):
        """Returns where rows of a picture's own anchors lie in the padded map's."""
        count = len(self.anchors)
        line = map_size[1] * count
        return rows // line * (padded_width * count) + rows % line

    def _target_signature(self):
        sampled, rois = self.anchor_rules.batch, self.roi_rules.rois
        of = tf.TensorSpec
        return Targets(
            targets.AnchorTargets(
                of([sampled], tf.int32), of([sampled], tf.bool), of([sampled], tf.bool), of([sampled, 4], tf.float32)
            ),
            targets.RoiTargets(
                of([rois, 4], tf.float32), of([rois], tf.int32), of([rois, 4], tf.float32), of([rois], tf.bool),
                of([], tf.int32),
            ),
            of([], tf.float32),
            of([], tf.float32),
        )  # fmt: skip

    def losses(self, batch, training=True):
        """Returns the four losses of each picture of a batch, `[B]` by name, and its `Targets`."""
        features, map_sizes = self.map_of(batch["image"], training)
        logits, deltas = self.anchor_outputs(features, training)
        wanted = self.targets_of(batch, logits, deltas, map_sizes)
        flat = partial(_flat_anchors, rows=wanted.anchors.rows)
        of_anchors = losses.rpn_losses(flat(logits), flat(deltas), wanted.anchors, self.options.rpn_beta)
        logits, deltas = self.region_outputs(features, map_sizes, wanted.rois.boxes, training)
        of_rois = losses.roi_losses(logits, deltas, wanted.rois, self.options.roi_beta)
        return dict(zip(PARTS_OF_LOSS, (*of_anchors, *of_rois), strict=True)), wanted

    def train_step(self, batch):
        """Takes one step on the sum of the four losses, the mean over the pictures of all replicas, and the decay."""
        with tf.GradientTape() as tape:
            parts, wanted = self.losses(batch)
            each = tf.add_n(list(parts.values()))
            pictures = tf.cast(tf.shape(each)[0] * self.replicas.count, each.dtype)
            objective = tf.reduce_sum(each) / pictures
            if self.weight_decay:  # the replicas' gradients are added up
                objective += weight_decay_loss(decayed_kernels(self), self.weight_decay / self.replicas.count)
        weights = self.trainable_weights
        gradients = tape.gradient(objective, weights)
        if self.double_bias:
            gradients = [
                2 * one if weight.name == "bias" else one for one, weight in zip(gradients, weights, strict=True)
            ]
        step = tf.convert_to_tensor(self.optimizer.iterations)
        self.first_failure.note(each, batch["index"], tf.ones_like(each, tf.bool), step)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        self._update_metrics(parts, each, wanted)
        return {metric.name: metric.result() for metric in self.metrics}

    def _update_metrics(self, parts, each, wanted):
        self.loss_mean.update_state(each)
        for name, values in parts.items():
            self.means[name].update_state(values)
        self.recall.update_state(wanted.recall, wanted.boxes)
        self.foreground.update_state(tf.cast(wanted.rois.foreground, tf.float32))

    @property
    def metrics(self):
        """The loss and its four parts, the share of true boxes that are proposed (IoU 0.5), foreground RoIs."""
        return [*super().metrics, *self.means.values(), self.recall, self.foreground]

    # -- detection --------------------------------------------------------------------------------------------------

    def detect(self, batch):
        """Returns the `Found` objects of a batch: regression and suppression in px of the original pictures."""
        features, map_sizes = self.map_of(batch["image"])
        logits, deltas = self.anchor_outputs(features)
        keep = self.options.test_proposals

        def of_one(inputs):
            (regions, _, count), _ = self.proposals_of(*inputs, keep)
            return regions, count

        signature = tf.TensorSpec([keep, 4], tf.float32), tf.TensorSpec([], tf.int32)
        inputs = logits, deltas, map_sizes, batch["size"]
        regions, counts = tf.map_fn(of_one, inputs, fn_output_signature=signature)
        logits, deltas = self.region_outputs(features, map_sizes, regions)
        return self.best(regions, counts, logits, deltas, batch["size"], batch["scale"])

    def best(self, regions, counts, logits, deltas, sizes, scales):
        """Returns the `Found` among the first `counts` `[B]` of regions `[B, R, 4]`, by what the head says of them."""
        options = self.options
        regions = original(regions, scales)
        decoded = boxes.decode(deltas[:, :, 1:] * self.roi_rules.stds, regions[:, :, tf.newaxis])
        original_sizes = tf.cast(sizes, tf.float32) / scales
        far = tf.reverse(original_sizes, [-1])[:, tf.newaxis, tf.newaxis] - 1
        decoded = tf.clip_by_value(decoded, 0.0, tf.tile(far, [1, 1, 1, 2]))
        scores = tf.nn.softmax(logits)[:, :, 1:]
        proposed = tf.sequence_mask(counts, regions.shape[1])[..., tf.newaxis]
        scores = tf.where(proposed & tf.math.is_finite(scores), scores, -1.0)
        with tf.device("CPU:0"):
            kept = tf.image.combined_non_max_suppression(
                boxes.edges(decoded),
                scores, options.detections, options.detections, options.nms_iou, options.score_threshold,
                clip_boxes=False,
            )  # fmt: skip
        corners = boxes.within_edges(kept.nmsed_boxes)
        return Found(corners, kept.nmsed_scores, tf.cast(kept.nmsed_classes, tf.int32) + 1, kept.valid_detections)


def original(boxes_xyxy, scales):
    """Returns boxes `[B, n, 4]` of scaled pictures in px of the original ones; scales `[B, 2]` are (y, x)."""
    scales = tf.tile(tf.reverse(scales, [-1])[:, tf.newaxis], [1, 1, 2])
    return boxes.within_edges(boxes.edges(boxes_xyxy) / scales)


def _own(tensor, map_size):
    """What lies on a picture's own map, of `[h, w, A, n]`: `[N, n]`."""
    return tf.reshape(tensor[: map_size[0], : map_size[1]], [-1, tensor.shape[-1]])


def _flat_anchors(tensor, rows):
    """The `rows` `[B, S]` of `[B, h, w, A, n]` as `[B, S, n]`."""
    flat = tf.reshape(tensor, [tf.shape(tensor)[0], -1, tensor.shape[-1]])
    return tf.gather(flat, rows, batch_dims=1)
