"""The rows of the streamer's cache: renditions, citations, reservations; each transaction keeps the sums right."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, update

from lectern.db.engine import bind_list, in_list, put_row, update_many
from lectern.model.facts import Cached, Idle, Usage
from lectern.model.tables.streamer import dirs, files
from lectern.states import FileState

_COLUMNS = (files.c.id, *(files.c[field.name] for field in fields(Cached)[1:]))
HERE = func.coalesce(files.c.state, FileState.READY) == FileState.READY  # no index: it would lead through all rows
"""Renditions that are in the cache; a row of the old program has no state, and its file is there."""

_QUEUED = (files.c.state == FileState.DOWNLOADING) & (files.c.tries == 0)
"""Downloads that no run has begun: if no class cites one any more, because all were cancelled, its room is free."""

_UNPINNED = files.c.num_cite == 0
"""Not NULL or below 0, because each start recounts the citations; with `= 0` the index gives the order of use, too."""


def _cached(row) -> Cached:  # type: ignore[no-untyped-def]  # noqa: ANN001 (a row of SQLAlchemy)
    stem, state, cited, site, url, size_bytes, duration_s, used_at, reason, source, crc64, *rest = row
    its_sum = None if crc64 is None else int(crc64)
    used = (duration_s, used_at or 0.0, reason, source, its_sum)
    return Cached(stem, FileState(state), cited or 0, site, url, size_bytes or 0, *used, *rest)


_BY_STEM = select(*_COLUMNS).where(in_list(files.c.id))
_USAGE = select(dirs).where(dirs.c.dir == bindparam("of"))
_IDLE = (
    select(files.c.id, files.c.size_bytes, _QUEUED.label("queued"))
    .where(HERE | _QUEUED, _UNPINNED, ~in_list(files.c.id))
    .order_by(files.c.update_time, files.c.id)
)

_LEAST_RECENT_FIRST = select(*_COLUMNS).order_by(files.c.update_time, files.c.id)
_DOWNLOADING = _LEAST_RECENT_FIRST.where(files.c.state == FileState.DOWNLOADING)


def by_stem(connection: Connection, stems: Iterable[str]) -> dict[str, Cached]:
    """The rows of *stems*."""
    return {row.id: _cached(row) for row in connection.execute(_BY_STEM, bind_list(stems))}


def where(connection: Connection, such: ColumnElement[bool]) -> list[Cached]:
    """The rows that fulfil the condition *such*, least recently used first."""
    return [_cached(row) for row in connection.execute(_LEAST_RECENT_FIRST.where(such))]


def make_sums(connection: Connection, root: Path) -> None:
    """Make the row of the sums of the cache under *root* if there is none."""
    if connection.execute(_USAGE, {"of": str(root)}).one_or_none() is None:
        connection.execute(insert(dirs).values(dir=str(root), size=0, num=0, reserved_bytes=0, reserved_num=0))


def used(connection: Connection, root: Path) -> Usage:
    """What the cache under *root* uses and has reserved, together."""
    row = connection.execute(_USAGE, {"of": str(root)}).one_or_none()
    if row is None:
        return Usage(0, 0)
    return Usage(int(row.size) + (row.reserved_bytes or 0), row.num + (row.reserved_num or 0))


def idle(connection: Connection, *, but: Iterable[str], size_bytes: int, num: int) -> list[Idle]:
    """Unpinned renditions, least recently used first: as many as hold *size_bytes* and *num*, or all there are.

    They are in the cache, or their downloads have not begun.
    """
    renditions: list[Idle] = []
    held = 0
    for row in connection.execution_options(yield_per=20).execute(_IDLE, bind_list(but)):
        if held >= size_bytes and len(renditions) >= num:
            break
        renditions.append(Idle(row.id, row.size_bytes or 0, bool(row.queued)))
        held += row.size_bytes or 0
    return renditions


def evicting(connection: Connection) -> list[Cached]:
    """Renditions that have left the sums, and whose files may still be on the disk after a crash."""
    return where(connection, files.c.state == FileState.EVICTING)


def forget(connection: Connection, stems: Sequence[str]) -> None:
    """Delete the rows of evicted renditions, whose files are gone."""
    gone = (files.c.state == FileState.EVICTING) & files.c.id.in_(stems)
    connection.execute(delete(files).where(gone))


def downloading(connection: Connection) -> list[Cached]:
    """The downloads that are under way, or should be."""
    return [_cached(row) for row in connection.execute(_DOWNLOADING)]


def seen(connection: Connection, whole: Sequence[tuple[str, int, float]]) -> None:
    """Note the size in bytes and the mtime of files that were found whole: (stem, size, mtime)."""
    rows = [(size_bytes, mtime, stem) for stem, size_bytes, mtime in whole]
    update_many(connection, files, (("id",), ()), ("size_bytes", "mtime"), rows)


def measured(connection: Connection, stem: str, duration_s: float) -> None:
    """Note the duration of a recording in seconds."""
    connection.execute(update(files).where(files.c.id == stem).values(duration_s=duration_s))


def recount(connection: Connection, root: Path, citations: dict[str, int]) -> None:
    """Set the sums from the rows, and num_cite of each from *citations*."""
    unknown = files.c.state.not_in(list(FileState))
    connection.execute(update(files).where(unknown).values(state=None))  # as an old program's row: see `FileState`
    wrong = func.coalesce(files.c.num_cite, 1) != 0
    connection.execute(update(files).where(wrong).values(num_cite=0))
    counted = [(number, stem) for stem, number in citations.items()]
    update_many(connection, files, (("id",), ()), ("num_cite",), counted)
    sums = select(func.coalesce(func.sum(files.c.size_bytes), 0), func.count())
    used, num = connection.execute(sums.where(HERE)).one()
    reserved, reserved_num = connection.execute(sums.where(files.c.state == FileState.DOWNLOADING)).one()
    reservations = {"reserved_bytes": reserved, "reserved_num": reserved_num}
    put_row(connection, dirs, {"dir": str(root)}, size=used, num=num, **reservations)
