"""Cells of the evidence: which commands they are, what is done once, and what their lines say."""

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from data.errors import UserError
from evidence import lists, page
from evidence.cells import Cell, Place
from evidence.study import Arm, Measure, Study
from la_tf import commands, model_dir, results

STUDY = Study(
    name="toy",
    title="",
    text="",
    flags=("--dataset=folder:$LA_TF_DATA/set", "--epochs=3"),
    arms=(Arm("warm", ("--method=ir",), evaluations=()), Arm("la", ("--method=la", "--warmup_epochs=0"), start="warm")),
    seeds=(0, 1),
    evaluations={
        "knn": ("--protocol=knn", "--seed=$SEED"),
        "far": ("--protocol=knn", "--dataset=folder:$LA_TF_DATA/other"),
    },
    tables=({"kNN": Measure("knn")},),
)
WARM, LA = STUDY.arms


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "runs", "/pictures", {"OMP_NUM_THREADS": "1"})


@pytest.fixture
def ran(monkeypatch):
    """The commands that are run, with evaluations that leave a line."""
    commands_run, numbers = [], itertools.count()

    def run(main, *arguments, log, environment):
        commands_run.append((main, *arguments))
        assert environment == {"OMP_NUM_THREADS": "1"}
        if main == "la_tf.train":
            Path(arguments[-1].removeprefix("--model_dir=")).mkdir(parents=True, exist_ok=True)
            return {}
        folder = arguments[0].removeprefix("--model_dir=")
        given = (each.partition("=")[2] for each in arguments if each.startswith("--dataset"))
        line = {
            "time": "2026-01-01T00:00:00+00:00",
            "protocol": "knn",
            "subject": {"kind": "run", "seed": 0, "config": {"tau": 0.1}},
            "dataset": {"spec": next(given, "folder:/pictures/set"), "train": 10, "test": 5, "classes": 2, "own": True},
            "settings": {"number": next(numbers)},
            "split": "test",
            "selected_on": "nothing",
            "results": {"top1": 0.5, "per_class": {"0": {"top1": 0.5}}},
            "versions": {},
        }
        return {"id": results.append(folder, line)["id"]}

    monkeypatch.setattr(commands, "run", run)
    return commands_run


def test_an_arm_starts_from_the_run_of_the_same_seed_and_real_folders_are_put_in(place, ran):
    lines = [*Cell(STUDY, LA, 1).run(place, {})]
    runs = place.runs
    started, trained, judged, far = ran
    assert started[-1] == f"--model_dir={runs}/toy/warm/seed-1" and "--method=ir" in started
    assert trained == (
        "la_tf.train", "--dataset=folder:/pictures/set", "--epochs=3", "--method=la", "--warmup_epochs=0",
        f"--warm_start={runs}/toy/warm/seed-1", "--seed=1", f"--model_dir={runs}/toy/la/seed-1",
    )  # fmt: skip
    assert judged == ("la_tf.evaluate", f"--model_dir={runs}/toy/la/seed-1", "--protocol=knn", "--seed=1")
    assert far[-1] == "--dataset=folder:/pictures/other"
    assert [page.key(line) for line in lines] == [("toy", "la", 1, "knn"), ("toy", "la", 1, "far")]
    assert lines[0]["subject"] == {"kind": "run", "seed": 0} and lines[0]["results"] == {"top1": 0.5}
    # What is told is the same on every machine.
    assert lines[1]["command"][-1] == "--dataset=folder:$LA_TF_DATA/other"
    assert lines[1]["dataset"]["spec"] == "folder:$LA_TF_DATA/other"
    assert lines[0]["cell"]["train"][0] == "--dataset=folder:$LA_TF_DATA/set"
    assert lines[0]["cell"]["train"][-3] == "--warm_start=$RUNS/toy/warm/seed-1"
    assert lines[0]["cell"]["train_seconds"] >= 0 and "cores" in lines[0]["cell"]["machine"]


