"""Keeps a streamer's lease by heartbeats in a thread of their own; releases classes that are taken from it.

Nothing that the resident does can make them late: the thread has a loop, a Redis connection and a connection to the
supervisor of its own. It uses neither the database nor the resident's loop, which hands it what a heartbeat says.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from flows import failures
from flows.failures import isolated
from flows.handling import Delivery, handled
from flows.handling import came as came_of
from flows.host import StreamerHost, log
from flows.outbox_publisher import publish_outbox
from flows.playout_link import boot_now
from flows.prefect_api import best_effort
from lectern import health
from lectern.db import airings, cache, inbox, leases
from lectern.decide import airing as decide
from lectern.decide import leases as decide_leases
from lectern.decide.leases import Answer, Peers, PrefectAnswer
from lectern.errors import Caught, TryAgain
from lectern.i18n import Text
from lectern.model.facts import Airing, InboxMessage
from lectern.model.streamer_plan import StreamerChanges
from lectern.playout.control_socket import Client, PlayoutUnreachable, RequestRefused
from lectern.redis.client import Bus
from lectern.redis.connection import asking
from lectern.settings import StreamerSettings
from lectern.timing import comes
from lectern.wire.messages import Grant, Release

AGAIN_S = 1.0
FULL_S = 30.0  # seconds for which a disk counts as full after a failed write
STALE_S = 10.0
"""Seconds after which this process counts as hung if its loop hands over no new facts: then it gets no new class."""

SUPERVISOR_S = 2.0  # seconds that the playout's supervisor has to answer
FOR_EVER_S = 10 * 365 * 86_400.0  # the end of a lease without end, because the supervisor takes only numbers
SUPERVISOR_AGAIN_S = 0.2
END_S = 2.0  # seconds in which the thread must end
ASK_S = 4.0
"""Seconds that Prefect has to answer before it counts as away; fewer if the lease is short, to ask again in time."""

LOOK_S = 2.0  # seconds that another streamer has to answer

IsTaken = Callable[[str, str], Awaitable[bool]]
"""Asks Prefect whether the classes of a streamer, by the session of its lease, are taken; raises TryAgain."""

AskPrefect = Callable[[], AbstractAsyncContextManager[IsTaken]]


@dataclass(frozen=True)
class LeaseFacts:
    """What the resident's loop has read for the heartbeats; *at* is of the boot clock."""

    at: float
    session: str
    fields: Mapping[str, Any]


async def renew(host: StreamerHost, ask_prefect: AskPrefect) -> None:
    """Run the thread that keeps the lease, and hand it the facts, until cancelled; runs in the resident's loop."""
    host.fencing_token = host.fencing_token or uuid4().hex
    known = await host.read_tx(leases.peers, host.settings.name)
    beats = HeartbeatThread(host, await host.read_tx(_facts, host, boot_now()), known, ask_prefect)
    beats.start()
    try:
        while True:
            host.watchdog.beat("lease")
            await _soon(host.granted, host.settings.heartbeat_interval_s if host.control_connected else AGAIN_S)
            async with isolated(host, Text("what a heartbeat says"), AGAIN_S, through=()):  # it beats on meanwhile
                beats.hand_over(await host.read_tx(_facts, host, boot_now()))
    finally:
        await beats.stop()


def _facts(connection: Connection, host: StreamerHost, at: float) -> LeaseFacts:
    settings, drains, full_at = host.settings, leases.drained_by(connection), host.no_room_at
    is_full = full_at is not None and time.monotonic() - full_at < FULL_S  # it could not even refuse a class
    fields = {
        "used_bytes": cache.used(connection, settings.video_root).size_bytes,
        "max_bytes": settings.max_bytes,
        "on_air": airings.on_air(connection),
        "drains": drains,
        "full": is_full or bool(drains),  # also a teacher of an older release gives no class to one that is drained
        "address": host.address and (settings.health_address or host.address),
    }
    return LeaseFacts(at, leases.session(connection, settings.name) or "", fields)


