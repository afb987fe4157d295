"""The configuration: what is refused and by which flag's name, what follows from N, what makes a run's identity."""

import inspect
import json
from dataclasses import replace

import numpy as np
import pytest

from data.config import DataConfig
from data.errors import FlagError
from la_tf.config import (
    CIRCUMSTANCES,
    METHODS,
    Config,
    MethodConfig,
    ModelConfig,
    OptimizerConfig,
    RunOptions,
    interval,
    method_class,
)
from la_tf.experiment import check_division
from la_tf.method import TrainingSet
from la_tf.resolve import resolve

IMAGENET = 1_281_167
NAN = float("nan")


def make(**values):
    """A Config of the defaults with some values changed, each put where it belongs."""
    parts = {"data": DataConfig, "model": ModelConfig, "method": MethodConfig, "optimizer": OptimizerConfig}
    parts |= {"run": RunOptions}
    values = {"model_dir": "runs/x", **values}
    made = {
        part: kind(**{name: value for name, value in values.items() if name in kind.__dataclass_fields__})
        for part, kind in parts.items()
    }
    return Config(**made)


@pytest.mark.parametrize(
    "bad",
    [
        {"backbone": "alexnet2012"}, {"width": 0}, {"resnet_version": 3}, {"stem": "large"}, {"embedding_dim": 1},
        {"method": "simclr"}, {"tau": 0.0}, {"tau": -1.0}, {"tau": NAN}, {"bank_momentum": 0.0},
        {"bank_momentum": 1.01}, {"background_k": 0}, {"clusterings": 0}, {"clusters": 1}, {"warmup_epochs": -1},
        {"learning_rate": 0.0}, {"learning_rate": NAN}, {"momentum": 1.0}, {"momentum": -0.1}, {"weight_decay": -1e-4},
        {"schedule": "linear"}, {"patience": 0}, {"mode": "test"}, {"epochs": 0}, {"max_steps": 0}, {"seed": -1},
        {"seed": 2**31}, {"early_stopping": -1}, {"checkpoint_steps": -1}, {"keep": 0}, {"log_steps": 0},
        {"precision": "float16"}, {"bank_dtype": "int8"},
    ],
    ids=lambda bad: str(bad),
)  # fmt: skip
def test_a_bad_value_is_refused_by_its_flags_name_and_value(bad):
    ((flag, value),) = bad.items()
    with pytest.raises(FlagError) as caught:
        make(**bad)
    message = str(caught.value)
    assert message.startswith(f"--{flag}={value}") and "\n" not in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("flag", ["method", "schedule", "backbone", "stem", "mode"])
def test_a_bad_choice_lists_the_choices(flag):
    with pytest.raises(FlagError, match=f"{make().flat()[flag]}"):  # the default is one of them
        make(**{flag: "nonsense"})


def test_a_run_needs_a_folder():
    for folder in (None, ""):
        with pytest.raises(FlagError, match=r"^--model_dir: set it"):
            make(model_dir=folder)


def test_an_unknown_exporter_is_named():
    with pytest.raises(FlagError, match=r"^--exporters=worst"):
        make(exporters=("best", "worst"))
    assert make(exporters=()).run.exporters == ()


@pytest.mark.parametrize("values", [{"schedule": "steps"}, {"drop_epochs": (5,)}])
def test_steps_and_their_epochs_go_together(values):
    with pytest.raises(FlagError, match=r"--schedule=steps and --drop_epochs"):
        make(**values)


@pytest.mark.parametrize("epochs", [(160, 80), (5, 5), (0, 10)])
def test_drop_epochs_rise_from_one(epochs):
    with pytest.raises(FlagError, match=f"^--drop_epochs={epochs[0]},{epochs[1]}:"):
        make(schedule="steps", drop_epochs=epochs)
    assert make(schedule="steps", drop_epochs=(80, 160)).optimizer.drop_epochs == (80, 160)


def test_small_pictures_get_the_small_stem_unless_told_otherwise():
    assert [ModelConfig().stem_for(size) for size in (16, 64, 65, 224)] == ["small", "small", "imagenet", "imagenet"]
    assert ModelConfig(stem="imagenet").stem_for(16) == "imagenet"


