"""How every main starts and ends: flags, one-line errors, exit codes 0 / 1 (failed) / 2 (bad flags)."""

import contextlib
import errno
import functools
import json
import os
import sys

from absl import app, flags, logging

from data.errors import FlagError, Stopped, UserError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # of a disk that is full, or must not be written to

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
        _print_help()
        sys.exit(0)  # absl would show the main's own flags alone, and call it a failure
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, OSError) as error:  # OSError: a flagfile that is not there
        _leave(FlagError(" ".join(str(error).split())))
    if len(rest) > 1 and not files:
        _leave(FlagError(f"{rest[1]}: flags alone are understood, e.g. --dataset=digits"))
    return rest


def _print_help():
    """Prints what the main does and every flag of ours, by the module that defines it."""
    print(sys.modules["__main__"].__doc__)
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if defined and not module.startswith("absl."):
            print(flags.FLAGS.module_help(module))


def _guarded(main, resumes):
    logging.set_verbosity(logging.WARNING)  # TensorFlow reports every saved asset otherwise
    try:
        result = main()
    except UserError as error:
        if flags.FLAGS.debug:
            raise
        _leave(error)
    except OSError as error:
        if error.errno not in NO_ROOM or flags.FLAGS.debug:
            raise
        where = error.filename or "the disk that is written to"
        _leave(UserError(f"{where}: {error.strerror}; make room there, or choose another folder"))
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)
    except MemoryError as error:
        if flags.FLAGS.debug:
            raise
        _leave(UserError(f"out of memory{f' ({error})' if str(error) else ''}: lower --batch_size, or the data's size"))
    except KeyboardInterrupt:
        print("stopped; the same command resumes" if resumes else "stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        known = _of_tensorflow(error)
        if known is None or flags.FLAGS.debug:
            raise
        _leave(known)
    print(json.dumps(result))


def _of_tensorflow(error):
    """Returns the UserError that stands for one of TensorFlow's, None where there is none."""
    if "tensorflow" not in sys.modules:
        return None
    from data import tf_errors

    return tf_errors.told(error)


def _leave(error):
    print(f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


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
