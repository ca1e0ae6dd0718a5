"""The worker: airs all classes in one event loop, answers requests, and may be killed at any instruction."""

import asyncio
import json
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lectern.playout import kernel, net, session, timetable
from lectern.playout.as_run import AIRED, AiredClass, read_aired
from lectern.playout.control_socket import PROTOCOL, Control, Do, Lines
from lectern.playout.kernel import Now, say
from lectern.playout.publisher import WorkerContext
from lectern.playout.rtmp import NotRtmp, Target, target
from lectern.playout.schedule import CANCELLED, AiredFile, Schedule, in_slices
from lectern.playout.sentences import Isolated, Sentence, sentence
from lectern.playout.session import Broken, Journal, Session
from lectern.playout.timetable import BadRequest, TimetableDifference, networks
from lectern.playout.worker_process import Gone, Pipe, Shared


async def connect_refusal(
    target: Target, trusted: ssl.SSLContext | None, networks: Sequence[str] | None = None
) -> str | None:
    """Why the server refuses a connection to the application of *target*; None if it accepts. Nothing is published."""
    while True:
        try:
            connection = await net.connect(target, net.MIN_BUFFER_BYTES, trusted, networks)
        except (OSError, ValueError) as error:
            return net.words(error)
        session = Session(target, connection, dict, lambda: True)
        try:
            waits_unseen = False
            while not session.publisher.is_connected:
                session.flush()
                if not waits_unseen:
                    await net.until_ready(connection, writable=not session.is_clear)
                waits_unseen = session.receive()
                await asyncio.sleep(0)  # the classes on air have their turn
        except Broken as error:
            if error.login is None:
                return str(error)
            target = replace(target, query=error.login)  # of which a server can want two, and no more
        else:
            return None
        finally:
            session.close(politely=False)


LIBRARY = Path(__file__).resolve().parents[2]


def release_name() -> str:
    """The version of the installed package beside this one; `development` in a working tree."""
    paths = sorted(LIBRARY.glob("lectern-*.dist-info"))
    return paths[-1].name.removeprefix("lectern-").removesuffix(".dist-info") if paths else "development"


TICK_S = 0.02
TAKE_S = 5.0
"""Seconds in which a timetable is taken over, or the answer names the one before; a client gives up after 10 s."""
TRY_S = 5.0
THREADS = 256
"""Number of files that a hanging disk may hold up at once; a thread is made when it is needed."""


class _Threads(ThreadPoolExecutor):
    """Has one thread from its start on, and goes on with those that it has if no more can be started."""

    def __init__(self, name: str) -> None:
        super().__init__(THREADS, name)
        self.submit(int)

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:  # no process or memory is left just now; what was asked for waits in the queue
            if not self._threads:
                raise


@dataclass(frozen=True)
class Terms:
    """What the supervisor gives to a worker when it starts it: the folder, and process and descriptor numbers."""

    folder: Path
    holder: int
    pipe: int
    shared: int
    listener: int
    ca_file: str | None


