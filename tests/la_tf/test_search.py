"""Search as a user does it: build, search, add, look; and what is refused."""

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image

from data.errors import FlagError, UserError
from la_tf import picture_search
from la_tf.image_index import ImageIndex
from tests import programs
from tests.la_tf.small_export import digit, save_digits, small_embedder, write_export

NAMES = [f"{number:02}.png" for number in range(20)] + ["with blank/ähnlich $x$.png", "with blank/caf\udce9.png"]


@pytest.fixture(scope="module")
def network():
    return small_embedder()


@pytest.fixture(scope="module")
def made(network, tmp_path_factory):
    """An export, a folder of digits, and what the command said that built their index, searched and drew."""
    folder = tmp_path_factory.mktemp("search")
    export = write_export(folder / "export", network)
    pictures = save_digits(folder / "pile", NAMES)
    (folder / "pile" / "broken.png").write_bytes(b"no picture")
    save_digits(folder, ["a,b.png"], first=100)
    flags = {
        "source": f"folder:{folder / 'pile'}",
        "image": f'"{folder / "pile" / NAMES[-1]}","{folder / "a,b.png"}"',  # one of the index, one of its own
        "out": folder / "sheets" / "sheet.png",
        "nearest": 13,
        "batch_size": 8,
    }
    process = programs.run("la_tf.search", f"--export={export}", *(f"--{name}={flags[name]}" for name in flags))
    assert process.returncode == 0, process.stderr
    return folder, export, pictures, json.loads(process.stdout.splitlines()[-1])


UNSET = (
    "source", "split", "image", "out", "index", "embeddings", "add", "kind", "lists", "links", "nprobe", "ef_search",
)  # fmt: skip
DEFAULTS = dict.fromkeys(UNSET) | {"export": "e", "nearest": 10, "quantised": False, "rebuild": False}
DEFAULTS |= {"batch_size": 8, "workers": 0, "options": {}}


def found_by(export, **flags):
    """What a search finds, in this process: one that imports TensorFlow takes seconds."""
    return picture_search.run(DEFAULTS | {"export": str(export)} | flags)


def test_the_index_is_built_beside_the_export(made):
    folder, export, _, built = made
    assert (built["size"], built["added"], built["bad"], built["kind"]) == (22, 22, 1, "flat")
    assert built["index"] == str(export / "index")
    assert sorted(os.path.relpath(name, folder / "pile") for name in ImageIndex.open(export / "index").names) == sorted(
        NAMES
    )
    with open(export / "index" / "bad_images.csv", newline="") as file:
        assert [line["name"] for line in csv.DictReader(file)] == [str(folder / "pile" / "broken.png")]


def test_neighbours_are_those_of_the_network_and_are_drawn(made, network):
    folder, _, pictures, found = made
    queries = [folder / "pile" / NAMES[-1], folder / "a,b.png"]
    rows = network(pictures.astype(np.float32) / 255).numpy().astype(np.float64)
    for picture, query, path in zip([pictures[-1], digit(100)], found["queries"], queries, strict=True):
        wanted = rows @ network(picture[None].astype(np.float32) / 255).numpy()[0]
        assert query["image"] == str(path)
        assert len(query["nearest"]) == 13
        similarities = [nearest["similarity"] for nearest in query["nearest"]]
        np.testing.assert_allclose(similarities, -np.sort(-wanted)[:13], atol=2e-4)
        for nearest in query["nearest"]:
            place = NAMES.index(os.path.relpath(nearest["name"], folder / "pile"))
            assert abs(nearest["similarity"] - wanted[place]) < 2e-4
    with Image.open(found["sheet"]) as drawn:
        assert drawn.width > 1500
        assert drawn.height > 800  # thirteen neighbours take two lines, of two queries
    assert os.listdir(folder / "sheets") == ["sheet.png"]


@pytest.fixture
def lists(made, tmp_path):
    """Flags of an index of two lists beside the one of `made`."""
    folder, export, _, _ = made
    flags = {"export": export, "index": tmp_path / "lists", "source": f"folder:{folder / 'pile'}"}
    found_by(**flags, kind="ivf", quantised=True, lists=2)
    return flags


def test_pictures_are_added_once(lists, tmp_path, monkeypatch):
    export, index = lists["export"], lists["index"]
    save_digits(tmp_path / "more", ["x/new.png"], first=50)
    (tmp_path / "more" / "broken.png").write_bytes(b"no picture")
    query = str(tmp_path / "more" / "x" / "new.png")
    first = found_by(export, index=index, add=f"folder:{tmp_path / 'more'}", image=query, nearest=1)
    assert [first[name] for name in ("added", "bad", "size", "kind", "quantised")] == [1, 1, 23, "ivf", True]
    assert first["queries"][0]["nearest"][0]["name"] == query
    monkeypatch.chdir(tmp_path)
    again = found_by(export, index=index, add="folder:more")
    assert [again[name] for name in ("added", "bad", "size")] == [0, 1, 23]  # the broken one is tried again
    assert (index / "bad_images.csv").exists()
    (tmp_path / "more" / "broken.png").unlink()
    (index / ".embeddings").mkdir()  # left by a process that was killed when all was in the index
    assert found_by(export, index=index, add="folder:more")["bad"] == 0
    assert sorted(os.listdir(index)) == [".lock", "index.json", "names-1.jsonl", "rows-1.faiss"]


