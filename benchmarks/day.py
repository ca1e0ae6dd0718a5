"""The timetable page of a day with 10,000 classes, as a browser asks for it."""

import asyncio
import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import httpx
from sqlalchemy import Connection, insert, text
from starlette.applications import Starlette
from starlette.requests import Request

from benchmarks import recording, streamer
from benchmarks.figures import Figure, quantile, timed
from benchmarks.stand import Stand, served
from flows.host import TeacherHost
from flows.resident.page import COOKIE, Page
from flows.streamer.stills import StillServer
from lectern.db import leases, viewers
from lectern.db.engine import reading, transaction
from lectern.model.tables.teacher import orders
from lectern.model.views import Sending, StreamerStatus
from lectern.page.strip import MOST_BLOCKS, MOST_ROWS
from lectern.page.view import DAY_S, begin_of_day
from lectern.playout import keyframe_index
from lectern.settings import TeacherSettings
from lectern.states import BookingState
from tests import laid

WHAT = (
    "`/` of a teacher that has 10,000 classes today: aired, on air, waiting, ready and refused,"
    " on four streamers. Its server runs in the process that asks; what the streamers say is given to it, as if Redis"
    " had just answered. The limit is a bare query of the same rows. Then the strip of 500 classes on 50 streamers; and"
    " a streamer of 50 classes at whose pictures somebody looks, all of them every ten seconds, for a minute: its own"
    " processor and its children's, a part of a core"
)
STREAMERS = 4
STILLS = 50
LOOKED_S, LOOK_S = 60.0, 10.0
"""Seconds for which somebody looks, and between two looks."""

ASKS = 100
_BARE = text("select * from order_list order by start_time")


class Said:
    """Stands for Redis: what the streamers said last."""

    def __init__(self, words: Mapping[str, StreamerStatus]) -> None:
        self._words = words

    async def words(self, *_: object) -> Mapping[str, StreamerStatus]:
        """All of them."""
        return self._words


def measure(stand: Stand) -> Iterator[Figure]:
    """Half of the answers, and 95 of 100, are quicker; what the strip and the stills cost."""
    number = 1000 if stand.quick else 10_000
    took, bare, _ = _took(stand.folder(), lambda connection, now: _fill(connection, number, now))
    for share, name in ((0.5, "p50"), (0.95, "p95")):
        yield Figure(
            f"page, {number:,} classes: {name}",
            "s",
            quantile(took, share),
            limit=bare,
            more_is_better=False,
            goal="<= 0.3" if share > 0.9 else "",
        )
    took, _, size_bytes = _took(stand.folder(), _fill_strip)
    strip = f"page, {MOST_BLOCKS} classes on {MOST_ROWS} streamers in the strip"
    yield Figure(f"{strip}: p95", "s", quantile(took, 0.95), more_is_better=False, goal="<= 0.3")
    yield Figure(f"{strip}: size", "kB", size_bytes / 1000, more_is_better=False, goal="<= 300")
    looked_s = LOOKED_S / 3 if stand.quick else LOOKED_S
    looked, idle, missed = asyncio.run(_stills(stand.folder(), looked_s))
    note = f"{missed} answers without a picture" if missed else ""
    name = f"page, stills of {STILLS} classes"
    yield Figure(f"{name} in a minute: CPU", "% of a core", looked, more_is_better=False, goal="<= 5", note=note)
    yield Figure(f"{name}, nobody looks: CPU", "% of a core", idle, more_is_better=False, compares=False)


def _took(
    folder: Path, fill: Callable[[Connection, float], Mapping[str, StreamerStatus]]
) -> tuple[list[float], float, int]:
    """Seconds of each answer, of a bare query of the same rows, and the bytes of an answer."""
    engine = laid.opened("teacher", folder / "teacher.db")
    now = time.time()
    with transaction(engine) as connection:
        words = fill(connection, now)
        tokens = [viewers.make(connection, f"viewer-{one}", None, now) for one in range(ASKS)]
    settings = TeacherSettings.load(transcode_sign_key="made up", teacher_name="teacher")
    host = TeacherHost(settings, engine, cast("Any", Said(words)), cast("Any", None))
    with served(Starlette(routes=Page(host).routes())) as url:
        answers = [_asked(url, token) for token in tokens]
    with reading(engine) as connection:
        bare = min(timed(lambda: connection.execute(_BARE).all()) for _ in range(5))
    engine.dispose()
    return [took for took, _ in answers], bare, answers[-1][1]


def _fill_strip(connection: Connection, now: float) -> dict[str, StreamerStatus]:
    """As many classes and streamers as the strip draws, an eighth of them on air."""
    rows, sendings = [], dict[str, dict[str, Sending]]()
    for one in range(MOST_BLOCKS):
        class_id, name = f"c-{one}", f"streamer{one % MOST_ROWS + 1}"
        start = now - 7200 + one // MOST_ROWS * 2880
        is_over, theirs = start + 2700 < now, sendings.setdefault(name, {})
        if start < now and not is_over:
            theirs[class_id] = Sending(True, since=start, position_s=now - start)
        rows.append(_row(class_id, name, BookingState.AIRED if is_over else BookingState.READY, start, now))
    connection.execute(insert(orders), rows)
    return {name: StreamerStatus(now, theirs, {}, [], 0, len(theirs)) for name, theirs in sendings.items()}


