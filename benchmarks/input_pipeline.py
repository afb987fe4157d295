"""What the input pipeline delivers, and what bounds it: python -m benchmarks.input_pipeline [--full]

The training view of Instance Recognition (crop, resize, grey, jitter, mirror) of JPEG files of ImageNet's size and of
32 px pictures, against the same work by Pillow and NumPy in as many processes as there are cores, and against
TensorFlow's JPEG decoder alone.
"""

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.timing import median_ratio, report

BATCH = 128
AHEAD = 8  # batches: more than any pipeline keeps ready
PHOTOS, PHOTO_SIZE, PHOTO_QUALITY = 256, (500, 375), 96  # about 110 kB, as ImageNet's training pictures
SMALLS, SMALL = 10_000, 32
JITTER, GRAY, LEAST_AREA, ASPECT = 0.4, 0.2, 0.2, 4 / 3
YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]], np.float32)
FROM_YIQ = np.linalg.inv(YIQ)


def photographs(folder, count, size, quality):
    """Writes `count` JPEGs cut at random out of scikit-learn's two photographs; returns their paths."""
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(picture) for picture in load_sample_images().images]
    rng = np.random.default_rng(0)
    os.makedirs(folder)
    paths = []
    for i in range(count):
        photo = photos[i % 2]
        left, top = (int(rng.integers(whole - part + 1)) for whole, part in zip(photo.size, PHOTO_SIZE, strict=True))
        part = photo.crop((left, top, left + PHOTO_SIZE[0], top + PHOTO_SIZE[1]))
        paths.append(os.path.join(folder, f"{i:05}.jpg"))
        part.resize(size, Image.LANCZOS).save(paths[-1], quality=quality)
    return paths


# --- Pillow and NumPy ----------------------------------------------------------------------------------------------


def pillow_view(picture, rng, size, view):
    """Writes one training view of a Pillow picture to `view`, float32 [size, size, 3]."""
    width, height = picture.size
    for _ in range(10):
        area = width * height * rng.uniform(LEAST_AREA, 1)
        ratio = ASPECT ** rng.uniform(-1, 1)
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if w <= width and h <= height:
            break
    else:
        w = h = min(width, height)
    left, top = rng.integers(width - w + 1), rng.integers(height - h + 1)
    small = picture.resize((size, size), Image.BILINEAR, box=(left, top, left + w, top + h))
    pixels = np.asarray(small, dtype=np.float32).reshape(-1, 3)
    brightness, contrast, saturation = rng.uniform(1 - JITTER, 1 + JITTER, 3)
    angle = 2 * np.pi * rng.uniform(-JITTER, JITTER)
    colour = 0 if rng.random() < GRAY else brightness * saturation
    cos, sin = colour * np.cos(angle), colour * np.sin(angle)
    turn = np.array([[brightness, 0, 0], [0, cos, -sin], [0, sin, cos]], np.float32)
    matrix = (FROM_YIQ @ turn @ YIQ).T.astype(np.float32) / 255
    offset = np.float32(1 - contrast) * (pixels.mean(axis=0) @ matrix)
    mixed = pixels @ (np.float32(contrast) * matrix)
    mixed += offset
    np.clip(mixed, 0, 1, out=mixed)
    mixed = mixed.reshape(size, size, 3)
    view[:] = mixed[:, ::-1] if rng.random() < 0.5 else mixed


def pillow_worker(pictures, size, memory_name, slots, wanted, filled):
    """Fills the shared batches whose number it takes from `wanted`; `pictures` are paths, or an array."""
    memory = shared_memory.SharedMemory(memory_name)
    batches = np.ndarray((slots, BATCH, size, size, 3), np.float32, memory.buf)
    rng = np.random.default_rng(os.getpid())
    while (slot := wanted.get()) is not None:
        for place, row in enumerate(rng.integers(len(pictures), size=BATCH)):
            if isinstance(pictures, list):
                with Image.open(pictures[row]) as picture:
                    pillow_view(picture.convert("RGB"), rng, size, batches[slot, place])
            else:
                pillow_view(Image.fromarray(pictures[row]), rng, size, batches[slot, place])
        filled.put(slot)
    del batches
    memory.close()


class PillowPipeline:
    """As many processes as cores, which write their batches into shared memory: nothing is copied or pickled."""

    def __init__(self, pictures, size):
        context = multiprocessing.get_context("spawn")
        self.processes = len(os.sched_getaffinity(0))
        slots = 2 * self.processes
        self.memory = shared_memory.SharedMemory(create=True, size=slots * BATCH * size * size * 3 * 4)
        self.wanted, self.filled = context.Queue(), context.Queue()
        arguments = (pictures, size, self.memory.name, slots, self.wanted, self.filled)
        self.workers = [context.Process(target=pillow_worker, args=arguments) for _ in range(self.processes)]
        for worker in self.workers:
            worker.start()
        for slot in range(slots):
            self.wanted.put(slot)

    def take(self, batches):
        """Takes so many batches; each is asked for anew, so that the processes are never idle."""
        for _ in range(batches):
            self.wanted.put(self.filled.get())

    def close(self):
        """Ends the processes."""
        for _ in self.workers:
            self.wanted.put(None)
        for worker in self.workers:
            worker.join()
        self.memory.close()
        self.memory.unlink()


# --- TensorFlow ----------------------------------------------------------------------------------------------------


