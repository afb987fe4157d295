"""If this fails, methods on folders or records forget something when they are interrupted within an epoch."""

import json

import pytest

from tests.programs import run


@pytest.mark.slow
def test_methods_that_are_left_within_an_epoch_come_to_the_very_same_end():
    """Those that no other test resumes on data that is read; `python -m tests.kills --matrix` looks at them all."""
    process = run("tests.kills", "--matrix", "dc tfrecord", "swav folder")
    assert process.returncode == 0, process.stdout + process.stderr
    assert json.loads(process.stdout.splitlines()[-1])["equal"] == 2
