"""SIGTERM is heard whenever it comes."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.live

EVERY_LINE = """
import signal, sys, threading, time
from flows.resident.process import asked_to_end, signals

def heard(at: int) -> bool:
    lines = 0
    def trace(frame, event, argument):
        nonlocal lines
        if frame.f_code.co_filename != threading.__file__:
            return trace
        lines += event == "line"
        if lines == at:
            lines += 1
            signal.raise_signal(signal.SIGTERM)
        return trace
    over = threading.Event()
    thread = threading.Thread(target=over.wait, args=(60,), daemon=True)
    thread.start()
    sys.settrace(trace)
    try:
        return asked_to_end(thread, signals())
    finally:
        sys.settrace(None)
        over.set()

heard(1)
print(all(heard(at) for at in range(1, 60)))
"""


def test_sigterm_is_heard_at_every_line_of_the_wait() -> None:
    """Also in the middle of one, where a handler that takes the lock of an event would wait for itself for ever."""
    found = subprocess.run([sys.executable, "-c", EVERY_LINE], capture_output=True, text=True, timeout=100, check=False)
    assert (found.returncode, found.stdout.strip()) == (0, "True"), found.stderr
