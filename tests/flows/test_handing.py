"""The playout airs what the rows say, whatever was lost on the way, and what it sent is told."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import OperationalError

from flows import failures
from flows.handling import Decide
from flows.host import StreamerHost
from flows.streamer import amend, lease, maintenance, playout_events, playout_sync
from flows.streamer.playout_sync import PlayoutSync, TimetableReader
from lectern.allowlist import Allowlist
from lectern.db.engine import reading, transaction
from lectern.decide import gaps
from lectern.model.facts import AsRun
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import classes, journal, tasks
from lectern.model.views import EventView
from lectern.playout import kernel
from lectern.storage import cache_dir
from lectern.wire.messages import Release
from tests import rows
from tests.playout import flvs
from tests.playout.receiver import Receiver
from tests.playout.stage import Playout
from tests.waiting import async_wait_until

pytestmark = pytest.mark.live
HOURS_S = 3 * 3600.0


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


def book(
    host: StreamerHost, class_id: str, url: str, *, state: str = "ready", starts_in_s: float = 60, length_s: float = 60
) -> float:
    """A class, and its recording of a minute if it is ready; returns when it begins."""
    if state == "ready":
        recorded(host)
    start = time.time() + starts_in_s
    with transaction(host.engine) as connection:
        rows.bare(connection, class_id, start, state, end_time=start + length_s, push_url=url)
        connection.execute(update(classes).values(video_id="1"))
    return start


def changed(host: StreamerHost, class_id: str, **values: object) -> None:
    """Write *values* into the row of a class."""
    its = update(classes).where(classes.c.class_id == class_id).values(**values)
    rows.commit(host.engine, Connection.execute, its)


def move(host: StreamerHost, class_id: str, start: float) -> None:
    """Write another start of a class into its row, as a change does."""
    with transaction(host.engine) as connection:
        times = {"start_time": start, "end_time": start + 60.0}
        connection.execute(update(tasks).where(tasks.c.class_id == class_id).values(**times))


def recorded(host: StreamerHost) -> None:
    """The recording is there."""
    path = cache_dir.rendition_path(host.settings.video_root, "1")
    path.parent.mkdir(exist_ok=True)
    if not path.exists():  # the playout may read it
        flvs.write(path, flvs.lesson(60))


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


async def alarmed(host: StreamerHost, words: str) -> None:
    said = lambda: any(words in one["message"] for one in rows.said(host, "alarm"))  # noqa: E731
    await async_wait_until(said, description=f"an alarm says {words!r}")


async def becomes(host: StreamerHost, state: str) -> None:
    """Wait until the class c is so."""
    await async_wait_until(lambda: rows.state_of(host, "c") == state, description=f"it is {state}")


async def test_a_class_moved_while_its_playout_is_away_is_not_aired_as_before(
    streamer: StreamerHost, receiver: Receiver, playout: Playout
) -> None:
    """The playout reads the timetable by itself when it is back, and may be on air before the resident reaches it."""
    async with kept(streamer):
        start = book(streamer, "c", receiver.url("c"), starts_in_s=8)
        assert await streamer.playout.in_force(20)
        assert streamer.playout.confirmed["c"]["start"] == start
        playout.process.kill()
        playout.process.wait()
        await async_wait_until(lambda: streamer.playout.client is None, description="the playout is away")
        move(streamer, "c", start + HOURS_S)
        assert not await streamer.playout.in_force(20), "nobody confirms it"
    playout.start()  # and no resident is there
    assert playout.ask("status")["classes"] == []
    await asyncio.sleep(max(0.0, start + 1 - time.time()))  # until after its old start
    assert receiver.of("c") == []


async def test_a_class_that_is_moved_away_and_back_at_once_is_aired(
    streamer: StreamerHost, receiver: Receiver, playout: Playout
) -> None:
    async with kept(streamer):
        start = book(streamer, "c", receiver.url("c"), starts_in_s=10)
        assert await streamer.playout.in_force(20)
        move(streamer, "c", start + HOURS_S)
        streamer.playout.wanted.set()
        move(streamer, "c", start)
        assert await streamer.playout.in_force(20)
        assert streamer.playout.confirmed["c"]["start"] == start
        move(streamer, "c", start + HOURS_S)
        assert await streamer.playout.in_force(20)
        assert "c" not in streamer.playout.confirmed
        assert playout.ask("status")["classes"] == []
        move(streamer, "c", start)
        assert await streamer.playout.in_force(20)
        await async_wait_until(lambda: receiver.of("c"), description="it is on air")


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


def slated(host: StreamerHost) -> None:
    """The streamer has a slate."""
    slate = flvs.write(host.settings.video_root / "s.flv", flvs.lesson(3))
    host.settings = host.settings.model_copy(update={"slate": slate})


async def test_a_class_whose_recording_is_still_coming_is_on_air_with_the_slate(
    streamer: StreamerHost, receiver: Receiver, playout: Playout
) -> None:
    slated(streamer)
    async with kept(streamer):
        book(streamer, "c", receiver.url("c"), state="waiting", starts_in_s=1)
        await async_wait_until(lambda: receiver.of("c"), description="its slate is on air")
        await alarmed(streamer, "its slate is sent")
        recorded(streamer)
        changed(streamer, "c", state="ready")
        await async_wait_until(lambda: playout.told("back"), description="the recording is sent")
        await becomes(streamer, "on air")
        assert len(receiver.of("c")) == 1


async def test_a_class_that_is_due_and_not_aired_is_alarmed_with_its_reason(
    streamer: StreamerHost, receiver: Receiver, playout: Playout
) -> None:
    """The playout does not take it, or has no lease, although this streamer holds one."""
    async with kept(streamer):
        book(streamer, "c-1", "rtmp://127.0.0.1:99999/live/c", starts_in_s=-10)
        await alarmed(streamer, "the playout does not take it")
        book(streamer, "c", receiver.url("c"), starts_in_s=0)
        await becomes(streamer, "on air")
        playout.lease(-1)
        await alarmed(streamer, "its lease is over, although")
        await alarmed(streamer, "c: it is not on air")


async def test_a_class_stays_in_the_timetable_until_the_playout_has_told_its_end(streamer: StreamerHost) -> None:
    """It would be cancelled, if the clock of this host were a moment ahead of that by which the playout airs."""
    for class_id, ended_ago_s, was in (
        ("a", 1, "on air"),
        ("b", 1, "aired"),
        ("c", 300, "on air"),
        ("d", -60, "ready"),
    ):
        book(streamer, class_id, "rtmp://127.0.0.1/live/x", state=was, starts_in_s=-60 - ended_ago_s)
    with reading(streamer.engine) as connection:
        found = TimetableReader(streamer).wanted(connection, time.time(), None, Allowlist(), None)
    assert list(found.lessons) == ["a", "d"]


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


def saved(aired: Path) -> float:
    """Seconds that were sent of the one class on air, as the disk has them."""
    return sum(float(part["sent_s"]) for part in json.loads(aired.read_text().splitlines()[1])["as_run"])


async def test_a_class_over_while_no_playout_was_there_is_closed_with_what_was_sent(
    streamer: StreamerHost, receiver: Receiver, playout: Playout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine came back more than a minute after its end: its line is gone from the timetable."""
    monkeypatch.setattr(playout_sync, "KEPT_S", 0.0)
    monkeypatch.setattr(maintenance, "OVER_S", 0.0)
    async with kept(streamer):
        start = book(streamer, "c", receiver.url("c"), starts_in_s=0, length_s=12.0)
        await becomes(streamer, "on air")
        aired = playout.folder / "aired.jsonl"
        await async_wait_until(lambda: aired.exists() and saved(aired) > 2, description="what was sent is saved")
        playout.process.kill()
        playout.process.wait()
        await asyncio.sleep(max(0.0, start + 12 - time.time()))
        await streamer.playout.in_force(20)
        assert streamer.playout.is_written(), "the timetable is without it"
    playout.start()
    async with kept(streamer):
        assert (playout.status("c")["state"], playout.status("c")["why"]) == ("ended", "it was cancelled")
        for _ in range(2):
            await maintenance._sweep(streamer, dry_run=False)
    assert rows.state_of(streamer, "c") == "aired with gaps"
    (said,) = rows.said(streamer, "ended")
    assert said["code"] == 329
    assert sum(part["sent_s"] for part in said["as_run"]) > 2


