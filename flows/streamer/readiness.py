"""Classes are checked before their start, while there is time; the UI shows the day and the cache."""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from prefect.client.orchestration import PrefectClient
from sqlalchemy import Connection

from flows.artifacts import Board
from flows.failures import isolated
from flows.handling import apart
from flows.host import StreamerHost, log
from flows.outbox_publisher import publish_outbox
from flows.streamer import downloads, push_hosts
from lectern import errors, formatting, urls
from lectern.db import account, airings, cache, events, outbox
from lectern.decide import readiness as decide
from lectern.decide.readiness import LATE_AFTER_S, LOOK_EVERY_S
from lectern.errors import TryAgain
from lectern.i18n import Text, joined
from lectern.media import integrity, push_target
from lectern.model.facts import Airing, Cached, Event, Usage
from lectern.model.streamer_plan import StreamerChanges
from lectern.states import AiringState, FileState
from lectern.storage import cache_dir
from lectern.urls import redact

REACH_S = 5.0
AHEAD_S = 86_400.0
"""Seconds ahead: the timetable shows the classes that begin within them."""

AT_ONCE = 20
"""Number of push URLs that are tried at the same time."""


@dataclass(frozen=True)
class _Red:
    """An alarm to be raised for a class, and its text."""

    class_id: str
    record_id: int | None
    said: str


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
        self._reds: dict[str, list[str]] = {}
        self._unreadable: dict[str, str] = {}

    async def run(self) -> None:
        """Check what is due, and show how things stand."""
        while True:
            self._host.watchdog.beat("readiness")
            now = time.time()
            await self.check(now)
            if self._is_red(now):
                self._host.ongoing[errors.NOT_READY_FOR_START.number] = time.monotonic()
            await self._show(self._live, now)
            await asyncio.sleep(LOOK_EVERY_S)

    async def check(self, now: float) -> None:
        """Check the classes whose check is due at *now* (epoch seconds), and raise alarms for those that are red."""
        host = self._host
        near = await host.read_tx(airings.live, now + AHEAD_S)
        live = {one.class_id: one for one in near if one.end_time > now}
        same = {class_id for class_id, one in live.items() if _is_same(one, self._live.get(class_id))}
        self._live = live
        self._since = {class_id: self._since.get(class_id, now) for class_id in live}
        self._done = {class_id: at for class_id, at in self._done.items() if class_id in same}
        self._reds = {class_id: why for class_id, why in self._reds.items() if class_id in same}
        await self._tell_unreadable(now)
        known = {
            class_id: live[class_id].start_time for class_id, at in self._since.items() if now - at >= LATE_AFTER_S
        }
        due = decide.checks_due(known, now, self._done)
        if not due:
            return
        lost_files: dict[str, str] = {}
        looked = [live[class_id] for class_id in due]
        before = {class_id: bool(reds) for class_id, reds in self._reds.items()}
        self._reds |= await self._look(looked, lost_files)
        turned = {class_id for class_id in due if before.get(class_id) is not bool(self._reds[class_id])}
        await host.write_tx(_note, host, [(one, self._reds[one.class_id]) for one in looked], turned, now)
        await publish_outbox(host)
        red = [
            _Red(one.class_id, one.record_id, decide.sentence(one.class_id, one.stem, one.start_time - now, why))
            for one in looked
            if (why := self._reds[one.class_id])
        ]
        await self._alarm(red, now)
        self._done |= due
        for stem, found in lost_files.items():
            async with isolated(host, f"rendition {stem}", through=()):
                await downloads.redownload(host, stem, found)

    def _is_red(self, now: float) -> bool:
        """Whether a class that has not begun was not ready when it was last checked, or cannot be read."""
        coming = (class_id for class_id, one in self._live.items() if one.start_time > now)
        return bool(self._unreadable) or any(self._reds.get(class_id) for class_id in coming)

    async def _look(self, due: Sequence[Airing], lost_files: dict[str, str]) -> dict[str, list[str]]:
        """Why each class is not ready; adds to *lost_files* the renditions that must be downloaded again, and why."""
        rows = await self._host.read_tx(cache.by_stem, {one.stem for one in due})
        skew_s = await self._skew()
        gate = asyncio.Semaphore(AT_ONCE)

        async def look(one: Airing) -> list[str]:
            async with gate:
                if one.state is AiringState.REFUSED:
                    return [Text("it was refused: {why}", why=one.message)]
                seen = await self._seen(one, rows.get(one.stem), skew_s)
                if (why := decide.lost_file(seen)) is not None:
                    lost_files[one.stem] = why
                return decide.reds(seen)

        found = await asyncio.gather(*(look(one) for one in due), return_exceptions=True)
        return {one.class_id: _reds(one, why) for one, why in zip(due, found, strict=True)}

    async def _tell_unreadable(self, now: float) -> None:
        """Raise one alarm for each class whose row cannot be read: it is in no list, and would not be missed."""
        found = await self._host.read_tx(airings.unreadable)
        new = [_Red(class_id, None, f"{why} Until then the class is not aired.") for class_id, why in found.items()]
        await self._alarm([one for one in new if one.class_id not in self._unreadable], now)
        self._unreadable = found

    async def _alarm(self, red: Sequence["_Red"], now: float) -> None:
        """Raise an alarm for each class; if one of them cannot be written, the others are raised all the same."""
        if red:
            await apart(red, lambda some: self._host.write_tx(_put, self._host, some, now), lambda one: one.class_id)
            await publish_outbox(self._host)

    async def _seen(self, one: Airing, row: Cached | None, skew_s: float | None) -> decide.Seen:
        size, unreadable, damaged = await self._file(one.stem, row)
        return decide.Seen(
            state_ready=one.state is not AiringState.WAITING and row is not None and row.state is FileState.READY,
            num_cite=row.num_cite if row else 0,
            wanted_bytes=row.size_bytes if row else 0,
            found_bytes=size,
            unreadable=unreadable,
            damaged=damaged,
            unreachable=await self._unreachable(one.push_url),
            skew_s=skew_s,
            lease=self._host.playout.held(),
        )

    async def _file(self, stem: str, row: Cached | None) -> tuple[int | None, str | None, str | None]:
        """The size of a file, why it cannot be read, and why it is not what was downloaded; see `decide.Seen`."""
        path = cache_dir.rendition_path(self._host.settings.video_root, stem)
        try:
            size, unreadable = await asyncio.to_thread(cache_dir.readable, path)
            is_whole = row is not None and size == row.size_bytes
            return size, unreadable, await integrity.quick_trouble(path, row) if row is not None and is_whole else None
        except TryAgain as error:  # it says nothing of the file, which is not to be downloaded again for it
            return row.size_bytes if row is not None else None, error.message, None

    async def _unreachable(self, push_url: str) -> str | None:
        """Why the class could not be pushed; first checks that its host may be connected to at all."""
        allowed = await push_hosts.allowed(self._host)
        why = await push_target.unreachable(push_url, timeout_s=REACH_S, allowed=allowed)
        if why is not None:
            return why
        url = urls.push(push_url)
        return await self._host.playout.refusal(push_url, allowed.of_server(url.host, url.port))

    async def _skew(self) -> float | None:
        try:
            before = time.time()
            shared = await self._host.bus.now()
            return (before + time.time()) / 2 - shared
        except TryAgain:
            return None

    # -- what the UI shows -----------------------------------------------------------------------------------------

    async def _show(self, live: Mapping[str, Airing], now: float) -> None:
        name = self._host.settings.name
        day = [self._line(one) for one in sorted(live.values(), key=lambda one: one.start_time)]
        said = f"The next day of {name}: ▶ on air, ● checked and ready, ○ not yet, ✗ red"
        await self._board.table(f"timetable-{name}", day, said)
        rows = await self._host.read_tx(cache.everything)
        bound = Usage(self._host.settings.max_bytes, self._host.settings.max_video_num)
        await self._board.table(f"cache-{name}", cache_lines(rows, bound), f"The cache of {name}")

    def _line(self, one: Airing) -> dict[str, object]:
        why = self._reds.get(one.class_id)
        sign = "▶" if one.state is AiringState.ON_AIR else "✗" if why else "●" if why is not None else "○"
        return {
            "ready": sign,
            "begins": time.strftime("%m-%d %H:%M:%S", time.localtime(one.start_time)),
            "class": one.class_id,
            "rendition": one.stem,
            "state": one.state,
            "why": "; ".join(why or ()),
        }


