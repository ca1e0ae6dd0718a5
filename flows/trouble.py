"""The disk, the database or a key of Redis gives way: it is logged, alarmed, and tried again; classes stay on air."""

import time
from typing import Any

from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from flows.host import Host, alarm_refusal, log, tell
from lectern import errors
from lectern.effects import disk
from lectern.messages import Alarm

AGAIN_AFTER_S = 600.0
"""An alarm of the same trouble is sent again after so long."""


async def cry(host: Host[Any], what: str, error: BaseException) -> None:
    """Log what does not get on, and why; a disk that takes nothing is alarmed, past the database."""
    why = _words(error)
    if not disk.takes_nothing(error):
        log.error("%s: does not get on: %s; it is tried again", what, why)
        return
    log.error("%s: the disk is full or read-only: %s; it is tried again", what, why)
    now = time.monotonic()
    host.no_room_at = now
    if host.cried_at is None or now - host.cried_at > AGAIN_AFTER_S:
        code = errors.DISK_FULL
        said = f"{host.settings.name}: the disk is full or read-only: {why}"
        alarm = Alarm(code=code.number, message=said, at=time.time(), runbook=code.runbook, host=host.settings.name)
        try:
            await host.bus.cry(host.settings.alarm_channel, alarm.to_json())
        except (RedisError, OSError) as lost:
            log.error("redis: an alarm could not be sent: %s", lost)
            return
        host.cried_at = now


async def unreadable(host: Host[Any], stream: str, why: str) -> None:
    """Redis does not let us read *stream*: logged at each look, alarmed while it goes on; the others are read."""
    log.error("redis: %s can not be read, the other streams are: %s", stream, why)
    await host.commit(alarm_refusal, host, f"does not let {stream} be read", stream, why, time.time())
    await tell(host)


def _words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error.orig if isinstance(error, DBAPIError) else error)
