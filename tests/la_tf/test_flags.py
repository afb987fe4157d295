"""From the command line to a Config: every flag arrives, and every preset is one that can start."""

import pytest
from absl import flags
from absl.testing import flagsaver

from data.errors import FlagError
from la_tf import flags as la_flags
from la_tf.config import resolve
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


PRESETS = sorted([*ROOT.glob("*.flags"), *ROOT.glob("la_tf/presets/*.flags")])


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.name)
def test_a_preset_needs_nothing_but_a_data_set_and_says_what_to_expect(preset):
    config = parsed(f"--flagfile={preset}", "--dataset=digits")
    assert config.run.model_dir == f"runs/{preset.stem}"
    header = [line for line in preset.read_text().splitlines() if line.startswith("# ")]
    for word in ("# Command:  ", "# Expected: ", "# Hardware: "):
        assert sum(line.startswith(word) for line in header) == 1, word
    assert max(map(len, header)) <= 140
    if config.data.image_size == 224:
        _, warnings = resolve(config, 1_281_167)
        assert warnings == [] and "ot run here" in "".join(header)
        assert f"--flagfile={preset.relative_to(ROOT)} " in "".join(header)


def test_every_method_and_backbone_of_table_1_has_a_preset():
    configs = [parsed(f"--flagfile={preset}", "--dataset=digits") for preset in PRESETS]
    found = {(config.method.method, config.model.backbone, config.model.batch_norm) for config in configs}
    backbones = ("alexnet", "vgg16", "resnet18", "resnet50")
    wanted = {(method, backbone, True) for method in ("la", "ir", "dc") for backbone in backbones}
    wanted |= {("ir", "alexnet", False), ("ir", "vgg16", False), ("random", "alexnet", True)}
    assert wanted <= found
