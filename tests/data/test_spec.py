"""If these fail, a spec is taken apart wrongly, or a wrong one ends in a traceback."""

import pytest

from data.errors import FlagError
from data.spec import parse_spec


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("digits", ("digits", "")),
        ("folder:/pictures", ("folder", "/pictures")),
        ("tfds:cifar10:3.0.2", ("tfds", "cifar10:3.0.2")),
    ],
)
def test_form_and_rest(spec, parts):
    assert parse_spec(spec) == parts


@pytest.mark.parametrize("spec", ["", "digits:", "digits:x", "folder", "folder:", "pictures:/a", "folder:/a\0b", "\0"])
def test_what_is_no_spec_is_refused(spec):
    with pytest.raises(FlagError, match=r"^--dataset="):
        parse_spec(spec)
