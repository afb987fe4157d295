"""The workers of TF_CONFIG meet before TensorFlow starts: it would wait for those that never come in silence, for ever.

No TensorFlow.
"""

import contextlib
import faulthandler
import os
import socket
import sys
import time

from data.errors import UserError
from la_tf.processes import workers

PATIENCE, LIMIT = 30, 600  # seconds until those that are missing are named, and until they are given up
LOCAL = ("localhost", "127.0.0.1")  # where nobody of another machine can come
SETUP = 300  # seconds that TensorFlow may take once all are there


def meet(patience=PATIENCE, limit=LIMIT):
    """Returns when every worker listens at its address; raises UserError naming those that never do."""
    addresses, index = workers()
    missing = {number: address for number, address in enumerate(addresses) if number != index}
    start, said = time.monotonic(), False
    with _listener(addresses[index]):  # its queue alone answers the others; TensorFlow's server takes the port over
        while missing:
            missing = {number: address for number, address in missing.items() if not _answers(address)}
            waited = time.monotonic() - start
            names = ", ".join(f"worker {number} ({address})" for number, address in missing.items())
            if missing and waited > limit:
                raise UserError(f"{names}: not there after {limit:.0f} s; start all workers of TF_CONFIG")
            if missing and waited > patience and not said:
                print(f"waiting for {names}", file=sys.stderr, flush=True)
                said = True
            if missing:
                time.sleep(0.2)


@contextlib.contextmanager
def limited_wait():
    """Ends the process if the block, in which TensorFlow keeps Python's lock, takes longer than SETUP seconds."""
    faulthandler.dump_traceback_later(SETUP, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _listener(address):
    host, port = address.rsplit(":", 1)
    port = int(port)
    shared = os.environ.get("TF_GRPC_REUSE_PORT") == "1"  # la_tf.launch keeps the port by a socket of its own
    try:
        if host in LOCAL:
            return socket.create_server((host, port), reuse_port=shared)
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=shared)
        return socket.create_server(("", port), reuse_port=shared)
    except OSError as error:
        raise UserError(f"{address}: this worker's address in TF_CONFIG cannot be used: {error.strerror}") from None


def _answers(address):
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError:  # refused, or a name that is not known yet
        return False
    return True
