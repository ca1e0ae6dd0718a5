"""Leases where there is no teacher: they are granted as a teacher does it."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import redis


def _grant(bus: "redis.Redis", name: str, key: str, stream: str) -> None:
    claim = bus.hget(f"{key}:claims", name)
    if claim is not None:
        session = json.loads(str(claim))["session"]
        if bus.hget(f"{key}:lease", name) == session:
            return
        bus.hset(f"{key}:lease", name, session)
        bus.xadd(stream, {"body": json.dumps({"cmd": "grant", "streamer": name, "session": session})})


@contextmanager
def granting(bus: "redis.Redis", names: Sequence[str], *, key: str, stream: str) -> Iterator[None]:
    """Each of *names* is given the lease that it asks for, whenever it begins; *stream* has a place for its name."""
    ends = threading.Event()

    def give() -> None:
        while not ends.wait(1.0):
            for name in names:
                _grant(bus, name, key, stream.format(name))

    thread = threading.Thread(target=give, name="grants", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()
