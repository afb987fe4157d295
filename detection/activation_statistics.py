"""What an exported backbone makes of pictures: the scale of its endpoints, and how far its batch norms are off.

A batch norm that stays frozen takes off the mean and divides by the deviation that its inputs had in pretraining. Other
pictures, at another size, give it other inputs; how far they have moved is its drift.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from data import pipeline
from data.errors import UserError
from data.sources import Split, evenly_spaced
from detection.config import DataOptions
from detection.input import evaluation_batches
from models.backbone import Backbone
from models.layers import LeastSide

VIEWS_AT_ONCE = 8


class Moments(NamedTuple):
    """Of `count` positions: the mean and the variance of each channel, float64 `[C]`."""

    count: int
    mean: np.ndarray
    variance: np.ndarray


class Seen(NamedTuple):
    """What a backbone makes of `pictures` pictures: `Moments` of each endpoint, and of what each batch norm gets."""

    pictures: int
    endpoints: dict[str, Moments]
    norms: dict[str, Moments]


# -- arithmetic -----------------------------------------------------------------------------------------------------


def together(parts: list[Moments]) -> Moments:
    """Returns the moments of all positions of several pictures, each counted as often as it has positions."""
    counts = np.array([part.count for part in parts], np.float64)
    means, variances = (np.stack(each).astype(np.float64) for each in ([p[1] for p in parts], [p[2] for p in parts]))
    share = counts / counts.sum()
    mean = share @ means
    return Moments(int(counts.sum()), mean, share @ (variances + (means - mean) ** 2))


def scale(moments: Moments) -> dict[str, float]:
    """Returns the mean and the standard deviation over positions and channels."""
    return {
        "mean": float(moments.mean.mean()),
        "sd": float(np.sqrt(moments.variance.mean() + moments.mean.var())),
    }


def drift(moments: Moments, norm: keras.layers.BatchNormalization) -> dict[str, float]:
    """Returns how far the inputs of a batch norm are from its moving statistics, means over its channels.

    `shift`: of the mean, in stored deviations. `ratio`: of the deviation to the stored one. `drift`: both at once, the
    distance of shift and ratio from 0 and 1 (that of two normal distributions, 2-Wasserstein, in stored deviations).
    """
    # With the norm's own epsilon, which is all there is of a channel that is dead.
    stored = norm.moving_variance.numpy().astype(np.float64) + norm.epsilon
    shift = np.abs(moments.mean - norm.moving_mean.numpy()) / np.sqrt(stored)
    ratio = np.sqrt((moments.variance + norm.epsilon) / stored)
    values = {"shift": shift, "ratio": ratio, "drift": np.hypot(shift, ratio - 1)}
    return {name: float(each.mean()) for name, each in values.items()}


def mean_of(several: list[dict[str, float]]) -> dict[str, float]:
    """Returns the mean of what `drift` gives for several norms."""
    return {name: float(np.mean([each[name] for each in several])) for name in several[0]}


# -- networks and pictures ------------------------------------------------------------------------------------------


def observed(backbone: Backbone, batches) -> Seen:
    """Returns what a backbone makes of batches of pictures `[B, H, W, 3]` in [0, 1], each of any size.

    Of pictures that are too small for fc6 and fc7, these are left out.
    """
    parts = [(least, _moments_of(network)) for least, network in networks(backbone)]
    found, pictures = [], 0
    for batch in tqdm(batches, "pictures", leave=False, disable=None):
        maps, side = batch, min(batch.shape[1:3])
        for moments_of in (moments_of for least, moments_of in parts if side >= least):
            maps, moments = moments_of(maps)
            found.append(moments)
        pictures += batch.shape[0]
    return Seen(pictures, *(_by_name(found, kind) for kind in ("endpoints", "norms")))


def networks(backbone: Backbone) -> list[tuple[int, keras.Model]]:
    """Returns (least side of a picture, px, network) of the parts of a backbone: up to conv5, and fc6 with fc7 behind.

    Each network gives `endpoints`, its maps by name, and `norms`, what its batch norms get by their names.
    """
    model = backbone.model
    trunk, behind = (
        {name: model.output[name] for name in backbone.strides if name.startswith("conv") is convolutional}
        for convolutional in (True, False)
    )
    found = [(1, _tapped(keras.Model(model.inputs, trunk)))]
    if behind:
        least = next(layer.side for layer in model.layers if isinstance(layer, LeastSide))
        found.append((least, _tapped(keras.Model(trunk["conv5"], behind))))
    return found


def _tapped(model):
    """The network, its layers shared, whatever the size of its pictures."""
    norms = {}

    def call(layer, *arguments, **keywords):
        if isinstance(layer, LeastSide):  # asks for what lies behind conv5
            return arguments[0]
        if isinstance(layer, keras.layers.BatchNormalization):
            norms[layer.name] = arguments[0]
        return layer(*arguments, **keywords)

    cloned = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)
    return keras.Model(cloned.inputs, {"endpoints": cloned.output, "norms": norms})


def _moments_of(network):
    """A function from maps `[B, H, W, C]` to the last endpoint's, and (count, mean, variance) of all that is tapped."""

    def moments(tensor):
        return tf.size(tensor) // tensor.shape[-1], *tf.nn.moments(tensor, [0, 1, 2])

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, network.inputs[0].shape[-1]), tf.float32)])
    def found(maps):
        taps = network(maps, training=False)
        last = max(taps["endpoints"])  # conv5, fc7
        return taps["endpoints"][last], tf.nest.map_structure(moments, taps)

    return found


