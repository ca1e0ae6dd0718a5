"""Classes are checked before their start, while there is time; the UI and the teacher get the status of all of them."""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from operator import attrgetter, itemgetter
from urllib.parse import urlsplit

from prefect.client.orchestration import PrefectClient
from sqlalchemy import Connection, true

from flows.artifacts import Board
from flows.failures import isolated
from flows.handling import apart, decision
from flows.host import StreamerHost, log
from flows.outbox_publisher import publish_outbox
from flows.streamer import bandwidth, downloads, prepare, recording_checks
from lectern import errors, formatting, health, metrics, urls
from lectern.db import account, airings, cache, forecast, incidents
from lectern.decide import account as decide_account
from lectern.decide import readiness as decide
from lectern.decide.airing import STORY
from lectern.decide.bandwidth import in_words
from lectern.decide.forecast import slowness, will_be_there
from lectern.decide.gaps import LOST_S
from lectern.decide.readiness import LATE_AFTER_S, LOOK_EVERY_S
from lectern.errors import Caught, TryAgain
from lectern.i18n import Text, joined, masked
from lectern.media import integrity
from lectern.model.facts import Airing, Cached, Usage
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.views import Sending, StreamerStatus
from lectern.settings import StreamerSettings
from lectern.states import AiringState, FileState
from lectern.storage import cache_dir
from lectern.urls import redact
from lectern.wire.fields import called, revised

REACH_S = 5.0
AHEAD_S = 86_400.0  # seconds ahead: the timetable shows the classes that begin within them
MOST_AHEAD = 200
"""Number of classes, those that begin first, for which each heartbeat says when their recordings will be there."""

AT_ONCE = 20  # number of push URLs of one server that are tried at the same time
LOOKS_S = 2 * REACH_S  # seconds until what was found is told; looks at what does not answer go on beside the next ones


_Checked = Sequence[tuple[Airing, Sequence[str]]]
"""Classes, each with the reasons why it is not ready, none if it is."""

_Look = asyncio.Task[tuple[list[str], str | None]]
"""A look at a class: why it is not ready, and why its file must be downloaded again, if it must."""


