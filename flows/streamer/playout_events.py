"""Turns what the playout reports of a class into rows, log lines and alarms, and completes the class at its end."""

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from flows.failures import isolated
from flows.handling import changed, decision
from flows.host import StreamerHost, log
from flows.outbox_publisher import publish_outbox
from flows.streamer import downloads
from lectern import errors, metrics, urls
from lectern.db import account, airings, events
from lectern.decide import airing as decide
from lectern.decide import change
from lectern.decide.airing import STORY
from lectern.errors import ErrorCode
from lectern.i18n import Text, labelled, msgid, spoken
from lectern.model.facts import Airing
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import classes
from lectern.model.views import EventView
from lectern.playout.control_socket import version_of
from lectern.states import LIVE_AIRINGS, AiringState
from lectern.storage import cache_dir
from lectern.timing import Throttle
from lectern.wire.fields import called


def scheduled(root: Path, airing: Airing) -> dict[str, Any]:
    """What a change of a class may change of its line in the playout's timetable, as its row is now."""
    path, push_url = cache_dir.rendition_path(root, airing.stem), airing.push_url  # its site may be below a former root
    with suppress(ValueError):
        push_url = urls.push(push_url).text
    return {"file": str(path.absolute()), "push_urls": [push_url], "start": airing.start_time, "end": airing.end_time}


def is_of_row(root: Path, airing: Airing, reported: Mapping[str, Any], now: float) -> bool:
    """Whether the playout tells of the class as its row is now, and not as it was before a change.

    The end that it had does not matter once the one in the row has passed, too; until then it goes on.
    """
    wanted = scheduled(root, airing)
    is_over = airing.end_time <= now or reported.get("end", airing.end_time) == airing.end_time
    return is_over and all(reported.get(name, wanted[name]) == wanted[name] for name in ("start", "file"))


async def close_cancelled(host: StreamerHost, class_id: str) -> None:
    """Release a class whose run somebody cancelled in the UI, and tell its teacher so."""

    def go(connection: Connection, changes: StreamerChanges) -> None:
        airing = airings.by_id(connection, [class_id])[class_id]
        decide.close(changes, airing, AiringState.CANCELLED, Text("cancelled in the UI"))

    await changed(host, go)
    await publish_outbox(host)


@decision
def closing_of(connection: Connection, changes: StreamerChanges, class_id: str, ending: Mapping[str, Any]) -> None:
    """Close a class as the playout reports its end in *ending*."""
    airing, root = airings.by_id(connection, [class_id]).get(class_id), changes.settings.video_root
    if airing is not None:
        # Of one that was taken away, a change on its way matters no more.
        if airing.state not in decide.OFF and not is_of_row(root, airing, ending, changes.now):
            return
        its_urls = scheduled(root, airing)["push_urls"]  # a status has only their hash, because a URL holds a key
        is_pushed_there = ending.get("push_urls") == its_urls or ending.get("push_urls_hash") == version_of(its_urls)
        is_changed = ending.get("end") == airing.end_time and is_pushed_there
        waiting = [it for it in airings.unconfirmed(connection) if called(it.class_id) == class_id]
        for revision in waiting:  # if nothing was sent, the playout may not have had the class before its end
            change.confirm(changes, revision, airing, is_aired=is_changed and bool(ending["as_run"]))
        if waiting and not is_changed:  # it was aired as it was before, which its teacher still takes for planned
            airing = replace(airing, end_time=ending.get("end", airing.end_time))
    decide.ended(changes, class_id, airing, account.story_events(connection, class_id, STORY), ending)


@decision
def closing_of_late(connection: Connection, changes: StreamerChanges, class_id: str, *, is_known: bool = False) -> None:
    """Close a class whose end has passed, and that is not aired; *is_known*: its playout has nothing of it."""
    decide.close_late(changes, airings.by_id(connection, [class_id])[class_id], is_known=is_known)


ALARM_EVERY_S = 60.0  # seconds until the same alarm of a class may be raised again
STATED_AGAIN_S = 600.0  # seconds until what is so is stated again: Redis may have lost it, with its last second
_COMES_ON_AIR = frozenset({AiringState.READY, AiringState.BROKEN})
_OFF_AIR = frozenset({"connecting", "trying", "no_lease"})


