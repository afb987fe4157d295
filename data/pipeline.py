"""The batch contract: `{"image": [B, S, S, 3] float32 in [0, 1], "index", "label": [B] int64, "valid": [B] bool}`.

Several views of a picture come as `views`, a tuple of [B, s, s, 3] whose first is `image`.  A picture that cannot be
read is replaced by another of its batch, and `valid` is False there; `index` and `label` stay its own.

Step s of a run belongs to epoch s // (N // batch_size); an epoch's order and a picture's random numbers are functions
of (seed, epoch) and (seed, epoch, index, view).  So a batch is a function of (seed, step), whatever the number of
workers and wherever the run was resumed, and no state has to be saved.  That is exact for every source there is, since
all of them read any row at any time: arrays, files, and records by their offsets.  What it costs is that records are
not read in the order of the file, which solid-state disks and parallel file systems do not mind.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from data import augment, decoding, draws
from data.augmentation import Augmentation
from data.errors import FlagError
from data.processors import cores
from data.reading import pictures_in_memory, readable, resize, small_pictures, small_size, steady
from data.sources import Split

BATCHES_FROM_MEMORY = 16  # made at once, at most: each call keeps a whole batch
# Nothing in here needs AutoGraph, whose conversion would cost a second at every start.
_as_it_is = tf.autograph.experimental.do_not_convert


def steps_per_epoch(split: Split, batch_size: int, size: int | None = None) -> int:
    """Steps of an epoch of `size` pictures (None: of the whole split), its remainder dropped.

    Raises FlagError where not even one batch can be filled.
    """
    size = split.size if size is None else size
    if batch_size > size:
        raise FlagError(f"--batch_size={batch_size}: larger than the {size} pictures of {split}")
    return size // batch_size


def batch_rows(split: Split, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Rows of the pictures of step `step` of a run, in the order of the batch: [B] int64."""
    epoch, place = divmod(step, steps_per_epoch(split, batch_size))
    return draws.epoch_order_numpy(seed, epoch, split.size)[place * batch_size : (place + 1) * batch_size]


