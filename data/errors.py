"""The two errors that a user can mend; mains print the message alone and exit with the code."""


class UserError(Exception):
    """One line that names the culprit (file, record, folder) and what to do about it."""

    exit_code = 1


class FlagError(UserError):
    """A flag is wrong; the message starts with the flag, as in `--batch_size=4096: ...`."""

    exit_code = 2
