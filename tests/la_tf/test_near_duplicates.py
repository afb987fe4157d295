"""Near-duplicates by their pixels: against float64 NumPy, on photographs that were changed, and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images

from la_tf import near_duplicates

PAIR = np.array([[0, 1]])


def by_hand(first, second):
    """The larger of both correlations, of one pair, in float64."""
    found = []
    for other in (second, second[:, ::-1]):
        patterns = []
        for picture in (first.astype(np.float64), other.astype(np.float64)):
            pattern = picture.copy()
            for channel in range(3):
                plane = picture[:, :, channel]
                for y in range(16):
                    for x in range(16):
                        pattern[y, x, channel] += plane.mean() - plane[y].mean() - plane[:, x].mean()
            patterns.append(pattern.ravel())
        a, b = patterns
        found.append(a @ b / np.sqrt((a @ a) * (b @ b)))
    return max(found)


@given(st.integers(0, 2**31))
def test_likeness_is_the_correlation_of_patterns(seed):
    rng = np.random.default_rng(seed)
    common = rng.integers(0, 200, (16, 16, 3))
    small = np.stack([common + rng.integers(0, 56, common.shape) for _ in range(2)]).astype(np.uint8)
    if rng.random() < 0.5:
        small[1] = small[1, :, ::-1]
    wanted = by_hand(*small)
    assert near_duplicates.likeness(small, PAIR)[0] == pytest.approx(wanted, abs=1e-5)
    assert near_duplicates.likeness(small, PAIR[:, ::-1])[0] == pytest.approx(wanted, abs=1e-5)


def made_small(picture):
    return np.asarray(picture.resize((16, 16), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("number", [0, 1])
def test_photographs_that_were_changed_are_alike_and_others_are_not(number):
    photograph = Image.fromarray(load_sample_images().images[number])
    other = Image.fromarray(load_sample_images().images[1 - number])
    width, height = photograph.size
    changed = [
        photograph.resize((width // 3, height // 3)),
        ImageOps.mirror(photograph),
        ImageEnhance.Brightness(photograph).enhance(1.2),
        photograph.crop((10, 8, width - 10, height - 8)),
    ]
    small = np.stack([made_small(each) for each in (photograph, *changed, other)])
    found = near_duplicates.likeness(small, np.array([[0, row] for row in range(1, len(small))]))
    assert (found[:-1] > 0.95).all() and found[-1] < 0.5


def test_pictures_that_are_bright_above_and_dark_below_are_not_alike_for_that():
    sky = np.linspace(250, 20, 16)[:, None, None] * np.ones((16, 16, 3))
    noise = np.random.default_rng(0).normal(scale=12, size=(2, 16, 16, 3))
    small = np.clip(sky + noise, 0, 255).astype(np.uint8)
    assert np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] > 0.95
    assert near_duplicates.likeness(small, PAIR)[0] < 0.3


def test_pictures_of_one_colour():
    small = np.stack([np.full((16, 16, 3), level, np.uint8) for level in (100, 102, 110)])
    pairs = np.array([[0, 1], [0, 2]])
    np.testing.assert_array_equal(near_duplicates.likeness(small, pairs), [1, 0])
    assert near_duplicates.likeness(small, np.empty((0, 2), int)).shape == (0,)


def test_pairs_come_once():
    nearest = np.array([[1, 2], [0, 2], [3, 0], [2, 1]])
    np.testing.assert_array_equal(near_duplicates.pairs_of(nearest), [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]])


def test_groups_are_what_pairs_join():
    pairs = np.array([[5, 6], [0, 3], [3, 8], [1, 2]])
    groups = near_duplicates.groups_of(10, pairs)
    assert [group.tolist() for group in groups] == [[0, 3, 8], [1, 2], [5, 6]]
    assert near_duplicates.groups_of(4, np.empty((0, 2), int)) == []
