"""An export of a run, used by a program that knows nothing of this project; what of a run's bank is in which export."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from data.encoded import UNREADABLE, view_of
from data.manifest import manifest, summary
from data.pipeline import evaluation_batches
from data.sources import open_dataset
from la_tf import bundle, estimator
from la_tf.embedding import build_embedder
from la_tf.memory_bank import MemoryBank
from la_tf.serving import Bank
from models.backbone import build_backbone
from models.preprocessing import Preprocessing
from tests.data.pictures import encoded, smooth
from tests.data.strange_pictures import readable
from tests.programs import environment

SIZE, D, N, NEIGHBORS = 80, 16, 500, 7
SIZES = [(300, 400), (81, 80), (40, 200), (79, 33)]

ELSEWHERE = """
import json
import sys
import numpy as np
import tensorflow as tf

for ours in ("la_tf", "data", "models", "detection"):
    try:
        __import__(ours)
        raise SystemExit(f"{ours} is on the path: nothing is tested")
    except ModuleNotFoundError:
        pass
export, given, out, *files = sys.argv[1:]
signatures = tf.saved_model.load(export).signatures
pictures = [open(file, "rb").read() for file in files]
try:
    signatures["embed_bytes"](image_bytes=tf.constant([*pictures[:3], pictures[0][:500], *pictures[3:]]))
    raise SystemExit("a broken picture was not noticed")
except tf.errors.InvalidArgumentError as error:
    print(error.message)
of_bytes = signatures["embed_bytes"](image_bytes=tf.constant(pictures))["embedding"]
of_images = signatures["embed"](images=tf.constant(np.load(given)))["embedding"]
nearest = signatures["nearest"](embedding=of_bytes, neighbors=tf.constant(7))

said = json.load(open(export + "/model_card.json"))["example"]
shown = {}
exec(said.replace('"EXPORT"', repr(export)).replace('["a.jpg", "b.png"]', repr(files[:2])), shown)
np.savez(out, of_bytes=of_bytes, of_images=of_images, **nearest, shown=shown["embedding"], **{
    "shown_" + name: value for name, value in shown["found"].items()
})
"""


@pytest.mark.slow
def test_it_works_in_a_process_that_knows_nothing_of_us(tmp_path):
    folder = tmp_path / "set" / "only"
    folder.mkdir(parents=True)
    pictures = {f"{i}.jpg": encoded(smooth(i, *size), "jpeg") for i, size in enumerate(SIZES)}
    for name, data in (pictures | {name: data for name, (data, _) in readable().items()}).items():
        (folder / name).write_bytes(data)
    dataset = open_dataset(f"folder:{folder.parent}")
    split = dataset.train

    keras.utils.set_random_seed(0)
    embedder = build_embedder(build_backbone("resnet10", 4, preprocessing=Preprocessing(image_size=SIZE)), D)
    (batch,) = evaluation_batches(split, SIZE, split.size)
    assert np.all(batch["valid"])
    wanted = embedder(batch["image"], training=False).numpy()
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((N, D)).astype(np.float32)
    bank = Bank(rows / np.linalg.norm(rows, axis=1, keepdims=True), rng.random(N) < 0.9)
    facts = {"view": view_of(split, SIZE), "data": summary(manifest(dataset))}
    export = bundle.write(tmp_path / "export", embedder, 7, bank=bank, **facts)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    np.save(elsewhere / "images.npy", batch["image"])
    program = [sys.executable, "-c", ELSEWHERE, export, "images.npy", "found.npz", *split.source.paths()]
    clean = {**environment(), "PYTHONPATH": ""}
    done = subprocess.run([*map(str, program)], cwd=elsewhere, env=clean, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"image_bytes[3]: {UNREADABLE}" in done.stdout
    with np.load(elsewhere / "found.npz") as found:
        np.testing.assert_allclose(found["of_images"], wanted, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found["of_bytes"], wanted, rtol=0, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(found["of_bytes"], axis=1), 1, rtol=0, atol=1e-5)
        similarity = found["of_bytes"].astype(np.float64) @ bank.rows.astype(np.float64).T
        similarity[:, ~bank.written] = -np.inf
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :NEIGHBORS]
        np.testing.assert_array_equal(found["indices"], order)
        np.testing.assert_allclose(found["similarities"], np.take_along_axis(similarity, order, 1), rtol=0, atol=1e-6)
        np.testing.assert_allclose(found["shown"], wanted[:2], rtol=0, atol=1e-5)  # the card's example
        assert found["shown_indices"].shape == found["shown_similarities"].shape == (2, 10)
    assert np.abs(wanted[0] - wanted[1]).max() > 1e-3, "pictures make no difference"
    assert {*os.listdir(export)} >= {"model_card.json", "model_card.md"}
    assert json.loads((export / "model_card.json").read_text())["data"]["train_images"] == split.size


def exported_bank(monkeypatch, pictures, **wanted):
    """What `Estimator.export_saved_model` gives `bundle.write` for the bank of a run with these PictureRows."""
    given = {}
    monkeypatch.setattr(estimator.bundle, "write", lambda folder, embedder, **facts: given.update(facts))
    bank = MemoryBank(6, 4)
    bank.fill([0, 2], np.eye(4)[:2])
    model = SimpleNamespace(embedder=None, bank=bank, pictures=pictures)
    run = SimpleNamespace(model=model, step=3, config=SimpleNamespace(model_dir="runs/x"))
    estimator.Estimator.export_saved_model(run, "out", config={}, **wanted)
    assert (given["step"], given["config"]) == (3, {})
    return given["bank"]


def test_a_run_exports_its_bank_where_that_is_asked_for_and_at_hand(monkeypatch):
    whole, part = SimpleNamespace(size=6, here=range(6)), SimpleNamespace(size=6, here=range(3))
    bank = exported_bank(monkeypatch, whole, with_bank=True)
    np.testing.assert_array_equal(bank.rows[[0, 2]], np.eye(4)[:2])
    np.testing.assert_array_equal(bank.written, [True, False, True, False, False, False])
    left_out = exported_bank(monkeypatch, whole)
    assert left_out == "python -m la_tf.export --model_dir=runs/x makes an export with it"
    spread = exported_bank(monkeypatch, part, with_bank=True)
    assert spread.startswith("its rows were spread over processes") and "la_tf.export --model_dir=runs/x" in spread
