"""Turns what the playout reports of a class into rows, log lines and alarms, and completes the class at its end."""

import asyncio
import math
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from flows.failures import isolated
from flows.handling import Decide, changed, decision
from flows.host import StreamerHost, log
from flows.outbox_publisher import publish_outbox
from flows.streamer import downloads
from lectern import errors, metrics, urls
from lectern.db import account, airings, events
from lectern.decide import airing as decide
from lectern.decide import change
from lectern.decide.airing import STORY
from lectern.errors import ErrorCode
from lectern.i18n import Text, labelled, spoken
from lectern.model.facts import Airing
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.views import EventView
from lectern.playout.control_socket import version_of
from lectern.states import LIVE_AIRINGS, AiringState
from lectern.storage import cache_dir
from lectern.timing import Throttle, backoff_s
from lectern.wire.fields import called


async def complete(host: StreamerHost, class_id: str, ending: Mapping[str, Any]) -> None:
    """Close a class as the playout reports its end: *ending* is the event `ended`, or the `status` of the class."""
    if not (await _closed(host, class_id, closing_of(class_id, ending))).sent:
        log.info("%s: ended as it was before a change, which changes nothing of it as it is now", class_id)
        host.playout.wanted.set()


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

    await _closed(host, class_id, go)


async def _closed(host: StreamerHost, class_id: str, go: Decide[StreamerChanges]) -> StreamerChanges:
    changes = await changed(host, go)
    host.playout.over(class_id)
    await publish_outbox(host)
    return changes


@decision
def closing_of(connection: Connection, changes: StreamerChanges, class_id: str, ending: Mapping[str, Any]) -> None:
    """Close a class as the playout reports its end in *ending*."""
    airing, root = airings.by_id(connection, [class_id]).get(class_id), changes.settings.video_root
    if airing is not None:
        # Of one that was taken away, a change on its way matters no more.
        if not decide.is_taken(airing) and not is_of_row(root, airing, ending, changes.now):
            return
        its_urls = scheduled(root, airing)["push_urls"]  # a status has only their hash, because a URL holds a key
        is_pushed_there = ending.get("push_urls") == its_urls or ending.get("push_urls_hash") == version_of(its_urls)
        is_changed = ending.get("end") == airing.end_time and is_pushed_there
        waiting = [it for it in airings.unconfirmed(connection) if called(it.class_id) == class_id]
        for revision in waiting:
            change.confirm(changes, revision, airing, is_aired=is_changed)
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
    off_since: float | None = None  # since when its receiver takes nothing, epoch seconds
    lacks: str = ""  # what is sent in place of its recording, and why; empty if nothing is wrong with that
    has_slate: bool = False  # whether the slate was said to be sent then
    why: str | None = None  # the last thing that went wrong
    stated: dict[bool, decide.Statement] = field(default_factory=dict)  # the last one of its push, and of its source
    alarmed: Throttle = field(default_factory=Throttle)
    fetching: asyncio.Task[None] | None = None  # at most once for each loss


