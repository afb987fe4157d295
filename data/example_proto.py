"""Just enough of protocol buffers to find the fields of a serialized tf.train.Example where they lie.

An Example holds Features (its field 1), which hold map entries (field 1) of a name (field 1) and a Feature (field
2), which holds a list of bytes (field 1), floats (2) or int64 (3).  Working on offsets, it passes over picture bytes
without reading them, so that listing a memory-mapped shard costs a page or two a record.
"""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
BYTES_LIST, INT64_LIST = 1, 3
_FIRST, _SECOND = 1 << 3 | _LENGTH, 2 << 3 | _LENGTH  # tags of fields 1 and 2 that hold a message or a string


def features(buffer, start: int, stop: int) -> dict[bytes, tuple[int, int]]:
    """Offsets (start, stop) of each named Feature of the Example at buffer[start:stop]; raises ValueError."""
    found = {}
    while start < stop:
        number, wire, begin, start = _field(buffer, start, stop)
        if number == 1 and wire == _LENGTH:
            _entries(buffer, begin, start, found)
    return found


def bytes_span(buffer, feature: tuple[int, int]) -> tuple[int, int]:
    """Offsets of the first byte string of a Feature; raises ValueError where it holds none."""
    kind, position, stop = _list(buffer, feature)
    while kind == BYTES_LIST and position < stop:
        number, wire, begin, position = _field(buffer, position, stop)
        if number == 1 and wire == _LENGTH:
            return begin, position
    raise ValueError("holds no bytes")


def first_int(buffer, feature: tuple[int, int]) -> int | None:
    """The first integer of a Feature, packed or not, None if its list is empty; raises ValueError for other lists."""
    kind, position, stop = _list(buffer, feature)
    if kind not in (None, INT64_LIST):
        raise ValueError("holds no integer")
    while position < stop:
        number, _, begin, position = _field(buffer, position, stop)
        if number == 1 and position > begin:
            value, _ = _varint(buffer, begin, position)
            return (value + 2**63) % 2**64 - 2**63  # two's complement
    return None


def _entries(buffer, position, stop, found):
    """Adds the map entries of the Features at buffer[position:stop] to `found`."""
    while position < stop:
        # Nearly all entries are short and hold name and Feature in this order: worth reading without a call.
        if position + 4 <= stop:
            name, name_end = position + 4, position + 4 + buffer[position + 3]
            begin, end = name_end + 2, position + 2 + buffer[position + 1]
            if (
                buffer[position] == buffer[position + 2] == _FIRST
                and buffer[position + 1] < 128
                and begin <= end <= stop
                and buffer[name_end] == _SECOND
                and begin + buffer[name_end + 1] == end
            ):
                found[buffer[name:name_end]] = begin, end
                position = end
                continue
        number, wire, begin, position = _field(buffer, position, stop)
        if number == 1 and wire == _LENGTH:
            name, feature = _entry(buffer, begin, position)
            found[name] = feature


def _entry(buffer, start, stop):
    """(name, (start, stop) of the Feature) of a map entry of any layout."""
    name, feature = b"", (stop, stop)  # what a field that is not there means
    while start < stop:
        number, wire, begin, start = _field(buffer, start, stop)
        if number == 1 and wire == _LENGTH:
            name = buffer[begin:start]
        elif number == 2 and wire == _LENGTH:
            feature = begin, start
    return name, feature


def _list(buffer, feature):
    """(kind, start, stop) of the list that a Feature holds, kind None where it holds none."""
    position, stop = feature
    kind, begin, end = None, stop, stop
    while position < stop:
        kind, _, begin, end = _field(buffer, position, stop)
        position = end
    return kind, begin, end


def _field(buffer, position, stop):
    """(field number, wire type, start, stop of the content) of the field at `position`; raises ValueError."""
    tag, position = _varint(buffer, position, stop)
    wire = tag & 7
    if wire == _LENGTH:
        length, begin = _varint(buffer, position, stop)
        end = begin + length
    elif wire == _VARINT:
        begin = position
        _, end = _varint(buffer, position, stop)
    elif wire in (_FIXED64, _FIXED32):
        begin, end = position, position + (8 if wire == _FIXED64 else 4)
    else:
        raise ValueError("is not a tf.train.Example")
    if end > stop:
        raise ValueError("is not a tf.train.Example")
    return tag >> 3, wire, begin, end


def _varint(buffer, position, stop):
    value = shift = 0
    while position < stop and shift < 64:
        byte = buffer[position]
        position += 1
        if byte < 128:
            return value | byte << shift, position
        value |= (byte & 127) << shift
        shift += 7
    raise ValueError("is not a tf.train.Example")
