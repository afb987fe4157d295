"""`tfds:voc`: the sets of PASCAL VOC that TensorFlow Datasets has already prepared; nothing is downloaded.

TFDS divides the corners of the files by width and height and takes nothing off, so that times the size they count
from 1 again.  It knows "train" and "validation", which together are "trainval"; rows come in the order of the ids, as
in VOC's own lists, so that a set is the same wherever it is read from.
"""

import dataclasses
import io
import os
import re

import numpy as np

from data.errors import FlagError, UserError
from data.examination import in_order
from data.overview import part as part_of
from data.picture_size import upright_size
from data.record_frames import HEADER, data_length
from data.records import record_split
from data.voc import MISSING, Annotated, DetectionSet, complete
from data.voc_xml import VocObject, shown

SPLITS = {"train": ("train",), "val": ("validation",), "trainval": ("train", "validation"), "test": ("test",)}
DIGITS = 3  # of a corner after the point: float32 leaves no more of a product of 1,000 px
_NAME = re.compile(rf"([0-9]{{4}})_({'|'.join(SPLITS)})")


def open_voc(spec: str, name: str, classes: tuple[str, ...], origin: int, data_dir: str | None) -> DetectionSet:
    """What `data.voc.open_set` returns; raises FlagError for other sets, UserError saying how to prepare a set."""
    if spec != "tfds:voc":
        raise FlagError(f"--devkit={spec}: of TFDS' data sets tfds:voc alone is read")
    counts, parts, names = {}, [], ()
    for number, each in enumerate(name.split("+")):
        builder, splits = _prepared(spec, each, data_dir)
        names = builder.info.features["objects"]["label"].names
        for info in (builder.info.splits[split] for split in splits):
            counts |= dict(zip(map(str, info.filepaths), info.shard_lengths, strict=True))
            parts += [number] * len(info.filepaths)
    if len(parts) > len(counts):
        raise UserError(f"{name}: a part of it is named twice; name sets that do not overlap")
    split = record_split(f"--devkit={spec}", name, list(counts), counts)
    pictures = list(in_order(lambda row: _annotated(split.source, row, names), range(split.size)))
    if not any(picture.objects for picture in pictures):  # as of the test set of 2012, which is nobody's
        pictures = [_without_annotation(picture) for picture in pictures]
    order = sorted(range(split.size), key=lambda row: (parts[split.source.shard[row]], pictures[row].name))
    pictures = complete([pictures[row] for row in order], name)
    return DetectionSet(name, classes, origin, pictures, part_of(split, np.array(order)).source)


def _prepared(spec, part, data_dir):
    """(TFDS builder, its splits) of one part of a set's name."""
    import tensorflow_datasets as tfds

    match = _NAME.fullmatch(part)
    if match is None:
        raise FlagError(f"{part}: {spec} has only sets like 2007_trainval: YEAR_{'|'.join(SPLITS)}")
    data_dir = os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR") or tfds.core.constants.DATA_DIR)
    name = f"voc/{match[1]}"
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # TFDS has a dozen error types of its own
        raise UserError(f"--devkit={spec}: TFDS knows no {name} ({shown(error, 80)})") from error
    if not builder.is_prepared():
        command = f"tfds.builder('{name}', data_dir='{data_dir}').download_and_prepare()"
        raise UserError(
            f"--devkit={spec}: {name} is not prepared in {data_dir} (--tfds_data_dir); "
            f'run once: python -c "import tensorflow_datasets as tfds; {command}"'
        )
    return builder, SPLITS[match[2]]


def _annotated(source, row, names):
    """The picture of a row and what its record says of it."""
    where = source.locate(row)
    try:
        features = _features(source, row)
        name = features["image/filename"].bytes_list.value[0].decode()
        size = upright_size(io.BytesIO(features["image"].bytes_list.value[0]))
        return Annotated(os.path.splitext(name)[0], where, where, size, tuple(_objects(features, size, names)))
    except OSError as error:
        problem = error.strerror
    except ValueError as error:
        problem = f"the record holds no annotated picture ({shown(error, 80)})"
    return Annotated(source.names[row], where, where, None, (), None, problem, problem)


def _features(source, row):
    """{name: tf.train.Feature} of a record; raises OSError, and ValueError for what is no record of VOC."""
    from google.protobuf.message import DecodeError
    from tensorflow.train import Example

    if row in source.problems:
        source.read(row)  # raises OSError saying why
    with open(source.shards[source.shard[row]], "rb") as file:
        file.seek(int(source.position[row]))
        data = file.read(data_length(file.read(HEADER), 0) or 0)
    try:
        features = Example.FromString(data).features.feature
    except DecodeError as error:
        raise ValueError(str(error)) from error
    if not (features["image/filename"].bytes_list.value and features["image"].bytes_list.value):
        raise ValueError("there is no image, or no image/filename")
    return features


def _objects(features, size, names):
    """Yields the objects, with corners as the XML file had them; raises ValueError."""
    labels = features["objects/label"].int64_list.value
    difficult = features["objects/is_difficult"].int64_list.value
    corners = features["objects/bbox"].float_list.value
    if not 4 * len(labels) == 4 * len(difficult) == len(corners):
        raise ValueError(f"{len(labels)} labels have {len(corners)} corners and {len(difficult)} flags")
    for number, (label, flag) in enumerate(zip(labels, difficult, strict=True)):
        if label not in range(len(names)):
            raise ValueError(f"object {number + 1} has the label {label}, where they end at {len(names) - 1}")
        top, left, bottom, right = corners[4 * number : 4 * number + 4]
        box = (left * size[1], top * size[0], right * size[1], bottom * size[0])
        yield VocObject(names[label], tuple(round(float(corner), DIGITS) for corner in box), bool(flag))


def _without_annotation(picture):
    return dataclasses.replace(picture, annotation_problem=picture.annotation_problem or MISSING)
