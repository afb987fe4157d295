"""Threads that stand for the processes of a run: what `la_tf.processes` promises, checked more strictly than it is."""

import threading

import numpy as np

SECONDS = 60  # for all to come to a call; then the ones that wait fail instead of hanging


class _Meeting:
    """Where threads lay down what each gives and pick up what all have given."""

    def __init__(self, count):
        self.barrier = threading.Barrier(count, timeout=SECONDS)
        self.given = [None] * count


class Process:
    """One of `count`; `calls` lists what it took part in: the call, the number of bytes that it gave."""

    def __init__(self, index, count, meeting):
        self.index, self.count = index, count
        self.calls = []
        self._meeting = meeting

    def sum(self, array):
        """Returns the sum of all processes' `array`; they must be of one shape and type, and hold something."""
        given = self._exchange("sum", array)
        assert {(part.shape, part.dtype) for part in given} == {(array.shape, array.dtype)}, "of different kinds"
        assert array.dtype in ("float32", "float64", "int32", "int64") and array.size
        return sum(given[1:], given[0].copy())

    def gather(self, array):
        """Returns all processes' arrays behind each other; they must be of one type and the same but for length."""
        given = self._exchange("gather", array)
        assert {(part.shape[1:], part.dtype) for part in given} == {(array.shape[1:], array.dtype)}, "different kinds"
        return np.concatenate(given)

    def _exchange(self, call, array):
        self.calls.append((call, array.nbytes))
        self._meeting.given[self.index] = call, array.copy()
        self._meeting.barrier.wait()
        given = list(self._meeting.given)
        self._meeting.barrier.wait()
        assert {name for name, _ in given} == {call}, "the processes make different calls"
        return [part for _, part in given]


def together(count, work):
    """Returns `[work(process) for each of count processes]`, all at once; raises what one of them raised first."""
    meeting, found, errors = _Meeting(count), [None] * count, []

    def run(index):
        try:
            found[index] = work(Process(index, count, meeting))
        except BaseException as error:  # raised below; the others are not to wait for this one
            errors.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]
    if errors:
        raise (own or errors)[0]
    return found


def shares(array, *sizes):
    """Cuts `array` into parts of these sizes and the rest."""
    return np.split(array, np.cumsum(sizes))
