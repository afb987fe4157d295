"""Arrays under the names that a file gives them, against the names that a network expects (imports no TensorFlow)."""

from __future__ import annotations


def check_names_and_shapes(path, source: str, found: dict, wanted: dict) -> None:
    """Checks that `found`, name -> shape in the file, is `wanted`, name -> shape of `source`.

    Raises ValueError, one line that starts with the path and lists every name that one side alone has and every shape
    that differs.
    """
    if not found.keys() & wanted.keys():
        raise ValueError(
            f"{path}: does not hold {source}; it has {_listed(sorted(found)[:3], ' ...')}, expected are "
            f"{_listed(list(wanted)[:3], ' ...')}"
        )
    other = [
        f"{name} {tuple(found[name])} there, {tuple(wanted[name])} here"
        for name in wanted
        if name in found and tuple(found[name]) != tuple(wanted[name])
    ]
    problems = {
        "missing there": [name for name in wanted if name not in found],
        "unknown here": sorted(set(found) - set(wanted)),
        "of another shape": other,
    }
    if any(problems.values()):
        listed = "; ".join(f"{problem}: {_listed(names)}" for problem, names in problems.items() if names)
        raise ValueError(f"{path}: does not fit {source}; {listed}")


def _listed(names, more=""):
    return ", ".join(names) + more if names else "nothing"
