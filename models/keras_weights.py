"""Weights of keras.applications' ResNet-50 and VGG16, from a file on disk, in our backbones.

Every form that Keras writes is read, and always by the names of the layers: the legacy `.h5` of weights (what is
published) or of a whole model, the `.weights.h5` and the `.keras` of Keras 3. Keras itself fills layers in the order of
the file, and the ResNet-50 of before 2019, published under the same file name, has its projections elsewhere in it.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from pathlib import Path

import h5py

from models import resnet, vgg
from models.backbone import Backbone, build_backbone
from models.layers import BATCH_NORM_EPSILON
from models.named_weights import check_names_and_shapes
from models.preprocessing import Preprocessing

CAFFE_MEAN = (123.68, 116.779, 103.939)  # of R, G, B in 0..255
KERAS_EPSILON = 1.001e-5
CLASSIFIER = "predictions"  # the one layer that is not used
# What a layer holds, in the order of every file; the names of single arrays have changed over the years.
CONVOLUTION = ("kernel", "bias")
BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
MOST_UNPACKED = 10  # times a `.keras` file that its weights may be: Keras does not pack them
PARTS = {len(parts): parts for parts in (CONVOLUTION, BATCH_NORM)}


def caffe_preprocessing(image_size: int = 224) -> Preprocessing:
    """Pixels in 0..255 less their mean over ImageNet, in the order B, G, R."""
    mean = tuple(value / 255 for value in CAFFE_MEAN)
    return Preprocessing(mean, (1 / 255,) * 3, image_size, channel_order="BGR")


def resnet50(path) -> tuple[Backbone, list[str]]:
    """ResNet-50 (v1, `layout="keras"`) with the weights of the file, and the names in it that are not used.

    A convolution's bias goes into the moving mean behind it, what Keras' epsilon has more than ours into the moving
    variance. Raises ValueError, one line that names the file and what does not fit.
    """
    backbone = build_backbone("resnet50", resnet_version=1, preprocessing=caffe_preprocessing(), layout="keras")
    layer, wanted = backbone.model.get_layer, {}
    for ours, _, theirs in _resnet50_layers():
        kernel = layer(ours).kernel.shape
        wanted |= {f"{theirs}_conv/kernel": kernel, f"{theirs}_conv/bias": kernel[-1:]}
        wanted |= {f"{theirs}_bn/{part}": kernel[-1:] for part in BATCH_NORM}
    arrays, unused = _fitting(path, "keras.applications' ResNet50", read_layers(path), wanted)
    for ours, norm, theirs in _resnet50_layers():
        kernel, bias = (arrays[f"{theirs}_conv/{part}"] for part in CONVOLUTION)
        gamma, beta, mean, variance = (arrays[f"{theirs}_bn/{part}"] for part in BATCH_NORM)
        layer(ours).set_weights([kernel])
        layer(norm).set_weights([gamma, beta, mean - bias, variance + (KERAS_EPSILON - BATCH_NORM_EPSILON)])
    return backbone, unused


def vgg16(path) -> tuple[Backbone, list[str]]:
    """VGG16 without batch norm, with the weights of the file, and the names in it that are not used.

    fc1 and fc2 have to be there: they are fc6, a convolution over the whole map, and fc7. The rows of fc1 say for which
    size of picture, 224 px in the published file. Raises ValueError, one line that names the file and what is wrong.
    """
    layers = read_layers(path)
    rows = layers["fc1/kernel"].shape[0] if "fc1/kernel" in layers else 0
    side = math.isqrt(rows // 512)
    if rows == 0 or rows != 512 * side**2:
        raise ValueError(
            f"{path}: has no fc1 over a map of 512 channels, which VGG16's fc6 is; take keras.applications' VGG16 with "
            "its top (the published file without _notop in its name)"
        )
    backbone = build_backbone("vgg16", batch_norm=False, preprocessing=caffe_preprocessing(32 * side))
    pairs = {backbone.model.get_layer(ours): theirs for ours, theirs in _vgg16_layers().items()}
    wanted = {}
    for layer, theirs in pairs.items():
        kernel = layer.kernel.shape
        is_dense = theirs.startswith("fc")
        wanted[f"{theirs}/kernel"] = (math.prod(kernel[:-1]), kernel[-1]) if is_dense else kernel
        wanted[f"{theirs}/bias"] = kernel[-1:]
    arrays, unused = _fitting(path, "keras.applications' VGG16", layers, wanted)
    for layer, theirs in pairs.items():
        layer.set_weights([arrays[f"{theirs}/kernel"].reshape(layer.kernel.shape), arrays[f"{theirs}/bias"]])
    return backbone, unused


def read_layers(path) -> dict:
    """Every array of a file that Keras wrote, by "layer/part": `conv1_conv/kernel`, `conv1_bn/moving_mean`.

    Raises ValueError, one line, when it cannot be read or does not name its layers.
    """
    try:
        if Path(path).suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                if archive.getinfo("model.weights.h5").file_size > MOST_UNPACKED * os.path.getsize(path):
                    raise ValueError(f"{path}: its weights are packed more closely than weights can be")
                return _read_hdf5(path, io.BytesIO(archive.read("model.weights.h5")))
        return _read_hdf5(path, path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: no file of Keras weights, or a damaged one ({error})") from None


def _read_hdf5(path, source):
    with h5py.File(source) as file:
        legacy = file.get("model_weights", file)  # a whole model has its weights in there
        if "layer_names" in legacy.attrs:
            layers = _legacy_layers(legacy)
        else:
            layers = _keras3_layers(path, file)
    if not layers:
        raise ValueError(f"{path}: holds no layers with weights")
    return {
        f"{layer}/{part}": array
        for layer, arrays in layers.items()
        for part, array in zip(PARTS.get(len(arrays), range(len(arrays))), arrays, strict=True)
    }


def _legacy_layers(group):
    """Layer -> its arrays in order; a layer's group names them in an attribute."""
    names = [name.decode() if isinstance(name, bytes) else name for name in group.attrs["layer_names"]]
    layers = {
        name: [_read(group[name][array], group.file) for array in group[name].attrs["weight_names"]] for name in names
    }
    return {name: arrays for name, arrays in layers.items() if arrays}


