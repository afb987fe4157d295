"""Precise statistics: what float64 NumPy finds over all batches together, and nothing but what was asked for."""

import keras
import numpy as np
import pytest

from data.errors import FlagError
from data.voc import VOC_CLASSES
from detection.batch_statistics import Recalibration, exported, learning, measure
from detection.config import DataOptions, DetectionConfig, DetectorOptions, OptimizerOptions, RunOptions
from detection.experiment import Experiment
from detection.input import TrainingPictures
from la_tf import checkpoints, model_dir
from models.layers import FusedBatchNormalization
from tests.data.voc_folders import some_pictures, write_devkit
from tests.detection.small import batch_of, picture, small_backbone, small_detector

BATCHES = [
    batch_of(picture(80, 97, 1), picture(67, 112, 2)),
    batch_of(picture(96, 70, 3), picture(90, 81, 4)),
]


class TwoNorms(keras.Model):
    """Stands for a detector: its losses are one batch norm away from its input."""

    def __init__(self):
        super().__init__()
        self.norm = FusedBatchNormalization(momentum=0.9)
        self.frozen = FusedBatchNormalization(momentum=0.9, trainable=False)

    def losses(self, batch):
        """Passes a batch through the norms."""
        return [norm(batch["image"], training=True) for norm in (self.norm, self.frozen)]


def built():
    """Two norms that have their weights already, as those of a detector have."""
    model = TwoNorms()
    for layer in (model.norm, model.frozen):
        layer.build((None, None, None, 3))
    return model


def statistics(layer):
    return layer.moving_mean.numpy(), layer.moving_variance.numpy()


def inputs_of_norms(detector, batches):
    """What each batch norm gets at the pictures' own positions when nothing is trained, float64 [n, C], by its name."""
    seen, call = {}, FusedBatchNormalization.call

    def recorded(layer, inputs, training=None, mask=None):
        own = inputs.numpy() if mask is None else inputs.numpy()[mask.numpy()]
        seen.setdefault(layer.name, []).append(own.reshape(-1, own.shape[-1]).astype(np.float64))
        return call(layer, inputs, training=training, mask=mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FusedBatchNormalization, "call", recorded)
        for batch in batches:
            detector.losses(batch, training=False)
    return seen


