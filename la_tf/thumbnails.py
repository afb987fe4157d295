"""Small JPEGs of a split's pictures as data URIs, for pages that hold their pictures. Pillow alone, no TensorFlow."""

import base64
import io

import numpy as np
from PIL import Image, ImageOps

from data.picture_size import FORMATS
from data.pixel_limit import opened
from data.sources import ArraySource

SIDE = 40  # px: 5,000 take some 6 MB on a page
QUALITY = 75
MISSING = Image.new("L", (SIDE, SIDE), 210)  # stands for a picture that cannot be read


def thumbnail(split, row, side=SIDE):
    """Returns picture `row` of a `data.sources.Split` as a data URI: its central square, `side` px or its own size."""
    try:
        picture = _open(split.source, row, side)
        square = min(picture.size)
        picture = ImageOps.fit(picture, (min(side, square),) * 2, Image.Resampling.BICUBIC)
    except Exception:  # whatever Pillow's plug-ins raise for a damaged picture: the page shows that it is one
        picture = MISSING
    return data_uri(picture)


def squeezed(split, row, side):
    """Returns picture `row` of a Split, all of it, as pixels `[side, side, 3]` uint8; None where it is damaged."""
    try:
        picture = _open(split.source, row, side)
    except Exception:  # as above
        return None
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))


def data_uri(picture):
    """Returns a Pillow picture, or pixels `[h, w, 3]` uint8, as a JPEG data URI."""
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    if picture.mode == "RGB" and _is_grey(picture):
        picture = picture.convert("L")  # half the bytes
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _open(source, row, side):
    """Returns picture `row` of a source, upright, RGB, at least `side` px where it has as many."""
    if isinstance(source, ArraySource):
        return Image.fromarray(source.pictures[row])
    with opened(io.BytesIO(source.read(row)), FORMATS) as picture:
        picture.draft("RGB", (2 * side, 2 * side))  # a large JPEG is decoded at a fraction of its size
        if picture.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
            picture = Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8))
        return ImageOps.exif_transpose(picture).convert("RGB")


def _is_grey(picture):
    pixels = np.asarray(picture)
    return bool((pixels == pixels[..., :1]).all())
