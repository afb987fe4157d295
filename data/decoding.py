"""From the bytes of one picture file to pixels, as TensorFlow operations.

JPEG (grey, CMYK and YCCK too), PNG (any depth; transparency is ignored), GIF (the first frame), WebP and BMP (24 or 32
bit) are told by their first bytes, whatever the file is called.  A JPEG that carries an EXIF orientation is turned
upright, so that every reader of this project sees what the photographer saw; the tag is looked for in the first
kilobyte, and not in other formats.

No picture of more than `pixel_limit.MOST_PIXELS` is decoded: the head of its file says how many it has. Nor are the
frames of a GIF behind the first.
"""

import functools

import numpy as np
import tensorflow as tf

from data.pixel_limit import MOST_PIXELS, TOO_MANY

_JPEG, _END_OF_JPEG = b"\xff\xd8\xff", b"\xff\xd9"
_EXIF, _EXIF_WITHIN = b"Exif\x00\x00", 1024  # bytes from the start: cameras and editors write it among the first
_ORIENTATION_TAG = 0x0112
_ENTRIES = 40  # of the directory that are looked at
_TIFF = 20 + 2 + _ENTRIES * 12  # bytes

_PNG = np.array([0x89504E47 - 2**32, 0x0D0A1A0A, 13, 0x49484452])  # its first words: signature, length of IHDR, IHDR
_BYTES_OF_PNG = 24  # bytes, to the end of width and height

# Where BMP and WebP say how large they are: what they begin with ("?": anything); where width and height are, as place
# and number of bytes, the lowest first.
_HEAD = 32  # bytes
_SIDES = (
    (b"BM", (18, 4), (22, 4)),
    (b"RIFF????WEBPVP8 ", (26, 2), (28, 2)),
    (b"RIFF????WEBPVP8X", (24, 3), (27, 3)),
    (b"RIFF????WEBPVP8L", (21, 4), (21, 4)),
)
_ANY = ord("?")
_MAGIC = np.array([[*begin.ljust(_HEAD, b"?")] for begin, *_ in _SIDES])
_WEIGHTS = np.array(  # of which the sum of the products with the bytes is width or height: [4, 2, _HEAD]
    [
        [[256 ** (i - first) if first <= i < first + count else 0 for i in range(_HEAD)] for first, count in places]
        for _, *places in _SIDES
    ]
)

_GIF, _END_OF_GIF = b"GIF8", b";"
_STEPS_OF_GIF = 20_000  # runs of blocks of one length before the end of the first frame: programs write one or two
_LONGEST_RUN = 4096  # blocks that are looked at in one of them


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

    def another():
        return tf.cond(is_jpeg, lambda: _jpeg(data, boxes), _apart(lambda: _other(data, boxes)))

    picture = tf.cond(plain, plain_jpeg, _apart(another))
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
    try:
        width, height = _declared()(tf.constant(data)).numpy().tolist()
        if width * height > MOST_PIXELS:
            return f"has {width:,} x {height:,} pixels, more {TOO_MANY}"
    except tf.errors.OpError:  # it does not say
        pass
    known = (_JPEG, b"\x89PNG", b"GIF8", b"RIFF")
    if head.startswith(known) and not (head[8:16] == b"WEBPVP8X" and b"ANIM" in head):
        return "is cut short or damaged"
    return "is damaged, or of a format that is not read (only JPEG, PNG, GIF, still WebP and BMP of 24 or 32 bit are)"


@functools.cache
def _shape():
    """`decode`, compiled once: one picture after the other is named without being traced anew."""
    signature = [tf.TensorSpec([], tf.string)]
    return tf.function(lambda data: tf.shape(decode(data)), input_signature=signature, autograph=False)


