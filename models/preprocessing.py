"""What a picture goes through between its pixels and the first convolution (imports no TensorFlow)."""

from __future__ import annotations

import dataclasses
import numbers

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Pictures up to this size (digits, CIFAR, Tiny ImageNet) have no margin to spare.
SMALL_IMAGE = 64


def default_short_side(image_size: int) -> int:
    """Short side in px before the centre crop: 256 for 224 and in proportion, no margin for small images."""
    return image_size if image_size <= SMALL_IMAGE else round(image_size * 256 / 224)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Evaluation of a picture: short side `short_side` px, centre crop of `image_size` px, (x - mean) / std.

    `mean` and `std` are per channel, always in the order R, G, B and for pixels in [0, 1]. `channel_order` is
    the order the network wants its channels in ("BGR" for weights that came from Caffe); pictures are always
    handed over as RGB. `short_side=None` takes `default_short_side`, the paper's 256 for 224. Raises
    ValueError naming the field.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    image_size: int = 224
    short_side: int | None = None
    channel_order: str = "RGB"

    def __post_init__(self):
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three_numbers(name, getattr(self, name)))
        if not all(0 <= value <= 1 for value in self.mean):
            raise ValueError(f"mean={self.mean}: must lie in [0, 1]; divide means of 0..255 pixels by 255")
        if not all(0 < value <= 1 for value in self.std):
            raise ValueError(f"std={self.std}: must lie in (0, 1]; divide deviations of 0..255 pixels by 255")
        _check_pixels("image_size", self.image_size, at_least=1)
        if self.short_side is None:
            object.__setattr__(self, "short_side", default_short_side(self.image_size))
        _check_pixels("short_side", self.short_side, at_least=self.image_size)
        if self.channel_order not in ("RGB", "BGR"):
            raise ValueError(f"channel_order={self.channel_order!r}: choose RGB or BGR")

    def to_json(self) -> dict:
        """The fields as a dictionary that `json.dumps` takes."""
        return {**dataclasses.asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, fields: dict) -> Preprocessing:
        """The inverse of `to_json`; raises ValueError naming the keys that are unknown or missing."""
        check_keys("preprocessing", fields, [field.name for field in dataclasses.fields(cls)])
        return cls(**fields)


def check_keys(what: str, mapping: dict, expected) -> None:
    """Raises ValueError naming the keys of `mapping` that are unknown, or else those that are missing."""
    if unknown := sorted(set(mapping) - set(expected)):
        raise ValueError(f"{what}: unknown key {', '.join(unknown)}; known are {', '.join(expected)}")
    if missing := sorted(set(expected) - set(mapping)):
        raise ValueError(f"{what}: missing key {', '.join(missing)}")


def _three_numbers(name, values) -> tuple[float, float, float]:
    is_sequence = isinstance(values, (tuple, list))
    if not (is_sequence and len(values) == 3 and all(_is_finite_number(value) for value in values)):
        raise ValueError(f"{name}={values!r}: must be three finite numbers, one for each of R, G and B")
    return tuple(float(value) for value in values)


def _is_finite_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and -1e300 < value < 1e300


def _check_pixels(name, value, at_least):
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name}={value!r}: must be a whole number of pixels, at least {at_least}")