def test_what_is_done_is_not_done_again(place, ran):
    cell = Cell(STUDY, LA, 0)
    lines = {page.key(line): line for line in cell.run(place, {})}
    assert [main for main, *_ in ran] == ["la_tf.train", "la_tf.train", "la_tf.evaluate", "la_tf.evaluate"]
    ran.clear()
    assert [*cell.run(place, lines)] == [] == ran
    del lines[cell.key("far")]
    assert [page.key(line)[-1] for line in cell.run(place, lines)] == ["far"]
    assert [main for main, *_ in ran] == ["la_tf.evaluate"]  # it has been trained


def test_what_was_done_with_other_flags_is_not_done(place, ran):
    lines = {page.key(line): line for line in Cell(STUDY, LA, 0).run(place, {})}
    judged = replace(STUDY, evaluations=STUDY.evaluations | {"knn": ("--protocol=knn", "--neighbors=5")})
    ran.clear()
    assert [page.key(line)[-1] for line in Cell(judged, LA, 0).run(place, lines)] == ["knn"]
    trained = replace(STUDY, flags=(*STUDY.flags, "--tau=0.2"))
    with pytest.raises(UserError, match=r"warm/seed-0: was trained with other flags than the study's now; move it"):
        [*Cell(trained, LA, 0).run(place, lines)]


def test_a_run_that_was_moved_away_or_deleted_is_trained_anew(place, ran):
    lines = {page.key(line): line for line in Cell(STUDY, LA, 0).run(place, {})}
    for arm in (WARM, LA):
        shutil.rmtree(place.real(Cell(STUDY, arm, 0).folder))
    ran.clear()
    assert [*Cell(STUDY, LA, 0).run(place, lines)] == [] == ran  # its numbers are there
    del lines[Cell(STUDY, LA, 0).key("far")]
    assert len([*Cell(STUDY, LA, 0).run(place, lines)]) == 1
    assert [main for main, *_ in ran] == ["la_tf.train", "la_tf.train", "la_tf.evaluate"]
    shutil.rmtree(place.real(Cell(STUDY, WARM, 0).folder))
    ran.clear()
    assert Cell(STUDY, LA, 0).train(place) >= 0 and ran == []  # it has what it needed of its start
    (place.runs / "toy" / "warm" / "seed-0").mkdir()
    trained = replace(STUDY, flags=(*STUDY.flags, "--tau=0.2"))
    for arm in (WARM, LA):
        Path(place.real(Cell(STUDY, arm, 0).folder)).rename(place.runs / arm.name)
    assert len([*Cell(trained, LA, 0).run(place, lines)]) == 2


def test_what_a_flagfile_says_now_counts(place, ran, tmp_path):
    flagfile = tmp_path / "a.flags"
    flagfile.write_text("# A comment.\n--tau=0.1\n")
    study = replace(STUDY, flags=(*STUDY.flags, f"--flagfile={flagfile}"))
    (line, _) = Cell(study, LA, 0).run(place, {})
    assert Cell(study, LA, 0).is_of(line)
    flagfile.write_text("# Another comment.\n--tau=0.1\n")
    assert Cell(study, LA, 0).is_of(line)
    flagfile.write_text("--tau=0.2\n")
    assert not Cell(study, LA, 0).is_of(line)


def test_what_does_not_say_what_it_was_made_with_does_not_count(place, ran):
    (line, _) = Cell(STUDY, LA, 0).run(place, {})
    del line["cell"]["settings"]
    assert not Cell(STUDY, LA, 0).is_of(line)
    kept = place.runs / "toy" / "la" / "seed-0.json"
    kept.write_text(json.dumps({"seconds": 1.0, "finished": True}))
    with pytest.raises(UserError, match="la/seed-0: was trained with other flags"):
        Cell(STUDY, LA, 0).train(place)


def test_how_the_run_was_trained_that_it_starts_from_counts(place, ran):
    (line, _) = Cell(STUDY, LA, 0).run(place, {})
    longer = replace(STUDY, arms=(replace(WARM, flags=("--method=ir", "--epochs=4")), LA))
    assert Cell(longer, LA, 0).training == line["cell"]["train"] and not Cell(longer, LA, 0).is_of(line)


def test_nothing_is_begun_once_it_is_stopped(place, ran):
    stopped = Event()
    going = Cell(STUDY, LA, 0).run(place, {}, stopped)
    next(going)
    stopped.set()
    assert [*going] == [] and [main for main, *_ in ran][-1] == "la_tf.evaluate" and len(ran) == 3


