"""A streamer's link to its playout: the socket, what it has confirmed, its lease, the runs that watch classes."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lectern.errors import Caught, TryAgain
from lectern.i18n import Text, spoken
from lectern.playout.control_socket import Client, PlayoutUnreachable, RequestRefused, asked
from lectern.playout.kernel import boot_now as boot_now  # noqa: PLC0414 (the clock of the lease)

log = logging.getLogger("lectern")

ScheduledClass = Mapping[str, Any]
"""A class of the timetable; docs/playout.md names its fields: class_id, file, push_urls, start, end …"""


class NotTaken(TryAgain):
    """The playout refuses a request."""


@dataclass
class Watch:
    """A run that watches a class; lines that are logged in its context are in its log."""

    run_id: str
    context: Context = field(default_factory=copy_context)


@dataclass
class Playout:
    """The playout as this process knows it, and the requests to it."""

    client: Client | None = None
    socket: Path | None = None  # the control socket that was last tried
    why: str | None = Text("it was not reached yet")  # why the playout does not answer; None while it does
    away_since: float = field(default_factory=time.monotonic)
    until: float = 0.0  # the end of the lease, as `boot_now` counts
    cleared: tuple[str, int] | None = None
    """The session of the lease, and the holder, for which the playout has left the classes that are not ours."""

    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when rows changed that the timetable is made of; without it, they are read again within seconds."""

    confirmed: Mapping[str, ScheduledClass] = field(default_factory=dict)
    """The classes that the playout airs, by class_id, each with the very content that it has confirmed.

    Empty while the playout is away. A class that is not here is not aired, or nobody knows whether it is. It is valid
    for the rows of this moment after `in_force` returned True, and is replaced as a whole, so it may be kept.
    """

    step: Callable[[], Awaitable[bool]] | None = None
    """Has the playout air what the rows say, see `flows.streamer.playout_sync`; None while nobody looks after it."""

    watches: dict[str, Watch] = field(default_factory=dict)  # the runs that watch classes, by class_id
    unkept: set[str] = field(default_factory=set)
    """The kinds of requests whose last one the playout took, but could not write down."""

    # -- the lease -----------------------------------------------------------------------------------------------------

    def held(self) -> bool:
        """Whether this streamer may push."""
        return boot_now() < self.until

    # -- requests ------------------------------------------------------------------------------------------------------

    async def connect(self, socket: Path) -> Client:
        """Connect to the playout's control socket; raises TryAgain if the playout is away."""
        self.socket = socket
        try:
            self.client = await Client.connect(socket)
        except PlayoutUnreachable as error:
            self.is_away(str(error))
            raise TryAgain(str(error)) from error
        return self.client

    async def ask(self, do: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 (JSON)
        """Send a request, and return the playout's answer; raises TryAgain if it is away, NotTaken if it refuses."""
        if self.client is None:
            raise TryAgain("the playout is not there: {reason}", reason=self.why)
        try:
            answer = await self.client.ask(do, **fields)
        except PlayoutUnreachable as error:
            self.cleared = None
            raise TryAgain(str(error)) from error
        except RequestRefused as error:
            raise NotTaken(str(error)) from error
        if answer.get("durable", True):
            self.unkept.discard(do)
        elif do not in self.unkept:
            self.unkept.add(do)
            log.warning("playout: %s; if it ends now, it forgets that", answer.get("why"))
        return answer

    async def refusal(self, push_url: str, networks: Sequence[str] | None) -> str | None:
        """Why the server of a push URL takes no connection; None if it does, or if the playout cannot be asked.

        The playout is asked on a separate connection, so that a slow server does not hold up the lease.
        """
        if self.socket is None:
            return None
        try:
            answer = await asked(self.socket, "try", url=push_url, networks=networks)
        except (PlayoutUnreachable, RequestRefused):  # it is away, which is reported elsewhere, or too old to try
            return None
        found = spoken(answer, "refused").get("refused")
        return None if found is None else str(found)

    # -- the timetable -------------------------------------------------------------------------------------------------

    async def in_force(self, timeout_s: float) -> bool:
        """Have the playout air what the rows say now; False if it does not confirm that in time.

        It confirms all classes at once, so that `confirmed` then tells of each how it is aired, or that it is not.
        While the playout is away this returns False as soon as the timetable is on the disk, where the next worker
        reads it.
        """
        is_aired = False
        with Caught():  # whatever it is, who keeps the playout in step meets it too, and says so
            async with asyncio.timeout(timeout_s):
                is_aired = self.step is not None and await self.step()
        return is_aired

    # -- whether it is there -------------------------------------------------------------------------------------------

    def is_there(self) -> None:
        """Note that the playout answers."""
        self.why, self.away_since = None, math.inf

    def is_away(self, why: str) -> None:
        """Note that the playout does not answer, or that its worker has ended."""
        self.client = self.cleared = None
        self.confirmed = {}
        if self.why is None:
            self.away_since = time.monotonic()
        self.why = why

    def away_s(self) -> float:
        """Seconds for which the playout has been away; 0 while it answers."""
        return max(0.0, time.monotonic() - self.away_since)

    # -- who watches ---------------------------------------------------------------------------------------------------

    def tell(self, class_id: str, line: str) -> None:
        """Log a line about a class, in the log of the run that watches it, if one does."""
        watch = self.watches.get(class_id)
        (watch.context if watch is not None else copy_context()).run(log.info, "%s: %s", class_id, line)
