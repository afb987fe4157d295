"""AlexNet against parameter counts and sizes by hand and against a float64 NumPy network."""

import numpy as np
import pytest
import tensorflow as tf

from models import Preprocessing, build_backbone, describe
from tests.models.reference import assert_equals_the_reference

ENDPOINTS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]


def alexnet(width=1, stem="imagenet", image_size=224, **kwargs):
    return build_backbone(
        "alexnet", width=width, stem=stem, preprocessing=Preprocessing(image_size=image_size), **kwargs
    )


def parameters(model):
    return sum(np.prod(weight.shape) for weight in model.trainable_weights)


def sides(backbone, height, width):
    shapes = backbone.model.compute_output_shape((1, height, width, 3))
    return [shapes[endpoint][1:3] for endpoint in ENDPOINTS]


# --- parameter counts ---------------------------------------------------------------------------------------


def kernels(channels, units=4096):
    """The numbers in the seven kernels at 224 px; `units` are those of fc6 and of fc7."""
    c1, c2, c3, c4, c5 = channels
    convolutions = 11 * 11 * 3 * c1 + 25 * c1 * c2 + 9 * (c2 * c3 + c3 * c4 + c4 * c5)
    return convolutions + 25 * c5 * units + units * units


LA = (64, 192, 384, 384, 256)
DEEP_CLUSTER = (96, 256, 384, 384, 256)


def test_the_formula_gives_the_numbers_worked_out_one_by_one():
    assert kernels(LA) == 23_232 + 307_200 + 663_552 + 1_327_104 + 884_736 + 26_214_400 + 16_777_216
    assert kernels(LA) + 2 * (1_280 + 8_192) == 46_216_384
    assert kernels(DEEP_CLUSTER) == 34_848 + 614_400 + 884_736 + 1_327_104 + 884_736 + 26_214_400 + 16_777_216


def test_the_standard_network_has_the_authors_sizes():
    backbone = alexnet(64)
    assert parameters(backbone.model) == kernels(LA) + 2 * (sum(LA) + 2 * 4096)  # gamma and beta
    shapes = backbone.model.compute_output_shape((1, 224, 224, 3))
    assert [shapes[endpoint][1:] for endpoint in ENDPOINTS] == [
        (54, 54, 64),
        (26, 26, 192),
        (12, 12, 384),
        (12, 12, 384),
        (12, 12, 256),
        (1, 1, 4096),
        (1, 1, 4096),
    ]
    flattened = [int(np.prod(shapes[endpoint][1:])) for endpoint in ENDPOINTS[:5]]
    assert flattened == [186_624, 129_792, 55_296, 55_296, 36_864]  # the sizes of the authors' readouts


def test_without_batch_norm_and_with_deep_clusters_channels():
    backbone = alexnet(2, batch_norm=False, channels=DEEP_CLUSTER)
    assert parameters(backbone.model) == kernels(DEEP_CLUSTER, 128) + sum(DEEP_CLUSTER) + 2 * 128  # biases
    assert {weight.name for weight in backbone.model.weights} == {"kernel", "bias"}


@pytest.mark.parametrize("width", [1, 2])
def test_width_scales_everything_and_channels_leave_it_the_fully_connected(width):
    scaled = [count * width for count in (1, 3, 6, 6, 4)]
    assert list(alexnet(width).channels.values()) == [*scaled, 64 * width, 64 * width]
    given = alexnet(width, channels=[5, 4, 3, 2, 1])
    assert list(given.channels.values()) == [5, 4, 3, 2, 1, 64 * width, 64 * width]
    assert given.architecture["channels"] == [5, 4, 3, 2, 1]


# --- layers, shapes and strides -----------------------------------------------------------------------------


def test_layers_come_in_the_papers_order():
    # Batch norm behind every convolution and fully connected layer, before the ReLU; pools behind 1, 2 and 5.
    names = [layer.name for layer in alexnet().model.layers]
    expected = ["image", "least_side", "normalise"]
    for endpoint in ENDPOINTS:
        expected += [f"{endpoint}_conv", f"{endpoint}_bn", f"{endpoint}_relu"]
        expected += [f"{endpoint}_pool"] if endpoint in ("conv1", "conv2", "conv5") else []
    assert names == expected