def training_batches(
    split: Split,
    views: Augmentation | Sequence[Augmentation],
    batch_size: int,
    seed: int,
    first_step: int = 0,
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
    epoch_rows: np.ndarray | None = None,
    rows: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Batches of steps `first_step`, `first_step` + 1, ... without end.

    `views`: how a picture is changed; several of them make a batch with `views`.  `shard` (i, n): this pipeline gives
    part i of n of each batch, B = batch_size / n.  `workers` 0: automatic.  `rows` [n]: those of the split that there
    are, in every epoch; n takes the place of N.  `epoch_rows` [N]: the rows of the epoch that `first_step` lies in, in
    their order and as often as they come; its batches are all there are.  Raises FlagError for a batch that does not
    fit.
    """
    size = split.size if rows is None else len(rows)
    per_epoch = steps_per_epoch(split, batch_size, size)
    part = _part(batch_size, shard)
    first_epoch, first_place = divmod(first_step, per_epoch)
    if epoch_rows is not None:
        chosen = np.asarray(epoch_rows, np.int64)[: per_epoch * batch_size]
        table = (chosen, occurrences(chosen))
        taken, turns = (part_of.reshape(per_epoch, batch_size)[first_place:, part] for part_of in table)
        with tf.device("/CPU:0"):
            steps = tf.data.Dataset.from_tensor_slices((np.full(len(taken), first_epoch), taken, turns))
            return _training_views(split, steps, views, seed, workers)

    @_as_it_is
    def epoch_steps(epoch):
        order = draws.epoch_order(seed, epoch, size)[: per_epoch * batch_size]
        order = order if rows is None else tf.gather(tf.constant(rows, tf.int64), order)
        taken = tf.reshape(order, [per_epoch, batch_size])[:, part]
        return tf.data.Dataset.from_tensor_slices((tf.fill([per_epoch], epoch), taken))

    with tf.device("/CPU:0"):
        steps = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max).flat_map(epoch_steps).skip(first_place)
        # The order of the next epoch of a million pictures takes a quarter of a second: found while these are used.
        return _training_views(split, steps.prefetch(8), views, seed, workers)


def occurrences(rows: np.ndarray) -> np.ndarray:
    """For each of `rows` [n] how often it came before: [n] int64."""
    order = np.argsort(rows, kind="stable")
    starts = np.searchsorted(rows[order], rows[order])  # where the run of each row begins
    found = np.empty(len(rows), np.int64)
    found[order] = np.arange(len(rows)) - starts
    return found


def views_of(
    split: Split, rows: np.ndarray, views: Augmentation | Sequence[Augmentation], seed: int, epochs: int
) -> tf.data.Dataset:
    """What `training_batches` makes of `rows` [n] in the first epochs, in batches of n: one of each epoch."""
    rows = tf.constant(rows, tf.int64)
    with tf.device("/CPU:0"):
        return _training_views(split, tf.data.Dataset.range(epochs).map(lambda epoch: (epoch, rows)), views, seed, 0)


def evaluation_batches(
    split: Split,
    image_size: int,
    batch_size: int,
    rows: np.ndarray | None = None,
    workers: int = 0,
    ten_crop: bool = False,
) -> tf.data.Dataset:
    """Central views of `rows` (None: all) in that order, once; the last batch may be smaller.

    `ten_crop` adds `views`, ten: centre and corners, then the same mirrored.
    """

    def of_batch(pictures, _):
        if ten_crop:
            return augment.ten_crop_views(pictures, image_size)
        return (augment.evaluation_view(pictures, split.kind, image_size),)

    def of_one(data, _):
        if not ten_crop:
            return (central_view(data, image_size),)
        whole = decoding.decode(data)
        boxes = augment.ten_crop_boxes(*tf.unstack(tf.shape(whole)[:2, None]), image_size)
        views = [_plain(augment.cut_out(whole, lambda h, w, i=i: boxes[i]), image_size) for i in range(5)]
        return (*views, *(tf.reverse(view, [1]) for view in views))

    with tf.device("/CPU:0"):
        rows = tf.range(split.size, dtype=tf.int64) if rows is None else tf.constant(rows, tf.int64)
        steps = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size).map(lambda rows: (rows, ()))
        return _batches(split, steps, image_size, of_batch, of_one, ten_crop, workers)


def central_view(data, image_size: int):
    """What evaluation sees of one encoded picture, [S, S, 3]; raises tf.errors.OpError for what cannot be read."""
    boxes = lambda heights, widths: augment.central_boxes(heights, widths, image_size)  # noqa: E731
    return _plain(decoding.decode_and_crop(data, boxes), image_size)


def _part(batch_size, shard):
    index, count = shard
    if batch_size % count:
        raise FlagError(f"--batch_size={batch_size}: cannot be split evenly over {count} input pipelines")
    size = batch_size // count
    return slice(index * size, (index + 1) * size)


def _training_views(split, steps, views, seed, workers):
    """Batches of training views for `steps` of (epoch, rows [B]).

    Where a row comes several times in an epoch, a third part, how often it came before [B], gives each its own views.
    """
    several = not isinstance(views, Augmentation)
    augmentations = tuple(views) if several else (views,)
    image_size = max(augmentation.image_size for augmentation in augmentations)

    @_as_it_is
    def with_changes(epoch, rows, turns=None):
        first = 0 if turns is None else turns[:, None] * len(augmentations)
        numbers = [draws.uniforms(seed, epoch, rows, first + v, augment.Draw.COUNT) for v in range(len(augmentations))]
        return rows, tuple(map(augment.changes, numbers, augmentations))

    def of_batch(pictures, changes):
        return tuple(augment.training_view(pictures, *each) for each in zip(changes, augmentations, strict=True))

    def of_one(data, changes):
        if several:  # decoded once: the views overlap
            whole = decoding.decode(data)
            cut = lambda boxes: augment.cut_out(whole, boxes)  # noqa: E731
        else:
            cut = lambda boxes: decoding.decode_and_crop(data, boxes)  # noqa: E731
        return tuple(_training_view(cut, *each) for each in zip(changes, augmentations, strict=True))

    return _batches(split, steps.map(with_changes), image_size, of_batch, of_one, several, workers)


def _batches(split, steps, image_size, of_batch, of_one, several, workers):
    """Batches for `steps` of (rows [B], numbers), either way: `of_batch(pictures uint8 [B, H, W, 3], numbers)` for
    small pictures of one size, `of_one(data, numbers)` for the others; both give a tuple of views."""
    labels = tf.constant(split.labels)
    memory = pictures_in_memory(split, image_size)
    size = small_size(split, image_size)

    def contract(views, rows, valid):
        batch = {"image": views[0], "index": rows, "label": tf.gather(labels, rows), "valid": valid}
        return batch | {"views": views} if several else batch

    if memory is not None:
        pictures, fine = memory

        @_as_it_is
        def batch(rows, numbers):
            valid = tf.gather(fine, rows)
            first = tf.gather(rows, tf.argmax(valid))
            return contract(of_batch(tf.gather(pictures, tf.where(valid, rows, first)), numbers), rows, valid)

        batches = steps.map(batch, num_parallel_calls=workers or min(cores(), BATCHES_FROM_MEMORY))
    elif size is not None:

        @_as_it_is
        def finish(pictures, valid, rows, numbers):
            return contract(of_batch(pictures, numbers), rows, valid)

        batches = small_pictures(split, steps, *size, finish, workers)
    else:

        @_as_it_is
        def finish(views, valid, rows, _):
            return contract(views, rows, valid)

        # Colour too is changed one picture at a time: it stays in the processor's cache, which a batch of 224 px
        # does not.
        batches = readable(split, steps, of_one, finish, workers)
    return steady(batches)


def _training_view(cut, change, augmentation):
    """One training view, [S, S, 3], of the picture that `cut(boxes)` takes a part of."""
    size = augmentation.image_size
    change = tf.nest.map_structure(lambda part: part[None], change)  # a batch of one
    view = resize(
        cut(lambda heights, widths: augment.training_boxes(change, heights, widths, augmentation)), size, size
    )
    view = tf.cond(change.mirrored[0], lambda: tf.reverse(view, [1]), lambda: view)
    return augment.finish(view[None], change, augmentation)[0]


def _plain(picture, size):
    return tf.minimum(resize(picture, size, size) / 255, 1)  # averages are off by rounding errors
