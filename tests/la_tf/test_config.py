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
from la_tf.method import TrainingSet
from la_tf.resolve import IMAGES_PER_CLUSTER, LEAST_BACKGROUND, resolve

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


def test_on_imagenet_m_and_k_are_the_papers():
    resolved, warnings = resolve(make(), IMAGENET)
    assert resolved.method.clusters == pytest.approx(30_000, rel=1e-3)
    assert resolved.method.background_k == pytest.approx(4096, rel=2e-3)
    assert warnings == []


def test_m_follows_n_and_k_has_a_least_value():
    resolved, _ = resolve(make(), 42_700)
    assert resolved.method.clusters == 1000
    assert resolve(make(), 100_000)[0].method.background_k == 320  # 0.32% of N
    assert resolve(make(), 1500)[0].method.background_k == LEAST_BACKGROUND
    resolved, _ = resolve(make(batch_size=4), 10)
    assert (resolved.method.clusters, resolved.method.background_k) == (2, 9)  # two clusters, all but one image


@pytest.mark.parametrize("size", [10, 100, 1437, 5000, 13_000, 50_000, IMAGENET])
def test_the_defaults_do_not_warn_about_themselves(size):
    resolved, warnings = resolve(make(batch_size=8), size)
    assert warnings == []
    assert resolved.method.background_k < size and resolved.method.clusters <= size / 4
    assert resolved.method.background_k >= min(size - 1, IMAGES_PER_CLUSTER), "B_i would lie within one cluster"


def test_what_was_chosen_stays():
    resolved, _ = resolve(make(clusters=77, background_k=99), 5000)
    assert (resolved.method.clusters, resolved.method.background_k) == (77, 99)
    assert resolve(resolved, 5000)[0] == resolved


def test_instance_recognition_needs_neither_m_nor_k():
    resolved, warnings = resolve(make(method="ir", warmup_epochs=0), 5000)
    assert (resolved.method.clusters, resolved.method.background_k, warnings) == (None, None, [])


def test_instance_recognition_takes_the_softmax_until_n_is_large_and_noise_then():
    for method in ("ir", "la"):
        found = [resolve(make(method=method), size)[0].method.ir_loss for size in (1437, 100_000, 100_001, IMAGENET)]
        assert found == ["softmax", "softmax", "nce", "nce"]
    assert resolve(make(method="ir", ir_loss="nce"), 1437)[0].method.ir_loss == "nce"
    rows = [resolve(make(method="ir"), size)[0].method.noise_rows for size in (1437, 50_000, IMAGENET)]
    assert rows == [118, 4096, 4096]


def test_the_temperature_is_the_methods_own():
    assert {name: resolve(make(method=name), 5000)[0].method.tau for name in METHODS} == {
        "la": 0.07, "ir": 0.07, "dc": 0.07, "supervised": 0.07, "random": 0.07, "swav": 0.1,
    }  # fmt: skip
    assert resolve(make(method="swav", tau=0.2), 5000)[0].method.tau == 0.2


def test_on_imagenet_deep_cluster_has_the_papers_sizes():
    made = {name: resolve(make(method="dc", backbone=name), IMAGENET)[0].method for name in ("resnet18", "resnet50")}
    assert made["resnet18"].clusters == pytest.approx(10_000, rel=2e-3)
    assert made["resnet18"].head_units == 4096 and made["resnet18"].cluster_every == "1epoch"
    assert [made[name].dc_head for name in made] == ["b", "a"]  # supplement B.2
    assert resolve(make(method="dc", backbone="alexnet"), IMAGENET)[0].method.dc_head == "a"


def test_deep_cluster_keeps_an_assignment_for_at_least_a_hundred_steps():
    assert resolve(make(method="dc"), 1437)[0].method.cluster_every == "10epochs"  # of 11 steps
    assert resolve(make(method="dc"), 12_800)[0].method.cluster_every == "1epoch"
    assert resolve(make(method="dc"), 1437)[0].method.clusters == 100
    assert resolve(make(method="dc", batch_size=8), 40)[0].method.clusters == 10


def test_on_imagenet_swav_has_the_published_sizes():
    method = resolve(make(method="swav", batch_size=256), IMAGENET)[0].method
    assert (method.prototypes, method.queue) == (3000, 3840)
    assert resolve(make(method="swav", batch_size=4096), IMAGENET)[0].method.queue == 0
    assert resolve(make(method="swav"), 1437)[0].method.prototypes == 100


def test_views_of_several_sizes_need_a_backbone_that_pools():
    assert resolve(make(method="swav", backbone="vgg16"), 5000)[0].method.small_views == 0
    assert resolve(make(method="swav"), 5000)[0].method.small_views is None  # by the size of the pictures
    with pytest.raises(FlagError, match=r"^--small_views=6: alexnet"):
        resolve(make(method="swav", backbone="alexnet", small_views=6), 5000)


def test_a_random_run_is_one_step_that_learns_nothing():
    assert resolve(make(method="random"), 1000)[0].run.max_steps == 1