# -- measuring --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["norm", "frozen"])
def test_statistics_are_those_of_all_batches_and_other_norms_keep_theirs(which):
    rng = np.random.default_rng(0)
    batches = [
        rng.normal(mean, deviation, (4, 5, 6, 3)).astype(np.float32) for mean, deviation in ((0, 1), (2, 0.5), (-3, 2))
    ]
    model = built()
    measured, other = (model.norm, model.frozen) if which == "norm" else (model.frozen, model.norm)
    measure(model, [{"image": batch} for batch in batches], [measured])
    values = np.concatenate(batches).astype(np.float64).reshape(-1, 3)
    np.testing.assert_allclose(measured.moving_mean, values.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(measured.moving_variance, values.var(0), rtol=1e-4)
    np.testing.assert_array_equal(statistics(other), (np.zeros(3), np.ones(3)))
    assert model.norm.momentum == model.frozen.momentum == 0.9
    assert learning(model) == [model.norm] and not model.frozen.trainable_weights


def test_training_goes_on_with_its_own_momentum():
    model = built()
    ones = np.ones((2, 3, 3, 3), np.float32)
    measure(model, [{"image": ones}], learning(model))
    model.norm(2 * ones, training=True)
    np.testing.assert_allclose(model.norm.moving_mean, 0.9 * np.ones(3) + 0.1 * 2, rtol=1e-5)


def test_a_large_mean_leaves_the_variance_what_it_is():
    """Squares of 37.1 would drown it in float32: 200 batches without any spread have the variance 0."""
    model = built()
    measure(model, [{"image": np.full((2, 3, 3, 3), 37.1, np.float32)}] * 200, learning(model))
    np.testing.assert_allclose(model.norm.moving_mean, np.full(3, 37.1), rtol=1e-6)
    np.testing.assert_allclose(model.norm.moving_variance, np.zeros(3), atol=1e-6)


def test_a_failure_leaves_norms_as_they_learn():
    model = built()
    with pytest.raises(ZeroDivisionError):
        measure(model, (1 / 0 for _ in range(1)), [model.frozen])
    assert (model.norm.momentum, model.frozen.momentum, model.frozen.trainable) == (0.9, 0.9, False)


# -- recalibrated norms -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recalibrated():
    """A detector whose norms have been measured over BATCHES; conv1 and conv2 of its backbone are frozen."""
    options = {"batch_norm": "recalibrated", "freeze_at": 2, "extra_norm": True, "append_truth": True}
    detector = small_detector(options=options)
    hook = Recalibration(lambda first_step: iter(BATCHES[first_step:] * 2), len(BATCHES))
    hook.set_model(detector)
    hook.on_train_begin({"step": 0})
    return detector


def test_the_norms_of_an_export_are_all_but_the_extra_one(recalibrated):
    names = {layer.name for layer in recalibrated._flatten_layers() if isinstance(layer, FusedBatchNormalization)}
    assert names - {layer.name for layer in exported(recalibrated)} == {"extra_norm"}
    assert {name.split("_")[0] for name in names} >= {"conv1", "conv2", "conv3", "conv4", "conv5"}
    assert [layer.name for layer in learning(recalibrated)] == ["extra_norm"]


def test_the_first_norm_has_the_moments_of_all_batches_of_pictures(recalibrated):
    """It alone is behind no other, so that it gets the same after measuring as while; each batch counts the same."""
    name, batches = next(iter(inputs_of_norms(recalibrated, BATCHES).items()))
    first = recalibrated.trunk.get_layer(name)
    assert len({len(batch) for batch in batches}) == 2  # positions: padding has no part in it
    mean = np.mean([batch.mean(0) for batch in batches], axis=0)
    squares = np.mean([np.square(batch - mean).mean(0) for batch in batches], axis=0)
    np.testing.assert_allclose(first.moving_mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(first.moving_variance, squares, rtol=1e-4, atol=1e-6)


def test_of_one_batch_every_norm_has_the_moments_of_what_it_will_get(recalibrated):
    """Frozen stages' too, and those of the head; the extra norm, which learns, keeps what it has."""
    extra = recalibrated.head.get_layer("extra_norm")
    before = statistics(extra)
    measure(recalibrated, BATCHES[:1], exported(recalibrated))
    seen = inputs_of_norms(recalibrated, BATCHES[:1])
    for layer in exported(recalibrated):
        (values,) = seen[layer.name]
        deviation = values.std(0).max()
        np.testing.assert_allclose(layer.moving_mean, values.mean(0), atol=1e-4 * deviation, err_msg=layer.name)
        np.testing.assert_allclose(layer.moving_variance, values.var(0), rtol=1e-3, atol=1e-6, err_msg=layer.name)
    np.testing.assert_array_equal(statistics(extra), before)


def test_training_leaves_recalibrated_norms_where_they_are(recalibrated):
    norms = exported(recalibrated)
    before = [[weight.numpy() for weight in layer.weights] for layer in norms]
    extra = statistics(recalibrated.head.get_layer("extra_norm"))
    kernel = recalibrated.head.get_layer("conv5_unit1_conv1").kernel
    learned = kernel.numpy()
    for batch in [*BATCHES, BATCHES[0]]:
        recalibrated.train_step(batch)
    assert not np.array_equal(kernel, learned)
    for layer, weights in zip(norms, before, strict=True):
        for weight, wanted in zip(layer.weights, weights, strict=True):
            np.testing.assert_array_equal(weight, wanted, err_msg=weight.path)
    assert not np.array_equal(statistics(recalibrated.head.get_layer("extra_norm")), extra)


def test_a_run_that_has_begun_is_not_measured_again():
    def batches(first_step):
        raise AssertionError(f"pictures of step {first_step} were read")

    hook = Recalibration(batches, 2)
    hook.set_model(built())
    hook.on_train_begin({"step": 2})
    np.testing.assert_array_equal(statistics(hook.model.norm), (np.zeros(3), np.ones(3)))


# -- of a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    """Three pictures, which are six with the mirrored ones."""
    return write_devkit(tmp_path_factory.mktemp("devkit"), {"train": some_pictures(3), "val": some_pictures(1)})


def begun(folder, devkit, batch_norm, val_set=None, precise_batches=0, with_norms=True):
    """A run that has begun, of which nothing is there but its config and the name of a checkpoint."""
    config = DetectionConfig(
        DataOptions(devkit=str(devkit), train_set="train", val_set=val_set),
        DetectorOptions(batch_norm=batch_norm),
        OptimizerOptions(),
        RunOptions(model_dir=str(folder), precise_batches=precise_batches),
    )
    architecture = small_backbone(batch_norm=with_norms).architecture
    identity = {**config.identity(), "architecture": architecture, "weights": "w", "classes": [*VOC_CLASSES]}
    model_dir.write_json(folder / "config.json", {"identity": identity, "circumstances": config.circumstances()})
    checkpoints.path_of(folder, 2).mkdir(parents=True)
    return Experiment(config)


@pytest.mark.parametrize(
    ("batch_norm", "val_set", "precise_batches", "specs", "measured"),
    [
        ("recalibrated", "val", 5, ["val"], 5),
        ("recalibrated", None, 0, [], 6),  # all of an epoch
        ("local", "val", 5, ["statistics", "val"], None),
    ],
)
def test_recalibrated_norms_are_measured_before_the_run_and_not_before_evaluations(
    devkit, tmp_path, batch_norm, val_set, precise_batches, specs, measured
):
    experiment = begun(tmp_path, devkit, batch_norm, val_set, precise_batches)
    assert [spec.name for spec in experiment.eval_specs()] == specs
    counts = [hook.count for hook in experiment.train_spec().hooks if isinstance(hook, Recalibration)]
    assert counts == ([] if measured is None else [measured])


def test_of_a_large_set_two_hundred_batches_are_enough(devkit, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingPictures, "steps_per_epoch", 1000)
    experiment = begun(tmp_path, devkit, "recalibrated")
    assert [hook.count for hook in experiment.train_spec().hooks if isinstance(hook, Recalibration)] == [200]


def test_a_backbone_without_norms_has_none_to_recalibrate(devkit, tmp_path):
    with pytest.raises(FlagError, match=r"^--batch_norm=recalibrated: the export has no batch norms"):
        begun(tmp_path, devkit, "recalibrated", with_norms=False)
