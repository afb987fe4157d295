"""Networks that are not ours, to be judged like ours: a Keras model or a SavedModel with named endpoints."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from data.errors import UserError
from models import layers  # also registers what a .keras file of a backbone of ours is made of
from models.keras_weights import caffe_preprocessing
from models.preprocessing import Preprocessing

# What a network wants its pixels to be -> (mean, std) of R, G, B in [0, 1].
SCALES = {
    "unit": ((0, 0, 0), (1, 1, 1)),  # [0, 1]
    "signed": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # [-1, 1]
    "bytes": ((0, 0, 0), (1 / 255,) * 3),  # [0, 255]
    "imagenet": (Preprocessing.mean, Preprocessing.std),  # less ImageNet's mean, by its deviation
}
PIXELS = (*SCALES, "caffe")  # caffe: B, G, R in [0, 255] less their mean over ImageNet
DEFAULT_SIZE = 224
TERMINAL_COLOUR = re.compile(r"\x1b\[\d+m")


@dataclass(frozen=True, eq=False)
class ForeignNetwork:
    """Somebody else's network, in inference mode.

    `features`: RGB `[B, H, W, 3]` in [0, 1] -> {endpoint: `[B, h, w, C]` or `[B, C]`}, float32, in the order of
    `endpoints`. `model`: the same as a trainable keras.Model; None of a SavedModel. `image_size`: the side of the
    pictures where the network fixes it, else None. `preprocessing`: what happens to pixels, and the size to look at.
    """

    path: str
    endpoints: tuple[str, ...]
    features: Callable
    model: keras.Model | None
    image_size: int | None
    preprocessing: Preprocessing

    def embed(self, images):
        """Returns unit rows `[B, C]`: the last endpoint, its mean over space where it is a map."""
        features = self.features(images)[self.endpoints[-1]]
        return tf.math.l2_normalize(tf.reduce_mean(features, [1, 2]) if features.shape.rank == 4 else features, axis=-1)


def pixel_preprocessing(pixels, image_size):
    """Returns the Preprocessing of one of `PIXELS`."""
    if pixels == "caffe":
        return caffe_preprocessing(image_size)
    mean, std = SCALES[pixels]
    return Preprocessing(mean, std, image_size)


def open_keras(path, pixels, endpoints=(), image_size=None):
    """Returns the ForeignNetwork of a whole Keras model, `.keras` or legacy `.h5`.

    endpoints are names of layers; none: the model's own outputs. image_size is what pictures are brought to where the
    model leaves it open, 224 by default. Raises UserError, one line that begins with the path.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        reason = _reason(error)
        if "safe_mode" in reason:  # Keras would have it turned off
            raise UserError(
                f"{path}: holds Python code of whoever made it (a Lambda layer), which is never run here; write the "
                "model without it, or as a SavedModel (model.export) for --saved_model"
            ) from None
        raise UserError(f"{path}: Keras cannot load this model ({reason})") from None
    if not getattr(model, "inputs", None):
        raise UserError(f"{path}: is a subclassed model, whose layers cannot be tapped; export it as a SavedModel")
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs)  # which names its outputs
    if len(model.inputs) != 1:
        raise UserError(f"{path}: takes {len(model.inputs)} inputs ({_inputs(model.inputs)}), not one picture")
    if not tf.as_dtype(model.inputs[0].dtype).is_floating:
        raise UserError(f"{path}: takes {model.inputs[0].dtype}; make its input float32, or export it as a SavedModel")
    fixed = _fixed_size(path, model.inputs)
    preprocessing = pixel_preprocessing(pixels, _size(path, fixed, image_size))
    tapped = keras.Model(model.inputs[0], _tapped(path, model, endpoints))
    image = keras.Input((fixed, fixed, 3), name="image")
    whole = keras.Model(image, tapped(layers.normalise_image(image, preprocessing)), name="foreign")
    return _checked(path, lambda images: whole(images, training=False), whole, fixed, preprocessing)


