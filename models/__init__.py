"""Backbones with named endpoints; importing the package imports no TensorFlow, building a network does."""

from models.backbone import (
    Backbone,
    backbone_from_architecture,
    build_backbone,
    check_architecture,
    describe,
    smallest_input,
    stems,
)
from models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Backbone",
    "Preprocessing",
    "backbone_from_architecture",
    "build_backbone",
    "check_architecture",
    "describe",
    "smallest_input",
    "stems",
]
