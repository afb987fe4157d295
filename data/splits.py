"""Which training pictures schedules and early stopping look at, and which keep their labels for fine-tuning."""

import numpy as np

from data.draws import labelled_keys, validation_keys


def validation_rows(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Rows of the validation slice, sorted int64: `fraction` of each class, a function of (labels, fraction, seed).

    `labels` is [N] int64, -1 for unknown.  A class gives round(fraction * its size), at least one picture where it
    has two, never all of them.  Unlabelled pictures are left out unless there are no others; then they are drawn
    from as one class.  `fraction` 0 gives none.
    """
    labels = np.asarray(labels)
    if fraction == 0 or len(labels) == 0:
        return np.zeros(0, np.int64)
    order = np.argsort(validation_keys(seed, len(labels)), kind="stable")
    chosen = []
    for label in np.unique(labels[labels >= 0]) if (labels >= 0).any() else [-1]:
        members = order[labels[order] == label]
        count = min(max(int(np.floor(fraction * len(members) + 0.5)), 1), len(members) - 1)
        chosen.append(members[:count])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def labelled_rows(labels: np.ndarray, fraction: float, seed: int, without: np.ndarray = ()) -> np.ndarray:
    """Rows that keep their labels, sorted int64: `fraction` of each class, at least one picture of it.

    `labels` is [N] int64, -1 for unknown; the rows `without` are left out before the fraction is taken.  A smaller
    fraction of the same seed is a part of a larger one.
    """
    labels = np.asarray(labels)
    order = np.argsort(labelled_keys(seed, len(labels)), kind="stable")
    order = order[~np.isin(order, without)]
    chosen = [np.zeros(0, np.int64)]
    for label in np.unique(labels[labels >= 0]):
        members = order[labels[order] == label]
        chosen.append(members[: max(int(np.floor(fraction * len(members) + 0.5)), 1)])
    return np.sort(np.concatenate(chosen)).astype(np.int64)
