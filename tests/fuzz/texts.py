"""Lines that people write: lists of pictures, sets of ids, flag files, specs; some of their words are changed."""

from tests.fuzz import octets

WORDS = (
    "", " ", "\t", ",", ";", '"', '""', "'", "#", "-1", "0", "1", "999999999", "9999999999", "1e3", "nan", "²", "٣",
    "--", "=", "/", "..", "../a.jpg", "~", "a b", "\r", "\x00", "\x85", "\u2028", "\udcff", "\ufeff", "x" * 5000, "\\",
    "%s", "{}", "*", "[", "?", "$HOME", "label", "path", "class",
)  # fmt: skip


def lines(seed: str, numbers, words=WORDS) -> bytes:
    """The lines of `seed`, 1 to 4 times changed; one in ten broken as bytes besides."""
    found = seed.split("\n")
    for _ in range(numbers.randint(1, 4)):
        place = numbers.randrange(len(found))
        kind = numbers.randrange(7)
        if kind == 0 and len(found) > 1:
            found.pop(place)
        elif kind == 1:
            found.insert(place, numbers.choice(found))
        elif kind == 2:
            found[place] = numbers.choice(words)
        else:
            found[place] = _word_changed(found[place], numbers, words)
    data = numbers.choice(("\n", "\n", "\n", "\r\n", "\r")).join(found).encode("utf-8", "surrogateescape")
    return octets.changed(data, numbers) if numbers.random() < 0.1 else data


def _word_changed(line, numbers, words):
    begin, end = sorted(numbers.choices(range(len(line) + 1), k=2)) if numbers.random() < 0.5 else _word(line, numbers)
    return line[:begin] + numbers.choice(words) + line[end:]


def _word(line, numbers):
    """(begin, end) of one of the words of a line: what lies between blanks, commas, colons and signs of equality."""
    bounds = [0, *(place for place, letter in enumerate(line) if letter in " ,:=/\t"), len(line)]
    place = numbers.randrange(len(bounds) - 1)
    return bounds[place] + (place > 0), bounds[place + 1]
