"""Pictures with boxes, in the layout of PASCAL VOC.

    DEVKIT/VOC2007/Annotations/000010.xml          a set "2007_trainval" is what ImageSets/Main/trainval.txt of VOC2007
                  /JPEGImages/000010.jpg           lists; "2007_trainval+2012_trainval" is both, one after the other
                  /ImageSets/Main/trainval.txt
    FOLDER/Annotations, JPEGImages, ImageSets      an own folder: a set "train" is what ImageSets/Main/train.txt lists
    tfds:voc                                       voc/2007 and voc/2012 as TFDS has prepared them: see data.voc_tfds

A list has one id a line, which may be followed by 1, 0 or -1, as in the lists of one class: all ids are taken.
Nothing that is wrong with a single picture is an error here: data.voc_check names all of it at once.
"""

import functools
import hashlib
import os
import re
import warnings
from dataclasses import dataclass

import numpy as np

from data.errors import FlagError, UserError
from data.voc_xml import VocObject, shown

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
MISSING = "is missing"  # what an Annotated says of a file that is not there
MOST_CLASSES = 5000
LIST_SIZE = 2**20  # bytes of a list of classes
_NAME = re.compile(r"\w[\w.-]*")  # of a list: its results are files of that name


@dataclass(frozen=True)
class Annotated:
    """One picture and what is known of it."""

    name: str  # its id, unique in the set
    image: str  # path of the picture, or where in which record file it is
    annotation: str  # path of the XML file, or as `image`
    size: tuple[int, int] | None  # (height, width) of the upright picture, px; None where it cannot be read
    objects: tuple[VocObject, ...]
    declared: tuple[int, int] | None = None  # (height, width) as the annotation has it
    image_problem: str = ""  # why the picture cannot be read, as in "is missing"
    annotation_problem: str = ""