class Readiness:
    """The checks of one streamer; it forgets them when the process ends, and checks again after its start.

    Each class is checked by itself: an error in the check of a class is a red line of that class.
    """

    def __init__(self, host: StreamerHost, client: PrefectClient) -> None:
        self._host = host
        self._board = Board(client)
        self._live: dict[str, Airing] = {}
        self._since: dict[str, float] = {}
        self._done: dict[str, float] = {}
        self._looks: dict[str, _Look] = {}  # those under way
        self._gates = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(AT_ONCE))  # by push server
        self._reds: dict[str, list[str]] = {}
        self._unreadable: dict[str, str] = {}
        self._late: dict[str, str] = {}  # classes whose recordings will come too late, by the last forecast
        self._told_late: dict[str, Airing] = {}

    async def run(self) -> None:
        """Check what is due, and show how things stand."""
        while True:
            self._host.watchdog.beat("readiness")
            now = time.time()
            async with isolated(self._host, Text("readiness"), through=()):  # what can be checked is checked
                await self.foresee(now)
            await self.check(now)
            async with isolated(self._host, Text("dead air"), through=()):
                await recording_checks.warn(self._host)
            if self._is_red(now):
                self._host.ongoing[errors.NOT_READY_FOR_START.number] = time.monotonic()
            await self._show()
            await asyncio.sleep(LOOK_EVERY_S)

    async def check(self, now: float) -> None:
        """Begin the checks that are due at *now* (epoch seconds); tell what those found that have ended since."""
        host = self._host
        near = await host.read_tx(airings.live, now + AHEAD_S)
        live = {airing.class_id: airing for airing in near if airing.end_time > now}
        same = {class_id for class_id, airing in live.items() if _is_same(airing, self._live.get(class_id))}
        self._live = live
        self._since = {class_id: self._since.get(class_id, now) for class_id in live}
        self._done = {class_id: at for class_id, at in self._done.items() if class_id in same}
        self._reds = {class_id: why for class_id, why in self._reds.items() if class_id in same}
        for class_id in [id_ for id_, look in self._looks.items() if id_ not in same or look.cancelled()]:
            self._looks.pop(class_id).cancel()
            self._done.pop(class_id, None)
        await self._tell_unreadable()
        starts = {id_: live[id_].start_time for id_, at in self._since.items() if now - at >= LATE_AFTER_S}
        due = decide.checks_due(starts, now, self._done)
        await self._begin([class_id for class_id in due if class_id not in self._looks])
        self._done |= due
        if not self._looks:
            return
        before = {class_id: bool(reds) for class_id, reds in self._reds.items()} | dict.fromkeys(self._told_late, True)
        over, _ = await asyncio.wait(self._looks.values(), timeout=LOOKS_S)
        found = {class_id: look.result() for class_id, look in self._looks.items() if look in over}
        turned = {class_id for class_id, (reds, _) in found.items() if before.get(class_id) is not bool(reds)}
        await self._tell([(live[class_id], reds) for class_id, (reds, _) in found.items()], turned, now)
        for class_id, (reds, _) in found.items():
            self._reds[class_id] = reds
            del self._looks[class_id]
        for stem, reason in {live[class_id].stem: lost for class_id, (_, lost) in found.items() if lost}.items():
            async with isolated(host, Text("rendition {stem}", stem=stem), through=()):
                await downloads.redownload(host, stem, reason)

    async def foresee(self, now: float) -> None:
        """Forecast when recordings will be there; tell, once, of each class that begins before its own."""
        host = self._host
        waiting = await bandwidth.looked(host, forecast.waiting, host.settings, now, slowness(host.checks))
        host.ready_by = {class_id: at for class_id, (_, at) in islice(waiting.items(), MOST_AHEAD)}
        left_s = [airing.start_time - at for airing, at in waiting.values() if airing.start_time > now]
        metrics.FORECAST.set(min(left_s, default=math.nan))
        late: dict[str, str] = {
            class_id: will_be_there(airing.stem, at, airing.start_time, now)
            for class_id, (airing, at) in waiting.items()
            if airing.start_time > now and at > airing.start_time + LOST_S
        }
        new = [waiting[id_][0] for id_ in late if not _is_same(waiting[id_][0], self._told_late.get(id_))]
        for class_id in self._told_late.keys() - waiting.keys():  # what the next check finds is news
            self._reds.pop(class_id, None)
        self._late = late
        found = [(airing, [late[airing.class_id]]) for airing in new]
        await self._tell(found, {airing.class_id for airing in new}, now)
        self._told_late = {id_: it for id_, it in self._told_late.items() if id_ in waiting}
        self._told_late |= {airing.class_id: airing for airing in new}

    def _is_red(self, now: float) -> bool:
        """Whether a class that has not begun was not ready when it was last checked, or cannot be read."""
        coming = (class_id for class_id, airing in self._live.items() if airing.start_time > now)
        return bool(self._unreadable or self._late) or any(self._reds.get(class_id) for class_id in coming)

    async def _begin(self, due: Collection[str]) -> None:
        """Begin to look at the classes *due*."""
        skew_s: float | None = None
        with suppress(TryAgain):
            before = time.time()
            shared = await self._host.bus.now() if due else before
            skew_s = (before + time.time()) / 2 - shared
        for class_id in due:
            self._looks[class_id] = asyncio.create_task(self._look(class_id, skew_s))

    async def _look(self, class_id: str, skew_s: float | None) -> tuple[list[str], str | None]:
        with Caught() as failed:
            async with self._gates[urlsplit(self._live[class_id].push_url).netloc]:
                airing = self._live[class_id]
                if airing.state is AiringState.REFUSED:
                    return [Text("it was refused: {why}", why=airing.message)], None
                row = (await self._host.read_tx(cache.by_stem, [airing.stem])).get(airing.stem)
                seen = await self._seen(airing, row, skew_s)
                return decide.reds(seen, self._late.get(class_id)), decide.lost_file(seen)
        error = failed.error
        log.error("%s: its check failed: %r", class_id, error)
        why = Text("its check failed: {kind}: {error}", kind=type(error).__name__, error=error)
        return [masked(why, redact)], None

    async def _tell_unreadable(self) -> None:
        """Raise one alarm for each class whose row cannot be read: it is in no list, and would not be missed."""
        unreadable = await self._host.read_tx(airings.unreadable)
        if new := [item for item in unreadable.items() if item[0] not in self._unreadable]:
            await apart(self._host, new, _unread, itemgetter(0))
            await publish_outbox(self._host)
        self._unreadable = unreadable

    async def _tell(self, checked: _Checked, turned: Collection[str], now: float) -> None:
        """Tell of classes what was found at *now*; if one of them cannot be written, the others are all the same."""
        if checked:
            await apart(self._host, checked, lambda some: _told(some, turned, now), lambda its: its[0].class_id)
            await publish_outbox(self._host)

    async def _seen(self, airing: Airing, row: Cached | None, skew_s: float | None) -> decide.Seen:
        is_ready = airing.state is not AiringState.WAITING and row is not None and row.state is FileState.READY
        size: int | None = None
        damaged: str | None = None
        unreadable: str | None = None
        if row is not None and is_ready:
            path = cache_dir.rendition_path(self._host.settings.video_root, row.stem)
            try:
                await prepare.disk_answers(self._host)  # one that hangs takes no thread by which names are looked up
                size, damaged = await integrity.seen(path, row)
            except TryAgain as error:  # it says nothing of the file, which is not to be downloaded again for it
                size, unreadable = row.size_bytes, error.message
        allowed = await prepare.push_allowlist(self._host)  # first whether its host may be connected to at all
        unreachable = await health.unreachable(airing.push_url, timeout_s=REACH_S, allowed=allowed)
        if unreachable is None:
            url = urls.push(airing.push_url)
            unreachable = await self._host.playout.refusal(airing.push_url, allowed.of_server(url.host, url.port))
        return decide.Seen(
            state_ready=is_ready,
            num_cite=row.num_cite if row else 0,
            wanted_bytes=row.size_bytes if row else 0,
            found_bytes=size,
            unreadable=unreadable,
            damaged=damaged,
            unreachable=unreachable,
            skew_s=skew_s,
            lease=self._host.playout.held(),
        )

    # -- what the UI shows -----------------------------------------------------------------------------------------

    async def _show(self) -> None:
        name = self._host.settings.name
        day = [self._line(airing) for airing in sorted(self._live.values(), key=lambda airing: airing.start_time)]
        title = f"The next day of {name}: ▶ on air, ● checked and ready, ○ not yet, ✗ red"
        await self._board.table(f"timetable-{name}", day, title)
        rows = await self._host.read_tx(cache.where, true())
        bound = Usage(self._host.settings.max_bytes, self._host.settings.max_video_num)
        await self._board.table(f"cache-{name}", cache_lines(rows, bound), f"The cache of {name}")

    def _line(self, airing: Airing) -> dict[str, object]:
        late, why = self._late.get(airing.class_id), self._reds.get(airing.class_id)
        why = [late] if late and not why else why
        sign = "▶" if airing.state is AiringState.ON_AIR else "✗" if why else "●" if why is not None else "○"
        return {
            "ready": sign,
            "begins": time.strftime("%m-%d %H:%M:%S", time.localtime(airing.start_time)),
            "class": airing.class_id,
            "rendition": airing.stem,
            "state": airing.state,
            "why": "; ".join(why or ()),
        }


