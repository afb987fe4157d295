"""Where the records of a TFRecord file lie, and which are lost where the file is damaged.

A record is the length of its data (8 bytes, little endian), the masked CRC-32C of these 8 bytes, the data, and the
data's masked CRC-32C.  Listing hops from header to header.  Where a header is wrong or leads out of the file, it goes
on at the next record that an earlier listing knew, else at the next one that a search for intact headers finds; what
was lost on the way keeps its place in the list.
"""

import struct
from bisect import bisect_left

import numpy as np

from data.example_proto import features

HEADER, FOOTER = 12, 4  # bytes of a record before and after its data
_WINDOW = 2**20  # bytes searched at a time
_unpack_header = struct.Struct("<QI").unpack_from


def frames(buffer, known: list[int] = (), count: int | None = None) -> list[tuple[int, int | None]]:
    """(position, end) of each record in `buffer`, a mapped file; end is None for a record that is lost.

    `known` are the positions of all records as an earlier listing found them, ascending; `count` is how many the file
    held when it was written.  A damaged stretch that neither tells about counts as one lost record.
    """
    records, gaps = _walk(buffer, known)
    if len(records) == count:
        return records
    lost = [_told(known, begin, end, len(buffer)) for _, begin, end in gaps]
    untold = [gap for gap, positions in enumerate(lost) if positions is None]
    if count is None and any(_holds(known, begin) for _, begin, _ in gaps):
        count = len(known)
    missing = -1 if count is None else count - len(records) - sum(len(positions or ()) for positions in lost)
    widths = [gaps[gap][2] - gaps[gap][1] for gap in untold]
    shares = [min(width, 1) for width in widths] if missing < 0 else _shares(missing, widths)
    for gap, share in zip(untold, shares, strict=True):
        lost[gap] = [gaps[gap][1]] * share
    return _merge(records, gaps, lost)


def damage(buffer, position: int) -> str:
    """Why the record at `position` is lost, in a few words that follow "record 3"."""
    if position + HEADER > len(buffer):
        return "lies beyond the end of the file, which was cut short"
    length = data_length(buffer, position)
    if length is None:
        return "has a damaged header (or the file is no TFRecord file)"
    ends_inside = position + HEADER + length + FOOTER <= len(buffer)
    return "has lost a part" if ends_inside else "does not end within the file, which was cut short"


def record_end(buffer, position: int) -> int | None:
    """Where the record at `position` ends; None if its header is wrong or it does not end within the buffer."""
    length = data_length(buffer, position)
    if length is None:
        return None
    end = position + HEADER + length + FOOTER
    return end if end <= len(buffer) else None


def data_length(buffer, position: int) -> int | None:
    """What the header at `position` says, bytes; None if its CRC is wrong, or for 2 GiB, which no Example can take."""
    if position + HEADER > len(buffer):
        return None
    length, crc = _unpack_header(buffer, position)
    return length if not length >> 31 and length_crc(length) == crc else None


def _walk(buffer, known):
    """(position, end) of the intact records; gaps (number of records before, begin, end) between them.

    The last gap is at the end of the file, 0 bytes wide where no damage shows: the file may have been cut there.
    """
    records, gaps = [], []
    position, size = 0, len(buffer)
    while position < size:
        end = record_end(buffer, position)
        if end is not None:
            records.append((position, end))
            position = end
            continue
        begin, position = position, _resume(buffer, position, known, records)
        if position < begin:  # the record before is shorter than its header says: bytes are missing in it
            begin, _ = records.pop()
        gaps.append((len(records), begin, position))
    if not gaps or gaps[-1][2] < size:
        gaps.append((len(records), size, size))
    return records, gaps


def _resume(buffer, position, known, records):
    """Where the next intact record begins, given that none does at `position`: the file's end if there is none."""
    if _holds(known, position):
        place = bisect_left(known, position)
        for begin, known_end in zip(known[place + 1 :], [*known[place + 2 :], None], strict=False):
            end = record_end(buffer, begin)
            # Where bytes are missing, another record may have come to lie at a known position, but with another end.
            if end is not None and known_end in (end, None):
                return begin
    # The last record may have swallowed intact ones, so the search begins inside it.
    return _search(buffer, records[-1][0] + HEADER if records else 1)


def _search(buffer, begin):
    """The first position from `begin` on where a record stands beyond doubt, else the buffer's end."""
    for position in _likely_headers(buffer, begin):
        end = record_end(buffer, position)
        if end is None:
            continue
        if end == len(buffer) or record_end(buffer, end) is not None or _is_example(buffer, position, end):
            return position
    return len(buffer)


def _likely_headers(buffer, begin):
    """Yields, ascending, the positions from `begin` on of a length in 1..2**32-1 that is followed by its CRC."""
    for start in range(begin, len(buffer) - HEADER + 1, _WINDOW):
        window = buffer[start : start + _WINDOW + HEADER - 1]
        found = []
        for phase in range(4):
            words = np.frombuffer(window, "<u4", (len(window) - phase) // 4, phase)
            low, high, crc = words[:-2], words[1:-1], words[2:]
            likely = np.flatnonzero((high == 0) & (low != 0))
            likely = likely[length_crc(low[likely].astype(np.int64), _ARRAYS) == crc[likely]]
            found += (start + phase + 4 * likely).tolist()
        yield from sorted(found)


def _is_example(buffer, position, end):
    try:
        return bool(features(buffer, position + HEADER, end - FOOTER))
    except ValueError:
        return False


def _holds(known, position):
    place = bisect_left(known, position)
    return place < len(known) and known[place] == position


def _told(known, begin, end, size):
    """The positions of the records that `known` tells of in a gap; None where it does not tell."""
    if not _holds(known, begin):
        return None
    if end >= size:
        return known[bisect_left(known, begin) :]
    return known[bisect_left(known, begin) : bisect_left(known, end)] if _holds(known, end) else None


def _shares(count, widths):
    """Splits `count` lost records among gaps in proportion to their widths, bytes, by highest averages."""
    widths = [max(width, 0.5) for width in widths]
    # Highest averages give everyone at least its whole part, so that only what is left is given out one by one.
    shares = [int(count * (width / sum(widths))) for width in widths]
    for _ in range(count - sum(shares) if widths else 0):
        widest = max(range(len(widths)), key=lambda gap: widths[gap] / (shares[gap] + 1))
        shares[widest] += 1
    return shares


def _merge(records, gaps, lost):
    """Records and the positions lost in each gap, in the file's order."""
    merged, done = [], 0
    for (before, _, _), positions in zip(gaps, lost, strict=True):
        merged += records[done:before]
        merged += [(position, None) for position in positions]
        done = before
    return merged + records[done:]


def length_crc(length, tables=None):
    """The masked CRC-32C of a length below 2**32 as a header holds it; with `_ARRAYS` of an int64 array of lengths."""
    first, second, third, fourth = tables or _TABLES
    crc = _CRC_OF_ZERO ^ first[length & 255] ^ second[length >> 8 & 255] ^ third[length >> 16 & 255]
    crc ^= fourth[length >> 24]
    return (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF


def _crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


_CRC_OF_ZERO = _crc32c(bytes(8))


def _table(byte):
    """What each value of a length's byte number `byte` changes in its CRC, which is linear in the bits."""
    table = [0]
    for bit in range(8):
        change = _crc32c((1 << 8 * byte + bit).to_bytes(8, "little")) ^ _CRC_OF_ZERO
        table += [entry ^ change for entry in table]
    return table


_TABLES = [_table(byte) for byte in range(4)]
_ARRAYS = [np.array(table) for table in _TABLES]
