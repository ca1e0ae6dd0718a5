"""Compares a streamer's disk with the rows of its cache, and shows and evicts renditions for people."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, not_, select, true

from lectern import formatting
from lectern.db import cache
from lectern.db.engine import writing
from lectern.db.writer import write
from lectern.errors import LecternError, Misuse
from lectern.i18n import Text
from lectern.model.facts import Cached, Idle
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import files
from lectern.settings import StreamerSettings
from lectern.states import FileState
from lectern.storage import cache_dir
from lectern.storage.cache_dir import FoundFile


class Odd(StrEnum):
    """What is odd about a file or its row."""

    UNKNOWN = "no row knows it"
    MISSING = "its file is missing"
    RESIZED = "its file has another size"
    TOUCHED = "its file was written to"
    ARRIVED = "its download had come, and was not noted"
    LEFT = "a part of a download that nobody goes on with"


@dataclass(frozen=True)
class CacheDifference:
    """One disagreement; *row* is None if no row is concerned, *path* if no file is."""

    odd: Odd
    row: Cached | None = None
    path: Path | None = None
    why: str = ""

    def words(self) -> str:
        """The difference in words, for people."""
        thing = self.row.stem if self.row is not None else formatting.path(self.path or "")
        return f"{thing}: {self.odd}{': ' + self.why if self.why else ''}"


_NOTED = cache.HERE & (files.c.size_bytes > 0) & files.c.mtime.is_not(None) & files.c.duration_s.is_not(None)
"""Selects renditions that are here, and whose size, mtime and duration are known."""


def doubtful(connection: Connection, entries: Sequence[FoundFile]) -> tuple[list[FoundFile], dict[str, Cached]]:
    """The files and rows that a start must look at closely; all others agree in size and mtime.

    Nearly all agree, and a hundred thousand of them are compared as plain values in a quarter of a second.
    """
    noted = {
        row[0]: (row[1], row[2])
        for row in connection.execute(select(files.c.id, files.c.size_bytes, files.c.mtime).where(_NOTED))
    }
    odd = [
        file
        for file in entries
        if file.kind != "rendition" or noted.pop(file.stem, None) != (file.size_bytes, file.mtime)
    ]
    stems = {file.stem for file in odd if file.stem is not None} | noted.keys()
    rows = {row.stem: row for row in cache.where(connection, not_(_NOTED))}
    return odd, rows | cache.by_stem(connection, stems)


def differences(entries: Iterable[FoundFile], rows: Mapping[str, Cached]) -> list[CacheDifference]:
    """All disagreements of the files *entries* with the *rows* (by stem), by path, then the missing ones."""
    odd: list[CacheDifference] = []
    there: set[str] = set()
    for file in entries:
        row = rows.get(file.stem) if file.stem else None
        if file.kind == "rendition" and file.stem is not None:
            there.add(file.stem)
        if file.kind == "part":
            is_resumed = row is not None and row.state is FileState.DOWNLOADING
            odd += [] if is_resumed else [CacheDifference(Odd.LEFT, None, file.path)]
        elif (difference := _of_file(file, row)) is not None:
            odd.append(difference)
    missing = (row for stem, row in sorted(rows.items()) if stem not in there and row.state is FileState.READY)
    return [*odd, *(CacheDifference(Odd.MISSING, row) for row in missing)]


def _of_file(file: FoundFile, row: Cached | None) -> CacheDifference | None:
    if file.stem is None and cache_dir.is_sidecar(file.path.name):
        return CacheDifference(Odd.LEFT, None, file.path)
    if row is None or row.state is FileState.BAD:
        return CacheDifference(Odd.UNKNOWN, None, file.path)
    if row.state is FileState.EVICTING:
        return None  # a sweep deletes it
    if row.state is FileState.DOWNLOADING:
        return CacheDifference(Odd.ARRIVED, row, file.path)
    if row.size_bytes and row.size_bytes != file.size_bytes:
        its = {"found_bytes": file.size_bytes, "wanted_bytes": row.size_bytes}
        return CacheDifference(
            Odd.RESIZED, row, file.path, Text("it has {found_bytes} bytes, not {wanted_bytes}", **its)
        )
    if row.mtime is not None and row.mtime != file.mtime:
        return CacheDifference(Odd.TOUCHED, row, file.path)
    return None


def lasting(found: Iterable[CacheDifference], root: Path) -> list[CacheDifference]:
    """The differences *found* that are still there: a streamer at work has fetched and deleted files since the scan."""
    return [difference for difference in found if _lasts(difference, root)]


def _lasts(difference: CacheDifference, root: Path) -> bool:
    path, row = difference.path, difference.row
    if difference.odd is Odd.MISSING and row is not None:
        return not cache_dir.rendition_path(root, row.stem).exists()
    if difference.odd is Odd.RESIZED and row is not None and path is not None:
        return cache_dir.size_bytes(path) != row.size_bytes
    return path is None or os.path.lexists(path)


def cached(connection: Connection) -> list[dict[str, Any]]:
    """The rows of the cache, least recently used first."""
    names = ("stem", "state", "size_bytes", "num_cite", "reason")
    return [
        {**{name: getattr(row, name) for name in names}, "last_used": formatting.moment(row.update_time)}
        for row in cache.where(connection, true())
    ]


def evict(engine: Engine, settings: StreamerSettings, stem: str) -> int:
    """Delete one unpinned rendition; returns its size in bytes. Raises LecternError if a class needs it, or in vain."""
    with writing(engine, settings.role) as connection:
        row = cache.by_stem(connection, [stem]).get(stem)
        if row is None or row.state is not FileState.READY:
            raise Misuse("{stem}: is not in the cache. See: lectern cache ls", stem=stem)
        if row.num_cite > 0:
            raise Misuse("{stem}: a booked class needs it. Cancel that first, or wait for its end.", stem=stem)
        changes = StreamerChanges(settings, time.time())
        changes.evict([Idle(stem, row.size_bytes)])
        write(connection, changes)
    path = cache_dir.rendition_path(settings.video_root, stem)
    try:
        cache_dir.remove(path)
    except OSError as error:  # such as of a person who may write the database, and not the folder
        raise LecternError(
            "{path}: cannot be deleted: {reason}. The next start of the streamer deletes it.",
            path=formatting.path(path),
            reason=error.strerror,
        ) from error
    with writing(engine, settings.role) as connection:
        cache.forget(connection, [stem])
    return row.size_bytes


def differences_in_words(connection: Connection, root: Path) -> list[str]:
    """The differences between disk and database, in words; the next start of the streamer repairs them."""
    entries, rows = doubtful(connection, cache_dir.scan(root))
    return [difference.words() for difference in lasting(differences(entries, rows), root)]
