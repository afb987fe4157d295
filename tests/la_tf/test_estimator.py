"""The Estimator on a network of one layer: predict, names of variables, checkpoints, warm start, evaluation."""

import copy
import dataclasses
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from data.errors import UserError
from la_tf import checkpoints
from la_tf.callbacks import Progress
from la_tf.embedding import UnitLength
from la_tf.estimator import Estimator, follow, train_and_evaluate
from la_tf.instance_recognition import InstanceRecognition
from la_tf.knn import embed
from la_tf.local_aggregation import LocalAggregation
from la_tf.model_dir import MetricsFile, locked, write_json
from la_tf.specs import EvalSpec, ModeKeys, RunConfig, TrainSpec
from tests.la_tf.reference import unit
from tests.la_tf.test_checkpoint_writer import Gate

N, D = 40, 16
LA = {"background_k": 12, "clusters": 5, "clusterings": 2}
IMAGES = np.random.default_rng(0).random((N, 4, 4, 3), np.float32)


def tiny_embedder(readout="linear"):
    images = keras.Input((None, None, 3))
    features = keras.layers.Dense(D, name=readout)(keras.layers.GlobalAveragePooling2D()(images))
    return keras.Model(images, UnitLength()(features))


def estimator(folder, method=InstanceRecognition, size=N, readout="linear", seed=0, **arguments):
    def model_fn():
        model = method(tiny_embedder(readout), size, seed=seed, **arguments)
        model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9), jit_compile=False)
        return model

    return Estimator(model_fn, RunConfig(model_dir=str(folder), seed=seed))


