"""The processes of a run on one machine: what each is told, and how they live and end together. No TensorFlow."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from data.errors import FlagError
from data.processors import cores
from la_tf.child_processes import tied

SETTLE = 2  # seconds for the others to say for themselves that they lost one
GRACE = 10  # seconds from a request to stop to kill -9, once a worker has failed
PATIENCE = 600  # the same where the user asked: a step, an evaluation and a checkpoint may lie before the end
HELP = {"--help", "-help", "-h", "-?"}


def run(command, count):
    """Runs `count` workers of one command line until all have ended; returns the exit code of their fate."""
    shares = [share_of_gpus(worker, count, visible_gpus()) for worker in range(count)]
    with _received_signals() as received, _ports(count) as ports:
        environments = [environment(worker, ports, shares[worker]) for worker in range(count)]
        return _watched(_start(command, environments), received)


def split(argv):
    """Returns this program's own arguments and the workers' flags, which are those behind `--`; None without it."""
    if "--" in argv:
        place = argv.index("--")
        return argv[:place], argv[place + 1 :]
    return argv[:1] + [argument for argument in argv if argument in HELP], None


# -- what a worker is told --------------------------------------------------------------------------------------------


def environment(worker, ports, gpus=None):
    """Returns the environment of a worker: this process' own with TF_CONFIG, its share of the cores, and its GPUs."""
    threads = str(max(1, cores() // len(ports)))
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    told = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": worker}})}
    if gpus is not None:
        told["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    if hasattr(socket, "SO_REUSEPORT"):
        told["TF_GRPC_REUSE_PORT"] = "1"  # beside the socket that keeps the port for it
    return {"OMP_NUM_THREADS": threads, "TF_NUM_INTRAOP_THREADS": threads, **os.environ, **told}


def visible_gpus():
    """Returns the names, for CUDA_VISIBLE_DEVICES, of the GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    return [str(number) for number in range(len([*Path("/dev").glob("nvidia[0-9]*")]))]


def share_of_gpus(worker, count, gpus):
    """Returns a worker's GPUs, as many for each; None where there are none. Raises FlagError for too few."""
    if not gpus:
        return None
    if len(gpus) < count:
        raise FlagError(
            f"--workers={count}: more than there are GPUs ({len(gpus)}); lower it, or use none by CUDA_VISIBLE_DEVICES="
        )
    each = len(gpus) // count
    return gpus[worker * each : (worker + 1) * each]


@contextlib.contextmanager
def _ports(count):
    """Yields free ports that nobody else is given as long as the workers run."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for held in sockets:
            if hasattr(socket, "SO_REUSEPORT"):
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(("localhost", 0))  # all at once, so that they differ
        ports = [held.getsockname()[1] for held in sockets]
        if not hasattr(socket, "SO_REUSEPORT"):
            stack.close()  # a worker could not listen there; TensorFlow says so if somebody else is quicker
        yield ports


# -- their lives ------------------------------------------------------------------------------------------------------


def _start(command, environments):
    """Starts the workers; returns their Popens, in order."""
    tie, workers = tied(signal.SIGKILL), []
    try:
        for variables in environments:
            # Ctrl-C in a terminal goes to a whole group of processes: theirs are others, so that they hear of it once.
            output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE} if workers else {}
            workers.append(
                subprocess.Popen(
                    command, env=variables, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=tie, **output
                )
            )
    except BaseException:
        _send(workers, signal.SIGKILL)
        raise
    return workers


@contextlib.contextmanager
def _received_signals():
    """Yields a list that SIGINT and SIGTERM are added to instead of ending this process."""
    received = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, frame: received.append(signal.Signals(number)))
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watched(workers, received):
    """Waits until all `workers` have ended, stops them when one fails or a signal comes; returns the exit code."""
    numbers = range(1, len(workers))
    relays = [threading.Thread(target=_relay, args=(n, workers[n], received), daemon=True) for n in numbers]
    for relay in relays:
        relay.start()
    try:
        code = _fate(workers, received)
    finally:
        _send(workers, signal.SIGKILL)
    for relay in relays:
        relay.join(1)  # no longer: a process of a worker's own may hold the other end
    return code


def _relay(number, worker, received):
    """Prints a worker's stderr, each line behind its name; not what it says of being stopped."""
    for line in worker.stderr:
        if received:
            continue
        sys.stderr.write(f"[worker {number}] {line.decode(errors='replace')}")
        sys.stderr.flush()


def _fate(workers, received):
    while not received and not _failed(workers) and None in _codes(workers):
        time.sleep(0.05)
    if received:
        asked = received[0]
        # The first one alone: the others answer it until it has come to an end.
        _stop(workers[:1], asked, received, PATIENCE)
        _stop(workers[1:], asked, received)
        if workers[0].returncode != 128 + asked:  # otherwise it has said so itself
            print(f"stopped by {asked.name}; the same command resumes", file=sys.stderr)
        return 128 + asked
    if not _failed(workers):
        return 0
    first = _failed(workers)[0]
    _wait(workers, SETTLE, received)
    # One that was killed is to blame, whoever noticed first.
    first = next((number for number in _failed(workers) if workers[number].returncode < 0), first)
    code, running = workers[first].returncode, None in _codes(workers)
    _stop(workers, signal.SIGTERM, received)
    others = ", the others have been stopped" if running else ", the others ended as well" if len(workers) > 1 else ""
    print(f"error: worker {first} {_end(code)}{others}; {_remedy(code)}", file=sys.stderr)
    return 2 if code == 2 else 1


def _codes(workers):
    return [worker.poll() for worker in workers]


def _failed(workers):
    return [number for number, code in enumerate(_codes(workers)) if code]


def _wait(workers, seconds, received):
    """Waits for all to end, no longer than that, nor through a further signal."""
    end, before = time.monotonic() + seconds, len(received)
    while None in _codes(workers) and time.monotonic() < end and len(received) == before:
        time.sleep(0.05)


def _stop(workers, number, received, patience=GRACE):
    """Asks the workers to end by a signal; kills those that have not after a while, or when asked a second time."""
    _send(workers, number)
    _wait(workers, patience, received)
    _send(workers, signal.SIGKILL)
    for worker in workers:
        worker.wait()


def _send(workers, number):
    """Sends a signal to each worker that has not ended, and to what it has started itself."""
    for worker in workers:
        if worker.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, number)


def _end(code):
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _remedy(code):
    return "the same command resumes" if code < 0 else "its own message says why"
