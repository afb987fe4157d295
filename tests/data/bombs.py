"""Small files that stand for very large pictures, put together by hand after the formats' descriptions."""

import functools
import struct
import zlib

import numpy as np

from tests.data.pictures import encoded


def png(width, height):
    """A whole black picture, whose file is a thousandth of its pixels."""
    packer, row = zlib.compressobj(), bytes(1 + width)
    return _png(width, height, b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()]))


def _png(width, height, packed):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits of grey
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def gif(canvas, frames):
    """A GIF whose frames `[(width, height), ...]` are whole and of one colour, on a canvas (width, height)."""
    head = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x80, 0, 0) + bytes(6)  # two colours, both black
    frames = (b"," + struct.pack("<HHHHB", 0, 0, *sides, 0) + _lzw(sides[0] * sides[1]) for sides in frames)
    return head + b"".join(frames) + b";"


@functools.cache
def _lzw(count):
    """`count` pixels of colour 0 as LZW packs them at best: each code stands for one pixel more than the last one."""
    clear, bits = 4, []

    def put(code, size):
        bits.extend((code >> bit) & 1 for bit in range(size))

    while count > 0:
        put(clear, 3 if not bits else 12)
        known, size, length = clear + 1, 3, 1  # codes so far; bits of a code; pixels of the next one
        while count > 0 and known < 4095:
            whole = length <= count
            run = length if whole else count
            put(0 if run == 1 else clear + run, size)
            count -= run
            known, length = known + 1, length + 1
            if known == 2**size and size < 12:
                size += 1
    put(clear + 1, size)
    packed = np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()
    return b"\2" + blocks(packed) + b"\0"


def blocks(data, lengths=(255,)):
    """Sub-blocks of a GIF, of these lengths in turn, without the empty one at the end."""
    parts, start = [], 0
    while start < len(data):
        length = lengths[len(parts) % len(lengths)]
        part = data[start : start + length]
        parts.append(bytes([len(part)]) + part)
        start += length
    return b"".join(parts)


def declared(form, width, height):
    """The head of a picture that says it is so large, with next to nothing behind it."""
    pixels = np.zeros([16, 16, 3], np.uint8)
    if form == "png":
        return _png(width, height, zlib.compress(b""))
    if form == "gif":
        return gif((width, height), [(8, 8)]).replace(struct.pack("<HH", 8, 8), struct.pack("<HH", width, height))
    data = bytearray(encoded(pixels, form.partition(" ")[0], **({"lossless": True} if form == "webp lossless" else {})))
    if form == "jpeg":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    elif form == "bmp":
        data[18:26] = struct.pack("<ii", width, -height)  # the upper row first
    elif form == "webp":
        data[26:30] = struct.pack("<HH", width, height)
    elif form == "webp lossless":
        data[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    elif form == "webp extended":
        sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        chunk = b"VP8X" + struct.pack("<II", 10, 0) + sides
        data = data[:12] + chunk + data[12:]
        data[4:8] = struct.pack("<I", len(data) - 8)
    return bytes(data)
