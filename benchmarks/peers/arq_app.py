"""arq: a process a core, its poll shortened, so many jobs at a time that it never waits; no result is kept."""

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings

from benchmarks.peers import Peer, work

REDIS = RedisSettings.from_dsn(os.environ["BENCH_REDIS"])


async def order(ctx: dict[str, Any], body: str) -> None:
    """A booking."""
    if (told := work.order(body)) is not None:
        await ctx["redis"].enqueue_job("prepare", told)


async def prepare(ctx: dict[str, Any], body: str) -> None:
    """The streamer's part."""
    await ctx["redis"].enqueue_job("report", work.prepare(body))


async def report(_: dict[str, Any], body: str) -> None:
    """The answer."""
    work.report(body)


class Worker:
    """What `arq` reads."""

    functions = (order, prepare, report)
    redis_settings = REDIS
    max_jobs = 100
    poll_delay = 0.01
    keep_result = 0


async def _enqueue(bodies: Sequence[str]) -> None:
    pool = await create_pool(REDIS)
    for first in range(0, len(bodies), 100):
        await asyncio.gather(*(pool.enqueue_job("order", body) for body in bodies[first : first + 100]))
    await pool.aclose()


def _send(bodies: Sequence[str]) -> None:
    asyncio.run(_enqueue(bodies))


_WORKER = [sys.executable, "-m", "arq", f"{__name__}.Worker"]
peer = Peer("arq", _send, [_WORKER, _WORKER], "Starting worker")
