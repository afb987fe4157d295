"""Linear readouts against float64 NumPy, on networks and pictures of a few numbers."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from data import pipeline
from data.draws import epoch_order_numpy
from data.errors import UserError
from data.sources import ArraySource, Split
from la_tf.estimator import Estimator
from la_tf.linear_probe import EachPlateau, LinearReadouts, accuracies, results, score
from la_tf.specs import EvalSpec, ModeKeys, RunConfig, TrainSpec

CLASSES = 3
SHAPES = {"whole": (4, 4, 3), "mean": (3,)}


def pixels(images):
    """A network without weights: the picture itself, and its mean colour."""
    return {"whole": images, "mean": tf.reduce_mean(images, axis=[1, 2])}


def pixels_numpy(images):
    images = images.astype(np.float64)
    return {"whole": images.reshape(len(images), -1), "mean": images.mean(axis=(1, 2))}


def compiled(model, learning_rate=0.1):
    model.compile(keras.optimizers.SGD(learning_rate, momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    return model


def readouts(features=pixels, shapes=None, classes=CLASSES, **arguments):
    return compiled(LinearReadouts(features, shapes or SHAPES, classes, **arguments))


def batch(images, labels, valid=None):
    return {
        "image": tf.constant(images, tf.float32),
        "index": tf.range(len(labels), dtype=tf.int64),
        "label": tf.constant(labels, tf.int64),
        "valid": tf.fill([len(labels)], True) if valid is None else tf.constant(valid),
    }


def six_pictures():
    """One invalid, one without a label."""
    images = np.random.default_rng(0).random((6, 4, 4, 3))
    return batch(images, [0, 1, 2, 1, -1, 0], [True, True, False, True, True, True])


def softmax(logits):
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def step_by_hand(features, labels, kernel, bias, velocities, rate, weight_decay):
    """One step of gradient descent with momentum 0.9 in float64; returns the loss before it."""
    p = softmax(features @ kernel + bias)
    by_logits = (p - np.eye(p.shape[1])[labels]) / len(labels)
    gradients = features.T @ by_logits + weight_decay * kernel, by_logits.sum(axis=0)
    for weight, velocity, gradient in zip((kernel, bias), velocities, gradients, strict=True):
        velocity[:] = 0.9 * velocity - rate * gradient
        weight += velocity
    return -np.log(p[np.arange(len(labels)), labels]).mean()


# --- a step ----------------------------------------------------------------------------------------------------------


def test_steps_with_momentum_weight_decay_and_a_lower_rate_by_hand():
    model, given = readouts(weight_decay=0.05), six_pictures()
    step = tf.function(model.train_step)
    counted = [0, 1, 3, 5]
    labels = given["label"].numpy()[counted]
    features = pixels_numpy(given["image"].numpy()[counted])
    weights = {name: (np.zeros((x.shape[1], CLASSES)), np.zeros(CLASSES)) for name, x in features.items()}
    velocities = {name: [np.zeros_like(weight) for weight in of_one] for name, of_one in weights.items()}
    rates = {"whole": 0.1, "mean": 0.1}
    for number in range(4):
        if number == 2:  # the velocity gathered so far goes on; the gradients to come count a tenth
            model.rate_factors["mean"].assign(0.1)
            rates["mean"] = 0.01
        model.reset_metrics()
        logs = step(given)
        losses = [
            step_by_hand(x, labels, *weights[name], velocities[name], rates[name], 0.05) for name, x in features.items()
        ]
        assert float(logs["loss"]) == pytest.approx(sum(losses), rel=1e-5)
        for name, (kernel, bias) in weights.items():
            np.testing.assert_allclose(model.readouts[name].kernel, kernel, atol=1e-6)
            np.testing.assert_allclose(model.readouts[name].bias, bias, atol=1e-6)
    assert model.begin_epoch(0) == pytest.approx({"learning_rate_whole": 0.1, "learning_rate_mean": 0.01})


def test_the_accuracy_of_a_step_is_that_before_it():
    model, given = readouts(), six_pictures()
    for name, x in pixels_numpy(given["image"].numpy()).items():
        rng = np.random.default_rng(5)
        kernel = rng.normal(size=(x.shape[1], CLASSES))
        model.readouts[name].kernel.assign(kernel)
        right = (x @ kernel).argmax(axis=1) == given["label"].numpy()
        expected = right[[0, 1, 3, 5]].mean()
        model.reset_metrics()
        assert float(model.train_step(given)[f"accuracy_{name}"]) == pytest.approx(expected)


def test_a_batch_without_labels_moves_nothing_but_the_decay():
    model = readouts(weight_decay=0.0)
    model.train_step(batch(np.ones((2, 4, 4, 3)), [-1, -1]))
    assert not any(weight.numpy().any() for weight in model.trainable_weights)


# --- five readouts on a network --------------------------------------------------------------------------------------


def trunk():
    """Three maps, a vector, and a map behind a batch norm that would move if it were trained."""
    keras.utils.set_random_seed(3)
    image = keras.Input((8, 8, 3))
    first = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="convolution")(image)
    normed = keras.layers.BatchNormalization(name="norm")(first)
    half = keras.layers.AveragePooling2D(2)(normed)
    wide = keras.layers.Conv2D(2400, 1, activation="relu")(half)
    vector = keras.layers.GlobalAveragePooling2D()(normed)
    endpoints = {"conv1": first, "conv2": normed, "conv3": half, "conv4": wide, "conv5": vector}
    return keras.Model(image, endpoints)


def shapes_of(network):
    return {name: shape[1:] for name, shape in network.compute_output_shape((None, 8, 8, 3)).items()}


def colours(n, seed, size=8):
    """Pictures of three classes that differ in colour, with much noise: uint8 `[n, size, size, 3]`, labels `[n]`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % CLASSES
    means = np.array([[150, 100, 100], [100, 150, 100], [100, 100, 150]])[labels]
    return np.uint8(means[:, None, None] + rng.integers(-60, 61, size=(n, size, size, 3))), labels


