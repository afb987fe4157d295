"""How many pixels a picture may have that is decoded: a file of a few hundred kilobytes may stand for gigabytes.

The number is in the head of the file, and is looked at before anything is decoded: by `data.decoding` as TensorFlow
operations, here for pictures that Pillow opens.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from PIL import Image

# Half a GiB of RGB. It is where TensorFlow's JPEG decoder ends, and Pillow by itself (twice its MAX_IMAGE_PIXELS).
MOST_PIXELS = 2**29 // 3
TOO_MANY = f"than the {MOST_PIXELS:,} that are read"

# Pillow warns from half of that on. For the whole process: `warnings.catch_warnings` is not for threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class TooManyPixels(ValueError):
    """A picture of more than MOST_PIXELS, with the words that say so."""


@contextlib.contextmanager
def opened(file: BinaryIO, formats: Sequence[str]) -> Iterator[Image.Image]:
    """The Pillow picture in a file, of which nothing but the head is read yet.

    Raises TooManyPixels, and whatever Pillow's plug-ins raise on broken files.
    """
    try:
        picture = Image.open(file, formats=formats)
    except Image.DecompressionBombError as error:  # before it has told the size
        raise TooManyPixels(f"has more pixels {TOO_MANY}") from error
    with picture:
        width, height = picture.size
        if width * height > MOST_PIXELS:  # where whoever uses this has turned Pillow's limit off
            raise TooManyPixels(f"has {width:,} x {height:,} pixels, more {TOO_MANY}")
        yield picture
