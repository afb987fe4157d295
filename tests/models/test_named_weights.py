"""What is said of arrays that do not fit a network."""

import pytest

from models.named_weights import check_names_and_shapes

WANTED = {"a/kernel": (3, 3, 1, 2), "a/bias": (2,), "b/kernel": (2, 5)}


def test_names_and_shapes_that_fit_pass_in_any_order():
    check_names_and_shapes("x.h5", "a net", {"b/kernel": [2, 5], "a/kernel": (3, 3, 1, 2), "a/bias": (2,)}, WANTED)


def test_everything_that_does_not_fit_is_listed_in_one_line():
    found = {"a/kernel": (3, 3, 3, 2), "z": (), "head/kernel": (5, 7), "b/kernel": (2, 5)}
    with pytest.raises(ValueError) as caught:
        check_names_and_shapes("x.h5", "a net", found, WANTED)
    assert str(caught.value) == (
        "x.h5: does not fit a net; missing there: a/bias; unknown here: head/kernel, z; "
        "of another shape: a/kernel (3, 3, 3, 2) there, (3, 3, 1, 2) here"
    )


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({name: shape for name, shape in WANTED.items() if name != "b/kernel"}, "missing there: b/kernel"),
        ({**WANTED, "c": (1,)}, "unknown here: c"),
        ({**WANTED, "a/bias": (3,)}, "of another shape: a/bias (3,) there, (2,) here"),
    ],
)
def test_one_difference_is_enough(found, problem):
    with pytest.raises(ValueError) as caught:
        check_names_and_shapes("x.h5", "a net", found, WANTED)
    assert str(caught.value) == f"x.h5: does not fit a net; {problem}"


@pytest.mark.parametrize(("found", "has"), [({f"n{i}": (1,) for i in range(9)}, "n0, n1, n2 ..."), ({}, "nothing")])
def test_of_another_network_a_few_names_are_enough(found, has):
    with pytest.raises(ValueError) as caught:
        check_names_and_shapes("x.h5", "a net", found, WANTED)
    assert str(caught.value) == (
        f"x.h5: does not hold a net; it has {has}, expected are a/kernel, a/bias, b/kernel ..."
    )
