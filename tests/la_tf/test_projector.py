"""The files of the embedding projector, read as TensorBoard reads them."""

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector import projector_plugin
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from la_tf import projector, tiles


def written(folder, rows, pictures, columns, side=4):
    projector.write(folder, "bank", rows, pictures, columns, side)
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    return embedding


def test_vectors_thumbnails_and_names_are_in_the_same_order(tmp_path):
    rows = np.arange(15, dtype=np.float32).reshape(5, 3)
    grey = np.arange(5) / 10
    pictures = (np.full((8, 8, 3), value) for value in grey)
    embedding = written(tmp_path, rows, pictures, {"class": "abcde", "file": [f"{i}.jpg" for i in range(5)]})
    found = projector_plugin._read_tensor_binary_file(tmp_path / embedding.tensor_path, list(embedding.tensor_shape))
    np.testing.assert_array_equal(found, rows)
    lines = (tmp_path / embedding.metadata_path).read_text().splitlines()
    assert lines == ["class\tfile", "a\t0.jpg", "b\t1.jpg", "c\t2.jpg", "d\t3.jpg", "e\t4.jpg"]
    sprite = np.asarray(Image.open(tmp_path / embedding.sprite.image_path))
    assert sprite.shape == (12, 12, 3) and list(embedding.sprite.single_image_dim) == [4, 4]
    corners = sprite[::4, ::4, 0].ravel()[:5]  # 3 across: the least square that holds 5
    np.testing.assert_allclose(corners / 255, grey, atol=1 / 255)


def test_names_of_any_kind_keep_to_their_line_and_column(tmp_path):
    names = ["a\tb", "line\nbreak", "caf\u00e9", "\udcff.jpg", ""]
    rows = np.zeros((5, 2), np.float32)
    embedding = written(tmp_path, rows, np.zeros((5, 4, 4, 3)), {"file": names, "class": names})
    lines = (tmp_path / embedding.metadata_path).read_text().splitlines()
    assert len(lines) == 6 and all(line.count("\t") == 1 for line in lines)
    assert [line.split("\t")[0] for line in lines[1:]] == [r"a\tb", r"line\nbreak", "caf\u00e9", r"\xff.jpg", "?"]


def test_too_many_thumbnails_for_a_sprite(tmp_path):
    with pytest.raises(ValueError, match="2 thumbnails of 5000 px do not fit"):
        projector.write(tmp_path, "bank", np.zeros((2, 2)), [], {}, side=5000)


def test_tiles_hold_each_picture_at_its_place():
    pictures = np.random.default_rng(0).random((2, 3, 16, 16, 3))
    sheet = tiles.tiled(list(pictures), [[("words that are far too long", "#000000")] * 3] * 2, side=16)
    height = 16 + tiles.LINE + tiles.GAP
    for down in range(2):
        for across in range(3):
            top, left = tiles.GAP + down * height, tiles.GAP + across * (16 + tiles.GAP)
            np.testing.assert_allclose(sheet[top : top + 16, left : left + 16] / 255, pictures[down, across], atol=2e-3)
    margins = sheet[:, [*range(tiles.GAP), *range(-tiles.GAP, 0)]]
    assert (margins == 255).all()  # words stay within the columns
