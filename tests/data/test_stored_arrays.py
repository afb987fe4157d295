"""If these fail, a small file claims or becomes what fills the memory, or what was written is not read again."""

import io
import struct
import tempfile
import zipfile

import hypothesis.extra.numpy as arrays_of
import numpy as np
import pytest
from hypothesis import given

from data.stored_arrays import open_npz


def written(path, compression=zipfile.ZIP_STORED, **members):
    """A zip archive of these bytes by name."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(array, shape=None, dtype=None):
    """An array's file; with `shape` or `dtype` its head says something else."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": dtype or array.dtype.str, "fortran_order": False, "shape": shape or array.shape}
    )
    return file.getvalue() + array.tobytes()


KINDS = arrays_of.integer_dtypes() | arrays_of.floating_dtypes() | arrays_of.byte_string_dtypes(max_len=4)


@given(arrays_of.arrays(KINDS, arrays_of.array_shapes(min_dims=0, min_side=0)))
def test_what_savez_writes_is_read(array):
    file = io.BytesIO()
    np.savez(file, first=array, other=np.arange(3))
    wanted = {"first": array, "other": np.arange(3)}
    with tempfile.NamedTemporaryFile(suffix=".npz") as kept:
        kept.write(file.getvalue())
        kept.flush()
        with open_npz(kept.name) as found:
            assert found.files == ["first", "other"]
            for name, value in wanted.items():
                assert found[name].dtype == value.dtype and found[name].shape == value.shape
                np.testing.assert_array_equal(found[name], value)


def test_an_array_that_claims_terabytes_is_refused(tmp_path):
    small = np.zeros(10, np.float32)
    for content in (npy(small, (2**40,)), npy(small, (2**62, 2**62)), npy(small, (11,)), npy(small, (9,))):
        with pytest.raises(ValueError, match=r"^x\.npy is said to be float32 \[\d.*of another size$"):
            open_npz(written(tmp_path / "a.npz", x=content))
    assert open_npz(written(tmp_path / "a.npz", x=npy(small)))["x"].shape == (10,)


def test_a_packed_array_is_refused(tmp_path):
    path = written(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, x=npy(np.zeros(10_000_000, np.uint8)))
    assert path.stat().st_size < 20_000
    with pytest.raises(ValueError, match="packed"):
        open_npz(path)


def test_a_pickle_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], object))
    with pytest.raises(ValueError):
        open_npz(tmp_path / "a.npz")["x"]


def test_what_is_no_archive_of_arrays_is_said(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="zip file"):
        open_npz(tmp_path / "a.npz")
    with pytest.raises(ValueError):
        open_npz(written(tmp_path / "b.npz", x=b"no array"))
    with pytest.raises(ValueError, match="zip file"):
        whole = written(tmp_path / "c.npz", x=npy(np.zeros(3))).read_bytes()
        (tmp_path / "c.npz").write_bytes(whole[:-30])
        open_npz(tmp_path / "c.npz")
    with pytest.raises(FileNotFoundError):
        open_npz(tmp_path / "none.npz")
    directory = whole.index(b"PK\1\2")
    longer = bytearray(whole)
    longer[directory + 24 : directory + 28] = struct.pack("<I", 2**31)  # its size when unpacked
    (tmp_path / "d.npz").write_bytes(longer)
    with pytest.raises(ValueError):
        open_npz(tmp_path / "d.npz")
