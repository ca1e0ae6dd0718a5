"""The worker: airs all classes in one event loop, and may be killed at any instruction."""

import asyncio
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lectern.playout import desk, journal, kernel, link, release
from lectern.playout.airing import Airing
from lectern.playout.control import Control
from lectern.playout.journal import Journal
from lectern.playout.lines import say
from lectern.playout.pipe import Gone, Pipe
from lectern.playout.session import Broken, Session
from lectern.playout.shared import Shared
from lectern.playout.station import Now, Station
from lectern.playout.timetable import BadRequest, Entry, TimetableFile

TICK_S = 0.02
THREADS = 256
"""Number of files that a hanging disk may hold up at once; a thread is made when it is needed."""


@dataclass(frozen=True)
class Terms:
    """What the holder gives to a worker when it starts it: the folder, and process and descriptor numbers."""

    folder: Path
    holder: int
    pipe: int
    shared: int
    listener: int
    ca_file: str | None


class Worker:
    """Everything that a worker knows; `run` returns when the holder has ended."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.pipe = Pipe(socket.socket(fileno=terms.pipe))
        self.shared = Shared(terms.shared)
        self.file = TimetableFile(terms.folder / "timetable.json")
        self.airings: dict[str, Airing] = {}
        self.station = Station(
            pool=ThreadPoolExecutor(THREADS, "file"),
            tell=self._tell,
            keep=self._keep,
            drop=lambda key: self.pipe.say("over", key=key),
            handle=self.shared.handle,
            ca_file=terms.ca_file,
        )
        self.since = time.time()
        self.lateness: dict[int, float] = {}
        self.taken_over: dict[str, Any] | None = None
        self.upgrading: asyncio.Future[str] | None = None
        self._control: Control | None = None
        self._was_held = False
        self._gone = asyncio.Event()

    async def run(self) -> None:
        """Report "loaded", wait until the holder says "go", then tick until the holder ends."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(self.station.pool)
        entries = self._entries()
        self.pipe.say("loaded", release=release.name(), journal=journal.VERSION, pid=os.getpid())
        sessions, why, began_at = await self._handed_over()
        self.airings = {one.lesson.class_id: Airing(one, self.station) for one in entries().values()}
        self._adopt(sessions, why, began_at)
        loop.add_reader(self.pipe.connection, self._hear)
        served = desk.Desk(self)
        self._control = Control(socket.socket(fileno=self.terms.listener), served.does)
        await self._control.start()
        saving = loop.create_task(served.save_for_ever())
        await self._tick_for_ever()
        saving.cancel()

    def tick(self, now: Now) -> None:
        """Do what is due for all classes."""
        is_held = self.station.is_held = self.shared.held()
        for airing in list(self.airings.values()):
            try:
                airing.tick(now)
            except Exception as error:  # noqa: BLE001 (a fault in one class must not end the fifty beside it)
                say(f"{airing.class_id}: a fault of the playout: {type(error).__name__}: {error}")
                airing.rest(now)
        if self._was_held and not is_held:
            self._tell({"event": "lease_over", "at": now.wall})
        self._was_held = is_held
        self.shared.tick()
        self.pipe.flush()

    async def _tick_for_ever(self) -> None:
        due = time.monotonic()
        while not self._gone.is_set():
            now = Now.read()
            minute = int(now.mono / 60)
            self.lateness = {at: late for at, late in self.lateness.items() if at >= minute - 1}
            self.lateness[minute] = max(self.lateness.get(minute, 0.0), now.mono - due)
            self.tick(now)
            due = max(due + TICK_S, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    # -- the holder ----------------------------------------------------------------------------------------------------

    def _entries(self) -> Any:  # noqa: ANN401 (a function)
        """Read the timetable now, to test that it can be read; returns a function that reads it when going on air."""

        def entries() -> dict[str, Entry]:
            try:
                return self.file.read()
            except BadRequest as error:
                # An unreadable file is kept for people; the resident sends all classes again when it connects.
                self._set_aside(error)
                return {}

        with suppress(BadRequest):  # it is still the file of the worker on air
            self.file.read()
        return entries

    def _set_aside(self, why: BadRequest) -> None:
        path = self.terms.folder / "timetable.json"
        try:
            path.replace(f"{path}.unreadable")
            say(f"{why}; it is set aside")
        except OSError as error:  # a disk that takes nothing keeps no class from being aired
            say(f"{why}; it cannot be set aside: {error.strerror or error}")

    async def _handed_over(self) -> tuple[list[tuple[str, socket.socket, Journal]], str, float]:
        """Take what the last worker left, until the holder says go; a standby waits here."""
        sessions = []
        while True:
            await link.until_ready(self.pipe.connection)
            try:
                messages = self.pipe.hear()
            except Gone:
                raise SystemExit(0) from None
            for message, files in messages:
                if message["say"] == "session":
                    connection = socket.socket(fileno=files[0])
                    connection.settimeout(0)
                    sessions.append((message["key"], connection, Journal(files[1])))
                elif message["say"] == "go":
                    return sessions, message["why"], message["at"]

    def _adopt(self, sessions: list[tuple[str, socket.socket, Journal]], why: str, began_at: float) -> None:
        """Go on with as many sessions as possible; end the others, which are then replaced by new ones."""
        now, kept, gap_s = Now.read(), 0, 0.0
        for key, connection, kept_journal in sessions:
            try:
                gap_s = max(gap_s, self._adopt_one(key, connection, kept_journal, now))
                kept += 1
            except Exception as error:  # noqa: BLE001 (another release's journal may be odd in any way)
                if not isinstance(error, Broken):
                    say(f"a session is not gone on with: {type(error).__name__}: {error}")
                kernel.reset(connection)
                connection.close()
                kept_journal.close()
                self.pipe.say("over", key=key)
        if why != "start":
            self.taken_over = {"why": why, "at": now.wall, "sessions": len(sessions), "kept": kept}
            self.taken_over |= {"gap_s": round(gap_s, 3), "took_s": round(time.monotonic() - began_at, 3)}

    def _adopt_one(self, key: str, connection: socket.socket, kept_journal: Journal, now: Now) -> float:
        """Go on with one session; returns the seconds in which nothing was sent on it. Raises Broken."""
        class_id, url = key.split("\n")[1:3]
        airing = self.airings.get(class_id)
        push = airing.pushes.get(url) if airing is not None else None
        last = kept_journal.last()
        if airing is None or push is None or last is None or not self.shared.held():
            raise Broken("its class is not aired any more")
        push.adopt(key, connection, kept_journal, now)
        airing.reopen(push)
        return max(0.0, time.monotonic() - last[0].sent_at)

    def _keep(self, key: str, session: Session) -> None:
        kept = (session.journal.file,) if session.journal is not None else ()
        self.pipe.say("session", (session.connection.fileno(), *kept), key=key)

    def _hear(self) -> None:
        try:
            messages = self.pipe.hear()
        except Gone:
            self._gone.set()
            return
        for message, _ in messages:
            if message["say"] == "upgrade failed" and self.upgrading is not None and not self.upgrading.done():
                self.upgrading.set_result(message["why"])

    def _tell(self, event: dict[str, Any]) -> None:
        if self._control is not None:
            self._control.tell(event)


def main(terms: Terms) -> None:
    """Run a worker until its holder ends."""
    kernel.die_with(terms.holder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # typed at a terminal it reaches the holder, too, which ends all
    asyncio.run(_run(terms))


async def _run(terms: Terms) -> None:
    await Worker(terms).run()


def check(folder: Path) -> None:
    """Read what a worker reads when it starts; raises BadRequest if it cannot."""
    TimetableFile(folder / "timetable.json").read()
