"""The verdicts: what is said of hand-made metrics, at the bounds of every rule."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from la_tf.metric_signs import BAD, GOOD, UNKNOWN, WATCH, readings
from la_tf.past_run import PastRun
from la_tf.run_summary import knn_findings, loss_findings, spread_findings, summarize, switch_findings, untrained_knn

HEALTHY = {
    "close_mean": 20.0, "empty_fraction": 0.01, "own_in_background": 0.97, "close_skewness": 0.5, "cluster_min": 3,
    "cluster_median": 14.0, "cluster_max": 40, "nmi_previous": 0.8, "nmi_between": 0.7, "purity": 0.9, "bad_images": 0,
}  # fmt: skip


def epochs(knn=(), loss=(), phases=None, **last):
    """Epochs with a kNN or a loss each; `last` goes into the last one."""
    count = max(len(knn), len(loss))
    made = [{"epoch": number, "phase": phases[number] if phases else "la"} for number in range(count)]
    for name, values in (("knn_top1", knn), ("loss", loss)):
        for epoch, value in zip(made, values, strict=False):
            epoch[name] = value
    made[-1] |= last
    return tuple(made)


def run(made, method="la", classes=10, **identity):
    names = [str(number) for number in range(classes)]
    identity = {"method": method, "background": "knn", "background_k": 64, "data": "hash"} | identity
    return PastRun("run", Path("run"), identity=identity, dataset={"class_names": names}, epochs=tuple(made))


def signs(findings):
    return {finding.title: finding.sign for finding in findings}


# Of the 0.9 above a chance of 0.1, 5% is 0.145 and a quarter 0.325.
@pytest.mark.parametrize(
    ("last", "sign"), [(0.1, BAD), (0.144, BAD), (0.146, WATCH), (0.324, WATCH), (0.326, GOOD), (0.97, GOOD)]
)
def test_knn_is_held_against_chance(last, sign):
    assert signs(knn_findings(epochs(knn=[last]), 10)) == {"kNN": sign}


def test_an_untrained_network_is_a_higher_bar_than_chance():
    # Half of what an untrained network leaves: (0.85 - 0.7) / 0.3; a twentieth: 0.715.
    assert signs(knn_findings(epochs(knn=[0.85]), 10, untrained=0.7)) == {"kNN": GOOD}
    found = [*knn_findings(epochs(knn=[0.71]), 10, untrained=0.7)]
    assert found[0].sign == BAD and "an untrained network comes to 70.0%" in found[0].text


def test_without_classes_or_scores_there_is_no_verdict_on_knn():
    assert signs(knn_findings(epochs(knn=[0.5]), 0)) == {"kNN": UNKNOWN}
    assert signs(knn_findings(epochs(loss=[1.0]), 10)) == {"kNN": UNKNOWN}


@pytest.mark.parametrize(("last", "sign"), [(0.785, GOOD), (0.775, WATCH)])
def test_a_fall_below_the_best_of_more_than_two_points_is_told(last, sign):
    found = [*knn_findings(epochs(knn=[0.5, 0.8, last]), 10)]
    assert found[1].sign == sign and "80.0% in epoch 2 of 3" in found[1].text


@pytest.mark.parametrize(("last", "sign"), [(0.59, GOOD), (0.57, BAD)])
def test_a_fall_after_the_switch_is_bad(last, sign):
    made = epochs(knn=[0.3, 0.6, 0.62, last], phases=["ir", "ir", "la", "la"])
    assert signs(switch_findings(made)) == {"Switch to LA": sign}
    assert [*switch_findings(made[2:])] == []


@pytest.mark.parametrize(
    ("loss", "sign"),
    [
        ([4.0, 3.0, 2.0, 1.0], GOOD),
        ([1.0, 1.0, 1.0, 1.0], WATCH),
        ([1.0, 1.2, 1.3, 1.5], WATCH),
        ([3.0, 2.0, 1.0], UNKNOWN),
        ([3.0, math.nan, 1.0, 1.0], BAD),
    ],
)
def test_the_loss_has_to_fall(loss, sign):
    assert signs(loss_findings(epochs(loss=loss), "la")) == {"Loss": sign}


def test_the_loss_is_that_of_the_present_phase():
    made = epochs(loss=[9.0, 8.0, 1.0, 2.0, 3.0, 4.0], phases=["ir", "ir", "la", "la", "la", "la"])
    (found,) = loss_findings(made, "la")
    assert found.sign == WATCH and "from 1 to 4 over the 4 epochs of phase la" in found.text
    assert signs(loss_findings(made, "dc")) == {"Loss": UNKNOWN}


def test_all_good():
    made = epochs(knn=[0.9, 0.93, 0.95, 0.95], loss=[3.0, 2.0, 1.5, 1.0], **HEALTHY)
    summary = summarize(run(made))
    assert (summary.sign, summary.verdict) == (GOOD, "It is working.")
    assert {finding.sign for finding in summary.findings} == {GOOD}


@pytest.mark.parametrize(
    ("metric", "value", "sign"),
    [
        ("close_mean", 1.5, BAD),  # IR
        ("close_mean", 60.0, BAD),  # of k = 64: no gradient
        ("close_mean", 40.0, WATCH),
        ("empty_fraction", 0.06, BAD),
        ("empty_fraction", math.nan, BAD),
        ("own_in_background", 0.89, WATCH),
        ("cluster_max", 141, BAD),  # over ten times 14
        ("nmi_between", 0.99, WATCH),
        ("nmi_previous", 0.1, WATCH),
        ("purity", 0.7, WATCH),  # kNN is 0.95
        ("bad_images", 3, WATCH),
    ],
)
def test_one_thing_wrong_is_named_and_tells_in_the_verdict(metric, value, sign):
    made = epochs(knn=[0.9, 0.93, 0.95, 0.95], loss=[3.0, 2.0, 1.5, 1.0], **(HEALTHY | {metric: value}))
    found = {reading.name: reading.sign for reading in readings(run(made))}
    assert found == {name: GOOD for name in found} | {metric: sign, "close_skewness": UNKNOWN}
    summary = summarize(run(made))
    assert summary.sign == sign and "something" in summary.verdict


def test_cluster_metrics_are_those_of_the_epoch_that_renewed_the_clusters():
    """DeepCluster's second round of four epochs has collapsed; its last epochs tell of the loss and kNN alone."""
    collapsed = {"clusters_empty": 60, "cluster_max": 900, "cluster_min": 1, "cluster_median": 2.0}
    healthy = {"clusters_empty": 0, "cluster_max": 30, "cluster_min": 3, "cluster_median": 14.0}
    made = [{"epoch": number, "phase": "dc", "bad_images": 0, "knn_top1": 0.9} for number in range(8)]
    made[0] |= healthy | {"nmi_previous": 0.9, "nmi_chance": 0.4}
    made[4] |= collapsed | {"nmi_previous": 0.41, "nmi_chance": 0.4}
    found = {reading.name: reading for reading in readings(run(made, method="dc", clusters=100))}
    assert {name for name, reading in found.items() if reading.sign == BAD} == {
        "clusters_empty", "cluster_max", "nmi_previous",
    }  # fmt: skip
    assert found["cluster_max"].value == "1 / 2 / 900" and "epoch 5" in found["cluster_max"].comment
    assert "epoch" not in found["bad_images"].comment
    summary = summarize(run(made, method="dc", clusters=100))
    assert summary.sign == BAD and "Health" not in signs(summary.findings)
    made[7] |= healthy | {"nmi_previous": 0.9, "nmi_chance": 0.4}
    assert signs(summarize(run(made, method="dc", clusters=100)).findings)["Health"] == GOOD


