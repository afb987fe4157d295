"""Picture files: TensorFlow's decoders as training calls them, Pillow's where only a size or a PNG is wanted."""

import io
import warnings

from tests.fuzz import picture_files
from tests.fuzz.subjects import Subject


def _decoding():
    """Reads a picture whole, and if that can be done its middle alone."""
    import tensorflow as tf

    from data import decoding

    def middle(heights, widths):
        return tf.stack([heights // 4, widths // 4, (heights + 1) // 2, (widths + 1) // 2], axis=1)

    crop = tf.function(
        lambda data: tf.shape(decoding.decode_and_crop(data, middle)),
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
    )

    def read(data):
        problem = decoding.problem(data)
        assert problem is None or (problem and "\n" not in problem), problem
        if problem is None:
            crop(tf.constant(data))

    return read


def jpeg(folder) -> Subject:
    """JPEG of every kind, with EXIF."""
    seeds = picture_files.jpegs()
    return Subject(
        lambda numbers: picture_files.changed_jpeg(numbers.choice(seeds), numbers),
        picture_files.parses,
        _decoding(),
        ("data/decoding.py",),
    )


def others(folder) -> Subject:
    """PNG, GIF, BMP and WebP."""
    seeds = picture_files.others()
    return Subject(
        lambda numbers: picture_files.changed_other(numbers.choice(seeds), numbers),
        picture_files.parses,
        _decoding(),
        ("data/decoding.py",),
    )


def _any(numbers):
    if numbers.random() < 0.5:
        return picture_files.changed_jpeg(numbers.choice(picture_files.jpegs()), numbers)
    return picture_files.changed_other(numbers.choice(picture_files.others()), numbers)


def size(folder) -> Subject:
    """The size of a picture by its head."""
    from data.picture_size import upright_size

    warnings.filterwarnings("ignore", module="PIL")

    def read(data):
        height, width = upright_size(io.BytesIO(data))
        assert height >= 0 and width >= 0

    return Subject(_any, picture_files.parses, read, ("data/picture_size.py",), (ValueError,))


def conversion(folder) -> Subject:
    """A picture made into a PNG."""
    from data.conversion import to_png

    warnings.filterwarnings("ignore", module="PIL")
    tiff = picture_files.saved(picture_files.smooth(9, 7), "tiff")

    def mutate(numbers):
        if numbers.random() < 0.3:
            return picture_files.changed_head(tiff, numbers, [(place, "<h") for place in range(4, 200, 2)])
        return _any(numbers)

    def read(data):
        found = to_png(data)
        assert found is None or found[0].startswith(b"\x89PNG")

    return Subject(mutate, picture_files.parses, read, ("data/conversion.py",))
