"""How strongly a data set's pictures are changed; what is done with it is in `data.augment`."""

import dataclasses
from dataclasses import dataclass

from data.config import DataConfig
from data.sources import SMALL

# The fields that a flag of the same name overrides.
AUGMENTATION_FLAGS = ("crop_min_area", "grayscale", "jitter", "flip", "rotation", "scale", "shift", "shear")


@dataclass(frozen=True)
class Augmentation:
    """Magnitudes of the training view; zeros (and crop_min_area None) leave a picture as it is."""

    image_size: int  # px, side of the view
    crop_min_area: float | None = (
        None  # area ~ U(crop_min_area, crop_max_area) of the picture's; None: the whole picture
    )
    crop_max_area: float = 1.0
    crop_aspect: float = 4 / 3  # width / height is log-uniform from 1 / crop_aspect to crop_aspect
    patch: bool = False  # instead: a square of 224/256 of the short side, anywhere
    grayscale: float = 0.0  # probability
    jitter: float = (
        0.0  # brightness, contrast, saturation ~ U(1 - jitter, 1 + jitter), hue turned by up to +-jitter ...
    )
    hue: float | None = None  # ... or by up to +-hue (parts of a full turn)
    jitter_probability: float = 1.0
    blur: float = 0.0  # probability
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # px of the view
    flip: bool = False  # mirrored left to right with probability 1/2
    rotation: float = 0.0  # degrees
    scale: float = 0.0  # size ~ U(1 - scale, 1 + scale)
    shift: float = 0.0  # parts of the side, down and right
    shear: float = 0.0  # parts of the side

    @property
    def colours(self) -> bool:
        return self.grayscale > 0 or self.jitter > 0 or bool(self.hue)

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
    return _with(default, overrides)


def transfer_augmentation(kind: str, image_size: int, patch: bool, overrides: DataConfig | None = None) -> Augmentation:
    """What readouts and fine-tuning train on (supplement B.1): crops as in training, or patches, mirrored; no colour.

    `patch`: short side to 256, a 224 px patch of it (AlexNet on ImageNet, and everything on Places). Digits, which are
    not cropped, are changed as ever. `overrides` as in `augmentation_for`.
    """
    if kind == "digits":
        return augmentation_for(kind, image_size, overrides)
    default = Augmentation(image_size, patch=patch, crop_min_area=None if patch else 0.2, flip=True)
    return _with(default, overrides)


def multi_crop(
    kind: str, image_size: int, small_views: int | None = None, overrides: DataConfig | None = None
) -> tuple[Augmentation, ...]:
    """SwAV's views (Caron et al. 2020, section 3.3): two large ones, and small ones of 96/224 of their side.

    Six small ones unless `small_views` says otherwise, and none up to 64 px, where a part of a picture shows nothing.
    `overrides` change the large views, and the colours of the small. Digits, which are not cropped, are changed as
    ever, twice, and have no small views.
    """
    if kind == "digits":
        return (augmentation_for(kind, image_size, overrides),) * 2
    if small_views is None:
        small_views = 6 if image_size > SMALL else 0
    # Without small views the large ones may show less; both are the authors'.
    published = dict(crop_min_area=0.14 if small_views else 0.08, grayscale=0.2, jitter=0.8, flip=True)
    large = _with(Augmentation(image_size, **published, jitter_probability=0.8, blur=0.5), overrides)
    large = dataclasses.replace(large, hue=large.jitter / 4)  # 0.8 and 0.2 as published
    small_size = round(image_size * 96 / 224)
    small = dataclasses.replace(large, image_size=small_size, crop_min_area=0.05, crop_max_area=0.14)
    return (large,) * 2 + (small,) * small_views


def _with(default, overrides):
    """`default` with the fields that the flags of `overrides` (None: none) give."""
    return default if overrides is None else dataclasses.replace(default, **given_augmentation(overrides))


def given_augmentation(config: DataConfig) -> dict:
    """The fields of an Augmentation that flags were given for, by name."""
    return {name: value for name in AUGMENTATION_FLAGS if (value := getattr(config, name)) is not None}
