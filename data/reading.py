"""From rows to decoded pictures: out of memory for small ones, else from file or record, cut while decoding."""

import weakref

import numpy as np
import tensorflow as tf

from data.augment import whole_boxes
from data.errors import UserError
from data.sources import SMALL, ArraySource, FileSource, Split

MEMORY = 2**30  # bytes of decoded pictures that a split may take
_JPEG = b"\xff\xd8\xff"
_decoded = weakref.WeakKeyDictionary()  # Split -> its pictures, uint8 [N, H, W, 3]


def pictures_in_memory(split: Split, image_size: int):
    """All pictures, uint8 [N, H, W, 3], if views are at most 64 px, pictures small and of one size; else None.

    Decodes them in parallel at the first call.  A stray of another size is resized.  Raises UserError naming a
    picture that cannot be decoded.
    """
    size = split.common_size if image_size <= SMALL else None
    if isinstance(split.source, ArraySource):
        size = split.source.pictures.shape[1:3]
    if size is None or split.size * size[0] * size[1] * 3 > MEMORY:
        return None
    if split not in _decoded:
        with tf.device("/CPU:0"):
            if isinstance(split.source, ArraySource):
                _decoded[split] = tf.constant(split.source.pictures)
            else:
                _decoded[split] = tf.constant(_decode_all(split, *size))
    return _decoded[split]


def _decode_all(split, height, width):
    locate, read = reader(split)

    def decode(handle):
        picture = decode_and_crop(read(handle), whole_boxes)
        fits = tf.reduce_all(tf.shape(picture)[:2] == [height, width])
        stretched = lambda: tf.cast(tf.round(resize(picture, height, width)), tf.uint8)  # noqa: E731
        return tf.ensure_shape(tf.cond(fits, lambda: picture, stretched), [height, width, 3])

    batches = tf.data.Dataset.range(split.size).batch(256).map(locate).unbatch()
    batches = batches.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(256).prefetch(2)
    pictures = np.empty([split.size, height, width, 3], np.uint8)
    start = 0
    try:
        for batch in batches:
            pictures[start : start + len(batch)] = batch
            start += len(batch)
    except tf.errors.OpError:
        name_broken(split, range(start, split.size))
        raise
    return pictures


def reader(split: Split):
    """(locate, read): `read(handle)` gives one encoded picture, for each of the handles [B] = `locate(rows [B])`.

    Both are TensorFlow operations alone: a pipeline that calls Python now and then hangs when the program ends.
    """
    source = split.source
    if isinstance(source, FileSource):
        paths = tf.constant(source.paths())
        return (lambda rows: tf.gather(paths, rows)), tf.io.read_file
    shards = tf.constant(source.shards)
    places = tf.constant(source.places())

    def read(place):
        shard, position, begin, length = tf.unstack(place)
        record = _record_at(shards[shard], position)
        return tf.strings.substr(record, begin, length)

    return (lambda rows: tf.gather(places, rows)), read


def _record_at(path, position):
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


def decode_and_crop(data, boxes):
    """The part of one encoded picture that `boxes(heights [1], widths [1])` cuts out: [h, w, 3] uint8.

    JPEG is decoded only where the box is.
    """

    def jpeg():
        shape = tf.io.extract_jpeg_shape(data)
        box = boxes(shape[0][None], shape[1][None])[0]
        return tf.io.decode_and_crop_jpeg(data, box, channels=3)

    def other():
        picture = tf.io.decode_image(data, channels=3, expand_animations=False)
        shape = tf.shape(picture)
        top, left, height, width = tf.unstack(boxes(shape[0][None], shape[1][None])[0])
        return picture[top : top + height, left : left + width]

    picture = tf.cond(tf.strings.substr(data, 0, 3) == _JPEG, jpeg, other)
    return tf.ensure_shape(picture, [None, None, 3])


def resize(picture, height: int, width: int):
    """[h, w, 3] at another size, float32, values as they were.

    Area average (the authors' choice) to shrink: no aliasing, and faster than the antialiased bilinear filter.
    Bilinear to enlarge, where the area average would give blocks.
    """
    shape = tf.shape(picture)
    shrinks = shape[0] * shape[1] > height * width
    area = lambda: tf.image.resize(picture, [height, width], "area")  # noqa: E731
    bilinear = lambda: tf.image.resize(picture, [height, width], "bilinear")  # noqa: E731
    return tf.ensure_shape(tf.cond(shrinks, area, bilinear), [height, width, 3])


def name_broken(split: Split, rows) -> None:
    """Decodes pictures `rows` one by one and raises UserError naming the first that fails; returns if none does."""
    if isinstance(split.source, ArraySource):
        return
    locate, read = reader(split)
    for row in rows:
        where = split.source.locate(row)
        try:
            data = split.source.read(row)
        except OSError as error:
            raise UserError(f"{where}: cannot be read: {error.strerror}") from error
        try:
            decode_and_crop(read(locate(tf.constant([row]))[0]), whole_boxes)
        except tf.errors.DataLossError as error:
            raise UserError(f"{where}: is damaged (its checksum is wrong); replace the file") from error
        except tf.errors.OpError as error:
            raise UserError(f"{where}: {_reason(data)}; replace or remove it") from error


def _reason(data):
    head = data[:64]
    if not head:
        return "is empty (0 bytes)"
    if all(32 <= byte < 127 or byte in b"\t\n\r" for byte in head):
        return f"is not a picture but text ({head[:16].decode()!r}...)"
    return "cannot be decoded as a picture (damaged, or of a format that TensorFlow does not read)"
