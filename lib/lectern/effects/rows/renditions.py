"""The teacher's renditions: how far their transcoding is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, or_, select, tuple_, update
from sqlalchemy.sql.elements import ColumnElement

from lectern.effects.rows.tables.teacher import videos
from lectern.facts import Attempt, Rendition, RenditionKey, Underway
from lectern.states import RENDITION_MOVES, Backend, RenditionState, Resolution, check_move
from lectern.stems import stem


@dataclass(frozen=True)
class Due:
    """A rendition that somebody must look after; times are epoch seconds."""

    record_id: int
    resolution: Resolution
    attempt: int
    backend: Backend | None
    source_url: str | None
    url: str | None
    deadline: float | None
    ecs_host: str | None = None
    ecs_job: str | None = None
    begun_at: float | None = None
    step: str | None = None
    percent: float | None = None
    eta: float | None = None

    @property
    def key(self) -> RenditionKey:
        """The primary key."""
        return self.record_id, self.resolution

    @property
    def stem(self) -> str:
        """The rendition's id on a streamer."""
        return stem(self.record_id, self.resolution)


DUE = (
    videos.c.record_id,
    videos.c.resolution,
    videos.c.attempt,
    videos.c.backend,
    videos.c.source_url,
    videos.c.url,
    videos.c.deadline,
    videos.c.ecs_host,
    videos.c.ecs_job,
    videos.c.begun_at,
    videos.c.step,
    videos.c.percent,
    videos.c.eta,
)
PUBLISHED = "published"
"""The step of an ECS transcoding whose result is committed, and will come over the bus."""

_NOT_BEGUN = {"owner": None, "lease_until": None, "begun_at": None, "step": None, "percent": None, "eta": None}


def states(connection: Connection, keys: Iterable[RenditionKey]) -> dict[RenditionKey, Rendition]:
    """What the booking decision asks about *keys*."""
    columns = (
        videos.c.record_id,
        videos.c.resolution,
        videos.c.status,
        videos.c.attempt,
        videos.c.attempts_today,
        videos.c.attempts_since,
    )
    found: dict[RenditionKey, Rendition] = {}
    for row in connection.execute(select(*columns).where(among(keys))):
        found[row.record_id, Resolution(row.resolution)] = Rendition(
            RenditionState.read(row.status), row.attempt, row.attempts_today, row.attempts_since
        )
    return found


def underway(connection: Connection, keys: Iterable[RenditionKey]) -> dict[RenditionKey, Underway]:
    """What the settling of results asks about *keys*."""
    columns = (
        videos.c.record_id,
        videos.c.resolution,
        videos.c.status,
        videos.c.attempt,
        videos.c.backend,
        videos.c.source_url,
    )
    return {
        (row.record_id, Resolution(row.resolution)): Underway(
            RenditionState.read(row.status), row.attempt, Backend(row.backend) if row.backend else None, row.source_url
        )
        for row in connection.execute(select(*columns).where(among(keys)))
    }


def begin(connection: Connection, attempts: Sequence[Attempt], now: float) -> None:
    """Insert or set the rows to *transcoding*, as the plan's attempts say."""
    there = states(connection, [(one.record_id, one.resolution) for one in attempts])
    for one in attempts:
        values = {
            "status": RenditionState.TRANSCODING,
            "backend": one.backend,
            "attempt": one.attempt,
            "attempts_today": one.attempts_today,
            "attempts_since": one.attempts_since,
            "deadline": one.deadline,
            "source_url": one.source_url,
            "requested_at": None,
            **_NOT_BEGUN,
            "url": None,
            "reason": None,
            "updated_at": now,
        }
        before = there.get((one.record_id, one.resolution))
        if before is not None:
            check_move(RENDITION_MOVES, one.stem, before.state, RenditionState.TRANSCODING)
            _set(connection, (one.record_id, one.resolution), **values)
        else:
            connection.execute(insert(videos).values(record_id=one.record_id, resolution=one.resolution, **values))


def move(
    connection: Connection, key: RenditionKey, old: RenditionState, new: RenditionState, now: float, **values: object
) -> None:
    """Move a rendition to *new*; raises ForbiddenMove where the tables have no such move."""
    check_move(RENDITION_MOVES, stem(*key), old, new)
    _set(connection, key, status=new, owner=None, lease_until=None, updated_at=now, **values)