@dataclass
class _Followed:
    """What is remembered of a class."""

    said: Counter[tuple[str, str]] = field(default_factory=Counter)  # how often the same event came
    why: str | None = None  # the last thing that went wrong
    lost: Mapping[str, Any] | None = None  # why its recording is not sent, and since when; None if it is
    has_slate: bool = False  # whether the slate was said to be sent then
    stated: dict[bool, decide.Statement] = field(default_factory=dict)  # the last one of its push, and of its source
    alarmed: Throttle = field(default_factory=Throttle)
    fetching: asyncio.Task[None] | None = None
    fetched: float = -math.inf  # when the recording was lost that was asked for again last


class PlayoutEvents:
    """Follows all classes of one streamer: events are written down, and how things stand is what statuses say."""

    def __init__(self, host: StreamerHost) -> None:
        self._host = host
        self._classes: defaultdict[str, _Followed] = defaultdict(_Followed)
        self.news = asyncio.Event()  # set when the statuses are worth a look
        self._ends: dict[str, Mapping[str, Any]] = {}  # those that the database did not take
        self._off: dict[str, float] = {}  # since when receivers take nothing, by the last look (epoch seconds)
        self._lacking: Collection[str] = ()  # classes whose recordings are not sent, by the last look
        self.unaired: Mapping[str, str] = {}  # why the playout does not air classes: it refuses them, or knows others
        self._alarmed: Mapping[str, str] = {}  # those of them that were alarmed, each with that reason

    async def take(self, event: Mapping[str, Any]) -> None:
        """Write one event down, or the status of a class that has ended; a full disk ends no class."""
        event = spoken(event)
        class_id = event.get("class_id")
        if class_id is None:  # the end of the playout's lease
            if self._host.playout.held():
                async with isolated(self._host, Text("playout"), through=()):
                    await changed(self._host, alarm_away(Text("its lease is over, although this streamer holds one")))
                    await publish_outbox(self._host)
            return
        async with self._alone(class_id):
            if event.get("event", "ended") == "ended":
                await self._ended(class_id, event)
                return
            followed, kind = self._classes[class_id], event["event"]
            async with self._alone(class_id):  # what cannot be written down is acted on all the same
                await self._note(class_id, event)
            if kind in {"on_air", "slate", "back"}:
                self.news.set()
            if kind == "slate":  # told again of the same loss if its slate is lost, too, or is there again
                followed.why, followed.lost = event["why"], {**event, "at": (followed.lost or event)["at"]}
            elif kind == "back":
                followed.lost = None
            elif kind == "broke_off":
                followed.why = event["why"]
                metrics.RECONNECTS.inc()
            elif kind == "fenced":
                followed.why = Text("its streamer held no lease")
            elif kind == "behind":
                text = msgid("it falls behind the clock, and {skipped_s:.0f} s of it were skipped")
                why = labelled(Text(text, skipped_s=event["behind_s"]), Text("its receiver takes less than it is sent"))
                await self._alarm(class_id, errors.AIRING_BROKEN, why)

    async def _ended(self, class_id: str, ending: Mapping[str, Any]) -> None:
        try:
            last = {**ending, "last": self._classes[class_id].why}
            changes = await changed(self._host, closing_of(class_id, last))
        except DBAPIError:
            self._ends[class_id] = ending
            raise
        if not changes.sent:
            log.info("%s: ended as it was before a change, which changes nothing of it as it is now", class_id)
            self._host.playout.wanted.set()
        self._classes.pop(class_id, None)
        await publish_outbox(self._host)

    async def was_away(self, class_ids: Collection[str], at: float) -> None:
        """Note that the playout was not there from *at* (epoch seconds) on: another one airs the classes now."""
        name, why = self._host.settings.name, str(self._host.playout.why or "")
        for class_id in class_ids:
            self._classes[class_id].why = Text("the playout was not there")

        def note(connection: Connection) -> None:
            for class_id in class_ids:
                events.keep_of(connection, [EventView(at, "playout away", class_id, None, name, why)])

        async with isolated(self._host, Text("playout"), through=()):  # how they are aired counts more
            await self._host.write_tx(note)

    async def look_around(self, now: float, statuses: Sequence[Mapping[str, Any]] = ()) -> None:
        """Take in how the classes are aired whose time has come: their *statuses* at *now*; raise alarms that are due.

        A look that comes too late, or is not written down, is made good by the next one.
        """
        ends, self._ends = self._ends, {}
        for event in ends.values():
            await self.take(event)
        statuses = [spoken(status) for status in statuses]
        live = await self._host.read_tx(_live, [str(status["class_id"]) for status in statuses])
        await self._state(live, now, statuses)
        off, lacking = dict[str, float](), set[str]()
        for status in statuses:
            if (airing := live.get(str(status["class_id"]))) is None:
                continue
            class_id, followed = airing.class_id, self._classes[airing.class_id]
            async with self._alone(class_id):
                if _is_due(airing, now) and status["state"] in _OFF_AIR and self._host.playout.held():
                    off[class_id] = self._off.get(class_id, now)
                if status.get("lost", status.get("slate")):  # an older playout says `slate` of both
                    lacking.add(class_id)
                    await self._without_recording(airing, status, now)
                else:
                    followed.lost = None
                    followed.alarmed.forget(str(errors.NO_RECORDING.number))  # if it is lost again, that is news
                if class_id in off:
                    lacks = Text("it has no lease, although this streamer holds one")
                    why = status["why"] or Text("no receiver takes it yet")
                    followed.why = lacks if status["state"] == "no_lease" else why
                    if now - off[class_id] >= decide.NOT_ON_AIR_S:
                        text = msgid("it is not on air: {reason}; it is tried again until its end")
                        await self._alarm(class_id, errors.AIRING_BROKEN, Text(text, reason=followed.why))
                elif status["state"] == "on_air" and airing.state in _COMES_ON_AIR:
                    await changed(self._host, _on_air(class_id))
        self._off, self._lacking = off, lacking
        self.still()
        await self._alarm_unaired()

    def still(self) -> None:
        """Note that the trouble of classes goes on; without a playout, nobody sees that it is over."""
        if self._lacking:
            self._host.ongoing[errors.NO_RECORDING.number] = time.monotonic()
        if self.unaired or self._off:
            self._host.ongoing[errors.AIRING_BROKEN.number] = time.monotonic()

    async def _state(self, live: Mapping[str, Airing], now: float, statuses: Sequence[Mapping[str, Any]]) -> None:
        """Tell the teacher, for the platform, what is new of how the classes are aired."""
        news: list[tuple[Airing, decide.Statement]] = []
        for status in statuses:
            if (airing := live.get(str(status["class_id"]))) is not None and _is_due(airing, now):
                async with self._alone(airing.class_id):
                    followed, is_moved = self._classes[airing.class_id], airing.placement > 1
                    if followed.alarmed.take("stated", STATED_AGAIN_S):
                        followed.stated.clear()
                    news += [
                        (airing, statement)
                        for statement in decide.statements(status, now, followed.why, is_moved=is_moved)
                        if decide.is_news(statement, followed.stated.get(statement.event in decide.OF_SOURCE))
                    ]
        if news:
            async with isolated(self._host, Text("the platform's events of classes on air"), through=()):
                await changed(self._host, _stated(news))
                for airing, statement in news:
                    self._classes[airing.class_id].stated[statement.event in decide.OF_SOURCE] = statement
                await publish_outbox(self._host)

    async def _alarm_unaired(self) -> None:
        """Raise the alarms of the classes that the playout does not air, once for each reason."""
        before, self._alarmed = self._alarmed, (alarmed := dict[str, str]())
        for class_id, why in self.unaired.items():
            async with self._alone(class_id):
                if before.get(class_id) != why:
                    await self._alarm(class_id, errors.AIRING_BROKEN, why)
                alarmed[class_id] = why

    @asynccontextmanager
    async def _alone(self, class_id: str) -> AsyncIterator[None]:
        """A context in which an error of one class ends nothing else: the others go on, and the lease is passed on."""
        try:
            async with isolated(self._host, Text("class {class_id}", class_id=class_id)):
                yield
        except DBAPIError as error:
            log.error("%s: is not written down, the class goes on: %s", class_id, error.orig)

    async def _note(self, class_id: str, event: Mapping[str, Any]) -> None:
        """Say what happened in the log and in the class's story; only a few of a series of the same event."""
        line = decide.event_text(event)
        if line is None:
            return
        what, detail = line
        followed, kind = self._classes[class_id], (what, str(event.get("why") or ""))
        if event["event"] == "on_air":  # events after it are news again
            followed.said = Counter({key: n for key, n in followed.said.items() if not key[1]})
        else:
            followed.said[kind] += 1
            if (number := followed.said[kind]) not in decide.SAME_AGAIN:
                return
            if number > 1:
                detail = Text("{detail} (so far {number:,} times)", detail=detail, number=number)
        self._host.playout.tell(class_id, f"{what}: {detail}")
        await changed(self._host, _noted(class_id, what, detail))

    async def _without_recording(self, airing: Airing, status: Mapping[str, Any], now: float) -> None:
        """Raise the alarm that the recording of a class is missing, and have it downloaded again if that helps."""
        followed, has_slate = self._classes[airing.class_id], bool(status["slate"])
        followed.lost = followed.lost or {"why": status["why"], "at": now}
        why, lost_at = followed.lost["why"], float(followed.lost["at"])
        sent = Text("its slate is sent") if has_slate else Text("nothing is sent, there is no slate")
        if followed.has_slate and not has_slate:  # it is worse than the last alarm said
            followed.alarmed.forget(str(errors.NO_RECORDING.number))
        followed.has_slate = has_slate
        if status.get("wants_file") and lost_at > followed.fetched:
            followed.fetched = lost_at
            followed.fetching = asyncio.create_task(self._fetch_again(airing, why, lost_at))
        lacks = labelled(sent, why or Text("no reason is known"))
        await self._alarm(airing.class_id, errors.NO_RECORDING, lacks, math.inf)

    async def _fetch_again(self, airing: Airing, why: str, lost_at: float) -> None:
        """Have the recording of a class downloaded again, once for each loss; its playout goes on when it is there.

        If the database takes nothing, or the disk hangs, the next look asks for it again.
        """
        is_asked = False
        async with isolated(self._host, Text("class {class_id}", class_id=airing.class_id), through=()):
            await downloads.redownload(self._host, airing.stem, why, seen_at=lost_at)
            is_asked = True
        if not is_asked:
            self._classes[airing.class_id].fetched = -math.inf

    async def _alarm(self, class_id: str, code: ErrorCode, why: str, every_s: float = ALARM_EVERY_S) -> None:
        alarmed, what = self._classes[class_id].alarmed, str(code.number)
        if not alarmed.due(what, every_s):
            return
        if (await changed(self._host, _alarm(class_id, code, why))).sends:
            alarmed.passes(what)
            await publish_outbox(self._host)


