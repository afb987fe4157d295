import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import (
    Preprocessing,
    backbone_from_architecture,
    build_backbone,
    check_architecture,
    describe,
    smallest_input,
    stems,
)

# The smallest networks with fully connected layers, for pictures of 32 px.
PLAIN = {
    "alexnet": {"name": "alexnet", "width": 1, "preprocessing": Preprocessing(image_size=32)},
    "vgg16": {"name": "vgg16", "width": 1, "stem": "imagenet", "preprocessing": Preprocessing(image_size=32)},
}


def small(**kwargs):
    return build_backbone(**{"name": "resnet10", "width": 4, "stem": "small", **kwargs})


def pictures(count=4, side=8):
    return np.random.default_rng(0).random((count, side, side, 3)).astype(np.float32)


@pytest.mark.parametrize("version", [1, 2])
def test_names_are_given_unique_and_the_same_in_every_build(version):
    first, second = (build_backbone("resnet50", width=2, resnet_version=version).model for _ in range(2))
    paths = [weight.path for weight in first.weights]
    assert paths == [weight.path for weight in second.weights]
    assert len(set(paths)) == len(paths)
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert {"conv1_conv/kernel", "conv3_unit1_conv2/kernel", "conv3_unit1_projection/kernel"} <= set(paths)
    assert all(layer.name.startswith(("conv", "image", "normalise")) for layer in first.layers)


@pytest.mark.parametrize("plain", PLAIN)
def test_names_of_plain_networks_are_unique_and_start_with_their_endpoint(plain):
    backbone = small(**PLAIN[plain])
    paths = [weight.path for weight in backbone.model.weights]
    assert paths == [weight.path for weight in small(**PLAIN[plain]).model.weights]
    assert len(set(paths)) == len(paths)
    assert {"fc6_conv/kernel", "fc6_bn/gamma", "fc7_conv/kernel"} <= set(paths)
    assert ("conv3_2_conv/kernel" if plain == "vgg16" else "conv3_conv/kernel") in paths
    inputs = ("image", "least_side", "normalise")
    endpoints = tuple(f"{endpoint}_" for endpoint in backbone.strides)
    assert all(layer.name in inputs or layer.name.startswith(endpoints) for layer in backbone.model.layers)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [{"resnet_version": 1}, {"resnet_version": 2}, {"sobel": True}, *PLAIN.values()],
    ids=["v1", "v2", "sobel", *PLAIN],
)
def test_gradient_reaches_every_trainable_weight(arguments, batch_norm):
    # A loss on the last endpoint alone: all that is trained must lie on the way there.
    keras.utils.set_random_seed(0)
    backbone = small(**arguments, batch_norm=batch_norm)
    model, side = backbone.model, 32 if backbone.last == "fc7" else 8
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(pictures(side=side), training=True)[backbone.last] ** 2)
    gradients = tape.gradient(loss, model.trainable_weights)
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert gradient is not None and np.any(gradient), weight.path


@pytest.mark.parametrize(
    ("arguments", "frozen"),
    [
        ({"resnet_version": 1}, 3),
        ({"resnet_version": 2}, 3),
        (PLAIN["alexnet"], 6),
        (PLAIN["vgg16"], 3),
    ],
)
def test_freeze_groups_fix_their_endpoints_and_nothing_behind(arguments, frozen):
    keras.utils.set_random_seed(0)
    backbone = small(**arguments)
    images = pictures(side=32)
    weights = [layer.name for layer in backbone.model.layers if layer.weights]
    assert sorted(name for group in backbone.freeze_groups.values() for name in group) == sorted(weights)
    for group in list(backbone.strides)[:frozen]:
        for name in backbone.freeze_groups[group]:
            backbone.model.get_layer(name).trainable = False
    before = backbone.model(images, training=False)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(backbone.model(images, training=True)[backbone.last] ** 2)
    trained = backbone.model.trainable_weights
    keras.optimizers.SGD(0.01).apply(tape.gradient(loss, trained), trained)
    after = backbone.model(images, training=False)
    changed = {name for name in backbone.strides if not np.array_equal(before[name], after[name])}
    assert changed == set(list(backbone.strides)[frozen:])
    assert describe(backbone) == describe(small(**arguments))  # a frozen parameter is still one


