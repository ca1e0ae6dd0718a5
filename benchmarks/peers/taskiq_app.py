"""taskiq: two processes, as it starts by itself, on a Redis list, the quickest of its brokers; no result is kept."""

import asyncio
import os
import sys
from collections.abc import Sequence

from taskiq_redis import ListQueueBroker

from benchmarks.peers import Peer, work

broker = ListQueueBroker(os.environ["BENCH_REDIS"])


@broker.task
async def order(body: str) -> None:
    """A booking."""
    if (told := work.order(body)) is not None:
        await prepare.kiq(told)


@broker.task
async def prepare(body: str) -> None:
    """The streamer's part."""
    await report.kiq(work.prepare(body))


@broker.task
async def report(body: str) -> None:
    """The answer."""
    work.report(body)


async def _enqueue(bodies: Sequence[str]) -> None:
    await broker.startup()
    for first in range(0, len(bodies), 100):
        await asyncio.gather(*(order.kiq(body) for body in bodies[first : first + 100]))
    await broker.shutdown()


def _send(bodies: Sequence[str]) -> None:
    asyncio.run(_enqueue(bodies))


_WORKER = [sys.executable, "-m", "taskiq", "worker", f"{__name__}:broker", "--workers", "2"]
peer = Peer("taskiq", _send, [_WORKER], "Listening started")
