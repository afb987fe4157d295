"""The Estimator's vocabulary on Keras: what to run, where, how often, on which input."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

ON_NAN = ("stop", "rollback")  # what follows a loss that is no number


class ModeKeys(StrEnum):
    """What an `input_fn` is asked for."""

    TRAIN = "train"
    EVAL = "eval"
    PREDICT = "predict"


@dataclass(frozen=True)
class RunConfig:
    """How a run behaves, apart from what it learns."""

    model_dir: str
    seed: int = 0
    save_checkpoints_steps: int = 0  # besides the end of every epoch; 0: at the end of epochs alone
    keep_checkpoint_max: int = 3
    keep_best: str | None = None  # a metric: the checkpoint with the highest one stays beside the newest
    log_step_count_steps: int = 100
    on_nan: str | None = None  # one of ON_NAN; None: it stops, and nobody is told of a flag
    strategy: Any = None  # of tf.distribute; None: one device
    deterministic: bool = False  # TensorFlow's deterministic kernels: slower, bit-identical on one machine

    @classmethod
    def of(cls, options, strategy=None, keep_best=None):
        """Returns that of the run options of a main, whose names are its flags'."""
        return cls(
            model_dir=options.model_dir,
            seed=options.seed,
            save_checkpoints_steps=options.checkpoint_steps,
            keep_checkpoint_max=options.keep,
            keep_best=keep_best,
            log_step_count_steps=options.log_steps,
            on_nan=options.on_nan,
            strategy=strategy,
            deterministic=options.deterministic,
        )


@dataclass(frozen=True)
class InputContext:
    """What an `input_fn` needs to know: the first step to deliver, and its share of each global batch.

    epoch_rows, where given, are the rows of the epoch that the first step lies in, and its batches are all there are.
    """

    first_step: int = 0
    epoch_rows: Any = None
    pipeline: int = 0
    pipelines: int = 1


@dataclass(frozen=True)
class TrainSpec:
    """What to train on: `input_fn(mode, context)` gives batches without end; steps_per_epoch cuts them into epochs."""

    input_fn: Callable
    max_steps: int
    steps_per_epoch: int
    hooks: tuple = ()  # keras callbacks
    monitor: "EvalSpec | None" = None  # what schedules and exporters select on, evaluated after every epoch
    names: Any = None  # of the training pictures by their index, a sequence, to tell which one a loss failed at


@dataclass(frozen=True)
class EvalSpec:
    """One named evaluation: `evaluate(model, batches) -> metrics`, with its own event folder `eval_<name>`."""

    input_fn: Callable
    evaluate: Callable[[Any, Any], dict]
    name: str = "test"
    steps: int | None = None  # batches to look at; None: all
