"""LARS against hand-computed steps and float64 NumPy, and as a citizen of Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from la_tf.lars import LARS


def variables(*values):
    return [keras.Variable(np.asarray(value, np.float32), name=f"weight{i}") for i, value in enumerate(values)]


def steps_of(optimizer, weights, gradients, graph=True):
    """Applies one list of gradients after the other."""

    def apply(*gradients):
        optimizer.apply_gradients(zip(gradients, weights, strict=True))

    optimizer.build(weights)
    apply = tf.function(apply) if graph else apply
    for of_step in gradients:
        apply(*(tf.constant(gradient, tf.float32) for gradient in of_step))
    return [weight.numpy() for weight in weights]


def wanted_steps(weights, gradients, rates, momentum, weight_decay, trust):
    """The rule in float64."""
    weights = [np.asarray(weight, np.float64) for weight in weights]
    velocities = [np.zeros_like(weight) for weight in weights]
    for of_step, rate in zip(gradients, rates, strict=True):
        for i, g in enumerate(of_step):
            g = np.asarray(g, np.float64)
            length, slope = np.linalg.norm(weights[i]), np.linalg.norm(g)
            if length > 0 and slope > 0:
                g = (g + weight_decay * weights[i]) * trust * length / (slope + weight_decay * length)
            velocities[i] = momentum * velocities[i] + g
            weights[i] = weights[i] - rate * velocities[i]
    return weights


def test_two_steps_by_hand():
    # ||w|| = 5, ||g|| = 5: g' = ([0, 5] + 1/2 [3, 4]) · 0.1 · 5 / (5 + 5/2) = [1.5, 7] / 15; w = [3, 4] - 2 g'.
    weight = variables([3.0, 4.0])
    optimizer = LARS(2.0, momentum=0.5, weight_decay=0.5, trust=0.1)
    assert steps_of(optimizer, weight, [[[0.0, 5.0]]])[0] == pytest.approx([3 - 0.2, 4 - 14 / 15], rel=1e-6)
    # Nothing pulls: v is half of what it was.
    assert steps_of(optimizer, weight, [[[0.0, 0.0]]])[0] == pytest.approx([3 - 0.3, 4 - 21 / 15], rel=1e-6)


def test_zero_weights_move_by_the_plain_gradient_and_zero_gradients_decay_nothing():
    zero, still = variables([0.0, 0.0], [3.0, 4.0])
    optimizer = LARS(0.1, momentum=0.9, weight_decay=0.5, trust=0.001)
    steps_of(optimizer, [zero, still], [[[1.0, -2.0], [0.0, 0.0]]])
    assert zero.numpy() == pytest.approx([-0.1, 0.2], rel=1e-6)
    np.testing.assert_array_equal(still.numpy(), [3, 4])


@pytest.mark.parametrize("graph", [True, False])
def test_several_variables_under_a_changing_rate_follow_the_rule(graph):
    rng = np.random.default_rng(0)
    shapes = [(3, 3, 2, 4), (8, 5), (5,), (4,)]
    start = [rng.standard_normal(shape) for shape in shapes[:-1]] + [np.zeros(4)]
    gradients = [[rng.standard_normal(shape) for shape in shapes] for _ in range(4)]
    gradients[1][1][:] = 0  # in passing
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 2], [5.0, 3.0, 0.5])
    # With the rate inside of the momentum the last step, at a tenth of the first one's rate, would be another.
    wanted = wanted_steps(start, gradients, [5.0, 3.0, 3.0, 0.5], 0.9, 0.1, 0.01)
    found = steps_of(LARS(schedule, 0.9, 0.1, 0.01), variables(*start), gradients, graph)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_rate_that_is_set_counts_from_the_next_step_on():
    start, gradients = [[3.0, 4.0]], [[[1.0, 2.0]], [[2.0, -1.0]]]
    weight = variables(*start)
    optimizer = LARS(1.0)
    steps_of(optimizer, weight, gradients[:1])
    optimizer.learning_rate = 0.25
    found = steps_of(optimizer, weight, gradients[1:])
    np.testing.assert_allclose(found, wanted_steps(start, gradients, [1.0, 0.25], 0.9, 1e-6, 0.001), rtol=1e-6)


@pytest.mark.parametrize("wrap", ["factor", "wrapper"])
def test_a_scaled_loss_makes_the_same_steps(wrap):
    inner = LARS(1.0, weight_decay=0.1, trust=0.1, loss_scale_factor=1024.0 if wrap == "factor" else None)
    optimizer = inner if wrap == "factor" else keras.optimizers.LossScaleOptimizer(inner)
    start, gradients = [[3.0, 4.0], [0.0, 0.0]], [[[1.0, 2.0], [1.0, 1.0]], [[2.0, -1.0], [0.5, 0.0]]]
    scale = 1024.0 if wrap == "factor" else 2.0**15
    assert float(optimizer.scale_loss(tf.constant(1.0))) == scale
    weights = variables(*start)
    found = steps_of(optimizer, weights, [[scale * np.array(g) for g in of_step] for of_step in gradients])
    for one, other in zip(found, wanted_steps(start, gradients, [1.0, 1.0], 0.9, 0.1, 0.1), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_the_config_makes_the_same_optimizer_again():
    schedule = keras.optimizers.schedules.CosineDecay(2.0, 10)
    optimizer = LARS(schedule, momentum=0.7, weight_decay=0.2, trust=0.05, clipnorm=3.0)
    stored = keras.optimizers.serialize(optimizer)
    again = keras.optimizers.deserialize(stored)
    assert type(again) is LARS and again.get_config() == optimizer.get_config()
    gradients = [[[1.0, 2.0]], [[4.0, 5.0]], [[2.0, -1.0]]]
    found = [steps_of(one, variables([3.0, 4.0]), gradients) for one in (optimizer, again)]
    np.testing.assert_array_equal(*found)


def test_a_restored_optimizer_goes_on_as_if_nothing_had_happened(tmp_path):
    inputs, targets = np.random.default_rng(0).standard_normal((2, 8, 4)).astype(np.float32)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    model.compile(LARS(1.0, trust=0.1), loss="mse")
    go_on = {"batch_size": 8, "epochs": 3, "shuffle": False, "verbose": 0}
    model.fit(inputs, targets, **go_on)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    before = model.get_weights()[0]
    for each in (model, again):
        each.fit(inputs, targets, **go_on)
    assert np.abs(model.get_weights()[0] - before).max() > 1e-3
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
