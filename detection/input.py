"""From an annotated set to batches: pictures scaled, mirrored, padded to one size (`models.padding`), with their boxes.

A training batch is `{"image" [B, H, W, 3] in [0, 1] and -1 beyond a picture's end, "size" [B, 2] (height, width) of the
scaled picture, px, "scale" [B, 2] scaled / original, "index" [B] rows of the set, "boxes_xyxy" [B, G, 4] px of the
scaled picture, "labels" [B, G]}`, with label 0 where a picture has fewer boxes. In evaluation the last two are missing.

With mirrored copies the set counts twice, as tf-faster-rcnn has it: entry e of 0..2n-1 is picture e mod n, mirrored
from n on. A batch is a function of (seed, step).
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from data import decoding, draws
from data.errors import FlagError, UserError
from data.processors import cores
from data.reading import reader, steady
from detection import boxes
from detection.config import SMALLEST_SIDE, DataOptions
from models.padding import OUTSIDE, padded_side

MULTIPLE = 16  # px: padded sides are multiples of every network's stride


class TrainingPictures:
    """The pictures of a `data.voc.DetectionSet` that have something to learn, and their order."""

    def __init__(self, pictures, options: DataOptions, seed: int):
        self.set, self.options, self.seed = pictures, options, seed
        found = [_learned_boxes(pictures, row, options.train_on_difficult) for row in range(pictures.size)]
        self.rows = np.array([row for row, (_, labels) in enumerate(found) if len(labels)], np.int64)
        if not len(self.rows):
            raise UserError(f"{pictures.name}: no picture has an object to learn; all are empty or difficult")
        self.boxes = np.concatenate([corners for corners, _ in found])
        self.labels = np.concatenate([labels for _, labels in found])
        self.ends = np.cumsum([len(labels) for _, labels in found])
        self.entries = len(self.rows) * (2 if options.flip else 1)
        if options.batch_size > self.entries:
            raise FlagError(f"--batch_size={options.batch_size}: {pictures.name} has {self.entries} pictures to learn")

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in a pass over all entries."""
        return self.entries // self.options.batch_size

    def rows_of_step(self, step: int) -> list[int]:
        """Rows of the set that step `step` (from 0) learns from."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = draws.epoch_order_numpy(self.seed, epoch, self.entries)
        entries = order[place * self.options.batch_size :][: self.options.batch_size]
        return self.rows[entries % len(self.rows)].tolist()

    def batches(self, first_step: int = 0):
        """Yields the batches of steps `first_step`, `first_step` + 1, ... without end.

        Raises UserError naming the file of a picture that cannot be decoded.
        """
        step = first_step
        batches = iter(self._dataset(first_step))
        while True:
            try:
                batch = next(batches)
            except tf.errors.OpError as error:
                raise _named(self.set, self.rows_of_step(step), error) from None
            yield batch
            step += 1

    def _dataset(self, first_step):
        per_epoch, options = self.steps_per_epoch, self.options
        first_epoch, first_place = divmod(first_step, per_epoch)
        parallel = options.workers or cores()

        def entries_of(epoch):
            order = draws.epoch_order(self.seed, epoch, self.entries)[: per_epoch * options.batch_size]
            return tf.data.Dataset.from_tensor_slices((tf.fill(tf.shape(order), epoch), order))

        with tf.device("CPU:0"):
            entries = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max).flat_map(entries_of)
            entries = entries.skip(first_place * options.batch_size)
            examples = entries.map(self._example(), num_parallel_calls=parallel, deterministic=True)
            return steady(_padded(examples, options.batch_size))

    def _example(self):
        locate, read = reader(self.set)
        rows, ends = tf.constant(self.rows), tf.constant(np.concatenate([[0], self.ends]))
        all_boxes, labels = tf.constant(self.boxes), tf.constant(self.labels)
        sides = tf.constant(self.options.short_side, tf.float32)

        def example(epoch, entry):
            row = rows[entry % len(self.rows)]
            picture = decoding.decode(read(locate(row[tf.newaxis])[0]))
            draw = draws.uniforms(self.seed, epoch, entry[tf.newaxis], 0, 1)[0, 0]
            side = tf.gather(sides, tf.cast(draw * len(self.options.short_side), tf.int32))
            begin, end = ends[row], ends[row + 1]
            return scaled(
                picture,
                row,
                side,
                self.options.long_side,
                entry >= len(self.rows),
                all_boxes[begin:end],
                labels[begin:end],
            )

        return example


def evaluation_batches(pictures, options: DataOptions, batch_size: int = 1, rows=None):
    """Yields batches of all pictures of a set, or of some `rows` of it, in their order and without their boxes.

    Raises UserError naming the file of a picture that cannot be decoded.
    """
    locate, read = reader(pictures)
    rows = np.arange(pictures.size) if rows is None else np.asarray(rows, np.int64)

    def example(row):
        picture = decoding.decode(read(locate(row[tf.newaxis])[0]))
        return scaled(picture, row, float(options.test_side), options.long_side)

    with tf.device("CPU:0"):
        examples = tf.data.Dataset.from_tensor_slices(rows)
        examples = examples.map(example, num_parallel_calls=options.workers or cores(), deterministic=True)
        batches = iter(steady(_padded(examples, batch_size, drop_remainder=False)))
    for first in range(0, len(rows), batch_size):
        try:
            yield next(batches)
        except tf.errors.OpError as error:
            raise _named(pictures, rows[first : first + batch_size], error) from None


def scaled(picture, row, short_side, long_side, mirrored=False, boxes_xyxy=None, labels=None):
    """Returns what a batch holds of one `picture`, uint8 `[h, w, 3]`, with its boxes `[G, 4]` where there are some.

    Its shorter side becomes `short_side` px, unless the longer one would be above `long_side`; of a very long picture
    the shorter side becomes what the networks need at least.
    """
    own = tf.cast(tf.shape(picture)[:2], tf.float32)
    factor = tf.minimum(short_side / tf.reduce_min(own), long_side / tf.reduce_max(own))
    size = tf.maximum(tf.cast(tf.round(own * factor), tf.int32), SMALLEST_SIDE)
    image = tf.image.resize(picture, size) / 255
    scale = tf.cast(size, tf.float32) / own
    found = {"size": size, "scale": scale, "index": row}
    if boxes_xyxy is None:
        return {"image": image, **found}
    if mirrored is not False:
        image = tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)
        x1, y1, x2, y2 = tf.unstack(boxes_xyxy, axis=1)
        turned = tf.stack([own[1] - 1 - x2, y1, own[1] - 1 - x1, y2], axis=1)
        boxes_xyxy = tf.where(mirrored, turned, boxes_xyxy)
    by = tf.tile(scale[::-1], [2])  # x, y, x, y
    boxes_xyxy = boxes.within_edges(boxes.edges(boxes_xyxy) * by)
    return {"image": image, **found, "boxes_xyxy": boxes_xyxy, "labels": labels}


def _padded(examples, batch_size, drop_remainder=True):
    spec = examples.element_spec
    values = {name: tf.constant(OUTSIDE if name == "image" else 0, each.dtype) for name, each in spec.items()}
    return examples.padded_batch(batch_size, padding_values=values, drop_remainder=drop_remainder).map(to_multiples)


def to_multiples(batch):
    """Returns a batch whose pictures `[B, H, W, 3]` are padded to sides that fit the networks' strides."""
    sides = tf.shape(batch["image"])[1:3]
    missing = padded_side(sides, MULTIPLE) - sides
    margins = [[0, 0], [0, missing[0]], [0, missing[1]], [0, 0]]
    return {**batch, "image": tf.pad(batch["image"], margins, constant_values=OUTSIDE)}


def _learned_boxes(pictures, row, with_difficult):
    corners, labels, difficult = pictures.boxes(row)
    learned = np.ones_like(difficult) if with_difficult else ~difficult
    return corners[learned], labels[learned]


def _named(pictures, rows, error):
    """The UserError for a picture among `rows` that cannot be decoded."""
    for row in rows:
        try:
            reason = decoding.problem(pictures.read(row))
        except OSError as failed:
            reason = failed.strerror
        if reason:
            return UserError(f"{pictures.pictures[row].image}: {reason}; mend it, then the same command goes on")
    return error
