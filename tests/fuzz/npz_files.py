"""Archives of arrays (.npz) with right zip checksums, and array files (.npy), whose headers and contents lie."""

import io
import struct
import zipfile

import numpy as np

from tests.fuzz import octets

SHAPES = (
    "()",
    "(0,)",
    "(1,)",
    "(5,)",
    "(3, 4)",
    "(-1,)",
    "(2**62,)",
    "(4294967296,)",
    "(99999999999999999999,)",
    "(1.5,)",
)
DESCRS = (
    "'<f4'",
    "'|u1'",
    "'<i8'",
    "'|O'",
    "'<U9'",
    "'|S0'",
    "'<f8'",
    "'|V4'",
    "'zz'",
    "[('a', '<i4')]",
    "'<M8[s]'",
    "1",
)


def array_file(array: np.ndarray) -> bytes:
    """The bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def changed_array(data: bytes, numbers) -> bytes:
    """A .npy file whose header tells of another type, shape or version, or whose contents are changed or cut off."""
    start = 10 + struct.unpack("<H", data[8:10])[0]
    header, body = data[10:start], data[start:]
    kind = numbers.randrange(7)
    if kind == 0:
        header = _described(numbers.choice(DESCRS), "False", numbers.choice(SHAPES))
    elif kind == 1:
        shape = header.split(b"'shape': ")[1].split(b"), ")[0] + b")"
        header = _described(numbers.choice(DESCRS), numbers.choice(("True", "1", "None")), shape.decode())
    elif kind == 2:
        descr = header.split(b"'descr': ")[1].split(b", 'fortran")[0]
        header = _described(descr.decode(), "False", numbers.choice(SHAPES))
    elif kind == 3:
        return octets.overwritten(data, numbers.randrange(10), bytes([numbers.choice((0, 1, 2, 3, 4, 255))]))
    elif kind == 4:
        header = numbers.choice((b"{}", b"[" * 300, b"__import__('os')", b"{'descr': " + b"(" * 200, b"\xff" * 40, b""))
    elif kind == 5 and body:
        for _ in range(numbers.randint(1, 6)):
            place = numbers.randrange(0, len(body), 4)
            body = octets.overwritten(
                body, place, octets.fitted(octets.boundary(numbers), numbers.choice(("<i", "<q")))
            )
    else:
        return octets.changed(data, numbers)
    return data[:8] + struct.pack("<H", len(header)) + header + body


def archive(members: dict[str, bytes], numbers) -> bytes:
    """A zip of `members`, some missing, doubled, renamed or compressed; one in six broken as bytes besides."""
    pairs = [*members.items()]
    kind = numbers.randrange(12)
    if kind == 0:
        pairs.pop(numbers.randrange(len(pairs)))
    elif kind == 1:
        pairs.append(numbers.choice(pairs))
    elif kind == 2:
        place = numbers.randrange(len(pairs))
        pairs[place] = (numbers.choice(("", "a.npy", "../a.npy", "/a", "rows", "é.npy")), pairs[place][1])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", numbers.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
        for name, data in pairs:
            if name not in file.namelist():
                file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    data = buffer.getvalue()
    if kind == 3:  # sizes, offsets and methods in the directory at the end
        directory = data.rfind(b"PK\x01\x02")
        data = octets.overwritten(data, directory + numbers.choice((8, 10, 16, 20, 24, 28, 42)), numbers.randbytes(2))
    return octets.changed(data, numbers) if numbers.random() < 1 / 6 else data


def parses(data: bytes) -> bool:
    """Whether it is a zip."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)):
            return True
    except Exception:  # whatever zipfile raises
        return False


def _described(descr, fortran, shape):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
