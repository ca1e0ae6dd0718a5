"""Classes are checked before their start, while there is time; the UI shows the day and the cache."""

import asyncio
import time
from collections.abc import Mapping

from prefect.client.orchestration import PrefectClient
from redis.exceptions import RedisError
from sqlalchemy import Connection

from flows import board
from flows.board import Board
from flows.host import Host, log, tell
from lectern import errors
from lectern.decide import readiness as decide
from lectern.effects import airings, bookings, cache, outbox, outgoing, reach, store
from lectern.effects.airings import Airing
from lectern.effects.cache import Cached
from lectern.settings import StreamerSettings, TeacherSettings
from lectern.states import AiringState, FileState

Streamer = Host[StreamerSettings]
LOOK_EVERY_S = 15.0
REACH_S = 5.0
AT_ONCE = 20
"""So many push URLs are tried at the same time."""

GRACE_S = 30.0
"""A class that was just booked is given so long to get ready before it is called late."""

AHEAD_S = 86_400.0
"""The timetable shows the classes of the next day."""


class Readiness:
    """The checks of one streamer; what was checked is forgotten at its end, and checked again after its start."""

    def __init__(self, host: Streamer, client: PrefectClient) -> None:
        self._host = host
        self._board = Board(client)
        self._since: dict[str, float] = {}
        self._done: dict[str, float] = {}
        self._reds: dict[str, list[str]] = {}

    async def run(self) -> None:
        """Check what is due, and show how things stand."""
        while True:
            now = time.time()
            live = {one.class_id: one for one in await self._host.look(airings.live) if one.end_time > now}
            self._since = {class_id: self._since.get(class_id, now) for class_id in live}
            self._done = {class_id: at for class_id, at in self._done.items() if class_id in live}
            self._reds = {class_id: why for class_id, why in self._reds.items() if class_id in live}
            await self._check(live, now)
            await self._show(live, now)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _check(self, live: Mapping[str, Airing], now: float) -> None:
        due: dict[str, float] = {}
        for class_id, one in live.items():
            check = decide.check_due(one.start_time, now, self._done.get(class_id))
            if check is not None and now - self._since[class_id] >= GRACE_S:
                due[class_id] = check
        if not due:
            return
        rows = await self._host.look(cache.by_stem, {live[class_id].stem for class_id in due})
        skew_s = await self._skew()
        gate = asyncio.Semaphore(AT_ONCE)

        async def look(one: Airing) -> decide.Seen:
            async with gate:
                return await self._seen(one, rows.get(one.stem), skew_s)

        seen = await asyncio.gather(*(look(live[class_id]) for class_id in due))
        for class_id, found in zip(due, seen, strict=True):
            self._reds[class_id] = decide.reds(found)
        self._done |= due
        if red := [live[class_id] for class_id in due if self._reds[class_id]]:
            await self._host.commit(self._cry, red, now)
            await tell(self._host)

    async def _seen(self, one: Airing, row: Cached | None, skew_s: float | None) -> decide.Seen:
        path = store.rendition_path(self._host.settings.video_root, one.stem)
        size, unreadable = await asyncio.to_thread(store.readable, path)
        return decide.Seen(
            state_ready=one.state is not AiringState.WAITING and row is not None and row.state is FileState.READY,
            num_cite=row.num_cite if row else 0,
            wanted_bytes=row.size_bytes if row else 0,
            found_bytes=size,
            unreadable=unreadable,
            unreachable=await reach.unreachable(one.push_url, timeout_s=REACH_S),
            skew_s=skew_s,
            lease=self._host.fence.held(),
        )

    async def _skew(self) -> float | None:
        try:
            before = time.time()
            shared = await self._host.bus.now()
            return (before + time.time()) / 2 - shared
        except (RedisError, OSError):
            return None

    def _cry(self, connection: Connection, red: list[Airing], now: float) -> None:
        for one in red:
            said = decide.sentence(one.class_id, one.stem, one.start_time - now, self._reds[one.class_id])
            log.warning("%s", said)
            made = outgoing.alarm(
                errors.NOT_READY_FOR_START,
                said,
                now,
                self._host.settings.name,
                class_id=one.class_id,
                record_id=one.record_id,
            )
            outbox.put(connection, self._host.journal, [self._host.alarm(made)], now)

    # -- what the UI shows -----------------------------------------------------------------------------------------

    async def _show(self, live: Mapping[str, Airing], now: float) -> None:
        name = self._host.settings.name
        near = sorted((one for one in live.values() if one.start_time < now + AHEAD_S), key=lambda one: one.start_time)
        day = [self._line(one) for one in near]
        said = f"The next day of {name}: ● checked and ready, ○ not yet, ✗ red"
        await self._board.table(f"timetable-{name}", day, said)
        rows = await self._host.look(cache.everything)
        bound = self._host.settings.max_bytes
        await self._board.table(f"cache-{name}", _cache_lines(rows, bound), f"The cache of {name}")
        await board.show_cache(self._board, name, list(live.values()), rows, bound, now)

    def _line(self, one: Airing) -> dict[str, object]:
        why = self._reds.get(one.class_id)
        sign = "✗" if why else "●" if why is not None else "○"
        return {
            "ready": sign,
            "begins": time.strftime("%m-%d %H:%M:%S", time.localtime(one.start_time)),
            "class": one.class_id,
            "rendition": one.stem,
            "state": one.state,
            "why": "; ".join(why or ()),
        }


