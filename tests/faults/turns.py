"""Hosts whose bus and runs are quiet, and one that lets others come between its transactions."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from sqlalchemy import Connection, Engine

from flows import host as at_host
from flows.host import TeacherHost
from lectern.db.outbox import Unsent
from lectern.redis.client import Sent
from tests.faults import hosts
from tests.rows import unsent

P = ParamSpec("P")
T = TypeVar("T")


class Quiet:
    """A bus that takes everything and holds nothing, and runs that are begun elsewhere."""

    async def alive(self, *_: object) -> Sequence[str]:
        return hosts.ALIVE

    async def waiting(self, keys: Sequence[str]) -> dict[str, list[str]]:
        """The waiting lists in Redis are for people."""
        return {key: [] for key in keys}

    async def send(self, messages: Sequence[Unsent]) -> Sent:
        return Sent(len(messages))

    async def cancelled(self, _: Sequence[str]) -> Mapping[str, str]:
        return {}

    def __getattr__(self, name: str) -> Callable[..., Awaitable[str]]:

        async def done(*_: object, **__: object) -> str:
            return name

        return done


@dataclass
class Stepped(TeacherHost):
    """A teacher that lets something be done meanwhile, before one of its transactions."""

    stops_before: int = 0
    meanwhile: Callable[[], Awaitable[object]] = unsent
    transactions: int = 0

    async def write_tx(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        await self.turn()
        return await super().write_tx(work, *args, **kwargs)

    async def read_tx(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        await self.turn()
        return await super().read_tx(work, *args, **kwargs)

    async def turn(self) -> None:
        self.transactions += 1
        if self.transactions == self.stops_before:
            await self.meanwhile()


def stepped(engine: Engine) -> Stepped:
    plain, quiet = hosts.teacher(engine), cast("Any", Quiet())
    return Stepped(plain.settings, engine, quiet, quiet)


async def run(host: TeacherHost, flow: Callable[[Any], Coroutine[Any, Any, object]]) -> None:
    """Run *flow* on *host* to its end, beside whatever runs."""
    context = copy_context()
    context.run(at_host.current.set, host)
    await asyncio.create_task(flow(host), context=context)
