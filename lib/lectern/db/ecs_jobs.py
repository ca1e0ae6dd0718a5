"""The rows of ECS hosts: the jobs on each host, their progress, and the host's recent failures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select, update

from lectern.db.transcodings import PUBLISHED, renditions_among, to_be_made, transcoding
from lectern.model.facts import EcsHost, RenditionKey
from lectern.model.tables.teacher import RenditionRow, ecs_hosts, orders, videos
from lectern.states import Backend, BookingState, Resolution

RENEW_S = 1800.0
"""Seconds by which a deadline must be earlier than it may be to be put off: not each look writes it."""


def facts(connection: Connection, names: Sequence[str]) -> list[EcsHost]:
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


def remember(connection: Connection, host: EcsHost, reason: str | None, now: float) -> None:
    """Write down the host's failures, and the reason for the last of them."""
    values = {"failures": host.failures, "aside_until": host.aside_until, "reason": reason, "updated_at": now}
    known = connection.execute(update(ecs_hosts).where(ecs_hosts.c.host == host.name).values(**values))
    if known.rowcount == 0:
        connection.execute(insert(ecs_hosts).values(host=host.name, **values))


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
    _set(connection, due, owner, ecs_host=begun.host, ecs_job=begun.job, begun_at=begun.at, percent=None, eta=None)


def given_up(connection: Connection, due: Sequence[RenditionRow], owner: str) -> None:
    """Note that a host no longer makes the renditions: its place is free, and they wait for another host."""
    _set(connection, due, owner, begun_at=None, step="wait", percent=None, eta=None)


def detached(connection: Connection, host: str, job: str) -> None:
    """Note that nothing is left of the job on this host."""
    there = (videos.c.ecs_host == host) & (videos.c.ecs_job == job)
    connection.execute(update(videos).where(there).values(ecs_host=None, ecs_job=None))


def reported(
    connection: Connection, due: Sequence[RenditionRow], owner: str, until: float, **values: object
) -> list[RenditionRow]:
    """Renew the leases until *until*, and write the progress; returns the renditions that *owner* is still to make."""
    still = ours(connection, due, owner)
    _set(connection, still, owner, lease_until=until, **values)
    return still


def published(connection: Connection, due: Sequence[RenditionRow], owner: str) -> list[RenditionRow]:
    """Note that results are committed in this transaction; returns what of *due* was still *owner*'s to make."""
    still = ours(connection, due, owner)
    _set(connection, still, owner, step=PUBLISHED)
    return still


def kept_waiting(connection: Connection, owners: Sequence[str], until: float, deadline: float) -> set[str]:
    """Renew, until *until*, the leases of *owners* that wait for a host; returns the owners that still have any.

    What waits for its turn is not late: once its deadline is RENEW_S before *deadline*, that is its deadline.
    """
    mine = transcoding(Backend.ECS) & videos.c.owner.in_(owners)
    connection.execute(update(videos).where(mine).values(lease_until=until))
    waits = mine & to_be_made() & videos.c.begun_at.is_(None) & (videos.c.deadline < deadline - RENEW_S)
    connection.execute(update(videos).where(waits).values(deadline=deadline))
    return set(connection.execute(select(videos.c.owner).where(mine).distinct()).scalars())


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


def starts(connection: Connection) -> Mapping[RenditionKey, float]:
    """When the first class begins that waits for each rendition (epoch seconds)."""
    waiting = (
        select(orders.c.record_id, orders.c.resolution, func.min(orders.c.start_time))
        .where(orders.c.state == BookingState.WAITING, orders.c.resolution.in_(list(Resolution)))
        .group_by(orders.c.record_id, orders.c.resolution)
    )
    return {(record, Resolution(name)): float(first) for record, name, first in connection.execute(waiting)}


def _set(connection: Connection, due: Sequence[RenditionRow], owner: str, **values: object) -> None:
    mine = renditions_among(row.key for row in due) & transcoding(Backend.ECS) & (videos.c.owner == owner)
    connection.execute(update(videos).where(mine).values(**values))
