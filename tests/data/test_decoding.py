"""If these fail, pictures lie on their side, a broken one passes for whole, or a whole one is refused."""

import functools
import io
import struct
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from data import decoding
from data.decoding import problem
from data.pixel_limit import MOST_PIXELS
from tests.data.bombs import blocks, declared, gif, png
from tests.data.pictures import encoded, smooth
from tests.data.strange_pictures import PICTURE, bad, convertible, gray16, readable, saved
from tests.programs import ROOT, environment

HEIGHT, WIDTH = 40, 60
PIXELS = smooth(1, HEIGHT, WIDTH)
BOX = (3, 17, 20, 9)  # top, left, height, width: off every centre and axis


@functools.cache
def compiled():
    cut = lambda data, box: decoding.decode_and_crop(data, lambda heights, widths: box[None])  # noqa: E731
    text, box = tf.TensorSpec([], tf.string), tf.TensorSpec([4], tf.int32)
    return (
        tf.function(decoding.decode, [text], autograph=False),
        tf.function(cut, [text, box], autograph=False),
    )


def decoded(data):
    """The whole picture, as a pipeline decodes it."""
    return compiled()[0](tf.constant(data)).numpy()


def cropped(data, box=BOX):
    return compiled()[1](tf.constant(data), tf.constant(box, tf.int32)).numpy()


def part(pixels, box=BOX):
    top, left, height, width = box
    return pixels[top : top + height, left : left + width]


def assert_close(got, expected, tolerance):
    assert got.dtype == np.uint8 and got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).max() <= tolerance


# --- formats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form, options, tolerance",
    [
        ("png", {}, 0),
        ("bmp", {}, 0),
        ("webp", {"lossless": True}, 0),
        ("jpeg", {"quality": 95, "subsampling": 0}, 8),
        ("jpeg", {"quality": 95, "subsampling": 0, "progressive": True}, 8),
        ("gif", {}, 30),
    ],
)
def test_every_format_is_decoded_and_cropped(form, options, tolerance):
    data = encoded(PIXELS, form, **options)
    whole = decoded(data)
    assert_close(whole, PIXELS, tolerance)
    assert np.array_equal(cropped(data), part(whole))


@pytest.mark.parametrize("form", ["png", "jpeg", "gif", "webp"])
def test_grayscale_becomes_three_equal_channels(form):
    gray = PIXELS[..., 0]
    picture = decoded(encoded(gray, form))
    assert np.ptp(picture.astype(int), axis=-1).max() <= 2
    assert_close(picture[..., 0], gray, 30)


def test_cmyk_is_what_pillow_makes_of_it():
    data = saved(Image.fromarray(PIXELS).convert("CMYK"), "jpeg", quality=95)
    assert_close(decoded(data), PIXELS, 8)
    assert_close(cropped(data), part(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))), 3)


def test_ycck_is_worked_out_by_hand():
    # Stored are Y, Cb, Cr of 255 - ink of three colours turned over, and K: Pillow writes 255 - what it is given, and
    # in its Adobe segment the byte that says whether the first three are YCbCr.
    black = np.full([HEIGHT, WIDTH], 200, np.uint8)
    ycc = np.asarray(Image.fromarray(255 - PIXELS).convert("YCbCr"))
    data = bytearray(saved(Image.fromarray(255 - np.dstack([ycc, black]), "CMYK"), "jpeg", quality=95))
    transform = data.index(b"Adobe") + 11
    assert data[transform] == 0
    data[transform] = 2
    picture = decoded(bytes(data))
    assert_close(picture, np.round(PIXELS * (200 / 255)), 8)
    assert_close(picture, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), 6)


def test_sixteen_bits_become_the_eight_nearest():
    picture = decoded(saved(Image.fromarray(gray16()), "png"))
    assert_close(picture, np.repeat(np.round(gray16()[..., None] / 257), 3, axis=-1), 1)


def test_transparency_is_ignored():
    hidden = np.dstack([PIXELS, np.zeros([HEIGHT, WIDTH], np.uint8)])
    assert np.array_equal(decoded(encoded(hidden)), PIXELS)


