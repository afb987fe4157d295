"""What a record of a built data set is, and how a file of them comes to be."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator

from data.conversion import to_png
from data.errors import UserError
from data.findings import Findings
from data.sources import Split

FRAME = 16  # bytes of a record besides its data


def serialized(split: Split, row: int, index: int, findings: Findings) -> bytes:
    """The tf.train.Example of picture `row`, the same bytes at every call.

    Raises UserError naming the picture if it is no longer the one that was examined.
    """
    import tensorflow as tf

    where, facts = split.source.locate(row), findings.facts[row]
    try:
        data = split.source.read(row)
    except OSError as error:
        raise UserError(f"{where}: cannot be read any more ({error.strerror}); restore it") from error
    if hashlib.sha256(data).digest() != facts["sha256"].tobytes():
        raise UserError(f"{where}: has changed since it was examined; restore it or build into another --out")
    form, height, width = facts["format"], int(facts["height"]), int(facts["width"])
    if facts["convertible"]:
        data, height, width = to_png(data)
        form = b"png"
    values = {
        "image/encoded": data,
        "image/format": form,
        "image/filename": os.fsencode(split.names[row]),
        "image/height": height,
        "image/width": width,
        "image/index": index,
    }
    if split.labels[row] >= 0:
        values["image/class/label"] = int(split.labels[row])
    example = tf.train.Example()
    for name, value in values.items():
        feature = example.features.feature[name]
        (feature.bytes_list if isinstance(value, bytes) else feature.int64_list).value.append(value)
    return example.SerializeToString(deterministic=True)


@contextlib.contextmanager
def opened(path: str) -> Iterator[Callable[[bytes], None]]:
    """`write(record)` to the TFRecord file `path`, which appears, whole, when the block ends; raises OSError."""
    import tensorflow as tf

    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.tmp")
    size = 0

    def write(record):
        nonlocal size
        writer.write(record)
        size += FRAME + len(record)

    try:
        with tf.io.TFRecordWriter(temporary) as writer:
            yield write
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, error.message.split("; ")[-1].strip(), path) from error
    with open(temporary, "rb") as file:
        if os.fstat(file.fileno()).st_size != size:
            raise OSError(errno.EIO, "less was written than should have been", path)
        os.fsync(file.fileno())
    os.replace(temporary, path)
