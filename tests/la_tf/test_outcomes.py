"""Outcomes as text, by hand and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from la_tf.outcomes import packed, unpacked


def test_ten_pictures_by_hand():
    # 1010 0001 | 01 and six zeros: a, 1, 4, 0.
    assert packed([1, 0, 1, 0, 0, 0, 0, 1, 0, 1]) == "a140"
    assert unpacked("a140", 10).tolist() == [True, False, True, False, False, False, False, True, False, True]


@given(st.lists(st.booleans()))
def test_what_is_packed_comes_back(right):
    assert unpacked(packed(np.array(right, bool)), len(right)).tolist() == right


def test_another_count_is_refused():
    with pytest.raises(ValueError, match="8 outcomes for 10 pictures"):
        unpacked("a1", 10)
    with pytest.raises(ValueError):
        unpacked("xy", 8)
