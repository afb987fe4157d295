"""Runs many command lines that end before TensorFlow is needed, in forks of one process: a tenth of a second each."""

import importlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback

from tests.programs import ROOT, environment

LONGEST = 60  # seconds: who waits for a pipe waits for ever
MEMORY = 4 << 30  # bytes: who reads a device to its end takes all


def outcomes(commands, cwd):
    """Returns (exit code, stdout, stderr) of each of the command lines, lists of a main and its arguments.

    One that would go on to TensorFlow ends with 77, one that takes too long with minus the signal.
    """
    asked = json.dumps([[os.fsencode(word).hex() for word in command] for command in commands])
    process = subprocess.run(
        [sys.executable, "-m", __name__, str(cwd)], input=asked, capture_output=True, text=True, cwd=ROOT,
        env=environment(), check=True,
    )  # fmt: skip
    return [tuple(each) for each in json.loads(process.stdout)]


def _run(main, arguments, cwd):
    with open(os.devnull) as nothing, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            _become(main, arguments, cwd, (nothing, out, err))
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="backslashreplace"))
        return os.waitstatus_to_exitcode(status), *texts


def _become(main, arguments, cwd, files):
    signal.alarm(LONGEST)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for number, file in enumerate(files):
        os.dup2(file.fileno(), number)
    os.chdir(cwd)
    sys.argv = [main, *arguments]
    code = 1
    try:
        from data import cli

        cli.load_tensorflow = lambda *_, **__: os._exit(77)
        runpy.run_module(main, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for module in ("absl.app", "tabulate", "data.digits", "la_tf.experiment", "detection.voc_ap"):
        importlib.import_module(module)  # once, and not in each child; none of them defines flags
    lines = json.load(sys.stdin)
    words = [[os.fsdecode(bytes.fromhex(word)) for word in line] for line in lines]
    print(json.dumps([_run(main, arguments, sys.argv[1]) for main, *arguments in words]))
