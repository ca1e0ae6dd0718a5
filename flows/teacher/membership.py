"""Knows which streamers live: grants leases, and moves the classes of those that are lost, or that leave, to others."""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from sqlalchemy import Connection

from flows import artifacts, failures
from flows.handling import changed, decision, printed
from flows.host import NOT_MOVED, NOWHERE, TeacherHost, current, log, lost_tag
from flows.outbox_publisher import publish_outbox
from flows.prefect_api import NewRun
from lectern import errors
from lectern.db import bookings, events, leases
from lectern.decide import leases as decide_leases
from lectern.decide import reports
from lectern.decide.placement import Choice, reassign, secondary_id
from lectern.errors import TryAgain
from lectern.i18n import Text
from lectern.model.facts import Order
from lectern.model.plan import Changes
from lectern.model.tables.teacher import StreamerRow, streamers
from lectern.redis.client import WITHDRAWN
from lectern.redis.connection import asking
from lectern.run_records import summary
from lectern.timing import Throttle

LOOK_S = 1.0
ANNOUNCE_AGAIN_S = 3.0  # seconds after which a move is announced again if its run has not begun, or could do nothing
TAKEN_AGAIN_S = 300.0
"""Seconds after which a move is announced again for a lost streamer whose classes no other streamer could take."""

GRANT_AGAIN_S = 10.0
"""Least seconds after which a claim that is still there is answered again: Redis may have lost the answer. Its streamer
may also read nothing for days, because its disk is full: the pause is a third of the time for which it has asked."""

LEASE = "lease_s"  # the field of a heartbeat that says for how many seconds it renews the lease
DRAINS = "drains"  # the field of a heartbeat that says that its streamer is drained, and by whom
DRAIN_AGAIN_S = 5.0
"""Seconds between two looks at the classes of a drained streamer: another streamer may be able to take them by then."""

ASKED_S = 5.0
"""Seconds that Redis has to answer: not longer, because another teacher could handle the messages meanwhile."""

FIRST_STREAMER_S = 300.0
"""Seconds for which a teacher that never had a streamer keeps bookings: a rollout starts streamers after it."""

BEATS = 2  # number of heartbeat intervals after which every living streamer has been heard, once Redis is there (again)
SEEN_S = 1.0  # seconds for which the list of living streamers is reused; their heartbeats are farther apart than that

Said = Mapping[str, Mapping[str, Any]]


async def alive_streamers(host: TeacherHost) -> list[str]:
    """The streamers that were heard of lately, by name.

    Raises TryAgain if that cannot be known: while Redis is away or takes no writes, in the first seconds after it came
    back, while the last streamer is being started again, and for some minutes if there was never a streamer yet.
    """
    settings, now, lost_s = host.settings, time.monotonic(), host.settings.streamer_lost_after_s
    seen_at, seen = host.membership_cache
    if not seen or now - seen_at > SEEN_S:
        try:
            async with asking(ASKED_S):
                seen = tuple(await host.bus.alive(settings.streamers_key, settings.streamer_lost_after_s))
        except TryAgain as error:
            host.redis_away = True
            raise TryAgain(
                "the streamers' heartbeats cannot be read: {error}", error=error.message
            ) from error.__cause__
        host.membership_cache = now, seen
    # A Redis that was restarted has forgotten the beats; we have not.
    if alive := sorted({*seen, *host.living_now()}):
        return alive
    listened_s = now - host.listens_since
    if listened_s < BEATS * settings.heartbeat_interval_s:
        raise TryAgain(Text("no streamer was heard of yet"))
    since = time.monotonic() - lost_s
    if leaving := sorted(name for name, (at, away) in host.heard_at.items() if at > since and away == "gone"):
        names = ", ".join(leaving)
        raise TryAgain("{leaving} has just been stopped, and may be about to be started again", leaving=names)
    if host.redis_away:
        raise TryAgain(Text("Redis takes no heartbeats, so no streamer can be heard of"))
    holders = await host.read_tx(leases.holders)
    if not holders and listened_s < FIRST_STREAMER_S:
        raise TryAgain(Text("no streamer of this release has ever been leased here; is one about to be rolled out?"))
    at = time.time()
    granted = [(row.name, row.session) for row in holders.values() if row.session and row.granted_s_ago(at) < lost_s]
    # One that cannot read its grant is given it again and again: it is not waited for for longer than a lost one.
    if new := ", ".join(sorted(lease[0] for lease in granted if now - host.claims_since.get(lease, now) < lost_s)):
        raise TryAgain("{new} has just been given its lease, and was not heard of yet", new=new)
    return alive