def test_a_picture_that_a_list_names_twice_is_in_the_index_once(made, tmp_path):
    folder, export, _, _ = made
    (tmp_path / "list.txt").write_text("00.png\n01.png\n./00.png\n")
    found = found_by(
        export,
        index=tmp_path / "index",
        source=f"list:{tmp_path / 'list.txt'}",
        options={"image_root": str(folder / "pile")},
    )
    assert (found["size"], found["added"]) == (2, 2)
    names = [str(folder / "pile" / name) for name in ("00.png", "01.png")]
    assert list(ImageIndex.open(tmp_path / "index").names) == names


@pytest.mark.parametrize("damage", ["{", '{"format": 99}'])
def test_a_damaged_index_is_built_anew(made, tmp_path, damage):
    folder, export, _, _ = made
    flags = {"index": tmp_path / "index", "source": f"folder:{folder / 'pile' / 'with blank'}"}
    found_by(export, **flags)
    (tmp_path / "index" / "index.json").write_text(damage)
    with pytest.raises(UserError, match=r"index\.json: "):
        found_by(export, **flags)
    assert found_by(export, **flags, rebuild=True)["size"] == 2


def test_flags_that_the_kind_of_an_index_does_not_read_are_refused(made, tmp_path, lists):
    folder, export, _, _ = made
    source, image = f"folder:{folder / 'pile'}", str(folder / "pile" / "00.png")
    with pytest.raises(FlagError, match=r"^--lists: goes with --kind=ivf; flat, which an index of 23 pictures is"):
        found_by(export, index=tmp_path / "index", source=source, lists=50)
    assert not (tmp_path / "index" / "index.json").exists()
    flat = rf"--index={export / 'index'}, flat, does not read it"
    for flags in ({"image": image}, {"image": image, "add": source}, {"source": source}):
        with pytest.raises(FlagError, match=rf"^--nprobe: goes with --kind=ivf; {flat}"):
            found_by(export, nprobe=8, **flags)
    with pytest.raises(UserError, match=r"is there already, with --nprobe=2; give --rebuild"):
        found_by(**lists, nprobe=1)
    assert found_by(**lists, nprobe=64)["effort"] == 2  # of two lists at most two are looked through
    assert found_by(**lists, nprobe=1, image=image)["effort"] == 2  # one is that of this search


def test_refusals_of_what_is_there(made, tmp_path):
    folder, export, _, _ = made
    image = str(folder / "pile" / "00.png")
    refused = programs.run("la_tf.search", f"--export={export}", f"--index={tmp_path}", f"--image={image}")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "there is no index yet" in refused.stderr
    with pytest.raises(UserError, match="is there already, with --kind=flat; give --rebuild"):
        found_by(export, source=f"folder:{folder / 'pile'}", kind="hnsw")
    broken = folder / "pile" / "broken.png"
    with pytest.raises(UserError) as told:
        found_by(export, image=f"{image},{broken}")
    assert str(told.value) == f"--image={broken}: is not a picture but text ('no picture'...)"
    with pytest.raises(UserError, match="--nearest=30: the index holds 22 pictures"):
        found_by(export, image=image, nearest=30)
    (tmp_path / "backbone.weights.h5").write_bytes(b"others")
    with pytest.raises(UserError, match="was built with another export"):
        found_by(tmp_path, index=export / "index", image=image)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "--image: name a picture"),
        ({"source": "digits", "add": "digits"}, "--source and --add: give one of them"),
        ({"image": "a.png", "kind": "ivf"}, "--kind: goes with --source or --embeddings"),
        ({"add": "digits", "rebuild": True}, "--rebuild: goes with --source or --embeddings"),
        ({"source": "digits", "kind": "tree"}, "--kind=tree: choose one of flat, ivf, hnsw"),
        ({"source": "digits", "out": "a.png"}, "--out: draws what was found for --image"),
        (
            {"source": "digits", "kind": "hnsw", "nprobe": 3},
            "--nprobe: goes with --kind=ivf; --kind=hnsw does not read it",
        ),
        ({"image": "a.png", "out": "a.what"}, "--out=a.what: name a file that ends in .png, .svg, .pdf"),
        ({"add": "digits", "nprobe": 3}, "--nprobe: goes with --image, or with --source"),
        ({"image": "a.png", "nearest": 0}, "--nearest=0: must be at least 1"),
        ({"image": "a.png", "nprobe": 0}, "--nprobe=0: must be at least 1"),
        ({"image": "a.png", "split": "all"}, "--split: goes with --source or --add"),
    ],
)
def test_flags_that_do_not_fit(given, told):
    with pytest.raises(FlagError) as refused:
        picture_search.check(DEFAULTS | given)
    assert str(refused.value).startswith(told)


def test_flags_that_fit():
    picture_search.check(DEFAULTS | {"source": "digits", "kind": "ivf", "nprobe": 3, "image": "a.png", "out": "b.png"})


def test_names_of_query_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b c.png", "d,e.png"):
        (tmp_path / name).write_bytes(b"")
    assert picture_search.image_files("a.png,b c.png") == ["a.png", "b c.png"]
    assert picture_search.image_files("d,e.png") == ["d,e.png"]
    assert picture_search.image_files('"d,e.png", a.png') == ["d,e.png", "a.png"]
    assert picture_search.image_files(None) == []