@pytest.mark.parametrize(
    ("stem", "image_size", "expected"),
    [
        ("imagenet", 224, [54, 26, 12, 12, 12, 1, 1]),  # (224 - 11) / 4 + 1 = 54.25
        ("imagenet", 67, [15, 7, 3, 3, 3, 1, 1]),
        ("imagenet", 99, [23, 11, 5, 5, 5, 1, 1]),
        ("small", 32, [32, 15, 7, 7, 7, 1, 1]),
        ("small", 28, [28, 13, 6, 6, 6, 1, 1]),
        ("small", 64, [64, 31, 15, 15, 15, 1, 1]),
    ],
)
def test_sides_at_the_built_size(stem, image_size, expected):
    backbone = alexnet(stem=stem, image_size=image_size)
    outputs = backbone.model(np.zeros((2, image_size, image_size, 3), np.float32))
    assert [outputs[endpoint].shape for endpoint in ENDPOINTS] == [
        (2, side, side, channels) for side, channels in zip(expected, backbone.channels.values(), strict=True)
    ]


def test_a_larger_picture_gives_maps_with_the_stated_strides():
    backbone = alexnet()
    assert backbone.strides == dict(zip(ENDPOINTS, (4, 8, 16, 16, 16, 32, 32), strict=True))
    assert list(alexnet(stem="small").strides.values()) == [1, 2, 4, 4, 4, 8, 8]
    assert backbone.last == "fc7"
    # 600: conv1 148, pools 73, 36, 17, fc6 17 - 4 = 13; 1000: 248, 123, 61, 30, 26
    assert sides(backbone, 600, 1000) == [(148, 248), (73, 123), (36, 61), (36, 61), (36, 61), (13, 26), (13, 26)]


def test_smaller_pictures_are_refused_up_to_the_side_that_leaves_too_little():
    # 195: conv1 47, pools 23, 11, 5; 194: 46, 22, 10, 4. TensorFlow alone would give something of a wrong shape or die.
    model = alexnet().model
    traced = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 3))])
    for call in (model, traced):
        assert call(tf.zeros((1, 195, 200, 3)))["fc7"].shape == (1, 1, 1, 64)
        for height, width in ((194, 224), (224, 194), (7, 7), (1, 1)):
            with pytest.raises(tf.errors.InvalidArgumentError, match="too small: this network needs at least 195 px"):
                call(tf.zeros((1, height, width, 3)))


# --- the function -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "image_size", "size", "options"),
    [
        ("imagenet", 99, (140, 115), {}),  # conv1 33 x 27, pools 16 x 13, 7 x 6, 3 x 2; fc6 of 2 x 2 gives 2 x 1
        ("imagenet", 75, (75, 75), {"sobel": True, "channels": (3, 5, 4, 6, 7)}),
        ("small", 24, (40, 25), {}),  # pools 19 x 12, 9 x 5, 4 x 2; fc6 of 2 x 2 gives 3 x 1
        ("small", 32, (32, 32), {"batch_norm": False}),
    ],
)
def test_endpoints_equal_a_float64_network(stem, image_size, size, options):
    assert_equals_the_reference(alexnet(3, stem, image_size, **options), size)


def test_describe_prints_the_true_sizes():
    # conv1 11 * 11 * 3 + 2, conv2 25 * 3 + 6, conv3 9 * 3 * 6 + 12, conv4 9 * 6 * 6 + 12, conv5 9 * 6 * 4 + 8,
    # fc6 4 * 64 + 128, fc7 64 * 64 + 128
    lines = describe(alexnet(image_size=67)).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["conv1", "4", "1", "15", "x", "15", "365"],
        ["conv2", "8", "3", "7", "x", "7", "81"],
        ["conv3", "16", "6", "3", "x", "3", "174"],
        ["conv4", "16", "6", "3", "x", "3", "336"],
        ["conv5", "16", "4", "3", "x", "3", "224"],
        ["fc6", "32", "64", "1", "x", "1", "384"],
        ["fc7", "32", "64", "1", "x", "1", "4,224"],
        ["total", "5,788"],
    ]