def test_metrics_of_an_earlier_phase_are_no_health_of_this_one():
    made = epochs(loss=[3.0, 2.0], phases=["la", "ir"])
    made[0]["close_mean"] = 1.0
    assert readings(run(made)) == []


def test_that_all_pictures_can_be_read_is_no_health_of_the_method():
    assert "Health" not in signs(summarize(run(epochs(knn=[0.9], bad_images=0), method="supervised")).findings)
    found = signs(summarize(run(epochs(knn=[0.9], **HEALTHY | {"bad_images": 3}))).findings)
    assert (found["Unreadable pictures"], found["Health"]) == (WATCH, GOOD)


@pytest.mark.parametrize(
    ("close", "value", "sign", "remedy"),
    [
        ("self", 1.0, UNKNOWN, "--close=self"),  # by design
        ("knn", 1.2, BAD, "a larger --close_k"),
        ("knn", 60.0, BAD, "a smaller --close_k"),
        ("knn", 10.0, GOOD, ""),
        ("clusters", 1.2, BAD, "fewer clusters"),
        ("clusters", 60.0, BAD, "more clusters"),
    ],
)
def test_how_many_are_close_is_judged_by_what_close_means(close, value, sign, remedy):
    (found,) = readings(run(epochs(loss=[1.0], close_mean=value), close=close))
    assert found.sign == sign and remedy in found.comment


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.lists(st.floats(0, 20), min_size=1, max_size=8))
def test_a_verdict_is_never_better_than_what_is_worst(knn, loss):
    summary = summarize(run(epochs(knn=knn, loss=loss)))
    order = [GOOD, WATCH, BAD]
    worst = max((order.index(one.sign) for one in summary.findings if one.sign != UNKNOWN), default=0)
    assert order.index(summary.sign) >= worst if summary.sign != UNKNOWN else worst == 0


