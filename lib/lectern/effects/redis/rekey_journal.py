"""The journal of renamed keys: a file of old and new names, written while the server renames."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lectern.errors import Misuse

FSYNC_EVERY_S = 0.1


class Journal:
    """A file of old and new names; without a file, nothing is written.

    Names are synced every 0.1 s, while the server renames the next keys. A crash loses at most the names of two such
    intervals, or of two syncs if the disk is slow.
    """

    def __init__(self, file: BinaryIO | None, disk: Executor) -> None:
        self._file, self._disk = file, disk
        self._synced_at = time.monotonic()
        self._syncing: Future[None] | None = None

    @property
    def wanted(self) -> bool:
        """Whether the names are to be written to a file."""
        return self._file is not None

    @classmethod
    @contextmanager
    def opened(cls, path: Path | None) -> Iterator["Journal"]:
        """Open the journal at *path* to append to it; at the end all of it is on disk. Raises Misuse, OSError."""
        with ThreadPoolExecutor(1, thread_name_prefix="journal") as disk:
            if path is None:
                yield cls(None, disk)
                return
            try:
                file = path.open("a+b")
            except OSError as error:
                raise Misuse(f"{path}: the journal cannot be written: {error.strerror}. Name another file.") from error
            with file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - 1, 0))
                if file.read(1) not in {b"", b"\n"}:
                    file.write(b"\n")  # a crash tore the last line
                made = cls(file, disk)
                try:
                    yield made
                finally:
                    made._sync()
                    made._settle()

    def write(self, names: bytes) -> None:
        """Add lines; raises the error of an earlier sync, if it failed."""
        if self._file is not None and names:
            self._file.write(names)
            if time.monotonic() - self._synced_at > FSYNC_EVERY_S:
                self._sync()

    def _sync(self) -> None:
        if self._file is not None:
            self._file.flush()
            self._settle()
            self._syncing = self._disk.submit(os.fsync, self._file.fileno())
            self._synced_at = time.monotonic()

    def _settle(self) -> None:
        """Wait for the sync under way; raises its error."""
        if self._syncing is not None:
            self._syncing.result()
