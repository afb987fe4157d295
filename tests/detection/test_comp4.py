"""If these fail, the devkit and other programs read other boxes than were found, or we misread theirs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import UserError
from data.voc import VOC_CLASSES, open_set
from detection import comp4
from detection.voc_ap import Detections, average_precisions, truth_of

NAMES, CLASSES = ("000007", "my picture", "2008_000003"), ("cat", "cow", "dog")
GOOD = "000007 0.5 1 2 3 4\n"


def some_detections():
    boxes = np.array([[0, 0, 9, 19], [1.26, 2.04, 300.449, 299.96], [5, 6, 7, 8], [-0.5, 0, 3, 4]], np.float32)
    return Detections(np.array([2, 0, 1, 0]), boxes, np.float32([0.98765, 0.0004, 1, 0.25]), np.array([3, 1, 3, 3]))


def written(folder, texts, set_name="test"):
    for name, text in zip(CLASSES, texts, strict=True):
        (folder / f"comp4_det_{set_name}_{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(folder)


def assert_same(a, b):
    for left, right in zip(a, b, strict=True):
        np.testing.assert_array_equal(left, right)


def test_the_files_are_those_of_the_devkit(tmp_path):
    comp4.write(str(tmp_path / "results"), some_detections(), NAMES, CLASSES, "2007_test")
    assert {path.name: path.read_text() for path in (tmp_path / "results").iterdir()} == {
        "comp4_det_2007_test_cat.txt": "000007 0.000 2.3 3.0 301.4 301.0\n",
        "comp4_det_2007_test_cow.txt": "",
        "comp4_det_2007_test_dog.txt": (
            "2008_000003 0.988 1.0 1.0 10.0 20.0\nmy picture 1.000 6.0 7.0 8.0 9.0\n000007 0.250 0.5 1.0 4.0 5.0\n"
        ),
    }


def test_what_other_programs_wrote_is_read(tmp_path):
    texts = ["000007 .5 1 2 3.25 4\n\n  my picture\t9e-1  10 20 30 40", "", "000007 1 1 1 1 1\r\n"]
    assert_same(
        comp4.read(written(tmp_path, texts), NAMES, CLASSES, "test"),
        Detections([0, 1, 0], [[0, 1, 2.25, 3], [9, 19, 29, 39], [0, 0, 0, 0]], [0.5, 0.9, 1], [1, 1, 3]),
    )


def test_results_are_replaced_and_a_class_without_any_is_emptied(tmp_path):
    comp4.write(str(tmp_path), some_detections(), NAMES, CLASSES, "test")
    nothing = Detections(*(column[:0] for column in some_detections()))
    comp4.write(str(tmp_path), nothing, NAMES, CLASSES, "test")
    got = comp4.read(str(tmp_path), NAMES, CLASSES, "test")
    assert [column.shape for column in got] == [(0,), (0, 4), (0,), (0,)]
    assert [column.shape for column in comp4.rounded(nothing)] == [(0,), (0, 4), (0,), (0,)]
    assert len(list(tmp_path.iterdir())) == 3


@given(st.integers(0, 2**32 - 1), st.integers(0, 30), st.sampled_from([np.float32, np.float64]))
def test_rounding_leaves_what_a_round_trip_leaves(tmp_path_factory, seed, count, dtype):
    rng = np.random.default_rng(seed)
    detections = Detections(
        rng.integers(0, 3, count),
        (rng.integers(-20, 9000, (count, 4)) / 20).astype(dtype),  # halves of the last decimal among them
        (rng.integers(0, 2001, count) / 2000).astype(dtype),
        rng.integers(1, 4, count),
    )
    folder = str(tmp_path_factory.mktemp("results"))
    comp4.write(folder, detections, NAMES, CLASSES, "test")
    order = np.argsort(detections.labels, kind="stable")  # class by class, each in the order it had
    rounded = comp4.rounded(detections)
    assert_same(comp4.read(folder, NAMES, CLASSES, "test"), Detections(*(column[order] for column in rounded)))
    assert np.abs(rounded.scores - detections.scores).max(initial=0) < 0.0005001
    assert np.abs(rounded.boxes_xyxy - detections.boxes_xyxy).max(initial=0) < 0.05001


def test_equal_scores_of_rounding_keep_their_order():
    """0.9004 was above 0.9001 and is no longer: what came first stays first."""
    scores = comp4.rounded(some_detections()._replace(scores=np.array([0.9001, 0.9004, 0.9006, 0.8996]))).scores
    assert scores.tolist() == [0.9, 0.9, 0.901, 0.9]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (GOOD + "000007 0.5 1 2 3\n", 2, "is not an image id, a score and x1 y1 x2 y2: '000007 0.5 1 2 3'"),
        ("0.5 1 2 3 4\n", 1, "is not an image id, a score and x1 y1 x2 y2: '0.5 1 2 3 4'"),
        (GOOD + "\n000007 0.5 1 2 3 x\n", 3, "is not an image id, a score and x1 y1 x2 y2: '000007 0.5 1 2 3 x'"),
        ("000007 nan 1 2 3 4\n", 1, "is not an image id, a score and x1 y1 x2 y2: '000007 nan 1 2 3 4'"),
        ("000007 0.5 1 2 3 inf\n", 1, "is not an image id, a score and x1 y1 x2 y2: '000007 0.5 1 2 3 inf'"),
        (GOOD + "7 0.5 1 2 3 4\n", 2, "test has no image '7'; give the set that the files are of"),
        ("a" * 200, 1, f"is not an image id, a score and x1 y1 x2 y2: '{'a' * 60}...'"),
        (
            b"\xff\xfe\x00 0.5 1 2 3 4\n",
            1,
            "test has no image '\\udcff\\udcfe\\x00'; give the set that the files are of",
        ),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, text, line, reason):
    with pytest.raises(UserError) as error:
        comp4.read(written(tmp_path, [GOOD, text, ""]), NAMES, CLASSES, "test")
    assert str(error.value) == f"{tmp_path}/comp4_det_test_cow.txt:{line}: {reason}"


def test_a_class_without_a_file_is_named(tmp_path):
    written(tmp_path, [GOOD, "", ""], "val")
    with pytest.raises(UserError, match=r"comp4_det_test_cat.txt: is missing; each class needs its file"):
        comp4.read(str(tmp_path), NAMES, CLASSES, "test")
    written(tmp_path, [GOOD, "", ""])
    (tmp_path / "comp4_det_test_dog.txt").unlink()
    (tmp_path / "comp4_det_test_dog.txt").mkdir()
    with pytest.raises(UserError, match=r"comp4_det_test_dog.txt: cannot be read \(Is a directory\)"):
        comp4.read(str(tmp_path), NAMES, CLASSES, "test")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(UserError, match=r"results: cannot be written \(.+\); choose another folder"):
        comp4.write(str(tmp_path / "results"), some_detections(), NAMES, CLASSES, "test")


def test_real_boxes_come_back_as_they_are(real_pictures, tmp_path):
    detection_set = open_set(str(real_pictures("VOCdevkit")), "2007_test")
    truth = truth_of(detection_set)
    names = [picture.name for picture in detection_set.pictures]
    scores = np.random.default_rng(0).random(len(truth.image))
    detections = Detections(truth.image, truth.boxes_xyxy, scores, truth.labels)
    comp4.write(str(tmp_path), detections, names, VOC_CLASSES, "2007_test")
    got = comp4.read(str(tmp_path), names, VOC_CLASSES, "2007_test")
    order = np.argsort(truth.labels, kind="stable")
    np.testing.assert_array_equal(got.boxes_xyxy, truth.boxes_xyxy[order])  # whole px lose nothing
    np.testing.assert_array_equal(got.image, truth.image[order])
    assert (average_precisions(got, truth, 20) == 1).all()
