"""The teacher's renditions: their states and deadlines, when they will be made, and who requests them from the OSS."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from sqlalchemy import Connection, func, or_, select, tuple_, update
from sqlalchemy.sql.elements import ColumnElement

from lectern.db.engine import insert_many, put_row, rows_of, update_many
from lectern.decide.forecast import MEASURED, Transcoding, quick_half_s, transcoded_at
from lectern.decide.transcoding import UNKNOWN_LIMIT_S
from lectern.model.facts import Attempt, EcsHost, Rendition, RenditionKey
from lectern.model.tables.teacher import RenditionRow, ecs_hosts, orders, videos
from lectern.rendition_ids import stem
from lectern.settings import TeacherSettings
from lectern.states import RENDITION_MOVES, Backend, BookingState, RenditionState, Resolution, check_move

_NOT_BEGUN = {"owner": None, "lease_until": None, "begun_at": None, "step": None}
_OF_ATTEMPT = ("backend", "attempt", "attempts_today", "attempts_since", "deadline", "source_url")


def states(connection: Connection, keys: Iterable[RenditionKey]) -> dict[RenditionKey, Rendition]:
    """The states of the renditions *keys*, as decisions about bookings and results need them."""
    columns = (
        *(videos.c.record_id, videos.c.resolution, videos.c.status, videos.c.attempt),
        *(videos.c.attempts_today, videos.c.attempts_since, videos.c.backend),
    )
    rows = connection.execute(select(*columns).where(renditions_among(keys)))
    return {(record, size): Rendition(RenditionState(status), *more) for record, size, status, *more in rows}


def begin(
    connection: Connection, attempts: Sequence[Attempt], now: float, *, requested_at: float | None = None
) -> None:
    """Insert rows in state *transcoding* for *attempts*, or set existing rows to it."""
    anew = {**_NOT_BEGUN, "status": RenditionState.TRANSCODING, "updated_at": now, "requested_at": requested_at}
    names, key = (*anew, "url", "reason", *_OF_ATTEMPT), ("record_id", "resolution")
    of = attrgetter(*_OF_ATTEMPT, *key)
    rows = {(one.record_id, one.resolution): (*anew.values(), None, None, *of(one)) for one in attempts}
    there = states(connection, rows)
    for its, before in there.items():
        check_move(RENDITION_MOVES, stem(*its), before.state, RenditionState.TRANSCODING)
    insert_many(connection, videos, (*names, *key), [row for its, row in rows.items() if its not in there])
    update_many(connection, videos, (key, ()), names, [rows[its] for its in there])


def drop(connection: Connection, key: RenditionKey, why: str, now: float) -> None:
    """End an attempt that nobody needs any more; it did not fail, so it does not count among those of its day."""
    ended = {"status": RenditionState.FAILED, "reason": why, "owner": None, "lease_until": None, "deadline": None}
    _set(connection, renditions_among([key]), **ended, updated_at=now, attempts_today=videos.c.attempts_today - 1)


def fall_back(connection: Connection, key: RenditionKey, now: float) -> None:
    """Note that the ECS transcoder is to make the rendition."""
    anew = {**_NOT_BEGUN, "backend": Backend.ECS, "deadline": now + UNKNOWN_LIMIT_S, "updated_at": now}
    _set(connection, renditions_among([key]), **anew)


def retry(connection: Connection, keys: Iterable[RenditionKey], now: float) -> None:
    """Begin another attempt for failed or timed-out renditions, as a person wants it; the daily cap does not apply."""
    failed = renditions_among(keys) & videos.c.status.in_((RenditionState.FAILED, RenditionState.TIMED_OUT))
    values = {"status": RenditionState.TRANSCODING, "backend": Backend.ECS, "attempt": videos.c.attempt + 1}
    _set(connection, failed, **values, **_NOT_BEGUN, deadline=now + UNKNOWN_LIMIT_S, updated_at=now)


def among(connection: Connection, keys: Iterable[RenditionKey]) -> list[RenditionRow]:
    """The rows of those of *keys* that have one."""
    return rows_of(connection, select(RenditionRow).where(renditions_among(keys)))


def took_s(connection: Connection, backend: Backend | None, most: int) -> list[float]:
    """The seconds that each of the last *most* transcodings by *backend* took, without its time in the queue."""
    began = videos.c.begun_at if backend is Backend.ECS else videos.c.requested_at
    made = (videos.c.status == RenditionState.SUCCESS) & (videos.c.backend == backend) & (videos.c.updated_at >= began)
    last = select(videos.c.updated_at - began).where(made).order_by(videos.c.updated_at.desc()).limit(most)
    return [float(seconds) for seconds in connection.execute(last).scalars()]


def counts(connection: Connection) -> Mapping[str, int]:
    """Number of renditions by status."""
    rows = connection.execute(select(videos.c.status, func.count()).group_by(videos.c.status))
    return {str(status): int(number) for status, number in rows}


def transcoding(backend: Backend) -> ColumnElement[bool]:
    """Selects the renditions that *backend* is to make."""
    return (videos.c.status == RenditionState.TRANSCODING) & (videos.c.backend == backend)


def renditions_among(keys: Iterable[RenditionKey]) -> ColumnElement[bool]:
    """Selects the renditions *keys*."""
    wanted = [(record_id, str(resolution)) for record_id, resolution in keys]
    return tuple_(videos.c.record_id, videos.c.resolution).in_(wanted)


def _set(connection: Connection, which: ColumnElement[bool], **values: object) -> int:
    """Write *values* into the renditions that fulfil *which*; returns their number."""
    return connection.execute(update(videos).where(which).values(**values)).rowcount


log = logging.getLogger("lectern")


PUBLISHED = "published"
"""The step of an ECS transcoding whose result is committed, and will come over the bus."""


def take(
    connection: Connection, keys: Sequence[RenditionKey], owner: str, lease_s: float, now: float
) -> list[RenditionRow]:
    """Lease to *owner*, for *lease_s*, the ECS transcodings among *keys* that nobody else works on.

    The time since the last lease ended, in which nobody could work on them, does not count against their limit.
    """
    free = renditions_among(keys) & to_be_made() & _free(now, owner)
    rows = sorted(where(connection, free), key=lambda row: row.resolution)
    for row in rows:
        lost_s = max(0.0, now - (row.lease_until or now))
        row.deadline, row.begun_at = (at and at + lost_s for at in (row.deadline, row.begun_at))
        its = {"deadline": row.deadline, "begun_at": row.begun_at}
        _set(connection, renditions_among([row.key]), owner=owner, lease_until=now + lease_s, **its)
    return rows


def left_behind(connection: Connection, keys: Sequence[RenditionKey]) -> list[RenditionRow]:
    """The transcodings among *keys* that have ended, and whose files or programs may still be on their host."""
    over = or_(videos.c.status != RenditionState.TRANSCODING, videos.c.step == PUBLISHED, videos.c.begun_at.is_(None))
    return where(connection, renditions_among(keys) & videos.c.ecs_job.is_not(None) & over)


def overdue(connection: Connection, now: float) -> list[RenditionRow]:
    """The transcodings whose deadline has passed.

    OSS transcodings that were not requested yet are left out, and those whose ECS run died before it: see `take`.
    """
    return where(connection, _asked_for() & (videos.c.deadline <= now) & ~_died(now))


def under_way(connection: Connection) -> list[RenditionRow]:
    """All transcodings that have not ended, however many, the next deadline first."""
    return where(connection, videos.c.status == RenditionState.TRANSCODING, most=None)


def next_deadline(connection: Connection, now: float) -> float | None:
    """The earliest deadline of a transcoding that can be read, see `where`, in epoch seconds; None if there is none.

    What a dead run left has none before it is taken up: see `overdue`.
    """
    known = videos.c.resolution.in_(list(Resolution)) & func.coalesce(videos.c.backend, Backend.ECS).in_(list(Backend))
    return connection.execute(select(func.min(videos.c.deadline)).where(_asked_for(), known, ~_died(now))).scalar()


def ownerless(connection: Connection, before: float, now: float) -> list[RenditionRow]:
    """The ECS transcodings that nobody has worked on since *before*, or whose owner's lease has expired."""
    lost = (videos.c.owner.is_(None) & (videos.c.updated_at < before)) | (videos.c.lease_until < now)
    return where(connection, to_be_made() & lost)


