"""From the command line to a Config: every flag arrives, and every preset is one that can start."""

import re

import pytest
from absl import flags
from absl.testing import flagsaver

from data.errors import FlagError
from la_tf import flags as la_flags
from la_tf.config import METHODS
from la_tf.experiment import Experiment
from la_tf.resolve import resolve
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


def rows_of_the_ablations():
    """(row, preset, flag) of the table in WORKSPACE.md."""
    lines = (ROOT / "WORKSPACE.md").read_text().split("each one flag away")[1].split("\n## ")[0].splitlines()
    cells = [[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    return [
        (row, preset.replace("P/", "la_tf/presets/"), flag) for _, row, preset, flag, _ in cells[1:] if preset != "any"
    ]


def test_the_ablations_of_the_paper_are_one_flag_from_a_preset():
    """What a row says, (H, m) or a choice, is what its preset and its flag make of N = 1,281,167."""
    rows = rows_of_the_ablations()
    assert len(rows) == 25
    kinds = {"ResNet-18": "resnet18", "ResNet-50": "resnet50", "AlexNet": "alexnet", "VGG16": "vgg16"}
    for row, preset, flag in rows:
        arguments = [f"--flagfile={ROOT / preset}", "--dataset=digits", *([flag] if flag else [])]
        config, _ = resolve(parsed(*arguments), 1_281_167)
        method, backbone = config.method, config.model.backbone
        what = re.fullmatch(r"(.+) \((\d+), (\d+)k\)", row)
        if what and what[1] in kinds:
            assert backbone == kinds[what[1]], row
            assert method.clusterings == int(what[2]), row
            assert method.clusters == pytest.approx(1000 * int(what[3]), rel=1e-3), row
            assert (method.background, method.close) == ("knn", "clusters")
        else:
            assert (backbone, method.clusterings, method.clusters) == ("resnet18", 1, 10_000), row
    by_row = {
        row: resolve(parsed(f"--flagfile={ROOT / preset}", "--dataset=digits", *([flag] if flag else [])), 1_281_167)[
            0
        ].method
        for row, preset, flag in rows
    }
    assert by_row["B_i all N"].background == "all"
    by_clusters = by_row["B_i by clusters (3, 1k)"]
    assert (by_clusters.background, by_clusters.background_clusterings, by_clusters.background_clusters) == (
        "cluster",
        3,
        1000,
    )
    assert by_row["C_i the image itself"].close == "self" and by_row["C_i the k' nearest"].close == "knn"
    assert by_row["C_i the k' nearest"].close_k < 4096 / 20  # k' much smaller than k
    assert [by_row[f"k = {k}"].background_k for k in (2048, 8192)] == [2048, 8192]
    assert by_row["clusters of centre crops"].cluster_on == "center_crops"
    assert by_row["clusters every 1000 steps"].cluster_every == "1000steps"


def test_a_flag_of_another_method_changes_nothing():
    swav = f"--flagfile={ROOT / 'la_tf' / 'presets' / 'resnet50_swav.flags'}"
    for method in set(METHODS) - {"swav"}:
        Experiment(parsed(swav, "--dataset=digits", f"--method={method}"))
    with pytest.raises(FlagError, match=r"^--small_views=6: digits have none"):
        Experiment(parsed(swav, "--dataset=digits"))
