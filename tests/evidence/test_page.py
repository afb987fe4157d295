"""docs/RESULTS.md: its numbers from made-up lines, worked out by hand; and that it is what docs/results.jsonl says."""

import copy
import dataclasses

import numpy as np
import pytest

from data.errors import UserError
from evidence import page, plans
from evidence.cells import Cell
from evidence.studies import STUDIES
from evidence.study import Arm, Comparison, Measure, Study
from la_tf import intervals, results
from la_tf.outcomes import packed
from tests.programs import ROOT

PICTURES = 40
STUDY = Study(
    name="toy",
    title="A toy",
    text="Made up.",
    flags=("--dataset=digits", "--epochs=2"),
    arms=(Arm("la"), Arm("ir", ("--method=ir",)), Arm("never run")),
    seeds=(0, 1, 2, 3),
    evaluations={"knn": ("--protocol=knn",), "linear": ("--protocol=linear",)},
    tables=({"kNN": Measure("knn"), "conv5": Measure("linear", ("conv5", "top1"))},),
    comparisons=(
        Comparison("la", "ir", "kNN", "LA above IR", paper="45.0 > 41.0"),
        Comparison("ir", "la", "conv5", "IR above LA", paper=""),
        Comparison("la", "never run", "kNN", "nobody knows"),
    ),
)


def line(arm, seed, evaluation, found, time="2026-01-01T00:00:00+00:00", test=PICTURES):
    """A line as `evidence.cells` leaves it."""
    cell = Cell(STUDY, STUDY.by_name[arm], seed)
    return {
        "id": f"{arm}{seed}{evaluation}{time}",
        "time": time,
        "protocol": evaluation,
        "subject": {"seed": seed},
        "dataset": {"spec": "digits", "train": 100, "test": test, "classes": 10, "test_hash": "abc"},
        "settings": {},
        "split": "test",
        "selected_on": "nothing",
        "results": found,
        "versions": {"tensorflow": "2.21.0"},
        "command": cell.evaluations[evaluation],
        "cell": {
            "study": "toy", "arm": arm, "seed": seed, "evaluation": evaluation, "train": cell.training,
            "settings": cell.settings(evaluation), "train_seconds": 60.0 * (1 + seed), "machine": "2 cores",
        },
    }  # fmt: skip


def right(count):
    """kNN results with the first `count` pictures told right."""
    told = np.arange(PICTURES) < count
    return {"top1": count / PICTURES, "right": packed(told)}


LINES = [
    *(line("la", seed, "knn", right(count)) for seed, count in enumerate((36, 38, 37, 37))),
    *(line("ir", seed, "knn", right(count)) for seed, count in enumerate((30, 31, 29, 30))),
    *(line("la", seed, "linear", {"conv5": {"top1": top1}}) for seed, top1 in enumerate((0.90, 0.80, 0.85, 0.85))),
    *(line("ir", seed, "linear", {"conv5": {"top1": top1}}) for seed, top1 in enumerate((0.91, 0.80, 0.87, 0.86))),
]


def rows(text):
    """The cells of the lines of a page's tables, by their first."""
    cells = ([cell.strip() for cell in each.split("|")[1:-1]] for each in text.splitlines() if each.startswith("|"))
    return {row[0]: row[1:] for row in cells}


def test_means_deviations_and_minutes_of_the_arms():
    found = rows(page.of([STUDY], LINES))
    # 36, 38, 37, 37 of 40: 92.5 %, deviation 2.5 sqrt(2 / 3). Of 90, 80, 85, 85 sqrt(50 / 3). Minutes 1, 2, 3, 4.
    assert found["la"] == ["92.5 ± 2.0", "85.0 ± 4.1", "4", "2.5"]
    assert found["ir"] == ["75.0 ± 2.0", "86.0 ± 4.5", "4", "2.5"]
    assert "never run" not in found
    without = [each for each in LINES if page.key(each)[1:] != ("la", 3, "linear")]
    assert rows(page.of([STUDY], without))["la"][2:] == ["3–4", "2.5"]
    none = [each for each in LINES if page.key(each)[1::2] != ("la", "linear")]
    assert rows(page.of([STUDY], none))["la"][1:] == ["·", "4", "2.5"]


def test_comparisons_are_of_pairs_and_by_pictures_where_they_are_known():
    found = rows(page.of([STUDY], LINES))
    told = np.array([[i < a for i in range(40)] for a in (36, 38, 37, 37)], float)
    told -= np.array([[i < a for i in range(40)] for a in (30, 31, 29, 30)], float)
    interval = intervals.of_seeds_and_pictures(told)
    shown = f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"
    assert found["LA above IR"] == ["kNN", "**+17.5**", shown, "4", "**decided**", "45.0 > 41.0"]
    # Differences 1, 0, 2, 1 points: mean 1, error sqrt(2 / 3) / 2 = 0.408, t(0.975, 3) = 3.1824: -0.30 to 2.30. Not
    # decided: with t(0.8, 3) = 0.9785 a difference of (3.1824 + 0.9785) 0.408 = 1.7 points would have been.
    assert found["IR above LA"] == ["conv5", "+1.0", "-0.3 to +2.3", "4", "open (80% power from 1.7)", ""]
    assert "nobody knows" not in found


def test_ends_of_intervals_show_on_which_side_of_zero_they_are():
    shown = [page.signed(number, 1) for number in (1.26, 0.012, -0.0041, 0.0, -0.6)]
    assert shown == ["+1.3", "+0.01", "-0.004", "+0.0", "-0.6"]


