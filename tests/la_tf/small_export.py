"""An export of an untrained embedder, and pictures of digits as files, for tests of what takes both."""

import keras
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from la_tf import bundle
from la_tf.embedding import build_embedder
from models.backbone import build_backbone
from models.preprocessing import Preprocessing

SIZE, D = 16, 8


def small_embedder(dimension=D, seed=0):
    """An embedder of pictures of 16 px."""
    keras.utils.set_random_seed(seed)
    return build_embedder(build_backbone("resnet10", 4, 2, "small", True, Preprocessing(image_size=SIZE)), dimension)


def write_export(folder, embedder, view=None):
    """Writes the export, which sees encoded pictures in a `view`; returns its folder."""
    return bundle.write(folder, embedder, step=1, view=view)


def digit(number):
    """Digit `number` of scikit-learn's, 16 px, uint8 [16, 16, 3]."""
    values = load_digits().images[number] * (255 / 16)
    return np.repeat(np.kron(values, np.ones((2, 2))).round().astype(np.uint8)[:, :, None], 3, axis=2)


def save_digits(folder, names, first=0):
    """Saves digits as PNG files of these names, which may hold folders; returns the pictures [n, 16, 16, 3]."""
    pictures = [digit(first + number) for number in range(len(names))]
    for name, picture in zip(names, pictures, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            Image.fromarray(picture).save(file, "PNG")
    return np.stack(pictures)
