"""The teacher's transcodings that need attention, and their owners."""

import logging
from collections.abc import Sequence
from typing import Any

import sqlmodel
from sqlalchemy import Connection, func, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from lectern.effects.rows.renditions import among, transcoding
from lectern.effects.rows.tables.engine import rows_of
from lectern.facts import RenditionKey
from lectern.model.tables.teacher import RenditionRow, videos
from lectern.states import Backend, RenditionState
from lectern.told import Making

log = logging.getLogger("lectern")


MAKING = tuple(videos.c[name] for name in ("status", "backend", "attempt", "deadline", "begun_at"))
PUBLISHED = "published"
"""The step of an ECS transcoding whose result is committed, and will come over the bus."""


def take(
    connection: Connection, keys: Sequence[RenditionKey], owner: str, lease_s: float, now: float
) -> list[RenditionRow]:
    """Lease to *owner*, for *lease_s*, the ECS transcodings among *keys* that nobody else works on."""
    free = or_(videos.c.owner.is_(None), videos.c.owner == owner, videos.c.lease_until < now)
    found = sorted(where(connection, among(keys) & to_be_made() & free), key=lambda one: one.resolution)
    lease(connection, among(one.key for one in found), owner, now + lease_s)
    return found


def left_behind(connection: Connection, keys: Sequence[RenditionKey]) -> list[RenditionRow]:
    """The transcodings among *keys* that have ended, and whose files or programs may still be on their host."""
    over = or_(videos.c.status != RenditionState.TRANSCODING, videos.c.step == PUBLISHED, videos.c.begun_at.is_(None))
    return where(connection, among(keys) & videos.c.ecs_job.is_not(None) & over)


def overdue(connection: Connection, now: float) -> list[RenditionRow]:
    """The transcodings whose deadline has passed; OSS transcodings that were not requested yet are left out."""
    return where(connection, _asked_for() & (videos.c.deadline <= now))


def under_way(connection: Connection) -> list[RenditionRow]:
    """All transcodings that have not ended, however many, the next deadline first."""
    return where(connection, videos.c.status == RenditionState.TRANSCODING, most=None)


def next_deadline(connection: Connection) -> float | None:
    """The earliest deadline of a transcoding, in epoch seconds; None if there is none."""
    found = connection.execute(select(func.min(videos.c.deadline)).where(_asked_for())).scalar_one_or_none()
    return None if found is None else float(found)


def ownerless(connection: Connection, before: float, now: float) -> list[RenditionRow]:
    """The ECS transcodings that nobody has worked on since *before*, or whose owner's lease has expired."""
    lost = (videos.c.owner.is_(None) & (videos.c.updated_at < before)) | (videos.c.lease_until < now)
    return where(connection, to_be_made() & lost)


def lease(connection: Connection, which: ColumnElement[bool], owner: str, until: float) -> int:
    """Lease the transcodings *which* to *owner* until *until*; returns their number."""
    return connection.execute(update(videos).where(which).values(owner=owner, lease_until=until)).rowcount


def where(connection: Connection, which: ColumnElement[bool], most: int | None = 1000) -> list[RenditionRow]:
    """At most *most* of the transcodings that fulfil *which*, the next deadline first.

    A row whose resolution or backend is unknown, an old program's or a newer release's, is logged, and hides no other.
    """
    found = rows_of(connection, sqlmodel.select(RenditionRow).where(which).order_by(videos.c.deadline).limit(most))
    for row in found:
        if row.unknown:
            log.error("%s: its transcoding cannot be read, and is passed over: %s", row.stem, row.unknown)
    return [row for row in found if not row.unknown]


def making(row: Any) -> Making:  # noqa: ANN401 (a row of SQLAlchemy)
    """The progress of a rendition for people, from a row with the columns MAKING."""
    backend = row.backend if isinstance(row.backend, Backend) else None
    queued = backend is Backend.ECS and row.begun_at is None
    return Making(RenditionState.read(row.status), backend, row.attempt, row.deadline, queued)


def _asked_for() -> ColumnElement[bool]:
    elsewhere = videos.c.backend.is_(None) | (videos.c.backend != Backend.OSS)
    return (videos.c.status == RenditionState.TRANSCODING) & (elsewhere | videos.c.requested_at.is_not(None))


def to_be_made() -> ColumnElement[bool]:
    """Selects the renditions that are to be made on our own servers, and are not published yet."""
    return or_(videos.c.step.is_(None), videos.c.step != PUBLISHED) & transcoding(Backend.ECS)
