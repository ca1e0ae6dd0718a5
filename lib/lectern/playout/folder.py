"""What the supervisor finds and makes in its folder: its lock, its sockets, and the last supervisor's lease."""

import fcntl
import json
import os
import resource
import socket
from contextlib import suppress
from pathlib import Path

from lectern.playout import kernel


class Misuse(Exception):
    """The playout cannot be started like this; the text says what to do."""


def allow_files() -> None:
    """Raise the limit of open files: each session takes two descriptors here, and two in the worker."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def made(path: Path) -> None:
    """Make the folder at *path* if it is not there; raises Misuse if that is impossible."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Misuse(f"{path}: cannot be made: {error.strerror}. Name another folder with --dir") from error


def locked(path: Path) -> int:
    """Hold the lock at *path* while this process lives; raises Misuse if another process holds it."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Misuse(f"{path}: cannot be written: {error.strerror}. Name another folder with --dir") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise Misuse(f"{path}: a playout runs in this folder already") from None
    return file


def listening(path: Path, option: str) -> socket.socket:
    """Listen on a socket; the caller holds the lock, so an existing file is a leftover.

    Raises Misuse, which names the *option* that moves the socket elsewhere.
    """
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
    except OSError as error:
        why = error.strerror or error
        raise Misuse(f"{path}: the socket cannot be made: {why}. Name another place with {option}") from error
    finally:
        os.umask(before)
    listener.listen(64)
    listener.settimeout(0)
    return listener


def kept_lease(path: Path) -> float:
    """The end of the lease on disk, by kernel.boot_now; 0 if there is none, or the machine was restarted since."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        lease = json.loads(path.read_text(encoding="utf-8"))
        if lease["boot"] == kernel.boot_id():
            return float(lease["until"])
    return 0.0
