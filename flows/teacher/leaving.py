"""Handles streamers that leave: a drained streamer gives its classes to others, one that is rolled back keeps them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from flows.handling import Decide, changed
from flows.host import Teacher, log
from flows.tell import tell
from lectern.changes import Changes
from lectern.decide import roll as decide
from lectern.decide.backups import twin_id
from lectern.decide.verdicts import Choice
from lectern.effects.redis.withdrawn import FIELD as WITHDRAWN
from lectern.effects.rows import bookings, leases
from lectern.timing import Throttle

DRAINS = "drains"
"""The field of a heartbeat that says that its streamer is drained."""

DRAIN_AGAIN_S = 5.0
"""Seconds between two looks at the classes of a drained streamer: another streamer may be able to take them by then."""


@dataclass
class Leaving:
    """The streamers that leave, as one teacher hears of them."""

    host: Teacher
    drained_at: Throttle = field(default_factory=Throttle)  # when each was looked at last

    @staticmethod
    def is_withdrawn(beat: Mapping[str, Any]) -> bool:
        """Whether *beat* says that the old program has the streamer again."""
        return bool(beat.get(WITHDRAWN, False))

    async def withdraw(self, name: str) -> None:
        """Leave the classes of *name* to the old program."""
        await changed(self.host, withdrawn(name))
        await self.host.bus.forget_withdrawn(self.host.settings.streamers_key, name)
        self.host.beats.pop(name, None)

    async def drain(self, name: str, beat: Mapping[str, Any]) -> None:
        """Move the later classes of *name* to other streamers, if its *beat* says that it is being drained."""
        if not beat.get(DRAINS, False) or not self.drained_at.take(name, DRAIN_AGAIN_S):
            return
        alive = [one for one in self.host.living_now() if one != name]
        found = await changed(self.host, drained(name, alive))
        if found.taken:
            log.info("%s: is drained; %d classes were moved to others", name, len(found.taken))
            await tell(self.host)


def withdrawn(name: str) -> Decide[Changes]:
    """Leave the classes of the streamer *name* to the old program, once."""

    def go(connection: Connection, changes: Changes) -> None:
        if leases.holder(connection, name).withdrawn_at is None:
            said = decide.withdraw(changes, name, bookings.on(connection, name, changes.now))
            log.info("%s: %s", name, said)

    return go


def drained(name: str, alive: Sequence[str]) -> Decide[Changes]:
    """Move the later classes of the streamer *name* to those of *alive* that can take them."""

    def go(connection: Connection, changes: Changes) -> None:
        orders = bookings.on(connection, name, changes.now)
        changes.orders |= bookings.by_id(connection, [twin_id(order.class_id) for order in orders])
        no = leases.refused_by(connection, [order.class_id for order in orders])
        decide.drain(changes, name, orders, Choice(bookings.loads(connection, alive, changes.now), no))

    return go
