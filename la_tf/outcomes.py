"""Which pictures were told right, in a line of results.jsonl: a bit each, in hexadecimal digits. No TensorFlow."""

import numpy as np


def packed(right):
    """Returns `right` `[n]` bool as text: hexadecimal, picture 0 in the highest bit, zeros behind the last one."""
    return np.packbits(np.asarray(right, bool)).tobytes().hex()


def unpacked(text, count):
    """Returns the `[count]` bool that `packed` made `text` of; ValueError where it is of another count."""
    octets = np.frombuffer(bytes.fromhex(text), np.uint8)
    if len(octets) != -(-count // 8):
        raise ValueError(f"{8 * len(octets)} outcomes for {count} pictures")
    return np.unpackbits(octets, count=count).astype(bool)