async def ends_told(host: StreamerHost, number: int = 1) -> None:
    """Wait until the teacher is told of so many ends."""
    ends = lambda: len(rows.said(host, "ended")) == number  # noqa: E731
    await async_wait_until(ends, description=f"its teacher is told of {number} ends")


async def test_each_end_of_a_class_that_was_taken_away_is_told_once(
    streamer: StreamerHost, receiver: Receiver, playout: Playout
) -> None:
    """Though nobody heard it: the process died then, and the next one asks the playout. The class had come back."""
    async with kept(streamer):
        book(streamer, "c", receiver.url("c"), starts_in_s=0)
        book(streamer, "never sent", receiver.url("d"), starts_in_s=600)
        await becomes(streamer, "on air")
        changed(streamer, "c", state="cancelled")
        assert await streamer.playout.in_force(20)
        await ends_told(streamer)
        changed(streamer, "c", state="ready", placement=3)
        assert await streamer.playout.in_force(20)
        await becomes(streamer, "on air")
    for class_id in ("c", "never sent"):
        changed(streamer, class_id, state="cancelled")
    playout.hand_over()  # a timetable without them
    await async_wait_until(lambda: playout.status("c")["state"] == "ended", description="it is off the air")
    for _ in range(2):
        async with kept(streamer):
            await ends_told(streamer, 2)
    first, second = rows.said(streamer, "ended")
    assert (second["class_id"], second["code"], second["placement"]) == ("c", 411, 3)
    assert max(part["begins"] for part in second["as_run"]) > max(part["ends"] for part in first["as_run"])


