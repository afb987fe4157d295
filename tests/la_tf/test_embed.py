"""Embeddings of one's own pictures: equal to the network's, resumable, and bad pictures are named and left out."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data.encoded import View
from data.errors import FlagError, UserError
from la_tf import bad_images, bundle, embedded_pictures
from la_tf.embedded_pictures import EmbeddedPictures, open_source
from la_tf.export_embedder import ExportEmbedder
from tests import programs
from tests.la_tf.small_export import D, save_digits, small_embedder, write_export

NAMES = [b"b.png", b"a/with blank.png", "a/ähnlich/x.png".encode(), b"a/caf\xe9.png", b"train/c.png", b"z,\n.png"]
NAMES = [os.fsdecode(name) for name in NAMES]


@pytest.fixture(scope="module")
def network():
    return small_embedder()


@pytest.fixture(scope="module")
def export(network, tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("exports") / "7", network)


@pytest.fixture(scope="module")
def embedder(export):
    return ExportEmbedder(export)


def pile(folder, names=NAMES):
    """A source of digits, and what the files hold by name."""
    return f"folder:{folder}", dict(zip(names, save_digits(folder, names), strict=True))


def by_name(embedded):
    return dict(zip(embedded.names, np.asarray(embedded.rows), strict=True))


def check_rows(embedded, pictures, network):
    """The rows are those of the network on the pictures as they are, for they have the size it takes."""
    assert set(embedded.names) == set(pictures)
    wanted = network(np.stack([pictures[name] for name in embedded.names]).astype(np.float32) / 255).numpy()
    np.testing.assert_allclose(embedded.rows, wanted, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embedded.rows, axis=1), 1, atol=1e-5)


def test_rows_are_the_networks_and_names_are_any_bytes(tmp_path, embedder, network):
    source, pictures = pile(tmp_path / "pile")
    embedded = embedder.embed(open_source(source), tmp_path / "out", batch_size=4)
    check_rows(embedded, pictures, network)
    assert list(embedded.locations) == [os.path.join(tmp_path / "pile", name) for name in embedded.names]
    rows = np.load(tmp_path / "out" / "embeddings.npy")  # as any other program reads it
    assert (rows.dtype, rows.shape) == (np.float32, (6, D))
    lines = (tmp_path / "out" / "names.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(embedded.names)


def noise(folder, sizes):
    """A folder of PNGs, in whose pixels every filter shows; returns their paths in the order of a source."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{number}.png")
    return sorted(map(str, folder.iterdir()))


@pytest.mark.parametrize("view", [None, View(16, "photo", (24, 24)), View(16, "digits", (8, 8))])
def test_pictures_are_seen_as_embed_bytes_sees_them_in_any_company(tmp_path, network, export, view):
    export = write_export(tmp_path / "export", network, view) if view else export
    embedder = ExportEmbedder(export)
    paths = noise(tmp_path / "pile", [(48, 48), (60, 60), (24, 24), (16, 30)])

    def embedding_of(files):
        of_bytes = tf.saved_model.load(str(export)).signatures["embed_bytes"]
        return of_bytes(image_bytes=tf.constant(files))["embedding"]

    wanted = embedding_of([Path(path).read_bytes() for path in paths])
    embedded = embedder.embed(open_source(f"folder:{tmp_path / 'pile'}"), tmp_path / "out", batch_size=3)
    np.testing.assert_allclose(embedded.rows, wanted, atol=1e-5)
    np.testing.assert_allclose(embedder.embed_files(paths[:1]), wanted[:1], atol=1e-5)
    if view and view.kind == "digits":
        digits = open_source("digits", "test")
        wanted = embedding_of([tf.io.encode_png(picture).numpy() for picture in digits.source.pictures[:4]])
        embedded = embedder.embed(digits, tmp_path / "digits", np.arange(4))
        np.testing.assert_allclose(embedded.rows, wanted, atol=1e-5)


