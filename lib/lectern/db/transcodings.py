"""The rows of the teacher's renditions, and the state of their transcoding."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, func, insert, select, tuple_, update
from sqlalchemy.sql.elements import ColumnElement

from lectern.facts import Attempt, Rendition, RenditionKey
from lectern.model.tables.teacher import videos
from lectern.states import RENDITION_MOVES, Backend, RenditionState, check_move
from lectern.stems import stem

_NOT_BEGUN = {"owner": None, "lease_until": None, "begun_at": None, "step": None, "percent": None, "eta": None}


def states(connection: Connection, keys: Iterable[RenditionKey]) -> dict[RenditionKey, Rendition]:
    """The states of the renditions *keys*, as decisions about bookings and results need them."""
    columns = (
        *(videos.c.record_id, videos.c.resolution, videos.c.status, videos.c.attempt),
        *(videos.c.attempts_today, videos.c.attempts_since, videos.c.backend),
    )
    found: dict[RenditionKey, Rendition] = {}
    rows = connection.execute(select(*columns).where(among(keys)))
    for record_id, size, status, attempt, today, since, backend in rows:
        found[record_id, size] = Rendition(RenditionState.read(status), attempt, today, since, backend)
    return found


def begin(connection: Connection, attempts: Sequence[Attempt], now: float) -> None:
    """Insert rows in state *transcoding* for *attempts*, or set existing rows to it."""
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
    """Move a rendition to *new*; raises ForbiddenMove if the tables have no such move."""
    check_move(RENDITION_MOVES, stem(*key), old, new)
    _set(connection, key, status=new, owner=None, lease_until=None, updated_at=now, **values)


def drop(connection: Connection, key: RenditionKey, why: str, now: float) -> None:
    """End an attempt that nobody needs any more; it did not fail, so it does not count among those of its day."""
    fewer = {"attempts_today": videos.c.attempts_today - 1, "deadline": None}
    move(connection, key, RenditionState.TRANSCODING, RenditionState.FAILED, now, reason=why, **fewer)


def fall_back(connection: Connection, keys: Iterable[RenditionKey], deadline: float, now: float) -> None:
    """Note that the ECS transcoder is to make the renditions, until *deadline*."""
    for key in keys:
        _set(connection, key, backend=Backend.ECS, deadline=deadline, updated_at=now, **_NOT_BEGUN)


def requested(connection: Connection, key: RenditionKey, now: float) -> None:
    """Note that the old program has asked the OSS transcoder for the rendition."""
    _set(connection, key, requested_at=now)


def retry(connection: Connection, keys: Iterable[RenditionKey], deadline: float, now: float) -> None:
    """Begin another attempt for failed or timed-out renditions, as a person wants it; the daily cap does not apply."""
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


def standing(connection: Connection, keys: Iterable[RenditionKey]) -> list[dict[str, object]]:
    """The status, URL and reason of each of *keys*, for people and for clients of the API."""
    columns = (videos.c.record_id, videos.c.resolution, videos.c.status, videos.c.url, videos.c.reason)
    return [
        {
            "rendition": stem(row.record_id, row.resolution),
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
    """The attempt that made the rendition, and its URL; None if it is not made."""
    wanted = among([key]) & (videos.c.status == RenditionState.SUCCESS) & videos.c.url.is_not(None)
    row = connection.execute(select(videos.c.attempt, videos.c.url).where(wanted)).first()
    return None if row is None else (row.attempt, row.url)


def counts(connection: Connection) -> Mapping[str, int]:
    """Number of renditions by status."""
    found = connection.execute(select(videos.c.status, func.count()).group_by(videos.c.status))
    return {str(status): int(number) for status, number in found}


def transcoding(backend: Backend) -> ColumnElement[bool]:
    """Selects the renditions that *backend* is to make."""
    return (videos.c.status == RenditionState.TRANSCODING) & (videos.c.backend == backend)


def among(keys: Iterable[RenditionKey]) -> ColumnElement[bool]:
    """Selects the renditions *keys*."""
    wanted = [(record_id, str(one)) for record_id, one in keys]
    return tuple_(videos.c.record_id, videos.c.resolution).in_(wanted)


def _set(connection: Connection, key: RenditionKey, **values: object) -> None:
    connection.execute(
        update(videos).where(videos.c.record_id == key[0], videos.c.resolution == key[1]).values(**values)
    )
