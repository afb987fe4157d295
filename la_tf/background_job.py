"""A call under way in a thread while training goes on. No TensorFlow in here."""

import threading


class Job:
    """Runs `call()` in a thread called `name`; a daemon, for which a process that ends does not wait."""

    def __init__(self, call, name):
        self._returned = self._error = None
        self._thread = threading.Thread(target=self._run, args=(call,), name=name, daemon=True)
        self._thread.start()

    def _run(self, call):
        try:
            self._returned = call()
        except BaseException as error:  # raised by `result`, where it can be told
            self._error = error

    @property
    def done(self):
        """Whether the call has returned, or raised something."""
        return not self._thread.is_alive()

    def result(self):
        """Waits for the call; returns what it returned, or raises what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._returned
