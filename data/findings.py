"""What is known of the pictures of a split once each has been looked at, and what that comes to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.sources import Split

# Of each picture; see data.examination.Examined.
FACTS = np.dtype(
    [
        ("sha256", "V32"),
        ("size", "<i8"),
        ("height", "<i4"),
        ("width", "<i4"),
        ("format", "S4"),
        ("orientation", "u1"),
        ("gray", "?"),
        ("convertible", "?"),
    ]
)


@dataclass
class Findings:
    """Of a split of N pictures: `facts` [N] of FACTS, and why each of the bad ones, by row, cannot be decoded."""

    facts: np.ndarray
    problems: dict[int, str]

    @property
    def good(self) -> np.ndarray:
        """Rows that can be decoded: [n] int64."""
        good = np.ones(len(self.facts), bool)
        good[[*self.problems]] = False
        return np.flatnonzero(good)


def summary(split: Split, class_names: Sequence[str], findings: Findings) -> dict:
    """Counts and ranges of one split, JSON-able."""
    facts = findings.facts[findings.good]
    formats, counts = np.unique(facts["format"], return_counts=True)
    return {
        "images": split.size,
        "bad": len(findings.problems),
        "convertible": int(findings.facts["convertible"].sum()),
        **_class_counts(split.labels, class_names),
        "formats": {name.decode() or "array": int(count) for name, count in zip(formats, counts, strict=True)},
        "height": _range(facts["height"]),
        "width": _range(facts["width"]),
        "exif_rotated": int((facts["orientation"] > 1).sum()),
        "gray": int(facts["gray"].sum()),
        "bytes": int(facts["size"].sum()),
    }


def _range(values):
    return [int(values.min()), int(values.max())] if len(values) else None


def _class_counts(labels, class_names):
    known, counts = np.unique(labels[labels >= 0], return_counts=True)
    if not len(known):
        return {"labelled": 0, "classes": 0}

    def named(at):
        label = int(known[at])
        return [class_names[label] if label < len(class_names) else label, int(counts[at])]

    return {
        "labelled": int(counts.sum()),
        "classes": len(known),
        "least": named(counts.argmin()),
        "most": named(counts.argmax()),
    }


def duplicates(findings: Sequence[Findings]) -> list[list[tuple[int, int]]]:
    """Groups of good pictures with the same bytes, each picture as (place in `findings`, row), in that order."""
    rows = [each.good for each in findings]
    places = np.repeat(np.arange(len(rows)), [len(good) for good in rows])
    digests = np.concatenate([each.facts["sha256"][good] for each, good in zip(findings, rows, strict=True)])
    _, group, counts = np.unique(digests.view("S32"), return_inverse=True, return_counts=True)
    rows, groups = np.concatenate(rows), {}
    for member in np.flatnonzero(counts[group] > 1):
        groups.setdefault(int(group[member]), []).append((int(places[member]), int(rows[member])))
    return list(groups.values())
