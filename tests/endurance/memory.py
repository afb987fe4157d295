"""Memory and open files of a process over the epochs of a run, read from /proc."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

MEGABYTE = 2**20


class Sample(NamedTuple):
    """What a process had at the end of an epoch."""

    epoch: int
    resident: float  # MiB
    files: int


def sample(pid, epoch):
    """Returns the Sample of this moment."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    resident = pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE
    return Sample(epoch, resident, len(os.listdir(f"/proc/{pid}/fd")))


def thirds(samples):
    """Returns the medians of MiB and of open files in the first third of the samples and in the last, two pairs."""
    size = len(samples) // 3
    first, last = np.median(samples[:size], axis=0), np.median(samples[-size:], axis=0)
    return (float(first[1]), float(first[2])), (float(last[1]), float(last[2]))