@functools.cache
def _declared():
    """(width, height) that a picture says it has, int64 [2], compiled once; raises tf.errors.OpError."""

    def sides(data):
        jpeg = lambda: tf.cast(tf.io.extract_jpeg_shape(data)[1::-1], tf.int64)  # noqa: E731
        other = lambda: _with_sides(data, lambda _, sides: tf.cast(sides, tf.int64))  # noqa: E731
        return tf.cond(tf.strings.substr(data, 0, 3) == _JPEG, jpeg, other)

    return tf.function(sides, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def _apart(branch):
    """A branch of which one operation stands in the graph: each one of those not taken would cost time."""
    return tf.function(branch, experimental_attributes={"_noinline": True}, autograph=False)


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
    octets = tf.io.decode_raw(tf.strings.substr(data, start, _TIFF), tf.uint8, fixed_length=_TIFF)
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
    """What is no JPEG. Pixels are counted before they are decoded: TensorFlow does so for JPEG alone."""

    def image(data, sides):
        with tf.control_dependencies([_allowed(sides)]):
            picture = tf.io.decode_image(data, channels=3, expand_animations=False)
        shape = tf.shape(picture)
        return _cut(picture, boxes(shape[0][None], shape[1][None])[0])

    return _with_sides(data, image)


def _with_sides(data, image):
    """`image(data, sides)` of what is no JPEG; sides: width and height as the file has them, integers [2]."""
    size = _BYTES_OF_PNG
    head = tf.io.decode_raw(tf.strings.substr(data, 0, size), tf.int32, fixed_length=size, little_endian=False)
    is_png = tf.reduce_all(head[:4] == _PNG)

    def another():
        is_gif = tf.strings.substr(data, 0, 4) == _GIF
        return tf.cond(is_gif, _apart(lambda: image(*_still(data))), lambda: image(data, _sides(data)))

    return tf.cond(is_png, lambda: image(data, head[4:]), _apart(another))


def _allowed(sides):
    """Fails for no pixels and for more than MOST_PIXELS; sides: width and height [2], integers."""
    pixels = tf.reduce_prod(tf.cast(sides, tf.int64))
    return tf.raw_ops.Assert(condition=(pixels > 0) & (pixels <= MOST_PIXELS), data=["no size, or too large a one"])


def _sides(data):
    """(width, height) of a BMP or WebP by its first bytes, int64 [2]; zeros for what is neither.

    TensorFlow's decoder takes the numbers of a palette BMP for grey values: zeros for those below 24 bit too.
    """
    head = tf.io.decode_raw(tf.strings.substr(data, 0, _HEAD), tf.uint8, fixed_length=_HEAD)
    head = tf.cast(head, tf.int64)
    bmp, lossy, extended, lossless = tf.unstack(tf.reduce_sum(head * _WEIGHTS, axis=2))
    sides = tf.stack(
        [
            tf.where(
                head[28] < 24, tf.zeros_like(bmp), tf.minimum(bmp, 2**32 - bmp)
            ),  # a negative height: the lowest row is the last
            lossy % 2**14,  # the two bits above are advice to whoever shows the picture
            extended + 1,
            lossless // [1, 2**14] % 2**14 + 1,
        ]
    )
    is_it = tf.reduce_all((head == _MAGIC) | (_MAGIC == _ANY), axis=1)
    return tf.reduce_max(tf.where(is_it[:, None], sides, 0), axis=0)


def _still(data):
    """A GIF up to the end of its first frame, and the (width, height) of that frame, int64 [2].

    TensorFlow decodes whatever frames there are, each as large as it says it is, even where it gives only the first.
    Raises tf.errors.OpError where the first one is not whole.
    """
    octets = tf.io.decode_raw(data, tf.uint8)
    at = lambda place: tf.cast(octets[place], tf.int32)  # noqa: E731
    table = lambda packed: tf.where(packed >= 128, 3 * 2 ** (packed % 8 + 1), 0)  # noqa: E731  bytes of colours

    def entered(place):
        """(where the blocks are of the frame or extension that begins at `place`, where the frame begins or 0)."""
        is_frame = at(place) == ord(",")
        with tf.control_dependencies([tf.debugging.Assert(is_frame | (at(place) == ord("!")), ["no frame"])]):
            more = tf.cond(is_frame, lambda: 9 + table(at(place + 9)), lambda: 0)
        return place + 2 + more, tf.where(is_frame, place, 0)

    def goes_on(place, frame):
        return (frame == 0) | (at(place) > 0)

    def passed(place, frame):
        """Behind all blocks of one length that follow each other, or behind the empty one that ends an extension."""
        length = at(place)

        def run():
            lengths = octets[place : place + _LONGEST_RUN * (length + 1) : length + 1]
            others = tf.concat([lengths != tf.cast(length, tf.uint8), [True]], 0)
            return place + (length + 1) * tf.argmax(tf.cast(others, tf.int8), output_type=tf.int32), frame

        return tf.cond(length > 0, run, lambda: entered(place + 1))

    begin = entered(13 + table(at(10)))
    end, frame = tf.while_loop(goes_on, passed, begin, maximum_iterations=_STEPS_OF_GIF)
    with tf.control_dependencies([tf.debugging.Assert(~goes_on(end, frame), ["no end of the first frame"])]):
        numbers = tf.cast(tf.reshape(octets[frame + 5 : frame + 9], [2, 2]), tf.int64)
    still = tf.strings.join([tf.strings.substr(data, 0, end + 1), _END_OF_GIF])
    return still, tf.reduce_sum(numbers * [1, 256], axis=1)


def _cut(picture, box):
    top, left, height, width = tf.unstack(box)
    return picture[top : top + height, left : left + width]
