"""docs/RESULTS.md: its numbers from made-up lines, worked out by hand; and that it is what docs/results.jsonl says."""

import numpy as np
import pytest

from evidence import page
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
    seeds=(0, 1, 2),
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
    return {
        "id": f"{arm}{seed}{evaluation}{time}",
        "time": time,
        "protocol": evaluation,
        "subject": {"seed": seed},
        "dataset": {"spec": "digits", "train": 100, "test": test, "classes": 10},
        "settings": {},
        "split": "test",
        "selected_on": "none",
        "results": found,
        "versions": {"tensorflow": "2.21.0"},
        "command": [f"--model_dir=runs/{arm}/{seed}", f"--protocol={evaluation}"],
        "cell": {
            "study": "toy", "arm": arm, "seed": seed, "evaluation": evaluation, "train": [f"--model_dir=runs/{arm}"],
            "train_seconds": 60.0 * (1 + seed), "machine": "2 cores",
        },
    }  # fmt: skip


def right(count):
    """kNN results with the first `count` pictures told right."""
    told = np.arange(PICTURES) < count
    return {"top1": count / PICTURES, "right": packed(told)}


LINES = [
    *(line("la", seed, "knn", right(count)) for seed, count in enumerate((36, 38, 37))),
    *(line("ir", seed, "knn", right(count)) for seed, count in enumerate((30, 31, 29))),
    *(line("la", seed, "linear", {"conv5": {"top1": top1}}) for seed, top1 in enumerate((0.90, 0.80, 0.85))),
    *(line("ir", seed, "linear", {"conv5": {"top1": top1}}) for seed, top1 in enumerate((0.91, 0.80, 0.87))),
]


def rows(text):
    """The cells of the lines of a page's tables, by their first."""
    cells = ([cell.strip() for cell in each.split("|")[1:-1]] for each in text.splitlines() if each.startswith("|"))
    return {row[0]: row[1:] for row in cells}


def test_means_deviations_and_minutes_of_the_arms():
    found = rows(page.of([STUDY], LINES))
    # 36, 38, 37 of 40: 90, 95, 92.5 %. Deviation of 0.90, 0.80, 0.85: 5 points. Minutes 1, 2, 3.
    assert found["la"] == ["92.5 ± 2.5", "85.0 ± 5.0", "3", "2.0"]
    assert found["ir"] == ["75.0 ± 2.5", "86.0 ± 5.6", "3", "2.0"]
    assert "never run" not in found


def test_comparisons_are_of_pairs_and_by_pictures_where_they_are_known():
    found = rows(page.of([STUDY], LINES))
    told = np.array([[i < a for i in range(40)] for a in (36, 38, 37)], float)
    told -= np.array([[i < a for i in range(40)] for a in (30, 31, 29)], float)
    interval = intervals.of_seeds_and_pictures(told)
    shown = f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"
    assert found["LA above IR"] == ["kNN", "+17.5", shown, "decided", "45.0 > 41.0"]
    # Differences 1, 0, 2 points: mean 1, error 1 / sqrt(3), t(0.975, 2) = 4.3027: -1.48 to 3.48. Not decided: with
    # t(0.8, 2) = 1.0607 a difference of (4.3027 + 1.0607) / sqrt(3) = 3.1 points would have been.
    assert found["IR above LA"] == ["conv5", "+1.0", "-1.5 to +3.5", "open; 3.1 would be seen", ""]
    assert "nobody knows" not in found


def test_a_difference_the_other_way_round_is_told_as_such():
    swapped = [each | {"cell": each["cell"] | {"arm": {"la": "ir", "ir": "la"}[each["cell"]["arm"]]}} for each in LINES]
    assert rows(page.of([STUDY], swapped))["LA above IR"][3] == "decided: the other way round"


def test_of_a_cell_that_was_measured_twice_the_newer_counts():
    newer = line("la", 0, "knn", right(40), time="2026-02-01T00:00:00+00:00")
    assert rows(page.of([STUDY], [newer, *LINES]))["la"][0] == "95.8 ± 3.8"  # 100, 95, 92.5


def test_every_command_stands_on_the_page():
    text = page.of([STUDY], LINES)
    assert "python -m la_tf.train --model_dir=runs/la\n" in text
    assert "python -m la_tf.evaluate --model_dir=runs/ir/0 --protocol=linear\n" in text
    assert page.of([STUDY], []) == page.HEAD


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
    if not (ROOT / "docs" / results.FILE).exists():
        pytest.skip("no results yet")
    assert (ROOT / "docs" / "RESULTS.md").read_text() == page.of(STUDIES.values(), results.read([ROOT / "docs"]))
