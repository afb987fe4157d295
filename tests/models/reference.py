"""AlexNet and VGG16 written a second time, one picture at a time in float64 NumPy: what the tests compare with."""

import numpy as np

SOBEL = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])


def windows(x, size, stride):
    """[H, W, C] -> [h, w, C, size, size], the windows that lie inside."""
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(0, 1))[::stride, ::stride]


def convolve(x, kernel, stride, padding):
    """x [H, W, C] * kernel [k, k, C, D] with `padding` zeros on every side."""
    x = np.pad(x, [(padding, padding)] * 2 + [(0, 0)])
    return np.einsum("hwcij,ijcd->hwd", windows(x, kernel.shape[0], stride), kernel)


def pool(x, size):
    return windows(x, size, 2).max(axis=(-2, -1))


class PlainNetwork:
    """The endpoints of a picture [H, W, 3]; weights are looked up by their documented names."""

    def __init__(self, backbone):
        self.weights = {weight.path: weight.numpy().astype(np.float64) for weight in backbone.model.weights}
        self.architecture = backbone.architecture

    def endpoints(self, image):
        x = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        if self.architecture["sobel"]:
            kernel = np.stack([SOBEL, SOBEL.T], axis=-1)[:, :, np.newaxis]
            x = convolve(x.mean(axis=-1, keepdims=True), kernel, 1, 1)
        return self.alexnet(x) if self.architecture["name"] == "alexnet" else self.vgg16(x)

    def alexnet(self, x):
        large = self.architecture["stem"] == "imagenet"
        found = {"conv1": self.block(x, "conv1", stride=4, padding=0) if large else self.block(x, "conv1", padding=1)}
        found["conv2"] = self.block(pool(found["conv1"], 3), "conv2", padding=2)
        found["conv3"] = self.block(pool(found["conv2"], 3), "conv3", padding=1)
        found["conv4"] = self.block(found["conv3"], "conv4", padding=1)
        found["conv5"] = self.block(found["conv4"], "conv5", padding=1)
        found["fc6"] = self.block(pool(found["conv5"], 3), "fc6")
        found["fc7"] = self.block(found["fc6"], "fc7")
        return found

    def vgg16(self, x):
        found = {}
        for stage, convolutions in (("conv1", 2), ("conv2", 2), ("conv3", 3), ("conv4", 3), ("conv5", 3)):
            for number in range(1, convolutions + 1):
                x = self.block(x, f"{stage}_{number}", padding=1)
            found[stage] = x
            x = pool(x, 2)
        found["fc6"] = self.block(x, "fc6")
        found["fc7"] = self.block(found["fc6"], "fc7")
        return found

    def block(self, x, name, stride=1, padding=0):
        """Convolution, batch norm or bias, ReLU."""
        x = convolve(x, self.weights[f"{name}_conv/kernel"], stride, padding)
        if self.architecture["batch_norm"]:
            gamma, beta, mean, variance = (
                self.weights[f"{name}_bn/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
            )
            x = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
        else:
            x = x + self.weights[f"{name}_conv/bias"]
        return np.maximum(x, 0)


def give_norms_something_to_do(model, rng):
    """A fresh batch norm is the identity and a fresh bias 0. Kernels are drawn anew, so that all follows from `rng`."""
    for weight in model.weights:
        if weight.name == "kernel":
            weight.assign(rng.normal(0, np.sqrt(2 / np.prod(weight.shape[:-1])), weight.shape))
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.name in ("beta", "moving_mean", "bias"):
            weight.assign(rng.normal(0, 0.3, weight.shape))


def assert_equals_the_reference(backbone, size):
    """Compares every endpoint of a random picture of `size` px."""
    rng = np.random.default_rng(7)
    give_norms_something_to_do(backbone.model, rng)
    image = rng.random((*size, 3))
    outputs = backbone.model(image[np.newaxis].astype(np.float32), training=False)
    expected = PlainNetwork(backbone).endpoints(image)
    assert list(expected) == list(backbone.strides)
    for endpoint, values in expected.items():
        assert 0.1 < np.mean(values > 0) < 0.9, f"{endpoint}: nothing to compare, or no ReLU"
        tolerance = 1e-4 * values.max()
        np.testing.assert_allclose(outputs[endpoint][0], values, atol=tolerance, err_msg=endpoint)
