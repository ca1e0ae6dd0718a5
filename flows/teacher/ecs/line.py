"""The queue for the ECS hosts: the class that begins first gets the next free place, on the least loaded host.

Other renditions of the same recording that wait then, here or at another teacher, are made in the same job.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from flows.host import Teacher
from lectern.decide import ecs as decide
from lectern.decide.transcode import UNKNOWN_LIMIT_S
from lectern.effects.ecs.ssh import Host
from lectern.effects.rows import ecs_hosts, events, transcodings
from lectern.effects.rows.ecs_hosts import Begun
from lectern.effects.rows.transcodings import Due
from lectern.errors import FallBack
from lectern.facts import EcsHost, Event, RenditionKey
from lectern.settings import TeacherSettings

LEASE_S = 60.0
LOOK_S = 2.0
"""Seconds until a place is seen that another teacher, or a crash, has left free; our own is seen at once."""

YIELD_S = 2 * LOOK_S
"""Seconds for which a free place is left to another teacher whose class begins earlier, and that looks meanwhile."""


class NoLongerOurs(Exception):
    """The renditions were settled, taken over, or are needed by no class any more."""


@dataclass(frozen=True)
class Place:
    """A host that makes *due* in one job since *begun_at* (epoch seconds)."""

    host: Host
    begun_at: float
    due: Sequence[Due]
    again: bool = False  # it was begun there before


JobName = Callable[[Sequence[Due]], str]
"""The name of the job that makes these renditions."""


@dataclass
class _Waiting:
    due: Sequence[Due]
    owner: str
    name_of: JobName
    avoid: Sequence[str]
    yields_until: float | None = None  # epoch seconds
    given: asyncio.Future[Place] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def keys(self) -> list[RenditionKey]:
        return [one.key for one in self.due]

    def yields(self, now: float) -> bool:
        """Whether it leaves a place to another teacher; not for long, because that one may want another host."""
        self.yields_until = self.yields_until or now + YIELD_S
        return now < self.yields_until


def hosts(settings: TeacherSettings) -> dict[str, Host]:
    """The hosts by their names, in the order of the setting; raises Misuse for an entry that names no host."""
    listed = [Host.parse(text) for text in settings.ecs_hosts.split(",") if text.strip()]
    return {str(one): one for one in listed}


class Line:
    """The attempts of this process that wait for a host; a task serves them while there are any."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._clerk: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()

    async def place(
        self, host: Teacher, due: Sequence[Due], owner: str, name_of: JobName, avoid: Sequence[str]
    ) -> Place:
        """Wait for a host for *due*, and for what is made in the same job.

        Raises FallBack (none is set up) or NoLongerOurs.
        """
        known = hosts(host.settings)
        if not known:
            raise FallBack(f"{due[0].stem}: no ECS host is set up; set ECS_HOSTS")
        first, job = due[0], name_of(due)
        if first.ecs_job == job and first.ecs_host in known and first.begun_at is not None and not avoid:
            return Place(known[first.ecs_host], first.begun_at, due, again=True)
        waiting = self._waiting[f"{owner} {job}"] = _Waiting(due, owner, name_of, avoid)
        self._moved.set()
        if self._clerk is None or self._clerk.done():
            self._clerk = asyncio.create_task(self._serve(host))
            self._clerk.add_done_callback(self._ended)
        try:
            return await waiting.given
        finally:
            self._waiting.pop(f"{owner} {job}", None)

    def _ended(self, clerk: asyncio.Task[None]) -> None:
        """Pass the exception of the serving task to every attempt that waits."""
        error = None if clerk.cancelled() else clerk.exception()
        for one in self._waiting.values():
            if error is not None and not one.given.done():
                one.given.set_exception(error)

    def left(self) -> None:
        """Note that a place may be free."""
        self._moved.set()

    async def _serve(self, host: Teacher) -> None:
        while self._waiting:
            self._moved.clear()
            # An attempt whose future is set has its place even before it resumes: it must not get a second one.
            waiting = {name: one for name, one in self._waiting.items() if not one.given.done()}
            given, gone = await host.commit(_assign, host, waiting)
            for name in gone:
                _tell(waiting[name].given, NoLongerOurs())
            for name, place in given.items():
                _tell(waiting[name].given, place)
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._moved.wait()
            except TimeoutError:
                continue


def _tell(given: asyncio.Future[Place], what: Place | Exception) -> None:
    if given.done():
        return
    if isinstance(what, Place):
        given.set_result(what)
    else:
        given.set_exception(what)


def _assign(
    connection: Connection, host: Teacher, waiting: Mapping[str, _Waiting]
) -> tuple[dict[str, Place], list[str]]:
    """Give each free place to the first in the queue; returns the places, and the names that need not wait any more."""
    now, known = time.time(), hosts(host.settings)
    owners = sorted({one.owner for one in waiting.values()})
    ours = ecs_hosts.kept_waiting(connection, owners, now + LEASE_S, now + UNKNOWN_LIMIT_S)
    gone = [name for name, one in waiting.items() if one.owner not in ours]
    facts = {one.name: one for one in ecs_hosts.facts(connection, list(known))}
    given: dict[str, Place] = {}
    keys = {name: one.keys for name, one in waiting.items() if name not in gone}
    starts, earlier = ecs_hosts.starts(connection), math.inf
    if host.settings.shared:
        since = now + LEASE_S - YIELD_S
        earlier = decide.first_start(ecs_hosts.waiting_elsewhere(connection, owners, since), starts)
    for name in decide.first_to_start(keys, starts):
        one = waiting[name]
        due = ecs_hosts.ours(connection, one.due, one.owner)
        if not due:
            gone.append(name)
            continue
        chosen = decide.host_for(facts.values(), host.settings.max_ecs_jobs, one.avoid, now)
        if chosen is None:
            one.yields_until = None
            continue  # another attempt may avoid other hosts
        if earlier < decide.first_start(one.keys, starts) and one.yields(now):
            continue
        failed_there = [other.owner for other in waiting.values() if chosen in other.avoid]
        due += transcodings.join(connection, due, one.owner, failed_there, now + LEASE_S)
        due.sort(key=lambda each: each.resolution)
        ecs_hosts.attach(connection, due, one.owner, Begun(chosen, one.name_of(due), now))
        given[name] = Place(known[chosen], now, due)
        before = facts[chosen]
        facts[chosen] = EcsHost(chosen, before.jobs + 1, before.failures, before.aside_until)
        with_ = f" in one job of {len(due)}" if len(due) > 1 else ""
        noted = [Event("ECS transcoding begins", stem=each.stem, detail=f"on {chosen}{with_}") for each in due]
        events.note(connection, host.journal, host.settings.name, noted, now)
    return given, gone