def _live(connection: Connection, class_ids: Sequence[str]) -> dict[str, Airing]:
    """The classes among *class_ids* that are not over."""
    such = classes.c.class_id.in_(class_ids) & classes.c.state.in_(LIVE_AIRINGS)
    return {airing.class_id: airing for airing in airings.where(connection, such)}


def _is_due(airing: Airing, now: float) -> bool:
    """Whether a class should be on air at *now*; how a broken one ended is told already."""
    return airing.start_time <= now < airing.end_time and airing.state is not AiringState.BROKEN


@decision
def _stated(_connection: Connection, changes: StreamerChanges, news: Sequence[tuple[Airing, decide.Statement]]) -> None:
    for airing, statement in news:
        changes.state(airing, statement.event, statement.at, statement.why, statement.since)


@decision
def _noted(connection: Connection, changes: StreamerChanges, class_id: str, what: str, detail: str) -> None:
    airing = airings.by_id(connection, [class_id]).get(class_id)
    changes.note(what, detail=detail, class_id=class_id, stem=airing.stem if airing is not None else None)


@decision
def _on_air(connection: Connection, changes: StreamerChanges, class_id: str) -> None:
    """Note that a receiver takes a class; one that is over, or was never ready, stays as it is."""
    airing = airings.by_id(connection, [class_id]).get(class_id)
    if airing is not None and airing.state in _COMES_ON_AIR:
        changes.move(airing, AiringState.ON_AIR)


@decision
def _alarm(connection: Connection, changes: StreamerChanges, class_id: str, code: ErrorCode, why: str) -> None:
    """Raise an alarm, unless the class is over, or was never this streamer's."""
    airing = airings.by_id(connection, [class_id]).get(class_id)
    if airing is not None and airing.state in LIVE_AIRINGS:
        changes.alarm(code, labelled(class_id, why), airing)


@decision
def alarm_away(connection: Connection, changes: StreamerChanges, why: str) -> None:
    """Raise the alarm that the playout sends nothing, as *why* says."""
    on_air = airings.due(connection, changes.now, changes.now)
    text = Text(
        "{host}: {why}; {classes} should be on air",
        host=changes.settings.name,
        why=why,
        classes=Text.many("{n:,} class", "{n:,} classes", n=len(on_air)),
    )
    changes.raise_alarm(errors.PLAYOUT_AWAY, text)