def fall_back(connection: Connection, keys: Iterable[RenditionKey], deadline: float, now: float) -> None:
    """The ECS transcoder is to make the renditions, until *deadline*."""
    for key in keys:
        _set(connection, key, backend=Backend.ECS, deadline=deadline, updated_at=now, **_NOT_BEGUN)


def requested(connection: Connection, key: RenditionKey, now: float) -> None:
    """Whoever was at work here before us has asked the OSS transcoder for it."""
    _set(connection, key, requested_at=now)


def retry(connection: Connection, keys: Iterable[RenditionKey], deadline: float, now: float) -> None:
    """A person wants failed or timed-out renditions tried again: the cap does not count."""
    those = (RenditionState.FAILED, RenditionState.TIMED_OUT)
    for old in those:
        check_move(RENDITION_MOVES, "a rendition", old, RenditionState.TRANSCODING)
    failed = among(keys) & videos.c.status.in_(those)
    connection.execute(
        update(videos)
        .where(failed)
        .values(
            status=RenditionState.TRANSCODING,
            backend=Backend.ECS,
            attempt=videos.c.attempt + 1,
            deadline=deadline,
            updated_at=now,
            **_NOT_BEGUN,
        )
    )


def take(
    connection: Connection, record_id: int, resolutions: Sequence[Resolution], owner: str, lease_s: float, now: float
) -> list[Due]:
    """The ECS transcodings among *resolutions* that nobody else works on; they are *owner*'s for *lease_s*.

    With them come those that are made in the same job, and those that *owner* has joined to its own before.
    """
    free = or_(videos.c.owner.is_(None), videos.c.owner == owner, videos.c.lease_until < now)
    asked = among((record_id, one) for one in resolutions) & _to_be_made() & free
    jobs = select(videos.c.ecs_job).where(asked, videos.c.begun_at.is_not(None))
    together = (videos.c.owner == owner) | (videos.c.begun_at.is_not(None) & videos.c.ecs_job.in_(jobs))
    mine = asked | ((videos.c.record_id == record_id) & _to_be_made() & free & together)
    found = [due_of(row) for row in connection.execute(select(*DUE).where(mine).order_by(videos.c.resolution))]
    for one in found:
        _set(connection, one.key, owner=owner, lease_until=now + lease_s)
    return found


def join(connection: Connection, due: Sequence[Due], owner: str, strangers: Iterable[str], until: float) -> list[Due]:
    """Those of *due*'s recording that wait to be made: *owner*'s until *until*.

    Other runs have them, but no *strangers*, or they were asked for so lately that no run has them yet.
    """
    first = due[0]
    waiting = (videos.c.record_id == first.record_id) & (videos.c.source_url == first.source_url)
    waiting &= _to_be_made() & videos.c.begun_at.is_(None)
    waiting &= or_(videos.c.owner.is_(None), videos.c.owner.not_in([owner, *strangers]))
    found = [due_of(row) for row in connection.execute(select(*DUE).where(waiting).order_by(videos.c.resolution))]
    for one in found:
        _set(connection, one.key, owner=owner, lease_until=until)
    return found


def elsewhere(connection: Connection, record_id: int, resolutions: Sequence[Resolution], owner: str) -> list[Due]:
    """Those of *resolutions* that another run than *owner* makes."""
    theirs = among((record_id, one) for one in resolutions) & _to_be_made()
    theirs &= videos.c.owner.is_not(None) & (videos.c.owner != owner)
    return [due_of(row) for row in connection.execute(select(*DUE).where(theirs))]


def overdue(connection: Connection, now: float) -> list[Due]:
    """The transcodings whose deadline has passed; one that nobody was asked for yet has none."""
    late = _asked_for() & (videos.c.deadline <= now)
    return [due_of(row) for row in connection.execute(select(*DUE).where(late).order_by(videos.c.deadline).limit(1000))]


def under_way(connection: Connection) -> list[Due]:
    """All transcodings that are not settled, the next deadline first."""
    open_ = videos.c.status == RenditionState.TRANSCODING
    return [
        due_of(row) for row in connection.execute(select(*DUE).where(open_).order_by(videos.c.deadline).limit(1000))
    ]


