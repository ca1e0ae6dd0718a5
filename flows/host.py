"""What a flow has at hand on its host: settings, database, bus, and the runs it can start."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast

from prefect import runtime
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine

from lectern.effects import bookings, metrics, outbox
from lectern.effects.bus import Bus
from lectern.effects.outbox import Kind, Outgoing
from lectern.effects.tables.engine import transaction
from lectern.effects.tables.shared import Journal
from lectern.messages import Message
from lectern.settings import StreamerSettings, TeacherSettings

log = logging.getLogger("lectern")
P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", TeacherSettings, StreamerSettings)
SEND_BATCH = 1000


class Runs(Protocol):
    """The runs of this host's deployments."""

    async def start(
        self, flow: str, parameters: Mapping[str, Any], *, name: str, tags: Sequence[str] = (), key: str | None = None
    ) -> str:
        """Create a run in state Pending and execute it here, at once. Returns its id."""

    async def schedule(
        self, flow: str, parameters: Mapping[str, Any], *, name: str, tags: Sequence[str], key: str, at: float
    ) -> str:
        """Create a run that begins at *at* (epoch seconds). Returns its id."""

    async def cancel(self, run_id: str, reason: str) -> None:
        """Cancel a run, wherever it is in its life."""

    async def cancelled(self, run_ids: Sequence[str]) -> list[str]:
        """Those of *run_ids* that somebody cancelled."""

    def draining(self) -> bool:
        """Whether the process is going down, so that a cancelled run is to go on later."""


@dataclass
class Host(Generic[S]):
    """One host: the same for all its flows, built once by the resident process."""

    settings: S
    engine: Engine
    journal: Journal
    bus: Bus
    runs: Runs
    busy: set[str] = field(default_factory=set)  # stems and class_ids that a run here works on
    guarded: dict[str, asyncio.Task[str]] = field(default_factory=dict)  # class_ids that are aired without a run
    cache_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    send_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    async def commit(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do *work* in one transaction, in a thread."""

        def go() -> T:
            with transaction(self.engine) as connection:
                return work(connection, *args, **kwargs)

        return await asyncio.to_thread(go)

    def alarm(self, message: Message) -> Outgoing:
        """An alarm for the outbox."""
        return Outgoing(self.settings.alarm_channel, Kind.CHANNEL, message)


current: ContextVar[Host[Any]] = ContextVar("host")


def teacher() -> Host[TeacherSettings]:
    """The host of the run; flows of the teacher call it."""
    return cast("Host[TeacherSettings]", current.get())


def streamer() -> Host[StreamerSettings]:
    """The host of the run; flows of a streamer call it."""
    return cast("Host[StreamerSettings]", current.get())


def run_name() -> str:
    """A run keeps the name it was made with; a quick run that was given none is named after what it does."""
    given = str(runtime.flow_run.name or "")
    if " " in given:
        return given
    values = [str(value) for value in (runtime.flow_run.parameters or {}).values() if value is not False]
    return f"{runtime.flow_run.flow_name} {' '.join(values)}".strip()[:200]


async def tell(host: Host[Any]) -> bool:
    """Send what was committed, oldest first. False where Redis is away: the sweeper sends it again."""
    async with host.send_lock:
        while batch := await host.commit(outbox.unsent, host.journal, limit=SEND_BATCH):
            try:
                await host.bus.send(batch)
            except (RedisError, OSError) as error:
                log.warning("redis: %d messages stay unsent: %s", len(batch), error)
                return False
            await host.commit(_sent, host, [one.id for one in batch])
    return True


def _sent(connection: Connection, host: Host[Any], ids: list[int]) -> None:
    now = time.time()
    outbox.sent(connection, host.journal, ids, now)
    if isinstance(host.settings, TeacherSettings):
        to = host.settings.order_result_channel
        for took in bookings.answered(connection, outbox.classes_of(connection, host.journal, ids, to), now):
            metrics.ANSWER_SECONDS.observe(took)


async def all_of(work: Sequence[Awaitable[T]]) -> list[T | BaseException]:
    """Wait for all of *work*; what failed is returned as its exception."""
    return await asyncio.gather(*work, return_exceptions=True)
