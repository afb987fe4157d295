"""Every method on every backbone, at the smallest size that makes sense: it learns, is restored, and exports."""

import numpy as np
import pytest

from la_tf.bundle import check_serving, load_backbone
from la_tf.config import METHODS
from la_tf.estimator import Estimator, train_and_evaluate
from la_tf.experiment import Experiment
from tests.la_tf.test_flags import parsed
from tests.programs import ROOT

SIZES = {"alexnet": 16, "vgg16": 32, "resnet18": 8, "resnet50": 8}  # px; the paper's
STEPS = 2  # an epoch, of 512 of the 1,437 digits


def experiment_of(folder, method, backbone, *flags):
    config = parsed(
        "--dataset=digits", f"--model_dir={folder}", f"--method={method}", f"--backbone={backbone}", "--width=4",
        f"--image_size={SIZES[backbone]}", "--embedding_dim=16", "--batch_size=512", "--epochs=2", "--warmup_epochs=1",
        "--clusters=20", "--clusterings=2", "--background_k=64", "--learning_rate=0.01", "--exporters=", *flags,
    )  # fmt: skip
    return Experiment(config)


def trained(experiment):
    """The estimator, the embedder's trainable weights before training, the last metrics and the exports."""
    estimator = Estimator(experiment.model_fn, experiment.run_config())
    before = [weight.numpy() for weight in estimator.model.embedder.trainable_weights]
    experiment.claim()
    metrics, exports = train_and_evaluate(
        estimator, experiment.train_spec(), experiment.eval_specs(), experiment.exporters()
    )
    return estimator, before, metrics, exports


EXPORTED = {*((method, "resnet18") for method in METHODS), ("la", "alexnet"), ("dc", "vgg16"), ("swav", "resnet50")}


@pytest.mark.slow
@pytest.mark.parametrize("backbone", SIZES)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_on_a_backbone(method, backbone, tmp_path):
    """Those of EXPORTED are restored and exported as well."""
    exported = (method, backbone) in EXPORTED
    flags = ["--exporters=final"] if exported else []
    estimator, before, metrics, exports = trained(experiment_of(tmp_path, method, backbone, *flags))
    assert np.isfinite(metrics["loss"]) and 0 <= metrics["knn_top1"] <= 1
    assert estimator.step == (1 if method == "random" else 2 * STEPS)
    after = estimator.model.embedder.trainable_weights
    moved = [not np.array_equal(a, b.numpy()) for a, b in zip(before, after, strict=True)]
    assert not any(moved) if method == "random" else np.mean(moved) > 0.9, "biases before a norm may stay"
    assert np.abs(np.linalg.norm(estimator.model.bank.rows.numpy(), axis=1) - 1).max() < 1e-5
    workspace = (ROOT / "WORKSPACE.md").read_text()
    assert not [name for name in metrics if f"`{name}`" not in workspace and name not in ("step", "epoch", "time")]

    if not exported:
        return
    (export,) = exports
    assert load_backbone(export, name=backbone).architecture["width"] == 4
    check_serving(export)
    again = Estimator(experiment_of(tmp_path, method, backbone).model_fn, estimator.config)
    for name, variable in again.variables().items():
        np.testing.assert_array_equal(variable.numpy(), estimator.variables()[name].numpy(), err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--nobatch_norm"], ["--sobel"], ["--alexnet_channels=6,16,24,24,16"]])
def test_variants_of_alexnet_learn(flags, tmp_path):
    _, _, metrics, _ = trained(experiment_of(tmp_path, "la", "alexnet", *flags))
    assert np.isfinite(metrics["loss"]) and metrics["phase"] == "la"
