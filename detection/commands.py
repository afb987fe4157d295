"""Other mains of this project, run to their end one at a time, each in a process of its own. No TensorFlow."""

import json
import shlex
import signal
import subprocess
import sys

from data.errors import FlagError, UserError
from la_tf.child_processes import tied


def run(main: str, *arguments: str) -> dict:
    """Runs `python -m main arguments`, after showing it; returns its result, the JSON of its last line.

    What it says on stderr is passed on. Raises UserError where it fails, FlagError where its flags are wrong; it ends
    when this process does.
    """
    print(f"$ python -m {main} {shlex.join(arguments)}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", main, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=tied(signal.SIGTERM)) as process:
        lines = process.stdout.read().splitlines()
    if process.returncode == -signal.SIGINT or process.returncode == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if process.returncode:
        kind = FlagError if process.returncode == FlagError.exit_code else UserError
        raise kind(f"{main} {_end(process.returncode)}")
    return json.loads(lines[-1])


def _end(code):
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}; the same command goes on from there"
    return "has failed; its own message stands above"