def test_the_seed_repeats_the_weights():
    def kernel(seed):
        keras.utils.set_random_seed(seed)
        return small().model.get_layer("conv4_unit1_conv1").kernel.numpy()

    assert np.array_equal(kernel(1), kernel(1))
    assert not np.array_equal(kernel(1), kernel(2))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"name": "resnet18", "resnet_version": 1, "width": 2, "batch_norm": False, "stem": "imagenet"},
        {"preprocessing": Preprocessing(image_size=8, mean=(0, 0, 0), std=(1, 1, 1), channel_order="BGR")},
        {"sobel": True},
        {"name": "resnet50", "resnet_version": 1, "width": 2, "layout": "keras"},
        {**PLAIN["alexnet"], "channels": (2, 3, 4, 5, 6)},
        {**PLAIN["vgg16"], "batch_norm": False, "sobel": True},
    ],
)
def test_architecture_survives_json_and_rebuilds_the_same_function(arguments):
    backbone = small(**arguments)
    rebuilt = backbone_from_architecture(json.loads(json.dumps(backbone.architecture)))
    for field in ("strides", "channels", "freeze_groups", "architecture", "preprocessing"):
        assert getattr(rebuilt, field) == getattr(backbone, field), field
    rebuilt.model.set_weights(backbone.model.get_weights())
    images = pictures(1, side=32)
    for endpoint, output in backbone.model(images).items():
        np.testing.assert_array_equal(rebuilt.model(images)[endpoint], output)


def test_a_description_from_before_channels_sobel_and_layout_still_builds():
    architecture = small().architecture
    assert [architecture.pop(key) for key in ("channels", "sobel", "layout")] == [None, False, "tensorflow"]
    assert backbone_from_architecture(architecture).architecture == small().architecture


def test_arguments_by_position():
    spec = Preprocessing(image_size=16)
    backbone = build_backbone("alexnet", 2, 1, "small", False, spec, (1, 2, 3, 4, 5), True)
    assert backbone.architecture == {
        "name": "alexnet",
        "width": 2,
        "resnet_version": 1,
        "stem": "small",
        "batch_norm": False,
        "channels": [1, 2, 3, 4, 5],
        "sobel": True,
        "layout": "tensorflow",
        "preprocessing": spec.to_json(),
    }
    assert build_backbone("resnet10", 4, 2, "small", True, spec).last == "conv5"


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "resnet10"])
def test_sobel_turns_every_backbones_input_into_two_fixed_maps(name):
    plain, edges = (small(name=name, width=1, stem="imagenet", sobel=sobel).model for sobel in (False, True))
    names = [layer.name for layer in edges.layers]
    assert names.index("sobel") == names.index("normalise") + 1
    assert "sobel" not in [layer.name for layer in plain.layers]
    assert [weight.path for weight in edges.weights] == [weight.path for weight in plain.weights]
    different = [
        weight.path for weight, other in zip(edges.weights, plain.weights, strict=True) if weight.shape != other.shape
    ]
    first = "conv1_1_conv/kernel" if name == "vgg16" else "conv1_conv/kernel"
    assert different == [first]
    assert [weight.shape[2] for weight in edges.weights if weight.path == first] == [2]


@pytest.mark.parametrize(
    ("name", "stem"), [("alexnet", "imagenet"), ("alexnet", "small"), ("vgg16", "imagenet"), ("resnet10", "imagenet")]
)
def test_a_shift_of_the_picture_by_a_stride_shifts_the_endpoint_by_one(name, stem):
    # Noise on the mean colour, which normalises to 0 and stays 0 through a fresh network: no borders to be seen.
    keras.utils.set_random_seed(1)
    spec = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), image_size=100)
    backbone = build_backbone(name, 2, stem=stem, preprocessing=spec)
    step = backbone.strides[backbone.last]
    images = np.full((2, 512, 512, 3), 0.5, np.float32)
    for image, times in zip(images, (0, 1), strict=True):
        top, left = 230 + times * step, 200 + 2 * times * step
        image[top : top + 20, left : left + 20] = pictures(1, side=20)[0]
    for endpoint, stride in backbone.strides.items():
        first, second = backbone.model(images, training=False)[endpoint]
        by = step // stride
        assert np.any(first), endpoint
        np.testing.assert_allclose(second[by:, 2 * by :], first[:-by, : -2 * by], atol=1e-5, err_msg=endpoint)


# Sides by hand. alexnet: 67 -> (67 - 11) / 4 + 1 = 15 -> 7 -> 3 -> 1, and 66 -> 14 -> 6 -> 2 -> nothing;
# small: 15 -> 7 -> 3 -> 1, and 14 -> 6 -> 2 -> nothing; vgg16: five halvings.
@pytest.mark.parametrize(
    ("name", "stem", "least"),
    [
        ("alexnet", "imagenet", 67),
        ("alexnet", "small", 15),
        ("vgg16", "imagenet", 32),
        ("resnet10", "imagenet", 1),
        ("resnet18", "small", 1),
    ],
)
def test_smallest_input(name, stem, least):
    assert smallest_input(name, stem) == least
    backbone = build_backbone(name, 1, stem=stem, preprocessing=Preprocessing(image_size=least))
    outputs = backbone.model(pictures(2, side=least))
    assert outputs[backbone.last].shape == (2, 1, 1, backbone.channels[backbone.last])
    assert all(np.all(np.isfinite(output)) for output in outputs.values())
    if least > 1:
        with pytest.raises(ValueError, match=rf"^image_size={least - 1}: {name} needs at least .*{least} px with stem"):
            build_backbone(name, 1, stem=stem, preprocessing=Preprocessing(image_size=least - 1))