@dataclass(frozen=True, eq=False)
class DetectionSet:
    """N pictures with boxes; `row` is a number in 0..N-1.

    `source` is what data.reading.reader takes from a split: a FileSource or data.records.RecordSource.
    """

    name: str
    classes: tuple[str, ...]  # of the labels 1..C; 0 is the background
    origin: int  # the number that the files give to the first column and row of pixels: 1 as in VOC, or 0
    pictures: tuple[Annotated, ...]
    source: object

    @property
    def size(self) -> int:
        return len(self.pictures)

    def read(self, row: int) -> bytes:
        """The encoded picture; raises OSError."""
        return self.source.read(row)

    def boxes(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(boxes_xyxy [G, 4] float32, px, 0-based, corners inclusive; labels [G] int32 in 1..C; difficult [G] bool).

        Raises UserError for an annotation that cannot be read or has a class that the set has not.
        """
        picture = self.pictures[row]
        if picture.annotation_problem:
            raise UserError(f"{picture.annotation}: {picture.annotation_problem}; python -m detection.check shows all")
        unknown = next((each.name for each in picture.objects if each.name not in self.labels), None)
        if unknown is not None:
            raise UserError(f"{picture.annotation}: {unknown_class(unknown, self.classes)}")
        boxes = np.array([each.box for each in picture.objects], np.float64).reshape(-1, 4) - self.origin
        labels = [self.labels[each.name] for each in picture.objects]
        difficult = [each.difficult for each in picture.objects]
        return boxes.astype(np.float32), np.array(labels, np.int32), np.array(difficult, bool)

    @functools.cached_property
    def labels(self) -> dict[str, int]:
        """The label of each class, 1..C."""
        return {name: label for label, name in enumerate(self.classes, 1)}

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of class names, ids, sizes and objects, the same wherever the set lies; no picture is read."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for picture in self.pictures:
            objects = [
                (each.name, [corner - self.origin for corner in each.box], each.difficult) for each in picture.objects
            ]
            digest.update(repr((picture.name, picture.size, objects, bool(picture.annotation_problem))).encode())
        return digest.hexdigest()


def open_set(
    devkit: str,
    name: str,
    classes: tuple[str, ...] = VOC_CLASSES,
    origin: int = 1,
    tfds_data_dir: str | None = None,
) -> DetectionSet:
    """Reads the annotations of a set and the sizes of its pictures; `devkit` is a folder, or "tfds:voc", which lies in
    `tfds_data_dir` (None: where TFDS' own rule says).

    Raises FlagError where the folder, the set in it or the origin is not one, and UserError naming file and line of
    a list that is wrong.
    """
    if origin not in (0, 1):
        raise FlagError(f"--box_origin={origin}: must be 1 (as in VOC) or 0")
    parts = name.split("+")
    for part in parts:
        if not _NAME.fullmatch(part):
            raise FlagError(f"{shown(name)}: no name of a set; examples are 2007_trainval and 2007_train+2012_train")
    warnings.filterwarnings("ignore", module="PIL")  # on metadata that nobody here asks for
    if devkit.startswith("tfds:"):
        from data.voc_tfds import open_voc

        return open_voc(devkit, name, classes, origin, tfds_data_dir)
    from data.voc_files import open_files

    try:
        return open_files(os.path.expanduser(devkit), name, classes, origin)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error


def read_classes(path: str) -> tuple[str, ...]:
    """The class names in a file, one a line, in the order of the labels 1..C; raises UserError naming the line."""
    place = os.path.expanduser(path)
    if os.path.exists(place) and not os.path.isfile(place):
        raise UserError(f"--classes_file={path}: is no file; give one with the name of a class a line")
    try:
        with open(place, "rb") as file:
            text = file.read(LIST_SIZE + 1).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"--classes_file={path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no text in UTF-8; it should have the name of one class a line") from error
    names = [line.strip() for line in text.rstrip().splitlines()]
    if not names:
        raise UserError(f"{path}: is empty; it should have the name of one class a line")
    if len(names) > MOST_CLASSES or len(text) > LIST_SIZE:
        raise UserError(f"{path}: has more than {MOST_CLASSES:,} lines; it should have the name of one class a line")
    first = {}
    for line, name in enumerate(names, 1):
        where = f"{path}:{line}"
        if not name:
            raise UserError(f"{where}: is empty; remove the line")
        if name in first:
            raise UserError(f"{where}: {shown(name)} stands in line {first[name]} as well; remove one")
        if name == "__background__":
            raise UserError(f"{where}: the background is class 0 without being named; remove the line")
        if is_unfit(name):  # results are written to a file for each class
            raise UserError(f"{where}: {shown(name)!r} cannot be part of a file's name, as a class has to be")
        first[name] = line
    return tuple(names)


def unknown_class(name: str, classes: tuple[str, ...]) -> str:
    """What to say of an object whose class the set has not."""
    alike = next((known for known in classes if known.lower() == name.lower()), None)
    if alike:
        return f"the class {shown(name)} is not known, only {alike}; write both alike"
    if classes != VOC_CLASSES:
        return f"the class {shown(name)} is none of the {len(classes)} of --classes_file; add it there"
    return f"the class {shown(name)} is not known; --classes_file=FILE names other classes than those of VOC"


def complete(pictures: list[Annotated], name: str) -> tuple[Annotated, ...]:
    """The pictures of all parts of a set; raises UserError where two of them have the same id."""
    first = {}
    for picture in pictures:
        if first.setdefault(picture.name, picture) is not picture:
            places = " and ".join(dict.fromkeys([first[picture.name].image, picture.image]))
            raise UserError(f"{name}: the id {picture.name} is there twice ({places}); name sets that do not overlap")
    return tuple(pictures)


def is_unfit(name: str) -> bool:
    """Whether a name cannot be that of a file, or leads out of its folder."""
    return name in (".", "..") or bool({"/", "\\"} & {*name}) or not name.isprintable() or len(name) > 200