class PlayoutEvents:
    """Follows the events of all classes of one streamer; remembers them only so that repetitions are not logged."""

    def __init__(self, host: StreamerHost) -> None:
        self._host = host
        self._classes: defaultdict[str, _Followed] = defaultdict(_Followed)
        self.news = asyncio.Event()  # set when the statuses are worth a look
        self._ends: dict[str, Mapping[str, Any]] = {}  # those that the database did not take
        self.unaired: Collection[str] = ()  # classes that the playout does not take, or does not know

    async def take(self, event: Mapping[str, Any]) -> None:
        """Write one event down; a full disk ends no class."""
        event = spoken(event)
        class_id = event.get("class_id")
        if class_id is None:  # the end of the playout's lease
            if self._host.playout.held():
                async with isolated(self._host, Text("playout"), through=()):
                    await changed(self._host, alarm_away(Text("its lease is over, although this streamer holds one")))
                    await publish_outbox(self._host)
            return
        async with self._alone(class_id):
            if event["event"] == "ended":
                try:
                    await complete(self._host, class_id, {**event, "last": self._classes[class_id].why})
                except DBAPIError:
                    self._ends[class_id] = event
                    raise
                self._classes.pop(class_id, None)
            else:
                async with self._alone(class_id):  # what cannot be written down is acted on all the same
                    await self._note(class_id, event)
                await self._look(class_id, event)

    async def catch_up(self, status: Mapping[str, Any]) -> None:
        """Take in the present status of a class whose events this process may have missed."""
        status = spoken(status)
        class_id, state = str(status["class_id"]), status["state"]
        async with self._alone(class_id):
            if state == "ended":
                await complete(self._host, class_id, status)
                self._classes.pop(class_id, None)  # its trouble is over, too
                return
            if status.get("lost", status["slate"]):  # an older playout says `slate` of both
                await self._without_recording(class_id, status, has_slate=status["slate"])
            else:
                self._found_again(class_id)
            if state == "on_air":  # last, because each look makes up for it
                self._classes[class_id].off_since = None  # an earlier break may have ended unheard
                await changed(self._host, _on_air(class_id))

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
        """Raise the alarms that are due although no event comes: a server may simply not answer.

        *statuses* are those of the classes whose time has come, as the playout has them at *now*.
        """
        ends, self._ends = self._ends, {}
        for event in ends.values():
            await self.take(event)
        await self._compare(now, [spoken(status) for status in statuses])
        self.still()
        for class_id in [class_id for class_id, its in self._classes.items() if its.off_since is not None or its.lacks]:
            async with self._alone(class_id):
                airing = (await self._host.read_tx(airings.by_id, [class_id])).get(class_id)
                if airing is not None and airing.state in LIVE_AIRINGS and airing.end_time > now:
                    await self._off(airing, now)
                    await self._lacking(airing)
                else:  # its end was not heard, or came while its status was looked at
                    self._classes[class_id].off_since, self._classes[class_id].lacks = None, ""

    def still(self) -> None:
        """Note that the trouble of classes goes on; without a playout, nobody sees that it is over."""
        if any(its.lacks for its in self._classes.values()):
            self._host.ongoing[errors.NO_RECORDING.number] = time.monotonic()
        if self.unaired or any(its.off_since is not None for its in self._classes.values()):
            self._host.ongoing[errors.AIRING_BROKEN.number] = time.monotonic()

    async def _compare(self, now: float, statuses: Sequence[Mapping[str, Any]]) -> None:
        """Correct what this process believes of the classes that should be on air, by their *statuses*."""
        due = {airing.class_id: airing for airing in await self._host.read_tx(airings.due, now, now)}
        await self._state(due, now, statuses)
        for status in statuses:
            class_id = str(status["class_id"])
            if class_id not in due:
                continue
            async with self._alone(class_id):
                followed = self._classes[class_id]
                if status["state"] == "on_air":
                    followed.off_since = None
                    if due[class_id].state in _COMES_ON_AIR:
                        await changed(self._host, _on_air(class_id))
                elif status["state"] in _OFF_AIR and self._host.playout.held():
                    lacks = Text("it has no lease, although this streamer holds one")
                    why = status["why"] or Text("no receiver takes it yet")
                    followed.why = lacks if status["state"] == "no_lease" else why
                    followed.off_since = now if followed.off_since is None else followed.off_since

    async def _state(self, due: Mapping[str, Airing], now: float, statuses: Sequence[Mapping[str, Any]]) -> None:
        """Tell the teacher, for the platform, what is new of how the classes are aired."""
        news: list[tuple[str, decide.Statement]] = []
        for status in statuses:
            class_id = str(status["class_id"])
            if class_id in due:
                async with self._alone(class_id):
                    followed, is_moved = self._classes[class_id], due[class_id].placement > 1
                    if followed.alarmed.take("stated", STATED_AGAIN_S):
                        followed.stated.clear()
                    news += [
                        (class_id, statement)
                        for statement in decide.statements(status, now, followed.why, is_moved=is_moved)
                        if decide.is_news(statement, followed.stated.get(statement.event in decide.OF_SOURCE))
                    ]
        if news:
            async with isolated(self._host, Text("the platform's events of classes on air"), through=()):
                await changed(self._host, _stated([(due[class_id], statement) for class_id, statement in news]))
                for class_id, statement in news:
                    self._classes[class_id].stated[statement.event in decide.OF_SOURCE] = statement
                await publish_outbox(self._host)

    async def not_known(self, class_id: str, why: str) -> bool:
        """Note that the playout does not air a class, and why; False if the database did not take that."""
        is_noted = False
        async with self._alone(class_id):
            await self._alarm(class_id, errors.AIRING_BROKEN, why)
            is_noted = True
        return is_noted  # noqa: RET504 (an error that is kept leaves it as it was)

    def only(self, class_ids: Collection[str]) -> None:
        """Forget all classes but *class_ids*."""
        for class_id in self._classes.keys() - set(class_ids):
            del self._classes[class_id]

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
        if not self._host.playout.tell(class_id, f"{what}: {detail}"):
            log.info("%s: %s: %s", class_id, what, detail)
        await changed(self._host, _noted(class_id, what, detail))

    async def _look(self, class_id: str, event: Mapping[str, Any]) -> None:
        kind, followed = event["event"], self._classes[class_id]
        if kind in {"on_air", "slate", "back"}:
            self.news.set()
        if kind == "on_air":
            followed.off_since = None
            await changed(self._host, _on_air(class_id))
        elif kind == "broke_off":
            metrics.RECONNECTS.inc()
            followed.why = event["why"]
            airing = (await self._host.read_tx(airings.by_id, [class_id])).get(class_id)
            if airing is not None:
                # Since the start of the class if its first try failed soon after that.
                is_its_start = not event["was_on_air"] and event["at"] - airing.start_time < decide.NO_ANSWER_S
                if followed.off_since is None:
                    followed.off_since = airing.start_time if is_its_start else float(event["at"])
                await self._off(airing, event["at"])
        elif kind == "behind":
            text = Text(
                "it falls behind the clock, and {skipped_s:.0f} s of it were skipped", skipped_s=event["behind_s"]
            )
            why = labelled(text, Text("its receiver takes less than it is sent"))
            await self._alarm(class_id, errors.AIRING_BROKEN, why)
        elif kind == "fenced":
            followed.why = Text("its streamer held no lease")
        elif kind == "back":
            self._found_again(class_id)
        elif kind == "slate":
            followed.why = event["why"]
            await self._without_recording(class_id, event, has_slate=bool(event["slate"]))

    async def _without_recording(self, class_id: str, reported: Mapping[str, Any], *, has_slate: bool) -> None:
        """Raise the alarm that the recording of a class is missing, and have it downloaded again if that helps.

        Its playout opens the file before the class.
        """
        followed, why = self._classes[class_id], reported["why"]
        airing = (await self._host.read_tx(airings.by_id, [class_id])).get(class_id)
        has_begun = airing is None or airing.start_time <= time.time()
        sent = decide.without_recording(has_slate=has_slate, has_begun=has_begun)
        followed.lacks = labelled(sent, why or Text("no reason is known"))
        if followed.has_slate and not has_slate:  # it is worse than the last alarm said
            followed.alarmed.forget(str(errors.NO_RECORDING.number))
        followed.has_slate = has_slate
        if airing is not None and reported.get("wants_file") and followed.fetching is None:
            seen_at = float(reported.get("at") or time.time())
            followed.fetching = asyncio.create_task(self._fetch_again(airing, why, seen_at))
        await self._alarm(class_id, errors.NO_RECORDING, followed.lacks)

    def _found_again(self, class_id: str) -> None:
        followed = self._classes[class_id]
        followed.lacks = ""
        followed.alarmed.forget(str(errors.NO_RECORDING.number))  # if it is lost again, that is news
        if followed.fetching is not None and followed.fetching.done():
            followed.fetching = None

    async def _fetch_again(self, airing: Airing, why: str, seen_at: float) -> None:
        """Have the recording of a class on air downloaded again; the playout goes on with it when it is there.

        If the database takes nothing, it is asked for again until the end of the class: the playout says it only once.
        """
        followed, is_asked = self._classes[airing.class_id], False
        for tries in count():
            async with self._alone(airing.class_id):
                if not await downloads.redownload(self._host, airing.stem, why, seen_at=seen_at):
                    followed.fetching = None
                is_asked = True
            if is_asked or not followed.lacks or airing.end_time <= time.time():
                return
            await asyncio.sleep(backoff_s(tries))

    async def _off(self, airing: Airing, at: float) -> None:
        """Raise an alarm while there is time: the class should be on air, and its receiver takes nothing."""
        followed = self._classes[airing.class_id]
        if followed.off_since is None or airing.state not in LIVE_AIRINGS:  # it is on air, or over, by now
            return
        if at - max(followed.off_since, airing.start_time) >= decide.NOT_ON_AIR_S:
            text = Text("it is not on air: {reason}; it is tried again until its end", reason=followed.why)
            await self._alarm(airing.class_id, errors.AIRING_BROKEN, text)

    async def _lacking(self, airing: Airing) -> None:
        """Raise the alarm that the recording of a class is missing if the database did not take it when it was lost."""
        followed = self._classes[airing.class_id]
        is_alarmed = not followed.alarmed.due(str(errors.NO_RECORDING.number), math.inf)
        if followed.lacks and not is_alarmed:
            await self._alarm(airing.class_id, errors.NO_RECORDING, followed.lacks)

    async def _alarm(self, class_id: str, code: ErrorCode, why: str) -> None:
        alarmed, what = self._classes[class_id].alarmed, str(code.number)
        if not alarmed.due(what, ALARM_EVERY_S):
            return
        if (await changed(self._host, _alarm(class_id, code, why))).sends:
            alarmed.passes(what)
            await publish_outbox(self._host)


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
