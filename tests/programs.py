"""Runs the mains as a user does: a process each."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def command(main, *flags):
    """Returns the command line of `python -m main flags`."""
    return [sys.executable, "-m", main, *map(str, flags)]


def environment():
    """Returns the environment of a user who has no GPU and does not want to hear about it."""
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}


def run(main, *flags, cwd=ROOT, timeout=900):
    """Runs a main to its end; returns the CompletedProcess with stdout and stderr as text."""
    return subprocess.run(
        command(main, *flags), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout
    )
