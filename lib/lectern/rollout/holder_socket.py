"""The socket of the process that keeps a host's programs stopped, and what a rollback asks of it."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKET = "holder.sock"
TAKE_BACK = "take back"
"""The request that is no task: undo everything."""

TAKE_BACK_S = 300.0
"""Seconds for which a rollback waits until the process has ended its step and undone everything."""


@contextmanager
def address(folder: Path) -> Iterator[str]:
    """A short path to the socket in *folder*: a socket's path is limited to 108 bytes."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


def take_back(folder: Path) -> str | None:
    """Have a window that is under way undone, instead of waiting for its end; returns what came of it, in a sentence.

    None if there is none, or if it ended meanwhile: then the journal says what is to be done.
    """
    try:
        with address(folder) as place, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TAKE_BACK_S)
            connection.connect(place)
            connection.sendall(json.dumps({"task": TAKE_BACK}).encode() + b"\n")
            with connection.makefile("r", encoding="utf-8") as file:
                return str(json.loads(file.readline())["msg"])
    except (OSError, ValueError, KeyError):
        return None
