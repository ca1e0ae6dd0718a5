"""Leases where there is no teacher: they are granted as a teacher does it."""

import json

import redis

from tests.stage.waiting import wait_until


def grant(bus: "redis.Redis", name: str, *, key: str, stream: str, timeout_s: float = 30.0) -> None:
    """Give the streamer *name* the lease that it asks for; *key* and *stream* are its settings' Redis names."""

    def held() -> bool:
        if bus.hexists(key, name):
            return True
        claim = bus.hget(f"{key}:claims", name)
        if claim is not None:
            session = json.loads(str(claim))["session"]
            bus.hset(f"{key}:lease", name, session)
            bus.xadd(stream, {"body": json.dumps({"cmd": "grant", "streamer": name, "session": session})})
        return False

    wait_until(held, timeout_s=timeout_s, pause_s=1.5, description=f"{name} has a lease")
