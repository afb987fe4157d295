"""Learning-rate schedules by hand: when the rate falls, how far, and what a checkpoint has to remember of it."""

import json
import math
from types import SimpleNamespace

import keras
import pytest

from la_tf.schedules import EarlyStopping, Plateau, Saturation, by_step


def reached(saturation, values, phase=None):
    first = saturation.memory["epoch"] + 1
    return [saturation.reached(epoch, value, phase) for epoch, value in enumerate(values, first)]


def test_saturation_comes_after_patience_epochs_without_a_better_value():
    assert reached(Saturation(2, True), [0.1, 0.2, 0.2, 0.1]) == [False, False, False, True]
    assert reached(Saturation(2, True), [0.1, 0.05, 0.2, 0.1, 0.3]) == [False] * 5
    assert reached(Saturation(1, False), [3.0, 2.0, 2.5]) == [False, False, True]


def test_the_best_is_remembered_not_the_last():
    assert reached(Saturation(2, True), [0.9, 0.1, 0.2]) == [False, False, True]


def test_a_new_phase_starts_afresh():
    saturation = Saturation(2, False)
    assert reached(saturation, [5.0, 5.0], "ir") == [False, False]
    # LA's loss is larger than IR's ever was; it counts from its own first epoch.
    assert reached(saturation, [9.0, 9.0, 9.0], "la") == [False, False, True]


def test_an_epoch_that_a_run_ended_in_counts_once_when_it_goes_on():
    saturation = Saturation(2, True)
    assert [saturation.reached(epoch, value) for epoch, value in [(0, 0.5), (1, 0.4), (1, 0.4)]] == [False] * 3
    assert saturation.reached(2, 0.4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_no_improvement(bad):
    saturation = Saturation(2, True)
    assert reached(saturation, [0.5, bad, bad]) == [False, False, True]
    assert saturation.memory["best"] == 0.5


def plateau(rate=1.0, **arguments):
    hook = Plateau("knn", True, **arguments)
    hook.set_model(SimpleNamespace(optimizer=keras.optimizers.SGD(rate)))
    return hook


def rates(hook, values, phase=None):
    """The learning rate after each epoch whose monitor had these values."""
    after = []
    for epoch, value in enumerate(values, hook.saturation.memory["epoch"] + 1):
        hook.on_epoch_end(epoch, {"knn": value, **({"phase": phase} if phase else {})})
        after.append(float(hook.model.optimizer.learning_rate))
    return after


def test_plateau_drops_twice_each_after_its_own_patience():
    found = rates(plateau(patience=2), [0.5] * 8)
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01])


def test_an_improvement_after_a_drop_gives_the_lower_rate_its_full_patience():
    found = rates(plateau(patience=2), [0.5, 0.4, 0.4, 0.6, 0.6, 0.6])
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.01])


def test_drops_and_factor_are_what_was_asked_for():
    assert rates(plateau(patience=1, drops=1, factor=0.5), [0.5] * 4) == pytest.approx([1, 0.5, 0.5, 0.5])


def test_plateau_does_not_compare_phases():
    hook = plateau(patience=2)
    assert rates(hook, [0.9, 0.8], "ir") == [1, 1]
    assert rates(hook, [0.5, 0.4], "la") == [1, 1]
    assert rates(hook, [0.4], "la") == pytest.approx([0.1])


def test_a_plateau_goes_on_from_its_state_as_if_it_had_not_stopped():
    values = [0.5, 0.4, 0.4, 0.3, 0.7, 0.6, 0.6, 0.6]
    whole = rates(plateau(patience=2), values, "la")
    for cut in range(1, len(values)):
        first = plateau(patience=2)
        rates(first, values[:cut], "la")
        state = json.loads(json.dumps(first.get_state()))  # as a checkpoint holds it
        second = plateau(float(first.model.optimizer.learning_rate), patience=2)
        second.set_state(state)
        assert second.get_state() == first.get_state()
        assert rates(second, values[cut:], "la") == pytest.approx(whole[cut:])


def test_early_stopping_stops_and_goes_on_from_its_state():
    hook = EarlyStopping("loss", higher_is_better=False, patience=2)
    hook.set_model(SimpleNamespace(stop_training=False))
    for epoch, value in enumerate((3.0, 4.0)):
        hook.on_epoch_end(epoch, {"loss": value})
        assert not hook.model.stop_training
    again = EarlyStopping("loss", higher_is_better=False, patience=2)
    again.set_model(SimpleNamespace(stop_training=False))
    again.set_state(json.loads(json.dumps(hook.get_state())))
    again.on_epoch_end(2, {"loss": 3.0})
    assert again.model.stop_training


@pytest.mark.parametrize("name", ["constant", "plateau"])
def test_constant_and_plateau_begin_as_the_rate_itself(name):
    assert by_step(name, 0.03, 1000) == 0.03


def test_cosine_can_rise_first_from_a_sixteenth():
    rate = by_step("cosine", 4.8, 110, warmup_steps=10)
    assert [float(rate(step)) for step in (0, 5, 10, 60, 110)] == pytest.approx([0.3, 2.55, 4.8, 2.4, 0.0], abs=1e-6)


def test_cosine_falls_as_half_a_wave():
    rate = by_step("cosine", 0.4, 200)
    for step, share in [(0, 1.0), (50, 0.5 + math.sqrt(0.125)), (100, 0.5), (200, 0.0), (300, 0.0)]:
        assert float(rate(step)) == pytest.approx(0.4 * share, abs=1e-7)


def test_steps_drop_before_the_named_step_not_after_it():
    rate = by_step("steps", 1.0, 100, drop_steps=(10, 20))
    wanted = {0: 1.0, 9: 1.0, 10: 0.1, 19: 0.1, 20: 0.01, 99: 0.01}
    assert {step: float(rate(step)) for step in wanted} == pytest.approx(wanted)


def test_steps_can_rise_first():
    """From a thousandth of the rate in a straight line, over 100 steps; then steps drop it as ever."""
    rate = by_step("steps", 0.02, 400, drop_steps=[200, 300], warmup_steps=100)
    wanted = {0: 0.00002, 50: 0.02 * 0.5005, 100: 0.02, 199: 0.02, 200: 0.002, 300: 0.0002}
    for step, value in wanted.items():
        assert float(rate(step)) == pytest.approx(value, rel=1e-5), step


def test_steps_without_drops_are_constant_after_the_rise():
    assert by_step("steps", 0.02, 400) == 0.02
    rate = by_step("steps", 0.02, 400, warmup_steps=10)
    assert [float(rate(step)) for step in (0, 10, 399)] == pytest.approx([0.00002, 0.02, 0.02])
