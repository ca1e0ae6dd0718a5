"""Celery: a process a core, many short tasks fetched at once, no results, as its guide to optimizing says."""

import os
import sys
from collections.abc import Sequence

from celery import Celery

from benchmarks.peers import Peer, work

app = Celery("bench", broker=os.environ["BENCH_REDIS"])
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=128, broker_connection_retry_on_startup=True)


@app.task
def order(body: str) -> None:
    """A booking."""
    if (told := work.order(body)) is not None:
        prepare.delay(told)


@app.task
def prepare(body: str) -> None:
    """The streamer's part."""
    report.delay(work.prepare(body))


@app.task
def report(body: str) -> None:
    """The answer."""
    work.report(body)


def _send(bodies: Sequence[str]) -> None:
    for body in bodies:
        order.delay(body)


_QUIET = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO"]
_WORKER = [sys.executable, "-m", "celery", "-A", __name__, "worker", "--concurrency", "2", *_QUIET]
peer = Peer(_send, [_WORKER], " ready.")
