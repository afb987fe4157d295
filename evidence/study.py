"""What a study is: arms that are trained alike but for what is asked, with the same seeds, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

DATA = "$LA_TF_DATA"  # within flags: the folder of the unpacked picture sets
SEED = "$SEED"  # within flags of evaluations: the seed of the run
LISTS = "$LISTS"  # within flags: the folder of the lists that name a part of a set
RUNS = "$RUNS"  # within flags: the folder of the runs


@dataclass(frozen=True)
class Arm:
    """A way to train. start: the arm of the study whose run of the same seed it begins with.

    evaluations: those of the study that it takes part in, None: all.
    """

    name: str
    flags: tuple[str, ...] = ()
    start: str | None = None
    evaluations: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Measure:
    """A number of a run: the evaluation that finds it, and the names that lead to it in the `results` of its line."""

    evaluation: str
    path: tuple[str, ...] = ("top1",)
    points: bool = True  # whether it is a share, told in per cent


@dataclass(frozen=True)
class Comparison:
    """What is expected: `more` above `less`, arms of this study or "study/arm", in a measure (of `less`: its own).

    says: the expectation in words; paper: what the paper measured, where that means the same.
    """

    more: str
    less: str
    measure: str
    says: str
    paper: str = ""
    less_measure: str | None = None


@dataclass(frozen=True)
class Study:
    """Arms trained with `flags` and their own with each of `seeds`, judged by `evaluations` (name -> flags).

    The evaluation "density" is not la_tf.evaluate's but the figure's numbers. tables: {title: Measure}, the columns of
    each table.
    """

    name: str
    title: str
    text: str
    flags: tuple[str, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    evaluations: dict[str, tuple[str, ...]]
    tables: tuple[dict[str, Measure], ...]
    comparisons: tuple[Comparison, ...] = ()

    @cached_property
    def measures(self):
        """The measures of all tables by title."""
        return {title: measure for table in self.tables for title, measure in table.items()}

    @cached_property
    def by_name(self):
        """The arms by name."""
        return {arm.name: arm for arm in self.arms}

    def place(self, name):
        """Returns (study, arm) of an arm as comparisons call it."""
        study, slash, arm = name.rpartition("/")
        return (study, arm) if slash else (self.name, name)

    def evaluations_of(self, arm):
        """Returns {name: flags} of what an arm is judged by."""
        names = self.evaluations if arm.evaluations is None else arm.evaluations
        return {name: self.evaluations[name] for name in names}