def _is_same(airing: Airing, before: Airing | None) -> bool:
    """Whether what was checked of a class *before* still counts: a change may have given it other values."""
    checked = attrgetter("start_time", "stem", "push_url")
    return before is not None and checked(airing) == checked(before)


@decision
def _told(_: Connection, changes: StreamerChanges, checked: _Checked, turned: Collection[str], now: float) -> None:
    """Note the checks, tell the teacher of the classes that have *turned*, raise an alarm for each that is red."""
    for airing, reds in checked:
        if is_class := revised(airing.class_id) is None:  # that of a revision is as ready as it was
            changes.note(account.NOT_READY if reds else account.CHECKED, airing, joined(reds))
            if airing.class_id in turned:
                changes.state(airing, "not_ready" if reds else "ready", changes.now, joined(reds))
        if reds:
            said = decide.sentence(called(airing.class_id), airing.stem, airing.start_time - now, reds)
            log.warning("%s", said)
            changes.alarm(errors.NOT_READY_FOR_START, said, airing, noted=not is_class)


@decision
def _unread(_: Connection, changes: StreamerChanges, unreadable: Sequence[tuple[str, str]]) -> None:
    for class_id, why in unreadable:
        said = Text("{why} Until then the class is not aired.", why=why)
        log.warning("%s", said)
        changes.raise_alarm(errors.NOT_READY_FOR_START, said, class_id=class_id)


