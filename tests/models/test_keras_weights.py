"""Weights of keras.applications in our backbones: the same activations, and files that do not fit."""

import zipfile

import h5py
import keras
import numpy as np
import pytest

from models import keras_weights
from tests.models.reference import give_norms_something_to_do

RESNET50_TAPS = {
    "conv1": "pool1_pool",
    "conv2": "conv2_block3_out",
    "conv3": "conv3_block4_out",
    "conv4": "conv4_block6_out",
    "conv5": "conv5_block3_out",
}
VGG16_TAPS = {
    "conv1": "block1_conv2",
    "conv2": "block2_conv2",
    "conv3": "block3_conv3",
    "conv4": "block4_conv3",
    "conv5": "block5_conv3",
    "fc6": "fc1",
    "fc7": "fc2",
}


def write_published(path, layers):
    """A legacy file of weights alone: {layer: its arrays in order}, arrays under names of long ago."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for name, arrays in layers.items():
            group = file.create_group(name)
            names = [f"{name}_{number}:0" for number in range(len(arrays))]
            group.attrs["weight_names"] = [part.encode() for part in names]
            for part, array in zip(names, arrays, strict=True):
                group[part] = array
    return path


def layers_of(model):
    return {layer.name: layer.get_weights() for layer in model.layers}


def assert_same_activations(model, taps, backbone, size):
    images = np.random.default_rng(1).random((2, *size, 3), np.float32)
    tapped = keras.Model(model.input, {ours: model.get_layer(theirs).output for ours, theirs in taps.items()})
    wanted = tapped(keras.applications.imagenet_utils.preprocess_input(images * 255, mode="caffe"), training=False)
    found = backbone.model(images, training=False)
    assert list(taps) == list(backbone.strides)
    for endpoint in taps:
        theirs = np.reshape(wanted[endpoint], found[endpoint].shape)  # fc1 is [B, 4096]
        np.testing.assert_allclose(found[endpoint], theirs, atol=1e-4 * theirs.max(), err_msg=endpoint)


@pytest.fixture(scope="module")
def resnet50():
    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(None, None, 3))
    give_norms_something_to_do(model, np.random.default_rng(0))
    # Channels that hardly vary: there Keras' larger epsilon is to be seen.
    variance = model.get_layer("conv4_block2_2_bn").moving_variance
    variance.assign(variance * np.where(np.arange(256) % 2, 1, 1e-6))
    return model


def test_resnet50_gives_every_activation_of_keras(resnet50, tmp_path):
    backbone, unused = keras_weights.resnet50(write_published(tmp_path / "resnet50_notop.h5", layers_of(resnet50)))
    assert unused == []
    # 75 x 50 -> 38 x 25 -> 19 x 13 -> 10 x 7 -> 5 x 4: the pool and the strides meet even and odd sides.
    assert_same_activations(resnet50, RESNET50_TAPS, backbone, (75, 50))
    assert backbone.architecture["layout"] == "keras" and backbone.preprocessing.channel_order == "BGR"


@pytest.mark.slow  # its width is what it is: 40 million weights
def test_vgg16_gives_every_activation_of_keras(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.applications.VGG16(weights=None, include_top=True, input_shape=(64, 64, 3), classes=3)
    for layer in model.layers:
        if layer.weights:
            layer.bias.assign(keras.random.normal(layer.bias.shape, stddev=0.1))
    backbone, unused = keras_weights.vgg16(write_published(tmp_path / "vgg16.h5", layers_of(model)))
    assert unused == ["predictions/kernel", "predictions/bias"]
    assert backbone.preprocessing.image_size == 64  # fc1 takes 2 x 2 x 512: five halvings of 64
    assert_same_activations(model, VGG16_TAPS, backbone, (64, 64))


def test_vgg16_needs_its_top(tmp_path):
    path = write_published(tmp_path / "vgg16_notop.h5", {"block1_conv1": [np.zeros((3, 3, 3, 64)), np.zeros(64)]})
    with pytest.raises(ValueError, match=rf"^{path}: has no fc1 .*without _notop") as caught:
        keras_weights.vgg16(path)
    assert "\n" not in str(caught.value)


def test_the_resnet50_of_before_2019_is_refused(tmp_path):
    # Keras loads it by the order of its layers and exchanges 1x1 kernels of one shape.
    layers = {"conv1": [np.zeros((7, 7, 3, 64)), np.zeros(64)], "bn_conv1": [np.zeros(64)] * 4}
    layers["res2a_branch2a"] = [np.zeros((1, 1, 64, 64)), np.zeros(64)]
    path = write_published(tmp_path / "resnet50_weights_tf_dim_ordering_tf_kernels.h5", layers)
    with pytest.raises(
        ValueError, match=rf"^{path}: does not hold keras.applications' ResNet50; it has bn_conv1/beta, "
    ):
        keras_weights.resnet50(path)


# --- the forms of file --------------------------------------------------------------------------------------


def tiny_model():
    """Named so that no order (creation, alphabet, depth) is that of another."""
    image = keras.Input((None, None, 3), name="image")
    right = keras.layers.Conv2D(2, 1, name="b_conv")(image)
    left = keras.layers.Conv2D(2, 1, name="c_conv")(image)
    x = keras.layers.BatchNormalization(name="a_bn")(keras.layers.Add(name="add")([left, right]))
    model = keras.Model(image, keras.layers.Dense(3, name="predictions")(keras.layers.ReLU(name="relu")(x)))
    for number, weight in enumerate(model.weights):
        weight.assign(np.full(weight.shape, number))
    return model


@pytest.mark.parametrize("name", ["whole.h5", "whole.keras", "only.weights.h5", "published.h5"])
def test_every_form_of_file_is_read_by_the_names_of_its_layers(name, tmp_path):
    model, path = tiny_model(), tmp_path / name
    if name == "published.h5":
        write_published(path, layers_of(model))
    elif name.startswith("whole"):
        model.compile(optimizer="adam", loss="mse")  # has variables of its own in the file
        model.save(path)
    else:
        model.save_weights(path)
    found = keras_weights.read_layers(path)
    wanted = {weight.path: weight.numpy() for weight in model.weights}
    assert found.keys() == wanted.keys()
    for path, array in wanted.items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)


def test_a_file_that_does_not_name_its_layers_is_refused(tmp_path):
    path = tmp_path / "early.weights.h5"
    tiny_model().save_weights(path)
    with h5py.File(path, "r+") as file:
        for layer in file["layers"].values():
            layer["vars"].attrs.pop("name", None)
    with pytest.raises(ValueError, match=rf"^{path}: does not name its layers"):
        keras_weights.read_layers(path)


@pytest.mark.parametrize("name", ["x.h5", "x.keras", "x.weights.h5"])
@pytest.mark.parametrize("damage", ["gone", "cut", "empty"])
def test_a_file_that_is_gone_cut_short_or_empty_is_said_in_one_line(name, damage, tmp_path):
    model, path = tiny_model(), tmp_path / name
    model.save_weights(path) if name == "x.weights.h5" else model.save(path)
    content = path.read_bytes()
    path.unlink() if damage == "gone" else path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(ValueError, match=rf"^{path}: no ") as caught:
        keras_weights.read_layers(path)
    assert "\n" not in str(caught.value)


def test_a_file_of_no_weights_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["pixels"] = np.zeros(3)
    with pytest.raises(ValueError, match="holds no layers with weights"):
        keras_weights.read_layers(tmp_path / "x.h5")


@pytest.mark.parametrize("how", ["another file", "bytes of another file", "an array of arrays", "terabytes"])
def test_arrays_that_do_not_lie_in_the_file_are_refused(how, tmp_path):
    path, secret = tmp_path / "x.weights.h5", tmp_path / "secret"
    tiny_model().save_weights(path)
    with h5py.File(path, "r+") as file:
        layer = next(layer["vars"] for layer in file["layers"].values() if "0" in layer["vars"])
        shape = layer["0"].shape
        del layer["0"]
        if how == "another file":
            with h5py.File(secret, "w") as other:
                other["x"] = np.zeros(shape)
            layer["0"] = h5py.ExternalLink(str(secret), "x")
        elif how == "bytes of another file":
            secret.write_bytes(b"x" * 8 * np.prod(shape))
            layer.create_dataset("0", shape, "f8", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        elif how == "an array of arrays":
            layout = h5py.VirtualLayout(shape, "f8")
            layout[...] = h5py.VirtualSource(str(secret), "x", shape)
            layer.create_virtual_dataset("0", layout)
        else:
            layer.create_dataset("0", (2**40,), "f4", chunks=(2**20,))
    with pytest.raises(ValueError, match=rf"^{path}: no file of Keras weights.*does not lie in this file"):
        keras_weights.read_layers(path)


def test_weights_that_unpack_to_much_more_than_the_file_are_refused(tmp_path):
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(10**7))
    with pytest.raises(ValueError, match=rf"^{path}: its weights are packed more closely"):
        keras_weights.read_layers(path)