def _by_name(found, kind):
    parts = {}
    for one in found:
        for name, (count, mean, variance) in one[kind].items():
            parts.setdefault(name, []).append(Moments(int(count), mean.numpy(), variance.numpy()))
    return {name: together(each) for name, each in parts.items()}


def detector_pictures(pictures, options: DataOptions, count: int):
    """Yields `count` pictures of a `data.voc.DetectionSet`, or all, evenly, as a detector sees them: `[1, H, W, 3]`.

    Raises UserError naming the file of a picture that cannot be decoded.
    """
    for batch in evaluation_batches(pictures, options, rows=evenly_spaced(pictures.size, count)):
        height, width = batch["size"][0].numpy()
        yield batch["image"][:, :height, :width]


def pretraining_views(split: Split, image_size: int, count: int, workers: int = 0):
    """Yields central views `[B, S, S, 3]` of `count` pictures of a split, or all, evenly; bad ones are left out.

    Raises UserError where none can be read.
    """
    rows, none = np.array(evenly_spaced(split.size, count)), True
    for batch in pipeline.evaluation_batches(split, image_size, VIEWS_AT_ONCE, rows, workers):
        views = batch["image"][batch["valid"]]
        if len(views):
            none = False
            yield views
    if none:
        raise UserError(f"--pretrain_data: none of {len(rows)} pictures of {split} can be read")


# -- of a backbone --------------------------------------------------------------------------------------------------


def stages(backbone: Backbone, seen: Seen) -> dict[str, dict]:
    """Returns of each endpoint `mean` and `sd`, and `norms`, the mean drift of its batch norms; None without any."""
    return {
        endpoint: scale(moments) | {"norms": mean_drift(backbone, seen, [endpoint])}
        for endpoint, moments in seen.endpoints.items()
    }


def drifts(backbone: Backbone, seen: Seen, endpoints=None) -> dict[str, dict[str, float]]:
    """Returns the drift of each batch norm of `endpoints`, None: of each that was seen, by its name."""
    groups = [backbone.freeze_groups[endpoint] for endpoint in endpoints or seen.endpoints]
    names = [name for group in groups for name in group if name in seen.norms]
    return {name: drift(seen.norms[name], backbone.model.get_layer(name)) for name in names}


def mean_drift(backbone: Backbone, seen: Seen, endpoints=None) -> dict[str, float] | None:
    """Returns the mean of `drifts`, each batch norm counted once; None where there is none."""
    found = drifts(backbone, seen, endpoints)
    return mean_of([*found.values()]) if found else None
