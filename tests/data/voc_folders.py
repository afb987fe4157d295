"""Small data sets in the layout of PASCAL VOC, drawn on the fly."""

import numpy as np
from PIL import Image, ImageDraw

from data.voc import VOC_CLASSES
from tests.data.pictures import smooth

SIZE = (60, 80)  # height, width, px


def write_devkit(folder, sets, size=SIZE, origin=1, classes=VOC_CLASSES):
    """Writes `sets`, {name: {id: objects}}, and returns `folder`.

    "2007_train" is written into VOC2007, "train" into the folder itself.  An object is (class, box) or (class, box,
    difficult), the box xmin, ymin, xmax, ymax in the numbers that the files get; `origin` says which of them is the
    first column.  `size` is that of all pictures, or a dict from the id to it.
    """
    for name, pictures in sets.items():
        year, _, rest = name.rpartition("_")
        root = folder / f"VOC{year}" if year else folder
        for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / part).mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{rest}.txt").write_text("".join(f"{each}\n" for each in pictures))
        for seed, (each, objects) in enumerate(pictures.items()):
            shape = size[each] if isinstance(size, dict) else size
            (root / "Annotations" / f"{each}.xml").write_text(annotation(objects, shape))
            picture = drawn(objects, shape, seed, origin, classes)
            picture.save(root / "JPEGImages" / f"{each}.jpg", quality=90)
    return folder


def annotation(objects, size=SIZE):
    """The text of the XML file of one picture of `size` (height, width), in the manner of VOC's own."""
    lines = [
        "<annotation>",
        f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>",
        "<segmented>0</segmented>",
    ]
    for name, box, *difficult in objects:
        corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        box = "".join(f"<{corner}>{value}</{corner}>" for corner, value in corners)
        lines += [
            f"<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated>",
            f"<difficult>{int(any(difficult))}</difficult><bndbox>{box}</bndbox></object>",
        ]
    return "\n".join([*lines, "</annotation>\n"])


def drawn(objects, size=SIZE, seed=0, origin=1, classes=VOC_CLASSES):
    """A dim smooth picture on which each object fills its box: its colour tells the class."""
    picture = Image.fromarray(smooth(seed, *size) // 4)
    draw = ImageDraw.Draw(picture)
    for name, box, *_ in objects:
        left, top, right, bottom = (round(corner) - origin for corner in box)
        hue = 255 * (classes.index(name) if name in classes else 0) // len(classes)
        colour = Image.new("HSV", (1, 1), (hue, 255, 255)).convert("RGB").getpixel((0, 0))
        draw.rectangle((left, top, max(left, right), max(top, bottom)), colour)  # corners inclusive, as in VOC
    return picture


def some_pictures(count, seed=0, names=("cat", "dog"), size=SIZE, largest=3):
    """{id: objects} of `count` pictures, each with 1 to `largest` objects that may overlap, 1-based."""
    numbers = np.random.default_rng(seed)
    height, width = size
    pictures = {}
    for i in range(count):
        pictures[f"{i:06d}"] = objects = []
        for _ in range(numbers.integers(1, largest, endpoint=True)):
            w, h = (int(numbers.integers(side // 4, side // 2)) for side in (width, height))
            left, top = int(numbers.integers(1, width - w)), int(numbers.integers(1, height - h))
            objects.append((names[numbers.integers(len(names))], (left, top, left + w - 1, top + h - 1)))
    return pictures
