"""Changes to bytes of any kind; `numbers` is a random.Random everywhere, so that an input is a function of its seed."""

import struct

# Where integers of some width begin, end or change their sign, and their neighbours.
BOUNDARIES = sorted(
    {sign * 2**bits + offset for bits in (0, 7, 8, 15, 16, 24, 31, 32, 63) for offset in (-1, 0, 1) for sign in (1, -1)}
)
INTEGERS = ("<b", "<h", ">h", "<i", ">i", "<q", ">q")


def boundary(numbers) -> int:
    """An integer that somebody may not have thought of; now and then any small one."""
    return numbers.choice(BOUNDARIES) if numbers.random() < 0.7 else numbers.randrange(-2, 300)


def fitted(value: int, form: str) -> bytes:
    """The integer in the bytes of a struct format, what is too large cut off."""
    size = struct.calcsize(form)
    return (value % 256**size).to_bytes(size, "big" if form[0] == ">" else "little")


def overwritten(data: bytes, offset: int, new: bytes) -> bytes:
    """`data` with `new` at `offset`, as long as it was."""
    return (data[:offset] + new + data[offset + len(new) :])[: len(data)]


def changed(data: bytes, numbers, most: int = 3) -> bytes:
    """1 to `most` changes: bits, bytes, integers at random places; pieces cut out, doubled, moved; the end cut off."""
    for _ in range(numbers.randint(1, most)):
        data = numbers.choice(_CHANGES)(data, numbers) if data else bytes([numbers.randrange(256)])
    return data


def _bit(data, numbers):
    place = numbers.randrange(len(data))
    return overwritten(data, place, bytes([data[place] ^ 1 << numbers.randrange(8)]))


def _byte(data, numbers):
    return overwritten(data, numbers.randrange(len(data)), bytes([numbers.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))]))


def _integer(data, numbers):
    return overwritten(data, numbers.randrange(len(data)), fitted(boundary(numbers), numbers.choice(INTEGERS)))


def _piece(data, numbers):
    begin = numbers.randrange(len(data))
    return begin, min(len(data), begin + numbers.choice((1, 2, 4, 16, 64, 1024)))


def _cut_out(data, numbers):
    begin, end = _piece(data, numbers)
    return data[:begin] + data[end:]


def _doubled(data, numbers):
    begin, end = _piece(data, numbers)
    return data[:end] + data[begin:]


def _moved(data, numbers):
    begin, end = _piece(data, numbers)
    return overwritten(data, numbers.randrange(len(data)), data[begin:end])


def _truncated(data, numbers):
    return data[: numbers.randrange(len(data))]


def _appended(data, numbers):
    return data + numbers.randbytes(numbers.choice((1, 3, 12, 100)))


_CHANGES = (_bit, _bit, _byte, _byte, _integer, _integer, _cut_out, _doubled, _moved, _truncated, _appended)
