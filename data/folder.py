"""`folder:PATH`: one picture a file, the class is the folder.

    PATH/train/<class>/**     labelled; without a folder train PATH/<class>/** is
    PATH/train/*.jpg          unlabelled; without a folder train PATH/*.jpg is
    PATH/test/<class>/**      test split, or val, or validation: the first of the three that has class folders,
                              else the first that exists

`open_pile` takes the pictures of any other arrangement, as they come.

A class folder may hold folders of its own (Tiny ImageNet does): their pictures are that class's.  Names that start
with a dot are not looked at.  Rows are in the order of class name, then path within the class.
"""

import os

import numpy as np

from data.errors import UserError
from data.sources import DataSet, FileSource, Split

# Some of them only data.build_tfrecords can convert; training names them as pictures that cannot be read.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".jp2", ".ppm", ".pgm")
TEST_FOLDERS = ("test", "val", "validation")


def open_folder(spec: str, path: str) -> DataSet:
    """Lists the pictures under `path`; raises UserError naming the folder that is missing, empty or mixed."""
    path = path.rstrip("/") or "/"
    if not os.path.isdir(path):
        raise UserError(f"--dataset={spec}: there is no folder {path}")
    if not any(True for _ in os.scandir(path)):
        raise UserError(f"--dataset={spec}: the folder {path} is empty")
    train_folder = "train" if os.path.isdir(os.path.join(path, "train")) else ""
    class_names, names, labels = _list_split(path, train_folder)
    if not names:
        raise UserError(f"--dataset={spec}: no pictures in {os.path.join(path, train_folder)} ({' '.join(EXTENSIONS)})")
    train = Split(spec, "train", "photo", labels, FileSource(path, names))
    return DataSet(spec, class_names, train, _test_split(spec, path, class_names))


def open_pile(spec: str, path: str) -> Split:
    """All pictures under `path`, whatever folders they lie in: one unlabelled split named "all".

    Rows are those of a folder by name, then those of its folders.  Raises UserError naming a folder that is missing
    or holds no picture.
    """
    path = path.rstrip("/") or "/"
    if not os.path.isdir(path):
        raise UserError(f"--dataset={spec}: there is no folder {path}")
    names = _walk(path, frozenset())
    if not names:
        raise UserError(f"--dataset={spec}: no pictures in {path} or below ({' '.join(EXTENSIONS)})")
    return Split(spec, "all", "photo", np.full(len(names), -1, np.int64), FileSource(path, names))


def _test_split(spec, path, class_names):
    found = [folder for folder in TEST_FOLDERS if os.path.isdir(os.path.join(path, folder))]
    listed = [(folder, *_list_split(path, folder)) for folder in found]
    listed = [entry for entry in listed if entry[2]]
    if not listed:
        return None
    folder, test_classes, names, labels = next((entry for entry in listed if entry[1]), listed[0])
    unknown = sorted(set(test_classes) - set(class_names))
    if unknown and class_names:
        raise UserError(f"{os.path.join(path, folder, unknown[0])}: the train split has no class {unknown[0]}")
    if class_names:
        position = {name: label for label, name in enumerate(class_names)}
        translate = np.array([position[name] for name in test_classes] + [-1], np.int64)
        labels = translate[labels]  # label -1 picks the last entry, -1
    else:
        labels = np.full(len(names), -1, np.int64)  # classes the train split knows nothing of
    return Split(spec, "test", "photo", labels, FileSource(path, names))


def _list_split(root, folder):
    """(class names, paths relative to `root`, labels) of one split; no class names where it is unlabelled."""
    top = os.path.join(root, folder)
    pictures, subfolders = _scan(top)
    if not folder:
        subfolders = [name for name in subfolders if name not in TEST_FOLDERS]
    prefix = f"{folder}/" if folder else ""
    if not subfolders:
        return (), [prefix + name for name in pictures], np.full(len(pictures), -1, np.int64)
    if pictures:
        raise UserError(
            f"{top}: pictures ({pictures[0]}, ...) lie beside folders ({subfolders[0]}, ...); "
            "put all of them into class folders, or none"
        )
    names, labels = [], []
    above = {_identity(root), _identity(top)}
    for label, class_name in enumerate(subfolders):
        inside = [f"{prefix}{class_name}/{name}" for name in _walk(os.path.join(top, class_name), above)]
        if not inside:
            raise UserError(f"{os.path.join(top, class_name)}: a class folder without pictures; fill or remove it")
        names += inside
        labels += [label] * len(inside)
    return tuple(subfolders), names, np.array(labels, np.int64)


def _scan(folder):
    """(picture names, folder names) directly in `folder`, each sorted."""
    with os.scandir(folder) as entries:
        entries = [entry for entry in entries if not entry.name.startswith(".")]
    pictures = sorted(entry.name for entry in entries if entry.name.lower().endswith(EXTENSIONS) and _is_file(entry))
    return pictures, sorted(entry.name for entry in entries if entry.is_dir())


def _is_file(entry):
    """A link that leads nowhere is one, too: a picture that cannot be read, to be named and not passed over."""
    return entry.is_file() or (entry.is_symlink() and not entry.is_dir())


def _walk(folder, above):
    """Paths of all pictures in `folder` and below, relative to it.

    A link to one of the folders that lead there (`above`: as `_identity` tells them) is not followed: it has no end.
    """
    pictures, subfolders = _scan(folder)
    above = above | {_identity(folder)}
    for name in subfolders:
        inner = os.path.join(folder, name)
        if _identity(inner) not in above:
            pictures += [f"{name}/{path}" for path in _walk(inner, above)]
    return pictures


def _identity(folder):
    """What stays the same however the way to a folder is written."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino
