"""A small file that is written anew, as a whole, whenever its text has changed: by one thread of its own."""

import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lectern.playout.kernel import Isolated
from lectern.playout.sentences import sentence

SLOW_S = 3.0
"""Seconds after which a write that has not ended is reported."""


class StateFile:
    """Keeps the file at *path* as *text* makes it, which a thread calls; *what* is its name for people.

    A disk that hangs holds up this thread and nobody else. There are never two writes at once: the late one could
    replace the newer one.
    """

    def __init__(self, what: str, path: Path, text: Callable[[], str], *, is_synced: bool) -> None:
        self.path = path
        self._what, self._text, self._is_synced = what, text, is_synced
        self._since = math.inf  # when the first write was asked for that has not ended, monotonic
        self._why: str | None = None
        self._wakes, self._lock = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None

    def write(self) -> None:
        """Have the text as it is now, or newer, written soon."""
        with self._lock:
            self._since = min(self._since, time.monotonic())
            self._wakes.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._write_newest, name=self.path.name, daemon=True)
            self._thread.start()

    @property
    def is_written(self) -> bool:
        """Whether no write is under way, or waits."""
        return self._since == math.inf

    @property
    def problem(self) -> str | None:
        """Why the file is not as it should be; None if it is, or is just being written."""
        if time.monotonic() - self._since > SLOW_S:
            return f"{self._what} is not written yet: the disk is slow, or hangs"
        return self._why

    def _write_newest(self) -> None:
        for draft in self.path.parent.glob(f".{self.path.name}.*.tmp"):  # of processes that were killed
            with suppress(OSError):
                draft.unlink()
        while True:
            self._wakes.wait()
            self._wakes.clear()
            with Isolated() as isolated:  # the next write is tried, whatever it was
                replace(self.path, self._text(), is_synced=self._is_synced)
            why = isolated.error.strerror if isinstance(isolated.error, OSError) else None
            said = sentence("{what} cannot be written: {why}", what=self._what, why=why or isolated.fault)
            self._why = said if isolated.error else None
            with self._lock:
                if not self._wakes.is_set():
                    self._since = math.inf


def replace(path: Path, text: str, *, is_synced: bool) -> None:
    """Replace the file *path* as a whole; *is_synced* returns when it is on the disk. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        if is_synced:
            os.fsync(file.fileno())
    draft.replace(path)
    if is_synced:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
