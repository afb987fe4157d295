"""Trains an embedding from unlabelled pictures: python -m la_tf.train --flagfile=quickstart.flags

The model_dir is the run: the same command resumes it, or says that it is finished. Every flag has a default but
--dataset and --model_dir; presets (*.flags) set the rest, and flags after --flagfile override them. With --plan it says
what the run would take on this machine, and ends.
"""

import contextlib
import sys
from functools import partial
from pathlib import Path

from data import cli
from data.errors import UserError
from la_tf import checkpoints, flags, model_dir
from la_tf.experiment import Experiment, check_division, stored_config
from la_tf.plan import Plan, check_memory
from la_tf.plan_table import plan_table
from la_tf.processes import task
from la_tf.summary import closing_table, result_of


def main():
    """Flags -> experiment -> run; returns the result."""
    config = flags.config()
    if flags.plan():
        return planned(Experiment(config, **flags.plan_sizes()))
    experiment = Experiment(config, processes=task() if config.run.strategy == "multiworker" else (0, 1))
    folder = experiment.config.run.model_dir
    if experiment.config.run.mode == "eval":
        evaluate(experiment)
    else:
        check_warm_start(experiment.config.run)
        first = experiment.process == 0  # of several, the one that writes
        with model_dir.locked(folder) if first else contextlib.nullcontext():
            if first:
                checkpoints.set_aside_damaged(folder, warn)
                experiment.claim()
                for warning in experiment.warnings:
                    warn(warning)
            else:
                experiment.check()
            # Only the first one sets a damaged checkpoint aside: till it has, the others do not believe one.
            state = experiment.finished() if first or is_whole(checkpoints.latest(folder)) else None
            if state is None:
                train(experiment)
                if first and experiment.config.run.mode == "train":
                    tell_what_is_not_evaluated(experiment)
            else:
                how = "it stopped early" if state["stopped"] else "raise --epochs to go on"
                how = "there is nothing to learn" if experiment.config.method.method == "random" else how
                print(f"{folder} is finished ({how})", file=sys.stderr)
    if experiment.process == 0:
        print(closing_table(experiment), file=sys.stderr)
    return result_of(experiment)


def check_warm_start(run):
    """Raises UserError where a run that has not begun is to start from a folder that holds none."""
    source = run.warm_start
    if not source or checkpoints.steps(run.model_dir):
        return
    if not checkpoints.steps(source):
        raise UserError(f"--warm_start={source}: holds no checkpoint; point it at the model_dir of a run")
    if (Path(source) / "config.json").exists():
        try:
            stored_config(source)  # which a detector, for one, does not have
        except UserError as error:
            raise UserError(f"--warm_start={source}: {error}") from None


def is_whole(checkpoint):
    """Tells whether there is a checkpoint, and nothing wrong with it."""
    return checkpoint is not None and checkpoints.problem(checkpoint) is None


def warn(text):
    """Prints a warning."""
    print(f"warning: {text}", file=sys.stderr)


def tell_what_is_not_evaluated(experiment):
    """Says so where no other process has evaluated the end of the run: it is behind, has died, or never came."""
    if experiment.no_test_score:
        return
    folder = experiment.config.run.model_dir
    evaluated = model_dir.MetricsFile(Path(folder) / "eval_test").read()
    last, end = evaluated[-1]["step"] if evaluated else 0, checkpoints.steps(folder)[-1]
    if last < end:
        seen = f"the last one at step {last:,}" if evaluated else "no step at all"
        warn(f"step {end:,} has not been evaluated ({seen}); the same command with --mode=eval does it")


def planned(experiment):
    """Measures what a run consists of, a little of each; prints and returns what it would take. Writes nothing."""
    for warning in experiment.warnings:
        warn(warning)
    if experiment.config.run.strategy != "one" and experiment.replicas == 1:
        raise cli.FlagError("--plan: say how many devices there will be by --plan_replicas")
    check_memory(experiment)
    cli.load_tensorflow(experiment.config.run.deterministic)
    from la_tf.calibration import calibrate

    plan = Plan(experiment, calibrate(experiment, partial(print, file=sys.stderr)))
    print(plan_table(plan), file=sys.stderr)
    return plan.result()


def evaluate(experiment):
    """Evaluates each checkpoint of the process that trains, until the last one; a finished run's last one as well."""
    if experiment.no_test_score:
        raise cli.FlagError(f"--mode=eval: there is nothing to evaluate by: {experiment.no_test_score}")
    experiment.check()
    config = experiment.config.run
    cli.load_tensorflow(config.deterministic)
    from la_tf.estimator import Estimator, follow

    print(f"evaluating the checkpoints of {config.model_dir} as they come", file=sys.stderr)
    estimator = Estimator(experiment.model_fn, experiment.run_config())
    follow(estimator, experiment.eval_specs(), partial(print, file=sys.stderr), warn)


def train(experiment):
    """Trains, with evaluations after every epoch unless --mode=train leaves them to another process."""
    config = experiment.config.run
    cli.load_tensorflow(config.deterministic)
    import tensorflow as tf

    from la_tf.estimator import Estimator, train_and_evaluate
    from la_tf.replicas import lost_process, strategy_of

    estimator = Estimator(experiment.model_fn, experiment.run_config(strategy_of(config.strategy, config.replicas)))
    replicas = estimator.replicas
    check_division(experiment.config, replicas.count)  # by GPUs, which flags alone do not tell
    if estimator.is_chief:
        print(experiment.headline(), file=sys.stderr)
    eval_specs = experiment.eval_specs() if config.mode == "both" else ()
    train_spec = experiment.train_spec(replicas.processes)
    try:
        if config.warm_start:
            warm_start(experiment, estimator)
        train_and_evaluate(estimator, train_spec, eval_specs, experiment.exporters())
    except tf.errors.OpError as error:
        lost = lost_process(error) if replicas.processes.count > 1 else None
        if lost is None:
            raise
        raise lost from error


def warm_start(experiment, estimator):
    """Takes over what another run has learned, unless this one has begun, and says so."""
    source = experiment.config.run.warm_start
    begun = bool(estimator.latest_checkpoint())
    taken_over = estimator.warm_start(source, experiment.has_the_pictures_of(source))
    if estimator.is_chief and begun:
        print(f"--warm_start={source}: not used, the run has begun", file=sys.stderr)
    elif estimator.is_chief:
        report_warm_start(*taken_over)


def report_warm_start(loaded, missing, unused):
    """Prints what a warm start took over."""
    print(f"warm start: {len(loaded)} variables taken over", file=sys.stderr)
    for title, names in (("not taken over, start afresh", missing), ("there, but not used", unused)):
        for name in names:
            print(f"  {title}: {name}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main, resumes=True)
