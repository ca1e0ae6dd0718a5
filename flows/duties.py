"""What one teacher of those that share their rows does for all of them."""

import time
from typing import Any

from flows.host import Host
from lectern.effects.rows import peers

SWEEPING = "sweep"
PRUNING = "prune"
CHECKING = "readiness"
TELLING = "people"
"""Passes alarms on to people, which needs no Redis."""


async def is_ours(host: Host[Any], duty: str, lease_s: float) -> bool:
    """Whether this host does the *duty*, now and for *lease_s*.

    What needs Redis is done by a teacher that Redis does not answer only while no other does: that one may reach Redis.
    """
    if not host.settings.shared:
        return True
    lease_s = 0.0 if host.redis_away and duty != TELLING else lease_s
    return await host.commit(peers.take, duty, host.settings.name, lease_s, time.time())
