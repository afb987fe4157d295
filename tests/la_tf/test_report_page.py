"""The report's page: hostile names stay text, every kind of run gives a page, and it works in a real browser."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from data.digits import open_digits
from data.errors import UserError
from la_tf import checkpoints, report_page
from la_tf.embedding_map import Bank, Map, histograms_of
from la_tf.memory_bank import random_unit_rows
from la_tf.model_dir import MetricsFile, write_json
from la_tf.neighbor_sheets import Sheet, Shown
from la_tf.past_run import PastRun, read_run, read_runs
from la_tf.picture_sets import PictureSet
from la_tf.report_page import Maps, differences, page_of, render, scores
from la_tf.thumbnails import data_uri
from tests.browser import opened
from tests.la_tf.test_report import knn
from tests.programs import run as run_main

EVIL = '<script>alert(1)</script> & "x"'
POINT = """number => {
  const [view] = Object.values(Bokeh.index.roots ?? Bokeh.index).filter(
    view => view.model.renderers?.some(renderer => renderer.glyph?.x?.field === `x${number}`))
  const {glyph, data_source} = view.model.renderers[0]
  const x = view.frame.x_scale.compute(data_source.data[glyph.x.field][0])
  const y = view.frame.y_scale.compute(data_source.data[glyph.y.field][0])
  view.el.scrollIntoView({block: "center"})
  const box = view.el.getBoundingClientRect()
  return [box.x + x, box.y + y]
}"""


def past_run(name="one", **identity):
    metrics = [
        {"epoch": number, "phase": "ir" if number < 3 else "la", "loss": 9.0 - number, "knn_top1": 0.1 * number}
        for number in range(7)
    ]
    metrics[-1] |= {"close_mean": 20.0, "empty_fraction": 0.2, "own_in_background": 0.97}
    known = {"method": "la", "backbone": "resnet18", "width": 16, "image_size": 32, "batch_size": 8, "data": "hash"}
    return PastRun(
        name,
        Path(name),
        identity=known | {"background_k": 64} | identity,
        circumstances={"dataset": f"folder:/tmp/{name}", "epochs": 7, "max_steps": None},
        versions={"tensorflow": "2.21.0"},
        dataset={"class_names": ["a", EVIL], "splits": {"train": {"count": 100}}},
        epochs=tuple(metrics),
        step=80,
    )


def crops(count, side=40):
    """`count` pieces `[side, side, 3]` of scikit-learn's photographs: as many bytes as real pictures have."""
    rng, photographs = np.random.default_rng(0), load_sample_images().images
    for number in range(count):
        photograph = photographs[number % len(photographs)][:: 1 + number % 3, :: 1 + number % 3]
        top, left = (rng.integers(0, length - side) for length in photograph.shape[:2])
        yield photograph[top : top + side, left : left + side]


def pictures_of(size, pictures, evil=EVIL):
    labels = np.arange(size) % 2
    return PictureSet(
        size=size,
        rows=np.arange(size),
        class_count=2,
        labels=labels,
        classes=tuple(("a", evil)[label] for label in labels),
        names=tuple(f"train/{evil}/{row}.jpg" for row in range(size)),
        pictures=tuple(map(data_uri, pictures)),
    )