def test_separable_classes_are_told_apart_also_where_not_seen():
    model = readouts(shapes={"whole": (8, 8, 3), "mean": (3,)})
    step = tf.function(model.train_step)
    images, labels = colours(60, seed=0)
    for _ in range(200):
        step(batch(images / 255, labels))
    unseen, truth = colours(90, seed=1)
    for found in (model.score([batch(images / 255, labels)]), model.score([batch(unseen / 255, truth)])):
        assert found == {name: {"top1": 1.0, "top5": 1.0} for name in SHAPES}


def test_five_readouts_together_are_each_alone():
    network = trunk()
    shapes = shapes_of(network)
    assert shapes["conv4"] == (4, 4, 2400)  # pooled to 2 x 2
    images, labels = colours(24, seed=0)
    together = readouts(network, shapes)
    alone = {name: readouts(network, {name: shape}) for name, shape in shapes.items()}
    for model in (together, *alone.values()):
        step = tf.function(model.train_step)
        for number in range(6):
            rows = np.arange(8) + 8 * (number % 3)
            step(batch(images[rows] / 255, labels[rows]))
    for name, model in alone.items():
        assert np.abs(model.readouts[name].kernel).max() > 1e-4
        for one, other in zip(together.readouts[name].weights, model.readouts[name].weights, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5, err_msg=name)


def test_the_network_is_not_among_the_weights():
    network = trunk()
    model = readouts(network, shapes_of(network))
    own = {variable.path for variable in network.variables}
    assert own.isdisjoint(variable.path for variable in model.variables)
    trained = sum(np.size(weight) for weight in model.trainable_weights)
    assert trained == sum((n + 1) * CLASSES for n in (256, 256, 64, 9600, 4))


def test_fewer_than_two_classes_are_refused():
    with pytest.raises(UserError, match="at least 2 classes, the data set has 0"):
        readouts(classes=0)


# --- as a run --------------------------------------------------------------------------------------------------------

VALIDATION = np.arange(0, 40, 5)
ROWS = np.setdiff1d(np.arange(40), VALIDATION)
BATCH, PER_EPOCH = 8, 4


def pictures(rows):
    images, labels = colours(40, seed=0)
    return batch(images[rows] / 255, labels[rows])


class Killed(Exception):
    pass


