"""From rows to decoded pictures: out of memory for small ones, else from file or record, cut while decoding.

A picture that cannot be read stops nothing: it is left out of what `readable` gives, and whoever asked puts another in
its place and masks it.
"""

import os
import weakref

import numpy as np
import tensorflow as tf

from data import decoding
from data.processors import cores
from data.records import RecordSource
from data.sources import SMALL, ArraySource, FileSource, Split

# Bytes of decoded pictures that a split may take: an eighth of the memory there is.
MEMORY = max(2**30, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8)
LARGEST_BILINEAR_SHRINKAGE = 2.0
BATCHES_AT_ONCE = 4
_decoded = weakref.WeakKeyDictionary()  # Split -> (its pictures, uint8 [N, H, W, 3]; which are valid, bool [N])


def small_size(split: Split, image_size: int) -> tuple[int, int] | None:
    """(height, width) if views are at most 64 px, and pictures too and of one size: then batches are cut at once."""
    if isinstance(split.source, ArraySource):
        return split.source.pictures.shape[1:3]
    return split.common_size if image_size <= SMALL else None


def pictures_in_memory(split: Split, image_size: int):
    """All pictures, uint8 [N, H, W, 3], and which of them are valid, bool [N], where `small_size` has one and they
    take at most MEMORY; else None.

    Decodes them in parallel at the first call.  A stray of another size is resized.
    """
    size = small_size(split, image_size)
    if size is None or split.size * size[0] * size[1] * 3 > MEMORY:
        return None
    if split not in _decoded:
        with tf.device("/CPU:0"):
            if isinstance(split.source, ArraySource):
                _decoded[split] = tf.constant(split.source.pictures), tf.fill([split.size], True)
            else:
                _decoded[split] = tuple(map(tf.constant, _decode_all(split, *size)))
    return _decoded[split]


def _decode_all(split, height, width):
    pictures, valid = np.empty([split.size, height, width, 3], np.uint8), np.empty(split.size, bool)
    rows = tf.data.Dataset.range(split.size).batch(256)
    start = 0
    steps = rows.map(lambda rows: (rows, ()))
    finish = lambda pictures, valid, *_: (pictures, valid)  # noqa: E731
    for batch, fine in steady(small_pictures(split, steps, height, width, finish)):
        stop = start + len(fine)
        pictures[start:stop], valid[start:stop] = batch, fine
        start = stop
    return pictures, valid


def small_pictures(split: Split, steps: tf.data.Dataset, height: int, width: int, finish, workers: int = 0):
    """`readable` for whole pictures, uint8 [B, height, width, 3]."""

    def of_one(data, _):
        return stretched(decoding.decode(data), height, width)

    return readable(split, steps, of_one, finish, workers)


def stretched(picture, height: int, width: int):
    """A picture, uint8 [h, w, 3], at that size if it has another: uint8 [height, width, 3]."""
    fits = tf.reduce_all(tf.shape(picture)[:2] == [height, width])
    resized = lambda: tf.cast(tf.round(resize(picture, height, width)), tf.uint8)  # noqa: E731
    return tf.ensure_shape(tf.cond(fits, lambda: picture, resized), [height, width, 3])


