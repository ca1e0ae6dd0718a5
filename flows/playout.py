"""The way to the playout of a streamer: its control socket, the lease it is given, and who watches which class."""

import asyncio
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

FOR_EVER_S = 10 * 365 * 86_400.0
"""A lease without end, for the playout, which takes numbers only."""

LINES = 200
"""Number of lines that wait for the run that watches a class."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_now() -> float:
    """Seconds since the machine started: all its processes agree on it, and no correction of the clock moves it."""
    return time.clock_gettime(_CLOCK)


class NotTaken(LecternError):
    """The playout refuses a request."""


@dataclass
class Watch:
    """The run that watches a class: what it is to say in its log, and whether the class is over."""

    run_id: str
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES))
    news: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False


@dataclass
class Playout:
    """The playout as this process knows it, and the requests to it."""

    client: Client | None = None
    socket: Path | None = None
    """Where it was reached."""

    why: str | None = "it was not reached yet"
    """Why it is not there; None while it is."""

    away_since: float = field(default_factory=time.monotonic)
    until: float = 0.0
    """The end of the lease, as `boot_now` counts."""

    renewed: asyncio.Event = field(default_factory=asyncio.Event)
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when classes got ready that the playout does not know."""

    watches: dict[str, Watch] = field(default_factory=dict)
    """The runs that watch classes, by class_id."""

    children: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    """The classes that an ffmpeg of this process airs."""

    sync: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the playout is brought up to date, so that no cancel comes before the class that it cancels."""

    # -- the lease -----------------------------------------------------------------------------------------------------

    def hold(self, until: float) -> None:
        """Tell the playout at once that the lease ends at *until*, as `boot_now` counts; infinity means no end."""
        self.until = until
        self.renewed.set()

    def held(self) -> bool:
        """Whether this streamer may push."""
        return boot_now() < self.until

    async def pass_on_lease(self) -> None:
        """Tell the playout when the lease ends; raises TryAgain if it is not there."""
        self.renewed.clear()
        if self.until:
            await self.ask("lease", until=min(self.until, boot_now() + FOR_EVER_S))

    # -- requests ------------------------------------------------------------------------------------------------------

    async def connect(self, socket: Path) -> Client:
        """Connect to its control socket; raises TryAgain if it is not there."""
        self.socket = socket
        try:
            self.client = await Client.connect(socket)
        except Unreachable as error:
            self.is_away(str(error))
            raise TryAgain(str(error)) from error
        return self.client

    async def ask(self, do: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 (JSON)
        """What the playout answers; raises TryAgain if it is not there, NotTaken if it refuses."""
        if self.client is None:
            raise TryAgain(f"the playout is not there: {self.why}")
        try:
            return await self.client.ask(do, **fields)
        except Unreachable as error:
            raise TryAgain(str(error)) from error
        except Refused as error:
            raise NotTaken(str(error)) from error

    async def refusal(self, push_url: str, networks: Sequence[str] | None) -> str | None:
        """Why the server of a push URL takes no connection; None if it does, or if the playout cannot be asked.

        It is asked on a connection of its own: a server that takes its time is not to hold up the lease.
        """
        if self.socket is None:
            return None
        try:
            async with await Client.connect(self.socket) as client:
                found = (await client.ask("try", url=push_url, networks=networks)).get("refused")
        except (Unreachable, Refused):  # it is away, which others say, or of a release that cannot try
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
        self.client = None
        if self.why is None:
            self.away_since = time.monotonic()
        self.why = why

    def away_s(self) -> float:
        """Seconds since which it is not there; 0 while it is."""
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
