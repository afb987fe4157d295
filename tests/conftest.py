"""What all tests share: real pictures where there are any."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as the mains do, before anything imports TensorFlow


@pytest.fixture
def real_pictures():
    """A function from the name of a picture set to its folder under LA_TF_DATA.

    Without that variable the test is skipped; with it, a set that is missing fails the test.
    """
    root = os.environ.get("LA_TF_DATA")
    if not root:
        pytest.skip("LA_TF_DATA is not set: it names the folder that holds cifar10/, imagenette224/, ...")

    def folder(name):
        path = Path(root) / name
        assert path.is_dir(), f"LA_TF_DATA={root} holds no {name}"
        return path

    return folder
