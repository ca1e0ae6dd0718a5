"""Reads the streamer's tables as any program has left them: every value as text, a missing column as NULL."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from lectern.migrations.look import shape
from lectern.states import AiringState, FileState


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
    """A class in ``class_list``; *state* is None where no program of ours has seen it."""

    class_id: str
    video_id: str
    site: str | None
    state: AiringState | None
    record_id: str | None
    run_id: str | None
    released: bool
    code: str | None
    message: str | None


@dataclass(frozen=True, slots=True)
class FileRow:
    """A rendition in ``video_list``; *state* is None where no program of ours has seen it."""

    stem: str
    num_cite: int | None
    site: str | None
    update_time: float | None
    state: FileState | None
    size_bytes: int | None
    url: str | None
    duration_s: float | None


@dataclass(frozen=True)
class Sums:
    """A folder in ``dir_info``."""

    size: float | None
    num: int | None
    reserved_bytes: int | None
    reserved_num: int | None


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
        row[0]: ClassRow(
            row[0],
            row[1] or "",
            row[2],
            AiringState(row[3]) if row[3] in set(AiringState) else None,
            row[4],
            row[5],
            row[6] is not None,
            row[7],
            row[8],
        )
        for row in _rows(connection, "class_list", names)
        if row[0] is not None
    }


def files(connection: Connection) -> dict[str, FileRow]:
    """All rows of ``video_list``."""
    names = ("id", "num_cite", "site", "update_time", "state", "size_bytes", "url", "duration_s")
    return {
        row[0]: FileRow(
            row[0],
            _whole(row[1]),
            row[2],
            _number(row[3]),
            FileState(row[4]) if row[4] in set(FileState) else None,
            _whole(row[5]),
            row[6],
            _number(row[7]),
        )
        for row in _rows(connection, "video_list", names)
        if row[0] is not None
    }


def sums(connection: Connection, folder: Path) -> Sums | None:
    """The row of *folder* in ``dir_info``."""
    for row in _rows(connection, "dir_info", ("dir", "size", "num", "reserved_bytes", "reserved_num")):
        if row[0] == str(folder):
            return Sums(_number(row[1]), _whole(row[2]), _whole(row[3]), _whole(row[4]))
    return None


def database_file(connection: Connection) -> Path | None:
    """Where the database lies; None for one in memory."""
    found = connection.exec_driver_sql("SELECT file FROM pragma_database_list WHERE name = 'main'").scalar_one()
    return Path(str(found)) if found else None


def _rows(connection: Connection, table: str, names: tuple[str, ...]) -> Iterator[tuple[str | None, ...]]:
    """The columns *names* of a table; none where there is no such table yet."""
    found = shape(connection, table)
    if found is None:
        return
    quoted = ['"' + found.columns[name].replace('"', '""') + '"' if name in found.columns else "NULL" for name in names]
    # As bytes, because an old text need not be valid UTF-8. S608: all that is put together are quoted names.
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
