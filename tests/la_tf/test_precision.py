"""Half precision and XLA: what stays float32, what a skipped step does, and that compiled numbers are the same ones."""

from dataclasses import replace

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from data.errors import UserError
from la_tf import bundle, checkpoints
from la_tf.config import Config, method_class
from la_tf.embedding import UnitLength, build_embedder
from la_tf.estimator import Estimator
from la_tf.instance_recognition import InstanceRecognition
from la_tf.loss_scaling import LossScaling
from la_tf.memory_bank import MemoryBank
from la_tf.specs import ModeKeys, RunConfig, TrainSpec
from la_tf.supervised import Supervised
from models import Preprocessing, build_backbone, layers
from models.precision import building_in
from tests.la_tf import reference

N, D, SIZE = 40, 8, 8
IMAGES = np.random.default_rng(0).random((N, SIZE, SIZE, 3), np.float32)


def embedder(precision="float32"):
    keras.utils.set_random_seed(0)
    spec = Preprocessing(image_size=SIZE)
    return build_embedder(build_backbone("resnet10", 8, stem="small", preprocessing=spec, precision=precision), D)


def small_embedder(precision="float32"):
    """Two convolutions with batch norm: as little as shows what whole networks show."""
    keras.utils.set_random_seed(0)
    x = images = keras.Input((SIZE, SIZE, 3))
    with building_in(precision):
        for number in (1, 2):
            x = layers.rectified_convolution(x, 8, 3, f"conv{number}", stride=number)
    features = keras.layers.GlobalAveragePooling2D(dtype="float32")(x)
    rows = keras.layers.Dense(D, name="embedding")(features)
    return keras.Model(images, UnitLength(name="unit_length")(rows), name="embedder")


def batch(step=0):
    indices = np.arange(8) + 8 * (step % 5)
    values = {"image": IMAGES[indices], "index": indices, "label": indices % 3, "valid": np.full(8, True)}
    return {name: tf.constant(value) for name, value in values.items()}


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_only_what_lies_within_the_backbone_is_computed_in_16_bits(precision):
    model = InstanceRecognition(embedder(precision), N)
    assert keras.config.dtype_policy().name == "float32"
    network = model.embedder.backbone.model
    whole = {layer.name for layer in network.layers if layer.compute_dtype != precision.removeprefix("mixed_")}
    assert whole == {"normalise"}
    assert network(IMAGES[:2])["conv5"].dtype == precision.removeprefix("mixed_")
    with tf.GradientTape() as tape:
        losses, embeddings = model.training_losses(batch())
    assert losses.dtype == embeddings.dtype == tf.float32
    assert {gradient.dtype for gradient in tape.gradient(losses, model.trainable_weights)} == {tf.float32}
    assert {weight.dtype for weight in model.weights} == {"float32", "bool"}
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    # Half precision, and no more than that, apart from the network in float32.
    wanted = embedder()(IMAGES[:8], training=True).numpy()
    assert 1e-5 < np.abs(wanted - embeddings).max() < 0.05


@pytest.mark.parametrize("method", ["dc", "swav", "supervised"])
def test_what_a_method_puts_behind_the_backbone_is_float32(method):
    backbone = embedder("mixed_bfloat16").backbone
    config = Config.from_flat({"dataset": "digits", "model_dir": "runs/x", "head_units": 16, "dc_head": "b"})
    config = replace(config, model=replace(config.model, embedding_dim=D))
    rows = method_class(method).build_embedder(backbone, config)
    behind = [layer for layer in rows.layers if layer is not backbone.model and layer not in backbone.model.layers]
    assert len(behind) >= 3 and {layer.compute_dtype for layer in behind} == {"float32"}
    assert rows(IMAGES[:1]).dtype == tf.float32


def test_pixels_are_not_rounded_before_their_mean_is_taken_off():
    image = np.full((1, SIZE, SIZE, 3), 0.4851, np.float32)  # ImageNet's mean of red is 0.485
    network = build_backbone("resnet10", 4, stem="small", precision="mixed_bfloat16").model
    seen = keras.Model(network.inputs[0], network.get_layer("normalise").output)(image).numpy()
    np.testing.assert_allclose(seen[..., 0], 0.0001 / 0.229, rtol=1e-3)


