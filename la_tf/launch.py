"""Trains with several processes of this machine: python -m la_tf.launch --workers=2 -- --flagfile=quickstart.flags

Starts --workers copies of `python -m la_tf.train --strategy=multiworker FLAGS` with the flags behind `--`, and tells
each by TF_CONFIG where the others are. They divide the cores, and the GPUs (those of CUDA_VISIBLE_DEVICES, where it is
set). What worker 0 prints is printed as it is; of the others only stderr, each line behind its worker. When one fails
or is killed, the others are stopped, and the same command resumes; Ctrl-C and SIGTERM are passed on. On Linux no worker
outlives this process, even if that is killed by -9.

The workers talk by TensorFlow's own servers, which listen at all addresses of this machine, one port a worker, and ask
nobody who he is: let no stranger reach these ports (a firewall, a private network).
"""

import functools
import importlib.util
import sys

from absl import flags

from data import cli
from data.errors import FlagError
from la_tf import local_workers

MOST = 256  # processes of one machine

flags.DEFINE_integer("workers", 2, "How many processes.")
flags.DEFINE_string("main", "la_tf.train", "What each of them runs: a module that knows --strategy=multiworker.")


def main(theirs):
    """Runs the workers with the flags `theirs` (None: there was no `--`); ends with the exit code of their fate."""
    if theirs is None:
        raise FlagError("--: write the workers' flags behind it, e.g. --workers=2 -- --flagfile=quickstart.flags")
    count, module = flags.FLAGS.workers, flags.FLAGS.main
    if not 1 <= count <= MOST:
        raise FlagError(f"--workers={count}: must be 1 to {MOST}")
    if not _is_there(module):
        raise FlagError(f"--main={module}: there is no such module; it is started as python -m {module}")
    # First, so that the flags or their file have the last word.
    command = [sys.executable, "-m", module, "--strategy=multiworker", *theirs]
    sys.exit(local_workers.run(command, count))


def _is_there(module):
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


if __name__ == "__main__":
    sys.argv, behind = local_workers.split(sys.argv)
    cli.run(functools.partial(main, behind))