def cache_lines(rows: Sequence[Cached], bound: Usage) -> list[dict[str, object]]:
    """The cache of a streamer as a table: what is used, reserved, pinned, evictable."""
    here = [row for row in rows if row.state is FileState.READY]
    idle = [row for row in here if row.num_cite <= 0]
    coming = [row for row in rows if row.state is FileState.DOWNLOADING]
    kinds = {"used": here, "reserved": coming, "pinned": [row for row in here if row.num_cite > 0], "evictable": idle}
    sums = {what: Usage(sum(row.size_bytes for row in some), len(some)) for what, some in kinds.items()}
    sums["bound (MAX_VIDEO_NUM, MAX_VIDEO_SIZE)"] = bound
    oldest = f"oldest evictable: {idle[0].stem}" if idle else "nothing is evictable"
    lines = [(what, its.num, formatting.size(its.size_bytes)) for what, its in sums.items()]
    return [{"what": what, "renditions": num, "size": size} for what, num, size in [*lines, (oldest, "", "")]]


SOON_S = 3600.0
ALARMS, CLASSES = 10, 20  # number of its newest open alarms that a streamer sends, and number of classes of each
AHEAD_EVERY_S = 60.0  # seconds between two looks at the next 24 hours, which may be thousands of classes


async def say(host: StreamerHost) -> None:
    """Send this streamer's status at each heartbeat, until cancelled."""
    coming: Mapping[str, Sequence[float]] = {}
    now_s, due = (0.0, 0.0), 0.0
    while True:
        host.watchdog.beat("word")
        settings = host.settings
        if time.monotonic() >= due:
            coming, due = await host.read_tx(ahead, time.time()), time.monotonic() + AHEAD_EVERY_S
            with suppress(TryAgain):  # the disk hangs, and the rest is said
                now_s = await bandwidth.looked(
                    host, forecast.booked_now_s, settings, time.time(), slowness(host.checks)
                )
        own = replace(await host.read_tx(word, settings, time.time()), ahead=coming, booked_now_s=now_s)
        own = replace(own, sendings=await _sent(host, own.sendings), dead_air=host.dead_air, ready_by=host.ready_by)
        own = replace(own, bandwidth=in_words(host.shares), network=host.network)
        await host.bus.say(settings.streamers_key, settings.name, own)
        await asyncio.sleep(settings.heartbeat_interval_s)


async def _sent(host: StreamerHost, due: Collection[str]) -> Mapping[str, Sending]:
    """What the playout says of the classes *due*, which should be on air."""
    try:
        answer = await host.playout.ask("status", active=True)
    except TryAgain as error:
        return {class_id: decide_account.without_playout(error.message) for class_id in due}
    now = time.time()
    sendings = dict.fromkeys(due, decide_account.NOT_IN_PLAYOUT)
    for status in answer["classes"]:
        if (class_id := status["class_id"]) in due:
            sending = decide_account.of_playout(status, now)
            if sending.gaps:
                events = await host.read_tx(account.story_events, class_id, STORY)
                sending = decide_account.of_playout(status, now, events)
            sendings[class_id] = sending
    return sendings


def ahead(connection: Connection, now: float) -> Mapping[str, Sequence[float]]:
    """What classes need of the cache in each of the next 24 hours."""
    return {decide_account.NEEDED: decide_account.cache_ahead(airings.needed(connection, now), now)}


def word(connection: Connection, settings: StreamerSettings, now: float) -> StreamerStatus:
    """The status of this streamer at *now* (epoch seconds)."""
    soon = [airing for airing in airings.live(connection, now + SOON_S) if airing.end_time > now]
    due = [airing for airing in soon if airing.start_time <= now]
    alarms = sorted(incidents.open_now(connection, settings.name), key=lambda alarm: -alarm.last_at)
    due_ids = [airing.class_id for airing in due]
    return StreamerStatus(
        at=now,
        sendings=dict.fromkeys(due_ids, Sending(on_air=False)),
        checks=account.checks(connection, [airing.class_id for airing in soon]),
        alarms=[replace(alarm, classes=alarm.classes[-CLASSES:]) for alarm in alarms[:ALARMS]],
        alarms_number=len(alarms),
        due=len(due),
        used=cache.used(connection, settings.video_root),
        bound=Usage(settings.max_bytes, settings.max_video_num),
    )