def takes(batches):
    """Returns a function that takes so many batches of an endless tf.data pipeline."""
    iterator = iter(batches)

    def take(count):
        for _ in range(count):
            next(iterator)

    return take


def decoder_alone(paths, boxes, size=None):
    """Endless batches of nothing but tf.io.decode_and_crop_jpeg, of pictures in memory (boxes None: decode_jpeg).

    With a `size` they are resized by TensorFlow's fastest filter as well: what any view of a photograph takes.
    """
    import tensorflow as tf

    data = tf.constant([Path(path).read_bytes() for path in paths])
    boxes = None if boxes is None else tf.constant(boxes)

    def decoded(i):
        i %= len(paths)
        if boxes is None:
            return tf.shape(tf.io.decode_jpeg(data[i], channels=3))
        picture = tf.io.decode_and_crop_jpeg(data[i], boxes[i % len(boxes)], channels=3)
        return tf.shape(picture) if size is None else tf.image.resize(picture, [size, size])

    cores = len(os.sched_getaffinity(0))
    return tf.data.Dataset.range(np.iinfo(np.int64).max).map(decoded, num_parallel_calls=cores).batch(BATCH).prefetch(2)


def the_boxes(size, count):
    """Boxes as the pipeline draws them for pictures of `size` (width, height), [count, 4]."""
    import tensorflow as tf

    from data import augment, draws
    from data.augmentation import augmentation_for

    augmentation = augmentation_for("photo", 224)
    numbers = draws.uniforms(0, 0, tf.range(count), 0, augment.Draw.COUNT)
    width, height = (tf.fill([count], side) for side in size)
    return augment.training_boxes(augment.changes(numbers, augmentation), height, width, augmentation).numpy()


def measure(name, calls, steps, rounds):
    """Reports the rate of `ours` over that of each of the others, all taking `steps` batches in turn."""
    seconds = {key: [] for key in calls}
    for _ in range(rounds):
        for key, take in calls.items():
            take(AHEAD)  # what was made ready during the others' turns does not count
            started = time.perf_counter()
            take(steps)
            seconds[key].append(time.perf_counter() - started)
    rates = {f"{key}_per_s": steps * BATCH / statistics.median(taken) for key, taken in seconds.items()}
    for key, suffix in (("pillow", "vs_pillow"), ("decode", "vs_decode_limit"), ("resized", "vs_decode_and_resize")):
        if key in calls:
            report(f"{name}_{suffix}", median_ratio(seconds[key], seconds["ours"]), "ratio", B=BATCH, **rates)
    return rates


def photos(folder, steps, rounds):
    """224 px views of files of ImageNet's size."""
    from data.augmentation import augmentation_for
    from data.pipeline import training_batches
    from data.sources import FileSource, Split

    paths = photographs(folder, PHOTOS, PHOTO_SIZE, PHOTO_QUALITY)
    source = FileSource(folder, [os.path.basename(path) for path in paths])
    split = Split("photographs", "train", "photo", np.full(PHOTOS, -1), source)
    pillow = PillowPipeline(paths, 224)
    calls = {
        "ours": takes(training_batches(split, augmentation_for("photo", 224), BATCH, seed=0)),
        "decode": takes(decoder_alone(paths, the_boxes(PHOTO_SIZE, 1021))),
        "resized": takes(decoder_alone(paths, the_boxes(PHOTO_SIZE, 1021), 224)),
        "pillow": pillow.take,
    }
    rates = measure("jpeg224", calls, steps, rounds)
    pillow.close()
    return rates


def small_arrays(steps, rounds):
    """32 px views of pictures in memory."""
    from data.augmentation import augmentation_for
    from data.pipeline import training_batches
    from data.sources import ArraySource, Split

    pictures = np.random.default_rng(0).integers(256, size=(SMALLS, SMALL, SMALL, 3), dtype=np.uint8)
    split = Split("random", "train", "photo", np.full(SMALLS, -1), ArraySource(pictures, "random"))
    pillow = PillowPipeline(pictures, SMALL)
    calls = {
        "ours": takes(training_batches(split, augmentation_for("photo", SMALL), BATCH, seed=0)),
        "pillow": pillow.take,
    }
    rates = measure("small32", calls, steps, rounds)
    pillow.close()
    report("small32_images_per_s", rates["ours_per_s"], "images/s", B=BATCH, N=SMALLS)


def small_files(folder, steps, rounds):
    """32 px views of JPEG files that do not fit into memory: each is read and decoded anew in every epoch."""
    from data import reading
    from data.augmentation import augmentation_for
    from data.pipeline import training_batches
    from data.sources import FileSource, Split

    paths = photographs(folder, 2000, (SMALL, SMALL), 75)
    source = FileSource(folder, [os.path.basename(path) for path in paths])
    split = Split("small photographs", "train", "photo", np.full(len(paths), -1), source)
    reading.MEMORY = 0
    calls = {
        "ours": takes(training_batches(split, augmentation_for("photo", SMALL), BATCH, seed=0)),
        "decode": takes(decoder_alone(paths, None)),
    }
    measure("small32_jpeg", calls, steps, rounds)


def main():
    """Measures all three."""
    rounds = 9 if "--full" in sys.argv else 5
    with tempfile.TemporaryDirectory() as folder:
        photos(os.path.join(folder, "photos"), 16, rounds)
        small_arrays(100, rounds)
        small_files(os.path.join(folder, "small"), 60, rounds)


if __name__ == "__main__":
    main()
