"""Disks that are full and disks that must not be written to: mounted for real, since root may write anywhere."""

import contextlib
import os
import subprocess

import pytest


def _mount(*arguments):
    if os.geteuid():
        pytest.skip("only root can mount a small disk")
    subprocess.run(["mount", *map(str, arguments)], check=True)


@contextlib.contextmanager
def small_disk(folder, size):
    """Yields a new folder in `folder` on a disk of its own; `resized` changes how large it is."""
    disk = folder / "disk"
    disk.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def resized(disk, size):
    """Gives a small disk another size."""
    _mount("-o", f"remount,size={size}", disk)


@contextlib.contextmanager
def read_only(folder):
    """Nothing can be written to the folder while the block runs."""
    _mount("--bind", folder, folder)
    try:
        _mount("-o", "remount,ro,bind", folder)
        with pytest.raises(OSError, match="Read-only"):
            (folder / "probe").write_text("x")
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
