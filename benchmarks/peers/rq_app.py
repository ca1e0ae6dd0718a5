"""RQ: a pool of a worker a core, of the kind that forks no process a job; no result is kept."""

import os
import sys
from collections.abc import Sequence

import redis
from rq import Queue

from benchmarks.peers import Peer, work

queue = Queue(connection=redis.Redis.from_url(os.environ["BENCH_REDIS"]))


def order(body: str) -> None:
    """A booking."""
    if (told := work.order(body)) is not None:
        queue.enqueue(prepare, told, result_ttl=0)


def prepare(body: str) -> None:
    """The streamer's part."""
    queue.enqueue(report, work.prepare(body), result_ttl=0)


def report(body: str) -> None:
    """The answer."""
    work.report(body)


def _send(bodies: Sequence[str]) -> None:
    jobs = [Queue.prepare_data(order, (body,), result_ttl=0) for body in bodies]
    for first in range(0, len(jobs), 500):
        queue.enqueue_many(jobs[first : first + 500])


_POOL = ["worker-pool", "--num-workers", "2", "--worker-class", "rq.worker.SimpleWorker", "--logging-level", "INFO"]
_RQ = [sys.executable, "-c", "from rq.cli import main; main()", *_POOL]
peer = Peer("RQ", _send, [[*_RQ, "--url", os.environ["BENCH_REDIS"]]], "Listening on")
