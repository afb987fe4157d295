"""The devices that share every batch: one, several of this process (Mirrored), or those of several processes.

`Replicas` says what a step tells the other replicas, within the graph; its `processes` is what the processes tell each
other between steps.
"""

import re
import time
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from data.errors import FlagError, UserError
from la_tf.processes import ALONE, task
from la_tf.rendezvous import limited_wait, meet

SETTLE = 2  # seconds before one that has lost a worker ends: others are to see who was the first


class Replicas:
    """The R replicas of a tf.distribute strategy (None: the one whose scope this is), and which are this process' own.

    Replica r has part r of every batch, `[B/R]` pictures of B.
    """

    def __init__(self, strategy=None):
        self.strategy = strategy or tf.distribute.get_strategy()
        self.count = self.strategy.num_replicas_in_sync  # R
        several = isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy)
        self.processes = Processes(self.strategy) if several else ALONE
        self.here = self.count // self.processes.count  # replicas of this process
        self.first = self.processes.index * self.here  # of them

    # -- within a step ----------------------------------------------------------------------------------------------

    @property
    def index(self):
        """The number of the replica whose graph is being made, an int32 scalar."""
        return tf.cast(_context().replica_id_in_sync_group, tf.int32)

    def run(self, function, batch):
        """Calls `function` with its part of the process' `batch`, a dict of `[B/W, ...]`, on every replica of it."""
        if self.count == 1:
            return function(batch)
        return self.strategy.run(lambda: function(self._part(batch)))

    def _part(self, batch):
        number = self.index - self.first

        def part(tensor):
            length = tf.shape(tensor)[0] // self.here
            own = tensor[number * length : (number + 1) * length]
            own.set_shape([tensor.shape[0] and tensor.shape[0] // self.here, *tensor.shape[1:]])
            return own

        with tf.device("CPU:0"):  # so that a replica is sent nothing but its part
            return tf.nest.map_structure(part, batch)

    def sum(self, tensors):
        """Returns the sums over all replicas of a tensor, or of each in a nest of them."""
        if self.count == 1:
            return tensors
        # One by one: several int32 at once are refused. By identity they are tensors of this replica's device.
        reduced = partial(_context().all_reduce, tf.distribute.ReduceOp.SUM)
        return tf.nest.map_structure(lambda tensor: reduced(tf.identity(tensor)), tensors)

    def gather(self, tensor):
        """Returns the `[b, ...]` of all replicas behind each other, `[R b, ...]`, in their order."""
        if self.count == 1:
            return tensor
        if tensor.dtype == tf.bool:
            return self.gather(tf.cast(tensor, tf.int32)) > 0
        whole = _context().all_gather(tf.identity(tensor), axis=0)
        length = tensor.shape[0]
        whole.set_shape([length and self.count * length, *tensor.shape[1:]])
        return whole

    def own(self, gathered):
        """Returns the part `[b, ...]` that this replica gave to `gather`."""
        if self.count == 1:
            return gathered
        length = tf.shape(gathered)[0] // self.count
        own = gathered[self.index * length : (self.index + 1) * length]
        own.set_shape([gathered.shape[0] and gathered.shape[0] // self.count, *gathered.shape[1:]])
        return own

    # -- between steps ------------------------------------------------------------------------------------------------

    def copies(self, variable):
        """Returns the tf.Variables that the replicas of this process have of a variable, in order."""
        variable = variable.value if isinstance(variable, keras.Variable) else variable
        return list(self.strategy.experimental_local_results(variable)) if self.count > 1 else [variable]

    def levelling(self, variables):
        """Returns a function that gives all copies of `variables`, which replicas move on by themselves, their mean."""

        def level():
            values = [tf.identity(variable.value) for variable in variables]
            means = _context().all_reduce(tf.distribute.ReduceOp.MEAN, values)
            for variable, mean in zip(variables, means, strict=True):
                variable.assign(mean)

        return tf.function(lambda: self.strategy.run(level) if variables and self.count > 1 else None)


class Processes:
    """What the processes of a MultiWorkerMirroredStrategy tell each other, as `la_tf.processes` has it."""

    def __init__(self, strategy):
        resolver = strategy.cluster_resolver
        self._strategy = strategy
        self.count = strategy.extended._num_workers
        self.index = resolver.task_id
        self._here = strategy.num_replicas_in_sync // self.count

    def sum(self, array):
        """Returns the sum of all processes' `array`, of one shape everywhere."""
        array = np.asarray(array)
        values = self._strategy.experimental_distribute_values_from_function(
            # All but the first of this process' replicas have none of the process' own.
            lambda context: tf.constant(
                array if context.replica_id_in_sync_group % self._here == 0 else np.zeros_like(array)
            )
        )
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None).numpy()

    def gather(self, array):
        """Returns all processes' arrays behind each other along axis 0; lengths may differ."""
        array = np.asarray(array)
        if array.dtype == bool:
            return self.gather(array.astype(np.int32)) > 0
        lengths = self.sum(np.eye(self.count, dtype=np.int64)[self.index] * len(array))
        # By sums, each in its own place: TensorFlow's gather of an array without rows has ended the process.
        slots = np.zeros((self.count, int(lengths.max()), *array.shape[1:]), array.dtype)
        slots[self.index, : len(array)] = array
        slots = self.sum(slots) if slots.size else slots
        return np.concatenate([part[:length] for part, length in zip(slots, lengths, strict=True)])


def strategy_of(name, replicas=None):
    """Returns the tf.distribute strategy that `--strategy` names, None for one device; before all that TensorFlow does.

    replicas: of "mirrored", how many devices; None: all GPUs. Raises FlagError where there are not so many.
    """
    if name == "multiworker" and task()[1] == 1:  # a single process: all of its GPUs, or its one device
        return _mirrored(None if len(tf.config.list_physical_devices("GPU")) > 1 else 1)
    if name == "multiworker":
        meet()
        try:
            with limited_wait():
                return tf.distribute.MultiWorkerMirroredStrategy()
        except (tf.errors.OpError, RuntimeError) as error:
            raise UserError(f"--strategy=multiworker: {' '.join(str(error).split())}") from None
    return _mirrored(replicas) if name == "mirrored" else None


def _mirrored(replicas):
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and replicas is None:
        raise FlagError("--strategy=mirrored: there is no GPU; give --replicas=2 to divide the CPU, or --strategy=one")
    if gpus and replicas is not None and replicas > len(gpus):
        raise FlagError(f"--replicas={replicas}: there are {len(gpus)} GPUs; lower it")
    if not gpus:
        parts = [tf.config.LogicalDeviceConfiguration()] * replicas
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    kind, count = ("GPU", replicas or len(gpus)) if gpus else ("CPU", replicas)
    if count == 1:
        return None
    return tf.distribute.MirroredStrategy([f"{kind}:{number}" for number in range(count)])


def lost_process(error):
    """Returns a UserError that says which process of the run is gone; None where TensorFlow's error tells of none."""
    # Not the first task that is named, which may be this one, nor the last, which may have passed the news on.
    found = re.search(r"(?:Error reported from|remote target) /job:\w+(?:/replica:\d+)?/task:(\d+)", str(error))
    errors = tf.errors
    gone = (errors.UnavailableError, errors.AbortedError, errors.CancelledError, errors.DeadlineExceededError)
    if not found and not isinstance(error, gone):
        return None
    time.sleep(SETTLE)
    which = f"worker {found[1]}" if found else "a worker"
    return UserError(f"--strategy=multiworker: {which} is gone; the same command, given to all of them, resumes")


def _context():
    return tf.distribute.get_replica_context()
