"""If these fail, boxes are drawn elsewhere than they are, or labels cannot be read."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from PIL import Image

from data.voc import open_set
from detection import drawing
from detection.drawing import COLORS, drawn, save

CLASSES = ("cat", "cow", "dog", "a class whose name is far too long to stand in any small picture, whatever one does")
GRAY = 128


def gray(height, width):
    return np.full((height, width, 3), GRAY, np.uint8)


def color(label):
    return np.round(255 * np.array(to_rgb(COLORS[label - 1][0])))


def boxes_of(*rows):
    """Found boxes of (box, score, label)."""
    boxes, scores, labels = zip(*rows, strict=True)
    return np.float32(boxes), np.float32(scores), np.array(labels)


@pytest.fixture
def words(monkeypatch):
    """Of every picture that is drawn after this: a list of (text, (left, bottom, right, top) in px, size of it)."""
    seen = []

    class Canvas(FigureCanvasAgg):
        def draw(self):
            super().draw()
            for text in self.figure.axes[0].texts:
                seen.append(
                    (text.get_text(), text.get_window_extent(self.get_renderer()).extents, self.get_width_height())
                )

    monkeypatch.setattr(drawing, "FigureCanvasAgg", Canvas)
    return seen


def assert_readable(words):
    for text, (left, bottom, right, top), (width, height) in words:
        assert left >= 0 and bottom >= 0 and right <= width and top <= height, text
    for (a, first, _), (b, second, _) in itertools.combinations(words, 2):
        apart = (first[:2] >= second[2:]).any() or (second[:2] >= first[2:]).any()
        assert apart, f"{a} lies on {b}"


# --- where boxes are ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "drawn_size"),
    [
        ((300, 400), (600, 800)),
        ((375, 500), (600, 800)),
        ((4000, 3000), (800, 600)),
        ((8, 8), (800, 800)),
        ((50, 400), (200, 1600)),  # a narrow one may be twice as long
        ((1, 400), (4, 1600)),
        ((100, 800), (200, 1600)),
        ((333, 500), (533, 800)),
    ],
)
def test_without_boxes_it_is_the_picture(size, drawn_size):
    got = drawn(gray(*size), CLASSES)
    assert got.shape == (*drawn_size, 3) and got.dtype == np.uint8 and (got == GRAY).all()


def test_the_picture_is_not_turned_or_mirrored():
    picture = gray(300, 400)
    picture[:150, :200], picture[150:, 200:] = [255, 0, 0], [0, 0, 255]
    got = drawn(picture, CLASSES)
    assert got[20, 20].tolist() == [255, 0, 0] and got[-20, -20].tolist() == [0, 0, 255]
    assert got[20, -20].tolist() == got[-20, 20].tolist() == [GRAY] * 3


def test_a_found_box_lies_around_its_pixels():
    """Columns 50 to 149 and rows 100 to 249 of 400 x 400 px: at twice the size from 100 to 300 and from 200 to 500."""
    got = drawn(gray(400, 400), CLASSES, found=boxes_of(((50, 100, 149, 249), 0.9, 2)))
    for place in ((350, 100), (350, 300), (200, 250), (500, 250)):
        np.testing.assert_allclose(got[place], color(2), atol=1)
    for place in ((350, 94), (350, 106), (350, 294), (350, 306), (494, 250), (506, 250)):
        assert (got[place] == GRAY).all()


def test_true_boxes_are_dashed_and_show_the_found_one_below():
    box = (50, 100, 149, 249)
    truth = [np.float32([box]), np.array([1]), np.array([False])]
    right = slice(250, 470), 300
    only = drawn(gray(400, 400), CLASSES, truth)[right]
    white, plain = (only > 240).all(axis=1).mean(), (only == GRAY).all(axis=1).mean()
    assert 0.4 < white < 0.8 and plain > 0.05  # three dashes to two gaps, which the rims make narrower
    both = drawn(gray(400, 400), CLASSES, truth, boxes_of((box, 0.9, 1)))[right]
    assert (both > 240).all(axis=1).mean() > 0.4 and (np.abs(both - color(1)) < 2).all(axis=1).mean() > 0.05
    truth[2] = np.array([True])
    assert (drawn(gray(400, 400), CLASSES, truth)[right] > 240).all(axis=1).mean() < white - 0.1  # dotted


@pytest.mark.parametrize("box", [(0, 0, 399, 299), (-90, -9, 999, 700)])
def test_a_box_as_large_as_the_picture_is_seen_on_all_sides(box):
    got = drawn(gray(300, 400), CLASSES, found=boxes_of((box, 0.9, 1)))
    for side in (got[:6, 400], got[-6:, 400], got[400, :6], got[400, -6:]):
        assert (np.abs(side - color(1)) < 2).all(axis=1).sum() >= 3


def test_boxes_that_are_nowhere_do_no_harm():
    strange = [(500, 500, 600, 600), (9, 9, 3, 3), (-9, -9, -3, -3), (5, 5, 5, 5)]
    got = drawn(gray(40, 40), CLASSES, found=boxes_of(*((box, 0.9, 1) for box in strange)))
    assert got.shape == (800, 800, 3)
    bad = boxes_of(((np.nan, 1, 2, 3), 0.9, 1), ((1, 2, np.inf, 3), 0.9, 1), ((5, 5, 9, 9), np.nan, 1))
    assert (drawn(gray(40, 40), CLASSES, found=bad) == GRAY).all()
    nothing = np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)
    assert (drawn(gray(40, 40), CLASSES, nothing, nothing) == GRAY).all()


# --- what the labels say --------------------------------------------------------------------------------------------


def test_labels_say_class_score_and_difficult(words):
    truth = np.float32([[10, 10, 90, 90], [200, 200, 290, 290]]), np.array([1, 3]), np.array([False, True])
    found = boxes_of(((20, 210, 99, 290), 0.497, 1), ((10, 200, 99, 290), 0.5, 2), ((200, 50, 290, 99), 0.987, 3))
    drawn(gray(300, 300), CLASSES, truth, found)
    assert sorted(text for text, *_ in words) == ["cat", "cow 0.50", "dog (difficult)", "dog 0.99"]
    words.clear()
    drawn(gray(300, 300), CLASSES, None, found, least_score=0.4)
    assert sorted(text for text, *_ in words) == ["cat 0.50", "cow 0.50", "dog 0.99"]


@pytest.mark.parametrize("size", [(300, 400), (500, 60), (60, 500), (20, 20)])
def test_labels_stay_inside_and_apart(words, size):
    rng = np.random.default_rng(0)
    corners = rng.uniform(-10, 1.1 * max(size), (2, 40, 2))
    boxes = np.concatenate([corners.min(axis=0), corners.max(axis=0)], axis=1)
    labels = rng.integers(1, 5, 40)
    truth = boxes[:15] + 3, labels[:15], rng.random(15) < 0.4
    drawn(gray(*size), CLASSES, truth, (boxes, rng.uniform(0.5, 1, 40), labels))
    assert len(words) > 5
    assert_readable(words)


def test_the_surest_detections_keep_their_labels_where_there_is_little_room(words):
    box = (10, 10, 14, 14)
    drawn(gray(300, 300), CLASSES, None, boxes_of(*((box, score, 1) for score in np.linspace(0.5, 0.99, 50))))
    assert words[0][0] == "cat 0.99" and 2 <= len(words) < 20
    assert_readable(words)


def test_names_that_are_too_long_lose_their_end_and_signs_are_no_commands(words):
    box = ((10, 10, 90, 90), 0.9, 1)
    drawn(gray(100, 100), (CLASSES[3] * 2,), None, boxes_of(box))
    drawn(gray(100, 100), (r"$\frac{$" + "\n",), None, boxes_of(box))
    assert words[0][0].startswith("a class whose name") and words[0][0].endswith("… 0.90")
    assert words[1][0] == "$\\frac{$\N{REPLACEMENT CHARACTER} 0.90"
    assert_readable(words[:1])


# --- sheets ---------------------------------------------------------------------------------------------------------


def test_a_sheet_holds_its_pictures_pixel_for_pixel(tmp_path):
    rng = np.random.default_rng(0)
    colors = rng.permutation(np.arange(40, 240, 25))  # far from the words' gray and each other
    sizes = [(600, 800), (800, 600), (533, 800), (600, 800), (200, 1600)]
    pictures = [
        np.full((*size, 3), [value, 255 - value, 7], np.uint8) for value, size in zip(colors, sizes, strict=False)
    ]
    save(str(tmp_path / "sheet.png"), pictures, ["000012", r"$\frac{$", "long " * 300, "", "last"], "What this is")
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image.convert("RGB"))
    boxes = []
    for picture in pictures:
        rows, columns = np.nonzero((sheet == picture[0, 0]).all(axis=2))
        assert len(rows) == picture.shape[0] * picture.shape[1]
        boxes.append((rows.min(), columns.min(), rows.max(), columns.max()))
        assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == picture.shape[:2]
    assert boxes == sorted(boxes) and len({top for top, *_ in boxes}) == 2  # in reading order: three, then two
    assert sheet.shape[1] < 2600 and (sheet[:, 0] == 255).all()
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    with pytest.raises(OSError, match="nowhere"):
        save(str(tmp_path / "nowhere" / "sheet.png"), pictures, [""] * 5, "")


def test_real_pictures_with_many_boxes_can_be_read(real_pictures, words):
    detection_set = open_set(str(real_pictures("VOCdevkit")), "2007_test")
    rng = np.random.default_rng(0)
    most = sorted(range(detection_set.size), key=lambda row: -len(detection_set.boxes(row)[1]))[:4]
    for row in most:
        boxes, labels, difficult = detection_set.boxes(row)
        with Image.open(detection_set.pictures[row].image) as image:
            picture = np.asarray(image.convert("RGB"))
        words.clear()
        found = boxes + rng.normal(0, 6, boxes.shape), rng.uniform(0.5, 1, len(boxes)), labels
        got = drawn(picture, detection_set.classes, (boxes, labels, difficult), found)
        assert max(got.shape) == 800
        assert_readable(words)
        assert len(words) > 1.2 * len(boxes)  # of two labels each