def test_what_is_decided_stands_at_the_top():
    text = page.of([STUDY], LINES)
    short = text[text.index("## In short") : text.index("## A toy")]
    count, _, *told = short.split("\n")[2:7]
    assert count.startswith(
        "Of 2 differences 1 are decided; if nothing differed, about 0.1 would be called so by chance."
    )
    assert "1, in bold, remain decided after a correction for all 2" in count
    assert told == ["- A toy (`toy`)", "  - LA above IR: kNN **+17.5**", "  - open: 1 more"]


def test_what_does_not_stand_as_one_of_all_is_not_bold():
    """Differences 3, 1, 2, 2 points: mean 2, error sqrt(2 / 3) / 2: p = 0.016, which stands as one of 3, not of 4."""
    tops = ((0.91, 0.81, 0.86, 0.85), (0.88, 0.80, 0.84, 0.83))
    lines = [
        line(arm, seed, "linear", {"conv5": {"top1": top1}})
        for arm, of_arm in zip(("la", "ir"), tops, strict=True)
        for seed, top1 in enumerate(of_arm)
    ]
    same = Comparison("la", "la", "conv5", "LA above itself")
    for others, told in ((2, "**decided**"), (3, "decided")):
        comparisons = (Comparison("la", "ir", "conv5", "LA above IR"), *[same] * others)
        text = page.of([dataclasses.replace(STUDY, comparisons=comparisons)], lines)
        assert rows(text)["LA above IR"][4] == told


def test_results_of_different_pictures_are_not_compared():
    others = copy.deepcopy(LINES)
    others[0]["dataset"]["test_hash"] = "other"
    with pytest.raises(UserError, match="toy/la, toy/ir: judged on different pictures"):
        page.of([STUDY], others)


def test_few_seeds_decide_nothing():
    few = [each for each in LINES if page.key(each)[2] < 3]
    assert rows(page.of([STUDY], few))["LA above IR"][3:5] == ["3", "too few seeds"]


def test_lines_of_other_flags_are_not_told():
    trained = dataclasses.replace(STUDY, flags=("--dataset=digits", "--epochs=3"))
    assert page.of([trained], LINES) == page.of([STUDY], [])
    judged = dataclasses.replace(STUDY, evaluations=STUDY.evaluations | {"knn": ("--protocol=knn", "--neighbors=5")})
    assert rows(page.of([judged], LINES))["la"][:2] == ["·", "85.0 ± 4.1"]


def test_minutes_that_nobody_knows_are_left_out():
    unknown = copy.deepcopy(LINES)
    for each in unknown:
        if each["cell"]["seed"] < 2 or each["cell"]["arm"] == "ir":
            each["cell"]["train_seconds"] = None
    found = rows(page.of([STUDY], unknown))
    assert (found["la"][3], found["ir"][3]) == ("3.5", "·")


def test_a_difference_the_other_way_round_is_told_as_such():
    swapped = [
        line({"la": "ir", "ir": "la"}[arm], seed, evaluation, each["results"])
        for each in LINES
        for _, arm, seed, evaluation in [page.key(each)]
    ]
    assert rows(page.of([STUDY], swapped))["LA above IR"][4] == "**decided against**"


def test_of_a_cell_that_was_measured_twice_the_newer_counts():
    newer = line("la", 0, "knn", right(40), time="2026-02-01T00:00:00+00:00")
    assert rows(page.of([STUDY], [newer, *LINES]))["la"][0] == "95.0 ± 3.5"  # 100, 95, 92.5, 92.5


def test_every_command_stands_on_the_page():
    text = page.of([STUDY], LINES)
    given = "--dataset=digits --epochs=2"
    assert f"python -m la_tf.train {given} --seed=0 --model_dir=$RUNS/toy/la/seed-0\n" in text
    assert "python -m la_tf.evaluate --model_dir=$RUNS/toy/ir/seed-0 --protocol=linear\n" in text
    assert f"la_tf.train {given} --method=ir --warm_start" not in text
    assert page.of([STUDY], []) == f"{page.HEAD}\n{plans.HEAD}"


def test_what_a_run_starts_from_has_its_command_though_it_has_no_line():
    arms = (Arm("warm", ("--method=ir",), evaluations=()), Arm("la", start="warm"))
    study = dataclasses.replace(STUDY, arms=arms, comparisons=())
    cell = Cell(study, arms[1], 0)
    made = line("la", 0, "knn", right(36))
    made["cell"] |= {"train": cell.training, "settings": cell.settings("knn")}
    text = page.of([study], [made])
    started = text.index("python -m la_tf.train --dataset=digits --epochs=2 --method=ir --seed=0")
    assert started < text.index("--warm_start=$RUNS/toy/warm/seed-0")


def test_studies_are_whole():
    for study in STUDIES.values():
        assert len({arm.name for arm in study.arms}) == len(study.arms)
        for measure in study.measures.values():
            assert measure.evaluation in study.evaluations, (study.name, measure)
        for arm in study.arms:
            assert set(study.evaluations_of(arm)) <= set(study.evaluations)
            if arm.start:  # it has been trained by then
                order = [each.name for each in study.arms]
                assert order.index(arm.start) < order.index(arm.name)
        for each in study.comparisons:
            for side in (each.more, each.less):
                where, name = study.place(side)
                assert name in STUDIES[where].by_name, (study.name, side)
            assert each.measure in study.measures and (each.less_measure or each.measure) in study.measures


def test_the_page_in_docs_is_what_its_lines_say():
    assert (ROOT / "docs" / "RESULTS.md").read_text() == page.of(STUDIES.values(), results.read([ROOT / "docs"]))