def open_saved_model(path, pixels, endpoints=(), signature="serving_default", image_size=None):
    """Returns the ForeignNetwork of a SavedModel's signature, which takes one input, pictures, whatever its name.

    endpoints are names of the signature's outputs; none: all of them, in the order of their names. image_size as in
    `open_keras`. An input of whole numbers gets bytes. Raises UserError, one line that begins with the path.
    """
    if not Path(path).is_dir():
        raise UserError(f"{path}: no such folder; a SavedModel is one, with saved_model.pb in it")
    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise UserError(f"{path}: TensorFlow cannot load this SavedModel ({_reason(error)})") from None
    if signature not in loaded.signatures:
        known = ", ".join(loaded.signatures) or "none"
        raise UserError(f"{path}: has no signature {signature}; there are: {known}")
    function = loaded.signatures[signature]
    inputs = function.structured_input_signature[1]
    if len(inputs) != 1:
        raise UserError(f"{path}: {signature} takes {len(inputs)} inputs ({_inputs(inputs.values())}), not one picture")
    outputs = sorted(function.structured_outputs)
    if unknown := [name for name in endpoints if name not in outputs]:
        raise UserError(f"{path}: {signature} has no output {', '.join(unknown)}; there are: {', '.join(outputs)}")
    (name, spec), chosen = *inputs.items(), endpoints or outputs
    if spec.dtype.is_integer and pixels != "bytes":
        raise UserError(f"{path}: {signature} takes {spec.dtype.name}: its pixels can only be bytes, not {pixels}")
    fixed = _fixed_size(path, [spec])
    preprocessing = pixel_preprocessing(pixels, _size(path, fixed, image_size))
    normalise = layers.ImageNormalization(preprocessing.mean, preprocessing.std, preprocessing.channel_order)

    def features(images, loaded=loaded):  # the variables live as long as `loaded` does
        x = normalise(images)
        x = tf.cast(tf.round(x) if spec.dtype.is_integer else x, spec.dtype)
        found = function(**{name: x})
        return {endpoint: found[endpoint] for endpoint in chosen}

    return _checked(path, features, None, fixed, preprocessing)


def _tapped(path, model, endpoints):
    """Returns {endpoint: symbolic tensor} of the layers of these names, or of the model's outputs."""
    known = {layer["name"]: len(layer["inbound_nodes"]) for layer in model.get_config()["layers"]}
    if unknown := [name for name in endpoints if name not in known]:
        raise UserError(f"{path}: has no layer {', '.join(unknown)}; there are: {', '.join(known)}")
    if shared := [name for name in endpoints if known[name] > 1]:
        raise UserError(f"{path}: layer {', '.join(shared)} is used several times, which of its outputs is open")
    tensors = {name: model.get_layer(name).output for name in endpoints} or _outputs(model)
    if nested := [name for name, tensor in tensors.items() if not isinstance(tensor, keras.KerasTensor)]:
        raise UserError(f"{path}: {', '.join(nested)} gives several tensors; an endpoint is one")
    return tensors


def _outputs(model):
    """Returns the outputs of a model by name: as it names them itself, else by the layers that they come from."""
    if isinstance(model.output, dict):
        return model.output
    return dict(zip(model.output_names, model.outputs, strict=True))


def _fixed_size(path, inputs):
    """Returns the side of the square pictures that the only input takes, None where that is open."""
    shape = inputs[0].shape
    if isinstance(shape, tf.TensorShape):
        if shape.rank is None:
            return None
        shape = tuple(shape)
    if len(shape) != 4 or shape[3] not in (None, 3) or shape[0] is not None or shape[1] != shape[2]:
        raise UserError(
            f"{path}: takes {_inputs(inputs)}; wanted are square RGB pictures [B, H, W, 3] in batches of any size"
        )
    return shape[1]


def _size(path, fixed, image_size):
    if fixed and image_size and fixed != image_size:
        raise UserError(f"{path}: takes pictures of {fixed} px alone, {image_size} px are asked for")
    return fixed or image_size or DEFAULT_SIZE


def _checked(path, features, model, fixed, preprocessing):
    """Returns the ForeignNetwork after two black pictures went through it."""
    size = preprocessing.image_size
    try:
        found = features(tf.zeros([2, size, size, 3]))
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise UserError(f"{path}: fails on two pictures of {size} px ({_reason(error)})") from None
    for name, values in found.items():
        if values.shape.rank not in (2, 4) or values.shape[0] != 2 or not values.dtype.is_floating:
            given = f"{values.dtype.name} {list(values.shape)}"
            raise UserError(f"{path}: {name} gives {given} for two pictures; an endpoint is [B, h, w, C] or [B, C]")

    def ordered(images, endpoints=tuple(found)):
        values = features(images)
        return {endpoint: tf.cast(values[endpoint], tf.float32) for endpoint in endpoints}

    return ForeignNetwork(str(path), tuple(found), ordered, model, fixed, preprocessing)


def _inputs(inputs):
    """Returns inputs as text: their names, types and shapes, by name (a SavedModel has them in no order)."""
    return ", ".join(
        f"{x.name} {tf.as_dtype(x.dtype).name} {list(x.shape)}" for x in sorted(inputs, key=lambda x: x.name)
    )


def _reason(error):
    """Returns the line of an error that says something: Keras puts one in front, and colours."""
    lines = [line for line in TERMINAL_COLOUR.sub("", str(error)).splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith("Exception encountered")), repr(error))