def where(connection: Connection, which: ColumnElement[bool], most: int | None = 1000) -> list[RenditionRow]:
    """At most *most* of the transcodings that fulfil *which*, the next deadline first.

    A row whose resolution or backend is unknown, an old program's or a newer release's, is logged, and hides no other.
    """
    rows = rows_of(connection, select(RenditionRow).where(which).order_by(videos.c.deadline).limit(most))
    for row in rows:
        if row.unknown:
            log.error("%s: its transcoding cannot be read, and is passed over: %s", row.stem, row.unknown)
    return [row for row in rows if not row.unknown]


def _asked_for() -> ColumnElement[bool]:
    elsewhere = videos.c.backend.is_(None) | (videos.c.backend != Backend.OSS)
    return (videos.c.status == RenditionState.TRANSCODING) & (elsewhere | videos.c.requested_at.is_not(None))


def _died(now: float) -> ColumnElement[bool]:
    """Selects the ECS transcodings whose run died before their deadline."""
    lease_until = func.coalesce(videos.c.lease_until, videos.c.deadline)  # of one that no run has had yet
    return to_be_made() & (lease_until < videos.c.deadline) & (lease_until < now)


def to_be_made() -> ColumnElement[bool]:
    """Selects the renditions that are to be made on our own servers, and are not published yet."""
    return or_(videos.c.step.is_(None), videos.c.step != PUBLISHED) & transcoding(Backend.ECS)