def test_an_export_is_loaded_once_and_asked_for_what_is_used(export, monkeypatch):
    loaded, load = [], tf.saved_model.load
    monkeypatch.setattr(tf.saved_model, "load", lambda path: loaded.append(path) or load(path))
    monkeypatch.setattr(bundle, "QUESTIONS", {"embed": bundle.QUESTIONS["embed"]})  # others raise KeyError
    assert np.isfinite(ExportEmbedder(export)(np.zeros((1, 16, 16, 3), np.float32))).all()
    assert loaded == [str(export)]


def test_bad_pictures_are_named_and_have_no_row(tmp_path, embedder, network):
    source, pictures = pile(tmp_path / "pile")
    (tmp_path / "pile" / "a" / "text.png").write_bytes(b"no picture")
    whole = (tmp_path / "pile" / "b.png").read_bytes()
    (tmp_path / "pile" / "short.png").write_bytes(whole[: len(whole) // 2])
    embedded = embedder.embed(open_source(source), tmp_path / "out", batch_size=3)
    check_rows(embedded, pictures, network)
    assert embedded.description["bad"] == 2
    listed = bad_images.read(tmp_path / "out" / "bad_images.csv")
    assert {(os.path.relpath(line["name"], tmp_path / "pile"), line["reason"]) for line in listed} == {
        ("a/text.png", "is not a picture but text ('no picture'...)"),
        ("short.png", "is cut short or damaged"),
    }
    split = open_source(source)
    assert all(split.source.locate(int(line["index"])) == line["name"] for line in listed)


def test_not_one_readable_picture_is_an_error(tmp_path, embedder):
    (tmp_path / "pile").mkdir()
    (tmp_path / "pile" / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"not one of 1 pictures can be read; .*bad_images\.csv says why"):
        embedder.embed(open_source(f"folder:{tmp_path / 'pile'}"), tmp_path / "out")


class Stopped(Exception):
    pass


def stopped_after(batches, embedder, monkeypatch, *arguments, **options):
    """Embeds until so many batches are on disk, then fails."""
    calls = iter(range(batches))

    def embed(self, images):
        if next(calls, None) is None:
            raise Stopped
        return embed.original(self, images)

    embed.original = ExportEmbedder.__call__
    with monkeypatch.context() as patched:
        patched.setattr(ExportEmbedder, "__call__", embed)
        with pytest.raises(Stopped):
            embedder.embed(*arguments, **options)


def test_it_goes_on_where_it_was_stopped(tmp_path, embedder, network, monkeypatch):
    names = [f"{number:02}.png" for number in range(20)]
    source, pictures = pile(tmp_path / "pile", names)
    for name in ("03.png", "17.png"):
        (tmp_path / "pile" / name).write_bytes(b"no picture")
        del pictures[name]
    split, out = open_source(source), tmp_path / "out"
    stopped_after(3, embedder, monkeypatch, split, out, batch_size=4)
    part = embedded_pictures.part_of(out)
    assert not out.exists()
    with open(part / "embeddings.npy", "ab") as file:
        file.write(b"half a batch")  # the machine was switched off between rows and journal
    with open(part / "journal.jsonl", "a") as file:
        file.write('{"done": 16, "ro')
    seen = []
    monkeypatch.setattr(embedded_pictures.EmbeddingFolder, "add", count(embedded_pictures.EmbeddingFolder.add, seen))
    embedded = embedder.embed(split, out, batch_size=4)
    assert sum(seen) == 8  # the first twelve were on disk
    check_rows(embedded, pictures, network)
    assert [line["index"] for line in bad_images.read(out / "bad_images.csv")] == ["3", "17"]
    assert not part.exists()


def count(add, seen):
    def counted(self, embeddings, bad):
        seen.append(len(embeddings) + len(bad))
        add(self, embeddings, bad)

    return counted


def test_rows_that_the_disk_lost_are_made_again(tmp_path, embedder, network, monkeypatch):
    source, pictures = pile(tmp_path / "pile", [f"{number:02}.png" for number in range(20)])
    split, out = open_source(source), tmp_path / "out"
    stopped_after(3, embedder, monkeypatch, split, out, batch_size=4)
    path = embedded_pictures.part_of(out) / "embeddings.npy"
    os.truncate(path, path.stat().st_size - 5)
    check_rows(embedder.embed(split, out, batch_size=4), pictures, network)


def test_what_is_finished_is_not_done_again(tmp_path, embedder, monkeypatch):
    source, _ = pile(tmp_path / "pile")
    first = embedder.embed(open_source(source), tmp_path / "out")
    stopped_after_nothing = lambda *_: pytest.fail("embedded again")  # noqa: E731
    monkeypatch.setattr(ExportEmbedder, "__call__", stopped_after_nothing)
    again = embedder.embed(open_source(source), tmp_path / "out")
    np.testing.assert_array_equal(first.rows, again.rows)


def test_what_is_killed_before_it_has_its_name_is_not_done_again(tmp_path, embedder, network, monkeypatch):
    source, pictures = pile(tmp_path / "pile")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            embedder.embed(open_source(source), tmp_path / "out")
    monkeypatch.setattr(ExportEmbedder, "__call__", lambda *_: pytest.fail("embedded again"))
    check_rows(embedder.embed(open_source(source), tmp_path / "out"), pictures, network)
    assert sorted(os.listdir(tmp_path / "out")) == ["embed.json", "embeddings.npy", "names.jsonl"]


def test_what_another_process_has_just_finished_is_not_done_again(tmp_path, embedder):
    split, out = open_source(pile(tmp_path / "pile")[0]), tmp_path / "out"
    identity = embedded_pictures.identity(embedder.weights, embedder.view._asdict(), split, np.arange(split.size))
    late = embedded_pictures.EmbeddingFolder(out, identity, D)
    assert not late.finished
    embedder.embed(split, out)
    with late:
        assert late.finished
    assert not embedded_pictures.part_of(out).exists()


def test_a_place_that_is_taken_meanwhile_is_told(tmp_path, embedder, monkeypatch):
    split, out = open_source(pile(tmp_path / "pile")[0]), tmp_path / "out"
    finish = embedded_pictures.EmbeddingFolder.finish

    def taken(*arguments):
        (out / "mine").mkdir(parents=True)
        finish(*arguments)

    monkeypatch.setattr(embedded_pictures.EmbeddingFolder, "finish", taken)
    with pytest.raises(UserError, match=r"^--out=.*: cannot be made of .* \(Directory not empty\)"):
        embedder.embed(split, out)
    assert (out / "mine").exists()


@pytest.mark.parametrize("finished", [True, False])
def test_another_source_or_export_is_refused(tmp_path, embedder, monkeypatch, finished):
    source, _ = pile(tmp_path / "pile")
    if finished:
        embedder.embed(open_source(source), tmp_path / "out", batch_size=2)
    else:
        stopped_after(1, embedder, monkeypatch, open_source(source), tmp_path / "out", batch_size=2)
    for name, other, told in (
        ("weights", "others", rf"\(export_weights '{embedder.weights}' there, 'others' here\)"),
        (
            "view",
            View(16, "photo", (24, 20)),
            r"\(view .*'common_size': None\} there, .*'common_size': \[24, 20\]\} here\)",
        ),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(embedder, name, other)
            with pytest.raises(UserError, match=told):
                embedder.embed(open_source(source), tmp_path / "out")
    save_digits(tmp_path / "pile", ["new.png"], first=30)
    with pytest.raises(UserError, match="pictures 6 there, 7 here"):
        embedder.embed(open_source(source), tmp_path / "out")


def test_a_folder_with_something_else_is_left_alone(tmp_path, embedder):
    source, _ = pile(tmp_path / "pile")
    with pytest.raises(UserError, match="exists already and holds no embeddings"):
        embedder.embed(open_source(source), tmp_path / "pile")


def test_which_pictures_a_source_has(tmp_path):
    names = ["train/dog/1.png", "train/cat/2.png", "test/dog/3.png", "loose.png"]
    source, _ = pile(tmp_path / "pile", names)
    assert sorted(open_source(source).names) == sorted(names)
    assert list(open_source(source, "test").names) == ["test/dog/3.png"]
    assert list(open_source(source, "train").names) == ["train/cat/2.png", "train/dog/1.png"]
    assert open_source("digits", "test").size == 360
    with pytest.raises(UserError, match="digits has a train and a test split; choose one"):
        open_source("digits")
    (tmp_path / "flat").mkdir()
    shutil.copy(tmp_path / "pile" / "loose.png", tmp_path / "flat")
    with pytest.raises(UserError, match="has no test split"):
        open_source(f"folder:{tmp_path / 'flat'}", "test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"^--source=folder:.*no pictures in"):
        open_source(f"folder:{tmp_path / 'empty'}")
    with pytest.raises(FlagError, match=r"^--split=no: choose one of"):
        open_source("digits", "no")
    with pytest.raises(FlagError, match=r"^--add=nothing: unknown data set"):
        open_source("nothing", flag="add")


def test_pictures_of_a_list_lie_where_an_option_says(tmp_path, embedder):
    pile(tmp_path / "pile")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "list.txt").write_text("b.png\ntrain/c.png\n")
    spec, options = f"list:{tmp_path / 'lists' / 'list.txt'}", {"image_root": str(tmp_path / "pile")}
    embedded = embedder.embed(open_source(spec, options=options), tmp_path / "out", options=options)
    assert list(embedded.locations) == [str(tmp_path / "pile" / name) for name in ("b.png", "train/c.png")]
    assert embedded.description["options"] == options


def test_a_data_set_that_lies_in_no_files(tmp_path, embedder):
    embedded = embedder.embed(open_source("digits", "test"), tmp_path / "out")
    assert embedded.rows.shape == (360, D)
    assert embedded.locations[0] == "digits test#0"


@pytest.mark.parametrize("name", ["saved_model.pb", "self_check.npz", "variables"])
def test_a_damaged_export_is_told(tmp_path, export, name):
    copied = shutil.copytree(export, tmp_path / "copy")
    shutil.rmtree(copied / name) if (copied / name).is_dir() else (copied / name).write_bytes(b"")
    with pytest.raises(UserError, match=f"--export={copied}"):
        ExportEmbedder(copied)


def test_damaged_embeddings_are_told(tmp_path, embedder):
    source, _ = pile(tmp_path / "pile")
    embedder.embed(open_source(source), tmp_path / "out")
    (tmp_path / "out" / "names.jsonl").write_text('"b.png"\n')
    with pytest.raises(UserError, match="6 rows, but 1 names"):
        EmbeddedPictures(tmp_path / "out")
    with pytest.raises(UserError, match=r"has no embed\.json"):
        EmbeddedPictures(tmp_path / "pile")


@pytest.mark.slow
def test_a_killed_command_goes_on(tmp_path, export, network):
    names = [f"{number:03}.png" for number in range(300)]
    _, pictures = pile(tmp_path / "pile", names)
    (tmp_path / "list.txt").write_text("\n".join(names))
    out = tmp_path / "out"
    source = [f"--source=list:{tmp_path / 'list.txt'}", f"--image_root={tmp_path / 'pile'}"]
    flags = [f"--export={export}", *source, f"--out={out}", "--batch_size=1"]
    process = subprocess.Popen(
        programs.command("la_tf.embed", *flags),
        cwd=programs.ROOT,
        env=programs.environment(),
        stderr=subprocess.DEVNULL,
    )
    journal = embedded_pictures.part_of(out) / "journal.jsonl"
    deadline = time.monotonic() + 300
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(journal.read_text().splitlines())
    assert 0 < before < 300
    finished = programs.run("la_tf.embed", *flags)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout.splitlines()[-1]) == {
        "out": str(out), "pictures": 300, "rows": 300, "dimension": D, "bad": 0,
    }  # fmt: skip
    check_rows(EmbeddedPictures(out), pictures, network)


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (["--source=digits", "--out=x"], 2, "--export: is not set"),
        (["--export=nowhere", "--source=digits", "--split=test", "--out=x"], 1, "--export=nowhere: no export"),
        (["--export={export}", "--source=folder:nowhere", "--out=x"], 1, "--source=folder:nowhere: there is no folder"),
    ],
)
def test_refusals(flags, code, told, export):
    refused = programs.run("la_tf.embed", *(flag.format(export=export) for flag in flags))
    assert refused.returncode == code
    assert refused.stderr.startswith(f"error: {told}")
    assert refused.stderr.count("\n") == 1
