"""If these fail, the slice that schedules look at is lopsided, moves between runs, or swallows a class."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data.splits import labelled_rows, validation_rows


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    fraction=st.floats(0.01, 0.9),
    seed=st.integers(-(2**63), 2**63 - 1),
    shuffle=st.randoms(use_true_random=False),
)
def test_each_class_gives_its_part_and_keeps_the_rest(sizes, fraction, seed, shuffle):
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    shuffle.shuffle(labels)
    labels = np.array(labels)
    rows = validation_rows(labels, fraction, seed)
    assert rows.dtype == np.int64 and np.array_equal(rows, np.unique(rows))
    for label, size in enumerate(sizes):
        taken = int((labels[rows] == label).sum())
        assert abs(taken - fraction * size) <= 1
        assert taken >= 1 or size == 1
        assert taken < size
    assert np.array_equal(rows, validation_rows(labels, fraction, seed))


def test_without_labels_it_is_a_plain_tenth():
    rows = validation_rows(np.full(1000, -1), 0.1, 0)
    assert len(rows) == 100 and abs(rows.mean() - 499.5) < 5 * 288.7 / np.sqrt(100)


def test_unlabelled_pictures_among_labelled_ones_are_left_out():
    labels = np.array([0] * 20 + [-1] * 20)
    assert validation_rows(labels, 0.5, 1).max() < 20


def test_seeds_differ_and_fraction_zero_takes_none():
    labels = np.zeros(1000, np.int64)
    a, b = validation_rows(labels, 0.1, 0), validation_rows(labels, 0.1, 1)
    assert len(np.intersect1d(a, b)) < 30
    assert len(validation_rows(labels, 0.0, 0)) == 0


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    fractions=st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)),
    seed=st.integers(0, 2**31),
)
def test_each_class_keeps_its_part_of_the_labels_and_a_smaller_part_lies_within_a_larger(sizes, fractions, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    fewer, more = (labelled_rows(labels, fraction, seed) for fraction in sorted(fractions))
    assert set(fewer) <= set(more) and np.array_equal(more, np.unique(more))
    for label, size in enumerate(sizes):
        taken = int((labels[more] == label).sum())
        assert taken >= 1 and abs(taken - max(fractions) * size) <= max(0.5, 1 - max(fractions) * size)


def test_all_labels_are_all_rows_but_those_that_are_unknown_or_set_aside():
    labels = np.array([0, 1, -1, 0, 1, 1])
    assert labelled_rows(labels, 1.0, 0).tolist() == [0, 1, 3, 4, 5]
    assert labelled_rows(labels, 1.0, 0, without=np.array([1, 3])).tolist() == [0, 4, 5]
    assert len(labelled_rows(np.full(9, -1), 1.0, 0)) == 0


def test_other_seeds_keep_other_labels():
    labels = np.zeros(1000, np.int64)
    assert len(np.intersect1d(labelled_rows(labels, 0.1, 0), labelled_rows(labels, 0.1, 1))) < 30
