"""Search as a user does it: build, search, add, look; and what is refused."""

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image

from data.errors import FlagError
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
    """An export, and a folder of digits whose index was built with it; what the build said."""
    folder = tmp_path_factory.mktemp("search")
    export = write_export(folder / "export", network)
    pictures = save_digits(folder / "pile", NAMES)
    (folder / "pile" / "broken.png").write_bytes(b"no picture")
    built = found_by(export, f"--source=folder:{folder / 'pile'}", "--batch_size=8")
    return folder, export, pictures, built


def found_by(export, *flags):
    """What a search printed last."""
    process = programs.run("la_tf.search", f"--export={export}", *flags)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def refusal(*flags):
    process = programs.run("la_tf.search", *flags)
    assert process.stderr.count("\n") == 1, process.stderr
    return process.returncode, process.stderr


def test_the_index_is_built_beside_the_export(made):
    folder, export, _, built = made
    assert (built["size"], built["added"], built["bad"], built["kind"]) == (22, 22, 1, "flat")
    assert built["index"] == str(export / "index")
    assert sorted(os.path.relpath(name, folder / "pile") for name in ImageIndex.open(export / "index").names) == sorted(
        NAMES
    )
    with open(export / "index" / "bad_images.csv", newline="") as file:
        assert [line["name"] for line in csv.DictReader(file)] == [str(folder / "pile" / "broken.png")]


@pytest.mark.slow
def test_neighbours_are_those_of_the_network_and_are_drawn(made, network):
    folder, export, pictures, _ = made
    queries = [folder / "pile" / NAMES[-1], folder / "a,b.png"]  # one of the index, one of its own
    save_digits(folder, ["a,b.png"], first=100)
    sheet = folder / "sheets" / "sheet.png"
    found = found_by(export, f'--image="{queries[0]}","{queries[1]}"', "--nearest=13", f"--out={sheet}")
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
    with Image.open(sheet) as drawn:
        assert drawn.width > 1500
        assert drawn.height > 800  # thirteen neighbours take two lines, of two queries
    assert os.listdir(sheet.parent) == ["sheet.png"]


@pytest.mark.slow
def test_pictures_are_added_once(made, tmp_path):
    folder, export, _, _ = made
    index = f"--index={tmp_path / 'index'}"
    found_by(export, index, f"--source=folder:{folder / 'pile'}", "--kind=ivf", "--quantised", "--lists=2")
    save_digits(tmp_path / "more", ["x/new.png"], first=50)
    (tmp_path / "more" / "broken.png").write_bytes(b"no picture")
    query = tmp_path / "more" / "x" / "new.png"
    first = found_by(export, index, f"--add=folder:{tmp_path / 'more'}", f"--image={query}", "--nearest=1")
    assert [first[name] for name in ("added", "bad", "size", "kind", "quantised")] == [1, 1, 23, "ivf", True]
    assert first["queries"][0]["nearest"][0]["name"] == str(query)
    again = found_by(export, index, f"--add=folder:{os.path.relpath(tmp_path / 'more', programs.ROOT)}")
    assert [again[name] for name in ("added", "bad", "size")] == [0, 1, 23]  # the broken one is tried again


@pytest.mark.slow
def test_refusals_of_what_is_there(made, tmp_path):
    folder, export, _, _ = made
    image = f"--image={folder / 'pile' / '00.png'}"
    assert "there is no index yet" in refusal(f"--export={export}", f"--index={tmp_path}", image)[1]
    told = refusal(f"--export={export}", f"--source=folder:{folder / 'pile'}", "--kind=hnsw")
    assert told[0] == 1
    assert "is there already, with --kind=flat; give --rebuild" in told[1]
    broken = refusal(f"--export={export}", f"--image={folder / 'pile' / '00.png'},{folder / 'pile' / 'broken.png'}")
    assert broken == (
        1,
        f"error: --image={folder / 'pile' / 'broken.png'}: is not a picture but text ('no picture'...)\n",
    )
    assert "--nearest=30: the index holds 22 pictures" in refusal(f"--export={export}", image, "--nearest=30")[1]
    other = write_export(tmp_path / "other", small_embedder(seed=1))
    assert "was built with another export" in refusal(f"--export={other}", f"--index={export / 'index'}", image)[1]


UNSET = (
    "source", "split", "image", "out", "index", "embeddings", "add", "kind", "lists", "links", "nprobe", "ef_search",
)  # fmt: skip
DEFAULTS = dict.fromkeys(UNSET) | {"export": "e", "nearest": 10, "quantised": False, "rebuild": False}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "--image: name a picture"),
        ({"source": "digits", "add": "digits"}, "--source and --add: give one of them"),
        ({"image": "a.png", "kind": "ivf"}, "--kind: goes with --source or --embeddings"),
        ({"add": "digits", "rebuild": True}, "--rebuild: goes with --source or --embeddings"),
        ({"source": "digits", "kind": "tree"}, "--kind=tree: choose one of flat, ivf, hnsw"),
        ({"source": "digits", "out": "a.png"}, "--out: draws what was found for --image"),
        ({"source": "digits", "kind": "hnsw", "nprobe": 3}, "--nprobe: --kind=hnsw does not read it"),
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
