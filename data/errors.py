"""What ends a main before its time: mains print the message alone and exit with the code."""


class UserError(Exception):
    """One line that names the culprit (file, record, folder) and what to do about it."""

    exit_code = 1


class FlagError(UserError):
    """A flag is wrong; the message starts with the flag, as in `--batch_size=4096: ...`."""

    exit_code = 2


class Stopped(Exception):
    """A signal, a `signal.Signals`, asked the process to end, and all that was done is on disk."""

    def __init__(self, signal, where):
        super().__init__(f"stopped by {signal.name} {where}; the same command resumes")
        self.exit_code = 128 + signal
