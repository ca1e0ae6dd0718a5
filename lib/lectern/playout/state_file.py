"""A small file that is replaced as a whole whenever its text has changed, by one thread at a time."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lectern.playout.kernel import Isolated
from lectern.playout.sentences import sentence

WAIT_S = 3.0
"""Seconds for which anybody waits for a write; a disk that hangs longer is written when it goes on."""


class StateFile:
    """Keeps the file at *path* as *text* makes it, which a thread calls; *what* is its name for people.

    There are never two writes at once: the late one could replace the newer one, and each write that a hanging disk
    holds up takes one of the threads that recordings are read by.
    """

    def __init__(self, what: str, path: Path, text: Callable[[], str], *, is_synced: bool) -> None:
        self.problem: str | None = None
        """Why the file is not as it should be; None if it is."""
        self.path = path
        self._what, self._text, self._is_synced = what, text, is_synced
        self._asked = self._written = 0
        self._one_more = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._is_swept = False

    async def write(self) -> str | None:
        """Write the text as it is now, or newer; returns the reason if that failed, or is not done within `WAIT_S`."""
        self._asked += 1
        wanted = self._asked
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_newest())
        try:
            async with asyncio.timeout(WAIT_S):
                while self._written < wanted:  # a write that begins after this call will do
                    await self._one_more.wait()
        except TimeoutError:
            self.problem = f"{self._what} is not written yet: the disk is slow, or hangs"
        return self.problem

    async def _write_newest(self) -> None:
        """Write until no newer text was asked for meanwhile."""
        while self._written < self._asked:
            asked = self._asked
            with Isolated() as isolated:  # whoever waits must hear of it, and the next write be tried
                await asyncio.to_thread(self._replace)
            why = isolated.error.strerror if isinstance(isolated.error, OSError) else None
            self.problem = (
                sentence("{what} cannot be written: {why}", what=self._what, why=why or isolated.fault)
                if isolated.error
                else None
            )
            self._written = asked
            self._one_more.set()
            self._one_more = asyncio.Event()

    def _replace(self) -> None:
        if not self._is_swept:
            self._is_swept = True
            for draft in self.path.parent.glob(f".{self.path.name}.*.tmp"):  # of workers that were killed
                with suppress(OSError):
                    draft.unlink()
        replace(self.path, self._text(), is_synced=self._is_synced)


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