class Killer(keras.callbacks.Callback):
    """Stops the process, as far as the run is concerned, at a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.step:
            raise Killed


def normed():
    """A network of a batch norm, which would move if it were trained."""
    image = keras.Input((8, 8, 3))
    whole = keras.layers.BatchNormalization(name="norm")(image)
    return keras.Model(image, {"whole": whole, "mean": keras.layers.GlobalAveragePooling2D()(whole)})


def run(folder, network, steps, hooks=()):
    """Trains readouts of all endpoints by the Estimator; returns it and the last metrics."""

    def model_fn():
        return compiled(LinearReadouts(network, shapes_of(network), CLASSES), 0.05)

    def training(mode, context):
        assert mode == ModeKeys.TRAIN
        for step in itertools.count(context.first_step):
            epoch, place = divmod(step, PER_EPOCH)
            order = epoch_order_numpy(4, epoch, len(ROWS))
            yield pictures(ROWS[order[place * BATCH :][:BATCH]])

    monitor = EvalSpec(lambda mode, context: [pictures(VALIDATION)], accuracies, name="validation")
    estimator = Estimator(model_fn, RunConfig(str(folder), seed=4, save_checkpoints_steps=3))
    plateau = EachPlateau(list(shapes_of(network)), patience=1)
    spec = TrainSpec(training, steps, PER_EPOCH, hooks=(*hooks, plateau), monitor=monitor)
    return estimator, estimator.train(spec)


def test_a_run_ends_when_all_are_saturated_and_leaves_the_network_alone(tmp_path):
    network = normed()
    before = network.get_weights()
    estimator, metrics = run(tmp_path, network, 400)
    assert estimator.step < 400 and estimator.step % PER_EPOCH == 0
    assert [float(factor) for factor in estimator.model.rate_factors.values()] == [0, 0]
    for weight, old in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert {variable.path for variable in network.variables}.isdisjoint(estimator.variables())
    images, labels = colours(30, seed=1)
    test = [batch(images / 255, labels)]
    found = results(estimator.model, test, [pictures(VALIDATION)])
    assert [scores["features"] for scores in found.values()] == [192, 3]
    for name, scores in found.items():
        assert scores["top1"] == estimator.model.score(test)[name]["top1"] > 0.5
        assert scores["validation_top1"] == metrics[f"validation_{name}"]


def test_a_killed_run_ends_as_one_that_was_not(tmp_path):
    network = normed()
    whole, last = run(tmp_path / "whole", network, 12)
    with pytest.raises(Killed):
        run(tmp_path / "killed", network, 12, hooks=[Killer(7)])
    went_on, same = run(tmp_path / "killed", network, 12)
    assert went_on.step == whole.step
    for name, variable in whole.variables().items():
        np.testing.assert_allclose(variable, went_on.variables()[name], rtol=1e-6, atol=1e-7, err_msg=name)
    told = [key for key in last if key.startswith(("validation", "learning_rate", "accuracy"))]
    assert len(told) == 7 and {key: same[key] for key in told} == pytest.approx({key: last[key] for key in told})


def test_random_labels_are_not_told_on_pictures_not_seen():
    rng = np.random.default_rng(0)
    images, labels = rng.random((600, 4, 4, 3)), rng.integers(CLASSES, size=600)
    model = readouts(weight_decay=0.0)
    step = tf.function(model.train_step)
    for _ in range(300):
        step(batch(images[:100], labels[:100]))
    seen, unseen = (model.score([batch(images[part], labels[part])]) for part in (slice(100), slice(100, 600)))
    assert seen["whole"]["top1"] > 0.6
    for found in unseen.values():
        assert abs(found["top1"] - 1 / CLASSES) < 4 * np.sqrt(2 / 9 / 500)


# --- saturation ------------------------------------------------------------------------------------------------------


def feed(plateau, model, epochs):
    """Shows the hook, from epoch to epoch, `whole` that never improves and `mean` that does up to epoch 6."""
    plateau.set_model(model)
    for epoch in epochs:
        plateau.on_epoch_end(epoch, {"validation_whole": 0.5, "validation_mean": 0.1 * min(epoch, 6)})
        yield tuple(round(float(factor), 6) for factor in model.rate_factors.values())


# Two epochs without a better one make a drop: whole at 2 and 4, its end at 6; mean at 8 and 10, its end at 12.
RATES = [(1, 1)] * 2 + [(0.1, 1)] * 2 + [(0.01, 1)] * 2 + [(0, 1)] * 2 + [(0, 0.1)] * 2 + [(0, 0.01)] * 2 + [(0, 0)]


def test_each_readout_drops_on_its_own_and_the_last_ends_the_run():
    model = readouts()
    model.stop_training = False
    for epoch, rates in enumerate(feed(EachPlateau(list(SHAPES), patience=2), model, range(13))):
        assert rates == pytest.approx(RATES[epoch]), epoch
        assert model.stop_training == (epoch == 12)


def test_the_hook_goes_on_from_its_state():
    for stop in range(1, 13):
        model = readouts()
        model.stop_training = False
        first, second = (EachPlateau(list(SHAPES), patience=2) for _ in range(2))
        list(feed(first, model, range(stop)))
        second.set_state(json.loads(json.dumps(first.get_state())))
        assert list(feed(second, model, range(stop, 13))) == [pytest.approx(rates) for rates in RATES[stop:]]
        assert model.stop_training


def test_what_it_looks_at_can_be_named():
    plateau, model = EachPlateau(["whole"], patience=1, monitor="test"), readouts()
    plateau.set_model(model)
    for epoch in range(2):
        plateau.on_epoch_end(epoch, {"test_whole": 0.5})
    assert float(model.rate_factors["whole"]) == pytest.approx(0.1)


def test_a_stopped_readout_does_not_even_drift():
    model, given = readouts(weight_decay=0.01), six_pictures()
    for _ in range(3):
        model.train_step(given)
    model.stop("whole")
    before = {name: [weight.numpy() for weight in readout.weights] for name, readout in model.readouts.items()}
    model.train_step(given)
    for name, readout in model.readouts.items():
        same = all(np.array_equal(old, new) for old, new in zip(before[name], readout.weights, strict=True))
        assert same == (name == "whole")


# --- scores ----------------------------------------------------------------------------------------------------------


def wide_split(n=12):
    """Pictures wider than high, so that the crops differ; one has no label."""
    rng = np.random.default_rng(7)
    labels = rng.integers(7, size=n)
    labels[4] = -1
    return Split(
        "wide", "test", "photo", labels, ArraySource(rng.integers(256, size=(n, 20, 28, 3), dtype=np.uint8), "")
    )


def test_the_ten_crop_score_by_hand():
    split, classes = wide_split(), 7
    shapes = {"whole": (20, 20, 3), "mean": (3,)}
    model = readouts(shapes=shapes, classes=classes)
    rng = np.random.default_rng(1)
    weights = {name: 2 * rng.normal(size=(np.prod(shape), classes)) for name, shape in shapes.items()}
    for name, kernel in weights.items():
        model.readouts[name].kernel.assign(kernel)
    pictures = split.source.pictures / 255
    crops = [pictures[:, :, left : left + 20] for left in (4, 0, 8, 0, 8)]  # centre, and the corners, as high as all
    crops += [crop[:, :, ::-1] for crop in crops]
    chosen = np.flatnonzero(split.labels >= 0)
    labels = split.labels[chosen]

    found = model.score(pipeline.evaluation_batches(split, 20, 5, ten_crop=True))

    differ = False
    for name, kernel in weights.items():
        views = [softmax(pixels_numpy(crop[chosen])[name] @ kernel) for crop in crops]
        expected = {}
        for prefix, p in (("", views[0]), ("ten_crop_", np.mean(views, axis=0))):
            rank = (p > p[np.arange(len(labels)), labels][:, None]).sum(axis=1)
            expected |= {f"{prefix}top1": np.mean(rank < 1), f"{prefix}top5": np.mean(rank < 5)}
        assert found[name] == pytest.approx(expected)
        differ |= expected["top1"] != expected["ten_crop_top1"]
        assert 0 < expected["top5"] < 1
    assert differ
    central = model.score(pipeline.evaluation_batches(split, 20, 5))
    for name, scores in central.items():
        assert scores == {top: found[name][top] for top in ("top1", "top5")}


def test_invalid_pictures_do_not_count_and_ties_go_to_the_first_class():
    model = readouts()  # all zeros: all classes tie
    given = batch(np.zeros((5, 4, 4, 3)), [0, 0, 1, 0, -1], [True, True, True, False, True])
    assert model.score([given, given])["whole"] == {"top1": pytest.approx(2 / 3), "top5": 1.0}


def test_any_logits_can_be_scored():
    def logits(images):
        return {"classes": tf.one_hot([3, 1, 6], 8) - 0.1 * tf.cast(tf.range(8), tf.float32)}

    # right; beaten by 1 and 0 alone; beaten by 6, 0, 1, 2, 3 and 4
    assert score(logits, [batch(np.zeros((3, 1, 1, 3)), [3, 2, 5])]) == {
        "classes": {"top1": pytest.approx(1 / 3), "top5": pytest.approx(2 / 3)}
    }


def test_nothing_to_judge_by_is_said():
    with pytest.raises(UserError, match="no picture with a label"):
        readouts().score([batch(np.zeros((2, 4, 4, 3)), [-1, -1])])
