"""A pile of pictures as one page: as a user makes it, in a browser, and what is refused."""

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image

from tests import programs
from tests.browser import opened
from tests.la_tf.small_export import save_digits, small_embedder, write_export
from tests.la_tf.test_report_page import POINT, Text

EVIL = '<b onclick="x">&'
NAMES = [f"a/{number:02}.png" for number in range(30)] + [f"{EVIL}/{EVIL}{number}.png" for number in range(20)]
ODD = "a/caf\udce9.png"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a page on digits: two of them copied, one mirrored, one broken; and what the command said."""
    folder = tmp_path_factory.mktemp("browse")
    export, source = write_export(folder / "export", small_embedder()), folder / "source"
    pictures = save_digits(source, NAMES)
    for row, name in ((0, "a/copy.png"), (0, ODD)):
        os.link(source / NAMES[row], source / name)
    Image.fromarray(np.ascontiguousarray(pictures[2][:, ::-1])).save(source / "mirrored.png")
    (source / "broken.png").write_bytes(b"no picture")
    process = run(export, source, folder / "out")
    assert process.returncode == 0, process.stderr
    return export, source, folder / "out", json.loads(process.stdout.splitlines()[-1])


def run(export, source, out, *flags):
    return programs.run("la_tf.browse", f"--export={export}", f"--source=folder:{source}", f"--out={out}", *flags)


def table(path):
    with open(path, newline="", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def test_near_duplicates_are_found_and_named(made):
    _, source, out, told = made
    assert (told["pictures"], told["bad"], told["same_file"]) == (53, 1, 2)
    groups = {}
    for line in table(out / "duplicates.csv"):
        groups.setdefault(line["group"], []).append(line)
    by_name = {os.path.relpath(line["name"], source): line for lines in groups.values() for line in lines}
    assert len(by_name) == told["near_duplicates"] and len(groups) == told["groups"]
    for name in (ODD, "a/copy.png"):
        assert by_name[name]["group"] == by_name[NAMES[0]]["group"]
        assert by_name[name]["same_file_as"] == str(source / NAMES[0])
    assert by_name["mirrored.png"]["group"] == by_name[NAMES[2]]["group"]
    assert by_name["mirrored.png"]["same_file_as"] == by_name[NAMES[0]]["same_file_as"] == ""
    assert float(by_name["mirrored.png"]["likeness"]) == 1


def test_every_picture_is_in_a_cluster_and_the_loneliest_come_first(made):
    _, _, out, told = made
    clusters = table(out / "clusters.csv")
    assert len(clusters) == 53 and len({line["name"] for line in clusters}) == 53
    assert len({line["cluster"] for line in clusters}) == told["clusters"] == 5
    lonely = [float(line["similarity_to_10th"]) for line in table(out / "outliers.csv")]
    assert len(lonely) == 40 and lonely == sorted(lonely)


def test_of_near_duplicates_in_a_cluster_one_is_shown_whatever_cluster_the_others_are_in(made):
    out = made[2]
    group_of = {line["name"]: line["group"] for line in table(out / "duplicates.csv")}
    distinct = {}
    for line in table(out / "clusters.csv"):
        distinct.setdefault(line["cluster"], set()).add(group_of.get(line["name"], line["name"]))
    page = (out / "index.html").read_text().partition('id="clusters"')[2].partition('id="map"')[0]
    shown = [part.count("<img") for part in page.split("<h3>")[1:]]
    assert shown == [min(10, len(distinct[str(number + 1)])) for number in range(len(shown))] and len(shown) == 5


def test_names_are_text_and_pictures_have_one(made):
    page = Text((made[2] / "index.html").read_text())
    assert f"{EVIL}3.png" in page.text and "1 picture could not be read and is left out" in page.text
    assert page.tags.count("img") > 53 and page.missing == [] and "b" not in page.tags


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
def test_it_works_in_a_browser(made, width):
    _, source, out, _ = made
    with opened(out / "index.html", width) as shown:
        shown.wait_for_function("typeof Bokeh !== 'undefined' && Bokeh.documents.every(each => each.is_idle)")
        assert shown.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert shown.locator("#duplicates img").first.evaluate("picture => picture.naturalWidth") == 16
        links = shown.locator("#duplicates a").evaluate_all("links => links.map(link => link.href)")
        assert (source / NAMES[0]).as_uri() in links
        x, y = shown.evaluate(POINT, 0)
        shown.mouse.move(x - 4, y)
        shown.mouse.move(x, y)
        shown.locator(".bk-Tooltip:visible img").first.wait_for()
        shown.mouse.click(x, y)
        listed = shown.locator("#neighbors-0 figure")
        listed.nth(10).wait_for()
        assert listed.count() == 11


@pytest.mark.slow
def test_other_flags_make_the_page_anew_of_the_same_embeddings(made):
    export, source, out, _ = made
    before = (out / "embeddings" / "embeddings.npy").stat()
    process = run(export, source, out, "--clusters=3", "--outliers=0", "--pictures=0")
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.splitlines()[-1])["clusters"] == 3
    after = (out / "embeddings" / "embeddings.npy").stat()
    assert (before.st_ino, before.st_mtime) == (after.st_ino, after.st_mtime)
    page = (out / "index.html").read_text()
    assert 'id="map"' not in page and 'id="outliers"' not in page


def test_a_place_that_cannot_be_written_is_told_at_once(made):
    export, source, out, _ = made
    below = out / "index.html" / "below"
    process = run(export, source, below)
    assert process.returncode == 1 and process.stderr.count("\n") == 1
    assert process.stderr.startswith(f"error: --out={below}: cannot be written (Not a directory)")


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (["--source=digits", "--out=x"], 2, "error: --export: is not set; e.g. "),
        (["--export=x", "--out=x"], 2, "error: --source: is not set; e.g. "),
        (["--export=x", "--source=digits"], 2, "error: --out: is not set; e.g. "),
        (["--export=x", "--source=digits", "--out=x", "--clusters=0"], 2, "error: --clusters=0: must be at least 1"),
        (
            ["--export=x", "--source=digits", "--out=x", "--duplicate_likeness=1.5"],
            2,
            "error: --duplicate_likeness=1.5: must be above 0 and at most 1",
        ),
        (["--export=none", "--source=digits", "--split=test", "--out=x"], 1, "error: --export=none: no export"),
    ],
)
def test_refusals(flags, code, told):
    process = programs.run("la_tf.browse", *flags)
    assert process.returncode == code and process.stderr.startswith(told) and process.stderr.count("\n") == 1
