"""How every main starts and ends: flags, one-line errors, exit codes 0 / 1 (failed) / 2 (bad flags)."""

import contextlib
import errno
import functools
import json
import math
import os
import re
import select
import signal
import sys

from absl import app, flags, logging

from data import flagfiles
from data.errors import FlagError, Stopped, UserError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # of a disk that is full, or must not be written to
LARGEST = 2**31  # of whole numbers: what counts and sizes are, or become, in TensorFlow and in files

flags.DEFINE_boolean("debug", False, "Show the traceback behind a one-line error.")


def run(main, resumes=False, files=False):
    """Runs `main()` after the flags are parsed; its result, a dict, is the last line of stdout, as JSON.

    `resumes` says that the same command goes on where it was interrupted. With `files` the words beside the flags,
    refused otherwise, are names of files, and it runs `main(names)`.
    """

    def start(argv):
        _guarded(functools.partial(main, argv[1:]) if files else main, resumes)

    app.run(start, flags_parser=functools.partial(_parse_flags, files=files))


def _parse_flags(argv, files):
    if {"--help", "-help", "-h", "-?"} & {*argv[1:]}:
        try:
            _print_help()
        except OSError as error:
            _end_unread(error)
            _leave(_of_system(error))
        sys.exit(0)  # absl would show the main's own flags alone, and call it a failure
    try:
        arguments, places = flagfiles.expanded(argv[1:])
        rest = _parsed([argv[0], *arguments], places)
        if len(rest) > 1 and not files:
            raise FlagError(f"{_at(places, rest[1])}{rest[1]}: flags alone are understood, e.g. --dataset=digits")
        _check_numbers()
    except UserError as error:
        _leave(error)
    return rest


def _parsed(argv, places):
    """Parses the flags; returns what is left over. FlagErrors name the file and line that an argument stands in."""
    try:
        return flags.FLAGS(argv)
    except RecursionError:  # absl looks for flags that are called alike
        raise FlagError("the name of a flag is far too long to be one") from None
    except flags.Error as error:
        named = re.match(r"(?:Unknown command line flag|flag) '?(?:--)?(\w+)", str(error))
        raise FlagError(_at(places, named and named[1]) + " ".join(str(error).split())) from None


def _at(places, wanted):
    """Where in a flagfile an argument, or the flag of that name, stands, as the beginning of a message."""
    found = (place for each, place in places.items() if each == wanted or flagfiles.name_of(each) == wanted)
    return next((f"{place}: " for place in found), "")


def _check_numbers():
    """Raises FlagError for a number that is none, or that counts more than there can be of anything here."""
    for flag in (flags.FLAGS[name] for name in flags.FLAGS):
        if flag.present and isinstance(flag.value, float) and not math.isfinite(flag.value):
            raise FlagError(f"--{flag.name}={flag.value}: must be a finite number")
        if flag.present and isinstance(flag.value, int) and not abs(flag.value) < LARGEST:
            raise FlagError(f"--{flag.name}={flag.value}: must be below 2^31")


def _print_help():
    """Prints what the main does and every flag of ours, by the module that defines it."""
    print(sys.modules["__main__"].__doc__)
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if defined and not module.startswith("absl."):
            print(flags.FLAGS.module_help(module))
    sys.stdout.flush()


def _guarded(main, resumes):
    logging.set_verbosity(logging.WARNING)  # TensorFlow reports every saved asset otherwise
    try:
        result = main()
        print(json.dumps(result), flush=True)
    except UserError as error:
        if flags.FLAGS.debug:
            raise
        _leave(error)
    except OSError as error:
        _end_unread(error)
        told = None if flags.FLAGS.debug else _of_system(error)
        if told is None:
            raise
        _leave(told)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)
    except MemoryError as error:
        if flags.FLAGS.debug:
            raise
        what = f" ({error})" if str(error) else ""
        _leave(UserError(f"out of memory{what}: lower --batch_size, --image_size or --workers, where there are"))
    except KeyboardInterrupt:
        print("stopped; the same command resumes" if resumes else "stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        known = _of_name(error) if isinstance(error, UnicodeEncodeError) else _of_tensorflow(error)
        if known is None or flags.FLAGS.debug:
            raise
        _leave(known)


def _end_unread(error):
    """Ends the process in silence where the error is that nobody reads any more what it prints, as in `| head`."""
    if not isinstance(error, BrokenPipeError):
        return
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)
    if any(events & select.POLLERR for _, events in poll.poll(0)):
        _settle_output()
        sys.exit(128 + signal.SIGPIPE)


def _settle_output():
    """Gives up what cannot be printed: it would fail again, loudly, when the process ends."""
    try:
        if sys.stdout is not None:  # as it is with >&-
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _of_system(error):
    """Returns the UserError that stands for an OSError, None where that is no matter of files and disks."""
    if error.errno in NO_ROOM:
        where = error.filename or "the disk that is written to"
        return UserError(f"{_named(where)}: {error.strerror}; make room there, or choose another folder")
    if error.filename is None or error.strerror is None:
        return None
    return UserError(f"{_named(error.filename)}: {error.strerror}")


def _of_name(error):
    """Returns the UserError that stands for a name of other bytes than UTF-8, where TensorFlow or JSON want that."""
    if error.reason != "surrogates not allowed":
        return None
    return UserError(f"{error.object:.200}: is no name in UTF-8, which is needed here; choose another")


def _named(path):
    return os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else path


def _of_tensorflow(error):
    """Returns the UserError that stands for one of TensorFlow's, None where there is none."""
    if "tensorflow" not in sys.modules:
        return None
    from data import tf_errors

    return tf_errors.told(error)


def _leave(error):
    print(f"error: {_one_line(str(error))}", file=sys.stderr)
    _settle_output()
    sys.exit(error.exit_code)


def _one_line(text):
    """The text without line ends, nor what commands a terminal: names of files may hold either."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def load_tensorflow(deterministic=False):
    """Imports TensorFlow, once the flags are known to be good, quietly and with the CPU kernels that fit."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors come as exceptions; a bad picture is named once
    if deterministic:
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # its sums depend on where a buffer happens to lie in memory
    else:
        # Off by default on CPUs without AVX-512, where it nearly halves the time of a training step as well.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with quiet_stderr():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def quiet_stderr():
    """Hides what native libraries print while they load, such as TensorFlow's search for a GPU driver."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
