"""Intervals of means over seeds and test pictures: by hand, against resampling, and by how often they hold."""

import numpy as np
import pytest

from la_tf import intervals


def test_the_interval_of_seeds_by_hand():
    # Mean 4, sample variance 4, error 2 / sqrt(3); t(0.975, 2) = 4.302653.
    found = intervals.of_seeds([2, 4, 6])
    assert found.mean == 4
    assert found.error == pytest.approx(1.1547005)
    assert (found.low, found.high) == pytest.approx((4 - 4.302653 * 1.1547005, 4 + 4.302653 * 1.1547005), rel=1e-6)
    assert not found.decided
    assert intervals.of_seeds([4.0, 4.1, 3.9]).decided


def test_the_interval_of_seeds_and_pictures_by_hand():
    # Two seeds, three pictures. Means: 1/2 of all; 1/3 and 2/3 of the seeds; 1, 1/2, 0 of the pictures.
    # MS_seeds = 3 * 1/18 = 1/6. MS_pictures = 2 * 1/4 = 1/2.
    # What is left: [1/6, -1/3, 1/6], [-1/6, 1/3, -1/6]; squares sum to 1/3, over (2-1)(3-1) = 2: MS_rest = 1/6.
    # var = (1/6 + 1/2 - 1/6) / 6 = 1/12. df = (1/2)^2 / ((1/6)^2 / 1 + (1/2)^2 / 2 + (1/6)^2 / 2) = 1/4 / (1/6) = 1.5.
    found = intervals.of_seeds_and_pictures([[1, 0, 0], [1, 1, 0]])
    assert found.mean == pytest.approx(0.5)
    assert found.error == pytest.approx(np.sqrt(1 / 12))
    assert found.freedom == pytest.approx(1.5)


def test_seeds_that_agree_leave_the_pictures_chance():
    """Seeds that all say the same: the interval is that of the pictures alone."""
    one = np.random.default_rng(0).normal(size=50)
    found = intervals.of_seeds_and_pictures([one, one, one])
    assert found.error == pytest.approx(one.std(ddof=1) / np.sqrt(50))
    assert found.freedom == pytest.approx(49)


def test_pictures_that_agree_leave_the_seeds_chance():
    by_seed = np.array([0.1, 0.3, 0.2, 0.5])
    found = intervals.of_seeds_and_pictures(np.tile(by_seed[:, None], (1, 30)))
    alone = intervals.of_seeds(by_seed)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def drawn(rng, seeds=5, pictures=200, of_seed=0.03, of_picture=0.4, rest=0.5):
    """Scores of mean zero with an effect of each seed, of each picture, and of both together."""
    return (
        of_seed * rng.normal(size=(seeds, 1))
        + of_picture * rng.normal(size=(1, pictures))
        + rest * rng.normal(size=(seeds, pictures))
    )


@pytest.mark.parametrize("seeds", [4, 5, 10])
@pytest.mark.parametrize("of_seed, of_picture", [(0.0, 0.0), (0.03, 0.4), (0.2, 0.05), (0.0, 0.5)])
def test_nineteen_of_twenty_intervals_hold_the_truth(of_seed, of_picture, seeds):
    rng = np.random.default_rng(7)
    scores = (drawn(rng, seeds, of_seed=of_seed, of_picture=of_picture) for _ in range(2000))
    missed = np.mean([intervals.of_seeds_and_pictures(each).decided for each in scores])
    # Conservative where nothing but the rest varies; a deviation of the share over 2,000 draws is 0.005.
    assert missed < 0.065
    if of_seed or of_picture:
        assert missed > 0.03


@pytest.mark.parametrize("seeds, least, most", [(2, 0.08, 0.13), (4, 0.04, 0.075)])
def test_two_seeds_are_too_few_where_seeds_and_pictures_weigh_the_same(seeds, least, most):
    """Why a verdict takes four: the worst of the cases looked at; 0.05 is what an interval says of itself."""
    rng = np.random.default_rng(7)
    scores = (drawn(rng, seeds, of_seed=0.12, of_picture=0.4) for _ in range(4000))
    missed = np.mean([intervals.of_seeds_and_pictures(each).decided for each in scores])
    assert least < missed < most


def test_with_many_seeds_it_is_what_resampling_gives():
    """Both drawn with replacement (the rest counts thrice there, so it is made small)."""
    rng = np.random.default_rng(3)
    scores = drawn(rng, seeds=60, pictures=60, of_seed=0.4, of_picture=0.5, rest=0.2)
    means = [scores[rng.integers(60, size=60)][:, rng.integers(60, size=60)].mean() for _ in range(4000)]
    assert intervals.of_seeds_and_pictures(scores).error == pytest.approx(np.std(means), rel=0.06)


def test_equal_scores_have_an_interval_of_no_length():
    found = intervals.of_seeds_and_pictures(np.zeros((5, 10)))
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert not found.decided


def test_a_difference_of_the_detectable_size_is_decided_as_often_as_said():
    rng = np.random.default_rng(5)
    size = np.mean(
        [intervals.detectable(intervals.of_seeds_and_pictures(drawn(rng, of_seed=0.05))) for _ in range(200)]
    )
    decided = np.mean([intervals.of_seeds_and_pictures(size + drawn(rng, of_seed=0.05)).decided for _ in range(2000)])
    assert 0.74 < decided < 0.88


def test_how_probable_a_mean_is_by_chance():
    # Mean 4, error 1.1547: t = 3.4641 with two degrees of freedom, p = 1 - t / sqrt(2 + t^2).
    found = intervals.of_seeds([2, 4, 6])
    assert found.p_value == pytest.approx(1 - 3.4641016 / np.sqrt(2 + 12))
    assert intervals.of_seeds([-2, -4, -6]).p_value == pytest.approx(found.p_value)
    assert (intervals.of_seeds([0, 0]).p_value, intervals.of_seeds([1, 1]).p_value) == (1, 0)


def test_what_stands_as_one_of_all():
    # Bounds 0.05 / 4, / 3, / 2, / 1 for the smallest to the largest; what comes behind one that fails fails, too.
    assert intervals.holm([0.012, 0.2, 0.016, 0.03]).tolist() == [True, False, True, False]
    assert intervals.holm([0.013, 0.0, 0.001, 0.014]).tolist() == [True, True, True, True]
    assert intervals.holm([0.02, 0.013, 0.03]).tolist() == [True, True, True]
    assert intervals.holm([0.02, 0.02, 0.03]).tolist() == [False, False, False]
    assert intervals.holm([]).tolist() == []


def test_one_seed_has_no_interval():
    with pytest.raises(ValueError):
        intervals.of_seeds([1.0])
    with pytest.raises(ValueError):
        intervals.of_seeds_and_pictures([[1.0, 2.0]])