def maps_of(pictures, numbers):
    """Made-up maps: row i's neighbours are the next ten, point 0 alone in the middle."""
    size, rng = len(pictures.rows), np.random.default_rng(0)
    nearest = (np.arange(size)[:, None] + np.arange(1, 11)) % size
    similarities = np.tile(np.linspace(0.99, 0.9, 10, dtype=np.float32), (size, 1))
    angle, radius = rng.uniform(0, 2 * np.pi, size), rng.uniform(1, 2, size)
    places = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    places[0] = places[-1] = 0  # on top of each other: one of them is chosen
    found = Map(places.astype(np.float32), nearest.astype(np.int32), similarities)
    return Maps(pictures, dict.fromkeys(numbers, found), dict.fromkeys(numbers, "Rows of the memory bank."))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of two runs on 5,000 pictures, all of whose names are hostile."""
    runs = [past_run(EVIL), past_run("two", tau=0.1)]
    pictures = pictures_of(5000, crops(5000))
    histograms = {
        number: histograms_of(Bank(random_unit_rows(300, 8, number), np.ones(300, bool), 1)) for number in (0, 1)
    }
    shown = Shown(pictures.pictures[0], EVIL, "0.98", True)
    sheets = {0: Sheet(((shown, (shown,) * 11),), f"Of {EVIL}."), 1: f"why {EVIL}"}
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(render(runs, histograms, [maps_of(pictures, (0, 1))], sheets))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
def test_it_works_in_a_browser(page, width):
    assert page.stat().st_size < 15e6
    with opened(page, width) as shown:
        shown.wait_for_function("document.querySelectorAll('[data-root-id]').length > 5")
        shown.wait_for_function("typeof Bokeh !== 'undefined' && Bokeh.documents.every(each => each.is_idle)")
        assert shown.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert shown.locator("#neighbors-0 img").count() == 0
        x, y = shown.evaluate(POINT, 0)
        shown.mouse.move(x - 4, y)
        shown.mouse.move(x, y)
        tooltip = shown.locator(".bk-Tooltip:visible").first
        tooltip.locator("img").wait_for()
        assert tooltip.locator("img").get_attribute("src").startswith("data:image/jpeg;base64,")
        assert tooltip.locator("img").evaluate("picture => picture.naturalWidth") == 40
        assert tooltip.locator("small").inner_text() == f"train/{EVIL}/0.jpg"
        shown.mouse.click(x, y)
        for number in (0, 1):  # chosen in one map, chosen in both
            listed = shown.locator(f"#neighbors-{number} figure")
            listed.nth(10).wait_for()
            assert listed.count() == 11 and shown.locator(f"#neighbors-{number} img").count() == 11
            assert listed.nth(1).locator(".similarity").inner_text() == "0.990"
            assert listed.nth(1).locator(".label").inner_text() == EVIL
            assert listed.nth(1).locator(".name").get_attribute("title") == f"train/{EVIL}/1.jpg"
        assert shown.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


class Text(HTMLParser):
    """What a browser would show, and which elements it would make, outside of scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.shown, self.scripts, self.missing, self.attributes = [], [], 0, [], set()
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.scripts += tag == "script"
        self.attributes |= {name for name, _ in attributes}
        if tag == "img" and not dict(attributes).get("alt"):
            self.missing.append(attributes)

    def handle_data(self, data):
        if self.tags[-1:] not in (["script"], ["style"]):
            self.shown.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.shown))


