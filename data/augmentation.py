"""How strongly a data set's pictures are changed; what is done with it is in `data.augment`."""

import dataclasses
from dataclasses import dataclass

from data.config import DataConfig

# The fields that a flag of the same name overrides.
AUGMENTATION_FLAGS = ("crop_min_area", "grayscale", "jitter", "flip", "rotation", "scale", "shift", "shear")


@dataclass(frozen=True)
class Augmentation:
    """Magnitudes of the training view; zeros (and crop_min_area None) leave a picture as it is."""

    image_size: int  # px, side of the view
    crop_min_area: float | None = None  # area ~ U(crop_min_area, 1) of the picture's; None: the whole picture
    crop_aspect: float = 4 / 3  # width / height is log-uniform from 1 / crop_aspect to crop_aspect
    grayscale: float = 0.0  # probability
    jitter: float = 0.0  # brightness, contrast, saturation ~ U(1 - jitter, 1 + jitter), hue turned by up to +-jitter
    flip: bool = False  # mirrored left to right with probability 1/2
    rotation: float = 0.0  # degrees
    scale: float = 0.0  # size ~ U(1 - scale, 1 + scale)
    shift: float = 0.0  # parts of the side, down and right
    shear: float = 0.0  # parts of the side

    @property
    def colours(self) -> bool:
        return self.grayscale > 0 or self.jitter > 0

    @property
    def warps(self) -> bool:
        return max(self.rotation, self.scale, self.shift, self.shear) > 0


def augmentation_for(kind: str, image_size: int, overrides: DataConfig | None = None) -> Augmentation:
    """What a data set of this kind gets, with whatever `overrides` does not leave at None.

    Photographs: the authors' Instance Recognition view.  Digits: small affine changes; mirrored they would be
    other signs, and they have no colour.
    """
    if kind == "digits":
        default = Augmentation(image_size, rotation=10.0, scale=0.1, shift=0.08, shear=0.1)
    else:
        default = Augmentation(image_size, crop_min_area=0.2, grayscale=0.2, jitter=0.4, flip=True)
    overrides = overrides or DataConfig()
    given = {name: getattr(overrides, name) for name in AUGMENTATION_FLAGS if getattr(overrides, name) is not None}
    return dataclasses.replace(default, **given)
