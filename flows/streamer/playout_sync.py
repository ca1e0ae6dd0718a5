"""Makes the playout's timetable of the rows, has the playout air it, and follows the playout, which outlives us."""

import asyncio
import json
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection

from flows import failures
from flows.handling import changed
from flows.host import StreamerHost, log
from flows.outbox_publisher import publish_outbox
from flows.playout_link import NotTaken, ScheduledClass
from flows.streamer import prepare
from flows.streamer.playout_events import PlayoutEvents, alarm_away, scheduled
from lectern import errors, urls
from lectern.allowlist import Allowlist
from lectern.db import airings, cache, events, leases
from lectern.decide import airing as decide
from lectern.decide import gaps
from lectern.errors import Caught, LecternError, TryAgain
from lectern.i18n import Text, from_pair
from lectern.media import ffmpeg
from lectern.model.facts import Airing
from lectern.model.tables.streamer import as_runs, classes
from lectern.playout.control_socket import PROTOCOL, Client, version_of, write_timetable
from lectern.playout.timetable import NAME
from lectern.timing import backoff_s, comes

AHEAD_S = 2 * 3600.0
"""Seconds ahead for which the playout gets the classes: a lease ends long before it would need more."""

KEPT_S = 60.0
"""Seconds after its end until a class is taken out of the timetable, if the playout has not told its end before.

The playout ends it by a clock that nobody sets; if it were taken out a moment too early, it would be cancelled.
"""

Facts = tuple[Airing, float | None, str | None, Allowlist]
"""What a class of the timetable is made of: its row, its rendition's seconds, the slate, where it may be pushed to."""


@dataclass(frozen=True)
class _Made:
    """A class of the timetable, as it is and as its line in the file; *of* is None if it was read from there."""

    of: Facts | None
    lesson: ScheduledClass
    line: str


@dataclass
class DesiredTimetable:
    """The timetable as the rows want it; *lessons* are by class_id, those that begin soonest first."""

    lessons: dict[str, ScheduledClass] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    session: str = ""  # the session of the lease for which these are our classes
    odd: dict[str, Exception] = field(default_factory=dict)
    """Classes of which no line can be made, which are aired as before."""


class TimetableReader:
    """Makes the timetable; a class whose row is as it was is not made again."""

    def __init__(self, host: StreamerHost) -> None:
        self._host = host
        self._made: dict[str, _Made] = {}

    def wanted(
        self, connection: Connection, now: float, slate: str | None, allowed: Allowlist, before: Path | None
    ) -> DesiredTimetable:
        """The classes that begin soon, or are on air; *allowed* says where classes may be pushed to.

        A class whose row cannot be read stays as it is in the timetable: as this process made it, or as it is in the
        file *before*.
        """
        classes = sorted(airings.due(connection, now + AHEAD_S, now - KEPT_S), key=lambda airing: airing.start_time)
        renditions = cache.by_stem(connection, {airing.stem for airing in classes})
        wanted = DesiredTimetable(session=leases.session(connection, self._host.settings.name) or "")
        entries: dict[str, _Made] = {}
        for airing in classes:
            row = renditions.get(airing.stem)
            of = airing, row.duration_s if row is not None else None, slate, allowed
            known = self._made.get(airing.class_id)
            with Caught() as failed:
                entries[airing.class_id] = known if known is not None and known.of == of else self._make(of, known)
            if failed.error is not None:
                wanted.odd[airing.class_id] = failed.error
        self._keep(entries, {*wanted.odd, *airings.unreadable(connection)}, before)
        self._made = entries
        for class_id, each in sorted(entries.items(), key=lambda item: float(item[1].lesson["start"])):
            wanted.lessons[class_id] = each.lesson
            wanted.lines.append(each.line)
        return wanted

    def _make(self, of: Facts, known: _Made | None) -> _Made:
        entry = lesson(of, self._host)
        if known is not None and known.lesson["push_urls"] == entry["push_urls"]:
            # It keeps all networks that it might reach before: a shorter list ends no push.
            old, new = known.lesson.get("networks"), entry.get("networks")
            if new is not None and (old is None or not set(old) <= set(new)):
                entry = {**entry, "networks": old and [*new, *sorted(set(old) - set(new))]}
        return _Made(of, entry, json.dumps(entry))

    def _keep(self, entries: dict[str, _Made], odd: set[str], before: Path | None) -> None:
        entries |= {class_id: self._made[class_id] for class_id in odd & self._made.keys()}
        if odd - entries.keys() and before is not None:
            with suppress(OSError, ValueError, KeyError, TypeError):
                for line in before.read_text(encoding="utf-8").splitlines()[1:]:
                    fields = json.loads(line)
                    if fields["class_id"] in odd - entries.keys():
                        entries[fields["class_id"]] = _Made(None, fields, line)


