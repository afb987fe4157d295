"""The authors' ResNet-18 against a second version of it in plain operations, and checkpoints that do not fit."""

import numpy as np
import pytest
import tensorflow as tf

from models import tf1_weights
from tests.models.authors import AuthorsResNet18, save_checkpoint


@pytest.fixture(scope="module")
def authors():
    return AuthorsResNet18(np.random.default_rng(0))


@pytest.fixture(scope="module")
def checkpoint(authors, tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("authors") / "model.ckpt-2001800", authors.checkpoint())


@pytest.fixture(scope="module")
def found(checkpoint):
    return tf1_weights.resnet18(checkpoint)


# 64: all sides even; 75 x 50: 38 x 25, 19 x 13, ...: pools and strides meet odd sides.
@pytest.mark.parametrize("size", [(64, 64), (75, 50)])
def test_every_endpoint_is_theirs(found, authors, size):
    images = np.random.default_rng(1).random((2, *size, 3), np.float32)
    _, taps = authors(images)
    outputs = found.backbone.model(images, training=False)
    assert list(found.backbone.strides) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    for endpoint, wanted in zip(found.backbone.strides, taps, strict=True):
        np.testing.assert_allclose(outputs[endpoint], wanted, atol=1e-4 * np.abs(wanted).max(), err_msg=endpoint)


def test_the_embedding_and_the_step_come_along(found, authors):
    for array, part in zip(found.embedding, ("kernel", "bias"), strict=True):
        np.testing.assert_array_equal(array, authors.arrays[f"resnet_model/dense/{part}"])
    assert found.step == 2_001_800


def test_what_belongs_to_training_is_listed_as_unused(found):
    assert found.unused == [
        "global_step",
        "instance/all_labels",
        "instance/cluster_labels",
        "instance/memory_bank",
        "resnet_model/conv2d/kernel/Momentum",
        "resnet_model/dense/bias/Momentum",
    ]


def test_a_checkpoint_is_found_by_its_prefix_by_its_files_and_by_its_folder(checkpoint, tmp_path):
    for ending in ("", ".index", ".data-00000-of-00001", ".meta"):
        assert tf1_weights.checkpoint_prefix(f"{checkpoint}{ending}") == str(checkpoint)
    tf.compat.v1.train.update_checkpoint_state(str(checkpoint.parent), str(checkpoint))
    assert tf1_weights.checkpoint_prefix(checkpoint.parent) == str(checkpoint)
    with pytest.raises(ValueError, match=f"^{tmp_path}: the folder names no checkpoint"):
        tf1_weights.checkpoint_prefix(tmp_path)
    with pytest.raises(ValueError, match=f"^{tmp_path}/model.ckpt-1: no such TensorFlow checkpoint"):
        tf1_weights.checkpoint_prefix(tmp_path / "model.ckpt-1")


def test_every_name_and_shape_that_does_not_fit_is_listed_in_one_line(authors, tmp_path):
    arrays = authors.checkpoint()
    for name in ("resnet_model/conv2d_7/kernel", "resnet_model/batch_normalization_16/beta"):
        del arrays[name]
    arrays["resnet_model/dense/bias"] = np.zeros(1000, np.float32)
    arrays |= {"resnet_model/conv2d_21/kernel": np.zeros(1, np.float32), "ema/decay": np.float32(0.9)}
    path = save_checkpoint(tmp_path / "model.ckpt", arrays)
    with pytest.raises(ValueError) as caught:
        tf1_weights.resnet18(path)
    assert str(caught.value) == (
        f"{path}: does not fit the authors' ResNet-18; "
        "missing there: resnet_model/conv2d_7/kernel, resnet_model/batch_normalization_16/beta; "
        "unknown here: ema/decay, resnet_model/conv2d_21/kernel; "
        "of another shape: resnet_model/dense/bias (1000,) there, (128,) here"
    )


def test_another_networks_checkpoint_is_refused_shortly(tmp_path):
    path = save_checkpoint(tmp_path / "model.ckpt", {f"vgg/conv{i}/weights": np.zeros(1, np.float32) for i in range(9)})
    with pytest.raises(ValueError, match=r"does not hold the authors' ResNet-18; it has vgg/conv0/weights, ") as caught:
        tf1_weights.resnet18(path)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ending", "damage"),
    [
        (".data-00000-of-00001", lambda content: content[: len(content) // 2]),
        (".data-00000-of-00001", lambda content: content[:4000] + bytes([content[4000] ^ 1]) + content[4001:]),
        (".index", lambda content: content[: len(content) // 2]),
    ],
    ids=["cut", "flipped", "index"],
)
def test_a_damaged_checkpoint_is_said_in_one_line(checkpoint, tmp_path, ending, damage):
    for file in checkpoint.parent.glob("model.ckpt*"):
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(damage(content) if file.name.endswith(ending) else content)
    with pytest.raises(ValueError, match="no TensorFlow checkpoint, or a damaged one") as caught:
        tf1_weights.resnet18(tmp_path / checkpoint.name)
    assert "\n" not in str(caught.value)
