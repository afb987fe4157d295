"""From the bytes of one picture file to pixels, as TensorFlow operations.

JPEG (grey, CMYK and YCCK too), PNG (any depth; transparency is ignored), GIF (the first frame), WebP and BMP (24 or 32
bit) are told by their first bytes, whatever the file is called.  A JPEG that carries an EXIF orientation is turned
upright, so that every reader of this project sees what the photographer saw; the tag is looked for in the first
kilobyte, and not in other formats.
"""

import functools

import tensorflow as tf

_JPEG, _END_OF_JPEG = b"\xff\xd8\xff", b"\xff\xd9"
_EXIF, _EXIF_WITHIN = b"Exif\x00\x00", 1024  # bytes from the start: cameras and editors write it among the first
_ORIENTATION_TAG = 0x0112
_ENTRIES = 40  # of the directory that are looked at
_HEADER = 20 + 2 + _ENTRIES * 12  # bytes


def decode(data):
    """The whole picture: [h, w, 3] uint8; raises tf.errors.OpError for anything that is no whole picture."""
    return decode_and_crop(data, _whole)


def decode_and_crop(data, boxes):
    """The part of one picture that `boxes(heights [1], widths [1])`, int32 [1, 4], cuts out: [h, w, 3] uint8.

    Heights and widths are those of the upright picture.  JPEG is decoded only where the box is.
    """
    is_jpeg = tf.strings.substr(data, 0, 3) == _JPEG
    # A JPEG that is cut short decodes without complaint where the box ends above the cut: it has to end as it should.
    plain = is_jpeg & _ends_as_jpeg(data) & ~_is_exif(data)

    def plain_jpeg():
        sides = tf.io.extract_jpeg_shape(data)[:2]
        return tf.io.decode_and_crop_jpeg(data, boxes(sides[:1], sides[1:])[0], channels=3)

    # In a graph every operation of the branch that is not taken costs time: this way that is only one.
    @tf.function(experimental_attributes={"_noinline": True}, autograph=False)
    def another():
        return tf.cond(is_jpeg, lambda: _jpeg(data, boxes), lambda: _other(data, boxes))

    picture = tf.cond(plain, plain_jpeg, another)
    return tf.ensure_shape(picture, [None, None, 3])


def problem(data: bytes) -> str | None:
    """Says in a few words why a picture cannot be decoded; None if it can."""
    try:
        _shape()(tf.constant(data))
        return None
    except tf.errors.OpError:
        return reason(data)


def reason(data: bytes) -> str:
    """Says in a few words what is the matter with bytes that could not be decoded."""
    head = data[:64]
    if not data:
        return "is empty (0 bytes)"
    if all(32 <= byte < 127 or byte in b"\t\n\r" for byte in head):
        return f"is not a picture but text ({head[:16].decode()!r}...)"
    known = (_JPEG, b"\x89PNG", b"GIF8", b"RIFF")
    if head.startswith(known) and not (head[8:16] == b"WEBPVP8X" and b"ANIM" in head):
        return "is cut short or damaged"
    return "is damaged, or of a format that is not read (only JPEG, PNG, GIF, still WebP and BMP of 24 or 32 bit are)"


@functools.cache
def _shape():
    """`decode`, compiled once: one picture after the other is named without being traced anew."""
    signature = [tf.TensorSpec([], tf.string)]
    return tf.function(lambda data: tf.shape(decode(data)), input_signature=signature, autograph=False)


def _whole(heights, widths):
    return tf.stack([tf.zeros_like(heights), tf.zeros_like(widths), heights, widths], axis=1)


def _jpeg(data, boxes):
    tag = tf.cond(_is_exif(data), lambda: _orientation(data), lambda: 0)
    sides = tf.io.extract_jpeg_shape(data)[:2]
    sides = tf.where(tag >= 5, sides[::-1], sides)
    box = boxes(sides[:1], sides[1:])[0]
    box = tf.cond(tag > 1, lambda: _stored_box(box, sides, tag), lambda: box)
    # One that does not end as it should is decoded whole: that fails if pixels are missing, and not if something was
    # merely appended.
    picture = tf.cond(
        _ends_as_jpeg(data),
        lambda: tf.io.decode_and_crop_jpeg(data, box, channels=3),
        lambda: _cut(tf.io.decode_jpeg(data, channels=3), box),
    )
    return tf.cond(tag > 1, lambda: _turned(picture, tag), lambda: picture)


