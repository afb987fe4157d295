"""Opens the `.npz` files that this project writes, so that no file takes more memory than its own size.

NumPy takes as much memory as an array says it needs before it reads the first byte, and unpacks what is packed to
whatever it becomes. Ours are not packed: what their heads say can be compared with what is there.
"""

import math
import os
import zipfile

import numpy as np


def open_npz(path):
    """Returns the arrays of a file by name, read as they are asked for (never a pickle), as `np.load` does.

    Raises OSError, and ValueError saying what is wrong with a file that is damaged or claims too much.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                _check(archive, member, os.path.getsize(path))
        return np.load(path, allow_pickle=False)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:  # the last two: ways to pack
        raise ValueError(str(error)) from None


def _check(archive, member, size):
    """Raises ValueError for an array that is packed, or is not as long as its head says."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size > size:
        raise ValueError(f"{member.filename} is packed, which no file of la_tf is")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{member.filename} is an array of format {version}, which is not read")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if math.prod(shape) * dtype.itemsize + file.tell() != member.file_size:
            raise ValueError(f"{member.filename} is said to be {dtype} {list(shape)}, and is of another size")
