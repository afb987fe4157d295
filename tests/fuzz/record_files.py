"""TFRecord files of tf.train.Example whose checksums are right, whatever else is wrong."""

import struct

from tests.fuzz import octets

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


def _table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _table()


def masked_crc(data: bytes) -> int:
    """CRC-32C of RFC 3720, masked as the TFRecord format does."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes, length: int | None = None) -> bytes:
    """A record; with `length` its header, checksum and all, says that it is as long."""
    header = struct.pack("<Q", (len(data) if length is None else length) % 2**64)
    return header + struct.pack("<I", masked_crc(header)) + data + struct.pack("<I", masked_crc(data))


def varint(value: int, width: int = 1) -> bytes:
    """A number of up to 64 bits in 7-bit pieces, at least `width` of them."""
    value %= 2**64
    pieces = []
    while value or len(pieces) < width:
        pieces.append(value & 127)
        value >>= 7
    return bytes(piece | 128 for piece in pieces[:-1]) + bytes(pieces[-1:])


def field(number: int, content, wire: int = LENGTH) -> bytes:
    """A field of a message: bytes of a given length, or the number of a varint."""
    tag = varint(number << 3 | wire)
    return tag + (varint(content) if wire == VARINT else varint(len(content)) + content)


def example(picture: bytes, label: int, index: int | None = None, name=b"image/encoded") -> bytes:
    """A tf.train.Example as our builder, or with another `name` of its picture TFDS, writes it."""
    entries = [(name, _bytes_list(picture)), (b"image/format", _bytes_list(b"jpeg"))]
    entries.append((b"label" if name == b"image" else b"image/class/label", _int_list(label)))
    if index is not None:
        entries.append((b"image/index", _int_list(index)))
    return _example(entries)


def _example(entries):
    return field(1, b"".join(field(1, field(1, name) + field(2, feature)) for name, feature in entries))


def _bytes_list(value):
    return field(1, field(1, value))


def _int_list(value):
    return field(3, field(1, varint(value)))


def changed_example(picture: bytes, numbers, place: int) -> bytes:
    """An Example with one to three of its parts as they should not be, whole in itself or with lengths that lie."""
    name = numbers.choice((b"image/encoded", b"image/encoded", b"image"))
    entries = {
        name: _bytes_list(picture),
        b"image/format": _bytes_list(b"jpeg"),
        b"label" if name == b"image" else b"image/class/label": _int_list(place % 3),
        b"image/index": _int_list(place),
    }
    for _ in range(numbers.randint(1, 3)):
        key = numbers.choice([*entries]) if entries else b"image"
        entries[key] = numbers.choice(_FEATURES)(picture, numbers)
        if numbers.random() < 0.15:
            entries.pop(key)
        elif numbers.random() < 0.1:
            entries[numbers.choice((b"", b"\xff", key + b"x", b"image", b"n" * 200))] = entries.pop(key)
    pairs = [*entries.items()]
    if numbers.random() < 0.3:
        pairs = numbers.choices(pairs, k=numbers.randrange(2 * len(pairs) + 1)) if pairs else pairs
    data = _example(pairs) if numbers.random() < 0.7 else _odd_example(pairs, numbers)
    return octets.changed(data, numbers) if numbers.random() < 0.25 else data


_FEATURES = (
    lambda picture, numbers: _bytes_list(picture[: numbers.randrange(len(picture) + 1)]),
    lambda picture, numbers: _bytes_list(octets.changed(picture, numbers)),
    lambda picture, numbers: _int_list(octets.boundary(numbers)),
    lambda picture, numbers: field(3, field(1, octets.boundary(numbers), VARINT)),  # not packed
    lambda picture, numbers: field(3, field(1, b"\x80" * numbers.randrange(1, 12))),  # a number without an end
    lambda picture, numbers: field(2, field(1, b"\x00\x00\x80\x3f")),  # a float
    lambda picture, numbers: field(numbers.randrange(1, 5), b""),
    lambda picture, numbers: b"",
    lambda picture, numbers: _bytes_list(picture) + _int_list(1),  # two of a oneof: the last counts
    lambda picture, numbers: field(1, field(1, b"a") + field(1, picture)),
    lambda picture, numbers: varint(1 << 3 | LENGTH) + varint(octets.boundary(numbers)) + picture[:10],
    lambda picture, numbers: varint(octets.boundary(numbers), numbers.randrange(1, 11)) + picture[:10],
)


def _odd_example(pairs, numbers):
    """The entries laid out as no writer does: Feature before name, foreign fields, several Features, long varints."""
    parts = []
    for name, feature in pairs:
        entry = [field(1, name), field(2, feature)]
        if numbers.random() < 0.5:
            entry.reverse()
        if numbers.random() < 0.3:
            entry.append(field(numbers.randrange(3, 2**20), octets.boundary(numbers), VARINT))
        if numbers.random() < 0.2:
            entry.pop()
        body = b"".join(entry)
        parts.append(varint(1 << 3 | LENGTH) + varint(len(body), numbers.randrange(1, 9)) + body)
    if numbers.random() < 0.2:
        parts.append(varint(9 << 3 | numbers.choice((FIXED64, FIXED32, 3, 4, 6, 7))) + b"\x01" * numbers.choice((4, 8)))
    cut = numbers.randrange(len(parts) + 1)
    return field(1, b"".join(parts[:cut])) + field(1, b"".join(parts[cut:]))


def document(pictures: list[bytes], numbers) -> bytes:
    """A file of a few records, some changed; records, headers and what lies between damaged now and then."""
    records = []
    for place, picture in enumerate(pictures):
        if numbers.random() < 0.5:
            records.append(frame(changed_example(picture, numbers, place)))
        else:
            records.append(frame(example(picture, place % 3, place if numbers.random() < 0.9 else None)))
    for _ in range(numbers.choice((0, 0, 1, 2))):
        place = numbers.randrange(len(records))
        records[place] = numbers.choice(_FRAMES)(records[place], numbers)
    if numbers.random() < 0.1:
        numbers.shuffle(records)
    data = b"".join(records)
    return octets.changed(data, numbers) if numbers.random() < 0.2 else data


_FRAMES = (
    lambda record, numbers: record[:-1] + bytes([record[-1] ^ 1]) if record else record,  # the data's checksum
    lambda record, numbers: octets.changed(record, numbers),
    lambda record, numbers: frame(record[12:-4], octets.boundary(numbers)),  # a length that lies, with its checksum
    lambda record, numbers: frame(record[12:-4], len(record) + numbers.randrange(-40, 40)),
    lambda record, numbers: frame(b""),
    lambda record, numbers: frame(record),  # a record in a record
    lambda record, numbers: record + numbers.randbytes(numbers.randrange(1, 40)),
    lambda record, numbers: record + bytes(numbers.randrange(1, 40)),
    lambda record, numbers: record[: numbers.randrange(len(record) + 1)],
    lambda record, numbers: record + record,
    lambda record, numbers: b"",
)


def begins_with_a_header(data: bytes) -> bool:
    """Whether the file begins as a TFRecord file: a length with its checksum."""
    return len(data) >= 12 and struct.unpack("<I", data[8:12])[0] == masked_crc(data[:8])