async def teacher_checks(host: Host[TeacherSettings], client: PrefectClient) -> None:
    """Classes that no streamer has yet are called late by their teacher."""
    done: dict[str, float] = {}
    shown = Board(client)
    while True:
        now = time.time()
        unready = {
            one.class_id: one for one in await host.look(bookings.unready, now - GRACE_S, now, now + decide.CHECKS_S[0])
        }
        done = {class_id: at for class_id, at in done.items() if class_id in unready}
        due = {
            class_id: check
            for class_id, one in unready.items()
            if (check := decide.check_due(one.start_time, now, done.get(class_id))) is not None
        }
        done |= due
        if due:
            await host.commit(_cry_of_teacher, host, [unready[class_id] for class_id in due], now)
            await tell(host)
        await board.show_bookings(shown, host, now)
        await asyncio.sleep(LOOK_EVERY_S)


def _cry_of_teacher(
    connection: Connection, host: Host[TeacherSettings], late: list[bookings.Order], now: float
) -> None:
    for one in late:
        why = f"{one.streamer} does not have it yet" if one.streamer else "it is not made yet"
        said = decide.sentence(one.class_id, one.stem, one.start_time - now, [why])
        log.warning("%s", said)
        cry = outgoing.alarm(
            errors.NOT_READY_FOR_START,
            said,
            now,
            host.settings.name,
            class_id=one.class_id,
            record_id=one.record_id,
            resolution=one.resolution,
        )
        outbox.put(connection, host.journal, [host.alarm(cry)], now)


def _cache_lines(rows: list[Cached], bound: int) -> list[dict[str, object]]:
    here = [one for one in rows if one.state is FileState.READY]
    idle = [one for one in here if one.num_cite <= 0]
    sums = {
        "used": here,
        "reserved": [one for one in rows if one.state is FileState.DOWNLOADING],
        "pinned": [one for one in here if one.num_cite > 0],
        "evictable": idle,
    }
    found: list[dict[str, object]] = [
        {"what": what, "renditions": len(some), "bytes": sum(one.size_bytes for one in some)}
        for what, some in sums.items()
    ]
    oldest = f"oldest evictable: {idle[0].stem}" if idle else "nothing is evictable"
    return [
        *found,
        {"what": "bound", "renditions": "", "bytes": bound},
        {"what": oldest, "renditions": "", "bytes": ""},
    ]