@decision
def withdrawn(connection: Connection, changes: Changes, name: str) -> None:
    """Leave the classes of the streamer *name* to the old program, once."""
    if leases.holder(connection, name).withdrawn_at is None:
        outcome = decide_leases.withdraw(changes, name, bookings.on(connection, name, changes.now))
        log.info("%s: %s", name, outcome)


@decision
def drained(connection: Connection, changes: Changes, name: str, alive: Sequence[str], by: object = None) -> None:
    """Move the later classes of the streamer *name* to those of *alive* that can take them."""
    orders, choice = _leaving(connection, changes, name, alive)
    decide_leases.drain(changes, name, orders, choice, by if isinstance(by, str) else "")


def _leaving(
    connection: Connection, changes: Changes, name: str, alive: Sequence[str]
) -> tuple[Sequence[Order], Choice]:
    """The classes of the streamer *name*, and which of those *alive* may have each.

    Their second airings are then known, and the classes of changes.
    """
    orders = bookings.on(connection, name, changes.now)
    beside = [order.revises or secondary_id(order.class_id) for order in orders]
    changes.orders |= bookings.readable_among(connection, beside)
    no = leases.refused_by(connection, [order.class_id for order in orders])
    return orders, Choice(bookings.loads(connection, changes.now, alive), no)


