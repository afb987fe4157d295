"""PyTorch's side of a measurement, in a process of its own with an interpreter of its own.

TensorFlow and PyTorch share no process (nor an environment: `make bench-torch` makes PyTorch's) and must not run at the
same time: the child works when it is told to and waits on its standard input between, so that `alternate` takes turns.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INTERPRETER = "LA_TF_TORCH_PYTHON"


def torch_python():
    """Returns the path of an interpreter that has PyTorch, or None after a line on standard error."""
    path = Path(os.environ.get(INTERPRETER, ROOT / ".venv-torch" / "bin" / "python"))
    if path.exists():
        return path
    print(f"benchmarks: no PyTorch to compare with ({path} is missing): run `make bench-torch`", file=sys.stderr)
    return None


@contextlib.contextmanager
def torch_side(python, script, **arguments):
    """Yields a function that has `script`, a file of this folder, do its work once, and returns the seconds it took.

    `script` hands `serve` the function that makes the work of `arguments`. A child that fails is a RuntimeError.
    """
    command = [str(python), str(ROOT / "benchmarks" / script), json.dumps(arguments)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds():
        with contextlib.suppress(BrokenPipeError):
            print("go", file=child.stdin, flush=True)
        line = child.stdout.readline()
        if not line:
            raise RuntimeError(f"benchmarks/{script} ended with exit code {child.wait()}; its message is above")
        return float(line)

    try:
        yield seconds
    finally:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        child.wait()


def serve(make_work):
    """What a script of `torch_side` ends in: makes its work of the arguments, and does it once a line of its input."""
    work = make_work(**json.loads(sys.argv[1]))
    for _ in sys.stdin:
        started = time.perf_counter()
        work()
        print(time.perf_counter() - started, flush=True)
