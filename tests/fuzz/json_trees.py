"""JSON documents that are nearly those that ours write: they parse, and say something else than they should."""

import copy
import json

from tests.fuzz import octets

_DEEP = "@a hole without a bottom@"  # a string that `text` replaces: no tree of this depth can be dumped
STRANGE = (
    None, True, False, 0, 1, -1, 0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), float("-inf"), 10**30, 10**400,
    2**63, -(2**63), 2**31, "", " ", "0", "1.5", "nan", "../../etc/passwd", "\0", "\n", "<script>", "\ud800", "\udcff",
    "ä" * 300, "x" * 70000, [], {}, [[]], [None], {"": None}, [1, "a", None], {"a": {"b": []}}, [0] * 1000, _DEEP,
)  # fmt: skip


def changed(tree, numbers, most: int = 3):
    """A copy of a JSON tree with 1 to `most` changes: values, types, missing, new, renamed and exchanged keys."""
    top = [copy.deepcopy(tree)]
    for _ in range(numbers.randint(1, most)):
        places = [*_places(top)]
        holder, key = numbers.choice(places[1:] or places)
        _change(holder, key, numbers, places)
    return top[0]


def text(tree, numbers) -> bytes:
    """The tree as JSON, surrogates as escapes, or as bytes that are no UTF-8."""
    whole = json.dumps(tree, ensure_ascii=numbers.random() < 0.8)
    depth = numbers.choice((50, 900, 100_000))
    return whole.replace(json.dumps(_DEEP), "[" * depth + "]" * depth).encode("utf-8", "surrogatepass")


def document(tree, numbers) -> bytes:
    """A changed tree as JSON; one in six broken as bytes besides."""
    data = text(changed(tree, numbers), numbers)
    return octets.changed(data, numbers) if numbers.random() < 1 / 6 else data


def lines(trees, numbers) -> bytes:
    """JSON, a line a tree, of which some are changed, dropped, doubled, in another order, or torn."""
    trees = [changed(tree, numbers) if numbers.random() < 0.4 else tree for tree in trees]
    if numbers.random() < 0.3:
        trees = numbers.choices(trees, k=numbers.randrange(2 * len(trees)))
    end = b"" if numbers.random() < 0.2 else b"\n"
    data = b"\n".join(text(tree, numbers) for tree in trees) + end
    return octets.changed(data, numbers) if numbers.random() < 1 / 6 else data


def parses(data: bytes) -> bool:
    """Whether it is JSON, for whoever has room for it."""
    try:
        json.loads(data)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _places(tree):
    """Every (list or dict, index or key) of a tree."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield tree, key
            yield from _places(value)


def _change(holder, key, numbers, places):
    value, kind = holder[key], numbers.randrange(8)
    if kind == 0 and holder is not places[0][0]:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[numbers.choice(("", "step", f"{key}x", "\ud800"))] = holder.pop(key)
    elif kind == 2:
        other, place = numbers.choice(places)
        # Of a place that is inside this one, or gone, a copy as it is.
        holder[key] = copy.deepcopy(other[place]) if _has(other, place) else value
    elif kind == 3:
        holder[key] = numbers.choice(([value], {"a": value}, str(value)[:100], [value, value]))
    elif kind == 4 and isinstance(value, int | float):
        holder[key] = octets.boundary(numbers)
    elif kind == 5 and isinstance(value, int | float) and abs(value) < 2**1000:
        holder[key] = numbers.choice((-value, value * 1e9, float(value), value + 1, str(value)))
    elif kind == 6 and isinstance(value, str):
        place = numbers.randrange(len(value) + 1)
        holder[key] = value[:place] + numbers.choice(("\ud800", "\0", "\n", "x", "/..", "'")) + value[place:]
    else:
        holder[key] = copy.deepcopy(numbers.choice(STRANGE))


def _has(holder, key):
    return key in holder if isinstance(holder, dict) else key < len(holder)
