"""JPEG, PNG, GIF, BMP and WebP files taken apart, changed in one of their parts, and put together again."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from tests.fuzz import octets

SIDES = (0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 100, 255, 256, 1000, 4096, 16384, 32767, 32768, 65500, 65535)
SOF, DHT, DQT, DRI, SOS, EOI, APP0, APP1, APP14 = 0xC0, 0xC4, 0xDB, 0xDD, 0xDA, 0xD9, 0xE0, 0xE1, 0xEE
ORIENTATION = 0x0112


def smooth(height: int, width: int) -> Image.Image:
    """A picture whose colours change slowly."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 4 % 256, y * 5 % 256, (x + y) * 3 % 256], axis=2).astype(np.uint8))


def saved(picture: Image.Image, form: str, **options) -> bytes:
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def jpegs() -> list[bytes]:
    """Grey, colour, CMYK, progressive, with every subsampling, with restarts, with an EXIF orientation, small."""
    picture, turned = smooth(24, 32), Image.Exif()
    turned[ORIENTATION] = 6
    return [
        saved(picture, "jpeg", quality=60, subsampling=0),
        saved(picture, "jpeg", quality=60, subsampling=2),
        saved(picture, "jpeg", progressive=True),
        saved(picture, "jpeg", exif=turned),
        saved(picture.convert("L"), "jpeg"),
        saved(picture.convert("CMYK"), "jpeg"),
        saved(picture, "jpeg", restart_marker_blocks=2),
        saved(smooth(1, 1), "jpeg"),
    ]


def segments(data: bytes) -> list[tuple[int, bytes]]:
    """(marker, content) of each segment of a JPEG; what follows SOS up to EOI belongs to it."""
    parts, position = [], 2
    while position < len(data) - 3:
        marker, length = data[position + 1], struct.unpack(">H", data[position + 2 : position + 4])[0]
        end = position + 2 + length
        if marker == SOS:  # the scan ends at the next marker that is no restart and no stuffed 0
            while not (data[end] == 0xFF and data[end + 1] not in (0, *range(0xD0, 0xD8))):
                end += 1
        parts.append((marker, data[position + 4 : end]))
        position = end
    return parts


def jpeg(parts) -> bytes:
    """The JPEG of these segments."""
    return b"\xff\xd8" + b"".join(map(_segment, parts)) + b"\xff\xd9"


def _segment(part):
    marker, content = part
    head = 1 + 2 * content[0] + 3 if marker == SOS and content else len(content)  # of SOS the scan does not count
    return struct.pack(">BBH", 0xFF, marker, min(head, len(content), 65533) + 2) + content


def changed_jpeg(data: bytes, numbers) -> bytes:
    """A JPEG with one or two of its segments changed, moved, doubled or gone; one in six broken as bytes besides."""
    parts = segments(data)
    for _ in range(numbers.randint(1, 2)):
        if not parts:
            break
        kind = numbers.randrange(9)
        if kind < 5:
            # The frame header is one of ten segments, and tells most.
            wanted = numbers.choice((None, None, *_OF_SEGMENT))
            places = [place for place, (marker, _) in enumerate(parts) if _kind(marker) == wanted]
            place = numbers.choice(places or [*range(len(parts))])
            marker, content = parts[place]
            if content:
                parts[place] = marker, _OF_SEGMENT.get(_kind(marker), octets.changed)(content, numbers)
        elif kind == 5:
            parts.pop(numbers.randrange(len(parts)))
        elif kind == 6:
            parts.insert(numbers.randrange(len(parts) + 1), numbers.choice(parts))
        elif kind == 7:
            place = numbers.randrange(len(parts))
            parts[place] = numbers.choice((0x01, 0xC1, 0xC2, 0xC3, 0xC9, 0xD0, 0xE1, 0xEE, 0xFE)), parts[place][1]
        else:
            parts.insert(0, (APP1, exif(numbers)))
    data = jpeg(parts)
    if numbers.random() < 0.1:
        data = data[:-2] + numbers.choice((b"", b"\xff", b"\xff\xd9\0\0", b"appended", b"\xff\xd9" * 2))
    return octets.changed(data, numbers) if numbers.random() < 1 / 6 else data


