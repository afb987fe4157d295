"""From a backbone to unit embeddings: the class readout replaced by D linear units, then L2 (section 3)."""

import keras

from models.backbone import build_backbone
from models.preprocessing import Preprocessing


class UnitLength(keras.layers.Layer):
    """Divides each row of `[B, D]` by its L2 norm."""

    def call(self, inputs):
        """Returns unit rows `[B, D]`."""
        return keras.ops.normalize(inputs, axis=-1, order=2)


def build_embedder(backbone, dimension):
    """Returns the model images `[B, H, W, 3]` in [0, 1] -> unit embeddings `[B, D]` on a `models` backbone.

    The mean over space of conv5 goes into a linear layer with bias, as in the authors' ResNets. The backbone stays
    at hand as `.backbone`.
    """
    images = backbone.model.inputs[0]
    features = keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")(backbone.model(images)["conv5"])
    readout = keras.layers.Dense(dimension, name="embedding", dtype="float32")(features)
    unit = UnitLength(name="unit_length", dtype="float32")(readout)
    embedder = keras.Model(images, unit, name="embedder")
    embedder.backbone = backbone
    return embedder


def embedder_for(config):
    """Returns a freshly initialised embedder for a resolved `la_tf.config.Config`."""
    model, image_size = config.model, config.data.image_size
    backbone = build_backbone(
        model.backbone,
        model.width,
        model.resnet_version,
        model.stem_for(image_size),
        model.batch_norm,
        Preprocessing(model.pixel_mean, model.pixel_std, image_size),
    )
    return build_embedder(backbone, model.embedding_dim)