def test_what_cannot_be_judged_is_not():
    assert summarize(run(())).sign == UNKNOWN
    assert summarize(PastRun("x", Path("x"))).verdict.startswith("Results alone")
    assert summarize(run(epochs(knn=[0.5]), method="random")).sign == UNKNOWN
    unlabelled = summarize(run(epochs(loss=[4.0, 3.0, 2.0, 1.0]), classes=0))
    assert unlabelled.sign == GOOD and "No score" in unlabelled.verdict
    uncounted = summarize(run(epochs(knn=[0.4], loss=[4.0, 3.0, 2.0, 1.0]), classes=0))
    assert uncounted.sign == GOOD and "chance comes to is unknown" in uncounted.verdict


def test_classes_without_names_have_a_chance_too():
    unnamed = PastRun("x", Path("x"), {"method": "la"}, dataset={"class_names": [], "class_count": 4})
    old = PastRun("x", Path("x"), {"method": "la"}, dataset={"class_names": ["a", "b"]})
    assert (unnamed.classes, old.classes, PastRun("x", Path("x")).classes) == (4, 2, 0)
    assert summarize(run(epochs(loss=[4.0, 3.0]), classes=0)).verdict == "Too early to tell."


def test_a_collapsed_bank_is_bad():
    edges = np.linspace(0, 1, 11)
    alike, spread = np.eye(10)[9], np.eye(10)[2]  # all at 0.95, at 0.25
    assert [(one.sign, one.text[:47]) for one in spread_findings(edges, alike)] == [
        (BAD, "The mean similarity to far neighbours is 0.95: ")
    ]
    assert signs(spread_findings(edges, spread)) == {"Spread": GOOD}


def test_untrained_networks_are_a_bar_for_their_kind():
    untrained = run(epochs(knn=[0.7]), method="random", data="a", image_size=32, backbone="resnet18", width=16)
    same = run(epochs(knn=[0.9]), data="a", image_size=32, backbone="resnet18", width=16)
    others = [
        run(epochs(knn=[0.9]), **{"data": "a", "image_size": 32, "backbone": "resnet18", "width": 16} | other)
        for other in ({"data": "b"}, {"image_size": 64}, {"backbone": "resnet10"}, {"width": 8})
    ]
    assert untrained_knn([untrained, same, *others]) == [0.7, 0.7, None, None, None, None]


def test_cluster_sizes_without_a_median_are_shown_all_the_same():
    made = run(epochs(knn=(0.5,) * 6, cluster_max=9))
    assert next(reading.value for reading in readings(made) if reading.name == "cluster_max") == "nan / nan / 9"
