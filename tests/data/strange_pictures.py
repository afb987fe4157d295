"""Picture files as they are found in the wild: odd, in the wrong format for their name, broken."""

import io

import numpy as np
from PIL import Image

from tests.data.pictures import smooth

ORIENTATION = 0x0112
HEIGHT, WIDTH = 40, 60
PICTURE = Image.fromarray(smooth(1, HEIGHT, WIDTH))
TURNED = Image.Exif()
TURNED[ORIENTATION] = 6  # to be turned clockwise by a quarter


def saved(picture, form, **options):
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def gray16():
    """A 16-bit gray picture, uint16 [256, 256]: each of 0..65535 once."""
    return np.arange(2**16, dtype=np.uint16).reshape(256, 256)


def readable() -> dict[str, tuple[bytes, str]]:
    """By name: what TensorFlow decodes rightly, and in which format it is."""
    return {
        "bmp.JPEG": (saved(PICTURE, "bmp"), "bmp"),
        "cmyk.jpg": (saved(PICTURE.convert("CMYK"), "jpeg"), "jpeg"),
        "deep.png": (saved(Image.fromarray(gray16()), "png"), "png"),
        "gif.JPEG": (saved(PICTURE, "gif"), "gif"),
        "gray.jpg": (saved(PICTURE.convert("L"), "jpeg"), "jpeg"),
        "png.JPEG": (saved(PICTURE, "png"), "png"),
        "turned.jpg": (saved(PICTURE, "jpeg", exif=TURNED), "jpeg"),
        "webp.JPEG": (saved(PICTURE, "webp"), "webp"),
    }


def convertible() -> dict[str, tuple[bytes, np.ndarray]]:
    """By name: what Pillow alone decodes, and what the pixels are, uint8 [h, w, 3]."""
    palette, bilevel = PICTURE.quantize(64), PICTURE.convert("1")
    frames = [PICTURE, PICTURE.rotate(180)]
    upright = np.rot90(np.asarray(PICTURE), -1)
    # The nearest of 0..255 to v / 257, in whole numbers.
    eighth = ((gray16().astype(np.int64) + 128) // 257).astype(np.uint8)
    return {
        "bilevel.bmp": (saved(bilevel, "bmp"), np.asarray(bilevel.convert("RGB"))),
        "deep.jpg": (saved(Image.fromarray(gray16()), "tiff"), np.stack([eighth] * 3, axis=2)),
        "moving.webp": (
            saved(frames[0], "webp", save_all=True, append_images=frames[1:], lossless=True),
            np.asarray(PICTURE),
        ),
        "palette.bmp": (saved(palette, "bmp"), np.asarray(palette.convert("RGB"))),
        "tiff.jpg": (saved(PICTURE, "tiff"), np.asarray(PICTURE)),
        "turned_tiff.jpg": (saved(PICTURE, "tiff", exif=TURNED), upright),
    }


def bad() -> dict[str, tuple[bytes, str]]:
    """By name: what nobody decodes, and a word of the reason."""
    jpeg = saved(PICTURE, "jpeg")
    return {
        "cut.jpg": (jpeg[: len(jpeg) // 2], "cut short"),
        "cut_tiff.jpg": (saved(PICTURE, "tiff", compression="tiff_lzw")[:-100], "format"),
        "empty.jpg": (b"", "empty"),
        "float.jpg": (saved(Image.fromarray(np.ones([9, 9], np.float32)), "tiff"), "format"),
        "text.jpg": (b"<html>404 Not Found</html>", "text"),
    }


def write_all(folder) -> list[str]:
    """Writes all of them into a folder; returns the names in the order of the rows of `folder:`."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in (readable(), convertible(), bad()):
        for name, (data, _) in kind.items():
            (folder / name).write_bytes(data)
    return sorted(path.name for path in folder.iterdir())