def next_deadline(connection: Connection) -> float | None:
    """When the next transcoding must be done, in epoch seconds."""
    wanted = select(func.min(videos.c.deadline)).where(_asked_for())
    found = connection.execute(wanted).scalar_one_or_none()
    return None if found is None else float(found)


def ownerless(connection: Connection, before: float, now: float) -> list[Due]:
    """The ECS transcodings that nobody works on since *before*, or whose owner's lease ran out."""
    lost = (videos.c.owner.is_(None) & (videos.c.updated_at < before)) | (videos.c.lease_until < now)
    return [due_of(row) for row in connection.execute(select(*DUE).where(_to_be_made() & lost).limit(1000))]


def left_behind(connection: Connection, record_id: int, resolutions: Sequence[Resolution]) -> list[Due]:
    """Those of *resolutions* that are done with, but something of their making may still be on its host."""
    over = or_(videos.c.status != RenditionState.TRANSCODING, videos.c.step == PUBLISHED, videos.c.begun_at.is_(None))
    mine = among((record_id, one) for one in resolutions) & videos.c.ecs_job.is_not(None) & over
    return [due_of(row) for row in connection.execute(select(*DUE).where(mine))]


def standing(connection: Connection, keys: Iterable[RenditionKey]) -> list[dict[str, object]]:
    """How far each of *keys* is, for people and for who asked."""
    columns = (videos.c.record_id, videos.c.resolution, videos.c.status, videos.c.url, videos.c.reason)
    return [
        {
            "rendition": stem(row.record_id, Resolution(row.resolution)),
            "status": str(RenditionState.read(row.status)),
            "url": row.url,
            "reason": row.reason,
        }
        for row in connection.execute(select(*columns).where(among(keys)))
    ]


def settled_since(connection: Connection, key: RenditionKey, since: float) -> bool:
    """Whether the rendition's last attempt ended, well or not, after *since* (epoch seconds)."""
    over = (videos.c.status != RenditionState.TRANSCODING) & (videos.c.updated_at > since)
    return connection.execute(select(videos.c.attempt).where(among([key]) & over)).first() is not None


def made(connection: Connection, key: RenditionKey) -> tuple[int, str] | None:
    """Which attempt made the rendition, and where it lies; None where it is not made."""
    wanted = among([key]) & (videos.c.status == RenditionState.SUCCESS) & videos.c.url.is_not(None)
    row = connection.execute(select(videos.c.attempt, videos.c.url).where(wanted)).first()
    return None if row is None else (row.attempt, row.url)


def counts(connection: Connection) -> Mapping[str, int]:
    """Renditions by status."""
    found = connection.execute(select(videos.c.status, func.count()).group_by(videos.c.status))
    return {str(status): int(number) for status, number in found}


def _asked_for() -> ColumnElement[bool]:
    elsewhere = videos.c.backend.is_(None) | (videos.c.backend != Backend.OSS)
    return (videos.c.status == RenditionState.TRANSCODING) & (elsewhere | videos.c.requested_at.is_not(None))


def transcoding(backend: Backend) -> ColumnElement[bool]:
    """Renditions that *backend* is to make."""
    return (videos.c.status == RenditionState.TRANSCODING) & (videos.c.backend == backend)


def _to_be_made() -> ColumnElement[bool]:
    unpublished = or_(videos.c.step.is_(None), videos.c.step != PUBLISHED)
    return unpublished & (videos.c.status == RenditionState.TRANSCODING) & (videos.c.backend == Backend.ECS)


def among(keys: Iterable[RenditionKey]) -> ColumnElement[bool]:
    """The renditions *keys*."""
    wanted = [(record_id, str(one)) for record_id, one in keys]
    return tuple_(videos.c.record_id, videos.c.resolution).in_(wanted)


def _set(connection: Connection, key: RenditionKey, **values: object) -> None:
    connection.execute(
        update(videos).where(videos.c.record_id == key[0], videos.c.resolution == key[1]).values(**values)
    )


def due_of(row: Any) -> Due:  # noqa: ANN401 (a row of SQLAlchemy)
    """The rendition that a row of the columns DUE is."""
    backend = Backend(row.backend) if row.backend else None
    return Due(**{**row._mapping, "resolution": Resolution(row.resolution), "backend": backend})
