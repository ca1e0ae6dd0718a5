"""What a flow has at hand on its host: settings, database, bus, and the runs it can start."""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, Unpack

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from flows.playout_link import Playout, boot_now
from flows.prefect_api import BackgroundRuns, Runs
from lectern.db import leases
from lectern.db.cache_check import CacheDifference
from lectern.db.engine import reading, transaction
from lectern.db.inbox import ReceivedMessage
from lectern.decide.bandwidth import Shares
from lectern.decide.forecast import MEASURED
from lectern.errors import Caught, ErrorCode
from lectern.model.facts import InboxMessage
from lectern.model.plan import Changes
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.views import Network
from lectern.redis.client import Bus
from lectern.settings import StreamerSettings, TeacherSettings
from lectern.timing import Throttle, check_cancelled
from lectern.wire import outgoing
from lectern.wire.outgoing import About, Outgoing, OutgoingKind

log = logging.getLogger("lectern")
P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", TeacherSettings, StreamerSettings)

_WRITING = ThreadPoolExecutor(4, thread_name_prefix="writing")
_READING = ThreadPoolExecutor(4, thread_name_prefix="reading")
"""Threads for transactions only, because asyncio's own may hang while a disk is slow or a name is looked up.

Writers wait for each other. Readers have threads of their own, so that they do not wait for the writers before them.
"""

ALONE_AFTER_S = 0.5
"""Seconds after which a note is written in a transaction of its own, if no other transaction has written it."""


@dataclass(eq=False)
class SentAck:
    """The note that the messages *ids* were sent; *write* stores it in a transaction, and may be called twice."""

    ids: frozenset[int]
    write: Callable[[Connection], object]
    is_odd: bool = False  # it could not be written; kept apart from other work


class AckNotWritten(Exception):
    """A note cannot be written; the other work of its transaction was not begun."""


class SentAcks:
    """Notes that wait to be written. If the process dies before that, their messages are sent a second time."""

    def __init__(self) -> None:
        self._notes: list[SentAck] = []
        self._lock = threading.Lock()
        self.came = asyncio.Event()

    def add(self, ids: Iterable[int], write: Callable[[Connection], object]) -> None:
        """Have *write* called with the next commit."""
        with self._lock:
            self._notes.append(SentAck(frozenset(ids), write))
        self.came.set()

    def ids(self) -> set[int]:
        """The messages that were sent although the database does not say so yet."""
        with self._lock:
            return {id_ for note in self._notes for id_ in note.ids}

    def flush(self, connection: Connection, *, odd: bool = False) -> Sequence[SentAck]:
        """Write the notes first in a transaction, or the *odd* ones alone, and return them for `acknowledge`.

        Raises AckNotWritten if one cannot be written beside other work: from then on it is odd.
        """
        with self._lock:
            some = [note for note in self._notes if note.is_odd == odd]
        for note in some:
            with Caught(Exception if odd else OperationalError) as failed:
                note.write(connection)
            if failed.error is not None:
                note.is_odd = True
                log.error("outbox: it is not noted yet that %d messages were sent: %r", len(note.ids), failed.error)
                raise AckNotWritten from failed.error
        return some

    def acknowledge(self, some: Sequence[SentAck]) -> None:
        """Forget these notes: their transaction was committed."""
        if some:
            with self._lock:
                self._notes = [one for one in self._notes if one not in some]


class Watchdog:
    """Remembers when each loop of the process last began a round, and which loops fail; ``GET /health`` reads it."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}  # monotonic
        self._fails: dict[str, tuple[float, float]] = {}  # since when, and when the last try failed, monotonic

    def beat(self, loop: str) -> None:
        """Note that *loop* begins a round; raises CancelledError if it was cancelled and the cancel was swallowed.

        In Python 3.11 ``asyncio.wait_for`` swallows a cancel when what it waits for is done in the same tick, and the
        client of Redis calls it for each command: a loop around Redis would go on for ever.
        """
        check_cancelled()
        self._at[loop] = time.monotonic()

    def note(self, loop: str) -> None:
        """Note that *loop* begins a round; checks no cancel: in Python 3.11 a TaskGroup in it can leave one behind."""
        self._at[loop] = time.monotonic()

    def fails(self, loop: str, since: float) -> None:
        """Note that every try of *loop* has failed *since* then (monotonic); each of its tries still begins a round."""
        self._fails[loop] = since, time.monotonic()

    def works(self, loop: str) -> None:
        """Note that *loop* works again."""
        self._fails.pop(loop, None)

    def failing(self, limit_s: float) -> dict[str, float]:
        """The loops whose tries have failed for at least *limit_s*, and for how long; one that is tried may work."""
        now = time.monotonic()
        return {loop: now - since for loop, (since, last) in self._fails.items() if last - since >= limit_s}

    def stalled(self, limit_s: float) -> dict[str, float]:
        """The loops whose last round began more than *limit_s* ago, and how long ago."""
        now = time.monotonic()
        return {loop: now - at for loop, at in self._at.items() if now - at > limit_s}


class Waiters:
    """HTTP requests that wait for something to be sent, by class; those for "" wait for any class."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}
        self.number = 0

    @contextmanager
    def waiting(self, class_id: str = "") -> Iterator[asyncio.Event]:
        """An event that is set when a message about the class is sent."""
        event, its = asyncio.Event(), self._events.setdefault(class_id, set())
        its.add(event)
        self.number += 1
        try:
            yield event
        finally:
            self.number -= 1
            its.discard(event)
            if not its:
                self._events.pop(class_id, None)

    def wake(self, class_ids: Iterable[str | None]) -> None:
        """Wake the requests that wait for these classes."""
        for class_id in {"", *class_ids} if self.number else ():
            for event in self._events.get(class_id or "", ()):
                event.set()


