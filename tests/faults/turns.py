"""Two runs in one process: a schedule says whose transaction is next."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from sqlalchemy import Connection, Engine

from flows import host as at_host
from flows.host import TeacherHost
from lectern.db.outbox import Unsent
from lectern.redis.pubsub import Sent
from tests.faults import hosts

P = ParamSpec("P")
T = TypeVar("T")
Flow = Callable[["Stepped"], Coroutine[Any, Any, object]]


class Quiet:
    """A bus that takes everything and holds nothing, and runs that are begun elsewhere."""

    async def alive(self, *_: object) -> Sequence[str]:
        return hosts.ALIVE

    async def waiting(self, keys: Sequence[str]) -> dict[str, list[str]]:
        """The waiting lists in Redis are for people."""
        return {key: [] for key in keys}

    async def send(self, messages: Sequence[Unsent]) -> Sent:
        return Sent(len(messages))

    def __getattr__(self, name: str) -> Callable[..., Awaitable[str]]:

        async def done(*_: object, **__: object) -> str:
            return name

        return done


@dataclass
class Stepped(TeacherHost):
    """A teacher that stops before each of its transactions."""

    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    transactions: int = 0

    async def write_tx(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        await self._turn()
        return await super().write_tx(work, *args, **kwargs)

    async def read_tx(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        await self._turn()
        return await super().read_tx(work, *args, **kwargs)

    async def _turn(self) -> None:
        self.transactions += 1
        self.stopped.set()
        await self.goes_on.wait()
        self.goes_on.clear()


def stepped(engine: Engine) -> Stepped:
    plain, quiet = hosts.teacher(engine), cast("Any", Quiet())
    return Stepped(plain.settings, engine, plain.journal, quiet, quiet)


class Run:
    """A flow of one of them."""

    def __init__(self, host: Stepped, flow: Flow) -> None:
        self.host = host
        context = copy_context()
        context.run(at_host.current.set, host)
        self.task: asyncio.Task[object] = asyncio.create_task(flow(host), context=context)

    async def step(self) -> None:
        """Let its next transaction be done; wait until it stops before the one after it, or ends."""
        self.host.stopped.clear()
        self.host.goes_on.set()
        await self.stop()

    async def stop(self) -> None:
        """Wait until it has stopped, or ended."""
        stopped = asyncio.create_task(self.host.stopped.wait())
        await asyncio.wait({stopped, self.task}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()


async def in_turns(first: Run, second: Run, schedule: Iterable[bool]) -> None:
    """Run both to their ends; True in *schedule* is a transaction of the first. Then the first, then the second."""
    await first.stop()
    await second.stop()
    for firsts in chain(schedule, repeat(True)):
        one, other = (first, second) if firsts else (second, first)
        if one.task.done():
            one = other
        if one.task.done():
            break
        await one.step()
    for run in (first, second):
        run.task.result()