def test_a_density_is_of_the_pictures_of_the_run(place, monkeypatch):
    study = replace(STUDY, evaluations={"density": ()})
    folder = place.runs / "toy" / "warm" / "seed-0"

    def run(main, *arguments, log, environment):
        if main == "la_tf.analyze":
            found = [{"bank": "saved", "ranks": {}, "local": {"mean": 0.7}, "background": {"mean": 0.3}}]
            (folder / "report").mkdir(parents=True)
            (folder / "report" / "density.json").write_text(json.dumps(found))
            for name, own in (("set", True), ("scenes", False)):
                line = {
                    "id": name,
                    "time": "2026-01-01T00:00:00+00:00",
                    "protocol": "knn",
                    "subject": {},
                    "split": "test",
                }
                line |= {"dataset": {"spec": f"folder:/pictures/{name}", "own": own}, "settings": {}, "results": {}}
                results.append(folder, line | {"selected_on": "nothing", "versions": {}, "name": name})
        return {}

    monkeypatch.setattr(commands, "run", run)
    (line,) = Cell(study, replace(WARM, evaluations=None), 0).run(place, {})
    assert line["dataset"]["spec"] == "folder:$LA_TF_DATA/set" and line["results"]["local"] == 0.7


def test_a_run_that_others_begin_with_is_trained_when_one_of_them_needs_it(place, ran):
    assert [*Cell(STUDY, WARM, 0).run(place, {})] == [] == ran  # nobody does
    Cell(STUDY, LA, 0).train(place)
    Cell(STUDY, WARM, 0).train(place)
    assert [flags[-1] for flags in ran] == [f"--model_dir={place.runs}/toy/{name}/seed-0" for name in ("warm", "la")]


def test_seconds_of_a_run_that_was_interrupted_add_up(place, monkeypatch):
    clock = itertools.count(0, 10)
    monkeypatch.setattr("evidence.cells.time.monotonic", lambda: next(clock))

    folder = place.runs / "toy" / "warm" / "seed-0"

    def fails(main, *arguments, log, environment):
        folder.mkdir(parents=True, exist_ok=True)
        raise UserError("killed")

    monkeypatch.setattr(commands, "run", fails)
    for _ in range(2):
        with pytest.raises(UserError):
            Cell(STUDY, WARM, 0).train(place)
    kept = json.loads(folder.with_suffix(".json").read_text())
    assert (kept["seconds"], kept["finished"]) == (20.0, False)
    model_dir.claim(folder, {}, {}, {})  # la_tf.train may still begin there
    model_dir.write_json(folder.with_suffix(".json"), kept | {"seconds": None})  # as a killed one leaves it
    monkeypatch.setattr(commands, "run", lambda *_, **__: {})
    assert Cell(STUDY, WARM, 0).train(place) is None


def test_lists_name_as_many_pictures_of_every_class(tmp_path):
    data = tmp_path / "data"
    for split, count in (("train", 5), ("test", 2)):
        for name in ("cat", "dog"):
            (data / "set" / split / name).mkdir(parents=True)
            for i in range(count):
                (data / "set" / split / name / f"{i}.jpg").touch()
    study = Study("toy", "", "", lists.spec("set", 4), (), (), {}, {})
    place = Place(tmp_path / "runs", str(data), {})
    lists.write([study], place)
    train = (tmp_path / "runs" / "lists" / "train_set_4.csv").read_text().splitlines()
    assert train == [
        "path,class",
        "train/cat/0.jpg,cat",
        "train/cat/1.jpg,cat",
        "train/dog/0.jpg,dog",
        "train/dog/1.jpg,dog",
    ]
    assert len((tmp_path / "runs" / "lists" / "test_set_4.csv").read_text().splitlines()) == 5
    assert place.real(study.flags[0]) == f"--dataset=list:{tmp_path}/runs/lists/train_set_4.csv"
    spec = study.flags[0].removeprefix("--dataset=")
    assert place.told(place.real(spec)) == spec and place.told("digits") == "digits"
