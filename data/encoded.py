"""Encoded pictures as a function call is given them, image_bytes `[B]`: of any sizes, and perhaps broken.

`evaluation_views` makes of each what an evaluation sees of it (`pipeline.evaluation_batches`); `decoded` gives the
pixels of one. Operations alone, so that an exported function needs nothing of ours. A picture that cannot be read
raises tf.errors.InvalidArgumentError with its place in the call. `viewed_batches` sees pictures of any data set so.
"""

from typing import NamedTuple

import tensorflow as tf

from data import augment, decoding, digits
from data.pipeline import central_view
from data.pixel_limit import MOST_PIXELS
from data.reading import each_slice, readable, small_size, steady, stretched
from data.sources import SMALL, Split

UNREADABLE = (
    "is cut short, damaged or no picture (JPEG, PNG, GIF, still WebP and BMP are read, "
    f"of up to {MOST_PIXELS:,} pixels)"
)
DECODED_AT_ONCE = 16  # pictures of a call


class View(NamedTuple):
    """How evaluation looks at pictures of a data set. `common_size`: (height, width) of small pictures, cut as one."""

    image_size: int  # px, of the view
    kind: str = "photo"  # or "digits", of which the whole is looked at
    common_size: tuple[int, int] | None = None


def view_of(split: Split, image_size: int) -> View:
    """The View that `pipeline.evaluation_batches` takes of a split."""
    return View(image_size, split.kind, small_size(split, image_size))


def stored_view(manifest: dict, image_size: int) -> View:
    """The same by the `manifest.manifest` of a data set, which need not be there any more."""
    if manifest["kind"] == "digits":
        return View(image_size, "digits", (digits.SIDE, digits.SIDE))
    size = manifest.get("common_size")  # runs that are older than this entry saw small pictures at their own size
    return View(image_size, manifest["kind"], tuple(size) if size and image_size <= SMALL else None)


def unscaled_size(view: View) -> tuple[int, int]:
    """(height, width) of a picture of which an evaluation sees pixels as they are; of digits, the size they have."""
    if view.common_size is not None:
        return view.common_size
    side = round(view.image_size / augment.PATCH_PART) if view.image_size > SMALL else view.image_size
    return side, side


def evaluation_views(image_bytes, view: View):
    """What an evaluation sees of B encoded pictures: float32 `[B, S, S, 3]` in [0, 1], S = view.image_size.

    Raises tf.errors.InvalidArgumentError that names the first picture which cannot be read.
    """
    with tf.device("CPU:0"):  # where decoders are and, as in evaluation, the scaling
        views, fine = each_slice(lambda data: evaluation_view(data, view), (image_bytes,), DECODED_AT_ONCE)
        first_bad = tf.reduce_min(tf.where(fine, tf.size(fine), tf.range(tf.size(fine))))
        with tf.control_dependencies([_readable(tf.reduce_all(fine), first_bad)]):
            return tf.identity(views)


def evaluation_view(data, view: View):
    """The same of one picture: `[S, S, 3]`. Raises tf.errors.OpError for what cannot be read."""
    if view.common_size is None:
        return central_view(data, view.image_size)
    picture = decoding.decode(data)

    def cut(picture):
        picture = tf.ensure_shape(picture, [*view.common_size, 3])
        return augment.evaluation_view(picture[None], view.kind, view.image_size)[0]

    if view.kind == "digits":
        return cut(stretched(picture, *view.common_size))
    fits = tf.reduce_all(tf.shape(picture)[:2] == view.common_size)
    return tf.cond(fits, lambda: cut(picture), lambda: central_view(data, view.image_size))


def viewed_batches(split: Split, view: View, batch_size: int, rows=None, workers: int = 0) -> tf.data.Dataset:
    """Pictures `rows` `[n]` (None: all) of any split as `evaluation_views` sees them, in that order, once.

    Batches `{"image", "index", "valid"}` as `data.pipeline` has them; the last may be smaller. What is seen of a
    picture is the same in any company: `pipeline.evaluation_batches` goes by what those of a split have in common.
    """

    def batch(views, valid, rows, _):
        return {"image": views, "index": rows, "valid": valid}

    with tf.device("/CPU:0"):
        rows = tf.range(split.size, dtype=tf.int64) if rows is None else tf.constant(rows, tf.int64)
        steps = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size).map(lambda rows: (rows, ()))
        batches = readable(split, steps, lambda data, _: evaluation_view(data, view), batch, workers)
    return steady(batches)


def decoded(data, place):
    """The picture in the bytes `data`, whole: uint8 `[h, w, 3]`; raises InvalidArgumentError naming its `place`."""
    # A decoder that fails would fail the whole call with words of its own: here its picture is missing instead.
    nothing = tf.data.Dataset.from_tensors(tf.zeros([0, 0, 3], tf.uint8))
    pictures = tf.data.Dataset.from_tensors(data).map(decoding.decode).ignore_errors()
    picture = pictures.concatenate(nothing).take(1).get_single_element()
    with tf.control_dependencies([_readable(tf.size(picture) > 0, place)]):
        return tf.ensure_shape(tf.identity(picture), [None, None, 3])


def _readable(holds, place):
    return tf.debugging.Assert(holds, [tf.strings.format(f"image_bytes[{{}}]: {UNREADABLE}", place)])
