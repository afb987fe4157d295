"""Pictures for tests, made on the fly; the real ones come from the fixture `real_pictures`."""

import io

import numpy as np
from PIL import Image


def smooth(seed, height, width):
    """A smooth coloured picture, uint8 [height, width, 3], so that JPEG and resampling change it little."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    phase = np.random.default_rng(seed).uniform(0, 6, size=(3, 2))
    waves = [np.sin(3 * x + a) * np.cos(2 * y + b) for a, b in phase]
    return np.round(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def encoded(array, form="png", **options):
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, **options)
    return buffer.getvalue()


def write(path, array):
    """Writes a picture in the format of the file's extension, with the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_folder(root, count=3, classes=("ant", "bee"), size=(20, 20), extension="png"):
    """Writes `root`/<class>/<i>.<extension>, `count` pictures a class."""
    for label, name in enumerate(classes):
        for i in range(count):
            write(root / name / f"{i}.{extension}", smooth(100 * label + i, *size))
    return root


def example(**features):
    """A serialized tf.train.Example; `__` in a name stands for `/`."""
    import tensorflow as tf

    message = tf.train.Example()
    for name, value in features.items():
        feature = message.features.feature[name.replace("__", "/")]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif isinstance(value, float):
            feature.float_list.value.append(value)
        else:
            feature.int64_list.value.append(value)
    return message.SerializeToString()


def write_records(path, examples):
    """Writes a TFRecord file."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for serialized in examples:
            writer.write(serialized)
