"""A streamer's link to its playout: the control socket, how long the lease is held, the runs that watch classes."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lectern.errors import LecternError, TryAgain
from lectern.playout.client import Client, Refused, Unreachable

log = logging.getLogger("lectern")
LINES = 200
"""Number of log lines kept for the run that watches a class; older lines are dropped."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_now() -> float:
    """Seconds since the machine started: all its processes agree on it, and no correction of the clock moves it."""
    return time.clock_gettime(_CLOCK)


class NotTaken(LecternError):
    """The playout refuses a request."""


@dataclass
class Watch:
    """A run that watches a class, with the lines for its log, and whether the class is over."""

    run_id: str
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES))
    news: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False


@dataclass
class Playout:
    """The playout as this process knows it, and the requests to it."""

    client: Client | None = None
    socket: Path | None = None
    """The control socket that was last tried."""

    why: str | None = "it was not reached yet"
    """Why the playout does not answer; None while it does."""

    away_since: float = field(default_factory=time.monotonic)
    until: float = 0.0
    """The end of the lease, as `boot_now` counts."""

    cleared: tuple[str, int] | None = None
    """The session of the lease, and the holder, for which the playout has left the classes that are not ours."""

    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the playout must be told of new or changed classes."""

    watches: dict[str, Watch] = field(default_factory=dict)
    """The runs that watch classes, by class_id."""

    children: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    """The tasks that air classes by an ffmpeg of this process, by class_id."""

    pushed: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The as-run of these classes so far, which outlasts a task whose class is changed."""

    unkept: set[str] = field(default_factory=set)
    """The kinds of requests whose last one the playout took, but could not write down."""

    sync: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the playout is told its classes, so that no cancel overtakes the class that it cancels."""

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
        except Unreachable as error:
            self.is_away(str(error))
            raise TryAgain(str(error)) from error
        return self.client

    async def ask(self, do: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 (JSON)
        """Send a request, and return the playout's answer; raises TryAgain if it is away, NotTaken if it refuses."""
        if self.client is None:
            raise TryAgain(f"the playout is not there: {self.why}")
        try:
            answer = await self.client.ask(do, **fields)
        except Unreachable as error:
            self.cleared = None
            raise TryAgain(str(error)) from error
        except Refused as error:
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
            async with await Client.connect(self.socket) as client:
                found = (await client.ask("try", url=push_url, networks=networks)).get("refused")
        except (Unreachable, Refused):  # it is away, which is reported elsewhere, or too old to try
            return None
        return None if found is None else str(found)

    async def cancel(self, class_id: str) -> None:
        """Take a class off the air; a playout that cannot be reached now is told as soon as it is back."""
        if (child := self.children.get(class_id)) is not None:
            child.cancel()
        async with self.sync:
            with suppress(TryAgain):
                await self.ask("cancel", class_id=class_id)

    # -- whether it is there -------------------------------------------------------------------------------------------

    def is_there(self) -> None:
        """Note that the playout answers, and knows all its classes."""
        self.why, self.away_since = None, math.inf

    def is_away(self, why: str) -> None:
        """Note that the playout does not answer, or that its worker has ended."""
        self.client = self.cleared = None
        if self.why is None:
            self.away_since = time.monotonic()
        self.why = why

    def away_s(self) -> float:
        """Seconds for which the playout has been away; 0 while it answers."""
        return max(0.0, time.monotonic() - self.away_since)

    # -- who watches ---------------------------------------------------------------------------------------------------

    def tell(self, class_id: str, line: str) -> bool:
        """Pass a line on to the run that watches the class; False if none does."""
        watch = self.watches.get(class_id)
        if watch is None:
            return False
        watch.lines.append(line)
        watch.news.set()
        return True

    def over(self, class_id: str) -> None:
        """Note that the class is over, so that the run that watches it can end."""
        watch = self.watches.get(class_id)
        if watch is not None:
            watch.over = True
            watch.news.set()
