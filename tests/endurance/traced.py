"""Runs a main as `python -m` does; at SIGUSR1 it writes where each of its threads is.

    python -m tests.endurance.traced STACKS la_tf.train --dataset=digits ...

What the main does is the same. C code alone writes the stacks, so it does so in the middle of a k-means too.
"""

import faulthandler
import runpy
import signal
import sys

if __name__ == "__main__":
    stacks, main, *flags = sys.argv[1:]
    file = open(stacks, "w")  # noqa: SIM115  while the process lives
    faulthandler.register(signal.SIGUSR1, file=file, all_threads=True)
    print("ready", file=file, flush=True)
    sys.argv = [main, *flags]
    runpy.run_module(main, run_name="__main__", alter_sys=True)