@pytest.mark.usefixtures("playout")
async def test_what_was_sent_of_a_class_that_was_changed_and_taken_away_at_once_is_told(
    streamer: StreamerHost, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The playout never had the change: it tells the end as it was. The disk takes it at the second try."""
    tries = 0

    async def full(host: StreamerHost, class_id: str, go: Decide[StreamerChanges]) -> StreamerChanges:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        return await closed(host, class_id, go)

    closed = playout_events._closed
    async with kept(streamer):
        book(streamer, "c", receiver.url("c"), starts_in_s=0)
        await becomes(streamer, "on air")
        monkeypatch.setattr(playout_events, "_closed", full)
        with transaction(streamer.engine) as connection:  # between two beats
            connection.execute(update(tasks).values(end_time=tasks.c.end_time + 600))
            connection.execute(update(classes).values(state="cancelled"))
        assert await streamer.playout.in_force(20)
        await async_wait_until(lambda: tries, description="the disk is full")
        await ends_told(streamer)
    (said,) = rows.said(streamer, "ended")
    assert sum(part["sent_s"] for part in said["as_run"]) > 0


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
        await async_wait_until(
            lambda: rows.state_of(streamer, "c") in {"aired", "aired with gaps"}, description="it is over"
        )
    (said,) = rows.said(streamer, "ended")
    assert min(part["begins"] for part in said["as_run"]) <= seen_at


async def test_a_change_that_was_aired_is_in_force_though_nobody_heard_the_end_of_its_class(
    streamer: StreamerHost, receiver: Receiver, playout: Playout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that gave it to the playout died then; the next one hears of the end by the status alone."""
    monkeypatch.setattr(amend, "publish_outbox", rows.unsent)
    async with kept(streamer):
        start = book(streamer, "c", receiver.url("c"), starts_in_s=0, length_s=8)
        with transaction(streamer.engine) as connection:
            its = {"start_time": start, "end_time": start + 8, "push_url": receiver.url("c")}
            connection.execute(insert(tasks).values(class_id="c^1", **its))
            its = {"class_id": "c^1", "video_id": "1", "state": "cancelled", "unconfirmed_since": start}
            connection.execute(insert(classes).values(**its))
        await becomes(streamer, "on air")
    await async_wait_until(lambda: playout.status("c")["state"] == "ended", description="it is over")
    async with kept(streamer):
        await becomes(streamer, "aired")
        await amend.confirm(streamer)
    assert [one["code"] for one in rows.said(streamer, "amended")] == [0]


async def test_what_was_sent_of_a_class_that_had_lost_its_file_is_told_when_it_is_taken_away(
    streamer: StreamerHost, receiver: Receiver, playout: Playout
) -> None:
    """Its file could not be had again: its teacher, which knows that, has another streamer air it."""
    slated(streamer)
    async with kept(streamer):
        start = book(streamer, "c", receiver.url("c"), state="refused", starts_in_s=1)
        changed(streamer, "c", lost_at=start - 60, placement=1)
        await async_wait_until(lambda: receiver.of("c"), description="its slate is on air")
        await async_wait_until(lambda: playout.status("c")["slate_s"] > 2, description="it is on air for a while")
        rows.commit(streamer.engine, rows.did, streamer, lease.release_classes, Release(class_id="c", placement=1))
        assert await streamer.playout.in_force(20)
        await ends_told(streamer)
    (said,) = rows.said(streamer, "ended")
    assert [part["source"] for part in said["as_run"]] == ["slate"]
