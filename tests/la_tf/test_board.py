"""What TensorBoard gets besides curves, against float64 NumPy and by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.plugins.hparams import metadata

from la_tf import board
from la_tf.config import METHODS
from tests.la_tf.test_config import make


@given(st.integers(1, 300), st.integers(0, 40))
def test_updates_come_as_often_as_asked_and_after_the_last_epoch(epochs, updates):
    due = [board.is_due(epoch, epochs, updates) for epoch in range(epochs)]
    assert sum(due) == min(updates, epochs)
    assert due[-1] == (updates > 0)


def unit_rows(count, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, 5)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_similarities_are_those_of_the_definitions():
    rows, count, k = unit_rows(60), 60, 40
    rng = np.random.default_rng(1)
    written = rng.random(count) < 0.9
    labels = rng.integers(0, 12, (count, 2)).astype(np.int32)
    labels[~written] = -1
    images = np.flatnonzero(written)[[0, 5, 20]]
    found = board.similarities(rows, written, images, labels, k)

    exact = rows.astype(np.float64) @ rows.astype(np.float64).T
    nearest, background, close = [], [], []
    for i in images:
        others = [j for j in range(count) if written[j] and j != i]
        ordered = sorted((exact[i, j] for j in others), reverse=True)
        nearest += ordered[:30]
        background += ordered[: k - 1]
        close += [exact[i, j] for j in others if (labels[j] == labels[i]).any()]
    for name, wanted in (("nearest", nearest), ("background", background), ("close", close)):
        np.testing.assert_allclose(found[name], wanted, atol=1e-6, err_msg=name)


def test_an_image_is_left_out_where_others_have_its_very_row():
    rows = np.tile(unit_rows(1), (40, 1))
    found = board.similarities(rows, np.ones(40, bool), np.array([35]))
    assert found.keys() == {"nearest"} and len(found["nearest"]) == 30


def test_where_there_are_fewer_rows_than_neighbours_all_count_once():
    rows = unit_rows(8)
    found = board.similarities(rows, np.ones(8, bool), np.arange(8), k=8)
    assert len(found["nearest"]) == len(found["background"]) == 8 * 7


def test_sizes_of_clusters_that_hold_something():
    labels = np.array([[0, 2], [0, 2], [3, 2], [-1, -1]])
    assert sorted(board.cluster_sizes(labels)) == [1, 2, 3]


def test_a_neighbour_whose_class_is_unknown_is_marked_as_neither_right_nor_wrong(monkeypatch):
    monkeypatch.setattr(board.tiles, "tiled", lambda pictures, captions: captions)
    labels = np.array([0, 0, 1, -1])
    split = SimpleNamespace(labels=labels, size=4)
    dataset = SimpleNamespace(class_names=("ant", "bee"))
    experiment = SimpleNamespace(
        train=split, dataset=dataset, max_steps=1, steps_per_epoch=1, pictures=lambda split, images: images
    )
    angles = np.arange(4) / 10  # the lower its number, the nearer to row 0
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    captions = board.Board(experiment, None, 1)._sheet(0, rows, np.ones(4, bool), np.arange(4))
    assert [color for _, color in captions[0]] == [
        board.tiles.INK,
        board.COLORS[True],
        board.COLORS[False],
        board.tiles.INK,
    ]
    assert {color for _, color in captions[3]} == {board.tiles.INK}
    assert [text.split("\n")[0] for text, _ in captions[0]] == ["ant", "ant", "bee", "?"]


@pytest.mark.parametrize("method", METHODS)
def test_hyper_parameters_are_what_tensorboard_can_hold(method):
    config = make(method=method, schedule="steps", drop_epochs=(1, 2), epochs=7)
    values = board.hyper_parameters(config)
    assert all(isinstance(value, bool | int | float | str) for value in values.values())
    assert values["method"] == method and values["drop_epochs"] == "1,2" and values["epochs"] == 7
    assert "model_dir" not in values


def test_the_columns_of_the_hparams_tab_suit_every_method():
    plugin = metadata.parse_experiment_plugin_data(
        board.experiment_summary(make(method="ir")).value[0].metadata.plugin_data.content
    )
    names = {info.name for info in plugin.hparam_infos}
    for method in METHODS:
        assert board.hyper_parameters(make(method=method)).keys() <= names, method
    assert {info.name for info in plugin.hparam_infos if info.differs} == {
        "method", "backbone", "learning_rate", "epochs", "seed",
    }  # fmt: skip
    assert [(info.name.group, info.name.tag) for info in plugin.metric_infos][:2] == [
        ("", "knn_top1"),
        ("", "validation_knn_top1"),
    ]
