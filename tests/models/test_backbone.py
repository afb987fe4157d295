import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import Preprocessing, backbone_from_architecture, build_backbone, describe


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


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_gradient_reaches_every_trainable_weight(version, batch_norm):
    # A loss on conv5 alone: all that is trained must lie on the way there.
    model = small(resnet_version=version, batch_norm=batch_norm).model
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(pictures(), training=True)["conv5"] ** 2)
    gradients = tape.gradient(loss, model.trainable_weights)
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert gradient is not None and np.any(gradient), weight.path


@pytest.mark.parametrize("version", [1, 2])
def test_freeze_groups_fix_their_endpoints_and_nothing_behind(version):
    backbone = small(resnet_version=version)
    weights = [layer.name for layer in backbone.model.layers if layer.weights]
    assert sorted(name for group in backbone.freeze_groups.values() for name in group) == sorted(weights)
    for group in ("conv1", "conv2", "conv3"):
        for name in backbone.freeze_groups[group]:
            backbone.model.get_layer(name).trainable = False
    before = backbone.model(pictures(), training=False)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(backbone.model(pictures(), training=True)["conv5"] ** 2)
    trained = backbone.model.trainable_weights
    keras.optimizers.SGD(0.01).apply(tape.gradient(loss, trained), trained)
    after = backbone.model(pictures(), training=False)
    changed = {name for name in backbone.strides if not np.array_equal(before[name], after[name])}
    assert changed == {"conv4", "conv5"}
    assert describe(backbone) == describe(small(resnet_version=version))  # a frozen parameter is still one


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
    ],
)
def test_architecture_survives_json_and_rebuilds_the_same_function(arguments):
    backbone = small(**arguments)
    rebuilt = backbone_from_architecture(json.loads(json.dumps(backbone.architecture)))
    for field in ("strides", "channels", "freeze_groups", "architecture", "preprocessing"):
        assert getattr(rebuilt, field) == getattr(backbone, field), field
    rebuilt.model.set_weights(backbone.model.get_weights())
    for endpoint, output in backbone.model(pictures(1)).items():
        np.testing.assert_array_equal(rebuilt.model(pictures(1))[endpoint], output)


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
        ("name", "resnet101", "resnet10, resnet18, resnet34, resnet50"),
        ("resnet_version", 3, "1, 2"),
        ("resnet_version", True, "1, 2"),
        ("stem", "cifar", "imagenet, small"),
        ("batch_norm", 1, "True, False"),
        ("width", 0, "at least 1"),
        ("width", 16.0, "at least 1"),
    ],
)
def test_bad_arguments_are_named_with_the_choices(argument, value, choices):
    with pytest.raises(ValueError) as error:
        small(**{argument: value})
    message = str(error.value)
    assert message.startswith(f"{argument}={value!r}: ") and choices in message and "\n" not in message


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


def test_a_whole_network_survives_saving(tmp_path):
    model = small().model
    model.save(tmp_path / "backbone.keras")
    loaded = keras.saving.load_model(tmp_path / "backbone.keras")
    for endpoint, output in model(pictures()).items():
        np.testing.assert_allclose(loaded(pictures())[endpoint], output, atol=1e-6)