@dataclass
class Membership:
    """Looks every second at the heartbeats of all streamers; remembers only what it heard itself."""

    host: TeacherHost
    announced_at: Throttle = field(default_factory=Throttle)  # when the move of each streamer's classes was announced
    drained_at: Throttle = field(default_factory=Throttle)  # when each drained streamer was looked at last

    async def run(self) -> None:
        """Look at the heartbeats until cancelled."""
        while True:
            self.host.watchdog.beat("streamers")
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Take in what Redis has. While it is away, or takes no writes, no streamer counts as silent."""
        settings, is_deaf = self.host.settings, True
        try:
            # First of all: who was lost is not back because nobody can hear it, and would not be alarmed again. And who
            # is read to have a class has beaten by then: it may be the first beat for hours.
            holders, having = await self.host.read_tx(lambda c: (leases.holders(c), bookings.loads(c, time.time())))
            if any(one.lost_at is not None for one in holders.values()):
                self.host.ongoing[errors.STREAMER_LOST.number] = time.monotonic()
            now, beats, claims = await self.host.bus.heard(settings.streamers_key)
            newest = max((float(beat["at"]) for beat in beats.values()), default=-math.inf)
            if self.host.redis_away and now - newest > BEATS * settings.heartbeat_interval_s:
                raise TryAgain(Text("Redis: it takes no heartbeats"))
            kept_since = await self.host.bus.kept_since(settings.streamers_key)
            if kept_since != self.host.kept_since:  # who is silent may have been heard, and was lost with all the rest
                self.host.listens_since = math.inf if self.host.kept_since else self.host.listens_since
                self.host.kept_since = kept_since
                self.host.missing_since.clear()
                self.host.claims_since.clear()  # it may have lost the answers, too
            if self.host.listens_since == math.inf:
                self.host.listens_since = time.monotonic()
            await self._take_in(now, beats, claims, holders, having)
            is_deaf = False
        finally:
            if is_deaf:  # it hears nothing itself: no streamer's silence grows until a look succeeds
                self.host.listens_since = math.inf
                self.host.missing_since.clear()

    async def _take_in(
        self, now: float, beats: Said, claims: Said, holders: Mapping[str, StreamerRow], having: Mapping[str, int]
    ) -> None:
        heard, limit_s = time.monotonic(), self.host.settings.streamer_lost_after_s
        self.host.beats |= beats
        ages_s = {name: self.host.silent_s(name, float(beat["at"]), now) for name, beat in beats.items()}
        for name, beat in beats.items():  # one that goes, or whose disk is full, gets no more classes
            self.host.heard_at[name] = heard - ages_s[name], next((it for it in ("gone", "full") if beat.get(it)), "")
        asked = [(name, str(claim["session"])) for name, claim in claims.items()]
        self.host.claims_since = {lease: self.host.claims_since.get(lease, heard) for lease in asked}
        going = {name for name, beat in beats.items() if beat.get(WITHDRAWN)}
        left = {name for name, holder in holders.items() if holder.withdrawn_at is not None}  # the old program has it
        # Missed until it is heard again.
        lost = {name for name, holder in holders.items() if holder.lost_at is not None}
        for name in sorted(claims.keys() | having.keys() | going | lost):
            whose = Text("the lease of {name}", name=name)
            async with failures.isolated(self.host, whose, LOOK_S, through=failures.PASSING):
                if name in going:
                    await changed(self.host, withdrawn(name))
                    await self.host.bus.forget_withdrawn(self.host.settings.streamers_key, name)
                    self.host.beats.pop(name, None)
                if name in claims:
                    await grant(self.host, name, str(claims[name]["session"]), float(claims[name]["lease_s"]))
                await self._renewed(holders.get(name) or StreamerRow(name=name), beats.get(name, {}).get(LEASE))
                if name in having.keys() | lost and name not in going | left:
                    await self._drain(name, beats.get(name, {}), ages_s.get(name, math.inf))
                    silent_s = self._silent_s(name, ages_s.get(name), heard)
                    is_heard = ages_s.get(name, math.inf) <= limit_s
                    await self._watch(name, having.get(name, 0), holders.get(name), silent_s, is_heard=is_heard)

    async def _renewed(self, holder: StreamerRow, lease_s: object) -> None:
        """Note for how long a beat renews a lease: since its grant LEASE_S may have changed, or its row was lost."""
        if isinstance(lease_s, int | float) and lease_s >= 0 and lease_s != holder.lease_s:
            name = holder.name
            await changed(self.host, lambda c, changes: changes.hold(leases.holder(c, name), lease_s=lease_s))
            holder.lease_s = lease_s

    async def _drain(self, name: str, beat: Mapping[str, Any], age_s: float) -> None:
        """Move the later classes of *name* to other streamers, if its *beat*, which is *age_s* old, says who drains it.

        One that is cut off from Redis alone hears nothing of it, and goes on by Prefect's word, which shows moves only.
        """
        by, is_there = beat.get(DRAINS), age_s <= BEATS * self.host.settings.heartbeat_interval_s
        if not by or not (is_there or beat.get("gone")) or not self.drained_at.take(name, DRAIN_AGAIN_S):
            return
        alive = [other for other in self.host.living_now() if other != name]
        plan = await changed(self.host, drained(name, alive, by))
        if plan.taken:
            log.info("%s: is drained; %d classes were moved to others", name, len(plan.taken))
            await publish_outbox(self.host)

    async def _watch(
        self, name: str, number: int, holder: StreamerRow | None, silent_s: float, *, is_heard: bool
    ) -> None:
        """Announce, and then raise an alarm, that a streamer with *number* classes is silent; 0 if they were moved.

        A teacher that has just begun to listen knows of no silence: then a lost streamer is back only if it *is_heard*.
        """
        settings = self.host.settings
        limit_s = decide_leases.lost_after(settings.streamer_lost_after_s, holder.lease_s if holder else 0)
        if number and silent_s > decide_leases.suspect_after(limit_s, settings.heartbeat_interval_s):
            again_s = TAKEN_AGAIN_S if holder and holder.session is None else ANNOUNCE_AGAIN_S
            self._announce(name, silent_s, again_s)
        is_lost = holder is not None and holder.lost_at is not None
        if silent_s > settings.streamer_lost_after_s and not is_lost:
            others = failover_candidates(self.host, name, silent_s)
            await changed(self.host, lost(name, number, others))
            await publish_outbox(self.host)
        elif is_lost and is_heard and silent_s <= settings.streamer_lost_after_s:
            back = {"lost_at": None}
            await changed(self.host, lambda _, changes: changes.change(streamers, {"name": name}, {}, back))

    def _silent_s(self, name: str, age_s: float | None, heard: float) -> float:
        """How long a streamer is silent whose last heartbeat is *age_s* old; None if Redis lacks it."""
        if age_s is not None:
            self.host.missing_since.pop(name, None)
        missing_s = heard - self.host.missing_since.setdefault(name, heard) if age_s is None else 0.0
        return decide_leases.silence(age_s, missing_s, heard - self.host.listens_since)

    def _announce(self, name: str, silent_s: float, again_s: float) -> None:
        """Begin the run that moves the classes, if the silence goes on; another one not before *again_s*."""
        if not failover_candidates(self.host, name, silent_s) or move_key(name) in self.host.in_progress:
            return
        if self.announced_at.take(name, again_s):
            run = NewRun("move", {"streamer": name}, f"move classes of {name}", [lost_tag(name)])
            self.host.background.begin(self.host.runs, run, needs_run=True)


def failover_candidates(host: TeacherHost, streamer: str, silent_s: float) -> list[str]:
    """The streamers that may take the classes of *streamer* while it is unknown whether it still airs them."""
    alive = host.living_now(decide_leases.heard_within(silent_s))
    return decide_leases.may_take(host.beats.get(streamer), [name for name in alive if name != streamer])


def move_key(streamer: str) -> str:
    """The entry of `Host.in_progress` while a run moves the classes of *streamer*."""
    return f"move:{streamer}"


@decision
def lost(connection: Connection, changes: Changes, name: str, number: int, others: Sequence[str]) -> None:
    """Raise one alarm that the streamer *name* is lost, and what becomes of its *number* classes."""
    holder = leases.holder(connection, name)
    if holder.lost_at is None:
        movable = decide_leases.lost_after(changes.settings.streamer_lost_after_s, holder.lease_s) < math.inf
        log.error("%s: is lost: %s", name, decide_leases.lose(changes, holder, number, others, movable=movable))


async def grant(host: TeacherHost, name: str, session: str, lease_s: float) -> None:
    """Give a streamer the lease that it asks for, after telling it all that was taken from it."""
    asks_s, holder = time.monotonic() - host.claims_since[name, session], await host.read_tx(leases.holder, name)
    if holder.session == session and holder.granted_s_ago(time.time()) < min(asks_s / 3, bookings.TOLD_AGAIN_WITHIN_S):
        return
    if (await changed(host, granted(name, session, lease_s))).rows:
        # The streamer can use the session only when it has read the message, so Redis may know the session first.
        await host.bus.grant(host.settings.streamers_key, name, session)
        await publish_outbox(host)


@decision
def granted(connection: Connection, changes: Changes, name: str, session: str, lease_s: float) -> None:
    """Grant a lease, unless that was just done, and the streamer has not read it yet."""
    now, holder = changes.now, leases.holder(connection, name)
    if holder.session == session and holder.granted_s_ago(now) < GRANT_AGAIN_S:
        return
    taken = leases.taken_from(connection, name)
    # One that is lost is back when it is heard, see `Membership`: it may never read the grant.
    held = StreamerRow(name=name, session=session, lease_s=lease_s, granted_at=now, lost_at=holder.lost_at)
    decide_leases.grant(changes, held, taken, bookings.cancels_unconfirmed_by(connection, name, now))
    log.info("%s: its lease is granted; %d classes were taken from it before", name, len(taken))


SILENT_LOOK_S = 1.0


@flow(name="move", persist_result=False, result_storage=NOWHERE)
async def move(streamer: str, force: bool = False, dry_run: bool = False) -> State[None]:
    """Move the classes of *streamer* to others. *force*: a person has made sure that it pushes nothing any more."""
    host: TeacherHost = current.get()
    key = move_key(streamer)
    if key in host.in_progress:
        return Completed(name=NOT_MOVED, message="another run is at it")
    host.in_progress.add(key)
    try:
        return await _move(host, streamer, force=force, dry_run=dry_run)
    except TryAgain as error:
        return Failed(name=NOT_MOVED, message=f"nothing was moved: {error.message}")
    finally:
        host.in_progress.discard(key)


async def _move(host: TeacherHost, streamer: str, *, force: bool, dry_run: bool) -> State[None]:
    """Show this run in Prefect before moving anything: a streamer that cannot reach Redis looks for it there."""
    before = await host.read_tx(leases.holder, streamer)
    silent_s = -1.0 if force else decide_leases.lost_after(host.settings.streamer_lost_after_s, before.lease_s)
    if silent_s == math.inf:
        return Failed(name=NOT_MOVED, message=f"the lease of {streamer} has no end; see that it is off, and set force")
    alive = await _takers(host, streamer, silent_s, force=force)
    if not alive:
        return _stays(streamer)
    if dry_run:
        plan = await changed(host, taken(before, alive, force=force), dry_run=True)
        shown = await printed("move", [plan])
        return Completed(name=NOT_MOVED, message=shown.message)
    # After a restore, the database names an earlier session than Redis has, which its streamer asks for.
    held = await host.bus.lease_of(host.settings.streamers_key, streamer)
    sessions = [session for session in (before.session, held) if session]
    if any(not session.startswith("-") for session in sessions):
        await host.runs.announce(*(lost_tag(streamer, session.removeprefix("-")) for session in sessions))
    if not await _stays_silent(host, streamer, silent_s) and not force:
        return Completed(name=NOT_MOVED, message=f"{streamer} was heard of again: it keeps its classes")
    alive = await _takers(host, streamer, silent_s, force=force)
    if not alive:
        return _stays(streamer)
    if not await host.bus.take(host.settings.streamers_key, streamer, silent_s):
        why = "was heard of again, or may have been before Redis was emptied or started again"
        return Completed(name=NOT_MOVED, message=f"{streamer} {why}: it keeps its classes")
    if force:  # it is taken out: nobody misses it any more
        await host.bus.part(host.settings.streamers_key, streamer)
    plan = await changed(host, taken(before, alive, force=force))
    await publish_outbox(host)
    await artifacts.table("move-batch", plan.table, f"What became of the classes of {streamer}")
    return Completed(message=summary(plan.table))


async def _takers(host: TeacherHost, streamer: str, silent_s: float, *, force: bool) -> list[str]:
    alive = [name for name in await alive_streamers(host) if name != streamer]
    return alive if force else failover_candidates(host, streamer, silent_s)


def _stays(streamer: str) -> State[None]:
    return Completed(name=NOT_MOVED, message=f"no streamer is alive that may have its classes: {streamer} keeps them")


async def _stays_silent(host: TeacherHost, streamer: str, silent_s: float) -> bool:
    """Wait for NOTICE_S, and until the silence has lasted *silent_s*; False if *streamer* is heard of again."""
    last_word, _ = await _silence(host, streamer)
    await asyncio.sleep(decide_leases.NOTICE_S)
    while True:
        word, lasted_s = await _silence(host, streamer)
        if word != last_word:
            return False
        if lasted_s > silent_s:
            return True
        await asyncio.sleep(min(SILENT_LOOK_S, silent_s - lasted_s + 0.01))


async def _silence(host: TeacherHost, streamer: str) -> tuple[float | None, float]:
    """The time of the last heartbeat of *streamer* in Redis, at the shared clock, and the seconds since.

    If Redis has forgotten the streamer, the seconds count from when this teacher first missed it.
    """
    now, beats, _ = await host.bus.heard(host.settings.streamers_key)
    host.beats |= beats
    if streamer in beats:
        at = float(beats[streamer]["at"])
        return at, host.silent_s(streamer, at, now)
    heard = time.monotonic()
    return None, heard - host.missing_since.setdefault(streamer, heard)


@decision
def taken(connection: Connection, changes: Changes, before: StreamerRow, alive: Sequence[str], *, force: bool) -> None:
    """Take the classes of a streamer, unless its lease was granted again since *before* was read."""
    streamer, holder = before.name, leases.holder(connection, before.name)
    if holder.session != before.session:
        return
    changes.change(streamers, {"name": streamer}, {}, {"session": None})
    orders, choice = _leaving(connection, changes, streamer, alive)
    if not force and holder.lost_at is None:  # `Membership` may not have raised this alarm yet
        decide_leases.lose(changes, holder, len(orders), alive, movable=True)
    going = decide_leases.leaving_lost(changes, orders, choice, force=force)
    reassign(changes, going, choice, Text("{streamer} is lost", streamer=streamer), refused=False)
    stays = Text("with {streamer}, which is lost: no other streamer can take it yet", streamer=streamer)
    if force:  # no cancel needs its word any more
        unconfirmed = bookings.cancels_unconfirmed_by(connection, streamer, changes.now)
        cancelled = [row.class_id for row in unconfirmed]
        changes.learn(bookings.readable_among(connection, cancelled))
        reports.close_cancels(changes, unconfirmed, events.parts_of(connection, cancelled), is_off=True)
    for order in orders if before.session is not None else ():
        if order not in going:
            changes.note("stays", order, stays)