@pytest.mark.parametrize(
    ("text", "wanted"), [("1epoch", (1, "epochs")), ("20 epochs", (20, "epochs")), ("1000steps", (1000, "steps"))]
)
def test_how_often_clusters_are_renewed_is_read(text, wanted):
    assert interval(text) == wanted


@pytest.mark.parametrize("text", ["", "0epochs", "5", "-1steps", "1.5epochs", "2 minutes"])
def test_how_often_clusters_are_renewed_is_checked(text):
    with pytest.raises(FlagError, match=f"^--cluster_every={text}: "):
        make(cluster_every=text)


def test_small_stems_are_taken_where_a_backbone_has_one():
    assert ModelConfig(backbone="alexnet").stem_for(32) == "small"
    assert ModelConfig(backbone="vgg16").stem_for(32) == "imagenet"
    with pytest.raises(FlagError, match=r"^--stem='small': vgg16"):
        ModelConfig(backbone="vgg16", stem="small")


def test_the_channels_of_alexnet_are_for_alexnet():
    assert ModelConfig(backbone="alexnet", alexnet_channels=(96, 256, 384, 384, 256))
    for backbone, channels in (("resnet18", (96, 256, 384, 384, 256)), ("alexnet", (96, 256))):
        with pytest.raises(FlagError, match=r"^--alexnet_channels="):
            ModelConfig(backbone=backbone, alexnet_channels=channels)


def test_the_rate_rises_before_a_cosine_alone():
    with pytest.raises(FlagError, match=r"^--learning_rate_warmup=2"):
        OptimizerConfig(learning_rate_warmup=2.0)
    assert OptimizerConfig(learning_rate_warmup=2.0, schedule="cosine")


def test_a_config_survives_its_json():
    config = make(
        dataset="digits", flip=False, schedule="steps", drop_epochs=(3, 5), exporters=("latest",), max_steps=7
    )
    flat = json.loads(json.dumps(config.flat()))
    assert Config.from_flat(flat) == config
    assert Config.from_flat({**flat, "a flag of a later version": 1}) == config


def test_what_an_older_version_did_not_store_takes_its_default():
    flat = make(tau=0.2).flat()
    del flat["clusterings"]
    assert Config.from_flat(flat) == make(tau=0.2)


def test_identity_and_circumstances_share_out_all_flags():
    every_identity = {}
    for method in METHODS:
        config = make(method=method)
        identity, circumstances = config.identity(), config.circumstances()
        assert not identity.keys() & circumstances.keys()
        assert circumstances.keys() == CIRCUMSTANCES, "a circumstance that is no flag"
        every_identity |= identity
    assert every_identity.keys() | circumstances.keys() == config.flat().keys(), "a flag that no method reads"


def test_a_flag_that_a_method_does_not_read_is_no_part_of_its_identity():
    same = [("ir", {"clusters": 9}), ("la", {"prototypes": 9}), ("dc", {"ir_loss": "nce"}), ("swav", {"clusters": 9})]
    for method, values in same:
        assert make(method=method, **values).identity() == make(method=method).identity()
    other = [("la", {"ir_loss": "nce"}), ("dc", {"clusters": 9}), ("swav", {"prototypes": 9}), ("random", {"tau": 1.0})]
    for method, values in other:
        assert make(method=method, **values).identity() != make(method=method).identity()


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "folder:/moved"}, {"workers": 3}, {"model_dir": "runs/y"}, {"mode": "train"}, {"epochs": 300},
        {"max_steps": 9}, {"checkpoint_steps": 5}, {"keep": 1}, {"log_steps": 1}, {"deterministic": True},
        {"exporters": ("final",)}, {"warm_start": "runs/a"}, {"tfds_data_dir": "/elsewhere"}, {"xla": True},
    ],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_where_how_long_and_how_loudly_may_change(other):
    assert make(**other).identity() == make().identity()


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1}, {"tau": 0.2}, {"method": "ir"}, {"backbone": "resnet50"}, {"width": 16}, {"batch_size": 64},
        {"image_size": 32}, {"learning_rate": 0.1}, {"weight_decay": 0.0}, {"schedule": "cosine"}, {"jitter": 0.1},
        {"validation_fraction": 0.2}, {"warmup_epochs": 3}, {"clusters": 9}, {"background_k": 9}, {"flip": True},
        {"embedding_dim": 64}, {"patience": 3}, {"clusterings": 3}, {"batch_norm": False}, {"resnet_version": 1},
        {"precision": "mixed_bfloat16"}, {"bank_dtype": "float16"},
    ],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_what_is_learned_and_how_may_not(other):
    assert make(**other).identity() != make().identity()