HOSTILE = [
    EVIL,
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    '"><script>alert(1)</script>',
    "' onmouseover='alert(1)",
    "{{7*7}}{% raw %}${7*7}",
    "[x](javascript:alert(1))",
    "<!--<script>",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text_everywhere(name):
    def page_of(name):
        pictures = pictures_of(12, crops(12), name)
        shown = Shown(pictures.pictures[0], name, "0.98", True)
        sheets = {0: Sheet(((shown, (shown,)),), name)}
        return Text(render([past_run(name)], maps=[maps_of(pictures, (0,))], sheets=sheets))

    evil, tame = page_of(name), page_of("tame")
    assert evil.scripts == tame.scripts and evil.tags == tame.tags and evil.missing == []
    assert evil.attributes == tame.attributes and evil.attributes.isdisjoint({"onerror", "onmouseover", "onclick"})
    assert f"Report on {' '.join(name.split())}" in evil.text


def written_run(folder, method="la", epochs=3, dataset="digits", steps=(), **identity):
    """A folder such as la_tf.train leaves; `steps` have checkpoints of a bank of the digits."""
    train = open_digits().train
    identity = past_run(method=method).identity | {"data": train.fingerprint} | identity
    circumstances = {"dataset": dataset, "epochs": 7, "max_steps": None, "model_dir": str(folder)}
    versions = {"keras": "3.15"}
    write_json(folder / "config.json", {"identity": identity, "circumstances": circumstances, "versions": versions})
    for number in range(epochs):
        line = {"step": number + 1, "epoch": number, "time": 0.0, "phase": method, "loss": 3.0 - number}
        MetricsFile(folder).append(line)
    for step in steps:
        arrays = {
            "memory_bank/rows": random_unit_rows(train.size, 8, step),
            "memory_bank/written": np.arange(train.size) < 300,
        }
        checkpoints.write(folder, step, arrays, {"stopped": False}, keep=1)
    return folder


@pytest.mark.parametrize("method", ["la", "ir", "dc", "swav", "supervised", "random"])
@pytest.mark.parametrize("epochs", [0, 3])
def test_a_run_without_labels_results_and_checkpoint_has_a_page(tmp_path, method, epochs):
    page = Text(page_of(read_runs([written_run(tmp_path / "mine", method, epochs)]))).text
    assert "mine" in page and "no run has a checkpoint with a memory bank yet" in page
    assert "No result of these runs belongs into a table" in page and "in training: 0 of" in page


def test_results_alone_have_a_page(tmp_path):
    (tmp_path / "results.jsonl").write_text(json.dumps({"id": "1", **knn(0.5)}) + "\n")
    page = Text(page_of([read_run(tmp_path, "theirs")])).text
    assert "Results alone" in page and "Table 1" in page and "LA, here" in page and "50.0" in page


def test_pictures_that_are_gone_leave_a_map_and_a_reason(tmp_path, capsys):
    folder = written_run(tmp_path / "mine", dataset=f"folder:{tmp_path}/gone", steps=[5])
    page = Text(page_of([read_run(folder)], pictures=40)).text
    assert "40 of 1,437, drawn at random," in page and "after step 5" in page
    assert f"there is no folder {tmp_path}/gone" in page
    assert "a map without pictures" in capsys.readouterr().err


def test_without_pictures_there_is_no_map(tmp_path):
    html = page_of([read_run(written_run(tmp_path / "mine", steps=[5]))], pictures=0)
    assert "the page was made without pictures" in Text(html).text and "data:image/jpeg" not in html


def test_only_what_differs_is_listed():
    one, two = past_run("one", tau=0.07, seed=0), past_run("two", tau=0.1, seed=0)
    assert differences([one, two]) == [
        ("tau", ["0.07", "0.1"]),
        ("dataset", ["folder:/tmp/one", "folder:/tmp/two"]),
    ]
    assert differences([one]) == []


def test_headline_numbers_of_results():
    knn_results = {"top1": 0.5, "judged": 10, "per_class": {"a": {"top1": 1.0}}}
    assert scores({"protocol": "knn", "results": knn_results}) == {"top1": 0.5}
    readouts = {"conv1": {"top1": 0.2}, "conv5": {"top1": 0.4}}
    assert scores({"protocol": "linear", "results": readouts}) == {"conv1": 0.2, "conv5": 0.4}
    tuned = {
        "1": {"images": 12, "pretrained": {"top1": 0.3, "top5": 0.6}, "scratch": {"top1": 0.1}},
        "10": {"images": 120, "pretrained": {"top1": 0.5}, "scratch": {"top1": 0.2}},
    }
    assert scores({"protocol": "finetune", "results": tuned}) == {
        "1% pretrained": 0.3, "1% scratch": 0.1, "10% pretrained": 0.5, "10% scratch": 0.2,
    }  # fmt: skip


MANIFEST = {
    "spec": "digits", "kind": "digits", "hash": "1", "class_names": [],
    "splits": {"train": {"count": 17, "fingerprint": "2"}},
}  # fmt: skip


def test_how_far_a_run_is(tmp_path):
    folder = written_run(tmp_path / "mine", steps=[5])
    write_json(folder / "dataset.json", MANIFEST)
    found = read_run(folder)
    assert (found.step, found.planned_steps, found.finished) == (5, 14, False)  # 7 epochs of 17 // 8 steps
    checkpoints.write(folder, 14, {"x": np.zeros(1)}, {"stopped": False}, keep=1)
    assert read_run(folder).finished


def test_folders_of_the_same_name_go_by_their_paths(tmp_path):
    folders = [written_run(tmp_path / parent / "run") for parent in "ab"]
    assert [run.name for run in read_runs([*folders, written_run(tmp_path / "c")])] == [*map(str, folders), "c"]


def test_names_that_are_no_text_are_shown_as_what_they_are(tmp_path):
    """In a run's name, its data set, an error and the split of a result: bytes that are no UTF-8."""
    broken = b"caf\xe9".decode(errors="surrogateescape")
    folder = written_run(tmp_path / broken, dataset=f"folder:{tmp_path}/gone-{broken}", steps=[5])
    record = {"id": "1", **knn(0.5), "split": broken}
    (folder / "results.jsonl").write_text(json.dumps(record) + "\n")
    page = page_of([read_run(folder)], pictures=20)
    text = Text(page.encode().decode()).text
    assert r"Report on caf\xe9" in text and rf"there is no folder {tmp_path}/gone-caf\xe9" in text
    assert text.count(r"caf\xe9") >= 5


def test_what_is_no_run_of_ours_is_refused_or_passed_over(tmp_path):
    detector = tmp_path / "runs" / "detector"
    write_json(detector / "config.json", {"identity": {"architecture": "vgg16"}, "circumstances": {}})
    with pytest.raises(UserError, match="holds neither a run of"):
        read_run(detector)
    mine = written_run(tmp_path / "runs" / "mine")
    done = run_main("la_tf.report", f"--runs={tmp_path}/runs/*", f"--out={tmp_path / 'report'}", "--pictures=0")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["runs"] == [mine.name]
    assert f"{detector}: passed over" in done.stderr
    (detector / "results.jsonl").write_text(json.dumps({"id": "1", **knn(0.5)}) + "\n")
    assert not read_run(detector).trained_here and len(read_run(detector).records) == 1


@pytest.fixture
def without_networks(monkeypatch):
    """Made-up runs have none that could find the neighbours of evaluation pictures."""
    monkeypatch.setattr(report_page, "_sheets", lambda runs, numbers: {})


@pytest.mark.usefixtures("without_networks")
def test_pictures_are_those_of_the_first_run_that_still_finds_them(tmp_path, capsys):
    moved = written_run(tmp_path / "moved", dataset=f"folder:{tmp_path}/gone", steps=[5])
    mine = written_run(tmp_path / "mine", steps=[7])
    html = page_of(read_runs([moved, mine]), pictures=30)
    assert "data:image/jpeg" in html and "a map without pictures" not in capsys.readouterr().err
    assert "after step 5: 30 of 1,437" in Text(html).text and "after step 7: 30 of 1,437" in Text(html).text


@pytest.mark.usefixtures("without_networks")
def test_fewer_pictures_than_data_sets_leave_empty_maps(tmp_path):
    runs = [written_run(tmp_path / "one", steps=[5]), written_run(tmp_path / "two", steps=[5], data="another")]
    assert Text(page_of(read_runs(runs), pictures=1)).text.count("0 of 1,437, drawn at random,") == 2


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ([], 2, "error: --out: name the folder "),
        (["--out={out}"], 2, "error: --runs: name the folders "),
        (["--out={out}", "--runs=x", "--pictures=-1"], 2, "error: --pictures=-1: must be at least 0"),
        (["--out={out}", "--runs=x", "--format=csv"], 2, "error: --format: goes with --table alone"),
        (["--out={out}", "--runs={out}/none"], 1, "error: --runs="),
    ],
)
def test_exit_codes(tmp_path, flags, code, message):
    done = run_main("la_tf.report", *(flag.format(out=tmp_path) for flag in flags))
    assert done.returncode == code and done.stderr.startswith(message) and done.stderr.count("\n") == 1, done.stderr


