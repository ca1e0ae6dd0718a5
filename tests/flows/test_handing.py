"""The playout airs what the rows say, whatever was lost on the way, and what it sent is told."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from sqlalchemy import Connection, select, update

from flows import failures
from flows.host import StreamerHost
from flows.streamer import playout_events, playout_sync
from flows.streamer.playout_sync import PlayoutSync
from lectern.db.engine import transaction
from lectern.decide import gaps
from lectern.model.facts import AsRun
from lectern.model.tables.streamer import classes, journal
from lectern.model.views import EventView
from lectern.playout import kernel
from lectern.storage import cache_dir
from tests import rows
from tests.playout import flvs
from tests.playout.receiver import Receiver
from tests.playout.stage import Playout
from tests.waiting import async_wait_until

pytestmark = pytest.mark.live


@pytest.fixture
def streamer(streamer: StreamerHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StreamerHost:
    """A streamer that holds its lease; what it sends stays in its outbox."""
    for module in (playout_events, playout_sync, failures):
        monkeypatch.setattr(module, "publish_outbox", rows.unsent)
    places = {"playout_dir": tmp_path / "p", "playout_socket": tmp_path / "p/s", "slate": None}
    streamer.settings = streamer.settings.model_copy(update={**places, "allowed_push_hosts": "127.0.0.1"})
    streamer.playout.until = kernel.boot_now() + 600
    return streamer


@pytest.fixture
def playout(streamer: StreamerHost) -> Iterator[Playout]:
    with Playout(streamer.settings.playout_dir) as found:
        yield found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as found:
        yield found


def book(host: StreamerHost, class_id: str, url: str, *, starts_in_s: float = 60, length_s: float = 60) -> float:
    """A class, and its recording of a minute; returns when it begins."""
    path = cache_dir.rendition_path(host.settings.video_root, "1")
    path.parent.mkdir(exist_ok=True)
    if not path.exists():  # the playout may read it
        flvs.write(path, flvs.lesson(60))
    start = time.time() + starts_in_s
    with transaction(host.engine) as connection:
        rows.bare(connection, class_id, start, end_time=start + length_s, push_url=url)
        connection.execute(update(classes).values(video_id="1"))
    return start


@asynccontextmanager
async def kept(host: StreamerHost) -> AsyncIterator[PlayoutSync]:
    """A resident that keeps its playout in step; at the end it is gone as if killed."""
    ours = PlayoutSync(host)
    works = [asyncio.create_task(one) for one in (ours.run(), ours.keep_in_step())]
    try:
        await async_wait_until(lambda: host.playout.why is None, description="the playout answers")
        yield ours
    finally:
        for one in works:
            one.cancel()
        await asyncio.wait(works)


async def becomes(host: StreamerHost, *states: str) -> None:
    """Wait until the class c is so."""
    await async_wait_until(lambda: rows.state_of(host, "c") in states, description=f"it is {' or '.join(states)}")


async def test_a_change_that_the_playout_lost_is_corrected_at_the_next_beat(
    streamer: StreamerHost, playout: Playout
) -> None:
    """Whoever wrote over the timetable, or whatever the worker has: the versions are compared."""
    async with kept(streamer):
        book(streamer, "c", "rtmp://127.0.0.1/live/c")
        assert await streamer.playout.in_force(20)
        playout.hand_over()  # a timetable without a class, as the test's own
        await async_wait_until(lambda: playout.ask("status")["classes"], description="it is known again")


@pytest.mark.usefixtures("playout")
async def test_a_long_connection_is_no_standstill(streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a streamer is not ready a minute after its playout was there, and its next rollout ends."""
    monkeypatch.setattr(playout_sync, "LOOK_EVERY_S", 0.1)
    async with kept(streamer):
        begun = streamer.watchdog._at["playout"]
        await async_wait_until(
            lambda: streamer.watchdog._at["playout"] > begun + 0.3, description="the loop goes on with its rounds"
        )


async def test_a_disk_that_takes_nothing_keeps_no_class_from_being_aired(
    streamer: StreamerHost, receiver: Receiver
) -> None:
    """The timetable goes through memory then; only a restart of the playout would not find it."""
    (streamer.settings.playout_dir / "timetable.jsonl/in the way").mkdir(parents=True)
    with Playout(streamer.settings.playout_dir):
        async with kept(streamer):
            start = book(streamer, "c", receiver.url("c"), starts_in_s=3)
            assert await streamer.playout.in_force(20)
            assert streamer.playout.confirmed["c"]["start"] == start
            await async_wait_until(lambda: receiver.of("c"), description="it is on air")


async def test_what_was_sent_before_a_timetable_was_lost_is_told(
    streamer: StreamerHost, receiver: Receiver, playout: Playout
) -> None:
    """The worker cannot read it, ends the class, and airs it again when the resident has written the timetable anew."""
    async with kept(streamer):
        book(streamer, "c", receiver.url("c"), starts_in_s=0, length_s=14)
        await becomes(streamer, "on air")
        seen_at = time.time()
        await async_wait_until(lambda: playout.status("c")["sent_s"] > 4, description="it was sent for a while")
        (playout.folder / "timetable.jsonl").write_text("{")
        os.kill(playout.worker(), signal.SIGKILL)
        await becomes(streamer, "aired", "aired with gaps")
    (said,) = rows.said(streamer, "ended")
    assert min(part["begins"] for part in said["as_run"]) <= seen_at


async def test_the_story_of_a_class_that_is_cut_twice_goes_to_its_teacher_with_its_end(
    streamer: StreamerHost, receiver: Receiver, playout: Playout
) -> None:
    """Once by the server, which then refuses it, and once because the playout dies: each gap has its reason."""
    async with kept(streamer):
        start = book(streamer, "c", receiver.url("c"), starts_in_s=2, length_s=30.0)
        await becomes(streamer, "on air")
        receiver.refuse_publish = "NetStream.Publish.Denied"
        receiver.of("c")[0].cut()
        refused = select(journal.events.c.id).where(journal.events.c.what == "push refused")
        noted = lambda: rows.look(streamer.engine, Connection.execute, refused).all()  # noqa: E731
        await async_wait_until(noted, description="it is refused, and noted")
        await asyncio.sleep(2)  # a gap of a length that can be told
        receiver.refuse_publish = None
        await async_wait_until(lambda: playout.status("c")["state"] == "on_air", description="it is on air again")
        await asyncio.sleep(2.5)  # it is sent for so long
        playout.process.kill()
        playout.process.wait()
        await asyncio.sleep(3)  # another gap
        playout.start()
        await becomes(streamer, "aired with gaps")
    (said,) = rows.said(streamer, "ended")
    assert (said["result"], said["code"]) == ("success", 329)
    told = TypeAdapter(list[EventView])
    past = told.validate_python([{**one, "class_id": "c", "stem": None, "host": "streamer1"} for one in said["events"]])
    assert {"on air", "push refused", "playout away"} <= {one.what for one in past}
    known = gaps.sent(start, start + 30, [AsRun(**one) for one in said["as_run"]], past, said["message"])
    assert said["message"] == f"{known.sentence()}; its end has come"
    whys = [one.why for one in known.gaps if one.missing_s >= gaps.SHOWN_S]
    assert whys == ["the push was refused", "the playout was not there"]
    assert known.recording_s + known.missing_s == pytest.approx(30)
