"""The command as a user meets it; a study of seconds, for real."""

import json
from dataclasses import replace
from threading import Event

import pytest

from data.errors import UserError
from evidence import __main__ as main
from evidence import page
from evidence.cells import Cell, Place
from evidence.studies import DENSITIES, DENSITY, QUICK, STUDIES
from evidence.study import Arm, Comparison, Measure, Study
from la_tf import commands, results
from tests.programs import run

SHORT = ("--flagfile=quickstart.flags", "--width=8", "--batch_size=128", "--board_updates=0", "--exporters=")
STUDY = Study(
    name="short",
    title="Short",
    text="Two epochs.",
    flags=SHORT,
    arms=(
        Arm("warm", ("--method=ir", "--epochs=1", "--schedule=constant"), evaluations=()),
        Arm("la", ("--method=la", "--epochs=1", "--warmup_epochs=0"), start="warm"),
    ),
    seeds=(0, 1),
    evaluations={"knn": ("--protocol=knn",)} | DENSITY,
    tables=({"kNN": Measure("knn")} | DENSITIES,),
    comparisons=(Comparison("la", "la", "local density", "nearer to the nearest", less_measure="background density"),),
)


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_and_its_page_tells_it(tmp_path):
    given = {"runs": str(tmp_path / "runs"), "data": "", "seeds": 1, "jobs": 2}
    main.measure([STUDY], given, tmp_path)
    assert len(results.read([tmp_path])) == 2
    main.measure([STUDY], {**given, "seeds": None}, tmp_path)
    lines = results.read([tmp_path])
    assert len({page.key(line) for line in lines}) == len(lines) == 2 * 2
    text = page.of([STUDY], lines)
    assert "| la " in text and "| nearer to the nearest |" in text and "| warm" not in text
    told = next(line for line in lines if page.key(line) == ("short", "la", 1, "knn"))
    evaluated = results.read([tmp_path / "runs/short/la/seed-1"])
    whole = [{name: x for name, x in line["results"].items() if name != "per_class"} for line in evaluated]
    assert told["results"] in whole
    assert "config" not in told["subject"] and "per_class" not in told["results"]
    assert len(told["results"]["right"]) == 90  # 360 pictures, four a digit
    density = next(line for line in lines if page.key(line) == ("short", "la", 0, "density"))
    figure = json.loads((tmp_path / "runs/short/la/seed-0/report/density.json").read_text())
    assert density["results"]["local"] == figure[0]["local"]["mean"] > density["results"]["background"]


def test_studies_whose_pictures_are_not_there_are_passed_over(tmp_path, capsys):
    assert main.sets_of(STUDIES["digits"]) == set()
    assert main.sets_of(STUDIES["cifar10"]) == {"cifar10", "intel_scenes"}
    assert main.sets_of(STUDIES["cifar10-scaling"]) == {"cifar10"}
    (tmp_path / "cifar10").mkdir()
    place = Place(tmp_path, str(tmp_path), {})
    assert main.at_hand("a", {"cifar10"}, place) and main.at_hand("b", set(), Place(tmp_path, "", {}))
    assert not main.at_hand("c", {"cifar10", "intel_scenes"}, place)
    assert not main.at_hand("d", {"cifar10"}, Place(tmp_path, "", {}))
    told = capsys.readouterr().err
    assert told == (
        f"c: passed over, for there is no intel_scenes in {tmp_path}\n"
        "d: passed over, for there is no cifar10 without --data or LA_TF_DATA\n"
    )


def test_without_pictures_nothing_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("LA_TF_DATA", raising=False)
    given = {"runs": str(tmp_path / "runs"), "data": None, "seeds": None, "jobs": 1}
    main.measure([STUDIES["cifar10-scaling"]], given, tmp_path / "out")
    assert capsys.readouterr().err.count("\n") == 1 and not [*tmp_path.iterdir()]


def test_the_quick_study_is_a_part_of_that_on_the_digits():
    whole = STUDIES["digits"]
    for arm in QUICK.arms:
        for seed in QUICK.seeds:
            cell, same = Cell(QUICK, arm, seed), Cell(whole, whole.by_name[arm.name], seed)
            assert cell.training == same.training and cell.evaluations.items() <= same.evaluations.items()


@pytest.mark.parametrize("jobs, most", [(1, 0), (2, 1)])
def test_when_one_seed_fails_the_others_begin_nothing_more(jobs, most, tmp_path, monkeypatch):
    stopped, begun = Event(), []
    monkeypatch.setattr(main, "Event", lambda: stopped)

    def fails(_, *flags, **__):
        begun.append(flags)
        if "--seed=0" in flags:
            raise UserError("no")
        assert stopped.wait(10)
        return {}

    monkeypatch.setattr(commands, "run", fails)
    given = {"runs": str(tmp_path / "runs"), "data": "", "seeds": None, "jobs": jobs}
    with pytest.raises(UserError, match="no"):
        main.measure([replace(STUDY, arms=(Arm("one"), Arm("two")))], given, tmp_path)
    assert sum("--seed=1" in flags for flags in begun) <= most


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--studies=none"], 2, "--studies=none: there is none; choose of digits"),
        (["--report"], 1, "there is no results.jsonl yet"),
        (["--quick", "--jobs=0"], 2, "--jobs=0: must be at least 1"),
        (["--quick", "--studies=digits"], 2, "--quick: cannot be combined with --studies; leave out one of them"),
        (["--report", "--studies=digits"], 2, "--report: cannot be combined with --studies; leave out one of them"),
        (["--report", "--studies=none"], 2, "--studies=none: there is none; choose of digits"),
        (["--seeds=0"], 2, "--seeds=0: must be at least 1"),
    ],
)
def test_a_wrong_flag_is_told_in_a_line(flags, code, message, tmp_path):
    process = run("evidence", *flags, f"--runs={tmp_path / 'none'}")
    assert process.returncode == code and message in process.stderr and process.stderr.count("\n") == 1, process.stderr
