"""Rows that are spread over the processes of a run: numbered through, drawn alike everywhere, fetched where wanted."""

import numpy as np


class SpreadRows:
    """This process' `rows` `[n, ...]` among those of all processes, numbered in the order of the processes.

    first is the number of its first row, total the number of all. To make one is a collective call.
    """

    def __init__(self, rows, processes):
        lengths = processes.gather(np.array([len(rows)]))
        self.rows = rows
        self.first = int(lengths[: processes.index].sum())
        self.total = int(lengths.sum())
        self._processes = processes

    def here(self, numbers):
        """Returns those of the rows `numbers` `[k]` that this process has, in that order."""
        return self.rows[self.local(numbers)[1]]

    def everywhere(self, numbers):
        """Returns the rows `numbers` `[k]`, `[k, ...]`, whoever has them; a collective call, for the same numbers."""
        found = np.zeros((len(numbers), *self.rows.shape[1:]), self.rows.dtype)
        mine, places = self.local(numbers)
        found[mine] = self.rows[places]
        return self._processes.sum(found) if len(numbers) else found

    def local(self, numbers):
        """Returns which of `numbers` `[k]` are rows of this process, `[k]` bool, and where in `rows` these are."""
        places = numbers - self.first
        mine = (places >= 0) & (places < len(self.rows))
        return mine, places[mine]


def share(rows, batch_size, index, count):
    """Returns those of `rows` `[n]` that process `index` of `count` reads: batches index, index + count and so on.

    One batch of each process after the other is then what one process alone would read, in its order.
    """
    starts = range(index * batch_size, len(rows), count * batch_size)
    return np.concatenate([rows[:0], *(rows[start : start + batch_size] for start in starts)])
