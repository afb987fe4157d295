"""WORKSPACE.md's example of a new method, taken from its text and run as a user would run it."""

import json
import re
import subprocess
import sys
import textwrap

import pytest

from tests.la_tf.test_train import TINY
from tests.programs import ROOT, environment

STARTER = """
import runpy, sys
sys.path.insert(0, {folder!r})
import la_tf
la_tf.__path__.append({folder!r} + "/la_tf")  # where the new file lies
import la_tf.config
la_tf.config.METHODS.update({{{line}}})
sys.argv[0] = "la_tf.train"
runpy.run_module("la_tf.train", run_name="__main__")
"""


@pytest.mark.slow
def test_the_example_trains_resumes_and_exports(tmp_path):
    blocks = [
        textwrap.dedent(text) for text in re.findall(r"```python\n(.*?)```", (ROOT / "WORKSPACE.md").read_text(), re.S)
    ]
    (file,) = [block for block in blocks if block.startswith("# la_tf/")]
    (line,) = [block.splitlines()[1] for block in blocks if block.startswith("# one line in METHODS")]
    path = tmp_path / file.splitlines()[0].removeprefix("# ")
    path.parent.mkdir()
    path.write_text(file)
    program = tmp_path / "start.py"
    program.write_text(STARTER.format(folder=str(tmp_path), line=line))

    def start(*flags):
        flags = ["--dataset=digits", f"--model_dir={tmp_path}/run", "--method=triplet", *TINY, *flags]
        return subprocess.run(
            [sys.executable, program, *flags], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600
        )

    first = start("--epochs=1")
    assert first.returncode == 0, first.stderr
    again = start("--epochs=2")
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout.splitlines()[-1])
    assert result["finished"] and result["step"] == 2 * (1437 // 64) and result["knn_top1"] > 0.15
    assert (tmp_path / "run" / "export" / "final").is_dir()
