"""Lists that name a part of CIFAR-10's folder, as `list:` data sets: the same number of pictures of every class."""

import re
from pathlib import Path

from evidence.study import DATA, LISTS
from la_tf.model_dir import write_text

NAME = re.compile(re.escape(LISTS) + r"/train_(\w+?)_(\d+)\.csv")


def spec(name, size):
    """Returns the flags of a part of the folder $LA_TF_DATA/`name`: `size` training pictures, and all test ones."""
    return (f"--dataset=list:{LISTS}/train_{name}_{size}.csv", f"--image_root={DATA}/{name}")


def write(studies, place):
    """Writes the lists that the flags of `studies` name."""
    flags = (flag for study in studies for of in (study.flags, *(arm.flags for arm in study.arms)) for flag in of)
    for name, size in sorted({found.groups() for flag in flags if (found := NAME.search(flag))}):
        folder = Path(place.data) / name
        lines = "".join(f"{path},{path.split('/')[1]}\n" for path in part(folder / "train", int(size)))
        write_text(place.runs / "lists" / f"train_{name}_{size}.csv", f"path,class\n{lines}")
        lines = "".join(f"{path},{path.split('/')[1]}\n" for path in part(folder / "test"))
        write_text(place.runs / "lists" / f"test_{name}_{size}.csv", f"path,class\n{lines}")


def part(split, size=None):
    """Returns the first pictures of every class of the folder `split`, `size` in all, as "train/<class>/<name>"."""
    classes = sorted(path for path in split.iterdir() if path.is_dir())
    each = None if size is None else size // len(classes)
    return [f"{split.name}/{one.name}/{path.name}" for one in classes for path in sorted(one.iterdir())[:each]]