def test_stems():
    assert stems("vgg16") == ("imagenet",)
    assert stems("alexnet") == stems("resnet18") == ("imagenet", "small")


def test_architecture_with_other_keys_is_refused_by_name():
    architecture = small().architecture
    with pytest.raises(ValueError, match=r"^architecture: unknown key depth, dilation;"):
        backbone_from_architecture({**architecture, "dilation": 2, "depth": 18})
    with pytest.raises(ValueError, match=r"^architecture: missing key stem$"):
        backbone_from_architecture({key: value for key, value in architecture.items() if key != "stem"})
    with pytest.raises(ValueError, match=r"^preprocessing: unknown key crop;"):
        nested = {**architecture["preprocessing"], "crop": 1}
        backbone_from_architecture({**architecture, "preprocessing": nested})


@pytest.mark.parametrize(
    ("argument", "value", "choices"),
    [
        ("name", "resnet101", "alexnet, vgg16, resnet10, resnet18, resnet34, resnet50"),
        ("resnet_version", 3, "1, 2"),
        ("resnet_version", True, "1, 2"),
        ("stem", "cifar", "imagenet, small"),
        ("batch_norm", 1, "True, False"),
        ("width", 0, "at least 1"),
        ("width", 16.0, "at least 1"),
        ("sobel", 1, "True, False"),
        ("channels", (1, 2, 3, 4, 5), "only alexnet takes them, resnet10 has"),
    ],
)
def test_bad_arguments_are_named_with_the_choices(argument, value, choices):
    with pytest.raises(ValueError) as error:
        small(**{argument: value})
    message = str(error.value)
    assert message.startswith(f"{argument}={value!r}: ") and choices in message and "\n" not in message


@pytest.mark.parametrize(
    "channels", [(1, 2, 3, 4), [1, 2, 3, 4, 5, 6], (1, 2, 3, 4, 0), (1, 2, 3, 4, 5.0), (1, 2, 3, 4, True), 96, "12345"]
)
def test_bad_channels_are_named(channels):
    with pytest.raises(ValueError) as error:
        check_architecture("alexnet", 64, 2, "small", True, channels)
    assert str(error.value).startswith(f"channels={channels!r}: must be five whole numbers")


def test_vgg16_has_no_small_stem():
    with pytest.raises(ValueError, match=r"^stem='small': vgg16 has no stem of its own for small pictures"):
        check_architecture("vgg16", 64, 2, "small", True)
    with pytest.raises(ValueError, match=r"^stem='cifar': choose one of imagenet$"):
        check_architecture("vgg16", 64, 2, "cifar", True)


@pytest.mark.parametrize(("name", "version"), [("resnet50", 2), ("resnet34", 1), ("vgg16", 1)])
def test_only_resnet50_v1_has_keras_layout(name, version):
    with pytest.raises(ValueError, match=rf"^layout='keras': only resnet50 with resnet_version=1 has it, not {name} v"):
        check_architecture(name, 64, version, "imagenet", True, layout="keras")
    with pytest.raises(ValueError, match=r"^layout='caffe': choose one of tensorflow, keras$"):
        check_architecture(name, 64, version, "imagenet", True, layout="caffe")


def test_describe_lists_endpoints():
    # width 4: conv1 3*3*3*4 + 8 = 116; conv2 projection 16, two 3x3 288, norms 8 + 8 = 320;
    # conv3 4*8 + 288 + 576 + 32 = 928; conv4 8*16 + 1152 + 2304 + 64 = 3648;
    # conv5 16*32 + 4608 + 9216 + 128 = 14464
    lines = describe(small(preprocessing=Preprocessing(image_size=30))).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["conv1", "1", "4", "30", "x", "30", "116"],
        ["conv2", "1", "4", "30", "x", "30", "320"],
        ["conv3", "2", "8", "15", "x", "15", "928"],
        ["conv4", "4", "16", "8", "x", "8", "3,648"],
        ["conv5", "8", "32", "4", "x", "4", "14,464"],
        ["total", "19,476"],
    ]


@pytest.mark.parametrize("arguments", [{"sobel": True}, *PLAIN.values()], ids=["sobel", *PLAIN])
def test_a_whole_network_survives_saving(arguments, tmp_path):
    model, images = small(**arguments).model, pictures(2, side=32)
    model.save(tmp_path / "backbone.keras")
    loaded = keras.saving.load_model(tmp_path / "backbone.keras")
    for endpoint, output in model(images).items():
        np.testing.assert_allclose(loaded(images)[endpoint], output, atol=1e-6)
