"""Networks of others: the endpoints they give, the pixels they get, and what is refused in one line."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.errors import UserError
from la_tf import foreign
from models.backbone import build_backbone
from models.preprocessing import Preprocessing

# R, G, B in [0, 1] of one colour, and what a network of each convention is handed for it.
COLOUR = (1.0, 0.5, 0.2)
HANDED = {
    "unit": (1.0, 0.5, 0.2),
    "signed": (1.0, 0.0, -0.6),
    "bytes": (255.0, 127.5, 51.0),
    "imagenet": (0.515 / 0.229, 0.044 / 0.224, -0.206 / 0.225),
    "caffe": (51 - 103.939, 127.5 - 116.779, 255 - 123.68),
}


def pictures(count=3, side=8):
    return np.random.default_rng(0).random((count, side, side, 3), np.float32)


def tiny(side=None):
    """A map, what a batch norm and a dropout make of it, and its mean: two endpoints and a class layer."""
    keras.utils.set_random_seed(0)
    image = keras.Input((side, side, 3), name="picture")
    x = keras.layers.Conv2D(4, 3, name="conv")(image)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(keras.layers.ReLU(name="relu")(x))
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    model = keras.Model(image, keras.layers.Dense(2, name="classes")(x))
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(weight + rng.uniform(0.1, 0.5, weight.shape))
    return model


def saved(model, path):
    model.save(path)
    return path


def passes_on(image):
    return keras.layers.Activation("linear", name="same")(image)


class Module(tf.Module):
    """Returns its pixels and their mean, under names of its own."""

    def __init__(self):
        super().__init__()
        self.factor = tf.Variable(2.0)

    def save(self, folder, *specs, function=None):
        function = function or (lambda photo: {"pixels": photo, "average": self.factor * tf.reduce_mean(photo, [1, 2])})
        signature = tf.function(function).get_concrete_function(*specs)
        tf.saved_model.save(self, str(folder), signatures={"look": signature})
        return folder


def photo(*shape, dtype=tf.float32):
    return tf.TensorSpec(shape, dtype, name="photo")


FREE = photo(None, None, None, 3)


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    return Module().save(tmp_path_factory.mktemp("modules") / "module", FREE)


def assert_refused(message, path, function, *arguments, **named):
    with pytest.raises(UserError) as caught:
        function(path, *arguments, **named)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


# --- pixels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", HANDED)
def test_pixels_are_handed_over_as_the_convention_says(pixels, module, tmp_path):
    assert set(HANDED) == set(foreign.PIXELS)
    picture = np.full((1, 8, 8, 3), COLOUR, np.float32)
    image = keras.Input((None, None, 3))
    path = saved(keras.Model(image, passes_on(image)), tmp_path / "same.keras")
    handed = np.broadcast_to(HANDED[pixels], picture.shape)
    keras_features = foreign.open_keras(path, pixels).features(picture)
    np.testing.assert_allclose(keras_features["same"], handed, rtol=1e-5, atol=1e-5)
    saved_features = foreign.open_saved_model(module, pixels, signature="look").features(picture)
    np.testing.assert_allclose(saved_features["pixels"], handed, rtol=1e-5, atol=1e-5)


def test_whole_numbers_get_the_very_bytes(tmp_path):
    path = Module().save(
        tmp_path / "bytes", photo(None, None, None, 3, dtype=tf.uint8),
        function=lambda photo: {"pixels": tf.cast(photo, tf.float32)},
    )  # fmt: skip
    picture = np.arange(256, dtype=np.float32).repeat(3).reshape(1, 16, 16, 3)
    found = foreign.open_saved_model(path, "bytes", signature="look").features(picture / np.float32(255))
    np.testing.assert_array_equal(found["pixels"], picture)
    assert_refused("only be bytes, not signed", path, foreign.open_saved_model, "signed", signature="look")


# --- Keras models -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("side", [None, 8])
def test_layers_of_a_keras_model_are_endpoints_in_inference_mode(side, ending, tmp_path):
    model = tiny(side)
    found = foreign.open_keras(saved(model, tmp_path / f"tiny.{ending}"), "signed", ("classes", "relu"))
    assert (found.image_size, found.preprocessing.image_size) == (side, side or 224)
    assert found.endpoints == tuple(found.features(pictures())) == ("classes", "relu")
    wanted = keras.Model(model.input, [model.get_layer(name).output for name in found.endpoints])
    for name, values in zip(found.endpoints, wanted(pictures() * 2 - 1, training=False), strict=True):
        np.testing.assert_allclose(found.features(pictures())[name], values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_a_sequential_model_is_one_too(ending, tmp_path):
    layers = [keras.layers.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv"), keras.layers.ReLU(name="relu")]
    model = keras.Sequential(layers)
    path = saved(model, tmp_path / f"sequential.{ending}")
    assert foreign.open_keras(path, "unit").endpoints == ("relu",)
    found = foreign.open_keras(path, "unit", ("conv", "relu")).features(pictures())
    np.testing.assert_allclose(found["conv"], model.layers[0](pictures()), atol=1e-6)
    np.testing.assert_allclose(found["relu"], model(pictures()), atol=1e-6)


def test_without_endpoints_a_keras_models_outputs_are_taken_as_it_names_them(tmp_path):
    image = keras.Input((None, None, 3))
    named = keras.Model(image, {"late": passes_on(image), "early": keras.layers.ReLU(name="relu")(image)})
    assert foreign.open_keras(saved(named, tmp_path / "named.keras"), "unit").endpoints == ("late", "early")
    listed = keras.Model(image, [keras.layers.ReLU(name="b")(image), keras.layers.ReLU(name="a")(image)])
    assert foreign.open_keras(saved(listed, tmp_path / "listed.keras"), "unit").endpoints == ("b", "a")


@pytest.mark.parametrize("last", ["relu", "mean"])
def test_the_embedding_is_the_mean_of_the_last_endpoint_at_unit_length(last, tmp_path):
    found = foreign.open_keras(saved(tiny(), tmp_path / "tiny.keras"), "unit", ("conv", last))
    features = found.features(pictures())[last].numpy().astype(np.float64)
    rows = features.mean(axis=(1, 2)) if last == "relu" else features
    rows /= np.sqrt((rows**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found.embed(pictures()), rows, atol=1e-6)


def test_the_keras_model_can_be_trained_through_its_endpoints(tmp_path):
    found = foreign.open_keras(saved(tiny(), tmp_path / "tiny.keras"), "bytes", ("relu", "mean"))
    assert [weight.name for weight in found.model.trainable_weights] == ["kernel", "bias", "gamma", "beta"]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(found.model(pictures(), training=True)["mean"])
    gradients = tape.gradient(loss, found.model.trainable_weights)
    before = found.features(pictures())["relu"].numpy()
    keras.optimizers.SGD(0.1).apply(gradients, found.model.trainable_weights)
    assert np.abs(found.features(pictures())["relu"] - before).max() > 1e-3


def test_a_backbone_of_ours_opens_as_a_keras_model(tmp_path):
    model = build_backbone("resnet10", 2, stem="small", preprocessing=Preprocessing(image_size=8)).model
    found = foreign.open_keras(saved(model, tmp_path / "backbone.keras"), "unit", image_size=8)
    assert found.endpoints == ("conv1", "conv2", "conv3", "conv4", "conv5")
    np.testing.assert_allclose(found.features(pictures())["conv5"], model(pictures())["conv5"], rtol=1e-4, atol=1e-5)


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layer = keras.layers.Conv2D(2, 1)

    def call(self, images):
        return self.layer(images)


def test_what_is_wrong_with_a_keras_model_is_said_in_one_line(tmp_path):
    image = keras.Input((None, None, 3), name="picture")
    vector = keras.Input((2,), name="vector")
    mean = keras.layers.GlobalAveragePooling2D()(image)
    twice = keras.layers.Conv2D(3, 1, name="twice")
    subclassed = Subclassed()
    subclassed(pictures())

    def refused(message, model, endpoints=(), **named):
        assert_refused(message, saved(model, tmp_path / "model.keras"), foreign.open_keras, "unit", endpoints, **named)

    refused("no layer fc7, pool; there are: picture, conv, norm, relu, dropout, mean, classes", tiny(), ("fc7", "pool"))
    refused("layer twice is used several times", keras.Model(image, twice(twice(image))), ("twice",))
    refused("maps gives several tensors", keras.Model(image, {"maps": {"a": passes_on(image)}, "mean": mean}))
    both = keras.layers.Concatenate()([mean, vector])
    refused("takes 2 inputs (picture float32 [None, None, None, 3], vector", keras.Model([image, vector], both))
    refused("subclassed", subclassed)
    refused("pictures of 8 px alone, 9 px are asked for", tiny(8), image_size=9)
    refused("fails on two pictures of 2 px (", keras.Model(image, keras.layers.Reshape((4, 4, 3))(image)), image_size=2)
    tokens = keras.layers.Reshape((-1, 3), name="tokens")(image)
    refused("tokens gives float32 [2, 64, 3] for two pictures", keras.Model(image, tokens), image_size=8)
    for shape in ((8, 10, 3), (None, None, 1), (12,)):
        other = keras.Input(shape, name="other")
        model = keras.Model(other, keras.layers.Activation("linear")(other))
        refused(f"takes other float32 {[None, *shape]}; wanted are square RGB pictures", model)
    lambda_ = keras.layers.Lambda(lambda x: x * 2, output_shape=(None, None, 3))
    code = keras.Model(image, lambda_(image))
    refused("holds Python code of whoever made it (a Lambda layer), which is never run here; write the model", code)
    assert_refused("holds Python code", saved(code, tmp_path / "model.h5"), foreign.open_keras, "unit")


def test_a_file_that_is_no_keras_model_is_said_in_one_line(tmp_path):
    assert_refused("no such file", tmp_path / "x.keras", foreign.open_keras, "unit")
    (tmp_path / "x.keras").write_bytes(b"no zip")
    assert_refused("Keras cannot load this model", tmp_path / "x.keras", foreign.open_keras, "unit")
    tiny().save_weights(tmp_path / "x.weights.h5")
    assert_refused("Keras cannot load this model", tmp_path / "x.weights.h5", foreign.open_keras, "unit")


# --- SavedModels --------------------------------------------------------------------------------------------


def test_outputs_of_a_signature_are_endpoints(module):
    found = foreign.open_saved_model(module, "unit", ("pixels", "average"), "look")
    assert (found.model, found.image_size, found.preprocessing.image_size) == (None, None, 224)
    assert tuple(found.features(pictures())) == found.endpoints == ("pixels", "average")
    rows = pictures().astype(np.float64).mean(axis=(1, 2))
    np.testing.assert_allclose(found.features(pictures())["average"], 2 * rows, rtol=1e-5)
    np.testing.assert_allclose(found.embed(pictures()), rows / np.sqrt((rows**2).sum(1, keepdims=True)), rtol=1e-5)
    assert foreign.open_saved_model(module, "unit", signature="look").endpoints == ("average", "pixels")


def test_a_signature_of_one_size_says_which(tmp_path):
    path = Module().save(tmp_path / "fixed", photo(None, 8, 8, 3))
    found = foreign.open_saved_model(path, "unit", signature="look")
    assert (found.image_size, found.preprocessing.image_size) == (8, 8)
    assert_refused("8 px alone, 9 px", path, foreign.open_saved_model, "unit", signature="look", image_size=9)


def test_what_keras_exports_opens(tmp_path):
    model = tiny(8)
    model.export(tmp_path / "exported", verbose=False)
    found = foreign.open_saved_model(tmp_path / "exported", "unit")
    assert found.image_size == 8
    np.testing.assert_allclose(found.features(pictures())[found.endpoints[0]], model(pictures()), rtol=1e-5)


def test_what_is_wrong_with_a_saved_model_is_said_in_one_line(module, tmp_path):
    assert_refused("no signature serving_default; there are: look", module, foreign.open_saved_model, "unit")
    assert_refused(
        "look has no output fc7; there are: average, pixels", module, foreign.open_saved_model, "unit", ("fc7",), "look"
    )
    assert_refused("no such folder", tmp_path / "nothing", foreign.open_saved_model, "unit")
    assert_refused("cannot load this SavedModel", tmp_path, foreign.open_saved_model, "unit")

    def refused(message, name, *specs, **named):
        path = Module().save(tmp_path / name, *specs, **named)
        assert_refused(message, path, foreign.open_saved_model, "unit", signature="look")

    label = tf.TensorSpec((None,), tf.int64, name="label")
    two = {"function": lambda photo, label: {"mean": tf.reduce_mean(photo, [1, 2])}}
    refused("look takes 2 inputs (label int64 [None], photo float32 [None, None, None, 3])", "two", FREE, label, **two)
    refused("in batches of any size", "batch", photo(1, None, None, 3))
    refused("square RGB pictures", "grey", photo(None, None, None, 1))
    refused("score gives int32 [2]", "ints", FREE, function=lambda photo: {"score": tf.shape(photo)[:1] * [1, 1]})
