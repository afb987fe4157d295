"""What a detector takes from an export, what it says of it, and what it refuses."""

import h5py
import numpy as np
import pytest

from data.errors import UserError
from detection import loading
from la_tf import bundle
from la_tf.embedding import build_embedder
from tests.detection.small import small_backbone, small_detector


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """The folder of an export, and the backbone in it."""
    folder = tmp_path_factory.mktemp("exports") / "resnet10"
    backbone = small_backbone(resnet_version=1)
    bundle.write(folder, build_embedder(backbone, 16), step=7)
    return folder, backbone


def test_the_weights_are_the_exports(export):
    folder, exported = export
    backbone = loading.load(folder, {"name": "resnet10", "resnet_version": 1, "channel_order": "RGB"})
    for weight, wanted in zip(backbone.model.weights, exported.model.weights, strict=True):
        np.testing.assert_array_equal(weight, wanted)


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"name": "vgg16"}, "name is 'resnet10' there, 'vgg16' wanted here"),
        ({"resnet_version": 2}, "resnet_version is 1 there, 2 wanted here"),
        ({"width": 64}, "width is 8 there, 64 wanted here"),
        ({"std": [0.5, 0.5, 0.5]}, "std is [0.229, 0.224, 0.225] there, [0.5, 0.5, 0.5] wanted here"),
        ({"channel_order": "BGR"}, "channel_order is 'RGB' there, 'BGR' wanted here"),
    ],
)
def test_another_network_is_refused_and_both_are_named(export, expected, said):
    with pytest.raises(UserError) as refused:
        loading.load(export[0], expected)
    assert said in str(refused.value) and "--export=" in str(refused.value)


def test_the_self_check_finds_a_changed_weight(export, tmp_path):
    folder = tmp_path / "changed"
    folder.mkdir()
    for name in ("backbone.json", "backbone.weights.h5", "self_check.npz"):
        (folder / name).write_bytes((export[0] / name).read_bytes())
    with h5py.File(folder / "backbone.weights.h5", "a") as file:
        file["conv4_unit1_conv1/kernel"][...] *= 1.5
    with pytest.raises(UserError, match="the self-check failed"):
        loading.load(folder, {})


def test_each_weight_is_loaded_missing_or_unused(export):
    folder, _ = export
    backbone = loading.load(folder, {})
    detector = small_detector(backbone=backbone, options={"extra_norm": True})
    found = loading.compared(detector, backbone, folder)
    assert found.unused == ["embedding/bias", "embedding/kernel"]
    assert {path.split("/")[0] for path in found.missing} == {
        "rpn_conv", "rpn_classes", "rpn_boxes", "roi_classes", "roi_boxes", "extra_norm",
    }  # fmt: skip
    assert {*found.loaded} == {weight.path for weight in backbone.model.weights}
    text = loading.report(found, folder)
    assert f"{len(found.loaded)} weights taken over" in text and "rpn_conv/kernel" in text and "embedding/bias" in text


def test_the_table_counts_what_learns(export):
    """Stage conv2 of width 8: two 3x3 convolutions 8 -> 8, and two norms of 8 scales and 8 shifts."""
    backbone = loading.load(export[0], {})
    lines = {
        freeze_at: loading.stages(
            small_detector(backbone=loading.load(export[0], {}), options={"freeze_at": freeze_at})
        )
        for freeze_at in (1, 2)
    }
    row = {
        freeze_at: next(line.split() for line in text.splitlines() if line.startswith("conv2"))
        for freeze_at, text in lines.items()
    }
    kernels = 2 * 3 * 3 * 8 * 8
    assert row[1] == ["conv2", f"{kernels + 4 * 8:,}", f"{kernels:,}", "frozen"]
    assert row[2] == ["conv2", f"{kernels + 4 * 8:,}", "0", "frozen"]
    learning = loading.stages(small_detector(backbone=backbone, options={"freeze_at": 0, "batch_norm": "local"}))
    assert "of its batch" in learning and "frozen" not in learning
    stages = [line.split()[0] for line in learning.splitlines()[2:]]
    assert stages == ["conv1", "conv2", "conv3", "conv4", "conv5", "rpn", "roi", "total"]
