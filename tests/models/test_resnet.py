"""ResNets against parameter counts by hand and against a float64 NumPy network written from the papers."""

import numpy as np
import pytest

from models import Preprocessing, build_backbone, describe

DEPTHS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


def parameters(backbone):
    return sum(np.prod(weight.shape) for weight in backbone.model.trainable_weights)


# --- parameter counts ---------------------------------------------------------------------------------------


# torchvision's 11,689,512 and 21,797,672, less a classifier of 512 * 1000 + 1000
@pytest.mark.parametrize(
    ("name", "depths", "expected"),
    [("resnet18", (2, 2, 2, 2), 11_176_512), ("resnet34", (3, 4, 6, 3), 21_284_672)],
)
def test_basic_v1_has_torchvisions_parameters(name, depths, expected):
    stem = 7 * 7 * 3 * 64 + 2 * 64  # 9,536
    stages = 0
    for c_in, c, units in zip((64, 64, 128, 256), (64, 128, 256, 512), depths, strict=True):
        projection = 0 if c_in == c else c_in * c + 2 * c
        first = 9 * c_in * c + 2 * c + 9 * c * c + 2 * c
        stages += projection + first + (units - 1) * (2 * 9 * c * c + 4 * c)
    assert stem + stages == expected
    assert parameters(build_backbone(name, resnet_version=1)) == expected


def test_resnet50_v1_has_torchvisions_parameters():
    count = 7 * 7 * 3 * 64 + 2 * 64
    for c_in, c, units in ((64, 64, 3), (256, 128, 4), (512, 256, 6), (1024, 512, 3)):
        for unit in range(units):
            inside = c_in if unit == 0 else 4 * c
            count += inside * c + 9 * c * c + c * 4 * c + 2 * (c + c + 4 * c)
        count += c_in * 4 * c + 2 * 4 * c
    assert count == 23_508_032  # torchvision's 25,557,032 less its 2048 * 1000 + 1000 classifier
    assert parameters(build_backbone("resnet50", resnet_version=1)) == 23_508_032


def test_resnet18_v2_counts_stage_by_stage():
    stages = {
        "conv1": 7 * 7 * 3 * 64 + 2 * 64,  # 9,408 + its norm behind the pool
        # projection, four 3x3, norms before all but the first (its norm is the tap before), the tap's norm
        "conv2": 64 * 64 + 4 * 36_864 + 3 * 128 + 128,
        "conv3": 64 * 128 + (73_728 + 3 * 147_456) + 3 * 256 + 256,
        "conv4": 128 * 256 + (294_912 + 3 * 589_824) + 3 * 512 + 512,
        "conv5": 256 * 512 + (1_179_648 + 3 * 2_359_296) + 3 * 1024 + 1024,
    }
    assert list(stages.values()) == [9_536, 152_064, 525_312, 2_099_200, 8_392_704]
    backbone = build_backbone("resnet18", resnet_version=2)
    assert parameters(backbone) == sum(stages.values()) == 11_178_816
    table = describe(backbone)
    for endpoint, count in stages.items():
        assert f"{count:,}" in next(line for line in table.splitlines() if line.startswith(endpoint))


def test_resnet50_v2_counts():
    count = 7 * 7 * 3 * 64 + 2 * 64
    for c_in, c, units in ((64, 64, 3), (256, 128, 4), (512, 256, 6), (1024, 512, 3)):
        for unit in range(units):
            inside = c_in if unit == 0 else 4 * c
            count += inside * c + 9 * c * c + c * 4 * c  # the three kernels
            count += 2 * c + 2 * c  # norms before the second and third
            if unit > 0:  # the norm before the first; the first unit's is the tap before
                count += 2 * inside
        count += c_in * 4 * c + 2 * 4 * c  # projection without a norm; the tap's norm
    assert count == 23_500_352
    backbone = build_backbone("resnet50", resnet_version=2)
    assert parameters(backbone) == count
    assert backbone.channels == {"conv1": 64, "conv2": 256, "conv3": 512, "conv4": 1024, "conv5": 2048}


