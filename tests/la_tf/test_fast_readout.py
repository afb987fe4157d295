"""The solved readouts: their gradient in float64 NumPy, what is left out, what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.errors import UserError
from la_tf import fast_readout
from la_tf.linear_probe import LinearReadouts

SHAPES = {"whole": (2, 3, 4), "vector": (5,)}


def network(images):
    """Features far from zero mean and unit variance."""
    return {"whole": 3 * images + 7, "vector": images[:, 0, 0, :1] * tf.constant([1.0, 2.0, -1.0, 0.5, 0.1]) + 2}


def features_numpy(images):
    images = images.astype(np.float64)
    vector = images[:, 0, 0, :1] * np.array([1.0, 2.0, -1.0, 0.5, 0.1]) + 2
    return {"whole": (3 * images + 7).reshape(len(images), -1), "vector": vector}


def readouts(classes, weight_decay=1e-3):
    model = LinearReadouts(network, SHAPES, classes, weight_decay=weight_decay)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9))
    return model


def pictures(n, classes, seed=0):
    """Overlapping classes: images float32 `[n, 2, 3, 4]`, labels `[n]`."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    images = rng.normal(size=(n, 2, 3, 4)) + 0.7 * rng.normal(size=(classes, 2, 3, 4))[labels]
    return images.astype(np.float32), labels


def batches(images, labels, valid=None, size=16):
    valid = np.full(len(labels), True) if valid is None else valid
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        yield {
            "image": tf.constant(images[part]),
            "index": tf.range(start, start + len(labels[part]), dtype=tf.int64),
            "label": tf.constant(labels[part], tf.int64),
            "valid": tf.constant(valid[part]),
        }


def objective(readout, features, labels, weight_decay):
    """Mean cross-entropy + (lambda/2) ||kernel||², and the largest entry of its gradient, in float64."""
    kernel, bias = (weight.numpy().astype(np.float64) for weight in readout.weights)
    logits = features @ kernel + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    by_logits = (p - np.eye(len(bias))[labels]) / len(labels)
    gradient = np.concatenate([features.T @ by_logits + weight_decay * kernel, by_logits.sum(axis=0)[None]])
    loss = -np.log(p[np.arange(len(labels)), labels]).mean() + weight_decay / 2 * (kernel**2).sum()
    return loss, np.abs(gradient).max()


@pytest.mark.parametrize(("classes", "weight_decay"), [(2, 1e-2), (4, 1e-3), (4, 0.0)])
def test_the_gradient_of_the_objective_is_zero(classes, weight_decay):
    model = readouts(classes, weight_decay)
    images, labels = pictures(300, classes)
    solutions = fast_readout.solve(model, batches(images, labels), 300)
    assert fast_readout.warning(solutions) is None
    for name, features in features_numpy(images).items():
        assert objective(model.readouts[name], features, labels, weight_decay)[1] < 2e-4, (
            name
        )  # where all weights are 0 it is about 2
        assert solutions[name].converged and solutions[name].iterations > 3


@pytest.mark.parametrize("classes", [2, 3])
def test_gradient_descent_comes_no_further(classes):
    images, labels = pictures(64, classes)
    solved, trained = readouts(classes), readouts(classes)
    fast_readout.solve(solved, batches(images, labels), 64)
    (whole,) = batches(images, labels, size=64)
    step = tf.function(trained.train_step)
    trained.optimizer.learning_rate = 0.003
    for _ in range(1500):
        step(whole)
    for name, features in features_numpy(images).items():
        best, reached = (objective(model.readouts[name], features, labels, 1e-3)[0] for model in (solved, trained))
        assert best <= reached + 1e-6 and reached < best + 0.05, name  # SGD is on its way to the same


def test_what_is_invalid_or_unlabelled_is_left_out():
    images, labels = pictures(90, 3)
    valid = np.arange(90) % 7 != 2
    labels_with_holes = np.where(np.arange(90) % 5 == 1, -1, labels)
    kept = valid & (labels_with_holes >= 0)
    spoiled = np.where(valid[:, None, None, None], images, np.float32(1e3))
    holes, without = readouts(3), readouts(3)
    fast_readout.solve(holes, batches(spoiled, labels_with_holes, valid), 90)
    fast_readout.solve(without, batches(images[kept], labels[kept]), int(kept.sum()))
    for one, other in zip(holes.trainable_weights, without.trainable_weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_class_without_pictures_is_never_told():
    model = readouts(4)
    images, labels = pictures(120, 3)
    labels = np.array([0, 2, 3])[labels]
    fast_readout.solve(model, batches(images, labels), 120)
    p = tf.nn.softmax(model(images)["whole"]).numpy()
    assert not p[:, 1].any() and set(p.argmax(axis=1)) == {0, 2, 3}
    found = model.score(batches(images, labels))["whole"]
    kernel, bias = (weight.numpy() for weight in model.readouts["whole"].weights)
    told = (features_numpy(images)["whole"] @ kernel + bias).argmax(axis=1)
    assert found["top1"] == np.mean(told == labels) > 0.6


def test_one_class_alone_is_refused():
    images, _ = pictures(20, 2)
    with pytest.raises(UserError, match="--fast: needs training pictures of two classes at least, found 1"):
        fast_readout.solve(readouts(2), batches(images, np.zeros(20, int)), 20)


def test_too_few_iterations_are_told():
    model = readouts(3)
    solutions = fast_readout.solve(model, batches(*pictures(60, 3)), 60, iterations=2)
    assert not solutions["whole"].converged and solutions["whole"].iterations == 2
    assert "did not converge for whole" in fast_readout.warning(solutions)


def test_features_that_do_not_fit_are_refused_before_any_picture_is_read():
    def unread():
        raise AssertionError("a picture was read")
        yield

    maps = {"conv1": (56, 56, 64), "vector": (5,)}
    model = LinearReadouts(network, maps, 10)
    needed = 4 * 50_000 * (9216 + 5) + 8 * 50_000 * 9216  # in float32, and the larger once more in float64
    with pytest.raises(UserError) as error:
        fast_readout.solve(model, unread(), 50_000, memory=needed)  # the solver needs something as well
    assert str(error.value) == (
        "--fast: the features of 50,000 pictures take 5.5 GB with --pooling=9k, more than the 5.5 GB set apart for "
        "them: leave out --fast, or set --pooling=global (0.0 GB)"
    )
    fast_readout.check_memory(50_000, maps, "9k", 10, memory=needed * 1.1)
    with pytest.raises(UserError, match=r"leave out --fast$"):
        fast_readout.check_memory(50_000, maps, "global", 10, memory=1e6)
