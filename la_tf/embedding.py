"""From a backbone to unit embeddings: the class readout replaced by D linear units, then L2 (section 3)."""

import keras

from models.backbone import build_backbone
from models.preprocessing import Preprocessing


class UnitLength(keras.layers.Layer):
    """Divides each row of `[B, D]` by its L2 norm."""

    def call(self, inputs):
        """Returns unit rows `[B, D]`."""
        return keras.ops.normalize(inputs, axis=-1, order=2)


def pooled(backbone):
    """Returns the mean over space of the backbone's last endpoint, `[B, C]`: conv5, or fc7 (one place at its size)."""
    features = backbone.model(backbone.model.inputs[0])[backbone.last]
    return keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")(features)


def embedder_from(backbone, readout):
    """Returns the model images `[B, H, W, 3]` in [0, 1] -> unit embeddings `[B, D]`: `readout` `[B, D]` by its length.

    The backbone stays at hand as `.backbone`.
    """
    unit = UnitLength(name="unit_length", dtype="float32")(readout)
    embedder = keras.Model(backbone.model.inputs[0], unit, name="embedder")
    embedder.backbone = backbone
    return embedder


def build_embedder(backbone, dimension):
    """Returns the embedder of section 3: the pooled features in a linear layer with bias, as in the authors' code."""
    return embedder_from(backbone, keras.layers.Dense(dimension, name="embedding", dtype="float32")(pooled(backbone)))


def embedder_for(config, precision="float32"):
    """Returns the freshly initialised embedder of the method of a resolved `la_tf.config.Config`.

    `precision` is what the backbone computes in: the config's own while it trains, float32 where it is judged or
    exported. What lies behind the backbone is always float32.
    """
    from la_tf.config import method_class  # the methods' modules import this one

    model, image_size = config.model, config.data.image_size
    preprocessing = Preprocessing(model.pixel_mean, model.pixel_std, image_size)
    backbone = build_backbone(**model.architecture(image_size), preprocessing=preprocessing, precision=precision)
    return method_class(config.method.method).build_embedder(backbone, config)