def lesson(facts: Facts, host: StreamerHost) -> ScheduledClass:
    """A class as the playout wants it."""
    airing, duration_s, slate, allowed = facts
    wanted = scheduled(host.settings.video_root, airing)
    fields = {"class_id": airing.class_id, **wanted, "duration_s": duration_s, "slate": slate}
    with suppress(ValueError):  # else the playout refuses it with a reason
        url = urls.push(airing.push_url)
        fields["networks"] = allowed.of_server(url.host, url.port)
    return fields


def _unheard(connection: Connection, ended: Sequence[Mapping[str, Any]]) -> set[str]:
    """The classes of the statuses *ended* that were released or refused, and nobody has written down what was sent.

    The process that took them off the air died before it heard that; one that had come back was sent here before.
    """
    known = airings.where(connection, classes.c.class_id.in_([one["class_id"] for one in ended]))
    released = {airing.class_id for airing in known if airing.state in decide.OFF}
    parts = events.parts_of(connection, sorted(released), as_runs)
    begun = {class_id: {part.begins for part in theirs} for class_id, theirs in parts.items()}
    sent = {one["class_id"]: gaps.longest(decide.as_run(one["as_run"]), decide.KEPT) for one in ended}
    return {id_ for id_ in released if not {part.begins for part in sent[id_]} <= begun.get(id_, set())}


LOOK_EVERY_S = 3.0
"""Seconds between two beats; in each the rows are read, and the playout is asked which timetable it airs."""

WRITE_EVERY_S = 1.0  # least number of seconds between two beats, however much changes
WRITE_S = 5.0  # seconds that the disk has to take a timetable
SLATE_AGAIN_S = 300.0  # seconds until a slate that could not be made is made again: the disk may be full just now
LATE_S = 3.0  # seconds after the start of a class from which it is an alarm that the playout does not know it
ALARM_AFTER_S, ALARM_AGAIN_S = 5.0, 600.0  # seconds without a playout after which an alarm is raised, and raised again
NO_DISK = Path("/dev/shm")  # noqa: S108 (its file gets a name of its own, and is our owner's only)
"""Where the timetable is written if the disk takes nothing: the playout reads it there, but not after a restart."""

_FIRST_S, _MOST_S = 0.05, 1.0  # seconds between the first tries to reach the playout, and between those long after
_FILE = ThreadPoolExecutor(1, thread_name_prefix="timetable")