class HeartbeatThread:
    """The thread: `start`, `hand_over` and `stop` are called by the resident's loop; all else is in its own loop."""

    def __init__(
        self, host: StreamerHost, facts: LeaseFacts, known: dict[str, str] | None, ask_prefect: AskPrefect
    ) -> None:
        self._host, self._facts = host, facts
        self._resident = asyncio.get_running_loop()
        self._witnesses = QuorumCheck(host, known, self._note_peers)
        self._ask_prefect = ask_prefect
        self._lease, self._session = decide_leases.Lease(), ""
        self._is_adopted = False  # whether the supervisor was asked for the lease that the process before this one left
        self._was_held = self._was_ours = self._is_trouble = False
        self._why: str | None = ""  # why the classes go on, or end, while no beat is confirmed
        self._no_supervisor: str | None = None  # why the supervisor does not take the lease, or does not write it down
        self._saying: Future[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._stops, self._wakes, self._moved, self._doubt = (asyncio.Event() for _ in range(4))

    @property
    def _settings(self) -> StreamerSettings:
        return self._host.settings

    def start(self) -> None:
        """Begin to beat."""
        log.addFilter(self._passed_on)
        self._thread.start()

    def hand_over(self, facts: LeaseFacts) -> None:
        """What the heartbeats say from now on; a new session is used at once."""
        is_new, self._facts = facts.session != self._facts.session, facts
        if is_new:
            self._call(self._wakes)

    async def stop(self) -> None:
        """End the thread; the lease stays, for the next process."""
        self._call(self._stops)
        try:
            await asyncio.to_thread(self._thread.join, END_S)
        finally:
            log.removeFilter(self._passed_on)

    def _call(self, event: asyncio.Event) -> None:
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(event.set)

    # -- the thread, and what it asks of the resident's loop without waiting for it ------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
        finally:
            self._loop.close()

    async def _main(self) -> None:
        bus = Bus.open(self._settings.redis_url.get_secret_value())
        loops = (partial(self._keep_beating, bus), self._keep_telling, self._keep_asking)
        tasks = [asyncio.create_task(self._again(loop)) for loop in loops]
        await self._stops.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=END_S / 2)
        with suppress(TryAgain):
            async with asking(END_S / 2):
                await bus.close()

    async def _again(self, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run *loop*; log an unexpected error, and run it again.

        Not left to `Supervisor`, which belongs to the resident's loop, and pauses for longer than a lease can wait.
        """
        while True:
            failed = Caught()
            try:
                with failed:
                    await loop()
                await asyncio.sleep(0)  # a cancel that a library has left behind comes here
            except asyncio.CancelledError:
                if self._stops.is_set():
                    raise
                log.error("lease: was cancelled by nobody; it begins again")
            if failed.error is not None and (self._saying is None or self._saying.done()):
                reporting = failures.report(self._host, Text("lease"), failed.error, AGAIN_S)
                self._saying = asyncio.run_coroutine_threadsafe(reporting, self._resident)
            await asyncio.sleep(AGAIN_S)

    def _passed_on(self, record: logging.LogRecord) -> bool:
        """A filter: the thread's lines are written by the resident's loop, because a log may hang."""
        if threading.current_thread() is not self._thread:
            return True
        with suppress(RuntimeError):  # the resident's loop has ended
            self._resident.call_soon_threadsafe(log.handle, record)
        return False

    async def _note_peers(self, known: Mapping[str, str]) -> None:
        noted = self._host.write_tx(leases.note_peers, self._settings.name, known)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(noted, self._resident))

    # -- Redis ---------------------------------------------------------------------------------------------------------

    async def _keep_beating(self, bus: Bus) -> None:
        while True:
            pause_s = await self._beat(bus)
            held = boot_now() < self._lease.until
            if held and not self._was_held:
                log.info("lease: held")
            elif self._was_held and not held:
                log.error("lease: has run out; nothing is pushed until it is held again")
            self._was_held = held
            await _soon(self._wakes, pause_s)

    async def _beat(self, bus: Bus) -> float:
        """One heartbeat; returns after how many seconds the next one is due."""
        settings, facts, asked_at = self._settings, self._facts, boot_now()
        if facts.session == self._host.fencing_token:
            # Never claim the current session again: it would be granted before we read the releases issued under it.
            self._host.fencing_token = uuid4().hex
        claim = {"session": self._host.fencing_token, "lease_s": settings.lease_s}
        fields = {**facts.fields, **self._witnesses.said, "lease_s": settings.lease_s}
        if asked_at - facts.at > STALE_S + settings.heartbeat_interval_s:
            fields |= {"stale": True, "full": True}
        try:
            async with asking(self._patience_s):
                answer = await bus.beat(settings.streamers_key, settings.name, facts.session, fields, claim)
        except TryAgain as error:
            if not self._is_trouble:
                log.warning("redis: no heartbeat: %s", error.message)
            self._take(Answer.NONE, asked_at)
            return min(AGAIN_S, settings.heartbeat_interval_s)
        if isinstance(answer, dict):
            self._session = facts.session
            self._take(Answer.OURS, asked_at)
            self._witnesses.take_in(answer)
            return settings.heartbeat_interval_s
        self._take(decide_leases.answer(answer, self._host.fencing_token), asked_at)
        if answer == f"-{self._host.fencing_token}":  # it was granted and taken before we have read of it
            self._host.fencing_token = uuid4().hex
        return min(AGAIN_S, settings.heartbeat_interval_s)

    @property
    def _patience_s(self) -> float:
        """Seconds that Redis may take for a heartbeat; in trouble, fewer than Prefect's answer remains valid."""
        if self._is_trouble:
            return decide_leases.WITNESS_S / 4
        lease_s = self._settings.lease_s
        return min(5.0, lease_s / 4) if lease_s else 5.0

    def _take(self, answer: Answer, asked_at: float) -> None:
        """Take in Redis' *answer*: a lease that was taken is given up before anything else."""
        self._set(self._lease.answered(answer, asked_at, self._settings.lease_s))
        if answer is Answer.OURS:
            if self._why:
                log.info("lease: the control host is heard again")
            self._why, self._was_ours = "", True
        elif answer is not Answer.NONE and self._was_ours:
            log.warning("lease: is not ours any more, a new one is asked for")
            self._was_ours = False
        self._is_trouble = answer is not Answer.OURS
        if answer in (Answer.OURS, Answer.TAKEN):
            self._doubt.clear()
        elif self._settings.lease_s:
            self._doubt.set()

    def _set(self, lease: decide_leases.Lease) -> None:
        if lease.until != self._lease.until:
            self._moved.set()
        self._lease = lease
        self._host.playout.until = lease.until
        self._host.control_connected = lease.answer is Answer.OURS

    # -- the witnesses -------------------------------------------------------------------------------------------------

    async def _keep_asking(self) -> None:
        while True:
            await self._doubt.wait()
            async with self._ask_prefect() as is_taken:
                while self._doubt.is_set():
                    await self._ask(is_taken)
                    await asyncio.sleep(AGAIN_S)

    async def _ask(self, is_taken: IsTaken) -> None:
        """Ask once: classes go on if no other streamer can have them. Only Redis gives back a lease that is over."""
        asked_at = boot_now()
        if asked_at >= self._lease.until:
            return
        goes_on, why = await self._witnesses.verdict(is_taken, self._facts.session, self._host.fencing_token)
        self._set(self._lease.witnessed(asked_at, boot_now(), goes_on=goes_on))
        if why != self._why and self._doubt.is_set():
            self._why = why
            ends = f"they end in {max(self._lease.until - boot_now(), 0.0):.0f} s"
            outcome = "the classes go on" if goes_on else ends
            log.warning("lease: no heartbeat is confirmed: %s; %s", why, outcome)

    # -- the playout's supervisor --------------------------------------------------------------------------------------

    async def _keep_telling(self) -> None:
        """Tell the supervisor when the lease ends, at once when that changes, and each second."""
        while True:
            try:
                async with await Client.connect(self._settings.playout_dir / "lease.sock") as supervisor:
                    await self._tell(partial(supervisor.ask, "lease", timeout_s=SUPERVISOR_S))
            except (PlayoutUnreachable, RequestRefused) as error:
                if self._no_supervisor is None:
                    log.warning("playout: its supervisor takes no lease: %s", error)
                self._no_supervisor = "away"
                await asyncio.sleep(SUPERVISOR_AGAIN_S)

    async def _tell(self, ask: Callable[..., Awaitable[dict[str, Any]]]) -> None:
        answer = await ask()
        if not self._is_adopted and self._lease.answer not in (Answer.OURS, Answer.TAKEN):
            self._set(decide_leases.Lease(max(self._lease.until, answer["lease_until"]), self._lease.answer))
        self._is_adopted = True
        while True:
            self._moved.clear()
            until, now = min(self._lease.until, FOR_EVER_S), boot_now()
            # A lease that was over airs all classes that the playout knows.
            is_cleared = self._host.playout.cleared == (self._session, answer["holder_pid"])
            answer = await ask(**{"until": until} if until <= now or answer["lease_until"] > now or is_cleared else {})
            if (why := answer.get("why")) is not None and why != self._no_supervisor:
                log.warning("playout: %s; if it ends now, it forgets that", why)
            self._no_supervisor = why
            await _soon(self._moved, AGAIN_S)


async def _soon(event: asyncio.Event, within_s: float) -> None:
    await comes(event, within_s)
    event.clear()


# -- whom else it asks -------------------------------------------------------------------------------------------------
class QuorumCheck:
    """Knows the other streamers by their last beats, and asks them.

    Their names are on the disk before a beat reports them: the teacher moves classes only to streamers that this one
    reported, and this one asks all of those, also after its restart. *known* are those that the disk has (addresses by
    name); None if no beat ever named them. *note* writes them down.
    """

    def __init__(
        self, host: StreamerHost, known: dict[str, str] | None, note: Callable[[Mapping[str, str]], Awaitable[None]]
    ) -> None:
        self._host, self._known, self._note = host, known, note
        self._say: list[str] | None = None  # the names that the next beat reports
        self._noting: asyncio.Task[None] | None = None

    @property
    def said(self) -> dict[str, Any]:
        """The field of a beat that names the other streamers."""
        says = decide_leases.listed_peers(self._host.settings.partition_policy, self._named)
        return {} if says is None else {"peers": says}

    @property
    def _named(self) -> list[str]:
        return list(self._known or ()) if self._say is None else self._say

    def take_in(self, beats: Mapping[str, Mapping[str, Any]]) -> None:
        """Remember the streamers of *beats*, and those that our last beat named; no beat waits for the disk."""
        others = decide_leases.others(beats, self._host.settings.name)
        known = {name: address for name, address in (self._known or {}).items() if name in self._named} | others
        if known == self._known:
            self._say = sorted(others)
        elif self._noting is None or self._noting.done():
            self._noting = asyncio.create_task(self._note_down(known, sorted(others)))

    async def _note_down(self, known: dict[str, str], names: list[str]) -> None:
        try:
            await self._note(known)
        except DBAPIError as error:
            log.error("database: the other streamers cannot be written down: %s", error.orig)
            return
        self._known, self._say = known, names

    async def verdict(self, is_taken: IsTaken, session: str, claim: str) -> tuple[bool, str]:
        """Whether the classes of the running lease of *session* go on; *claim* may have been granted meanwhile."""
        policy = self._host.settings.partition_policy
        word, others = await asyncio.gather(self._prefect(is_taken, session, claim), self._peers(policy))
        return decide_leases.partition_verdict(policy, word, others)

    async def _prefect(self, is_taken: IsTaken, *sessions: str) -> PrefectAnswer:
        try:
            async with asyncio.timeout(min(ASK_S, self._host.settings.lease_s / 4)):
                taken = [await is_taken(self._host.settings.name, session) for session in sessions]
        except (TryAgain, TimeoutError):
            return PrefectAnswer.AWAY
        return PrefectAnswer.TAKEN if any(taken) else PrefectAnswer.FREE

    async def _peers(self, policy: str) -> Peers:
        if policy != "ask peers" or self._known is None:
            return Peers.SILENT  # not asked, or no heartbeat has told yet who the others are
        return decide_leases.together(await asyncio.gather(*(_look(*peer) for peer in self._known.items())))


async def _look(name: str, address: str) -> Peers:
    return decide_leases.look(await health.of(address, LOOK_S) if address else None, name)


GRANT_AGAIN_S = 1.0  # seconds until a grant that waits for a failed release, or for the playout, is retried
OFF_AIR_S = 5.0  # seconds in which the playout must confirm that it has left the released classes
WHY = "this streamer does not air the class any more"


async def end_pushes(host: StreamerHost, released: Sequence[Airing]) -> bool:
    """Take classes off the air that are released in the database already, and end the runs that watch them.

    Returns whether nothing of them is pushed any more, or will be by the next worker of a playout that is away.
    """
    for airing in released:
        watching = host.playout.watches.get(airing.class_id)
        for run_id in {airing.run_id, watching.run_id if watching else None} - {None}:
            host.runs.end(str(run_id), WHY)
    return await host.playout.in_force(OFF_AIR_S) or host.playout.client is None


async def end_runs(host: StreamerHost, released: Sequence[Airing]) -> None:
    """Take the runs of released classes off the timetable; what runs here has been ended by `end_pushes`."""
    for airing in released:
        if airing.run_id is not None:
            async with best_effort(f"cancel the run of {airing.class_id}"):
                await host.runs.cancel(airing.run_id, WHY)


async def take_back(host: StreamerHost, messages: Sequence[InboxMessage]) -> list[Airing]:
    """Handle releases, then grants; returns the classes that were released.

    Their pushes must end before a lease is granted, which would let them go on. So a grant waits for a release that
    failed, until the release is given up, and for the playout to confirm that it has left the classes.
    """
    deliveries: list[Delivery[Release | Grant]] = [came_of(message, (Release, Grant)) for message in messages]
    grants = [delivery for delivery in deliveries if delivery.kept.command == "grant"]
    result = await handled(host, [delivery for delivery in deliveries if delivery not in grants], release_classes)
    stops = [airing for changes in result.done for airing in changes.moved]
    if stops:
        log.info("released: %s", ", ".join(airing.class_id for airing in stops))
    is_off_air = await end_pushes(host, stops) if stops or grants else True
    if grants and (not is_off_air or await host.read_tx(inbox.waits, "release")):
        ids = [delivery.kept.id for delivery in grants]
        await host.write_tx(inbox.put_off, ids, time.time() + GRANT_AGAIN_S)
    elif grants:
        held = await handled(host, grants, partial(hold_granted, host.fencing_token))
        result.failed += held.failed
        for session in (changes.session for changes in held.done if changes.session is not None):
            if host.playout.cleared is not None:  # else it is cleared when the playout is connected again
                host.playout.cleared = session, host.playout.cleared[1]
        host.granted.set()
        host.playout.wanted.set()  # a look at the rows that began before the grant does not know its session
    for delivery, _ in result.failed:
        await failures.failed(host, [delivery.kept.id])
    await publish_outbox(host)
    return stops


def release_classes(connection: Connection, changes: StreamerChanges, messages: Sequence[Release | Grant]) -> None:
    """Decide the releases among *messages*."""
    asked = [message for message in messages if isinstance(message, Release)]
    class_ids = [message.class_id for message in asked]
    known, barred = airings.by_id(connection, class_ids), airings.released_before(connection, class_ids)
    for message in asked:
        after = decide.release(changes, known.get(message.class_id), message, barred)
        if after is not None:
            known[message.class_id] = after


def hold_granted(
    claim: str, _connection: Connection, changes: StreamerChanges, messages: Sequence[Release | Grant]
) -> None:
    """Hold the lease that was asked for by *claim*: all that was taken away before is released by now.

    Any other lease is ignored: it was asked for before this process started, or not at all.
    """
    for message in messages:
        if not isinstance(message, Grant) or (message.streamer, message.session) != (changes.settings.name, claim):
            log.info("lease: a grant that was not asked for is passed over")
            continue
        changes.session = message.session
        changes.note("lease granted")
