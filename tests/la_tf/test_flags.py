"""From the command line to a Config: every flag arrives, and every preset is one that can start."""

import pytest
from absl import flags
from absl.testing import flagsaver

from data.errors import FlagError
from la_tf import flags as la_flags
from tests.la_tf.test_config import make
from tests.programs import ROOT


def parsed(*arguments):
    """The Config of a command line."""
    with flagsaver.flagsaver():
        flags.FLAGS(["main", *arguments])
        return la_flags.config()


def test_without_flags_the_defaults_are_those_of_the_dataclasses():
    assert parsed("--model_dir=runs/x") == make()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--tau=0.2", 0.2), ("--method=ir", "ir"), ("--nobatch_norm", False), ("--clusters=77", 77), ("--flip", True),
        ("--noflip", False), ("--exporters=latest,best", ("latest", "best")), ("--exporters=", ()), ("--keep=9", 9),
        ("--dataset=digits", "digits"), ("--warm_start=runs/a", "runs/a"), ("--max_steps=5", 5), ("--seed=3", 3),
    ],
)  # fmt: skip
def test_a_flag_arrives_where_it_belongs(argument, value):
    name = argument.split("=")[0].removeprefix("--")
    name = name if name in flags.FLAGS else name.removeprefix("no")
    assert parsed("--model_dir=runs/x", argument) == make(**{name: value})


def test_drop_epochs_are_whole_numbers():
    steps = ["--model_dir=runs/x", "--schedule=steps"]
    assert parsed(*steps, "--drop_epochs=160,190").optimizer.drop_epochs == (160, 190)
    with pytest.raises(FlagError, match=r"^--drop_epochs=160,1\.5: give whole numbers"):
        parsed(*steps, "--drop_epochs=160,1.5")


@pytest.mark.parametrize("preset", sorted(ROOT.glob("*.flags")), ids=lambda path: path.name)
def test_a_preset_needs_nothing_but_a_data_set(preset):
    config = parsed(f"--flagfile={preset}", "--dataset=digits")
    assert config.run.model_dir == f"runs/{preset.stem}"