def _kind(marker):
    return SOF if marker in (0xC0, 0xC1, 0xC2) else marker


def _frame_header(content, numbers):
    """Precision, height, width, count of components; of each its number, sampling factors and quantisation table."""
    kind = numbers.randrange(5)
    if kind <= 1:
        return octets.overwritten(content, 1 + 2 * kind, struct.pack(">H", numbers.choice(SIDES)))
    if kind == 2:
        return octets.overwritten(content, 5, bytes([numbers.choice((0, 1, 2, 3, 4, 5, 255))]))
    place = numbers.randrange(6, len(content)) if kind == 3 else 0
    return octets.overwritten(content, place, bytes([numbers.choice((0, 0x11, 0x12, 0x21, 0x22, 0x44, 0xFF, 8, 12))]))


def _huffman(content, numbers):
    """Class and number of the table, how many codes of each length there are, what they stand for."""
    place = numbers.randrange(min(17, len(content))) if numbers.random() < 0.7 else numbers.randrange(len(content))
    value = numbers.choice((0, 1, 2, 0x10, 0x13, 0xFF, numbers.randrange(256)))
    return octets.overwritten(content, place, bytes([value]))


def _app1(content, numbers):
    return exif(numbers) if numbers.random() < 0.7 else octets.changed(content, numbers)


def exif(numbers) -> bytes:
    """An EXIF segment: a TIFF header whose first directory may lie anywhere and hold anything."""
    order = numbers.choice("<>")
    entries = [(ORIENTATION, 3, 1, numbers.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65535)))]
    for _ in range(numbers.choice((0, 0, 1, 5, 45))):
        value = octets.boundary(numbers) % 2**16
        entries.insert(numbers.randrange(len(entries) + 1), (numbers.choice((0x10F, 0x8769, 0x112)), 3, 1, value))
    offset = 8 if numbers.random() < 0.6 else octets.boundary(numbers) % 2**32
    count = len(entries) if numbers.random() < 0.8 else octets.boundary(numbers) % 2**16
    kind = 3 if numbers.random() < 0.9 else numbers.randrange(16)
    directory = struct.pack(f"{order}H", count) + b"".join(
        struct.pack(f"{order}HHIHH", tag, kind, number, value, 0) for tag, _, number, value in entries
    )
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] if numbers.random() < 0.9 else numbers.randbytes(4)
    data = b"Exif\0\0" + head + struct.pack(f"{order}I", offset) + directory + bytes(4)
    return data[: numbers.randrange(len(data))] if numbers.random() < 0.15 else data


_OF_SEGMENT = {SOF: _frame_header, DHT: _huffman, APP1: _app1, SOS: octets.changed, DQT: octets.changed}


def others() -> list[bytes]:
    """PNG of several kinds, GIF, BMP and WebP."""
    picture, small = smooth(24, 32), smooth(5, 3)
    moving = {"save_all": True, "append_images": [picture.rotate(180)]}
    return [
        saved(picture, "png"),
        saved(picture.quantize(16), "png"),
        saved(picture.convert("RGBA"), "png"),
        saved(Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)), "png"),
        saved(small.convert("1"), "png"),
        saved(picture, "gif"),
        saved(small, "gif", **moving),
        saved(picture, "bmp"),
        saved(small.convert("RGBA"), "bmp"),
        saved(small.quantize(16), "bmp"),
        saved(picture, "webp"),
        saved(small, "webp", lossless=True),
        saved(picture, "webp", **moving),
    ]