def _is_same(one: Airing, before: Airing | None) -> bool:
    """Whether what was checked of a class *before* still counts: a change may have given it other values."""
    checked = attrgetter("start_time", "stem", "push_url")
    return before is not None and checked(one) == checked(before)


def _reds(one: Airing, found: list[str] | BaseException) -> list[str]:
    if isinstance(found, list):
        return found
    log.error("%s: its check failed: %r", one.class_id, found)
    return [Text("its check failed: {kind}: {error}", kind=type(found).__name__, error=found).masked(redact)]


def _note(
    connection: Connection,
    host: StreamerHost,
    checked: Sequence[tuple[Airing, Sequence[str]]],
    turned: Collection[str],
    now: float,
) -> None:
    """Note the checks, and tell the teacher of the classes that have *turned* ready, or not ready."""
    noted = [
        Event(account.NOT_READY if reds else account.CHECKED, one.class_id, one.stem, "; ".join(reds))
        for one, reds in checked
    ]
    events.note(connection, host.journal, host.settings.name, noted, now)
    changes = StreamerChanges(host.settings, now)
    for one, reds in checked:
        if one.class_id in turned:
            changes.state(one, "not_ready" if reds else "ready", now, joined(reds))
    outbox.put(connection, host.journal, changes.sends, now)


def _put(connection: Connection, host: StreamerHost, red: Sequence[_Red], now: float) -> None:
    for one in red:
        log.warning("%s", one.said)
        code = errors.NOT_READY_FOR_START
        alarm = host.alarm(code, one.said, now, class_id=one.class_id, record_id=one.record_id)
        outbox.put(connection, host.journal, [alarm], now)


def cache_lines(rows: Sequence[Cached], bound: Usage) -> list[dict[str, object]]:
    """The cache of a streamer as a table: what is used, reserved, pinned, evictable."""
    here = [one for one in rows if one.state is FileState.READY]
    idle = [one for one in here if one.num_cite <= 0]
    sums = {
        "used": here,
        "reserved": [one for one in rows if one.state is FileState.DOWNLOADING],
        "pinned": [one for one in here if one.num_cite > 0],
        "evictable": idle,
    }
    found: list[dict[str, object]] = [
        {"what": what, "renditions": len(some), "size": formatting.size(sum(one.size_bytes for one in some))}
        for what, some in sums.items()
    ]
    oldest = f"oldest evictable: {idle[0].stem}" if idle else "nothing is evictable"
    return [
        *found,
        {
            "what": "bound (MAX_VIDEO_NUM, MAX_VIDEO_SIZE)",
            "renditions": bound.num,
            "size": formatting.size(bound.size_bytes),
        },
        {"what": oldest, "renditions": "", "size": ""},
    ]