def input_fn(mode, context):
    """Eight pictures a batch: in order and once for evaluation, without end for training."""
    step = context.first_step if mode == ModeKeys.TRAIN else 0
    while mode == ModeKeys.TRAIN or step < N // 8:
        indices = np.arange(8) + 8 * (step % (N // 8))
        yield {
            "image": tf.constant(IMAGES[indices]),
            "index": tf.constant(indices, tf.int64),
            "label": tf.constant(indices % 3, tf.int64),
            "valid": tf.fill([8], True),
        }
        step += 1


def trained(folder, steps=5, **arguments):
    run = estimator(folder, **arguments)
    run.train(TrainSpec(input_fn, max_steps=steps, steps_per_epoch=5))
    return run


def test_predict_yields_every_picture_with_its_index_and_unit_embedding(tmp_path):
    run = estimator(tmp_path)
    asked = []

    def asking(mode, context):
        asked.append(mode)
        return input_fn(mode, context)

    found = list(run.predict(asking))
    assert asked == [ModeKeys.PREDICT]
    assert [item["index"] for item in found] == list(range(N)) and type(found[0]["index"]) is int
    kernel, bias = (weight.numpy().astype(np.float64) for weight in run.model.embedder.weights)
    wanted = unit(IMAGES.astype(np.float64).mean(axis=(1, 2)) @ kernel + bias)
    np.testing.assert_allclose(np.stack([item["embedding"] for item in found]), wanted, atol=1e-6)


def test_predict_leaves_out_what_is_not_valid(tmp_path):
    def with_holes(mode, context):
        for batch in input_fn(mode, context):
            yield {**batch, "valid": batch["index"] % 5 != 2}

    whole, found = (list(estimator(tmp_path).predict(source)) for source in (input_fn, with_holes))
    assert [item["index"] for item in found] == [i for i in range(N) if i % 5 != 2]
    for item in found:
        np.testing.assert_array_equal(item["embedding"], whole[item["index"]]["embedding"])


def test_predict_is_by_the_newest_checkpoint(tmp_path):
    run = trained(tmp_path)
    first, again = (list(one.predict(input_fn)) for one in (run, estimator(tmp_path, seed=0)))
    fresh = list(estimator(tmp_path / "other").predict(input_fn))
    np.testing.assert_array_equal(first[3]["embedding"], again[3]["embedding"])
    assert np.abs(first[3]["embedding"] - fresh[3]["embedding"]).max() > 1e-4


def test_the_names_are_those_of_weights_bank_optimizer_and_metrics(tmp_path):
    run = trained(tmp_path)
    names = run.get_variable_names()
    assert names == sorted(names)
    assert {"linear/kernel", "linear/bias"} <= set(names)
    assert {name.split("/")[0] for name in names} >= {"linear", "memory_bank", "optimizer", "metrics"}
    for name in names:
        assert run.get_variable_value(name).shape == tuple(run.variables()[name].shape)
    np.testing.assert_array_equal(run.get_variable_value("memory_bank/rows"), run.model.bank.rows.numpy())
    assert run.get_variable_value("memory_bank/written").all()


def test_without_a_checkpoint_there_are_no_names_and_that_is_said(tmp_path):
    for ask in (lambda run: run.get_variable_names(), lambda run: run.get_variable_value("linear/kernel")):
        with pytest.raises(UserError, match=f"{tmp_path}: has no checkpoint"):
            ask(estimator(tmp_path))


def test_a_second_object_on_the_folder_is_where_the_first_one_stopped(tmp_path):
    first, second = trained(tmp_path), estimator(tmp_path)
    assert second.step == first.step == 5
    for name, variable in first.variables().items():
        np.testing.assert_array_equal(variable.numpy(), second.variables()[name].numpy(), err_msg=name)


def test_training_again_to_the_same_step_does_nothing(tmp_path):
    run = trained(tmp_path)
    before = run.model.bank.rows.numpy()
    metrics = run.train(TrainSpec(input_fn, max_steps=5, steps_per_epoch=5))
    assert run.step == 5 and metrics["step"] == 5
    np.testing.assert_array_equal(run.model.bank.rows.numpy(), before)


def test_interrupted_and_whole_runs_end_the_same(tmp_path):
    trained(tmp_path / "two", steps=7)  # in the middle of the second epoch
    two = trained(tmp_path / "two", steps=12)
    one = trained(tmp_path / "one", steps=12)
    for name, variable in one.variables().items():
        np.testing.assert_array_equal(variable.numpy(), two.variables()[name].numpy(), err_msg=name)


def test_a_checkpoint_of_another_model_is_refused_and_the_variable_named(tmp_path):
    trained(tmp_path, size=N)
    with pytest.raises(UserError, match=rf"memory_bank/rows should have shape \(41, {D}\), found \({N}, {D}\)"):
        _ = estimator(tmp_path, size=41).model
    with pytest.raises(UserError, match=r"other/kernel should have shape .*found none"):
        _ = estimator(tmp_path, readout="other").model


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_checkpoint_is_named_and_what_to_do(tmp_path, damage):
    trained(tmp_path)
    path = checkpoints.latest(tmp_path) / "arrays.npz"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[content.index(b"memory_bank/rows") + 1000] ^= 1
    path.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    with pytest.raises(UserError, match=f"{path}: is damaged.*remove that checkpoint"):
        _ = estimator(tmp_path).model


def test_a_warm_start_takes_weights_and_bank_but_not_the_optimizer(tmp_path):
    source = trained(tmp_path / "source")
    run = estimator(tmp_path / "new", seed=1)
    loaded, missing, unused = run.warm_start(tmp_path / "source")
    assert {"linear/kernel", "linear/bias", "memory_bank/rows", "memory_bank/written"} <= set(loaded)
    assert missing == [] and unused == []
    np.testing.assert_array_equal(run.model.bank.rows.numpy(), source.model.bank.rows.numpy())
    np.testing.assert_array_equal(run.model.embedder.weights[0], source.model.embedder.weights[0])
    assert run.step == 0
    assert all((variable.numpy() == 0).all() for variable in run.model.optimizer.variables[2:]), "momentum came along"


def test_a_warm_start_names_what_it_did_not_find_and_what_it_did_not_use(tmp_path):
    trained(tmp_path / "source", size=41)
    run = estimator(tmp_path / "new", readout="other")
    bank = run.model.bank.rows.numpy()
    loaded, missing, unused = run.warm_start(tmp_path / "source")
    assert loaded == []
    own = {"memory_bank/rows", "memory_bank/written"}  # for another number of images
    assert set(missing) == {"other/kernel", "other/bias"} | own
    assert set(unused) == {"linear/kernel", "linear/bias"} | own
    np.testing.assert_array_equal(run.model.bank.rows.numpy(), bank)


def test_a_warm_start_from_other_pictures_leaves_their_bank_and_clusters_behind(tmp_path):
    source = trained(tmp_path / "source", steps=10, method=LocalAggregation, warmup_epochs=1, **LA)
    run = estimator(tmp_path / "new", method=LocalAggregation, warmup_epochs=1, seed=1, **LA)
    bank = run.model.bank.rows.numpy()
    loaded, missing, unused = run.warm_start(tmp_path / "source", same_pictures=False)
    assert {"linear/kernel", "linear/bias"} <= set(loaded)
    assert set(missing) == set(unused) and {"memory_bank/rows", "memory_bank/written"} < set(missing)
    np.testing.assert_array_equal(run.model.bank.rows.numpy(), bank)
    assert not run.model.bank.written.numpy().any() and (run.model.cluster_labels.numpy() == -1).all()
    np.testing.assert_array_equal(run.model.embedder.weights[0], source.model.embedder.weights[0])


def test_a_warm_start_from_another_head_leaves_the_bank_of_its_space_behind(tmp_path):
    trained(tmp_path / "source", readout="another")
    run = estimator(tmp_path / "new", seed=1)
    bank = run.model.bank.rows.numpy()
    loaded, missing, _ = run.warm_start(tmp_path / "source")
    assert {"linear/kernel", "memory_bank/rows", "memory_bank/written"} <= set(missing) and loaded == []
    np.testing.assert_array_equal(run.model.bank.rows.numpy(), bank)
    assert not run.model.bank.written.numpy().any()


def test_a_run_that_has_begun_is_not_warm_started_over(tmp_path):
    trained(tmp_path / "source", seed=1)
    run = trained(tmp_path / "run")
    before = run.model.bank.rows.numpy()
    assert run.warm_start(tmp_path / "source") == ([], [], [])
    np.testing.assert_array_equal(run.model.bank.rows.numpy(), before)


def test_a_warm_start_from_nothing_is_said(tmp_path):
    with pytest.raises(UserError, match=f"--warm_start={tmp_path / 'nowhere'}: holds no checkpoint"):
        estimator(tmp_path / "run").warm_start(tmp_path / "nowhere")


def test_a_run_warm_started_from_local_aggregation_still_begins_with_its_own_warm_start(tmp_path):
    source = trained(tmp_path / "source", steps=10, method=LocalAggregation, warmup_epochs=1, **LA)
    assert source.model.aggregating
    run = estimator(tmp_path / "new", method=LocalAggregation, warmup_epochs=1, **LA)
    run.warm_start(tmp_path / "source")
    metrics = run.train(TrainSpec(input_fn, max_steps=5, steps_per_epoch=5))
    assert metrics["phase"] == "ir" and not run.model.aggregating
    metrics = run.train(TrainSpec(input_fn, max_steps=10, steps_per_epoch=5))
    assert metrics["phase"] == "la" and run.model.aggregating


def mean_index(model, batches):
    return {"mean_index": float(np.mean(embed(model, batches)[1]))}


def test_an_evaluation_looks_at_as_many_batches_as_it_says_and_writes_to_its_own_folder(tmp_path):
    run = trained(tmp_path)
    every = EvalSpec(input_fn, mean_index, name="all")
    assert run.evaluate(every) == {"mean_index": (N - 1) / 2}
    assert run.evaluate(EvalSpec(input_fn, mean_index, name="two", steps=2)) == {"mean_index": 7.5}
    for name, value in (("all", (N - 1) / 2), ("two", 7.5)):
        assert MetricsFile(tmp_path / f"eval_{name}").read() == [{"step": 5, "mean_index": value}]


def test_an_evaluation_repeated_after_a_restart_stands_once_in_its_file(tmp_path):
    trained(tmp_path).evaluate(EvalSpec(input_fn, mean_index))
    estimator(tmp_path).evaluate(EvalSpec(input_fn, mean_index))
    assert [record["step"] for record in MetricsFile(tmp_path / "eval_test").read()] == [5]


def test_train_and_evaluate_evaluates_after_every_epoch_and_tells_the_exports(tmp_path):
    seen = []

    class Exporter:
        def export(self, run, metrics, finished):
            seen.append((metrics["step"], metrics["mean_index"], finished))

        def exported(self):
            return ["here"]

    run, spec = estimator(tmp_path), TrainSpec(input_fn, max_steps=10, steps_per_epoch=5)
    metrics, exported = train_and_evaluate(run, spec, [EvalSpec(input_fn, mean_index)], [Exporter()])
    assert seen == [(5, 19.5, False), (10, 19.5, True)]
    assert metrics["mean_index"] == 19.5 and exported == ["here"]
    assert [record["step"] for record in MetricsFile(tmp_path / "eval_test").read()] == [5, 10]


def test_following_a_finished_run_evaluates_its_last_checkpoint_and_ends(tmp_path):
    trained(tmp_path, steps=10)
    reports = []
    metrics = follow(estimator(tmp_path), [EvalSpec(input_fn, mean_index)], report=reports.append)
    assert reports == [metrics] and metrics == {"step": 10, "epoch": 1, "mean_index": 19.5}


def test_following_takes_the_next_checkpoint_where_one_has_been_removed_meanwhile(tmp_path, monkeypatch):
    trained(tmp_path, steps=10)
    follower, places = estimator(tmp_path), [checkpoints.path_of(tmp_path, step) for step in (4, 10)]
    monkeypatch.setattr(follower, "latest_checkpoint", lambda: places.pop(0) if places[1:] else places[0])
    monkeypatch.setattr("la_tf.estimator.POLL_SECONDS", 0)
    assert follow(follower, [EvalSpec(input_fn, mean_index)], report=lambda _: None)["step"] == 10


def test_following_counts_the_bad_pictures_of_all_evaluations(tmp_path):
    trained(tmp_path, steps=10)
    counts = {"validation": {"bad_images": 2}, "plain": {}, "test": {"bad_images": 3}}
    specs = [EvalSpec(input_fn, lambda *_, found=found: found, name=name) for name, found in counts.items()]
    metrics = follow(estimator(tmp_path), specs, report=lambda _: None)
    assert metrics["bad_images"] == 5
    assert MetricsFile(tmp_path / "eval_test").read()[-1]["bad_images"] == 3, "each its own"


def test_old_checkpoints_go_and_can_be_evaluated_as_long_as_they_are_there(tmp_path):
    run = trained(tmp_path, steps=20)
    assert checkpoints.steps(tmp_path) == [10, 15, 20]  # RunConfig keeps three
    kernel_at_20 = run.get_variable_value("linear/kernel")
    run.evaluate(EvalSpec(input_fn, mean_index), checkpoint=checkpoints.path_of(tmp_path, 10))
    assert run.step == 10
    assert np.abs(run.model.embedder.weights[0].numpy() - kernel_at_20).max() > 0


def test_training_goes_on_from_the_newest_checkpoint_whatever_has_been_evaluated(tmp_path):
    run = trained(tmp_path / "one", steps=20)
    run.evaluate(EvalSpec(input_fn, mean_index), checkpoint=checkpoints.path_of(tmp_path / "one", 10))
    run.train(TrainSpec(input_fn, max_steps=25, steps_per_epoch=5))
    straight = trained(tmp_path / "two", steps=25)
    for name, variable in straight.variables().items():
        np.testing.assert_array_equal(variable.numpy(), run.variables()[name].numpy(), err_msg=name)


def test_a_loss_that_is_no_number_gets_into_no_checkpoint_on_the_way(tmp_path):
    def poisoned(mode, context):
        for step, batch in enumerate(input_fn(mode, context)):
            yield {**batch, "image": batch["image"] * (np.nan if step == 1 else 1.0)}

    run = estimator(tmp_path)
    run.config = dataclasses.replace(run.config, save_checkpoints_steps=1)
    with pytest.raises(UserError, match="step-00000001"):
        run.train(TrainSpec(poisoned, max_steps=5, steps_per_epoch=5))
    assert checkpoints.steps(tmp_path) == [1]


def test_a_loss_that_is_no_number_ends_the_run_and_writes_no_checkpoint(tmp_path):
    def poisoned(mode, context):
        for batch in input_fn(mode, context):
            yield {**batch, "image": batch["image"] * np.nan}

    run = estimator(tmp_path)
    with pytest.raises(UserError, match="--learning_rate"):
        run.train(TrainSpec(poisoned, max_steps=5, steps_per_epoch=5))
    assert checkpoints.steps(tmp_path) == []


def poisoned(steps, times):
    """`input_fn` whose batches at `steps` are no numbers, the first `times` that they come."""
    left = dict.fromkeys(steps, times)

    def input_fn_of(mode, context):
        for step, batch in enumerate(input_fn(mode, context), start=context.first_step):
            bad = mode == ModeKeys.TRAIN and left.get(step, 0) > 0
            left[step] = left.get(step, 0) - bad
            yield {**batch, "image": batch["image"] * (np.nan if bad else 1.0)}

    return input_fn_of


def with_rate(run, rate, on_nan="rollback"):
    """The same Estimator with another learning rate, a number or a schedule."""
    build = run._model_fn

    def model_fn():
        model = build()
        model.compile(keras.optimizers.SGD(rate, momentum=0.9))
        return model

    run._model_fn = model_fn
    run.config = dataclasses.replace(run.config, on_nan=on_nan)
    return run


def schedule(rate):
    return keras.optimizers.schedules.PiecewiseConstantDecay([12], [rate, rate / 10])


@pytest.mark.parametrize("kind", [float, schedule])
def test_a_rollback_goes_on_from_the_last_checkpoint_at_half_the_rate(tmp_path, capsys, kind):
    spec = TrainSpec(poisoned([7], 1), max_steps=15, steps_per_epoch=5, names=[f"{i}.png" for i in range(N)])
    run = with_rate(estimator(tmp_path / "one"), kind(0.1))
    logs = run.train(spec)
    told = "the loss is nan at step 10, learning rate 0.1; it first was at step 8, with 16.png, 17.png, 18.png, "
    back = "19.png, 20.png; back to step-00000005, at half the learning rate (time 1 of 3 at most)"
    assert capsys.readouterr().err == f"warning: {told}{back}\n"
    assert logs["rollbacks"] == 1 and checkpoints.steps(tmp_path / "one") == [5, 10, 15]
    # The same by hand: five steps at the whole rate, the others at half of it.
    other = with_rate(estimator(tmp_path / "two"), kind(0.1))
    other.train(TrainSpec(input_fn, max_steps=5, steps_per_epoch=5))
    other = with_rate(estimator(tmp_path / "two"), kind(0.05))
    if kind is float:
        other.model.optimizer.learning_rate = 0.05  # the checkpoint brings the old one
    other.train(TrainSpec(input_fn, max_steps=15, steps_per_epoch=5))
    for name, variable in run.variables().items():
        np.testing.assert_array_equal(variable.numpy(), other.variables()[name].numpy(), err_msg=name)


@pytest.mark.parametrize("kind", [float, schedule])
def test_the_halved_rate_survives_a_restart(tmp_path, kind):
    run = with_rate(estimator(tmp_path / "whole"), kind(0.1))
    run.train(TrainSpec(poisoned([7], 2), max_steps=15, steps_per_epoch=5))
    with_rate(estimator(tmp_path / "parts"), kind(0.1)).train(
        TrainSpec(poisoned([7], 2), max_steps=10, steps_per_epoch=5)
    )
    again = with_rate(estimator(tmp_path / "parts"), kind(0.1))
    again.train(TrainSpec(input_fn, max_steps=15, steps_per_epoch=5))
    assert float(again.model.optimizer.learning_rate) == pytest.approx(0.025 if kind is float else 0.0025)
    for name, variable in run.variables().items():
        np.testing.assert_array_equal(variable.numpy(), again.variables()[name].numpy(), err_msg=name)


def test_what_fails_again_and_again_ends_the_run_and_keeps_the_good_checkpoint(tmp_path):
    run = with_rate(estimator(tmp_path), 0.1)
    with pytest.raises(UserError, match=r"learning rate 0\.013.*lower --learning_rate .*step-00000005 is kept"):
        run.train(TrainSpec(poisoned([7], 99), max_steps=15, steps_per_epoch=5))
    assert checkpoints.steps(tmp_path) == [5]
    with pytest.raises(UserError, match=r"at step 5, learning rate 0\.1"):  # there is nothing to go back to
        with_rate(estimator(tmp_path / "new"), 0.1).train(TrainSpec(poisoned([2], 1), max_steps=5, steps_per_epoch=5))


@pytest.mark.parametrize("every", ["1epoch", "3steps"])
def test_a_rollback_comes_before_clusters_are_made_of_what_is_no_number(tmp_path, capsys, every):
    run = estimator(tmp_path, LocalAggregation, warmup_epochs=1, cluster_every=every, **LA)
    run.config = dataclasses.replace(run.config, on_nan="rollback")
    logs = run.train(TrainSpec(poisoned([7], 1), max_steps=15, steps_per_epoch=5))
    assert logs["rollbacks"] == 1 and "it first was at step 8" in capsys.readouterr().err


def test_what_is_handed_to_the_writing_thread_does_not_change_any_more(tmp_path, monkeypatch):
    """Clusters are renewed at steps 6, 9 and 12, in the midst of epochs: what was found of them goes on changing."""
    run = estimator(tmp_path, LocalAggregation, warmup_epochs=1, cluster_every="3steps", **LA)
    run.config = dataclasses.replace(run.config, save_checkpoints_steps=7, keep_checkpoint_max=9)
    write, handed = run._writer.write, []

    def keeping(step, arrays, state, parts):
        handed.append(((arrays, state), copy.deepcopy((arrays, state))))
        return write(step, arrays, state, parts)

    monkeypatch.setattr(run._writer, "write", keeping)
    run.train(TrainSpec(input_fn, max_steps=15, steps_per_epoch=5))
    assert len(handed) == 5 and handed[1][0][1]["found"]["cluster_max"]
    for now, then in handed:
        np.testing.assert_equal(now, then)


def test_what_ended_a_run_is_told_whatever_became_of_its_checkpoint(tmp_path, monkeypatch):
    def ending(mode, context):
        for step, batch in enumerate(input_fn(mode, context)):
            if step == 7:
                raise KeyboardInterrupt
            yield batch

    gate = Gate(monkeypatch, OSError(28, "No space left on device"))
    gate.let_through.set()
    run = estimator(tmp_path)
    monkeypatch.setattr(run, "check_saved", lambda: None)  # it ends before it is asked
    with pytest.raises(KeyboardInterrupt):
        run.train(TrainSpec(ending, max_steps=15, steps_per_epoch=5))


def test_a_checkpoint_made_by_hand_can_be_gone_on_from(tmp_path):
    run = estimator(tmp_path)
    run.save()
    assert run.train(TrainSpec(input_fn, max_steps=5, steps_per_epoch=5))["step"] == 5


def test_a_follower_waits_for_another_checkpoint_where_one_is_damaged(tmp_path, monkeypatch):
    trained(tmp_path, steps=10)
    (checkpoints.latest(tmp_path) / "arrays.npz").write_bytes(b"no")
    told = []

    def nap(_):
        checkpoints.set_aside_damaged(tmp_path, lambda _: None)
        estimator(tmp_path).train(TrainSpec(input_fn, max_steps=15, steps_per_epoch=5))

    monkeypatch.setattr("la_tf.estimator.time.sleep", nap)
    metrics = follow(estimator(tmp_path), [EvalSpec(input_fn, mean_index)], lambda _: None, told.append)
    assert metrics["step"] == 15 and "is damaged" in told[0] and told[0].endswith("waiting for another one")


class Breaking(InstanceRecognition):
    """Its gradients are no numbers from step 9 on, where the loss still is one."""

    def descend(self, tape, objective):
        step = tf.convert_to_tensor(self.optimizer.iterations)
        super().descend(tape, objective)
        kernel = self.trainable_weights[0]
        kernel.assign(kernel * tf.where(step >= 9, np.float32(np.nan), 1.0))


def test_weights_that_are_no_numbers_get_into_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"weights are no numbers any more at step 10, .*step-00000005 is kept"):
        estimator(tmp_path, Breaking).train(TrainSpec(input_fn, max_steps=15, steps_per_epoch=5))
    assert checkpoints.steps(tmp_path) == [5]


def test_a_follower_says_once_that_nobody_trains_and_goes_on_when_somebody_does(tmp_path, monkeypatch):
    trained(tmp_path, steps=10)
    state = checkpoints.read_state(checkpoints.latest(tmp_path))
    write_json(checkpoints.latest(tmp_path) / "state.json", state | {"finished": False})
    told, naps = [], []

    def nap(_):
        naps.append(len(told))
        if len(naps) == 4:
            run = estimator(tmp_path)
            run.train(TrainSpec(input_fn, max_steps=15, steps_per_epoch=5))

    monkeypatch.setattr("la_tf.estimator.time.sleep", nap)
    metrics = follow(estimator(tmp_path), [EvalSpec(input_fn, mean_index)], lambda _: None, told.append)
    assert metrics["step"] == 15 and naps == [1] * 4
    assert told == [f"nobody trains in {tmp_path}: waiting until somebody does (Ctrl-C ends this)"]


def test_a_follower_waits_in_silence_where_somebody_trains(tmp_path, monkeypatch):
    told = []

    def nap(_):
        trained(tmp_path, steps=10)

    monkeypatch.setattr("la_tf.estimator.time.sleep", nap)
    with locked(tmp_path):
        follow(estimator(tmp_path), [EvalSpec(input_fn, mean_index)], lambda _: None, told.append)
    assert told == []


def test_embeddings_that_collapse_are_told_with_what_to_do(tmp_path, capsys):
    run = estimator(tmp_path, weight_decay=20.0, bank_momentum=1.0)  # what is left is the bias, the same for all
    run.config = dataclasses.replace(run.config, log_step_count_steps=1000)
    hook = Progress(250, 8, 25)
    logs = run.train(TrainSpec(input_fn, max_steps=250, steps_per_epoch=25, hooks=(hook,)))
    rows = run.model.bank.rows.numpy().astype(np.float64)
    assert logs["mean_similarity"] == pytest.approx(((rows @ rows.T).sum() - N) / (N * (N - 1)), abs=1e-5)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(said) == 3, "from step 200 on"
    assert said[0].startswith("warning: all embeddings are alike (mean similarity ") and "--weight_decay" in said[0]


def test_a_run_is_given_time_before_it_is_called_collapsed(tmp_path):
    model = estimator(tmp_path).model
    alike = {"mean_similarity": 0.96, "epoch": 2, "step": 200}
    assert "--learning_rate" in model.warning(alike)
    for early in ({"mean_similarity": 0.95}, {"epoch": 1}, {"step": 199}):
        assert model.warning(alike | early) is None
    assert model.warning({"epoch": 9, "step": 900}) is None  # a bank without two rows


@pytest.mark.parametrize(
    ("arguments", "metrics", "said"),
    [
        ({}, {"cluster_max": 16}, None),  # 2 of 5 clusters' parts: 40%
        ({}, {"cluster_max": 17}, "the largest cluster holds 42% of the images: .*--warmup_epochs"),
        ({"clustering": "dbscan"}, {"cluster_max": 14, "unclustered_fraction": 0.99}, "holds 35% .*--dbscan_eps"),
        ({"clustering": "dbscan"}, {"cluster_max": 13, "unclustered_fraction": 0.99}, None),
        ({"clustering": "dbscan"}, {"cluster_max": 1, "unclustered_fraction": 0.991}, "alone.*raise --dbscan_eps"),
        ({"close": "self"}, {"cluster_max": 40}, None),
    ],
)
def test_trivial_clusterings_are_told_with_what_to_do(tmp_path, arguments, metrics, said):
    found = estimator(tmp_path, LocalAggregation, **LA, **arguments).model.warning({"epoch": 9, "step": 900} | metrics)
    assert (found is None) if said is None else re.search(said, found)


def test_one_giant_cluster_is_told_while_it_trains(tmp_path, capsys):
    """Nearly all pictures are one and the same: no clustering can part them."""
    same = np.where(np.arange(N)[:, None, None, None] < 36, IMAGES[0], 5 * IMAGES)

    def alike(mode, context):
        for batch in input_fn(mode, context):
            yield batch | {"image": tf.constant(same[batch["index"].numpy()].astype(np.float32))}

    run = with_rate(estimator(tmp_path, LocalAggregation, warmup_epochs=1, bank_momentum=1.0, **LA), 1e-9)
    logs = run.train(TrainSpec(alike, max_steps=10, steps_per_epoch=5, hooks=(Progress(10, 8, 5),)))
    assert logs["cluster_max"] >= 30
    assert "warning: the largest cluster holds " in capsys.readouterr().err
