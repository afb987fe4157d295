"""What is wrong with the pictures and boxes of a set, all of it at once and by file and object.

In files that count from 1 the corners of a picture w px wide run from 1 to w, in those that count from 0 up to w - 1.
Half a pixel beyond is put down to rounding.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.voc import MISSING, DetectionSet, unknown_class
from data.voc_xml import CORNERS, shown

# In the order of the table.
KINDS = (
    "picture",
    "no annotation",
    "damaged annotation",
    "unknown class",
    "origin",
    "flipped",
    "empty box",
    "outside",
    "size differs",
    "no objects",
    "all difficult",
)
SLACK = 0.5  # px
CLEARLY = 5  # times as many corners that speak for an origin as against it
EACH = 5  # defects of a kind that a table shows


@dataclass(frozen=True)
class Defect:
    """One thing that is wrong, or worth a note."""

    file: str
    object: str  # as in "object 2 (dog)"; "" for the picture as a whole
    kind: str  # one of KINDS
    detail: str
    stops: bool  # whether nothing should be trained or measured before it is mended; else it is a note


def defects(detection_set: DetectionSet, decode: bool = False, workers: int = 0) -> list[Defect]:
    """All defects, in the order of the rows; with `decode` each picture is decoded, on `workers` threads (0: one a
    core), and not only its head read."""
    problems = _decoded(detection_set, workers) if decode else [each.image_problem for each in detection_set.pictures]
    blame = _blame(detection_set)
    found = []
    for picture, problem in zip(detection_set.pictures, problems, strict=True):
        found += _of_picture(picture, problem)
        if not picture.annotation_problem:
            found += _of_objects(picture, detection_set, blame)
    return found


def table(found: list[Defect]) -> str:
    """The defects for people: those that stop first, up to five of each kind, and how many more there are."""
    from tabulate import tabulate

    if not found:
        return "no defects"
    rows = []
    for stops in (True, False):
        for kind in KINDS:
            alike = [each for each in found if (each.stops, each.kind) == (stops, kind)]
            word = "error" if stops else "note"
            rows += [(word, kind, each.file, each.object, each.detail) for each in _various(alike)[:EACH]]
            if len(alike) > EACH:
                rows.append((word, kind, f"... and {len(alike) - EACH:,} more", "", ""))
    return tabulate(rows, ["", "kind", "file", "object", "what"], tablefmt="plain", disable_numparse=True)


def counts(found: list[Defect]) -> dict[str, int]:
    """How many defects there are of each kind that there is."""
    number = Counter(each.kind for each in found)
    return {kind: number[kind] for kind in KINDS if number[kind]}


def _various(alike):
    """The same defects, those with a detail that was not there before first: of each unknown class the first."""
    times = Counter()
    ranks = []
    for each in alike:
        ranks.append(times[each.detail])
        times[each.detail] += 1
    return [each for _, each in sorted(zip(ranks, alike, strict=True), key=lambda pair: pair[0])]


def _decoded(detection_set, workers):
    """Of each picture why it cannot be decoded, "" if it can."""
    from data.examination import in_order, progress
    from data.reading import problem

    found = []
    with progress(f"decoding {detection_set.name}", detection_set.size, 0) as bar:
        for row, reason in enumerate(
            in_order(lambda row: problem(detection_set, row), range(detection_set.size), workers)
        ):
            found.append(detection_set.pictures[row].image_problem or reason or "")
            bar.update()
    return found


def _of_picture(picture, problem) -> Iterator[Defect]:
    if problem:
        yield Defect(picture.image, "", "picture", problem, True)
    if picture.annotation_problem:
        kind = "no annotation" if picture.annotation_problem == MISSING else "damaged annotation"
        yield Defect(picture.annotation, "", kind, picture.annotation_problem, True)
    elif not picture.objects:
        yield Defect(picture.annotation, "", "no objects", "nothing can be learned from it", False)
    elif all(each.difficult for each in picture.objects):
        yield Defect(picture.annotation, "", "all difficult", "nothing can be learned from it", False)
    if picture.size and picture.declared not in (None, picture.size):
        (height, width), (told, broad) = picture.size, picture.declared
        detail = f"the annotation says {broad} x {told}, the picture is {width} x {height} px"
        if picture.declared == picture.size[::-1]:
            detail += "; was it annotated before it was turned upright?"
        yield Defect(picture.annotation, "", "size differs", detail, False)


def _of_objects(picture, detection_set, blame) -> Iterator[Defect]:
    for number, each in enumerate(picture.objects, 1):
        where = f"object {number} ({shown(each.name)})"
        if each.name not in detection_set.labels:
            detail = unknown_class(each.name, detection_set.classes)
            yield Defect(picture.annotation, where, "unknown class", detail, True)
        for kind, detail, stops in (_shape(each.box), _place(each.box, picture.size, detection_set.origin, blame)):
            if kind:
                yield Defect(picture.annotation, where, kind, detail, stops)


def _shape(box):
    """(kind, detail, stops) of what is wrong with a box wherever it lies; kind "" if nothing is."""
    left, top, right, bottom = box
    if right < left or bottom < top:
        axis, near, far = ("x", left, right) if right < left else ("y", top, bottom)
        return "flipped", f"{axis}max {far:g} is less than {axis}min {near:g}", True
    if right == left and bottom == top:
        return "empty box", f"is the point {left:g}, {top:g}", True
    if right == left or bottom == top:
        axis, place = ("x", left) if right == left else ("y", top)
        return "empty box", f"is a line: {axis}min and {axis}max are both {place:g}", False  # one pixel wide, in VOC
    return "", "", False


def _place(box, size, origin, blame):
    """(kind, detail, stops) of a box beyond the picture; `blame` as `_blame` tells it."""
    if box == (0, 0, 0, 0):
        return "", "", False  # an empty box says nothing of where others begin
    lowest, limits = origin - SLACK, [np.inf] * 4
    if size:
        limits = [side - 1 + origin + SLACK for side in (size[1], size[0])] * 2
    for corner, value, limit, side in zip(CORNERS, box, limits, (size or (0, 0))[::-1] * 2, strict=True):
        if lowest <= value <= limit:
            continue
        told = f"{corner} is {value:g}" + (f" in a picture of {side} px" if size else "")
        other_fits = lowest + 1 - 2 * origin <= value <= limit + 1 - 2 * origin
        if not other_fits or blame == "file":
            return "outside", told, True
        if blame == "far corners":
            return "origin", f"{told}, and others are at the other end: take 1 off all xmax, ymax; --box_origin=0", True
        return "origin", f"{told}, which --box_origin={origin} does not allow and --box_origin={1 - origin} does", True
    return "", "", False


def _blame(detection_set):
    """Whose fault corners are that would fit the other origin.

    In VOC corners are inclusive, and boxes that are cut off are as common left as right: some corners are 0 in files
    that count from 0, others the width or height in files that count from 1.  Either alone tells the origin; both mean
    exclusive far corners.
    """
    against = in_favour = 0
    for picture in detection_set.pictures:
        height, width = picture.size or (None, None)
        for left, top, right, bottom in (each.box for each in picture.objects):
            ends = 0 in (left, top) and (right, bottom) != (0, 0), right == width or bottom == height
            against += ends[1 - detection_set.origin]
            in_favour += ends[detection_set.origin]
    if in_favour >= CLEARLY * against:
        return "file"
    return "origin" if against >= CLEARLY * in_favour else "far corners"
