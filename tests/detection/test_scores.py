"""The table of scores: every metric of every class, in percent."""

import numpy as np

from data.voc import open_set
from detection.coco_ap import coco_numbers
from detection.scores import table, voc_scores
from detection.voc_ap import Detections, truth_of
from tests.data.voc_folders import write_devkit


def test_scores_of_a_set_of_two_classes(tmp_path):
    """The cat is found; of two dogs one, at an IoU of 0.6: 30 x 50 of 50 x 50 px. A difficult horse counts nowhere."""
    objects = [("cat", (1, 1, 20, 20)), ("dog", (1, 1, 50, 50)), ("horse", (5, 5, 30, 30), True)]
    write_devkit(tmp_path, {"train": {"one": objects, "two": [("dog", (1, 1, 30, 30))]}})
    pictures = open_set(str(tmp_path), "train")
    found = Detections(
        np.array([0, 0]), np.array([[0, 0, 19, 19], [0, 0, 29, 49]], float), np.array([0.9, 0.8]), np.array([8, 12])
    )
    truth = truth_of(pictures)
    scores = voc_scores(found, truth, pictures.classes)
    assert scores["voc07_ap50"] == {"cat": 1.0, "dog": 6 / 11}  # precision 1 up to a recall of a half
    assert scores["area_ap50"] == {"cat": 1.0, "dog": 0.5}
    assert scores["voc07_ap75"] == {"cat": 1.0, "dog": 0.0}
    np.testing.assert_allclose(
        scores["mean"]["area_ap"], (1 + 0.5 * 2 / 10) / 2
    )  # above 0.5 and 0.55; 0.6 is not above
    text = table(scores, coco_numbers(found, truth, 20), pictures)
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["dog"][:4] == ["2", "0", "54.5", "50.0"]
    assert rows["horse"][:4] == ["0", "1", "-", "-"]
    assert rows["mean"][:4] == ["3", "1", "77.3", "75.0"]