def open_requests(connection: Connection, keys: Sequence[RenditionKey], owner: str, now: float) -> list[RenditionRow]:
    """The renditions among *keys* that are to be requested, and that no other owner requests."""
    return where(connection, renditions_among(keys) & _unasked() & _free(now, owner), most=None)


def take_request(connection: Connection, due: RenditionRow, owner: str, lease_s: float, now: float) -> bool:
    """Lease *due*, for *lease_s*, to *owner* for one request; False if it is not to request this attempt."""
    mine = _attempt(due) & _unasked() & _free(now, owner)
    return _set(connection, mine, owner=owner, lease_until=now + lease_s) == 1


def note_requested(connection: Connection, due: RenditionRow, now: float, deadline: float) -> bool:
    """Note that the OSS took the request for *due*, with its *deadline*; False if the attempt is over meanwhile."""
    mine = _attempt(due) & transcoding(Backend.OSS)
    return _set(connection, mine, requested_at=now, deadline=deadline, owner=None, lease_until=None) == 1


def _attempt(row: RenditionRow) -> ColumnElement[bool]:
    return renditions_among([row.key]) & (videos.c.attempt == row.attempt)


def forgotten_requests(connection: Connection, before: float, now: float) -> list[RenditionRow]:
    """The OSS transcodings begun before *before* that were never requested, and that nobody is about to request."""
    return where(connection, _unasked() & (videos.c.updated_at < before) & _free(now))


def last_request_taken(connection: Connection) -> float | None:
    """When the OSS last took a request (epoch seconds); None if it never did."""
    return connection.execute(select(func.max(videos.c.requested_at))).scalar()


def request_owner(name: str, run: str) -> str:
    """The owner of the requests that a *run* of the teacher *name* is to make."""
    return f"{name}/{run}"


def request_owners(connection: Connection) -> set[str]:
    """The names of the teachers that have requests to make."""
    rows = connection.execute(select(videos.c.owner).where(_unasked() & videos.c.owner.is_not(None)).distinct())
    return {str(owner).rpartition("/")[0] for owner in rows.scalars()}


def free_requests(connection: Connection, owner: str) -> int:
    """Release the requests that a run, or a dead teacher, was to make: anybody may make them. Returns their number."""
    its_runs = videos.c.owner.startswith(request_owner(owner, ""), autoescape=True)
    mine = _unasked() & ((videos.c.owner == owner) | its_runs)
    return _set(connection, mine, owner=None, lease_until=None)


def _unasked() -> ColumnElement[bool]:
    return transcoding(Backend.OSS) & videos.c.requested_at.is_(None)


def _free(now: float, owner: str = "") -> ColumnElement[bool]:
    return or_(videos.c.owner.is_(None), videos.c.owner == owner, videos.c.lease_until < now)


RENEW_S = 1800.0
"""Seconds by which a deadline must be earlier than it may be to be put off: not each look writes it."""


def host_facts(connection: Connection, names: Sequence[str]) -> list[EcsHost]:
    """What is known of the hosts, in the order of *names*."""
    working = (
        select(videos.c.ecs_host, func.count(videos.c.ecs_job.distinct()))
        .where(transcoding(Backend.ECS), videos.c.ecs_host.is_not(None), videos.c.begun_at.is_not(None))
        .group_by(videos.c.ecs_host)
    )
    jobs = {str(host): int(number) for host, number in connection.execute(working)}
    columns = (ecs_hosts.c.host, ecs_hosts.c.failures, ecs_hosts.c.aside_until)
    lately = {name: did for name, *did in connection.execute(select(*columns).where(ecs_hosts.c.host.in_(names)))}
    return [EcsHost(name, jobs.get(name, 0), *lately.get(name, ())) for name in names]


def remember_host(connection: Connection, host: EcsHost, reason: str | None, now: float) -> None:
    """Write down the host's failures, and the reason for the last of them."""
    values = {"failures": host.failures, "aside_until": host.aside_until, "reason": reason, "updated_at": now}
    put_row(connection, ecs_hosts, {"host": host.name}, **values)


def ours(connection: Connection, due: Sequence[RenditionRow], owner: str) -> list[RenditionRow]:
    """The renditions among *due* that *owner* is still to make."""
    mine = renditions_among(rendition.key for rendition in due) & to_be_made() & (videos.c.owner == owner)
    rows = connection.execute(select(videos.c.record_id, videos.c.resolution).where(mine))
    keys = {(row.record_id, row.resolution) for row in rows}
    return [rendition for rendition in due if rendition.key in keys]