class Airing:
    """Stands for the playout: it airs STILLS classes, each at another place of one recording."""

    def __init__(self, recording: Path) -> None:
        names = [f"c-{one}" for one in range(STILLS)]
        self.confirmed = {name: {"file": str(recording)} for name in names}
        self._aired = [{"class_id": name, "state": "on_air", "slate": False} for name in names]

    async def ask(self, *_: object, **__: object) -> dict[str, Any]:
        """Its classes, which go on."""
        return {"classes": [one | {"position_s": (time.time() + at) % 60} for at, one in enumerate(self._aired)]}


async def _stills(folder: Path, looked_s: float) -> tuple[float, float, int]:
    """What a streamer takes of a core, while somebody looks for *looked_s* seconds, and then while nobody does.

    And how many answers had no picture, because a busy machine was not quick enough.
    """
    path = recording.make(folder / "lesson.flv", 60, preset="ultrafast")
    keyframe_index.write(keyframe_index.look(path), keyframe_index.path_of(path))
    with streamer.host(folder, 1000) as host:
        host.playout = cast("Any", Airing(path))
        with transaction(host.engine) as connection:
            leases.hold(connection, host.settings.name, "s-1", time.time())
        server, asked = StillServer(host), {"type": "http", "headers": [(b"authorization", b"Bearer s-1")]}
        requests = [Request({**asked, "path_params": {"class_id": f"c-{one}"}}) for one in range(STILLS)]
        began, missed, until = _cpu_s(), 0, time.monotonic() + looked_s
        while time.monotonic() < until:
            begun = time.monotonic()
            answers = await asyncio.gather(*map(server.answer, requests))
            missed += sum(one.status_code != 200 for one in answers)
            await asyncio.sleep(max(LOOK_S - (time.monotonic() - begun), 0.0))
        looked, began = _cpu_s() - began, _cpu_s()
        await asyncio.sleep(looked_s / 3)
        return 100 * looked / looked_s, 100 * (_cpu_s() - began) / (looked_s / 3), missed


def _cpu_s() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)


def _fill(connection: Connection, number: int, now: float) -> dict[str, StreamerStatus]:
    """Write the classes, spread over the day; returns what the streamers say of those that should be on air."""
    begins, rows = begin_of_day(now), []
    sendings: dict[str, dict[str, Sending]] = {f"streamer{one + 1}": {} for one in range(STREAMERS)}
    for one in range(number):
        class_id, name = f"c-{one}", f"streamer{one % STREAMERS + 1}"
        start = begins + one * DAY_S / number
        state = _state(one, start, now)
        if state is BookingState.READY and start < now:
            sendings[name][class_id] = Sending(True, since=start, position_s=now - start)
        rows.append(_row(class_id, name, state, start, now))
    connection.execute(insert(orders), rows)
    return {name: StreamerStatus(now, theirs, {}, [], 0, len(theirs)) for name, theirs in sendings.items()}


def _state(one: int, start: float, now: float) -> BookingState:
    if one % 50 == 0:
        return BookingState.REFUSED
    if start + 2700 < now:
        return BookingState.AIRED
    return BookingState.WAITING if start > now and one % 10 == 0 else BookingState.READY


def _row(class_id: str, streamer: str, state: BookingState, start: float, now: float) -> dict[str, object]:
    url = f"http://127.0.0.1/{class_id}.flv"
    payload = {"cmd": "order", "class_id": class_id, "push_url": f"rtmp://127.0.0.1/live/{class_id}", "video_url": url}
    refused = state is BookingState.REFUSED
    return {
        "class_id": class_id,
        "institution_id": "i-7",
        "record_id": 6666,
        "resolution": "720P",
        "start_time": start,
        "end_time": start + 2700,
        "payload": json.dumps(payload),
        "state": state,
        "code": 207 if refused else None,
        "message": "the transcoding took too long" if refused else None,
        "streamer": None if state is BookingState.WAITING else streamer,
        "received_at": now - 90_000,
        "updated_at": now - 90_000,
    }


def _asked(url: str, token: str) -> tuple[float, int]:
    """Seconds and bytes of an answer, from a browser that has its cookie."""
    with httpx.Client(base_url=url, timeout=60, follow_redirects=True) as client:
        client.get("/page.css").raise_for_status()  # which connects
        began = time.perf_counter()
        answer = client.get("/", headers={"cookie": f"{COOKIE}={token}"}).raise_for_status()
        return time.perf_counter() - began, len(answer.content)
