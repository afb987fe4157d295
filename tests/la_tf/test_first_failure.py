"""The first step whose loss was no number, and its pictures."""

import numpy as np
import tensorflow as tf

from la_tf.first_failure import NAMED, FirstFailure
from la_tf.replicas import Replicas
from tests.la_tf.together import Replica, together

NAN, INF = np.nan, np.inf


def note(failure, losses, indices, counted, step):
    failure.note(tf.constant(losses), tf.constant(indices, tf.int64), tf.constant(counted), tf.constant(step))


def test_the_first_one_is_kept_with_the_pictures_that_count():
    failure = FirstFailure(Replicas())
    note(failure, [1.0, 2.0], [7, 8], [True, True], 0)
    note(failure, [1.0, NAN], [7, 8], [True, False], 1)
    assert failure.read() is None
    note(failure, [NAN, 1.0, -INF, NAN], [3, 4, 5, 6], [True, True, True, False], 2)
    note(failure, [NAN, NAN, NAN, NAN], [9, 10, 11, 12], [True] * 4, 3)
    assert failure.read() == (3, [3, 5])
    failure.forget()
    assert failure.read() is None
    note(failure, [NAN] * 9, range(9), [True] * 9, 7)
    assert failure.read() == (8, [*range(NAMED)])


def test_a_picture_of_another_replica_is_told_to_all():
    def work(process):
        failure = FirstFailure(Replica(process))
        losses = [1.0, NAN] if process.index else [1.0, 2.0]
        note(failure, losses, [2 * process.index, 2 * process.index + 1], [True, True], 4)
        return failure.read()

    assert together(2, work) == [(5, [3])] * 2
