"""Cuts scikit-learn's two sample photographs into pieces, a data set of two classes for docs/GALLERY.md."""

from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_images

for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
    photograph = Image.fromarray(pixels)
    for top in range(0, 427 - 96, 28):
        for left in range(0, 640 - 96, 28):
            part = "val" if (top + left) % 5 == 0 else "train"
            folder = Path("photographs", part, name)
            folder.mkdir(parents=True, exist_ok=True)
            photograph.crop((left, top, left + 96, top + 96)).save(folder / f"{top:03}-{left:03}.png")
