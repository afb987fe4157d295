"""SIGTERM and SIGINT ask a run to end: it does so at the next step, behind a checkpoint."""

import contextlib
import os
import signal
import threading

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def heard():
    """Yields a function that returns the signal that came since, None before; a second one is not kept waiting.

    In another thread than the main one signals cannot be heard: what they did before they do still.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    received, before = [], {number: signal.getsignal(number) for number in SIGNALS}

    def answer(number, _):
        if received:
            signal.signal(number, before[number])
            os.kill(os.getpid(), number)
        received.append(signal.Signals(number))

    for number in SIGNALS:
        signal.signal(number, answer)
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
