"""Errors of TensorFlow that are told in a line: full disks, full memories; all others stay what they are."""

import pytest
import tensorflow as tf

from data import tf_errors
from tests.disks import small_disk


def test_a_full_disk_is_named(tmp_path):
    with small_disk(tmp_path, "100k") as disk, pytest.raises(tf.errors.OpError) as full:
        for number in range(3):  # proves that the write fails
            tf.io.write_file(str(disk / f"{number}.bin"), b"x" * 60_000)
    assert str(tf_errors.told(full.value)).startswith(f"{disk}/1.bin: No space left on device; make room")


def test_a_tensor_that_fits_into_no_memory_is_told_by_its_shape():
    with pytest.raises(tf.errors.ResourceExhaustedError) as exhausted:
        tf.zeros([1 << 20, 1 << 20]) + tf.random.uniform([1 << 20, 1 << 20])
    told = str(tf_errors.told(exhausted.value))
    assert "out of memory" in told and "[1048576,1048576]" in told and "--batch_size" in told


def test_other_errors_stay_what_they_are():
    assert tf_errors.told(ValueError("x")) is None
    with pytest.raises(tf.errors.InvalidArgumentError) as wrong:
        tf.reshape(tf.zeros([3]), [2])
    assert tf_errors.told(wrong.value) is None