def _keras3_layers(path, file):
    """The same of Keras 3: groups `vars` with the layer's name as an attribute, arrays "0", "1", ... in them."""
    layers = {}

    def look(name, item):
        if isinstance(item, h5py.Group) and name.split("/")[-1] == "vars" and len(item):
            if "name" not in item.attrs:
                raise ValueError(
                    f"{path}: does not name its layers (an early Keras 3 wrote it); load it into the model there and "
                    "save_weights with a newer Keras"
                )
            layers[item.attrs["name"]] = [_read(item[str(number)], file) for number in range(len(item))]

    if "layers" in file:
        file["layers"].visititems(look)
    return layers


def _read(dataset, file):
    """An array of an HDF5 file; raises KeyError for what lies in other files, or claims more bytes than this one has.

    HDF5 lets an array stand for another file, and takes its memory before it looks for its bytes.
    """
    inside = dataset.file.filename == file.filename and not dataset.external and not dataset.is_virtual
    if not inside or dataset.nbytes > file.id.get_filesize():
        raise KeyError(f"{dataset.name} does not lie in this file")
    return dataset[()]


def _fitting(path, source, arrays, wanted):
    """The arrays that are wanted, after they are found to fit, and the names of the classifier's."""
    unused = [name for name in arrays if name.split("/")[0] == CLASSIFIER]
    arrays = {name: array for name, array in arrays.items() if name not in unused}
    check_names_and_shapes(path, source, {name: array.shape for name, array in arrays.items()}, wanted)
    return arrays, unused


def _resnet50_layers():
    """(Our convolution, our batch norm, what Keras' names of the two begin with)."""
    layers = [("conv1_conv", "conv1_bn", "conv1")]
    for stage, units in zip(resnet.STAGES, resnet.DEPTHS["resnet50"][1], strict=True):
        for unit in range(1, units + 1):
            ours, theirs = f"{stage}_unit{unit}", f"{stage}_block{unit}"
            if unit == 1:
                layers.append((f"{ours}_projection", f"{ours}_projection_bn", f"{theirs}_0"))
            layers += [(f"{ours}_conv{number}", f"{ours}_bn{number}", f"{theirs}_{number}") for number in (1, 2, 3)]
    return layers


def _vgg16_layers():
    """Our layer -> Keras'."""
    convolutions = {
        f"{stage}_{number}_conv": f"{stage.replace('conv', 'block')}_conv{number}"
        for stage, (count, _) in vgg.STAGES.items()
        for number in range(1, count + 1)
    }
    return {**convolutions, "fc6_conv": "fc1", "fc7_conv": "fc2"}
