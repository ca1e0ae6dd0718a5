"""Duties that one of several teachers with a shared database does for all of them."""

import time
from typing import Any

from flows.host import Host
from lectern.effects.rows import peers

SWEEPING = "sweep"
PRUNING = "prune"
CHECKING = "readiness"
TELLING = "people"
"""The duty to pass alarms on to people, which needs no Redis."""


async def is_ours(host: Host[Any], duty: str, lease_s: float) -> bool:
    """Whether this host has the *duty*, from now on for *lease_s* seconds.

    A teacher without Redis has a duty that needs Redis only while no other teacher has it: another may reach Redis.
    """
    if not host.settings.shared:
        return True
    lease_s = 0.0 if host.redis_away and duty != TELLING else lease_s
    return await host.commit(peers.take, duty, host.settings.name, lease_s, time.time())
