"""What the holder finds and makes in its folder: the lock, the control socket, the lease of the holder before."""

import fcntl
import json
import os
import resource
import socket
from contextlib import suppress
from pathlib import Path

from lectern.playout import kernel


class Misuse(Exception):
    """The playout cannot be started so; the text says what to do."""


def allow_files() -> None:
    """Raise the limit of open files: each session takes two descriptors here, and two in the worker."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def locked(path: Path) -> int:
    """Hold the lock at *path* as long as this process lives; raises Misuse if another one does."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise Misuse(f"{path}: a playout runs in this folder already") from None
    return file


def listening(path: Path) -> socket.socket:
    """Listen on the control socket; the caller holds the lock, so an existing socket file is a leftover."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise Misuse(f"{path}: the control socket cannot be made: {error}. Name a shorter one with --socket") from error
    finally:
        os.umask(before)
    listener.listen(64)
    listener.settimeout(0)
    return listener


def kept_lease(path: Path) -> float:
    """The end of the lease as it was written down; 0 if the machine has been restarted since."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["boot"] == kernel.boot_id():
            return float(kept["until"])
    return 0.0
