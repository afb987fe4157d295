"""In which numbers a network computes: float32, or half of it in mixed precision. TensorFlow only when it is used."""

from __future__ import annotations

import contextlib

# Keras' dtype policies. In the mixed ones layers compute in 16 bits and keep their weights in float32; layers that
# fix their own dtype (pixels on the way in, embeddings on the way out) stay with float32.
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@contextlib.contextmanager
def building_in(precision: str):
    """Layers made while the block runs compute in `precision`, unless they fix a dtype of their own."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextlib.contextmanager
def computing_in_float32(model):
    """What `model`, a keras.Model, computes or is traced to while the block runs is float32 throughout."""
    policies = [(layer, layer.dtype_policy) for layer in _layers(model)]
    for layer, _ in policies:
        layer.dtype_policy = "float32"
    try:
        yield
    finally:
        for layer, policy in policies:
            layer.dtype_policy = policy


def _layers(model):
    """Yields all layers of a model, those of models within it too."""
    for layer in model.layers:
        yield layer
        yield from _layers(layer) if hasattr(layer, "layers") else ()
