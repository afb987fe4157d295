"""How many processors there are to work with."""

import os


def cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on every system; fewer than `cpu_count` where a process is bound
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
