"""Which successes and failures are shown, by hand."""

import numpy as np

from la_tf.retrieval import class_accuracies, same_class, successes_and_failures

VOTES = np.array([[9, 1], [6, 4], [8, 2], [2, 8], [4.5, 5.5], [1, 9], [0, 0], [9, 1]])
TRUTH = np.array([0, 0, 0, 1, 0, 0, 1, -1])  # right: 0, 1, 2, 3; wrong: 4 (unsure), 5 (sure); no votes; unlabelled


def test_successes_are_sure_and_failures_unsure():
    successes, failures = successes_and_failures(VOTES, TRUTH, 10)
    # Of class 0 by confidence 0, 2, 1; the second place goes to another class.
    assert successes.tolist() == [0, 3, 2, 1] and failures.tolist() == [4, 5]
    successes, failures = successes_and_failures(VOTES, TRUTH, 1)
    assert successes.tolist() == [0] and failures.tolist() == [4]


def test_of_what_has_no_label_nobody_knows_whether_it_is_of_the_class():
    pairs = np.array([(1, 1), (0, 1), (-1, 1), (1, -1), (-1, -1)])
    assert [same_class(*pair) for pair in pairs] == [True, False, None, None, None]


def test_accuracies_are_of_the_labelled_pictures_of_a_class():
    found = class_accuracies(np.pad(VOTES, ((0, 0), (0, 1))), TRUTH)
    np.testing.assert_array_equal(found, [3 / 5, 1 / 2, np.nan])  # a picture without a vote is wrong