def test_one_clustering_is_enough_for_dbscan_and_many_images_are_too_much():
    resolved, warnings = resolve(make(clustering="dbscan"), 50_000)
    assert resolved.method.clusterings == 1 and warnings == []
    with pytest.raises(FlagError, match=r"^--clustering=dbscan: .* N = 50001"):
        resolve(make(clustering="dbscan"), 50_001)


def test_the_nearest_close_neighbours_stay_well_below_the_background():
    assert resolve(make(close="knn", background_k=20), 1000)[0].method.close_k == 10
    assert resolve(make(close="knn"), IMAGENET)[0].method.close_k == 43


def test_the_length_of_an_embedding_is_the_methods_own():
    found = {name: resolve(make(method=name), 5000)[0].model.embedding_dim for name in METHODS}
    assert found == {"la": 128, "ir": 128, "dc": 256, "swav": 128, "supervised": 128, "random": 128}
    assert resolve(make(method="dc", embedding_dim=64), 5000)[0].model.embedding_dim == 64


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


@pytest.mark.parametrize(("backbone", "least"), [("vgg16", 32), ("alexnet", 15)])
def test_a_picture_too_small_for_the_backbone_is_said(backbone, least):
    with pytest.raises(FlagError, match=f"^--image_size={least - 1}: {backbone} needs at least {least} px"):
        resolve(make(backbone=backbone, image_size=least - 1), 1000)
    resolve(make(backbone=backbone, image_size=least), 1000)


def test_the_channels_of_alexnet_are_for_alexnet():
    assert ModelConfig(backbone="alexnet", alexnet_channels=(96, 256, 384, 384, 256))
    for backbone, channels in (("resnet18", (96, 256, 384, 384, 256)), ("alexnet", (96, 256))):
        with pytest.raises(FlagError, match=r"^--alexnet_channels="):
            ModelConfig(backbone=backbone, alexnet_channels=channels)


def test_the_rate_rises_before_a_cosine_alone():
    with pytest.raises(FlagError, match=r"^--learning_rate_warmup=2"):
        OptimizerConfig(learning_rate_warmup=2.0)
    assert OptimizerConfig(learning_rate_warmup=2.0, schedule="cosine")


@pytest.mark.parametrize(
    ("values", "culprit"),
    [
        ({"batch_size": 1001}, "--batch_size=1001"),
        ({"batch_size": 1001, "method": "ir"}, "--batch_size=1001"),
        ({"background_k": 1000}, "--background_k=1000"),
        ({"clusters": 501}, "--clusters=501"),
        ({"warmup_epochs": 0}, "--warmup_epochs=0"),
        ({"background": "cluster", "background_clusters": 501}, "--background_clusters=501"),
        ({"close": "knn", "close_k": 128}, "--close_k=128"),
        ({"close": "knn", "close_k": 1000, "background": "all"}, "--close_k=1000"),
        ({"method": "dc", "clusters": 501}, "--clusters=501"),
        ({"method": "dc", "cluster_every": "100steps"}, "--cluster_every=100steps"),
        ({"clustering": "dbscan", "close": "knn", "close_k": 500}, "--close_k=500"),
        ({"background": "cluster", "background_clusters": 300, "close": "knn", "close_k": 10}, "--close_k=10"),
        ({"learning_rate_warmup": 200.0, "schedule": "cosine"}, "--learning_rate_warmup=200.0"),
    ],
)
def test_values_that_cannot_work_at_this_n_stop(values, culprit):
    with pytest.raises(FlagError, match=f"^{culprit}:"):
        resolve(make(**values), 1000)


@pytest.mark.parametrize(
    "values",
    [{"batch_size": 1000}, {"background_k": 999}, {"clusters": 500}, {"warmup_epochs": 0, "warm_start": "runs/a"}],
)
def test_values_just_inside_the_bounds_go_on(values):
    resolve(make(**values), 1000)


@pytest.mark.parametrize(
    ("values", "culprit"),
    [
        ({"clusters": 250, "background_k": 50}, "--clusters=250"),
        ({"clusters": 10, "background_k": 99}, "--background_k=99"),
        ({"warmup_epochs": 20, "epochs": 20, "background_k": 50}, "--warmup_epochs=20"),
        ({"method": "swav", "prototypes": 300, "queue": 128}, "--prototypes=300"),
        ({"method": "ir", "ir_loss": "nce"}, "--noise_normalizer=first_batch"),
        ({"background": "cluster", "background_clusters": 300, "clusters": 20}, "--background_clusters=300"),
        ({"method": "dc", "optimizer": "lars"}, "--optimizer=lars"),
    ],
)
def test_values_that_work_badly_are_warned_about(values, culprit):
    (warning,) = resolve(make(**values), 1000)[1]
    assert warning.startswith(culprit + ":")


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
        {"exporters": ("final",)}, {"warm_start": "runs/a"}, {"tfds_data_dir": "/elsewhere"},
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
    assert ours == set(make().flat()), "a flag that no field takes"
