"""Finds the differences between a streamer's disk and the rows of its cache, file by file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sqlalchemy import Connection, not_, select

from lectern import words
from lectern.effects.files import store
from lectern.effects.files.scan import Found
from lectern.effects.rows import cache
from lectern.facts import Cached
from lectern.model.tables.streamer import files
from lectern.states import FileState


class Odd(StrEnum):
    """What is odd about a file or its row."""

    UNKNOWN = "no row knows it"
    MISSING = "its file is missing"
    RESIZED = "its file has another size"
    TOUCHED = "its file was written to"
    EVICTED = "it was about to be deleted"
    ARRIVED = "its download had come, and was not noted"
    LEFT = "a part of a download that nobody goes on with"


@dataclass(frozen=True)
class Difference:
    """One disagreement; *row* is None if no row is concerned, *path* if no file is."""

    odd: Odd
    row: Cached | None = None
    path: Path | None = None
    why: str = ""

    def words(self) -> str:
        """The difference in words, for people."""
        thing = self.row.stem if self.row is not None else words.path(self.path or "")
        return f"{thing}: {self.odd}{': ' + self.why if self.why else ''}"


_NOTED = cache.HERE & (files.c.size_bytes > 0) & files.c.mtime.is_not(None) & files.c.duration_s.is_not(None)
"""Selects renditions that are here, and whose size, mtime and duration are known."""

_AT_ONCE = 5000


def doubtful(connection: Connection, found: Sequence[Found]) -> tuple[list[Found], dict[str, Cached]]:
    """The files and rows that a start must look at closely; all others agree in size and mtime.

    Nearly all agree, and a hundred thousand of them are compared as plain values in a quarter of a second.
    """
    noted = {
        row[0]: (row[1], row[2])
        for row in connection.execute(select(files.c.id, files.c.size_bytes, files.c.mtime).where(_NOTED))
    }
    odd = [one for one in found if one.kind != "rendition" or noted.pop(one.stem, None) != (one.size_bytes, one.mtime)]
    stems = sorted({one.stem for one in odd if one.stem is not None} | noted.keys())
    rows = {row.stem: row for row in cache.where(connection, not_(_NOTED))}
    for first in range(0, len(stems), _AT_ONCE):
        rows |= cache.by_stem(connection, stems[first : first + _AT_ONCE])
    return odd, rows


def differences(found: Iterable[Found], rows: Mapping[str, Cached]) -> list[Difference]:
    """All disagreements of the files *found* with the *rows* (by stem), by path, then the missing ones."""
    odd: list[Difference] = []
    there: set[str] = set()
    for file in found:
        row = rows.get(file.stem) if file.stem else None
        if file.kind == "rendition" and file.stem is not None:
            there.add(file.stem)
        one = _of_part(file, row) if file.kind == "part" else _of_file(file, row)
        if one is not None:
            odd.append(one)
    for stem, row in sorted(rows.items()):
        if stem not in there:
            if row.state is FileState.READY:
                odd.append(Difference(Odd.MISSING, row))
            elif row.state is FileState.EVICTING:
                odd.append(Difference(Odd.EVICTED, row))
    return odd


def _of_part(file: Found, row: Cached | None) -> Difference | None:
    if row is not None and row.state is FileState.DOWNLOADING:
        return None  # it is resumed
    return Difference(Odd.LEFT, None, file.path)


def _of_file(file: Found, row: Cached | None) -> Difference | None:
    if file.stem is None and store.is_sidecar(file.path.name):
        return Difference(Odd.LEFT, None, file.path)
    if row is None or row.state is FileState.BAD:
        return Difference(Odd.UNKNOWN, None, file.path)
    if row.state is FileState.EVICTING:
        return Difference(Odd.EVICTED, row, file.path)
    if row.state is FileState.DOWNLOADING:
        return Difference(Odd.ARRIVED, row, file.path)
    if row.size_bytes and row.size_bytes != file.size_bytes:
        return Difference(Odd.RESIZED, row, file.path, f"{file.size_bytes} bytes, not {row.size_bytes}")
    if row.mtime is not None and row.mtime != file.mtime:
        return Difference(Odd.TOUCHED, row, file.path)
    return None
