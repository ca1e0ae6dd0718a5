"""The timetable page of a day with 10,000 classes, as a browser asks for it."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import httpx
import uvicorn
from sqlalchemy import Connection, insert, text
from starlette.applications import Starlette

from benchmarks.figures import Figure, quantile
from benchmarks.stand import Stand
from flows.host import TeacherHost
from flows.resident.page import COOKIE, Page
from lectern.db import schema, viewers
from lectern.db.engine import open_database, reading, transaction
from lectern.model.tables.teacher import journal, orders
from lectern.model.views import Sending, StreamerStatus
from lectern.page.view import DAY_S, begin_of_day
from lectern.settings import TeacherSettings
from lectern.states import BookingState
from town.ports import HOST, free_port

WHAT = (
    "`/` of a teacher that has 10,000 classes today: aired, on air, waiting, ready and refused,"
    " on four streamers. Its server runs in the process that asks; what the streamers say is given to it, as if Redis"
    " had just answered. The limit is a bare query of the same rows"
)
STREAMERS = 4
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
    """Half of the answers, and 95 of 100, are quicker."""
    number = 1000 if stand.quick else 10_000
    engine = open_database(f"sqlite:///{stand.folder()}/teacher.db")
    schema.upgrade(engine, "teacher")
    now = time.time()
    with transaction(engine) as connection:
        words = _fill(connection, number, now)
        tokens = [viewers.make(connection, f"viewer-{one}", None, now) for one in range(ASKS)]
    settings = TeacherSettings.load(transcode_sign_key="made up", teacher_name="teacher")
    host = TeacherHost(settings, engine, journal, cast("Any", Said(words)), cast("Any", None))
    with _served(Starlette(routes=Page(host).routes())) as url:
        took = [_asked(url, token) for token in tokens]
    with reading(engine) as connection:
        bare = min(_timed(lambda: connection.execute(_BARE).all()) for _ in range(5))
    engine.dispose()
    for share, name in ((0.5, "p50"), (0.95, "p95")):
        yield Figure(
            f"page, {number:,} classes: {name}",
            "s",
            quantile(took, share),
            limit=bare,
            more_is_better=False,
            goal="<= 0.3" if share > 0.9 else "",
        )


def _fill(connection: Connection, number: int, now: float) -> dict[str, StreamerStatus]:
    """Write the classes, spread over the day; returns what the streamers say of those that should be on air."""
    begins, rows = begin_of_day(now), []
    sendings: dict[str, dict[str, Sending]] = {f"streamer{one + 1}": {} for one in range(STREAMERS)}
    for one in range(number):
        class_id, streamer = f"c-{one}", f"streamer{one % STREAMERS + 1}"
        start = begins + one * DAY_S / number
        state = _state(one, start, now)
        if state is BookingState.READY and start < now:
            sendings[streamer][class_id] = Sending(True, since=start, position_s=now - start)
        rows.append(_row(class_id, streamer, state, start, now))
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


def _asked(url: str, token: str) -> float:
    """Seconds of an answer, from a browser that has its cookie."""
    with httpx.Client(base_url=url, timeout=60, follow_redirects=True) as client:
        client.get("/page.css").raise_for_status()  # which connects
        return _timed(lambda: client.get("/", headers={"cookie": f"{COOKIE}={token}"}).raise_for_status())


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextmanager
def _served(app: Starlette) -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    _until(lambda: server.started)
    try:
        yield f"http://{HOST}:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


def _until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end, "the page is not served"
        time.sleep(0.01)
