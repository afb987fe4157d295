"""The detector's geometry written a second time, box by box in float64 NumPy: what the tests compare with."""

import math

import numpy as np


def overlap(a, b):
    """IoU of two boxes with inclusive corners."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / (area(a) + area(b) - common)


def area(box):
    return (box[2] - box[0] + 1) * (box[3] - box[1] + 1)


def overlaps(a, b):
    return np.array([[overlap(one, other) for other in b] for one in a]).reshape(len(a), len(b))


def deltas(box, reference):
    """(dx, dy, dw, dh) by the centres and the sides of the areas that the pixels cover."""
    found = []
    for near, far in ((0, 2), (1, 3)):
        side, reference_side = (one[far] - one[near] + 1 for one in (box, reference))
        centre, reference_centre = ((one[near] + one[far] + 1) / 2 for one in (box, reference))
        found.append(((centre - reference_centre) / reference_side, math.log(side / reference_side)))
    (dx, dw), (dy, dh) = found
    return np.array([dx, dy, dw, dh])


def anchor_sets(anchors, size, boxes, rules):
    """Rows of positive and of negative anchors, and the box of each positive one."""
    height, width = size
    inside = [row for row, (x1, y1, x2, y2) in enumerate(anchors) if x1 >= 0 and y1 >= 0 and x2 < width and y2 < height]
    table = {row: [overlap(anchors[row], box) for box in boxes] for row in inside}
    negative = {row for row in inside if max(table[row], default=0) < rules.negative}
    positive = {row for row in inside if max(table[row], default=0) >= rules.positive}
    for g in range(len(boxes)):
        best = max((table[row][g] for row in inside), default=0)
        positive |= {row for row in inside if best > 0 and table[row][g] == best}
    return positive, negative - positive, {row: int(np.argmax(table[row])) for row in positive}


def roi_sets(proposals, boxes, rules):
    """Rows of foreground and of background proposals, and the box of each foreground one."""
    table = [[overlap(proposal, box) for box in boxes] for proposal in proposals]
    most = [max(row, default=0) for row in table]
    foreground = {row for row, value in enumerate(most) if value >= rules.foreground}
    background = {row for row, value in enumerate(most) if rules.background_low <= value < rules.foreground}
    return foreground, background, {row: int(np.argmax(table[row])) for row in foreground}


def suppression(boxes, scores, threshold, keep):
    """Rows that stay, best first: one after the other, against all that stayed before."""
    kept = []
    for row in sorted(range(len(boxes)), key=lambda row: (-scores[row], row)):
        if all(overlap(boxes[row], boxes[other]) <= threshold for other in kept):
            kept.append(row)
    return kept[:keep]


def value_at(picture, y, x):
    """Bilinear value of a map `[h, w, C]` at a point within it."""
    top, left = min(int(y), picture.shape[0] - 1), min(int(x), picture.shape[1] - 1)
    bottom, right = min(top + 1, picture.shape[0] - 1), min(left + 1, picture.shape[1] - 1)
    above = picture[top, left] + (x - left) * (picture[top, right] - picture[top, left])
    below = picture[bottom, left] + (x - left) * (picture[bottom, right] - picture[bottom, left])
    return above + (y - top) * (below - above)


def legacy_crop(picture, box, side, stride, offset):
    """side x side values from corner to corner, a single one in the middle, 0 outside the map."""
    x1, y1, x2, y2 = (np.asarray(box, np.float64) - offset) / stride
    if side == 1:
        x1, y1 = (x1 + x2) / 2, (y1 + y2) / 2
    last_y, last_x = picture.shape[0] - 1, picture.shape[1] - 1
    found = np.zeros((side, side, picture.shape[2]))
    for i, y in enumerate(np.linspace(y1, y2, side)):
        for j, x in enumerate(np.linspace(x1, x2, side)):
            if -1e-9 <= y <= last_y + 1e-9 and -1e-9 <= x <= last_x + 1e-9:  # points on the edge are within
                found[i, j] = value_at(picture, np.clip(y, 0, last_y), np.clip(x, 0, last_x))
    return found


def roi_align(picture, box, side, stride, offset):
    """side x side means of 2 x 2 points; a box is cut off one position beyond the map."""
    x1, y1, x2, y2 = (np.array([box[0], box[1], box[2] + 1, box[3] + 1], np.float64) - offset) / stride - 0.5
    height, width = picture.shape[:2]
    (x1, x2), (y1, y2) = np.clip([x1, x2], -1, width), np.clip([y1, y2], -1, height)
    found = np.zeros((side, side, picture.shape[2]))
    for i in range(2 * side):
        for j in range(2 * side):
            y, x = y1 + (i + 0.5) * (y2 - y1) / (2 * side), x1 + (j + 0.5) * (x2 - x1) / (2 * side)
            found[i // 2, j // 2] += value_at(picture, np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)) / 4
    return found


def random_boxes(rng, count, size, least=1):
    """Boxes `[count, 4]` with whole corners in a picture of `size` (height, width)."""
    corners = []
    for side in size[::-1]:
        near = rng.integers(0, side - least + 1, count)
        corners.append((near, rng.integers(near + least - 1, side)))
    (x1, x2), (y1, y2) = corners
    return np.stack([x1, y1, x2, y2], axis=1).astype(np.float64)


def padded(boxes, more=2):
    """True boxes and classes 1, 2, ... with `more` boxes of padding after them, float32 and int32."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    classes = np.concatenate([1 + np.arange(len(boxes)), np.zeros(more)]).astype(np.int32)
    return np.concatenate([boxes, np.zeros((more, 4), np.float32)]), classes