@dataclass
class Host(Generic[S]):
    """What all flows of one host share; the resident process builds it once."""

    settings: S
    engine: Engine
    bus: Bus
    runs: Runs
    in_progress: set[str] = field(default_factory=set)  # stems, and names of work, that a run here works on
    no_room_at: float | None = None  # when the disk was last found to take nothing, monotonic
    alarmed_at: Throttle = field(default_factory=Throttle)  # when an alarm was last raised, by trouble
    ongoing: dict[int, float] = field(default_factory=dict)  # codes of trouble, and when each was last seen, monotonic
    to_people: deque[str] = field(default_factory=deque)  # alarms for ALARM_URLS that the database could not keep
    watchdog: Watchdog = field(default_factory=Watchdog)
    background: BackgroundRuns = field(default_factory=BackgroundRuns)
    acks: SentAcks = field(default_factory=SentAcks)
    address: str = ""  # its HTTP address for other hosts; empty if it serves no HTTP
    waiters: Waiters = field(default_factory=Waiters)
    send_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    prefect_away: bool = False  # by the last try to reach it
    redis_away: bool = False  # by the last try to reach it; a teacher leaves shared rows to others meanwhile
    settings_read_at: float = field(default_factory=time.time)
    settings_wait: tuple[str, ...] = ()  # those that have another value now, and need a restart

    async def write_tx(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do *work* in one transaction, in a thread, and write the waiting notes in it too."""

        def go() -> T:
            with transaction(self.engine) as connection:
                noted = self.acks.flush(connection)
                found = work(connection, *args, **kwargs)
            self.acks.acknowledge(noted)
            return found

        try:
            return await asyncio.get_running_loop().run_in_executor(_WRITING, copy_context().run, go)
        except AckNotWritten:  # the note is put aside now, and *work* was not begun
            return await self.write_tx(work, *args, **kwargs)

    async def note(self) -> None:
        """Write the notes that no commit has written."""
        if self.acks.ids():
            self.acks.acknowledge(await self.write_tx(self.acks.flush, odd=True))

    async def keep_noting(self) -> None:
        """Write, until cancelled, the notes that no commit has written for ALONE_AFTER_S."""
        while True:
            await self.acks.came.wait()
            await asyncio.sleep(ALONE_AFTER_S)
            await self.note()
            if not self.acks.ids():
                self.acks.came.clear()

    async def read_tx(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Read with *work* in one transaction, in a thread, without waiting for a writer."""
        return await self.read_tx_in(_READING, work, *args, **kwargs)

    async def read_tx_in(
        self, threads: Executor, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `read_tx`, in one of *threads*: slow work must not hold up the reads that answer bookings."""

        def go() -> T:
            with reading(self.engine) as connection:
                return work(connection, *args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(threads, copy_context().run, go)

    def changes(self) -> Any:  # noqa: ANN401 (of its role)
        """A plan in which nothing is decided yet, of now."""
        raise NotImplementedError

    def alarm(self, code: ErrorCode, said: str, now: float, **about: Unpack[About]) -> Outgoing:
        """An alarm of this host, for the outbox."""
        alarm = outgoing.alarm(code, said, now, self.settings.name, **about)
        return Outgoing(self.settings.alarm_channel, OutgoingKind.CHANNEL, alarm)


@dataclass
class TeacherHost(Host[TeacherSettings]):
    """A teacher: what it has heard of its streamers. Times are monotonic."""

    heard_at: dict[str, tuple[float, str]] = field(default_factory=dict)  # when each was heard, and if "gone" or "full"
    last_beats: dict[str, tuple[float, float]] = field(default_factory=dict)  # the time in each, and when it was new
    missing_since: dict[str, float] = field(default_factory=dict)  # whose heartbeat Redis lacks
    claims_since: dict[tuple[str, str], float] = field(default_factory=dict)  # of a lease, by name and session
    kept_since: str = ""  # since when Redis has lost no heartbeat, as it said last
    membership_cache: tuple[float, tuple[str, ...]] = (0.0, ())  # when it was asked who is alive, and who was
    listens_since: float = field(default_factory=time.monotonic)  # inf while it hears nothing
    beats: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # the last heartbeat of each streamer
    webhook_off: bool = False  # its receiver has answered 410
    intake: Callable[[Sequence[ReceivedMessage]], Awaitable[None]] | None = None  # commits what came over HTTP

    def silent_s(self, name: str, at: float, now: float) -> float:
        """Seconds since the streamer *name* was heard, whose last beat is of *at*; the clock may have been set back."""
        seen = time.monotonic()
        if name not in self.last_beats or self.last_beats[name][0] != at:
            self.last_beats[name] = at, seen
        return max(now - at, seen - self.last_beats[name][1])

    def living_now(self, within_s: float = math.inf) -> list[str]:
        """The names of the streamers that this teacher has heard lately, and in the last *within_s* seconds."""
        since = time.monotonic() - min(self.settings.streamer_lost_after_s, within_s)
        return sorted(name for name, (at, away) in self.heard_at.items() if at >= since and not away)

    def changes(self) -> Changes:
        """A plan of now, which knows the streamers that are there and drained, as this teacher heard them."""
        beats = [*self.beats.items()]  # at once: this is a thread, and the loop may hear a new streamer meanwhile
        drained = sorted(name for name, beat in beats if beat.get("drains") and not beat.get("gone"))
        return Changes(self.settings, time.time(), drained=drained)


@dataclass
class StreamerHost(Host[StreamerSettings]):
    """A streamer: its lease, its playout, its downloads."""

    fencing_token: str = ""  # the session of the lease that it asks for
    granted: asyncio.Event = field(default_factory=asyncio.Event)  # set when a grant was taken
    control_connected: bool = False  # whether its last heartbeat was confirmed
    partitioned_at: float = field(default_factory=boot_now)  # when it last said that it is cut off, or began
    playout: Playout = field(default_factory=Playout)  # what airs its classes
    pushed_to: frozenset[tuple[str, int]] | None = None  # servers of the classes before this process; None: not read
    unplanned: asyncio.Event = field(default_factory=asyncio.Event)  # set if a ready class has no run
    amended: asyncio.Event = field(default_factory=asyncio.Event)  # set if a class was changed
    unfetched: asyncio.Event = field(default_factory=asyncio.Event)  # set if downloads are wanted, or end
    dead_air: Mapping[str, str] = field(default_factory=dict)  # what is wrong with the files of coming classes
    touched: Sequence[CacheDifference] | None = None  # files to read again; None until the disk was looked through
    cache_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    unshared: asyncio.Event = field(default_factory=asyncio.Event)  # set if a download waits for its share
    shares: Shares = field(default_factory=Shares)  # what downloads may take of the network
    shared_at: float = -math.inf  # when that was found, monotonic
    network: Network = field(default_factory=Network)
    ready_by: Mapping[str, float] = field(default_factory=dict)  # when each recording that a class waits for is there
    checks: "deque[tuple[float, int]]" = field(default_factory=partial(deque, maxlen=MEASURED))  # seconds and bytes

    def changes(self) -> StreamerChanges:
        """A plan of now, which knows how long the last checks of downloads took."""
        return StreamerChanges(self.settings, time.time(), checks=tuple(self.checks))


SWEEPING = "sweep"
PRUNING = "prune"
CHECKING = "readiness"
TELLING = "people"
"""Duties that one of several teachers with a shared database does for all; alarms reach people without Redis."""


async def is_ours(host: Host[Any], duty: str, lease_s: float) -> bool:
    """Whether this host has the *duty*, from now on for *lease_s* seconds.

    A teacher without Redis has a duty that needs Redis only while no other teacher has it: another may reach Redis.
    """
    if not host.settings.shared:
        return True
    lease_s = 0.0 if host.redis_away and duty != TELLING else lease_s
    return await host.write_tx(leases.take_duty, duty, host.settings.name, lease_s, time.time())


current: ContextVar[Any] = ContextVar("host")
"""The host of the run: a `TeacherHost` in a flow of the teacher, a `StreamerHost` in one of a streamer."""

claimed: ContextVar[Sequence[InboxMessage]] = ContextVar("claimed", default=())
"""The messages that this task has just claimed, which need not be read again."""


NOWHERE = Path("/nonexistent")
"""The result storage of our flows, which keep no results. For a flow without a storage, the engine asks the server
twice in each run, and the whole process waits for the answer, including the pushes of classes on air."""


def run_name(given: str, flow: str, parameters: Mapping[str, Any]) -> str:
    """A run keeps the name it was made with; a quick run that was given none is named after what it does."""
    if " " in given:
        return given
    values = [str(value) for value in parameters.values() if value is not False]
    return f"{flow} {' '.join(values)}".strip()[:200]


def lost_tag(streamer: str, session: str | None = None) -> str:
    """The tag of the runs that move the classes of *streamer*.

    With the *session* of its lease: the tag that the streamer looks for in Prefect while Redis is away.
    """
    return f"lost:{streamer}" if session is None else f"lost:{streamer}:{session}"


NOT_MOVED = "NotMoved"  # the name of the state of a move run that took no class from its streamer
