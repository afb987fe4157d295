"""The sheet of a search: which pictures are drawn, how long names become, what is written."""

import numpy as np
import pytest
from PIL import Image

from data.errors import UserError
from la_tf import search_sheet
from tests.la_tf.small_export import digit, save_digits


def test_pictures_keep_their_shape_and_colours(tmp_path):
    picture = np.zeros((300, 100, 3), np.uint8)
    picture[..., 0] = 255
    Image.fromarray(picture).save(tmp_path / "tall.png")
    drawn = search_sheet.Pictures().at(str(tmp_path / "tall.png"))
    assert drawn.shape == (200, 67, 3)
    np.testing.assert_allclose(drawn.mean(axis=(0, 1)), [1, 0, 0], atol=1e-6)


def test_pictures_in_no_file_are_found_in_their_data_set():
    drawn = search_sheet.Pictures([("digits", "test", {})]).at(
        "digits test#1"
    )  # every fifth digit is of the test split
    np.testing.assert_allclose(np.kron(drawn, np.ones((2, 2, 1))), digit(5) / 255, atol=0.003)


def test_what_is_gone_or_broken_has_no_picture(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    pictures = search_sheet.Pictures([("digits", "test", {}), ("folder:/gone", "all", {})])
    assert pictures.at(str(tmp_path / "broken.jpg")) is None
    assert pictures.at("/gone/a.jpg") is None
    assert pictures.at("digits test#360") is None


def test_any_name_can_be_drawn(tmp_path):
    names = ["$x$ caf\udce9.png", "a" * 100 + ".png", "日本語\n.png"]
    save_digits(tmp_path, names[:2])
    nearest = [(str(tmp_path / name), 0.5) for name in names]
    search_sheet.save(search_sheet.draw([(nearest[0][0], nearest)]), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 700  # a query and three


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("/a/b/c.jpg", "b/c.jpg"),
        ("c.jpg", "c.jpg"),
        ("/folder/" + "n" * 60 + "0001.jpg", "folder/nnnnnnnnnn…nnnnnnnnnn0001.jpg"),
    ],
)
def test_names_are_shortened_in_the_middle(location, shown):
    found = search_sheet._short(location)
    assert found.replace("\n", "") == shown
    assert max(map(len, found.split("\n"))) <= search_sheet.LETTERS


def test_a_line_ends_where_the_folder_does():
    assert search_sheet._short("/scenes/buildings/21387.jpg") == "buildings/\n21387.jpg"


def test_a_sheet_that_cannot_be_written_is_told(tmp_path):
    save_digits(tmp_path, ["a.png"])
    drawn = search_sheet.draw([(str(tmp_path / "a.png"), [(str(tmp_path / "a.png"), 1.0)])])
    with pytest.raises(UserError, match=r"^--out=.*sheet\.png: cannot be written \("):
        search_sheet.save(drawn, tmp_path / "a.png" / "sheet.png")
