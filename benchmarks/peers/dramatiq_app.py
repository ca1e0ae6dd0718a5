"""Dramatiq: two processes of eight threads, as it starts by itself; no result is kept."""

import os
import sys
from collections.abc import Sequence

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers import Peer, work

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS"]))


@dramatiq.actor
def order(body: str) -> None:
    """A booking."""
    if (told := work.order(body)) is not None:
        prepare.send(told)


@dramatiq.actor
def prepare(body: str) -> None:
    """The streamer's part."""
    report.send(work.prepare(body))


@dramatiq.actor
def report(body: str) -> None:
    """The answer."""
    work.report(body)


def _send(bodies: Sequence[str]) -> None:
    for body in bodies:
        order.send(body)


peer = Peer(_send, [[sys.executable, "-m", "dramatiq", __name__]], "ready for action")
