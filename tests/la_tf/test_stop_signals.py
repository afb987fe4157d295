"""Signals that ask to stop: heard once, the second one as if nobody listened, and none in another thread."""

import os
import signal
import threading

import pytest

from la_tf import stop_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_is_heard_and_the_second_is_not_kept_waiting(number):
    old, again = [], signal.getsignal(number)
    signal.signal(number, lambda number, frame: old.append(number))
    try:
        before = signal.getsignal(number)
        with stop_signals.heard() as heard:
            assert heard() is None
            os.kill(os.getpid(), number)
            assert heard() is number and old == []
            os.kill(os.getpid(), number)
            assert old == [number]
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, again)


def test_in_another_thread_nothing_is_heard_and_nothing_changed():
    before, seen = signal.getsignal(signal.SIGINT), []

    def listen():
        with stop_signals.heard() as heard:
            seen.append((heard(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [(None, before)]