def test_of_a_moving_gif_the_first_frame_is_seen():
    first = Image.fromarray(PIXELS).quantize(32)
    frames = [first, Image.fromarray(255 - PIXELS).quantize(32)]
    data = saved(first, "gif", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert np.array_equal(decoded(data), np.asarray(first.convert("RGB")))
    assert np.array_equal(cropped(data), part(np.asarray(first.convert("RGB"))))


# --- the EXIF orientation ------------------------------------------------------------------------------------------


def directory(tag, endian="<", before=3, place=8, count=None):
    """A TIFF header and a directory at `place` with the orientation after `before` other entries."""
    head = (b"II*\0" if endian == "<" else b"MM\0*") + struct.pack(endian + "I", place)
    entries = [struct.pack(endian + "HHII", 0x00E0 + i, 4, 1, 6 * i) for i in range(before)]
    entries.append(struct.pack(endian + "HHIHH", 0x0112, 3, 1, tag, 0))
    count = len(entries) if count is None else count
    return head.ljust(place, b"\0") + struct.pack(endian + "H", count) + b"".join(entries) + bytes(4)


def with_exif(jpeg, tiff, jfif="before"):
    """Puts an EXIF segment into a JPEG, whose JFIF segment goes before it, after it, or away."""
    start, header, rest = jpeg[:2], jpeg[2:20], jpeg[20:]
    assert header.startswith(b"\xff\xe0\0\x10JFIF")
    segment = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    around = {"before": header + segment, "after": segment + header, "none": segment}
    return start + around[jfif] + rest


# Without subsampling a pixel depends on no other block, so that a part is exactly the part of the whole.
UPRIGHT = encoded(PIXELS, "jpeg", quality=95, subsampling=0)


def transposed(data):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


@pytest.mark.parametrize("jfif", ["before", "after", "none"])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_a_jpeg_is_turned_as_its_exif_says(tag, endian, jfif):
    data = with_exif(UPRIGHT, directory(tag, endian), jfif)
    expected = transposed(data)
    assert expected.shape[:2] == ((WIDTH, HEIGHT) if tag >= 5 else (HEIGHT, WIDTH))
    whole = decoded(data)
    assert_close(whole, expected, 4)
    assert np.array_equal(cropped(data), part(whole))


def test_a_box_is_asked_for_in_the_upright_picture():
    seen = []

    def boxes(heights, widths):
        seen.append((heights.numpy().tolist(), widths.numpy().tolist()))
        return tf.constant([BOX])

    data = with_exif(UPRIGHT, directory(6))
    tf.config.run_functions_eagerly(True)
    try:
        picture = decoding.decode_and_crop(tf.constant(data), boxes).numpy()
    finally:
        tf.config.run_functions_eagerly(False)
    assert seen == [([WIDTH], [HEIGHT])]
    assert_close(picture, part(transposed(data)), 4)


@pytest.mark.parametrize("before, place", [(0, 8), (39, 8), (3, 20)])
def test_the_orientation_is_found_among_other_entries(before, place):
    data = with_exif(UPRIGHT, directory(6, ">", before, place))
    assert_close(decoded(data), transposed(data), 4)


@pytest.mark.parametrize("length, turned", [(5, True), (400, True), (1500, False)])
def test_the_orientation_is_found_behind_other_segments_within_a_kilobyte(length, turned):
    comment = b"\xff\xfe" + struct.pack(">H", length + 2) + b"x" * length
    data = with_exif(UPRIGHT, directory(6))
    data = data[:20] + comment + data[20:]  # behind JFIF
    assert decoded(data).shape[:2] == ((WIDTH, HEIGHT) if turned else (HEIGHT, WIDTH))
    if turned:
        assert_close(decoded(data), transposed(data), 4)


def test_the_orientation_of_a_picture_smaller_than_its_header():
    data = with_exif(encoded(np.full([2, 3], 99, np.uint8), "jpeg", optimize=True), directory(6, before=0), "none")
    assert len(data) < 300
    assert decoded(data).shape == (3, 2, 3)


@pytest.mark.parametrize(
    "tiff",
    [
        directory(0),
        directory(9),
        directory(65535, ">"),
        directory(6, count=3),  # the entry is beyond the end of the directory
        directory(6)[:4] + struct.pack("<I", 5000) + directory(6)[8:],
        directory(6)[:4] + b"\xff\xff\xff\xff" + directory(6)[8:],
        directory(6, ">")[:4] + b"\0\xff\xff\xff" + directory(6, ">")[8:],
        directory(6)[:30],  # cut before the entry
        directory(6)[:5],
        b"",
        b"no TIFF header at all",
    ],
    ids=["0", "9", "65535", "beyond", "far", "farther", "farthest", "cut", "cut in the header", "empty", "noise"],
)
def test_nonsense_in_exif_leaves_a_picture_as_it_is(tiff):
    data = with_exif(UPRIGHT, tiff)
    assert np.array_equal(decoded(data), decoded(UPRIGHT))
    assert np.array_equal(cropped(data), cropped(UPRIGHT))


def test_exif_in_another_format_is_not_looked_at():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert np.array_equal(decoded(saved(Image.fromarray(PIXELS), "png", exif=exif)), PIXELS)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", [None, 1, 6])
@pytest.mark.parametrize("left", [0.9, 0.5])
def test_a_jpeg_cut_short_is_refused_even_where_the_box_ends_above_the_cut(left, orientation):
    whole = encoded(smooth(2, 300, 300), "jpeg", quality=90)
    if orientation:
        whole = with_exif(whole, directory(orientation))
    box = (8, 4, 16, 250) if orientation != 6 else (4, 276, 250, 16)  # the first rows of what is stored
    assert cropped(whole, box).size
    cut = whole[: int(left * len(whole))]
    for attempt in (lambda: cropped(cut, box), lambda: decoded(cut)):
        with pytest.raises(tf.errors.OpError):
            attempt()


@pytest.mark.parametrize("orientation", [None, 1, 6])
@pytest.mark.parametrize("garbage", [b"\0" * 100, b"\n", b"\xff\xd8 what a camera appends"])
def test_what_follows_the_end_of_a_jpeg_does_no_harm(garbage, orientation):
    whole = with_exif(UPRIGHT, directory(orientation)) if orientation else UPRIGHT
    assert np.array_equal(decoded(whole + garbage), decoded(whole))
    assert np.array_equal(cropped(whole + garbage), cropped(whole))


@pytest.mark.parametrize("name", sorted(convertible() | bad()))
def test_what_is_not_read_rightly_is_refused(name):
    data = (convertible() | bad())[name][0]
    for attempt in (decoded, cropped):
        with pytest.raises(tf.errors.OpError):
            attempt(data)


@pytest.mark.parametrize("name", ["turned.jpg", "deep.png", "gif.JPEG", "webp.JPEG", "bmp.JPEG"])
def test_what_is_read_rightly_has_no_problem(name):
    assert problem(readable()[name][0]) is None


def test_a_jpeg_with_something_appended_has_no_problem():
    assert problem(UPRIGHT + bytes(9)) is None


@pytest.mark.parametrize("form", ["png", "gif", "webp", "bmp"])
def test_other_formats_cut_short_are_refused(form):
    data = encoded(PIXELS, form)
    with pytest.raises(tf.errors.OpError):
        cropped(data[: len(data) * 2 // 3], (0, 0, 4, 4))


@pytest.mark.parametrize("length", [1, 2, 3, 10, 27, 28, 40])
@pytest.mark.parametrize("head", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"\xfe\xed", b"BM\xff"])
def test_a_few_bytes_are_refused_like_any_other(head, length):
    # Python trips over TensorFlow's messages where they quote such bytes.
    with pytest.raises(tf.errors.OpError):
        decoded((head + b"\xff" * length)[:length])


NOT_READ = "is damaged, or of a format that is not read (only JPEG, PNG, GIF, still WebP and BMP of 24 or 32 bit are)"


PROBLEMS = {
    "empty": (b"", "is empty (0 bytes)"),
    "text": (b"<html>404 Not Found</html>", "is not a picture but text ('<html>404 Not Fo'...)"),
    "lines": (b"a\r\n\tb", "is not a picture but text ('a\\r\\n\\tb'...)"),
    "cut JPEG": (UPRIGHT[:-100], "is cut short or damaged"),
    "very short JPEG": (b"\xff\xd8\xff", "is cut short or damaged"),
    "cut PNG": (encoded(PIXELS)[:-100], "is cut short or damaged"),
    "cut GIF": (encoded(PIXELS, "gif")[:-1000], "is cut short or damaged"),
    "cut WebP": (encoded(PIXELS, "webp")[:-100], "is cut short or damaged"),
    "noise": (bytes(range(128, 256)), NOT_READ),
    "TIFF": (saved(PICTURE, "tiff"), NOT_READ),
    "palette BMP": (saved(PICTURE.quantize(16), "bmp"), NOT_READ),
    "moving WebP": (saved(PICTURE, "webp", save_all=True, append_images=[PICTURE.rotate(180)]), NOT_READ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_problem_of_a_picture_is_told_in_one_phrase(name):
    data, phrase = PROBLEMS[name]
    assert problem(data) == phrase


# --- bombs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form, options", [("png", {}), ("gif", {}), ("bmp", {}), ("webp", {}), ("webp", {"lossless": True})]
)
def test_a_picture_may_have_as_many_pixels_as_the_limit_and_not_one_more(form, options, monkeypatch):
    monkeypatch.setattr(decoding, "MOST_PIXELS", HEIGHT * WIDTH)
    decode = tf.function(decoding.decode, [tf.TensorSpec([], tf.string)], autograph=False)
    whole = encoded(PIXELS, form, **options)
    assert np.array_equal(decode(tf.constant(whole)), decoded(whole))
    for more in (smooth(1, HEIGHT + 1, WIDTH), smooth(1, HEIGHT, WIDTH + 1), smooth(1, 1, HEIGHT * WIDTH + 1)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
            decode(tf.constant(encoded(more, form, **options)))


def test_a_webp_with_a_header_for_extensions_tells_its_pixels_there(monkeypatch):
    profile = {"icc_profile": b"x" * 20}
    data = encoded(PIXELS, "webp", **profile)
    assert data[12:16] == b"VP8X" and decoded(data).shape == PIXELS.shape
    monkeypatch.setattr(decoding, "MOST_PIXELS", HEIGHT * WIDTH)
    decode = tf.function(decoding.decode, [tf.TensorSpec([], tf.string)], autograph=False)
    assert decode(tf.constant(data)).shape == PIXELS.shape
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        decode(tf.constant(encoded(smooth(1, HEIGHT, WIDTH + 1), "webp", **profile)))


@pytest.mark.parametrize(
    "form, width, height",
    [
        ("jpeg", 65_500, 65_500),
        ("jpeg", 13_377, 13_379),  # 13,377 squared is less than the limit, this is more
        ("png", 65_500, 65_500),
        ("png", 2**31 - 1, 2**31 - 1),
        ("gif", 65_535, 65_535),
        ("bmp", 30_000, 20_000),
        ("webp", 16_383, 16_383),
        ("webp lossless", 16_384, 16_384),
        ("webp extended", 2**24, 2**24),
    ],
)
def test_too_many_pixels_are_refused_before_they_are_decoded_and_said(form, width, height):
    assert width * height > MOST_PIXELS > 13_377**2
    data = declared(form, width, height)
    for attempt in (decoded, cropped):
        with pytest.raises(tf.errors.OpError):
            attempt(data)
    assert problem(data) == f"has {width:,} x {height:,} pixels, more than the 178,956,970 that are read"


def test_as_many_as_the_limit_are_none_too_many():
    assert problem(declared("jpeg", 13_377, 13_377)) is None  # what is missing is grey
    assert problem(declared("png", 13_377, 13_377)) == "is cut short or damaged"


BOMBS = """
import resource, sys
import tensorflow as tf
from data import decoding

decode = tf.function(lambda data: tf.shape(decoding.decode(data)), [tf.TensorSpec([], tf.string)], autograph=False)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
decode(tf.io.encode_png(tf.zeros([1, 1, 3], tf.uint8)))
for path in sys.argv[1:]:
    data, before = tf.io.read_file(path), peak()
    try:
        decode(data)
    except tf.errors.OpError:
        pass
    print(peak() - before)
"""


@pytest.mark.slow  # making and packing half a gigabyte each
def test_no_bomb_takes_memory(tmp_path):
    bombs = {
        "pixels": png(14_000, 14_000),  # 588 MB
        "frames": gif((5000, 5000), [(5000, 5000)] * 20),  # 500 MB before the first is given
        "a frame larger than its canvas": gif((9, 9), [(14_000, 14_000)]),  # 784 MB
    }
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
    paths = [tmp_path / name for name in bombs]
    command = [sys.executable, "-c", BOMBS, *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    grown = dict(zip(bombs, map(int, done.stdout.split()), strict=True))  # MB
    assert max(grown.values()) < 200, grown
    assert problem(bombs["a frame larger than its canvas"]).startswith("has 14,000 x 14,000 pixels")
    assert problem(bombs["frames"]) is None


# --- GIFs as programs write them -----------------------------------------------------------------------------------


def parts(data):
    """(what is before the pixels of the only frame of a GIF by Pillow, its pixels as LZW has them)."""
    at = 13 + 3 * 2 ** (data[10] % 8 + 1)
    while data[at] == ord("!"):
        at = data.index(b"\0", at + 2) + 1
    assert data[at] == ord(",") and data[at + 9] < 128
    begin, at, packed = at + 11, at + 11, b""
    while data[at]:
        packed += data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]
    return data[:begin], packed


@pytest.mark.parametrize("lengths", [(255,), (1,), (254,), (1, 2), (255, 255, 3), (7, 200, 200, 200, 1)], ids=str)
def test_pixels_of_a_gif_may_come_in_blocks_of_any_lengths(lengths):
    data = encoded(PIXELS, "gif")
    head, packed = parts(data)
    written = head + blocks(packed, lengths) + b"\0"
    for end in (b";", b"", b"\0 whatever", b"!\xf9 and a second frame that is cut short"):
        assert np.array_equal(decoded(written + end), decoded(data))
    with pytest.raises(tf.errors.OpError):
        decoded(written[:-1])


@pytest.mark.parametrize(
    "extension",
    [
        b"!\xfe" + blocks(b", not a frame ;" * 400) + b"\0",
        b"!\xff" + blocks(b"NETSCAPE2.0", (11,)) + blocks(b"\1\0\0") + b"\0",
        b"!\xff" + blocks(bytes(range(1, 250)), (3, 50)) + b"\0" + b"!\x01" + blocks(b"!,;" * 200) + b"\0",
    ],
)
def test_what_stands_before_the_first_frame_of_a_gif_is_passed_over(extension):
    data = encoded(PIXELS, "gif")
    begin = 13 + 3 * 2 ** (data[10] % 8 + 1)
    assert np.array_equal(decoded(data[:begin] + extension + data[begin:]), decoded(data))


def test_a_frame_of_a_gif_may_have_colours_of_its_own():
    data = encoded(PIXELS, "gif")
    head, packed = parts(data)
    table = data[13 : 13 + 3 * 2 ** (data[10] % 8 + 1)]
    own = bytearray(head[:10] + b"\0" + head[11:13] + head[13 + len(table) :])  # none for all frames
    own[-2] |= 0x80 | data[10] % 8
    written = bytes(own[:-1]) + table + bytes(own[-1:]) + blocks(packed) + b"\0;"
    assert np.array_equal(decoded(written), decoded(data))


def test_a_gif_of_endlessly_many_blocks_is_refused_in_time():
    data = encoded(PIXELS, "gif")
    begin = 13 + 3 * 2 ** (data[10] % 8 + 1)
    comment = b"!\xfe" + blocks(b"x" * 100_000, (1, 2)) + b"\0"
    with pytest.raises(tf.errors.OpError):
        decoded(data[:begin] + comment + data[begin:])
