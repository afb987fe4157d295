"""TensorBoard's embedding projector for a sample of the memory bank: vectors, thumbnails, classes and file names."""

import math
import os
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.plugins import projector

from la_tf.model_dir import write_text
from la_tf.names_file import shown
from la_tf.tiles import scaled

FOLDER = "projector"
MOST_SIDE = 8192  # px of a sprite that browsers take


def write(logdir, name, rows, pictures, columns, side=40):
    """Writes what the projector tab shows of `rows` `[n, D]` float32 to LOGDIR/projector and names it there.

    name: what the tab calls them; pictures: as many, `[s, s, 3]` in [0, 1], an iterable, for they need not fit into
    memory; columns: {title: n texts}, of which the first colours the points. side: px of a thumbnail. Raises
    ValueError where the thumbnails would not fit into one sprite.
    """
    count, folder = len(rows), Path(logdir) / FOLDER
    across = math.ceil(math.sqrt(count))  # the projector takes a square of thumbnails, row by row
    if across * side > MOST_SIDE:
        raise ValueError(f"{count} thumbnails of {side} px do not fit into a sprite of {MOST_SIDE} px")
    folder.mkdir(parents=True, exist_ok=True)
    sprite = Image.new("RGB", (across * side, across * side))
    for number, picture in enumerate(pictures):
        down, right = divmod(number, across)
        sprite.paste(scaled(picture, side), (right * side, down * side))
    _replace(folder / "sprite.png", lambda path: sprite.save(path, format="png"))
    _replace(folder / "rows.float32", lambda path: np.asarray(rows, "<f4").tofile(path))
    lines = ["\t".join(map(_cell, columns))]
    lines += ["\t".join(map(_cell, line)) for line in zip(*columns.values(), strict=True)]
    write_text(folder / "metadata.tsv", "\n".join(lines) + "\n")
    config = projector.ProjectorConfig()
    embedding = config.embeddings.add()
    embedding.tensor_name = name
    embedding.tensor_shape.extend(rows.shape)
    embedding.tensor_path = f"{FOLDER}/rows.float32"
    embedding.metadata_path = f"{FOLDER}/metadata.tsv"
    embedding.sprite.image_path = f"{FOLDER}/sprite.png"
    embedding.sprite.single_image_dim.extend([side, side])
    projector.visualize_embeddings(str(logdir), config)


def _cell(value):
    return shown(value) or "?"  # without what parts cells and lines; names of files may hold anything


def _replace(path, write_to):
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_to(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
