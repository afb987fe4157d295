"""The size of a picture, from the head of its file, as `data.decoding` will decode it."""

from typing import BinaryIO

from PIL import ExifTags

from data.pixel_limit import TooManyPixels, opened

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")  # those that data.decoding reads
_JPEG, _EXIF, _EXIF_WITHIN = b"\xff\xd8\xff", b"Exif\x00\x00", 1024  # where data.decoding looks for an orientation
_LYING = range(5, 9)  # EXIF orientations that exchange height and width


def upright_size(file: BinaryIO) -> tuple[int, int]:
    """(height, width), px, after an EXIF orientation is followed; raises OSError, and ValueError saying why not."""
    head = file.read(_EXIF_WITHIN)
    if not head:
        raise ValueError("is empty (0 bytes)")
    file.seek(0)
    try:
        with opened(file, FORMATS) as picture:
            width, height = picture.size
            turned = head.startswith(_JPEG) and _EXIF in head and _orientation(picture) in _LYING
    except TooManyPixels:
        raise
    except Exception as error:  # whatever Pillow's plug-ins raise on broken files
        raise ValueError(f"is damaged, or of a format that is not read (only {', '.join(FORMATS)} are)") from error
    return (width, height) if turned else (height, width)


def _orientation(picture):
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken directory tells nothing
        return 1