def test_an_export_computes_in_float32_and_the_run_goes_on_in_its_own_precision(tmp_path):
    mixed = embedder("mixed_bfloat16")
    before = mixed(IMAGES[:8]).numpy()
    folder = bundle.write(tmp_path / "1", mixed, step=1)
    whole = embedder()
    whole.set_weights(mixed.get_weights())
    wanted = whole(IMAGES[:8]).numpy()
    assert np.abs(before - wanted).max() > 1e-4  # or the next line would show nothing
    served = tf.saved_model.load(str(folder)).signatures["embed"](images=tf.constant(IMAGES[:8]))["embedding"]
    np.testing.assert_allclose(served, wanted, atol=1e-5)
    bundle.check_serving(folder)
    loaded = bundle.load_backbone(folder)  # after its self-check
    np.testing.assert_allclose(loaded.model(IMAGES[:8])["conv5"], whole.backbone.model(IMAGES[:8])["conv5"], atol=1e-4)
    np.testing.assert_array_equal(mixed(IMAGES[:8]).numpy(), before)


@pytest.mark.parametrize("graph", [True, False])
def test_a_step_with_gradients_that_overflow_is_skipped_and_counted(graph):
    weight = keras.Variable([1.0, 2.0], name="weight")
    rates = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1, 2], [1.0, 10.0, 100.0, 1000.0])
    optimizer = LossScaling(keras.optimizers.SGD(rates), initial_scale=8.0, dynamic_growth_steps=2)
    optimizer.build([weight])
    apply = lambda gradient: optimizer.apply([gradient], [weight])  # noqa: E731
    apply = tf.function(apply) if graph else apply
    found = []
    for gradient in ([8.0, 16.0], [np.inf, 1.0], [4.0, 8.0], [4.0, 8.0]):
        apply(tf.constant(gradient))
        found.append((weight.numpy().tolist(), float(optimizer.dynamic_scale), int(optimizer.iterations)))
    # Scales 8, 8, 4, 4; the rate of the third step is 100, as if the second had been taken.
    wanted = [([0, 0], 8, 1), ([0, 0], 4, 2), ([-100, -200], 4, 3), ([-1100, -2200], 8, 4)]
    assert found == wanted


def estimator(folder, first_steps=None, optimizer=None, method=InstanceRecognition):
    def model_fn():
        model = method(small_embedder("mixed_float16"), N)
        model.compile(optimizer or LossScaling(keras.optimizers.SGD(0.05, momentum=0.9), 2.0**24, 4))
        return model

    def input_fn(mode, context):
        assert mode == ModeKeys.TRAIN
        if first_steps is not None:
            first_steps.append(context.first_step)
        step = context.first_step
        while True:
            yield batch(step)
            step += 1

    run = Estimator(model_fn, RunConfig(model_dir=str(folder)))
    run.train_to = lambda steps: run.train(TrainSpec(input_fn, max_steps=steps, steps_per_epoch=5))
    return run


def test_an_interrupted_float16_run_ends_as_a_whole_one_skipped_steps_included(tmp_path):
    whole, first, rest, first_steps = estimator(tmp_path / "a"), estimator(tmp_path / "b"), None, []
    whole.train_to(15)
    first.train_to(7)
    scale = float(first.model.optimizer.dynamic_scale)
    skipped = np.log2(2.0**24 / scale)
    assert first.step == 7 and skipped >= 2, "the scale that it starts with is too small to see anything"
    rest = estimator(tmp_path / "b", first_steps)
    assert float(rest.model.optimizer.dynamic_scale) == scale
    rest.train_to(15)
    assert first_steps == [7] and rest.step == whole.step == 15
    for name in whole.get_variable_names():
        np.testing.assert_array_equal(rest.get_variable_value(name), whole.get_variable_value(name), err_msg=name)
    assert whole.get_variable_value("optimizer/dynamic_scale") > scale / 64
    untrained = small_embedder().get_layer("embedding").kernel
    assert not np.array_equal(whole.get_variable_value("embedding/kernel"), untrained)


class Undefined(InstanceRecognition):
    """Its gradient is no number, its loss is one."""

    def training_losses(self, batch):
        losses, embeddings = super().training_losses(batch)
        return losses + tf.sqrt(0.0 * tf.reduce_sum(embeddings, axis=1)), embeddings


def test_a_run_all_of_whose_steps_are_skipped_ends(tmp_path):
    run = estimator(tmp_path, optimizer=LossScaling(keras.optimizers.SGD(0.1), 4.0), method=Undefined)
    with pytest.raises(UserError, match=r"^--precision=mixed_float16: the gradients are not finite at step 5"):
        run.train_to(5)