def readable(split: Split, steps: tf.data.Dataset, view, finish, workers: int = 0):
    """`finish(views, valid [B] bool, rows [B], numbers)` for each step of `steps`, which gives (rows [B], numbers).

    `view(data, numbers)` makes a tensor, or a tuple of them, of one encoded picture and the numbers of its row (one
    slice of each tensor in `numbers`).  Where that fails, a view of the first valid picture of the batch stands in.
    The order is that of `steps`, whatever `workers` (0: all processors).
    """
    workers = workers or cores()
    # A batch is a small pipeline of its own, in which a picture can fail alone.
    outer = min(workers, BATCHES_AT_ONCE)
    inner = -(-workers // outer)
    locate, read = reader(split)

    def batch(rows, numbers):
        views, valid = each_slice(lambda handle, numbers: view(read(handle), numbers), (locate(rows), numbers), inner)
        return finish(views, valid, rows, numbers)

    return steps.map(tf.autograph.experimental.do_not_convert(batch), num_parallel_calls=outer)


def steady(batches: tf.data.Dataset) -> tf.data.Dataset:
    """`batches` in their order, two of them made ahead, on as many threads as the pipeline itself says."""
    options = _untuned()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF  # each cuts its part
    return batches.prefetch(2).with_options(options)


def _untuned():
    # Every number is given: nothing is left to TensorFlow's tuning. Its thread sleeps for up to a minute at a time and
    # can miss the end of the pipeline; whoever ends it would wait for that minute.
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    return options


def each_slice(function, arguments, parallel: int):
    """(what `function` makes of each slice of `arguments`, in batch; where it did not fail, [B] bool).

    Where it failed, the result of the first slice for which it did not stands in.  `parallel` slices at a time.
    """
    rows = tf.nest.flatten(arguments)[0].shape[:1]
    count = tf.shape(tf.nest.flatten(arguments)[0])[0]

    @tf.autograph.experimental.do_not_convert
    def numbered(place, slices):
        return place, function(*slices)

    results = tf.data.Dataset.from_tensor_slices((tf.range(count), arguments))
    results = results.map(numbered, num_parallel_calls=parallel if parallel > 1 else None)
    specs = results.element_spec
    nothing = tf.nest.map_structure(lambda spec: tf.zeros([0, *spec.shape], spec.dtype), specs)
    found = results.ignore_errors().batch(tf.maximum(tf.cast(count, tf.int64), 1))
    found = found.concatenate(tf.data.Dataset.from_tensors(nothing)).take(1).with_options(_untuned())
    places, found = found.get_single_element()
    fine = tf.scatter_nd(places[:, None], tf.fill([tf.size(places)], True), [count])
    found = tf.cond(tf.size(places) == count, lambda: found, lambda: _stood_in(found, fine))
    found = tf.nest.map_structure(lambda part: tf.ensure_shape(part, [*rows, *part.shape[1:]]), found)
    return found, tf.ensure_shape(fine, rows)


def _stood_in(views, valid):
    """Puts `views` of the valid places where they belong, the first of them (or blanks) into the others."""
    order = tf.where(valid, tf.cumsum(tf.cast(valid, tf.int32)) - 1, 0)
    blank = lambda part: tf.concat([part, tf.zeros([1, *part.shape[1:]], part.dtype)], 0)  # noqa: E731
    return tf.nest.map_structure(lambda part: tf.gather(blank(part), order), views)


def reader(split: Split):
    """(locate, read): `read(handle)` gives one encoded picture, for each of the handles [B] = `locate(rows [B])`.

    A picture in memory is encoded as a PNG, which keeps its pixels.  Both are TensorFlow operations alone: a pipeline
    that calls Python now and then hangs when the program ends.
    """
    source = split.source
    if isinstance(source, ArraySource):
        pictures = tf.constant(source.pictures)
        return (lambda rows: rows), lambda row: tf.io.encode_png(pictures[row])
    if isinstance(source, FileSource):
        # Names need not be UTF-8. What is no file, as a pipe, must not be opened: nothing lies below it either.
        whole = (path if size >= 0 else f"{path}/none" for path, size in zip(source.paths(), source.sizes, strict=True))
        paths = tf.constant([os.fsencode(path) for path in whole])
        return (lambda rows: tf.gather(paths, rows)), tf.io.read_file
    shards = tf.constant([os.fsencode(path) for path in source.shards])
    places = tf.constant(source.places())

    def read(place):
        shard, position, begin, length = tf.unstack(place)
        record = record_at(shards[shard], position)
        return tf.strings.substr(record, begin, length)

    return (lambda rows: tf.gather(places, rows)), read


def record_at(path, position):
    """The data of the TFRecord that starts at byte `position`; raises tf.errors.DataLossError for a wrong checksum."""
    signature = {"output_types": [tf.string], "output_shapes": [[]]}
    records = tf.raw_ops.TFRecordDatasetV2(
        filenames=path[None],
        compression_type="",
        buffer_size=tf.constant(0, tf.int64),  # header, then data: nothing is read in vain
        byte_offsets=position[None],
    )
    one = tf.raw_ops.TakeDataset(input_dataset=records, count=tf.constant(1, tf.int64), **signature)
    return tf.raw_ops.DatasetToSingleElement(dataset=one, **signature)[0]


def resize(picture, height: int, width: int):
    """[h, w, 3] at another size, float32, values as they were.

    Bilinear, which looks at every pixel down to half the size; the area average (the authors' choice, and slower)
    for what is shrunk more.
    """
    much = tf.reduce_any(tf.shape(picture)[:2] > [int(LARGEST_BILINEAR_SHRINKAGE * side) for side in (height, width)])
    area = lambda: tf.image.resize(picture, [height, width], "area")  # noqa: E731
    bilinear = lambda: tf.image.resize(picture, [height, width], "bilinear")  # noqa: E731
    return tf.ensure_shape(tf.cond(much, area, bilinear), [height, width, 3])


def problem(split: Split, row: int) -> str | None:
    """Says in a few words why picture `row` cannot be used; None if it can."""
    source = split.source
    if isinstance(source, ArraySource):
        return None
    try:
        data = source.read(row)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    try:
        if isinstance(source, RecordSource):  # whose checksum TensorFlow checks
            record_at(
                tf.constant(os.fsencode(source.shards[source.shard[row]])), tf.constant(source.position[row], tf.int64)
            )
    except tf.errors.DataLossError:
        return "is damaged: its checksum is wrong"
    except tf.errors.OpError as error:
        return f"cannot be read: {error.message.splitlines()[0]}"
    return decoding.problem(data)
