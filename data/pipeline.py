"""The batch contract: `{"image": [B, S, S, 3] float32 in [0, 1], "index": [B] int64, "label": [B] int64}`.

Step s of a run belongs to epoch s // (N // batch_size); an epoch's order and a picture's random numbers are functions
of (seed, epoch) and (seed, epoch, index, view).  So a batch is a function of (seed, step), whatever the number of
workers and wherever the run was resumed, and no state has to be saved.
"""

import numpy as np
import tensorflow as tf

from data import augment, draws
from data.augmentation import Augmentation
from data.errors import FlagError
from data.reading import decode_and_crop, name_broken, pictures_in_memory, reader, resize
from data.sources import Split

# Nothing in here needs AutoGraph, whose conversion would cost a second at every start.
_as_it_is = tf.autograph.experimental.do_not_convert


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Steps of an epoch, its remainder dropped; raises FlagError where not even one batch can be filled."""
    if batch_size > split.size:
        raise FlagError(f"--batch_size={batch_size}: larger than the {split.size} pictures of {split}")
    return split.size // batch_size


def batch_rows(split: Split, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Rows of the pictures of step `step` of a run, in the order of the batch: [B] int64."""
    epoch, place = divmod(step, steps_per_epoch(split, batch_size))
    return draws.epoch_order_numpy(seed, epoch, split.size)[place * batch_size : (place + 1) * batch_size]


def training_batches(
    split: Split,
    augmentation: Augmentation,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Batches of steps `first_step`, `first_step` + 1, ... without end.

    `shard` (i, n): this pipeline gives part i of n of each batch, B = batch_size / n.  `workers` 0: automatic.
    Raises FlagError for a batch that does not fit; a picture that cannot be decoded raises tf.errors.OpError at its
    step, for which `name_culprit` finds the name.
    """
    per_epoch = steps_per_epoch(split, batch_size)
    part = _part(batch_size, shard)
    first_epoch, first_place = divmod(first_step, per_epoch)

    @_as_it_is
    def epoch_steps(epoch):
        order = draws.epoch_order(seed, epoch, split.size)[: per_epoch * batch_size]
        rows = tf.reshape(order, [per_epoch, batch_size])[:, part]
        return tf.data.Dataset.from_tensor_slices((tf.fill([per_epoch], epoch), rows))

    @_as_it_is
    def with_draws(epoch, rows):
        return rows, draws.uniforms(seed, epoch, rows, 0, augment.Draw.COUNT)

    with tf.device("/CPU:0"):
        steps = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max).flat_map(epoch_steps).skip(first_place)
        # The order of the next epoch of a million pictures takes a quarter of a second: found while these are used.
        steps = steps.prefetch(8)
        pictures = pictures_in_memory(split, augmentation.image_size)
        if pictures is None:

            def boxes(numbers):
                return lambda heights, widths: augment.training_boxes(numbers, heights, widths, augmentation)

            def view(data, numbers):
                picture = _cut(data, boxes(numbers), augmentation.image_size)
                mirrored = augment.training_flips(numbers, augmentation)[0]
                picture = tf.cond(mirrored, lambda: tf.reverse(picture, [2]), lambda: picture)
                return augment.finish(picture, numbers, augmentation)

            batches = _streamed(split, steps.map(with_draws), view, part.stop - part.start, True, workers)
        else:

            @_as_it_is
            def batch(epoch, rows):
                rows, numbers = with_draws(epoch, rows)
                return augment.training_view(_from_memory(pictures, rows), numbers, augmentation), rows

            batches = steps.map(batch, num_parallel_calls=workers or tf.data.AUTOTUNE)
        return _labelled(batches, split)


def evaluation_batches(
    split: Split, image_size: int, batch_size: int, rows: np.ndarray | None = None, workers: int = 0
) -> tf.data.Dataset:
    """Central views of `rows` (None: all) in that order, once; the last batch may be smaller.

    A picture that cannot be decoded raises tf.errors.OpError; `data.reading.name_broken` finds its name.
    """
    with tf.device("/CPU:0"):
        rows = tf.range(split.size, dtype=tf.int64) if rows is None else tf.constant(rows, tf.int64)
        steps = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size)
        pictures = pictures_in_memory(split, image_size)
        if pictures is None:

            def boxes(heights, widths):
                return augment.central_boxes(heights, widths, image_size)

            def view(data, _):
                return _cut(data, boxes, image_size)

            numbered = steps.map(_as_it_is(lambda rows: (rows, tf.zeros([tf.size(rows), 1]))))
            batches = _streamed(split, numbered, view, batch_size, False, workers)
        else:

            @_as_it_is
            def batch(rows):
                return augment.evaluation_view(_from_memory(pictures, rows), split.kind, image_size), rows

            batches = steps.map(batch, num_parallel_calls=workers or tf.data.AUTOTUNE)
        return _labelled(batches, split)


def name_culprit(
    split: Split, batch_size: int, seed: int, step: int, steps: int = 1, shard: tuple[int, int] = (0, 1)
) -> None:
    """After a reading error in `step` (or one of `steps` from there on): raises UserError naming the broken picture.

    Returns if all of them can be decoded: then the error had another cause.
    """
    for each in range(step, step + steps):
        name_broken(split, batch_rows(split, batch_size, seed, each)[_part(batch_size, shard)])


def _part(batch_size, shard):
    index, count = shard
    if batch_size % count:
        raise FlagError(f"--batch_size={batch_size}: cannot be split evenly over {count} input pipelines")
    size = batch_size // count
    return slice(index * size, (index + 1) * size)


def _from_memory(pictures, rows):
    return tf.cast(tf.gather(pictures, rows), tf.float32) / 255


def _cut(data, boxes, size):
    """What `boxes` cuts out of one encoded picture, as a batch of one in [0, 1]: [1, S, S, 3]."""
    view = resize(decode_and_crop(data, boxes), size, size)[None] / 255
    return tf.minimum(view, 1)  # averages are off by rounding errors


def _streamed(split, steps, view, batch_size, full_batches, workers):
    """Batches of (views, rows) for steps of (rows [B], numbers [B, n]): read, decoded and cut picture by picture.

    Colour too is changed one picture at a time: it stays in the processor's cache, which a batch of 224 px does not.
    """
    parallel = workers or tf.data.AUTOTUNE
    locate, read = reader(split)

    @_as_it_is
    def located(rows, numbers):
        return locate(rows), rows, numbers

    @_as_it_is
    def viewed(handle, row, numbers):
        return view(read(handle), numbers[None])[0], row

    pictures = steps.map(located, num_parallel_calls=parallel).unbatch()
    return pictures.map(viewed, num_parallel_calls=parallel).batch(batch_size, drop_remainder=full_batches)


def _labelled(batches, split):
    labels = tf.constant(split.labels)

    @_as_it_is
    def labelled(image, rows):
        return {"image": image, "index": rows, "label": tf.gather(labels, rows)}

    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF  # see `shard`
    return batches.map(labelled).prefetch(2).with_options(options)