# A place beyond the end of `data` would be an error, whose message quotes the data: Python trips over such a message.


def _is_exif(data):
    return tf.strings.regex_full_match(tf.strings.substr(data, 0, _EXIF_WITHIN), r"\C*Exif\x00\x00\C*")


def _ends_as_jpeg(data):
    return tf.strings.substr(data, tf.maximum(tf.strings.length(data) - 2, 0), 2) == _END_OF_JPEG


# Orientation 2 to 8: the upright picture is the stored one transposed (5 to 8), then mirrored, then overturned.


def _stored_box(box, sides, tag):
    """Where in the stored picture a box of the upright one, of `sides` (height, width), lies."""
    top, left, height, width = tf.unstack(box)
    top = tf.where(_overturned(tag), sides[0] - top - height, top)
    left = tf.where(_mirrored(tag), sides[1] - left - width, left)
    return tf.where(tag >= 5, [left, top, width, height], [top, left, height, width])


def _turned(picture, tag):
    picture = tf.cond(tag >= 5, lambda: tf.transpose(picture, [1, 0, 2]), lambda: picture)
    axes = tf.stack([_overturned(tag), _mirrored(tag), False])
    return tf.raw_ops.Reverse(tensor=picture, dims=axes)


def _mirrored(tag):
    return tf.reduce_any(tag == [2, 3, 6, 7])


def _overturned(tag):
    return tf.reduce_any(tag == [3, 4, 7, 8])


def _orientation(data):
    """The EXIF tag that tells how to turn the picture, 1 to 8; 0 where the TIFF header after the word gives none.

    It is looked for among the first entries of the first directory, which by all habits follows the header at once.
    """
    head = tf.io.decode_raw(tf.strings.substr(data, 0, _EXIF_WITHIN), tf.uint8, fixed_length=_EXIF_WITHIN)
    is_here = tf.reduce_all(tf.signal.frame(head, len(_EXIF), 1) == list(_EXIF), axis=1)
    start = tf.argmax(is_here, output_type=tf.int32) + len(_EXIF)
    octets = tf.io.decode_raw(tf.strings.substr(data, start, _HEADER), tf.uint8, fixed_length=_HEADER)
    octets = tf.cast(octets, tf.int32)
    weights = tf.where(octets[0] == ord("I"), [1, 256], [256, 1])  # II: little endian, MM: big endian
    directory = tf.minimum(
        tf.reduce_sum(octets[4:8] * tf.where(octets[0] == ord("I"), [1, 256, 0, 0], [0, 0, 256, 1])), 20
    )
    entries = octets[directory + 2 :][: _ENTRIES * 12]
    entries = tf.reshape(entries, [_ENTRIES, 6, 2])  # of 12 bytes: tag (2), type (2), count (4), value (4)
    entries = tf.reduce_sum(entries * weights, axis=2)
    count = tf.reduce_sum(octets[directory : directory + 2] * weights)
    is_it = (entries[:, 0] == _ORIENTATION_TAG) & (tf.range(_ENTRIES) < count)
    tag = tf.reduce_max(tf.where(is_it, entries[:, 4], 0))
    return tf.where(tag <= 8, tag, 0)


def _other(data, boxes):
    """TensorFlow's decoder takes the numbers of a palette BMP for grey values: BMPs below 24 bit are refused."""
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, 32), tf.uint8, fixed_length=32), tf.int32)
    is_palette = (head[0] == ord("B")) & (head[1] == ord("M")) & (head[28] < 24)
    with tf.control_dependencies([tf.debugging.Assert(~is_palette, ["a BMP below 24 bit"])]):
        picture = tf.io.decode_image(data, channels=3, expand_animations=False)  # of a GIF the first frame
    shape = tf.shape(picture)
    return _cut(picture, boxes(shape[0][None], shape[1][None])[0])


def _cut(picture, box):
    top, left, height, width = tf.unstack(box)
    return picture[top : top + height, left : left + width]
