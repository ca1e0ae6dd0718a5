"""Reads the streamer's tables as any program has left them: every value as text, a missing column as NULL."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from lectern.migrations.look import shape
from lectern.states import AiringState, FileState

S = TypeVar("S", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A class in ``task_list``; texts that are not UTF-8 hold surrogates."""

    class_id: str
    video_url: str
    push_url: str
    start: str | None
    end: str | None


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class in ``class_list``; *state* is None if no program of ours has seen it."""

    class_id: str
    video_id: str
    site: str | None = None
    state: AiringState | None = None
    record_id: int | None = None
    run_id: str | None = None
    released_at: str | None = None
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class FileRow:
    """A rendition in ``video_list``; *state* is None if no program of ours has seen it."""

    stem: str
    site: str | None = None
    update_time: float | None = None
    state: FileState | None = None
    size_bytes: int | None = None
    url: str | None = None
    duration_s: float | None = None
    tries: int | None = None
    reason: str | None = None
    etag: str | None = None
    crc64: str | None = None


def tasks(connection: Connection) -> list[TaskRow]:
    """All rows of ``task_list``."""
    names = ("class_id", "video_url", "push_url", "start_time", "end_time")
    return [
        TaskRow(row[0] or "", row[1] or "", row[2] or "", *row[3:]) for row in _rows(connection, "task_list", names)
    ]


def classes(connection: Connection) -> dict[str, ClassRow]:
    """All rows of ``class_list``."""
    names = ("class_id", "video_id", "site", "state", "record_id", "run_id", "released_at", "code", "message")
    return {
        key: ClassRow(key, stem or "", site, _among(AiringState, state), _whole(record), *rest)
        for key, stem, site, state, record, *rest in _rows(connection, "class_list", names)
        if key is not None
    }


def files(connection: Connection) -> dict[str, FileRow]:
    """All rows of ``video_list``."""
    names = ("id", "site", "update_time", "state", "size_bytes", "url", "duration_s", "tries", "reason", "etag")
    found: dict[str, FileRow] = {}
    for key, site, used, state, size, url, length, tries, *rest in _rows(connection, "video_list", (*names, "crc64")):
        if key is not None:
            kind, bytes_, tried = _among(FileState, state), _whole(size), _whole(tries)
            found[key] = FileRow(key, site, _number(used), kind, bytes_, url, _number(length), tried, *rest)
    return found


def _among(kind: type[S], text: str | None) -> S | None:
    return kind(text) if text in set(kind) else None


def database_file(connection: Connection) -> Path | None:
    """The path of the database; None if it is in memory."""
    found = connection.exec_driver_sql("SELECT file FROM pragma_database_list WHERE name = 'main'").scalar_one()
    return Path(str(found)) if found else None


def _rows(connection: Connection, table: str, names: tuple[str, ...]) -> Iterator[tuple[str | None, ...]]:
    """The columns *names* of a table; empty if there is no such table yet."""
    found = shape(connection, table)
    if found is None:
        return
    quoted = ['"' + found.columns[name].replace('"', '""') + '"' if name in found.columns else "NULL" for name in names]
    # As bytes, because an old text need not be valid UTF-8. S608: the statement is built of quoted names only.
    wanted = f"SELECT {', '.join(f'CAST({name} AS BLOB)' for name in quoted)} FROM {table}"  # noqa: S608
    for row in connection.exec_driver_sql(wanted):
        yield tuple(None if value is None else value.decode("utf-8", "surrogateescape") for value in row)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _whole(text: str | None) -> int | None:
    found = _number(text)
    return int(found) if found is not None and found.is_integer() else None
