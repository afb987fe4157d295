"""What happens to a run besides kills: a checkpoint that is damaged, a disk that is full."""

import contextlib
import os
import shutil

from la_tf import checkpoints

DAMAGES = ("flipped bit", "cut file", "removed file")


def damage(checkpoint, kind, rng):
    """Damages a random file of a checkpoint folder; returns its name."""
    path = checkpoint / rng.choice(sorted(file.name for file in checkpoint.iterdir() if file.is_file()))
    content = bytearray(path.read_bytes())
    where = int(rng.integers(len(content)))
    if kind == "removed file":
        path.unlink()
    elif kind == "cut file":
        path.write_bytes(content[:where])
    else:
        content[where] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
    return path.name


def whole_steps(model_dir):
    """Returns the steps of the checkpoints that are whole, in order."""
    found = ((step, checkpoints.path_of(model_dir, step)) for step in checkpoints.steps(model_dir))
    return [step for step, path in found if checkpoints.problem(path) is None]


@contextlib.contextmanager
def full(disk):
    """Leaves no room on a disk while the block runs."""
    filler = disk / "filler"
    try:
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(max(shutil.disk_usage(disk).free, os.sysconf("SC_PAGE_SIZE"))))
        yield
    finally:
        filler.unlink(missing_ok=True)
