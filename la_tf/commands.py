"""Mains of this project, run to their end as processes of their own. No TensorFlow."""

import json
import os
import shlex
import signal
import subprocess
import sys

from data.errors import FlagError, UserError
from la_tf.child_processes import tied


def shown(main: str, *arguments: str) -> str:
    """Returns a command as it could be typed."""
    return f"python -m {main} {shlex.join(arguments)}"


def run(main: str, *arguments: str, log: str | os.PathLike | None = None, environment: dict | None = None) -> dict:
    """Runs `python -m main arguments`, after showing it; returns its result, the JSON of its last line.

    What it says on stderr is passed on, or added to the file `log`. `environment`: variables that it gets besides this
    process' own. Raises UserError where it fails, FlagError where its flags are wrong; it ends when this process does.
    """
    sys.stderr.write(f"$ {shown(main, *arguments)}\n")  # at once: others may write beside it
    sys.stderr.flush()
    with open(log or os.devnull, "ab") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", main, *arguments],
            stdout=subprocess.PIPE,
            stderr=said if log else None,
            text=True,
            env={**os.environ, **(environment or {})},
            preexec_fn=tied(signal.SIGTERM),
        )
        with process:
            lines = process.stdout.read().splitlines()
    if process.returncode == -signal.SIGINT or process.returncode == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if process.returncode:
        kind = FlagError if process.returncode == FlagError.exit_code else UserError
        raise kind(f"{main} {_end(process.returncode, log)}")
    return json.loads(lines[-1])


def _end(code, log):
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}; the same command goes on from there"
    return f"has failed; its own message is at the end of {log}" if log else "has failed; its own message stands above"
