"""Processes that do not outlive the one that started them. No TensorFlow."""

import ctypes
import functools
import os
import sys

PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


def tied(number):
    """Returns a `preexec_fn` by which a child gets the signal `number` when this process ends, however that happens.

    None where there is no such thing, which is everywhere but on Linux.
    """
    if sys.platform != "linux":
        return None
    # Loaded here: between fork and exec nothing may be.
    return functools.partial(_die_with, os.getpid(), number, ctypes.CDLL(None).prctl)


def _die_with(parent, number, prctl):
    """In the new process."""
    prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)