@dataclass(frozen=True)
class BegunJob:
    """What an ECS host makes in its folder *job* since *at* (epoch seconds)."""

    host: str
    job: str
    at: float


def attach(connection: Connection, due: Sequence[RenditionRow], owner: str, begun: BegunJob) -> None:
    """Note on which host *owner*'s renditions are made from now on."""
    reported(connection, due, owner, ecs_host=begun.host, ecs_job=begun.job, begun_at=begun.at)


def given_up(connection: Connection, due: Sequence[RenditionRow], owner: str) -> None:
    """Note that a host no longer makes the renditions: its place is free, and they wait for another host."""
    reported(connection, due, owner, begun_at=None, step="wait")


def detached(connection: Connection, host: str, job: str) -> None:
    """Note that nothing is left of the job on this host."""
    _set(connection, (videos.c.ecs_host == host) & (videos.c.ecs_job == job), ecs_host=None, ecs_job=None)


def reported(connection: Connection, due: Sequence[RenditionRow], owner: str, **values: object) -> list[RenditionRow]:
    """Write *values* into those of *due* that *owner* is still to make; returns them."""
    still = ours(connection, due, owner)
    _set(connection, renditions_among(row.key for row in still), **values)
    return still


def kept_waiting(connection: Connection, owners: Sequence[str], until: float, now: float) -> None:
    """Renew, until *until*, the leases of *owners* that wait for a host.

    What waits for its turn is not late: its deadline is put off, again when RENEW_S of that have passed.
    """
    mine, deadline = transcoding(Backend.ECS) & videos.c.owner.in_(owners), now + UNKNOWN_LIMIT_S
    _set(connection, mine, lease_until=until)
    waits = mine & to_be_made() & videos.c.begun_at.is_(None) & (videos.c.deadline < deadline - RENEW_S)
    _set(connection, waits, deadline=deadline)


def waiting_elsewhere(connection: Connection, owners: Sequence[str], since: float) -> list[RenditionKey]:
    """The renditions for which others than *owners* wait for a host, if their leases end later than *since*."""
    theirs = to_be_made() & videos.c.begun_at.is_(None) & videos.c.owner.not_in(owners) & (videos.c.lease_until > since)
    theirs &= videos.c.resolution.in_(list(Resolution))  # a newer release may know more
    rows = connection.execute(select(videos.c.record_id, videos.c.resolution).where(theirs))
    return [(row.record_id, row.resolution) for row in rows]


def others(connection: Connection, keys: Iterable[RenditionKey], owner: str, now: float) -> list[str]:
    """The runs other than *owner* that make any of the renditions, and hold a lease on it."""
    theirs = (
        renditions_among(keys) & transcoding(Backend.ECS) & (videos.c.owner != owner) & (videos.c.lease_until >= now)
    )
    return sorted(connection.execute(select(videos.c.owner).where(theirs).distinct()).scalars())


def first_starts(connection: Connection) -> Mapping[RenditionKey, float]:
    """When the first class begins that waits for each rendition (epoch seconds)."""
    waiting = (
        select(orders.c.record_id, orders.c.resolution, func.min(orders.c.start_time))
        .where(orders.c.state == BookingState.WAITING, orders.c.resolution.in_(list(Resolution)))
        .group_by(orders.c.record_id, orders.c.resolution)
    )
    return {(record, Resolution(name)): float(first) for record, name, first in connection.execute(waiting)}


def made_at(
    connection: Connection, settings: TeacherSettings, now: float, asked: Iterable[Transcoding] = ()
) -> dict[str, float]:
    """When the renditions will be made (epoch seconds) that are under way, and those *asked* for besides, by stem.

    Those of which nobody can say are left out.
    """
    rows = under_way(connection)
    starts = first_starts(connection) if rows else {}
    some = [
        Transcoding(
            *(row.stem, row.record_id, row.backend, starts.get(row.key, math.inf)),
            row.begun_at if row.backend is Backend.ECS else row.requested_at,
        )
        for row in rows
    ]
    some += asked
    took = {backend: took_s(connection, backend, MEASURED) for backend in {one.backend for one in some}}
    return transcoded_at(some, took, settings, now)


def least_s(connection: Connection, settings: TeacherSettings) -> float:
    """Seconds that a new transcoding will surely take, so that a class which begins sooner is refused; 0: nobody knows.

    It is what the quick half of the last ones took.
    """
    if settings.on_late != "refuse":
        return 0.0
    backend = Backend.ECS if settings.oss_transcode_url is None else Backend.OSS
    return quick_half_s(took_s(connection, backend, MEASURED)) or 0.0