class Worker:
    """Everything that a worker knows; `run` returns when the supervisor has ended."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.pipe = Pipe(socket.socket(fileno=terms.pipe))
        self.shared = Shared.at(terms.shared)
        self.path = terms.folder / timetable.NAME
        self._control = Control(socket.socket(fileno=terms.listener), self.does)
        self.context = WorkerContext(
            pool=_Threads("recording"),
            other_pool=_Threads("other"),
            tell=self._control.tell,
            keep=self._keep,
            drop=lambda key: self.pipe.say("over", key=key),
            held=self.shared.held,
            handle=self.shared.handle,
            ca_file=terms.ca_file,
        )
        self.schedule = Schedule(self.context)
        self.aired = AiredFile(terms.folder / AIRED, self.schedule)
        self.since, self.release = time.time(), release_name()
        self.lateness: dict[int, float] = {}
        self.taken_over: dict[str, Any] | None = None
        self.upgrading: asyncio.Future[str] | None = None
        self._taking: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()

    async def run(self) -> None:
        """Report "loaded", wait until the supervisor says "go", then tick until the supervisor ends."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(self.context.other_pool)
        self.pipe.say("loaded", release=self.release, journal=session.VERSION, pid=os.getpid())
        sessions, why, began_at = await self._handed_over()
        rest = self._begin({key.split("\n")[1] for key, _, _ in sessions})
        next(rest)
        self._adopt(sessions, why, began_at)
        loop.add_reader(self.pipe.connection, self._hear)
        going_on = loop.create_task(self._go_on(rest))
        due = time.monotonic()
        while not self._gone.is_set():
            now = Now.read()
            minute = int(now.mono / 60)
            self.lateness = {at: late for at, late in self.lateness.items() if at >= minute - 1}
            self.lateness[minute] = max(self.lateness.get(minute, 0.0), now.mono - due)
            self.tick(now)
            due = max(due + TICK_S, now.mono)
            await asyncio.sleep(due - time.monotonic())
        going_on.cancel()

    async def take_over(self, path: Path) -> None:
        """Take over the timetable at *path*; raises BadRequest if it cannot be read, and then changes nothing."""
        difference = await asyncio.to_thread(timetable.difference, path, self.schedule.lines)
        await in_slices(self.schedule.take_over(difference))

    def tick(self, now: Now) -> None:
        """Do what is due for all classes."""
        was_held, self.context.is_held = self.context.is_held, self.context.held()
        self.schedule.tick(now)
        if was_held and not self.context.is_held:
            self.context.tell({"event": "lease_over", "at": now.wall})
        self.shared.tick()
        self.pipe.flush()

    # -- the supervisor ------------------------------------------------------------------------------------------------

    def _begin(self, on_air: set[str]) -> Iterator[None]:
        """Read the files that the worker before left: first what is on air, then a class at each step.

        The classes of the sessions that were handed over, *on_air*, are known at once: the sessions wait for them. To
        read thousands of others takes longer than a viewer should notice.
        """
        difference = TimetableDifference("", [], frozenset(), 0)
        entries: dict[str, AiredClass] = {}
        over: list[bytes] = []
        try:
            entries, over = read_aired(self.aired.saved.path)
        except BadRequest as error:
            _set_aside(self.aired.saved.path, error)
        try:
            difference = timetable.difference(self.path, ())
        except BadRequest as error:  # it is kept for people; the resident writes it again when it connects
            _set_aside(self.path, error)
        self.schedule.begin(difference, entries, on_air, Now.read())
        yield
        yield from self.aired.restore(over)
        yield from self.schedule.take_over(difference)
        # Those that were taken off the air while no worker was there.
        for class_id in entries.keys() - self.schedule.airings.keys():
            entries[class_id].ended = CANCELLED
            self.schedule.ended(entries[class_id])
            yield

    async def _go_on(self, rest: Iterator[None]) -> None:
        """Take in the rest of what the worker before left, then answer requests, and save what is aired."""
        with Isolated() as isolated:  # whatever the files hold, this worker must answer, and go on airing
            await in_slices(rest)
        if isolated.fault:
            say(f"not all that the worker before left is known: {isolated.fault}")
        await self._control.start()
        await self.aired.save_for_ever()

    async def _handed_over(self) -> tuple[list[tuple[str, socket.socket, Journal]], str, float]:
        """Take what the last worker left, until the supervisor says go; a standby waits here."""
        sessions = []
        while True:
            await net.until_ready(self.pipe.connection)
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
        now, kept, gap_s = Now.read(), 0, 0.0
        for key, connection, kept_journal in sessions:
            class_id, url = key.split("\n")[1:3]
            airing = self.schedule.airings.get(class_id)
            with Isolated() as isolated:  # another release's journal may be odd in any way
                push = airing.pushes.get(url) if airing is not None else None
                if push is None or not self.shared.held():
                    raise Broken(sentence("its class is not aired any more"))
                sent_at = push.adopt(key, connection, kept_journal, now)
                gap_s = max(gap_s, time.monotonic() - sent_at)
                kept += 1
            if isolated.error is not None:
                if not isinstance(isolated.error, Broken):
                    say(f"a session is not gone on with: {isolated.fault}")
                kernel.reset(connection)
                connection.close()
                kept_journal.close()
                self.pipe.say("over", key=key)
        if why != "start":
            self.taken_over = {"why": why, "at": now.wall, "sessions": len(sessions), "kept": kept}
            self.taken_over |= {"gap_s": round(gap_s, 3), "took_s": round(time.monotonic() - began_at, 3)}

    def _keep(self, key: str, session: Session) -> None:
        journals = (session.journal.file,) if session.journal is not None else ()
        self.pipe.say("session", (session.connection.fileno(), *journals), key=key)

    def _hear(self) -> None:
        try:
            messages = self.pipe.hear()
        except Gone:
            self._gone.set()
            return
        for message, _ in messages:
            if message["say"] == "upgrade failed" and self.upgrading is not None and not self.upgrading.done():
                self.upgrading.set_result(message["why"])

    # -- requests ------------------------------------------------------------------------------------------------------

    @property
    def does(self) -> dict[str, Do]:
        """What is done for each request."""
        return {
            "hello": self._hello,
            "timetable": self._timetable,
            "status": self._status,
            "try": self._try,
            "upgrade": self._upgrade,
        }

    async def _hello(self, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "release": self.release,
            "protocol": PROTOCOL,
            "journal": session.VERSION,
            "pid": os.getpid(),
            "holder_pid": self.terms.holder,
            "hand_over": kernel.HAND_OVER,
            "lease_until": self.shared.lease_until,
            "boot_now": kernel.boot_now(),
            "timetable": {"path": str(self.path), "version": self.schedule.version},
        }

    async def _timetable(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take over the timetable on the disk, unless the wanted version is in force; answers which one is by then."""
        schedule = self.schedule
        wanted, path = request.get("version"), request.get("path")
        for _ in range(2):  # it may be taken over already, as it was before the wanted version was written
            if wanted == schedule.version:
                break
            if self._taking is None or self._taking.done():
                file = self.path if path is None else Path(str(path))
                self._taking = asyncio.create_task(self.take_over(file))
            done, _ = await asyncio.wait({self._taking}, timeout=TAKE_S / 2)
            for task in done:
                task.result()
        problem = self.aired.saved.problem
        answer = {"version": schedule.version, "refused": schedule.refused, "left_out": schedule.left_out}
        known = {class_id: why.pair() for class_id, why in schedule.refused.items() if isinstance(why, Sentence)}
        return {**answer, "sentences": known, "durable": problem is None, **({"why": problem} if problem else {})}

    async def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        schedule = self.schedule
        known = schedule.active if request.get("active") else schedule.airings
        wanted = [known.get(str(request["class_id"]))] if "class_id" in request else list(known.values())
        classes = Lines()

        def shown() -> Iterator[None]:
            for player in filter(None, wanted):
                classes.append(json.dumps(player.status(Now.read())))
                yield

        await in_slices(shown())
        now = Now.read()
        known_slate_s = sum(player.slate_s(now) for player in (*schedule.active.values(), *schedule.over.values()))
        status = {
            "since": self.since,
            "lateness_s": round(max(self.lateness.values(), default=0.0), 4),
            "bytes": self.context.sent_bytes,
            "reconnects": self.context.reconnects,
            "slate_s": round(known_slate_s, 3),
            "classes_on_air": sum(player.state == "on_air" for player in schedule.active.values()),
            "taken_over": self.taken_over,
        }
        return {**await self._hello(request), "worker": status, "classes": classes}

    async def _try(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            where = target(str(request.get("url")))
        except NotRtmp as error:
            raise BadRequest(sentence("{thing}: {what}", thing="url", what=error)) from error
        allowed = networks(request)
        try:
            trusted = self.context.trusted if where.secure else None
            return {"refused": await asyncio.wait_for(connect_refusal(where, trusted, allowed), TRY_S)}
        except TimeoutError:
            return {"refused": sentence("the server does not answer within {try_s:g} s", try_s=TRY_S)}
        except OSError as error:
            return {"refused": str(error)}

    async def _upgrade(self, _: dict[str, Any]) -> dict[str, Any]:
        if self.upgrading is not None and not self.upgrading.done():
            raise BadRequest("an upgrade is under way")
        self.upgrading = asyncio.get_running_loop().create_future()
        await self.aired.save(everything=True)
        self.pipe.say("upgrade")
        raise BadRequest(await self.upgrading)


def main(terms: Terms) -> None:
    """Run a worker until its supervisor ends."""
    kernel.die_with(terms.holder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # typed at a terminal it reaches the supervisor, too, which ends all
    asyncio.run(Worker(terms).run())


def _set_aside(path: Path, why: BadRequest) -> None:
    try:
        path.replace(f"{path}.unreadable")
        say(f"{why}; it is set aside")
    except FileNotFoundError:
        pass  # there was none yet
    except OSError as error:  # a disk that takes nothing keeps no class from being aired
        say(f"{why}; it cannot be set aside: {error.strerror or error}")