@pytest.mark.parametrize(("version", "norms"), [(1, 12), (2, 9)])
def test_without_batch_norm_the_convolutions_have_biases(version, norms):
    # resnet10 has 9 convolutions in stem and units; v1 has 3 projections and a norm behind each of the 12, v2
    # has 4 projections and a norm before each of the 8 in the units plus the last one.
    with_norm, without = (
        build_backbone("resnet10", width=4, resnet_version=version, batch_norm=batch_norm).model
        for batch_norm in (True, False)
    )
    kernels = 9 + (3 if version == 1 else 4)
    assert sorted(weight.name for weight in without.weights) == ["bias"] * kernels + ["kernel"] * kernels
    names = [weight.name for weight in with_norm.weights]
    assert (names.count("gamma"), names.count("kernel"), names.count("bias")) == (norms, kernels, 0)


# --- shapes and strides -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("stem", "size", "sides"),
    [
        ("imagenet", (224, 224), [(56, 56), (56, 56), (28, 28), (14, 14), (7, 7)]),
        ("imagenet", (600, 1000), [(150, 250), (150, 250), (75, 125), (38, 63), (19, 32)]),
        ("imagenet", (33, 1), [(9, 1), (9, 1), (5, 1), (3, 1), (2, 1)]),
        ("small", (32, 32), [(32, 32), (32, 32), (16, 16), (8, 8), (4, 4)]),
        ("small", (16, 9), [(16, 9), (16, 9), (8, 5), (4, 3), (2, 2)]),
    ],
)
def test_endpoint_shapes(version, stem, size, sides):
    backbone = build_backbone("resnet10", width=2, resnet_version=version, stem=stem)
    outputs = backbone.model(np.zeros((1, *size, 3), np.float32))
    assert [tuple(outputs[name].shape) for name in backbone.strides] == [
        (1, *side, channels) for side, channels in zip(sides, (2, 2, 4, 8, 16), strict=True)
    ]
    assert backbone.model.input_shape == (None, None, None, 3)
    assert list(backbone.strides) == ["conv1", "conv2", "conv3", "conv4", "conv5"]
    assert list(backbone.strides.values()) == ([4, 4, 8, 16, 32] if stem == "imagenet" else [1, 1, 2, 4, 8])


# --- the function -------------------------------------------------------------------------------------------