class PlayoutSync:
    """Keeps the playout of one streamer up to date, and follows it."""

    def __init__(self, host: StreamerHost) -> None:
        self._host = host
        self._following = PlayoutEvents(host)
        self._lessons = TimetableReader(host)
        folder = host.settings.playout_dir
        self._path = folder / NAME if folder.is_dir() else None  # until the playout says where it reads
        self._holder_pid = 0
        self._version: str | None = None  # of the timetable that was written there last
        self._writing: asyncio.Future[str] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._context, self._stepped_at = copy_context(), -math.inf  # monotonic
        self._next: asyncio.Task[bool] | None = None  # the step that waits for its turn
        host.playout.step = self.step
        self._said: Mapping[str, str] = {}  # what was said of classes that the playout refuses
        self._made_slate: str | None = None  # the path of the one that is made if the settings name none

    async def run(self) -> None:
        """Connect, follow, and connect again when the worker has ended, until cancelled."""
        making = asyncio.create_task(self._make_slate())
        playout, tries = self._host.playout, 0
        try:
            while True:  # not left to `Supervisor`: a worker that was restarted is there after a fraction of its pauses
                self._host.watchdog.beat("playout")
                try:
                    await self._followed(await playout.connect(self._host.settings.playout_socket_path))
                except TryAgain as error:
                    tries = 0 if playout.why is None else tries + 1  # one that only took the connection was not there
                    playout.is_away(error.message)
                await self._say_away()
                await asyncio.sleep(backoff_s(tries, _FIRST_S, _MOST_S))
        finally:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)  # what it has started ends before this process

    async def _make_slate(self) -> None:
        """Make a slate before a class needs it; without one, nothing is sent while a recording is missing."""
        path = self._host.settings.playout_dir / "slate.flv"
        while self._made_slate is None:
            pause_s = LOOK_EVERY_S  # SLATE may be unset while the process is at work
            if self._host.settings.slate is None:
                try:
                    await ffmpeg.make_slate(path)
                    self._made_slate = str(path.absolute())
                    self._host.playout.wanted.set()
                except LecternError as error:
                    log.warning("slate: there is none, name one with SLATE: %s", error.message)
                    pause_s = SLATE_AGAIN_S
            await asyncio.sleep(pause_s)

    @property
    def _slate(self) -> str | None:
        named = self._host.settings.slate
        return str(named.absolute()) if named is not None else self._made_slate

    # -- the connection ------------------------------------------------------------------------------------------------

    async def _followed(self, client: Client) -> None:
        """Bring the playout up to date, and follow it to the end of the connection; raises TryAgain then."""
        ours = {asyncio.create_task(self._keep_looking_around())}
        try:
            await self._bring_up_to_date()
            ours.add(asyncio.create_task(self._events(client)))
            done, _ = await asyncio.wait(ours, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in ours:
                task.cancel()
            await asyncio.gather(*ours, return_exceptions=True)
            await client.close()
        raise TryAgain(Text("the worker of the playout ended"))

    async def _bring_up_to_date(self) -> None:
        """Hand the timetable over, and take in missed events.

        The timetable comes first: a new lease would let a class go on that was moved to another streamer meanwhile, so
        the supervisor gets none before (`flows.streamer.lease`).
        """
        host, playout = self._host, self._host.playout
        hello = await playout.ask("hello", events=True)
        if hello["protocol"] != PROTOCOL:
            raise TryAgain(
                "it is of release {release}, which takes no timetable: lectern playout upgrade",
                release=hello["release"],
            )
        is_back, away_at = self._holder_pid != 0, time.time() - playout.away_s()
        self._path, self._holder_pid = Path(hello["timetable"]["path"]), hello["holder_pid"]
        self._stepped_at = -math.inf  # whoever holds a lease anew waits for it
        await self.step()
        status = await playout.ask("status")
        ours = await host.read_tx(airings.live_ids)
        over = [one for one in status["classes"] if one["state"] == "ended"]
        if is_back:
            live = [one for one in status["classes"] if one["state"] != "ended" and one["class_id"] in ours]
            await self._following.was_away([one["class_id"] for one in live if one["start"] <= time.time()], away_at)
        playout.is_there()  # what happened to its classes takes seconds to write down if there are many
        host.alarmed_at.forget(errors.PLAYOUT_AWAY.meaning)  # the next time is another one
        log.info("playout: release %s, %d classes", status["release"], len(playout.confirmed))
        ours |= await host.read_tx(_unheard, over)
        for one in over:
            if one["class_id"] in ours:
                await self._following.take(one)
        self._following.news.set()  # what else was missed, the statuses say

    async def _events(self, client: Client) -> None:
        async for event in client.events():
            await self._following.take(event)

    async def _keep_looking_around(self) -> None:
        """Raise due alarms in a loop of its own: many classes may need one, and nothing must wait for them."""
        while True:
            await comes(self._following.news, LOOK_EVERY_S)
            self._following.news.clear()
            self._host.watchdog.beat("playout")  # a connection that lasts is no loop that stands still
            now, status = time.time(), await self._host.playout.ask("status", active=True)
            await self._following.look_around(now, status["classes"])
            await asyncio.sleep(WRITE_EVERY_S)

    # -- the timetable -------------------------------------------------------------------------------------------------

    async def keep_in_step(self) -> None:
        """Compare what the playout airs with what the rows want, at each beat, until cancelled.

        The timetable is written also while the playout is away: the next worker goes by what lies on the disk.
        """
        while True:
            await comes(self._host.playout.wanted, LOOK_EVERY_S)
            self._host.watchdog.beat("timetable of the playout")
            with suppress(TryAgain):  # its connection has ended, which `run` notes
                await self.step()

    async def step(self) -> bool:
        """Write the timetable if it is another one, and have the playout take it over if that airs another one.

        Returns whether the playout airs what the rows said after this was called. Raises TryAgain if it is away.
        """
        if self._next is None or self._next.done():
            self._next = asyncio.create_task(self._step(), context=self._context.copy())  # in no log of a caller's run
            self._next.add_done_callback(lambda step: step.cancelled() or step.exception())  # all may have given up
        await asyncio.wait({step := self._next})  # whoever gives up does not cancel it for the others
        return step.result()

    async def _step(self) -> bool:
        host, playout = self._host, self._host.playout
        async with self._one_at_a_time:
            await asyncio.sleep(self._stepped_at + WRITE_EVERY_S - time.monotonic())
            self._next, self._stepped_at = None, time.monotonic()  # who asks from here on may know of later rows
            playout.wanted.clear()
            allowed = await prepare.push_allowlist(host)
            wanted = await host.read_tx(self._lessons.wanted, time.time(), self._slate, allowed, self._path)
            for class_id, error in wanted.odd.items():
                await failures.report(host, Text("class {class_id}", class_id=class_id), error, LOOK_EVERY_S)
            if self._path is None:  # the playout was never there, so nobody knows where it reads
                return False
            version = version_of(wanted.lines)
            try:
                await self._write(self._path, version, wanted.lines)
            except OSError as error:
                await failures.report(host, Text("the playout's timetable"), error, LOOK_EVERY_S)
                with TemporaryDirectory(prefix="lectern-", dir=NO_DISK) as folder:
                    path = Path(folder) / NAME
                    await asyncio.to_thread(write_timetable, path, wanted.lines)
                    return await self._hand_over(version, wanted, path=str(path))
            return await self._hand_over(version, wanted)

    async def _write(self, path: Path, version: str, lines: Sequence[str]) -> None:
        """Write the timetable, unless it lies there; raises OSError, also if the disk hangs."""
        while self._version != version:
            left_s = 0.0  # one that was begun in an earlier step has had its time
            if self._writing is None:
                loop, left_s = asyncio.get_running_loop(), WRITE_S
                self._writing = loop.run_in_executor(_FILE, write_timetable, path, lines)
            done, _ = await asyncio.wait({self._writing}, timeout=left_s)
            if not done:
                raise TimeoutError(f"{path}: the disk is slow, or hangs")
            writing, self._writing = self._writing, None
            self._version = writing.result()

    async def _hand_over(self, version: str, wanted: DesiredTimetable, **where: str) -> bool:
        """Ask the playout to take the timetable over; returns whether it does. Note what it does not air."""
        playout = self._host.playout
        if playout.client is None:
            return False
        refused: dict[str, str] = {}
        try:
            answer = await playout.ask("timetable", version=version, **where)
        except NotTaken as error:
            answer = {"version": None}
            log.error("playout: the timetable is not taken: %s", error.message)
        if is_taken := answer["version"] == version:
            left_out = list(wanted.lessons)[len(wanted.lessons) - answer["left_out"] :]
            pairs = answer.get("sentences", {})  # which a playout of the release before does not tell
            refused = {class_id: from_pair(pairs.get(class_id)) or why for class_id, why in answer["refused"].items()}
            refused |= dict.fromkeys(left_out, Text("its timetable is full"))
            playout.confirmed = {class_id: its for class_id, its in wanted.lessons.items() if class_id not in refused}
            playout.cleared = wanted.session, self._holder_pid
        else:
            self._version = None  # whatever lies there: it is written again at the next beat
        for class_id, why in refused.items():
            if self._said.get(class_id) != why:
                log.error("%s: the playout does not take it: %s", class_id, why)
        self._said = refused
        begun_before = time.time() - LATE_S
        begun = takewhile(lambda its: its[1]["start"] <= begun_before, wanted.lessons.items())
        unknown = [class_id for class_id, its in begun if playout.confirmed.get(class_id) != its]
        unaired: dict[str, str] = dict.fromkeys(unknown, Text("the playout does not know it as it is booked"))
        unaired |= {id_: Text("the playout does not take it: {reason}", reason=why) for id_, why in refused.items()}
        self._following.unaired = unaired  # whoever waits for this step does not wait for these alarms
        return bool(is_taken)

    # -- it is not there -----------------------------------------------------------------------------------------------

    async def _say_away(self) -> None:
        playout, now = self._host.playout, time.monotonic()
        self._following.still()
        if playout.away_s() < ALARM_AFTER_S:
            return
        self._host.ongoing[errors.PLAYOUT_AWAY.number] = now
        if not self._host.alarmed_at.due(errors.PLAYOUT_AWAY.meaning, ALARM_AGAIN_S):
            return
        log.error("playout: is not there, so nothing is aired: %s", playout.why)
        async with failures.isolated(self._host, Text("playout"), through=()):  # it is looked for meanwhile
            await changed(self._host, alarm_away(str(playout.why)))
            self._host.alarmed_at.passes(errors.PLAYOUT_AWAY.meaning)
            await publish_outbox(self._host)
