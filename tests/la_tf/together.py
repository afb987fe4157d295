"""Threads that stand for the processes of a run: what `la_tf.processes` promises, checked more strictly than it is."""

import threading

import numpy as np
import tensorflow as tf

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


class Replica:
    """What `la_tf.replicas.Replicas` promises within a step, for eager tensors in one of `together`'s threads."""

    def __init__(self, process):
        self.count, self.index = process.count, process.index
        self.calls = process.calls
        self._process = process

    def sum(self, tensors):
        """Returns the sum of a tensor, or of each in a list, over all replicas."""
        if isinstance(tensors, list):
            return [self.sum(tensor) for tensor in tensors]
        return tf.constant(self._process.sum(tensors.numpy()))

    def gather(self, tensor):
        """Returns the tensors of all replicas, equal in shape, behind each other."""
        if tensor.dtype == tf.bool:
            return self.gather(tf.cast(tensor, tf.int32)) > 0
        return tf.constant(self._process.gather(tensor.numpy()))

    def own(self, gathered):
        """Returns this replica's part of what was gathered."""
        return tf.split(gathered, self.count)[self.index]
