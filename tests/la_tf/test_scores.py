"""Scores of votes, by hand."""

import numpy as np
import pytest

from la_tf.scores import Scores, decide

VOTES = np.array(
    [
        [3.0, 1.0, 0.0],  # 0, sure by 3/4
        [0.0, 2.0, 2.0],  # 1, a tie: 1/2
        [1.0, 1.0, 2.0],  # 2, 1/2
        [0.0, 0.0, 5.0],  # 2, 1
        [4.0, 1.0, 0.0],  # 0, 4/5
    ]
)
TRUTH = np.array([0, 2, 2, 2, -1])


def test_the_winner_has_the_most_votes_and_its_share_is_the_confidence():
    predicted, confidence = decide(VOTES)
    assert predicted.tolist() == [0, 1, 2, 2, 0]
    assert confidence.tolist() == [0.75, 0.5, 0.5, 1.0, 0.8]


def test_a_query_without_votes_has_no_class_and_is_wrong_even_where_class_0_is_meant():
    votes = np.array([[0.0, 0.0], [np.nan, np.nan], [1.0, 0.0]])
    predicted, confidence = decide(votes)
    assert predicted.tolist() == [-1, -1, 0] and confidence.tolist() == [0, 0, 1]
    scores = Scores(2)
    scores.add(votes, np.array([0, 0, 0]))
    assert (scores.top1, scores.top5, scores.unheard, scores.judged) == (1 / 3, 1 / 3, 2, 3)


def by_hand(scores):
    assert (scores.judged, scores.unlabelled) == (4, 1)
    assert scores.top1 == 3 / 4 and scores.top5 == 1.0
    np.testing.assert_array_equal(scores.class_count, [1, 0, 3])
    np.testing.assert_array_equal(scores.class_accuracy, [1, np.nan, 2 / 3])
    assert scores.class_mean == pytest.approx((1 + 2 / 3) / 2)  # class 1 has no pictures
    assert scores.confidence == pytest.approx((0.75 + 0.5 + 0.5 + 1) / 4)
    assert scores.confidence_right == pytest.approx((0.75 + 0.5 + 1) / 3)
    assert scores.confidence_wrong == pytest.approx(0.5)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_scores_are_the_same_whatever_the_batches(size):
    scores = Scores(3)
    for start in range(0, 5, size):
        scores.add(VOTES[start : start + size], TRUTH[start : start + size])
    by_hand(scores)


def test_top5_is_the_place_among_the_votes_with_ties_to_the_lowest_class():
    votes = np.array([[9.0, 8, 7, 6, 5, 4, 3], [0, 0, 0, 0, 0, 0, 1.0], [2, 2, 2, 2, 2, 2, 2]])
    for truth, five in (
        ([4, 6, 4], 3),
        ([5, 3, 5], 0),  # sixth; a class without a vote has no place; sixth of equals
        ([6, 4, 6], 0),
    ):
        scores = Scores(7)
        scores.add(votes, np.array(truth))
        assert scores.top5 == five / 3


def test_of_nothing_there_is_no_mean():
    scores = Scores(3)
    scores.add(VOTES[:0], TRUTH[:0])
    scores.add(VOTES, np.full(5, -1))
    for name in ("top1", "top5", "class_mean", "confidence", "confidence_right", "confidence_wrong"):
        assert getattr(scores, name) is None
    assert (scores.judged, scores.unlabelled) == (0, 5) and scores.results("abc")["per_class"] == {}
    scores.add(VOTES[:1], TRUTH[:1])
    assert (scores.confidence_right, scores.confidence_wrong) == (0.75, None)


def test_results_name_the_classes_that_have_pictures():
    scores = Scores(3)
    scores.add(VOTES, TRUTH)
    found = scores.results(["cat", "dog", "owl"])
    assert found["per_class"] == {"cat": {"top1": 1.0, "images": 1}, "owl": {"top1": pytest.approx(2 / 3), "images": 3}}
    assert (found["top1"], found["judged"], found["unlabelled"], found["unreadable"]) == (3 / 4, 4, 1, 0)


def test_a_label_beyond_the_classes_is_refused():
    with pytest.raises(ValueError, match="label 3, but there are 3 classes"):
        Scores(3).add(VOTES[:1], np.array([3]))