@pytest.mark.parametrize(
    ("method", "arguments"), [(InstanceRecognition, {}), (Supervised, {"classes": 3})], ids=["embedder", "part of it"]
)
def test_xla_takes_the_same_steps(method, arguments):
    results = []
    for xla in (False, True):
        model = method(small_embedder(), N, xla=xla, **arguments)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
        model.optimizer.build(model.trainable_variables)
        if method is Supervised:
            model.classifier.kernel.assign(np.random.default_rng(1).standard_normal((D, 3)))
        step = tf.function(model.train_step).get_concrete_function(batch())
        compiled = [node.name for node in step.graph.as_graph_def().node if node.attr["_XlaMustCompile"].b]
        assert len(compiled) == (2 if xla else 0), "the pass forward and the pass back"
        losses = [float(step(batch(number))["loss"]) for number in range(3)]
        results.append([losses, *(weight.numpy() for weight in model.weights if weight.dtype == "float32")])
    for plain, by_xla in zip(*results, strict=True):  # moving statistics and bank among them
        np.testing.assert_allclose(by_xla, plain, atol=1e-4)


ROUNDED = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


@pytest.mark.parametrize("dtype", ROUNDED)
def test_a_bank_row_is_equation_5_in_float32_then_rounded(dtype):
    bank = MemoryBank(N, 64, momentum=0.3, dtype=dtype)
    assert bank.rows.dtype == dtype
    old, rng = bank.rows.numpy(), np.random.default_rng(1)
    rows, valid = np.array([3, 7, 3, 11, 30]), np.array([True, True, True, False, True])
    v = reference.unit(rng.standard_normal((5, 64)))
    tf.function(bank.update)(tf.constant(rows), tf.constant(v, tf.float32), tf.constant(valid))
    whole = reference.bank_after(old.astype(np.float64), rows[valid], v[valid], 0.3)
    found, wanted = bank.rows.numpy(), whole.astype(ROUNDED[dtype])
    assert found.dtype == ROUNDED[dtype]
    # float32 may fall on the other side of the middle between two 16-bit numbers, but rarely.
    changed = [3, 7, 30]
    assert np.mean(found[changed] != wanted[changed]) < 0.02
    spacing = ml_dtypes.finfo(ROUNDED[dtype]).eps
    np.testing.assert_allclose(found[changed].astype(np.float64), whole[changed], rtol=0.51 * float(spacing), atol=1e-7)
    np.testing.assert_array_equal(np.delete(found, changed, 0), np.delete(old, changed, 0))
    # How far from unit length the class says that rows are.
    assert np.abs(np.linalg.norm(bank.float32_rows().astype(np.float64), axis=1) - 1).max() < 2e-3


@pytest.mark.parametrize("dtype", ROUNDED)
def test_a_16_bit_bank_comes_back_from_a_checkpoint_as_it_was(dtype, tmp_path):
    bank, other = MemoryBank(N, D, dtype=dtype, seed=1), MemoryBank(N, D, dtype=dtype, seed=2)
    bank.fill([3, 5], reference.unit(np.random.default_rng(0).standard_normal((2, D))))
    folder = checkpoints.write(tmp_path, 1, {weight.path: weight.numpy() for weight in bank.weights}, {}, keep=1)
    checkpoints.fill(other.weights, folder)
    assert (bank.rows.numpy() == other.rows.numpy()).all() and other.written.numpy().nonzero()[0].tolist() == [3, 5]
    with checkpoints.read_arrays(folder) as arrays:
        stored = arrays["memory_bank/rows"]
    assert stored.dtype.kind == "f"
    np.testing.assert_array_equal(stored, bank.float32_rows())


@pytest.mark.parametrize("dtype", ROUNDED)
def test_similarities_and_softmax_with_a_16_bit_bank_are_float32(dtype):
    model = InstanceRecognition(small_embedder(), N, bank_dtype=dtype, tau=0.1)
    losses, embeddings = tf.function(model.training_losses)(batch())
    bank = model.bank.rows.numpy().astype(np.float64)
    wanted, _ = reference.instance_recognition(embeddings.numpy().astype(np.float64), bank, np.arange(8), 0.1)
    assert losses.dtype == embeddings.dtype == tf.float32
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)


def test_noise_contrast_with_a_16_bit_bank_is_float32():
    model = InstanceRecognition(small_embedder(), N, bank_dtype="bfloat16", ir_loss="nce", noise_rows=16)
    model.compile(keras.optimizers.SGD(0.05))
    losses, _ = model.training_losses(batch())
    assert losses.dtype == tf.float32 and np.isfinite(losses).all()


def test_a_backbone_of_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"^precision='half': choose one of float32, mixed_bfloat16, mixed_float16"):
        build_backbone("resnet10", precision="half")
