"""The quarantine of a streamer's cache, bounded by bytes and age: files that are no rendition, or damaged."""

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lectern import words
from lectern.effects.files.store import QUARANTINE

_log = logging.getLogger("lectern")
KEEP_S = 30 * 86_400.0
"""Seconds after which a file in quarantine is deleted."""

SHARE = 0.1
"""Part of MAX_VIDEO_SIZE that the quarantine may take, beside the cache; its newest file stays in any case."""


@dataclass(frozen=True)
class Aside:
    """A file in quarantine; *since* is epoch seconds."""

    path: Path
    size_bytes: int
    since: float


def held(root: Path) -> list[Aside]:
    """The files in quarantine, the newest first."""
    return sorted(_files(root / QUARANTINE), key=lambda one: (-one.since, str(one.path)))


def prune(root: Path, max_bytes: float, now: float) -> list[Aside]:
    """Delete files that are too old, and the oldest ones over *max_bytes*; returns the deleted files.

    A file that cannot be deleted is logged, and tried again at the next start.
    """
    gone: list[Aside] = []
    kept_bytes = 0
    for number, one in enumerate(held(root)):
        kept_bytes += one.size_bytes
        if now - one.since > KEEP_S or (number > 0 and kept_bytes > max_bytes):
            try:
                one.path.unlink(missing_ok=True)
            except OSError as error:
                why = error.strerror or error
                _log.warning("%s: cannot be deleted from the quarantine: %s", words.path(one.path), why)
            else:
                gone.append(one)
    _drop_empty(root / QUARANTINE)
    return gone


def _files(folder: Path) -> Iterator[Aside]:
    for inside, _, names in os.walk(folder):
        for name in names:
            path = Path(inside) / name
            try:
                found = path.lstat()
            except FileNotFoundError:  # a person has just deleted it
                continue
            yield Aside(path, found.st_size, found.st_ctime)  # the time of its rename into the quarantine


def _drop_empty(folder: Path) -> None:
    for inside, folders, names in os.walk(folder, topdown=False):
        if not folders and not names and Path(inside) != folder:
            with suppress(OSError):  # another file has come, or it is as little to be deleted as some files
                Path(inside).rmdir()