def convolve(x, kernel, stride):
    """x [H, W, C] * kernel [k, k, C, D], k // 2 zeros on every side."""
    size = kernel.shape[0]
    padded = np.pad(x, [(size // 2, size // 2)] * 2 + [(0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(0, 1))[::stride, ::stride]
    return np.einsum("hwcij,ijcd->hwd", windows, kernel)


def pool(x, layout):
    """3x3 stride 2 max over the pixels there are; windows start at -1, but in even pictures of SAME at 0."""
    before = [1 if layout == "keras" else side % 2 for side in x.shape[:2]]
    padded = np.pad(x, [(before[0], 2), (before[1], 2), (0, 0)], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))[::2, ::2]
    return windows.max(axis=(-2, -1))[: -(-x.shape[0] // 2), : -(-x.shape[1] // 2)]


class Reference:
    """The endpoints of one image [H, W, 3] in float64; weights are looked up by their documented names."""

    def __init__(self, backbone):
        self.weights = {weight.path: weight.numpy().astype(np.float64) for weight in backbone.model.weights}
        self.architecture = backbone.architecture

    def conv(self, x, name, stride=1):
        bias = self.weights.get(f"{name}/bias", 0)
        return convolve(x, self.weights[f"{name}/kernel"], stride) + bias

    def norm(self, x, name):
        if f"{name}/gamma" not in self.weights:
            return x
        gamma, beta, mean, variance = (
            self.weights[f"{name}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    def endpoints(self, image):
        name, version, stem = (self.architecture[key] for key in ("name", "resnet_version", "stem"))
        unit = self.unit_v1 if version == 1 else self.unit_v2
        x = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        x = self.conv(x, "conv1_conv", 2 if stem == "imagenet" else 1)
        x = np.maximum(self.norm(x, "conv1_bn"), 0) if version == 1 else x
        x = pool(x, self.architecture["layout"]) if stem == "imagenet" else x
        # In v2 `x` is the sum before any activation; an endpoint is its norm and ReLU.
        found = {"conv1": x if version == 1 else np.maximum(self.norm(x, "conv1_bn"), 0)}
        for stage, units in zip(("conv2", "conv3", "conv4", "conv5"), DEPTHS[name], strict=True):
            tap = list(found)[-1]
            for number in range(1, units + 1):
                label = f"{stage}_unit{number}"
                norm = f"{tap}_bn" if number == 1 else f"{label}_bn1"
                x = unit(x, label, norm, 2 if number == 1 and stage != "conv2" else 1)
            found[stage] = x if version == 1 else np.maximum(self.norm(x, f"{stage}_bn"), 0)
        return found

    def strides(self, stride):
        if self.architecture["layout"] == "keras":
            return stride, 1, 1
        return (1, stride, 1) if self.architecture["name"] == "resnet50" else (stride, 1)

    def unit_v1(self, x, label, _, stride):
        shortcut = x
        if f"{label}_projection/kernel" in self.weights:
            shortcut = self.norm(self.conv(x, f"{label}_projection", stride), f"{label}_projection_bn")
        steps = self.strides(stride)
        for position, step in enumerate(steps, start=1):
            x = self.norm(self.conv(x, f"{label}_conv{position}", step), f"{label}_bn{position}")
            x = np.maximum(x, 0) if position < len(steps) else x
        return np.maximum(x + shortcut, 0)

    def unit_v2(self, x, label, first_norm, stride):
        shortcut, x = x, np.maximum(self.norm(x, first_norm), 0)
        if label.endswith("unit1"):
            shortcut = self.conv(x, f"{label}_projection", stride)
        for position, step in enumerate(self.strides(stride), start=1):
            if position > 1:
                x = np.maximum(self.norm(x, f"{label}_bn{position}"), 0)
            x = self.conv(x, f"{label}_conv{position}", step)
        return shortcut + x


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("name", "stem", "size", "batch_norm"),
    [
        (
            "resnet10",
            "imagenet",
            (64, 46),
            True,
        ),  # 46 -> 23 -> 12 -> 6 -> 3 -> 2: pools and strides meet odd sides
        ("resnet18", "small", (16, 11), True),
        ("resnet10", "small", (8, 8), False),
        ("resnet50", "small", (9, 8), True),
    ],
)
def test_endpoints_equal_a_float64_network(version, name, stem, size, batch_norm):
    assert_equals_the_reference(
        build_backbone(name, width=3, resnet_version=version, stem=stem, batch_norm=batch_norm), size
    )


# 62 and 45: the pool meets 31 and 23 (odd: SAME pads as Keras does), then 60: 30 (even, where the two differ).
@pytest.mark.parametrize("size", [(62, 45), (60, 64)])
@pytest.mark.parametrize("layout", ["tensorflow", "keras"])
def test_resnet50_v1_strides_and_pads_as_its_layout_says(layout, size):
    assert_equals_the_reference(build_backbone("resnet50", width=2, resnet_version=1, layout=layout), size)


def assert_equals_the_reference(backbone, size):
    rng = np.random.default_rng(7)
    for weight in backbone.model.weights:  # a fresh norm is the identity: give it something to do
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(rng.normal(0, 0.3, weight.shape))
    image = rng.random((*size, 3))
    outputs = backbone.model(image[None].astype(np.float32), training=False)
    for endpoint, expected in Reference(backbone).endpoints(image).items():
        tolerance = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(outputs[endpoint][0], expected, atol=tolerance, err_msg=endpoint)


def test_normalisation_comes_first_and_takes_the_given_spec():
    spec = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), image_size=8)
    model = build_backbone("resnet10", width=2, stem="small", preprocessing=spec).model
    assert [layer.name for layer in model.layers[:2]] == ["image", "normalise"]
    np.testing.assert_allclose(model.get_layer("normalise")(np.full((1, 1, 1, 3), 0.75, np.float32)), 1.0)