def test_the_main_writes_one_file(tmp_path):
    folder = written_run(tmp_path / "mine", steps=[5])
    done = run_main("la_tf.report", f"--runs={folder}", f"--out={tmp_path / 'report'}", "--pictures=0")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "report").iterdir()
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == {"page": str(path), "runs": ["mine"], "megabytes": round(path.stat().st_size / 1e6, 2)}


@pytest.mark.slow
def test_the_main_shows_the_pictures_of_a_run(tmp_path):
    """An untrained network: kNN, a bank of the digits, and evaluation pictures with their nearest."""
    folder = tmp_path / "random"
    tiny = ("--backbone=resnet10", "--width=4", "--image_size=8", "--embedding_dim=8", "--exporters=")
    done = run_main(
        "la_tf.train", "--dataset=digits", "--method=random", *tiny, f"--model_dir={folder}", "--max_steps=1"
    )
    assert done.returncode == 0, done.stderr
    done = run_main("la_tf.report", f"--runs={folder}", f"--out={tmp_path}", "--pictures=60")
    assert done.returncode == 0, done.stderr
    page = Text((tmp_path / "index.html").read_text())
    assert page.tags.count("img") == 6 * 12 and page.missing == []  # three successes, three failures
    assert "60 of 1,437, drawn at random," in page.text and "Of 360 pictures of the test split of digits" in page.text
    assert "An untrained network" in page.text