OTHER_CHOICES = {
    "bank_momentum": 0.3, "tau": 0.2, "ir_loss": "nce", "noise_rows": 7, "noise_normalizer": "running",
    "warmup_epochs": 3, "background": "all", "background_k": 9, "background_clusterings": 4, "background_clusters": 8,
    "close": "knn", "close_k": 5, "clusterings": 2, "clusters": 6, "cluster_on": "center_crops",
    "cluster_every": "2epochs", "clustering": "dbscan", "dbscan_eps": 0.4, "dbscan_min_samples": 3,
    "warm_iterations": 2, "cluster_sample": 64, "cluster_in_background": True,
}  # fmt: skip


@pytest.mark.parametrize("method", ["ir", "la"])
def test_a_choice_arrives_at_the_method_that_reads_it(method):
    """Every flag that it reads is an argument of its constructor, and sets what it names."""
    config = make(method=method, **OTHER_CHOICES)
    pictures = TrainingSet(40, np.zeros(40, int), 1, np.arange(4), 5, lambda rows=None: [])
    arguments = method_class(method).arguments(config, pictures)
    read = {one for one in OTHER_CHOICES if one not in config.method.unread()}
    assert {name: arguments[name] for name in read} == {name: OTHER_CHOICES[name] for name in read}
    accepted = set()
    for kind in method_class(method).__mro__:
        accepted |= set(inspect.signature(kind.__init__).parameters) if kind.__module__.startswith("la_tf") else set()
    assert arguments.keys() <= accepted


def test_every_method_by_name_is_there():
    for name in METHODS:
        assert callable(method_class(name).training_losses)


def test_configs_cannot_be_changed_in_place():
    with pytest.raises(AttributeError):
        make().method.tau = 1.0
    changed = replace(make().method, tau=1.0)
    assert changed.tau == 1.0
    with pytest.raises(FlagError):
        replace(changed, tau=-1.0)


def test_the_field_names_are_the_flag_names():
    from absl import flags

    from la_tf import flags as _  # noqa: F401

    assert set(make().flat()) <= set(flags.FLAGS), "a field that no flag sets"
    ours = {
        flag.name
        for module, defined in flags.FLAGS.flags_by_module_dict().items()
        if module in ("data.flags", "la_tf.flags")
        for flag in defined
    }
    # --plan, --plan_size and --plan_replicas ask for something else than a run, and belong to none.
    assert ours == {*make().flat(), "plan", "plan_size", "plan_replicas"}, "a flag that no field takes"


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("mode", {"strategy": "mirrored", "replicas": 2, "mode": "eval"}),
        ("precision", {"strategy": "multiworker", "precision": "mixed_float16"}),
        ("xla", {"strategy": "mirrored", "xla": True}),
        ("replicas", {"replicas": 2}),
        ("clustering", {"bank_sharding": "sharded", "clustering": "dbscan"}),
        ("method", {"bank_sharding": "sharded", "method": "dc"}),
        ("method", {"strategy": "multiworker", "method": "dc"}),
        ("cluster_in_background", {"strategy": "multiworker", "cluster_in_background": True}),
    ],
)
def test_what_cannot_be_done_by_several_replicas_is_refused_in_a_line(flag, values):
    with pytest.raises(FlagError, match=rf"^--{flag}[=:][^\n]*$"):
        make(**values)


def test_a_batch_that_replicas_cannot_divide_is_refused():
    check_division(make(batch_size=12), 4)
    with pytest.raises(FlagError, match=r"--batch_size=12: .* 5 replicas"):
        check_division(make(batch_size=12), 5)


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("cells", {"cells": 10}),
        ("visited_rows", {"visited_rows": 500}),
        ("cells", {"background_search": "cells", "cells": 600}),
        ("visited_rows", {"background_search": "cells", "visited_rows": 10}),
        ("background_search", {"background_search": "cells", "background": "all"}),
    ],
)
def test_cells_that_are_not_searched_or_too_small_are_refused(flag, values):
    with pytest.raises(FlagError, match=f"^--{flag}="):
        resolve(make(**values), 1000)
