"""Pictures that TensorFlow does not read and Pillow does: made into PNG, pixel for pixel."""

import io

import numpy as np
from PIL import Image, ImageOps

from data.pixel_limit import opened

# Not all that Pillow knows: some of its formats are programs, run by others.
FORMATS = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
DEEPEST = 2**16 - 1


def to_png(data: bytes) -> tuple[bytes, int, int] | None:
    """The first frame as an upright 8-bit RGB PNG without transparency, and its height and width.

    None for what Pillow does not read either, and for more than `data.pixel_limit.MOST_PIXELS`.
    """
    try:
        with opened(io.BytesIO(data), FORMATS) as picture:
            pixels = _rgb(ImageOps.exif_transpose(picture))
    except Exception:  # whatever Pillow's plug-ins raise on broken files
        return None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")  # the pixels alone: no profile, no dates
    return buffer.getvalue(), *pixels.shape[:2]


def _rgb(picture):
    """[h, w, 3] uint8; raises ValueError where values have no known range."""
    if not picture.mode.startswith(("I", "F")):
        return np.asarray(picture.convert("RGB"))
    gray = np.asarray(picture)  # Pillow's own conversion would cut off what is above 255
    if picture.mode == "F" or gray.min() < 0 or gray.max() > DEEPEST:
        raise ValueError("values are not those of 16 bits")
    return np.repeat(np.round(gray * (255 / DEEPEST)).astype(np.uint8)[..., None], 3, axis=2)
