"""Runs in a child between fork and exec; imports nothing there, because another thread could hold the import lock."""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def last_will(file_limit_bytes: int | None, nice: int) -> Callable[[], None] | None:
    """A function for the child: die with us, bound its files, give way by *nice*; None if there is nothing to do."""
    if _LIBC is None and file_limit_bytes is None and not nice:
        return None
    parent, libc = os.getpid(), _LIBC

    def child() -> None:
        if nice:
            os.nice(nice)
        if file_limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit_bytes, file_limit_bytes))
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != parent:  # we died before the child could ask
                os._exit(1)

    return child
