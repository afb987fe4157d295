"""Writes the checkpoints of a run beside its training, which stops only until their arrays are copied."""

from la_tf import checkpoints
from la_tf.background_job import Job


class CheckpointWriter:
    """Writes one checkpoint at a time to `model_dir`, with `options` as `checkpoints.begin` takes them.

    What goes wrong is raised by the next call of any method. Of several processes each has one, and all call `write`
    together.
    """

    def __init__(self, model_dir, **options):
        self._model_dir = model_dir
        self._options = options
        self._job = None

    def write(self, step, arrays, state, parts):
        """Begins to write the checkpoint of `step`, once the last one is written; returns its folder to be.

        The arrays must not change any more.
        """
        self.wait()
        folder, finish = checkpoints.begin(self._model_dir, step, arrays, state, parts=parts, **self._options)
        self._job = Job(finish, "checkpoint")
        return folder

    def wait(self):
        """Returns when nothing is being written; raises UserError where that failed."""
        job, self._job = self._job, None
        if job is not None:
            job.result()

    @property
    def busy(self):
        """Whether a checkpoint is being written."""
        return self._job is not None and not self._job.done

    def check(self):
        """Raises UserError where writing failed, without waiting for it."""
        if not self.busy:
            self.wait()