def changed_other(data: bytes, numbers) -> bytes:
    """One of these with its parts changed, checksums right; one in six broken as bytes besides."""
    if data.startswith(b"\x89PNG"):
        data = _changed_png(data, numbers)
    elif data.startswith(b"RIFF"):
        data = _changed_webp(data, numbers)
    else:
        data = changed_head(data, numbers, _GIF if data.startswith(b"GIF") else _BMP)
    return octets.changed(data, numbers) if numbers.random() < 1 / 6 else data


# Offsets and widths of the integers in the heads: sides, depths, sizes, offsets, counts of colours, flags.
_GIF = ((6, "<h"), (8, "<h"), (10, "<b"), (11, "<b"), (12, "<b"))
_BMP = (*((place, "<i") for place in (2, 10, 14, 18, 22, 30, 34, 46, 50)), (26, "<h"), (28, "<h"))


def changed_head(data, numbers, fields):
    for _ in range(numbers.randint(1, 3)):
        place, form = numbers.choice(fields)
        value = numbers.choice((numbers.choice(SIDES), -numbers.choice(SIDES), octets.boundary(numbers)))
        data = octets.overwritten(data, place, octets.fitted(value, form))
    if data.startswith(b"GIF") and numbers.random() < 0.6:  # what follows the colours: blocks
        place = numbers.randrange(13, len(data))
        data = octets.overwritten(data, place, bytes([numbers.choice((0, 1, 0x21, 0x2C, 0x3B, 0xF9, 0xFF, 12))]))
    return data


def _changed_png(data, numbers):
    chunks, position = [], 8
    while position < len(data):
        length = struct.unpack(">I", data[position : position + 4])[0]
        chunks.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += length + 12
    for _ in range(numbers.randint(1, 2)):
        place = numbers.randrange(len(chunks)) if chunks and numbers.random() < 0.5 else 0
        kind, content = chunks[place] if chunks else (b"IHDR", bytes(13))
        choice = numbers.randrange(8)
        if kind == b"IHDR" and choice < 6:
            if choice < 3:
                where = numbers.choice((0, 4))
                side = numbers.choice((*SIDES, 2**31 - 1, 2**32 - 1))
                content = octets.overwritten(content, where, struct.pack(">I", side))
            else:
                value = numbers.choice((0, 1, 2, 3, 4, 6, 8, 16))
                content = octets.overwritten(content, numbers.randrange(8, 13), bytes([value]))
            chunks[place : place + 1] = [(kind, content)]
        elif kind == b"IDAT" and choice < 4:
            rows = zlib.decompress(content) if _inflates(content) else content
            chunks[place] = kind, zlib.compress(octets.changed(rows, numbers))
        elif choice == 6:
            another = numbers.choice((b"IDAT", b"PLTE", b"tRNS", b"IEND", b"gAMA", b"zTXt", b"iCCP"))
            chunks.insert(place, (another, content))
        elif choice == 7 and chunks:
            chunks.pop(place)
        elif chunks:
            chunks[place] = kind, octets.changed(content, numbers)
    lies = octets.boundary(numbers) % 2**32 if numbers.random() < 0.05 else None
    return data[:8] + b"".join(_chunk(kind, content, lies) for kind, content in chunks)


def _inflates(content):
    try:
        return bool(zlib.decompress(content))
    except zlib.error:
        return False


def _chunk(kind, content, length=None):
    length = len(content) if length is None else length
    return struct.pack(">I", length) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _changed_webp(data, numbers):
    place = numbers.choice((4, 12, 16, 20, 21, 23, 24, 25, 26, 27, 28, 29, 30, numbers.randrange(20, len(data))))
    form = numbers.choice(("<b", "<h", "<i"))
    value = numbers.choice((numbers.choice(SIDES), octets.boundary(numbers)))
    return octets.overwritten(data, place, octets.fitted(value, form))


def parses(data: bytes) -> bool:
    """Whether Pillow finds format and size in the head."""
    try:
        with Image.open(io.BytesIO(data), formats=("BMP", "GIF", "JPEG", "PNG", "WEBP")):
            return True
    except Image.DecompressionBombError:
        return True
    except Exception:  # whatever its plug-ins raise
        return False
