"""What follows from N and from the method, and what is refused or warned about at an N."""

import pytest

from data.errors import FlagError
from la_tf.config import METHODS
from la_tf.resolve import LEAST_BACKGROUND, resolve
from tests.la_tf.test_config import IMAGENET, make


def test_on_imagenet_m_and_k_are_the_papers():
    resolved, warnings = resolve(make(), IMAGENET)
    assert resolved.method.clusters == pytest.approx(30_000, rel=1e-3)
    assert resolved.method.background_k == pytest.approx(4096, rel=2e-3)
    assert warnings == []


def test_m_follows_n_and_k_has_a_least_value():
    # 42.7 / 2^0.3 = 34.7 images a cluster at half the size of ImageNet; 10.0 at 10,000; 8 at least.
    found = {size: resolve(make(), size)[0].method.clusters for size in (IMAGENET // 2, 10_000, 800)}
    assert found[IMAGENET // 2] == pytest.approx(IMAGENET / 2 / 34.684, rel=1e-3)
    assert found[10_000] == pytest.approx(1_005, abs=1) and found[800] == 100
    assert resolve(make(), 100_000)[0].method.background_k == 320  # 0.32% of N
    assert resolve(make(), 1500)[0].method.background_k == LEAST_BACKGROUND
    resolved, _ = resolve(make(batch_size=4), 10)
    assert (resolved.method.clusters, resolved.method.background_k) == (2, 9)  # two clusters, all but one image


@pytest.mark.parametrize("size", [10, 100, 1437, 5000, 13_000, 50_000, IMAGENET])
def test_the_defaults_do_not_warn_about_themselves(size):
    resolved, warnings = resolve(make(batch_size=8), size)
    assert warnings == []
    assert resolved.method.background_k < size and resolved.method.clusters <= size / 4
    assert resolved.method.background_k >= min(size - 1, 3 * size / resolved.method.clusters), "B_i is of few clusters"


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


def test_clusterings_go_on_from_the_last_ones_where_that_saves_something():
    found = [resolve(make(), size)[0].method.warm_iterations for size in (1437, 4_999, 5_000, IMAGENET)]
    assert found == [0, 0, 5, 5]
    assert [resolve(make(warm_iterations=n), 10_000)[0].method.warm_iterations for n in (0, 3)] == [0, 3]


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


def test_a_bfloat16_bank_that_could_not_follow_is_told():
    for dtype, momentum, told in (("bfloat16", 0.01, True), ("bfloat16", 0.5, False), ("float16", 0.01, False)):
        for method in ("la", "supervised"):
            _, warnings = resolve(make(method=method, bank_dtype=dtype, bank_momentum=momentum), 5000)
            assert [line for line in warnings if line.startswith("--bank_dtype=bfloat16")] == warnings[:told]


def test_one_clustering_is_enough_for_dbscan_and_many_images_are_too_much():
    resolved, warnings = resolve(make(clustering="dbscan"), 50_000)
    assert resolved.method.clusterings == 1 and warnings == []
    with pytest.raises(FlagError, match=r"^--clustering=dbscan: .* N = 50001"):
        resolve(make(clustering="dbscan"), 50_001)


def test_the_nearest_close_neighbours_stay_well_below_the_background():
    assert resolve(make(close="knn", background_k=12), 1000)[0].method.close_k == 6
    assert resolve(make(close="knn"), IMAGENET)[0].method.close_k == 43


def test_the_length_of_an_embedding_is_the_methods_own():
    found = {name: resolve(make(method=name), 5000)[0].model.embedding_dim for name in METHODS}
    assert found == {"la": 128, "ir": 128, "dc": 256, "swav": 128, "supervised": 128, "random": 128}
    assert resolve(make(method="dc", embedding_dim=64), 5000)[0].model.embedding_dim == 64


@pytest.mark.parametrize(("backbone", "least"), [("vgg16", 32), ("alexnet", 15)])
def test_a_picture_too_small_for_the_backbone_is_said(backbone, least):
    with pytest.raises(FlagError, match=f"^--image_size={least - 1}: {backbone} needs at least {least} px"):
        resolve(make(backbone=backbone, image_size=least - 1), 1000)
    resolve(make(backbone=backbone, image_size=least), 1000)


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
