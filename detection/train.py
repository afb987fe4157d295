"""Fine-tunes an exported backbone into Faster R-CNN: python -m detection.train --export=E --devkit=PATH --model_dir=M

The model_dir is the run: the same command resumes it, or says that it is finished. Before the first step all
annotations are validated.
"""

import sys

from data import cli
from data.errors import FlagError
from detection import flags
from la_tf import checkpoints, model_dir


def main():
    """Flags -> experiment -> run; returns the last metrics."""
    config, expected = flags.config(), flags.expected()
    config.check_training()
    with model_dir.locked(config.run.model_dir, remedy="wait for it, or choose another folder"):
        cli.load_tensorflow(config.run.deterministic)
        from detection.experiment import Experiment
        from la_tf.replicas import strategy_of

        strategy = strategy_of(config.run.strategy, config.run.replicas)  # before TensorFlow has seen any device
        experiment = Experiment(config, expected)
        experiment.validate()
        checkpoints.set_aside_damaged(config.run.model_dir, lambda text: print(f"warning: {text}", file=sys.stderr))
        experiment.claim()
        for warning in experiment.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        return train(experiment, strategy)


def train(experiment, strategy):
    """Trains to the last step, on the devices of a tf.distribute `strategy`; returns its metrics."""
    import tensorflow as tf

    from detection import loading
    from la_tf.estimator import Estimator, train_and_evaluate

    run = experiment.config.run
    if run.deterministic and tf.config.list_physical_devices("GPU"):
        raise FlagError(
            "--deterministic: TensorFlow has no deterministic gradient of RoI pooling on a GPU; leave it out, or hide "
            "the GPU by CUDA_VISIBLE_DEVICES="
        )
    estimator = Estimator(experiment.model_fn, experiment.run_config(strategy))
    print(experiment.headline(), file=sys.stderr)
    if not experiment.begun and run.initialization == "random":
        print(
            f"{run.export}: its architecture alone; every weight begins afresh, by --seed={run.seed}", file=sys.stderr
        )
    elif not experiment.begun:
        loaded = loading.compared(estimator.model, experiment.backbone, run.export)
        print(loading.report(loaded, run.export), file=sys.stderr)
    print(loading.stages(estimator.model), file=sys.stderr)
    if estimator.step >= run.steps:
        print(f"{run.model_dir} is finished (raise --steps to go on)", file=sys.stderr)
    metrics, _ = train_and_evaluate(estimator, experiment.train_spec(), experiment.eval_specs())
    return {**metrics, "model_dir": run.model_dir}


if __name__ == "__main__":
    cli.run(main, resumes=True)
