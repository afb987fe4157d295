"""Just enough of protocol buffers to find the fields of a serialized tf.train.Example where they lie.

An Example holds Features (its field 1), which hold map entries (field 1) of a name (field 1) and a Feature (field
2), which holds a list of bytes (field 1), floats (2) or int64 (3).  Working on offsets, it passes over picture bytes
without reading them, so that listing a memory-mapped shard costs a page or two a record.
"""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
BYTES_LIST, INT64_LIST = 1, 3


def features(buffer, start: int, stop: int) -> dict[str, tuple[int, int]]:
    """Offsets (start, stop) of each named Feature of the Example at buffer[start:stop]; raises ValueError."""
    found = {}
    for number, _, begin, end in _fields(buffer, start, stop):
        if number != 1:
            continue
        for _, _, entry_begin, entry_end in _fields(buffer, begin, end):
            entry = {field: (a, b) for field, _, a, b in _fields(buffer, entry_begin, entry_end)}
            if 1 in entry and 2 in entry:
                found[bytes(buffer[entry[1][0] : entry[1][1]]).decode()] = entry[2]
    return found


def bytes_span(buffer, feature: tuple[int, int]) -> tuple[int, int]:
    """Offsets of the first byte string of a Feature; raises ValueError where it holds none."""
    for number, _, begin, end in _fields(buffer, *feature):
        if number == BYTES_LIST:
            for _, wire, value_begin, value_end in _fields(buffer, begin, end):
                if wire == _LENGTH:
                    return value_begin, value_end
    raise ValueError("holds no bytes")


def first_int(buffer, feature: tuple[int, int]) -> int:
    """The first integer of a Feature, packed or not; raises ValueError where it holds none."""
    for number, _, begin, end in _fields(buffer, *feature):
        if number == INT64_LIST:
            for _, _, value_begin, value_end in _fields(buffer, begin, end):
                if value_end > value_begin:
                    value, _ = _varint(buffer, value_begin, value_end)
                    return value - (value >> 63 << 64)  # two's complement
    raise ValueError("holds no integer")


def _fields(buffer, position, stop):
    """Yields (field number, wire type, start, stop of the content) of the message at buffer[position:stop]."""
    while position < stop:
        tag, position = _varint(buffer, position, stop)
        wire = tag & 7
        begin = position
        if wire == _LENGTH:
            length, begin = _varint(buffer, position, stop)
            position = begin + length
        elif wire == _VARINT:
            _, position = _varint(buffer, position, stop)
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError("is not a tf.train.Example")
        if position > stop:
            raise ValueError("is not a tf.train.Example")
        yield tag >> 3, wire, begin, position


def _varint(buffer, position, stop):
    value = shift = 0
    while position < stop and shift < 64:
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("is not a tf.train.Example")
