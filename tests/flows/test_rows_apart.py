"""One odd class on a streamer is that class's trouble: the others are checked, planned, and taken off the timetable."""

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest
from prefect import runtime
from sqlalchemy import Connection, delete, select, text, update
from sqlalchemy.exc import OperationalError

from flows import artifacts, failures, prefect_api
from flows import host as hall
from flows.handling import SWEEP
from flows.host import StreamerHost
from flows.playout_link import Watch
from flows.prefect_api import BackgroundRuns, NewRun
from flows.streamer import bandwidth, broadcast, downloads, prepare, readiness
from flows.streamer.amend import OTHER_TIME
from flows.streamer.readiness import Readiness
from lectern import errors, health, i18n
from lectern import metrics as all_metrics
from lectern.allowlist import Allowlist
from lectern.db import account, airings, cache, events, metrics
from lectern.db.engine import reading, transaction
from lectern.decide.airing import RUN_AHEAD_S
from lectern.decide.bandwidth import Download
from lectern.decide.gaps import LOST_S
from lectern.errors import TryAgain
from lectern.media import integrity
from lectern.model.facts import Airing, Cached, Event, Usage
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import classes, files, journal, tasks
from lectern.states import AiringState, FileState
from lectern.storage import cache_dir, disk
from tests import flv, rows
from tests.faults.turns import Quiet
from tests.flows.test_lost_files import too_many_open
from tests.text.test_catalogues import left
from tests.waiting import async_wait_until, cancelled


class Runs:
    """Prefect's runs: some classes are refused by it, some were cancelled in the UI."""

    def __init__(self) -> None:
        self.odd: dict[str, Exception] = {}
        self.slow_s = 0.0
        self.wanted: list[str] = []
        self.made: dict[str, float] = {}  # when each is to begin, 0 for at once
        self.cancelled_ids: set[str] = set()
        self.why = "by a person"
        self.asked: list[int] = []
        self.alone: list[str] = []

    async def start(self, run: NewRun, at: float = 0) -> str:
        class_id = str(run.parameters.get("class_id", run.parameters.get("stem")))
        self.wanted.append(class_id)
        if self.slow_s:
            await asyncio.sleep(self.slow_s)
        if class_id in self.odd:
            raise self.odd[class_id]
        self.made[class_id] = at
        return f"run-{class_id}"

    schedule = start

    def is_at_work(self, run_id: str) -> bool:
        """Whether it is executed here."""
        return run_id.removeprefix("run-") in self.made

    async def cancelled(self, run_ids: Sequence[str]) -> dict[str, str]:
        """Those that somebody cancelled."""
        self.asked.append(len(run_ids))
        return {one: self.why for one in run_ids if self.was_cancelled(one)}

    def was_cancelled(self, run_id: str) -> bool:
        return run_id in self.cancelled_ids

    def end(self, run_id: str, reason: str) -> bool:
        return False

    async def without(self, run: NewRun) -> None:
        self.alone.append(str(run.parameters["stem"]))

    def draining(self) -> bool:
        return False


@pytest.fixture
def streamer(streamer: StreamerHost) -> StreamerHost:
    """A streamer that holds its lease, with a cache in a folder."""
    bus: Any = Quiet()
    bus.now, bus.say = AsyncMock(side_effect=time.time), AsyncMock()
    streamer.bus, streamer.runs = bus, cast("Any", Runs())
    streamer.playout.until = float("inf")
    return streamer


def add(host: StreamerHost, class_id: str, stem: str = "1", *, starts_in_s: float = 250, **task: object) -> None:
    """A class that is ready, with its rendition on the disk."""
    site = flv.write(cache_dir.rendition_path(host.settings.video_root, stem), 20)
    rows.cached(host, rows.prepare(class_id, int(stem), time.time() + starts_in_s), site)
    if task:
        rows.commit(host.engine, Connection.execute, update(tasks).where(tasks.c.class_id == class_id).values(**task))


def alarms(host: StreamerHost) -> dict[str, str]:
    """The alarms in the outbox, by class."""
    said: dict[str, str] = {}
    for one in rows.said(host, "alarm"):
        if one.get("code") == 324:
            said[one["class_id"]] = f"{said.get(one['class_id'], '')} {one['message']}"
    return said


def spoil(host: StreamerHost, class_id: str) -> None:
    """Give a class times that nobody can read."""
    odd = f"UPDATE task_list SET start_time = 'soon' WHERE class_id = '{class_id}'"
    rows.commit(host.engine, Connection.exec_driver_sql, odd)


TIMES = ("soon", "", None, "1e3000", -5, 0, 4e9, 9e999, b"x", "2026-12-01 20:00", " 1.8e9 ", 1_800_000_000)


@pytest.mark.parametrize("which", ["start_time", "end_time"])
@pytest.mark.parametrize("at", TIMES, ids=map(repr, TIMES))
def test_a_class_is_unreadable_exactly_if_its_row_cannot_be_read(
    streamer: StreamerHost, which: str, at: object
) -> None:
    """Whatever stands there: the database looks for odd times itself, so that the table can be long."""
    rows.commit(streamer.engine, rows.bare, class_id="old", start=time.time() + 60, end_time=time.time() + 600)
    value = {"at": at}
    rows.commit(streamer.engine, lambda known: known.execute(text(f"UPDATE task_list SET {which} = :at"), value))
    unreadable = rows.look(streamer.engine, airings.unreadable)
    assert unreadable.keys() == (set() if airings.epoch(at) else {"old"})
    assert rows.look(streamer.engine, airings.live_ids) == {"old"}, "the playout goes on with it"


@pytest.fixture
def checks(streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch) -> Readiness:
    """Its checks; each push URL can be reached but one, at which something nobody foresaw happens."""

    async def look(url: str, *, timeout_s: float, allowed: Allowlist) -> None:
        if "odd" in url:
            raise ValueError(f"port out of range 0-65535: {url}")

    monkeypatch.setattr(health, "unreachable", look)
    monkeypatch.setattr(readiness, "LATE_AFTER_S", 0.0)
    return Readiness(streamer, cast("Any", None))


async def test_a_check_that_fails_is_the_red_line_of_its_class_alone(streamer: StreamerHost, checks: Readiness) -> None:
    """With the reason, and the alarm of any red one until it begins; the other classes are checked.

    One whose file is there waits until its row says so, too.

    So is a row of the old program, or written by hand, that cannot be read: it is one alarm, once, also in Chinese.
    """
    add(streamer, "good")
    for _ in range(2):
        await checks.check(time.time())
    assert not checks._is_red(time.time())
    add(streamer, "bad", push_url="rtmp://odd.example:99999/live/x")
    await checks.check(time.time())
    assert checks._is_red(time.time())
    begins = checks._live["bad"].start_time
    assert not checks._is_red(begins), "the checks are minutes apart: it ends as they begin"
    add(streamer, "gone", "2")
    (streamer.settings.video_root / "2" / "2.flv").unlink()
    add(streamer, "damaged", "3")
    path = streamer.settings.video_root / "3" / "3.flv"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2].ljust(len(whole), b"\0"))
    add(streamer, "old")
    spoil(streamer, "old")
    add(streamer, "waits", "4")
    waits = update(classes).where(classes.c.class_id == "waits").values(state=AiringState.WAITING)
    rows.commit(streamer.engine, Connection.execute, waits)
    await checks.check(time.time())
    said = alarms(streamer)
    assert said.keys() == {"bad", "damaged", "gone", "old", "waits"}
    assert "its rendition is not there yet" in said["waits"]
    assert "bad begins in 4 min and" in said["bad"]
    assert "port out of range" in said["bad"]
    assert "live/x" not in said["bad"], "a stream key is a secret"
    assert "its file is gone" in said["gone"]
    assert "its file is damaged" in said["damaged"]
    assert "'soon'" in said["old"]
    (unreadable,) = [one for one in rows.said(streamer, "alarm") if one["class_id"] == "old"]
    assert left(i18n.of_wire(unreadable)) == []
    one = checks._live["good"]
    shown = {"▶": replace(one, state=AiringState.ON_AIR), "○": replace(one, class_id="new"), "●": one}
    for sign, its in {**shown, "✗": checks._live["bad"]}.items():
        assert checks._line(its)["ready"] == sign
    checks._late["good"] = "its recording comes too late"
    assert checks._line(one) == checks._line(one) | {"ready": "✗", "why": "its recording comes too late"}
    told = sorted((one["class_id"], one["event"]) for one in rows.said(streamer, "airing"))
    red = [(name, "not_ready") for name in ("bad", "damaged", "gone", "waits")]
    assert told == sorted([*red, ("good", "ready")]), "each once"
    rows.commit(streamer.engine, Connection.execute, journal.outbox.delete())
    await checks.check(time.time())
    assert alarms(streamer) == {}


async def test_a_refused_class_is_red_with_the_reason_and_a_new_one_is_checked_soon(
    streamer: StreamerHost, checks: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lost its file for good; its teacher has yet to take it away. A class that just came is being prepared."""
    monkeypatch.setattr(readiness, "LATE_AFTER_S", 20.0)
    add(streamer, "lost")
    refused = update(classes).values(state=AiringState.REFUSED, message="the origin says 403", lost_at=time.time())
    rows.commit(streamer.engine, Connection.execute, refused)
    now = time.time()
    for later_s, alarmed in ((0.0, set[str]()), (19.0, set()), (20.0, {"lost"})):
        await checks.check(now + later_s)
        assert alarms(streamer).keys() == alarmed
    assert "the origin says 403" in alarms(streamer)["lost"]
    await checks.check(checks._live["lost"].end_time)
    assert checks._live == {}, "it is over"


async def test_classes_whose_push_server_does_not_answer_hold_up_no_other_and_no_later_check(
    streamer: StreamerHost, checks: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes 5 s, twenty at a time: of 500 of them nobody was called for two minutes, whatever was wrong elsewhere.

    Nor is one that is changed, or over, looked at to the end, and none twice.
    """
    goes_on, looked, plain = asyncio.Event(), list[str](), health.unreachable

    async def look(url: str, **how: Any) -> str | None:
        if "dead" not in url:
            return await plain(url, **how)
        looked.append(url)
        await goes_on.wait()
        return "it does not answer"

    monkeypatch.setattr(health, "unreachable", look)
    monkeypatch.setattr(readiness, "AT_ONCE", 2)
    monkeypatch.setattr(readiness, "LOOKS_S", 0.2, raising=False)
    for number in range(4):
        add(streamer, f"c-{number}", push_url=f"rtmp://dead.example/live/{number}")
    add(streamer, "gone", "2")
    cache_dir.rendition_path(streamer.settings.video_root, "2").unlink()
    async with asyncio.timeout(20):
        while alarms(streamer).keys() != {"gone"}:
            await checks.check(time.time())
    add(streamer, "later", "3")
    cache_dir.rendition_path(streamer.settings.video_root, "3").unlink()
    over = update(classes).where(classes.c.class_id == "c-3").values(state=AiringState.CANCELLED)
    rows.commit(streamer.engine, Connection.execute, over)
    async with asyncio.timeout(20):
        while alarms(streamer).keys() != {"gone", "later"}:
            await checks.check(time.time())
    assert len(looked) == 2
    goes_on.set()
    monkeypatch.setattr(readiness, "LOOKS_S", 20.0)
    await checks.check(time.time())
    assert (set(alarms(streamer)), len(looked)) == ({"c-0", "c-1", "c-2", "gone", "later"}, 3)


@pytest.mark.parametrize("field", ["start_time", "push_url"])
async def test_a_class_that_is_changed_after_its_last_check_is_checked_again(
    streamer: StreamerHost, checks: Readiness, field: str
) -> None:
    """It was checked five minutes before the start of then; what it is now, nobody has looked at."""
    now = time.time()
    add(streamer, "c-1")
    await checks.check(now)
    assert alarms(streamer) == {}
    cache_dir.rendition_path(streamer.settings.video_root, "1").unlink()
    change = {"start_time": now + 3000, "push_url": "rtmp://other.example/live/y"}[field]
    rows.commit(streamer.engine, Connection.execute, update(tasks).values({field: change, "end_time": now + 4000}))
    for at in (now + 1, now + 2):
        await checks.check(at)
    assert alarms(streamer)["c-1"].count("its file is gone") == 1


async def test_classes_are_checked_although_nobody_can_say_when_their_recordings_will_be_there(
    streamer: StreamerHost, checks: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk on which the parts of downloads lie hangs, or something nobody foresaw happens."""
    add(streamer, "gone")
    cache_dir.rendition_path(streamer.settings.video_root, "1").unlink()
    monkeypatch.setattr(checks, "foresee", AsyncMock(side_effect=TryAgain("is the disk busy?")))
    monkeypatch.setattr(checks, "_show", AsyncMock(side_effect=InterruptedError))
    with pytest.raises(InterruptedError):
        await checks.run()
    assert "its file is gone" in alarms(streamer)["gone"]


@pytest.mark.parametrize(
    ("name", "said"), [("open", "Too many open files"), ("stat", "is the disk busy?")], ids=["ours", "the disk hangs"]
)
async def test_a_file_that_cannot_be_read_just_now_is_told_and_not_downloaded_again(
    streamer: StreamerHost, checks: Readiness, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    """All recordings of the next hour would be put aside at once, because this process has too many open files.

    For a disk that hangs no check waits for ever: nobody would hear of it, nor of the classes that are checked later.
    """
    add(streamer, "good")
    go_on, stat = threading.Event(), Path.stat

    def hangs(path: Path, **how: Any) -> os.stat_result:
        assert path.suffix != ".flv" or go_on.wait(20)
        return stat(path, **how)

    if name == "stat":
        monkeypatch.setattr(integrity, "SEEN_S", 0.2, raising=False)
    with monkeypatch.context() as full:
        full.setattr(Path, name, {"open": too_many_open, "stat": hangs}[name])
        await checks.check(time.time())
        go_on.set()
    assert "its file cannot be read" in alarms(streamer)["good"]
    assert said in alarms(streamer)["good"]
    assert cache_dir.rendition_path(streamer.settings.video_root, "1").exists()
    assert states(streamer) == {"good": "ready"}


async def test_a_disk_that_hangs_takes_no_thread_by_which_names_are_looked_up(
    streamer: StreamerHost, checks: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are a few: Redis was not found again after a break, and a class that was cancelled then was aired."""
    for number in range(40):
        add(streamer, f"c-{number}")
    go_on, stat = threading.Event(), Path.stat

    def hangs(path: Path, **how: Any) -> os.stat_result:
        assert path.suffix != ".flv" or go_on.wait(20)
        return stat(path, **how)

    monkeypatch.setattr(integrity, "SEEN_S", 0.2)
    monkeypatch.setattr(bandwidth, "ANSWERS_S", 0.2)
    monkeypatch.setattr(readiness, "LOOKS_S", 20.0)
    with monkeypatch.context() as away:
        away.setattr(Path, "stat", hangs)
        away.setattr(disk, "free_bytes", lambda _: int(go_on.wait(20)))
        await checks.check(time.time())
        async with asyncio.timeout(10):
            assert await asyncio.to_thread(lambda: "looked up") == "looked up"
        go_on.set()
    assert [("is the disk busy?" in one) for one in alarms(streamer).values()] == [True] * 40


async def test_a_file_that_cannot_be_put_aside_keeps_no_other_from_being_downloaded_again(
    streamer: StreamerHost, checks: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each class is checked and alarmed once, not every 15 s."""
    replaced = AsyncMock(side_effect=[None, RuntimeError("odd"), None])
    monkeypatch.setattr(downloads, "redownload", replaced)
    for number in ("1", "2", "3"):
        add(streamer, f"c-{number}", number)
        (streamer.settings.video_root / number / f"{number}.flv").unlink()
    for _ in range(2):
        await checks.check(time.time())
    assert sorted(one.args[1] for one in replaced.await_args_list) == ["1", "2", "3"]


async def test_an_odd_row_hides_no_other_from_whoever_reads_the_classes(streamer: StreamerHost) -> None:
    """Nobody else's class is left out of the timetable, the metrics, or what is due."""
    now = time.time()
    for name in ("good", "old", "word"):
        add(streamer, name, starts_in_s=-5)
    spoil(streamer, "old")
    fire = update(classes).where(classes.c.class_id == "word").values(state="on fire")
    rows.commit(streamer.engine, Connection.execute, fire)
    with reading(streamer.engine) as connection:
        citing = airings.citing(connection, "1", {AiringState.READY})
        for found in (airings.live(connection), airings.due(connection, now, now), citing):
            assert [one.class_id for one in found] == ["good"]
        assert airings.over(connection, now) == []
        assert airings.unreadable(connection).keys() == {"old"}
        assert b"lectern_classes_not_on_air 1.0" in metrics.exposition("streamer", "x", connection)


async def test_what_a_streamer_says_of_itself_does_not_grow_with_the_classes_that_ever_broke(
    streamer: StreamerHost,
) -> None:
    """Thousands, of a day without a lease, made it longer than a teacher reads: nobody heard what is on air there."""
    now = time.time()
    for name, starts_in_s in (("over", -9000), ("now", -5), ("next", 250)):
        add(streamer, name, starts_in_s=starts_in_s)
        checked = [Event(account.CHECKED, name)]
        rows.commit(streamer.engine, events.note, "streamer1", checked, now)
    broken = update(classes).where(classes.c.class_id == "over").values(state=AiringState.BROKEN)
    rows.commit(streamer.engine, Connection.execute, broken)
    said = rows.look(streamer.engine, readiness.word, streamer.settings, now)
    assert (set(said.checks), set(said.sendings), said.due) == ({"now", "next"}, {"now"}, 1)


def test_what_has_come_of_a_download_is_not_kept_free_for_it_once_more(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda _: 100)
    root = streamer.settings.video_root
    with transaction(streamer.engine) as connection:
        cache.make_sums(connection, root)
        rows.reserve(connection, root, "1", 60, "http://origin.example/1.flv", time.time())
        changes = StreamerChanges(streamer.settings, time.time())
        usage, bound, _ = prepare._room(connection, changes, {"1": Download("1", 60, came_bytes=20)}, (), ())
    assert (usage.size_bytes, bound.max_bytes, bound.by_disk) == (60, 60 + 100 - 40, True)


def test_the_story_of_a_class_that_is_not_ready_has_that_once_and_an_alarm_of_its_change(
    streamer: StreamerHost,
) -> None:
    """The class itself is as ready as it was, whatever is said of a change that is prepared."""
    for class_id in ("c-1", "c-1^1"):
        add(streamer, class_id)
    red = [(one, ["no room"]) for one in rows.look(streamer.engine, airings.by_id, ["c-1", "c-1^1"]).values()]
    changes = StreamerChanges(streamer.settings, time.time())
    rows.commit(streamer.engine, readiness._told(red, (), time.time()), changes)
    found = [(one.what, one.class_id) for one in changes.notes]
    assert found == [(account.NOT_READY, "c-1"), ("alarm", "c-1^1")]


async def test_a_class_that_prefect_does_not_take_holds_up_no_other(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again later, not at once; the guard airs it without a run."""
    monkeypatch.setattr(prefect_api, "PATIENCE_S", 1e-9)
    for number, name in enumerate(("odd", "refused", "good")):
        add(streamer, name, starts_in_s=100 + number)
    runs, plan = cast("Runs", streamer.runs), broadcast.RunScheduler(streamer)
    runs.odd = {"odd": UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no surrogates"), "refused": TryAgain("409")}
    assert not await plan.step(), "Prefect seems to be away"
    assert [await plan.step() for _ in range(3)] == [True, False, False]
    assert (runs.wanted, [*runs.made]) == (["odd", "refused", "good"], ["good"])
    runs.odd.clear()
    plan._aside.clear()
    streamer.unplanned.set()
    monkeypatch.setattr(streamer.watchdog, "beat", (rounds := list[str]()).append)
    assert await plan.step(), "of those that come together, the next is not kept waiting"
    assert sorted(runs.made) == ["good", "odd", "refused"]
    assert rounds == ["plan"] * 2, "if Prefect takes 4 s for each, twenty of them do not stand still"


async def test_a_class_that_went_on_air_while_prefect_was_away_gets_its_run_when_it_is_back(
    streamer: StreamerHost,
) -> None:
    """Else nobody can watch it there, or cancel it, for as long as it lasts."""
    add(streamer, "c-1", starts_in_s=1)
    runs, plan = cast("Runs", streamer.runs), broadcast.RunScheduler(streamer)
    runs.odd = {"c-1": TryAgain("no answer")}
    assert not await plan.step()
    on_air = update(classes).where(classes.c.class_id == "c-1").values(state=AiringState.ON_AIR)
    rows.commit(streamer.engine, Connection.execute, on_air)
    runs.odd.clear()
    plan._aside.clear()
    assert await plan.step()
    assert [*runs.made] == ["c-1"]
    assert not await plan.step(), "it has its run"


async def test_runs_are_planned_for_their_time_before_bookings_only_those_of_soon(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself, as soon as a class is ready; one that is late is begun at once, and the others when all is quiet."""
    now, lead_s = time.time(), streamer.settings.broadcast_lead_s
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(broadcast, "EVERY_S", 0.01)
    monkeypatch.setattr(streamer.watchdog, "beat", (rounds := list[str]()).append)
    starts = {"now": -5, "about": broadcast.AT_ONCE_S, "then": RUN_AHEAD_S - 1, "later": RUN_AHEAD_S}
    for name, in_s in starts.items():
        add(streamer, name, starts_in_s=lead_s + in_s)
    rows.came(streamer, rows.prepare("c-1", 1, now + 9000))
    runs, plan = cast("Runs", streamer.runs), broadcast.RunScheduler(streamer)
    plan._aside = {"now": now}  # until now
    planning = asyncio.create_task(plan.run())
    await async_wait_until(lambda: len(runs.made) >= 3, description="those that begin soon have their runs")
    rounds.clear()
    await async_wait_until(lambda: len(rounds) > 2, description="it has looked twice more")
    await cancelled(planning)
    assert runs.made == {"now": 0, "about": 0, "then": now + RUN_AHEAD_S - 1}


@pytest.mark.parametrize(
    ("after", "why", "kind", "said"),
    [
        ("aired", None, "COMPLETED", "aired"),
        ("aired with gaps", "it was cut", "COMPLETED", "aired with gaps: it was cut"),
        ("broken", "nobody took it", "FAILED", "c-1: nobody took it"),
        ("cancelled", None, "CANCELLED", "c-1: was taken back"),
        (None, None, "COMPLETED", "ready"),
    ],
)
async def test_a_run_shows_how_far_its_class_is_until_it_is_over(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, after: str | None, why: str | None, kind: str, said: str
) -> None:
    """It ends as the class does; one whose recording is lost goes on, and so does one that nobody else watches."""
    percents = list[float]()
    monkeypatch.setattr(broadcast, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(artifacts.ProgressBar, "set", lambda _, percent: percents.append(percent))
    hall.current.set(streamer)
    add(streamer, "c-1", starts_in_s=-300)
    running = asyncio.create_task(broadcast.broadcast.fn("c-1"))
    await async_wait_until(lambda: percents, description="it is shown")
    assert streamer.playout.watches["c-1"].run_id == ""
    rows.commit(streamer.engine, Connection.execute, update(classes).values(state="waiting"))
    percents.clear()
    await async_wait_until(lambda: len(percents) > 2, description="it goes on")
    assert 50 <= percents[-1] < 100
    again = await broadcast.broadcast.fn("c-1")
    over = delete(classes) if after is None else update(classes).values(state=after, message=why)
    rows.commit(streamer.engine, Connection.execute, over)
    ended = await running
    assert (ended.type.name, ended.message, streamer.playout.watches) == (kind, said, {})
    assert (again.type.name, again.message) == ("COMPLETED", "nothing to do: c-1 is waiting")
    late = await broadcast.broadcast.fn("c-1")
    nothing = ("COMPLETED", f"nothing to do: c-1 is {after or 'not known'}")
    assert (late.type.name, late.message) == ((kind, said) if after == "broken" else nothing)
    dry = await broadcast.broadcast.fn("c-1", dry_run=True)
    assert (dry.type.name, "dry run" in (dry.message or "")) == ("COMPLETED", after == "broken")


async def test_a_class_that_ended_before_prefect_took_its_run_is_shown_with_its_end(streamer: StreamerHost) -> None:
    """Else the runs would say nothing of it, or that it was cancelled, by the run that it had before it was moved."""
    hall.current.set(streamer)
    ends: dict[str, dict[str, Any]] = {
        "aired": {"state": "aired"},
        "gaps": {"state": "aired with gaps", "message": "it was cut"},
        "broken": {"state": "broken", "message": "nobody took it"},
        "moved": {"state": "refused", "code": errors.ENDED.number, "placement": 2, "message": "it came too late"},
        "never-promised": {"state": "refused", "code": errors.ENDED.number, "placement": 1},
        "moved-on": {"state": "cancelled", "placement": 2},
        "shown": {"state": "aired", "run_id": "r-1"},
        "long-ago": {"state": "aired"},
        "to-come": {"state": "broken"},
    }
    ended_s, now = {"long-ago": broadcast.SHOWN_S + 60, "to-come": -60}, time.time()
    for class_id, its in ends.items():
        add(streamer, class_id, starts_in_s=-6000, end_time=now - ended_s.get(class_id, 60))
        row = update(classes).where(classes.c.class_id == class_id).values(its)
        rows.commit(streamer.engine, Connection.execute, row)
    add(streamer, "soon", starts_in_s=30)
    runs, plan = cast("Runs", streamer.runs), broadcast.RunScheduler(streamer)
    assert await plan.step()
    assert [*runs.made] == ["soon"], "a class that may yet be watched goes before them"
    assert await plan.step()
    assert {*runs.made} == {"soon", "aired", "gaps", "broken", "moved"}
    assert not await plan.step()
    told = [await broadcast.broadcast.fn(class_id) for class_id in ("aired", "gaps", "broken", "moved")]
    assert [(one.type.name, one.message) for one in told] == [
        ("COMPLETED", "nothing to do: aired is aired"),
        ("COMPLETED", "nothing to do: gaps is aired with gaps"),
        ("FAILED", "broken: nobody took it"),
        ("FAILED", "moved: it came too late"),
    ]


async def test_classes_for_later_are_read_together_and_planned_as_they_are_then(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look through all of them before each run would take longer than the run."""
    monkeypatch.setattr(broadcast, "CALM_S", -1.0)
    for number in range(5):
        add(streamer, f"c-{number}", starts_in_s=90_000 + number)
    looks = Mock(wraps=airings.unscheduled)
    monkeypatch.setattr(airings, "unscheduled", looks)
    runs, plan = cast("Runs", streamer.runs), broadcast.RunScheduler(streamer)
    runs.slow_s, make, made = 0.02, plan._made, runs.made

    async def then(airing: Airing) -> bool:
        is_made = await make(airing)
        if airing.class_id == "c-0":
            planned(streamer, "c-1", AiringState.CANCELLED)
        if airing.class_id == "c-3":
            add(streamer, "soon", starts_in_s=30)
            streamer.unplanned.set()
        return is_made

    monkeypatch.setattr(plan, "_made", then)
    began = time.monotonic()
    assert not await plan.step()
    assert time.monotonic() - began > 3 * 3 * runs.slow_s, "it takes a third of the time"
    assert [*made] == ["c-0", "c-2", "c-3"]
    assert looks.call_count == 2, "once for those that begin soon, once for the others"
    await plan.step()
    assert [*made][3:] == ["soon"], "what gets ready and begins soon is planned before those for later"


def states(host: StreamerHost) -> dict[str, str]:
    with reading(host.engine) as connection:
        return {row.class_id: row.state for row in connection.execute(select(classes.c.class_id, classes.c.state))}


def planned(host: StreamerHost, class_id: str, state: AiringState = AiringState.READY) -> None:
    """The class has a run, and is in *state*."""
    its = update(classes).where(classes.c.class_id == class_id).values(run_id=f"run-{class_id}", state=state)
    rows.commit(host.engine, Connection.execute, its)


async def test_a_cancelled_run_of_a_class_on_air_that_nobody_watches_ends_the_class(streamer: StreamerHost) -> None:
    """Its process died, and a person pressed Cancel meanwhile: the class is not aired again after the start."""
    watches = {"watched": "run-watched", "soon": "run-soon", "on": "run-before", "moved": "run-before"}
    for class_id in ("died", "ready", *watches):
        add(streamer, class_id, starts_in_s=-20)
        is_ready = class_id in {"ready", "soon", "moved"}
        planned(streamer, class_id, AiringState.READY if is_ready else AiringState.ON_AIR)
    # A run that watches has a cancel of its own; but a class that is yet to come may be watched by an older run.
    streamer.playout.watches |= {class_id: Watch(run_id) for class_id, run_id in watches.items()}
    cast("Runs", streamer.runs).cancelled_ids = {f"run-{class_id}" for class_id in states(streamer)}
    looks = broadcast.CancelledRuns(streamer)
    await looks.look()
    ended = {"died": "cancelled", "ready": "cancelled", "moved": "cancelled"}
    assert states(streamer) == ended | {"watched": "on air", "soon": "ready", "on": "on air"}
    add(streamer, "other")
    planned(streamer, "other")
    for run_id, class_id in (("run-before", "other"), ("run-died", "died"), ("run-gone", "gone")):
        await looks._cancelled(run_id, class_id, "")
    assert states(streamer)["other"] == "ready", "it was given another run meanwhile"


async def test_a_class_whose_run_we_cancelled_ourselves_gets_another_and_is_aired(streamer: StreamerHost) -> None:
    """It was changed to another time and back while Prefect hung: the cancel came after the run was its own again."""
    add(streamer, "back", starts_in_s=30)
    planned(streamer, "back")
    runs = cast("Runs", streamer.runs)
    runs.cancelled_ids, runs.why = {"run-back"}, OTHER_TIME
    await broadcast.CancelledRuns(streamer).look()
    assert states(streamer)["back"] == "ready"
    await broadcast.RunScheduler(streamer).step()
    assert runs.made.keys() == {"back"}


async def test_a_cancel_is_seen_however_many_classes_begin_before_that_one(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect is asked about at most two pages at a time."""
    monkeypatch.setattr(broadcast, "PAGE", 4)
    for number in range(18):
        add(streamer, f"c-{number}", starts_in_s=1000 + number)
        planned(streamer, f"c-{number}")
    runs, cancels = cast("Runs", streamer.runs), broadcast.CancelledRuns(streamer)
    runs.cancelled_ids = {"run-c-3", "run-c-17"}
    await cancels.look()
    assert states(streamer)["c-3"] == "cancelled"
    for _ in range(4):
        await cancels.look()
    assert states(streamer)["c-17"] == "cancelled"
    assert (max(runs.asked), len(runs.asked)) == (4, 10)


# -- downloads ---------------------------------------------------------------------------------------------------------


def downloading(host: StreamerHost, stem: str) -> Path:
    """A class that waits for a download, whose process died with some of it on the disk; returns its part."""
    add(host, f"class-{stem}", stem)
    part = cache_dir.part_path(host.settings.video_root, stem)
    part.write_bytes(b"x" * 500)
    its = {"state": FileState.DOWNLOADING, "run_id": f"run-{stem}", "update_time": time.time() - 60}
    with transaction(host.engine) as connection:
        connection.execute(update(files).where(files.c.id == stem).values(**its))
        connection.execute(update(classes).where(classes.c.video_id == stem).values(state=AiringState.WAITING))
        cache.recount(connection, host.settings.video_root, airings.citations(connection))
    return part


async def test_a_cancelled_download_is_not_begun_again_for_its_classes(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are refused with words; what came of it leaves the disk, its room is free. The other one goes on."""
    parts = [downloading(streamer, stem) for stem in ("1", "2")]
    runs = cast("Runs", streamer.runs)
    runs.cancelled_ids = {"run-1"}
    monkeypatch.setattr(downloads, "AGAIN_S", 0.0)
    line = downloads.DownloadQueue(streamer)
    await line.step()
    assert runs.made == {}, "the runs of the last process may be taken up yet"
    await line.step()
    assert [*runs.made] == ["2"]
    await downloads.give_up(streamer, "1", downloads.cancelled("1"))  # twice is as good as once
    assert states(streamer) == {"class-1": "refused", "class-2": "waiting"}
    assert [part.exists() for part in parts] == [False, True]
    with reading(streamer.engine) as connection:
        one = airings.by_id(connection, ["class-1"])["class-1"]
        assert (one.code, one.message) == (411, "the download of 1 was cancelled in the UI")
        assert cache.used(connection, streamer.settings.video_root).num == 1
        assert cache.by_stem(connection, ["1"])["1"].state is FileState.BAD


@pytest.mark.parametrize(
    ("run_id", "is_cancelled", "state"),
    [("run-1", True, "refused"), ("run-1", False, "waiting"), (None, True, "waiting")],
    ids=["by a person", "its process goes down", "its process goes down, and it has no run"],
)
async def test_a_download_is_given_up_by_nobody_but_a_person(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, run_id: str | None, is_cancelled: bool, state: str
) -> None:
    """A process that ends cancels all that it does, and the next one goes on with the download, however often.

    That is no fault of the recording; only a run that crashed, or was killed, may have died of it.
    """
    part, begun = downloading(streamer, "1"), asyncio.Event()

    async def forever(*_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(downloads, "_fetched", forever)
    monkeypatch.setattr(runtime.flow_run, "id", run_id, raising=False)
    cast("Runs", streamer.runs).cancelled_ids = {"run-1", "None"} if is_cancelled else set()
    hall.current.set(streamer)
    for _ in range(1 if state == "refused" else downloads.MAX_RUNS + 1):
        work = asyncio.create_task(downloads.download.fn("1"))
        await async_wait_until(lambda one: begun.is_set() or one.done(), work, description="it begins")
        begun.clear()
        await cancelled(work)
    assert (states(streamer)["class-1"], part.exists()) == (state, state == "waiting")
    assert streamer.in_progress == set()


async def test_a_download_that_cannot_be_begun_is_passed_over_and_holds_up_no_other(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the error is; the queue looks again when its time is over, if nothing else asks for a look before."""
    for stem in ("1", "2"):
        downloading(streamer, stem)
    waits, line = list[float](), downloads.DownloadQueue(streamer)
    line._left = set()
    take_up = AsyncMock(side_effect=lambda stem, _: {"2": streamer.in_progress.add}[stem](stem))  # of 1: a KeyError

    async def comes(_: object, within_s: float) -> None:
        waits.append(within_s)
        line._aside = {"1": time.monotonic() + 0.001} if len(waits) == 2 else line._aside
        if len(waits) == 3:
            raise InterruptedError

    monkeypatch.setattr(failures, "publish_outbox", rows.unsent)
    monkeypatch.setattr(line, "_take_up", take_up)
    monkeypatch.setattr(downloads, "comes", comes)
    with pytest.raises(InterruptedError):
        await line.run()
    first, second, *others = (one.args[0] for one in take_up.await_args_list)
    assert (first, second, "2" in others) == ("1", "2", False)
    assert 0.05 < waits[1] <= waits[0] <= downloads.AGAIN_S
    assert 0.05 <= waits[2] < 1, "it does not look without a pause, and soon"
    line._aside.clear()
    streamer.in_progress.add("1")
    waits[:] = [0, 0]
    with pytest.raises(InterruptedError):
        await line.run()
    assert waits[-1] == downloads.LOOK_S


@pytest.mark.parametrize("was_busy", [False, True], ids=["its run ended before it was at work", "it was at work"])
async def test_a_download_that_ended_without_its_file_is_begun_again_after_a_pause(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, was_busy: bool
) -> None:
    downloading(streamer, "1")
    runs, line = cast("Runs", streamer.runs), downloads.DownloadQueue(streamer)
    line._left = set()
    await line.step()
    assert runs.wanted == ["1"]
    if was_busy:
        streamer.in_progress.add("1")
        await line.step()
        streamer.in_progress.remove("1")
    else:
        runs.made.clear()
    for _ in range(2):
        await line.step()
        assert runs.wanted == ["1"], "not at once"
    line._aside["1"] -= downloads.AGAIN_S
    await line.step()
    assert runs.wanted == ["1", "1"]


async def test_after_a_restart_no_more_downloads_are_at_work_than_may_be(streamer: StreamerHost) -> None:
    """Else each restart would add as many, and take from the classes on air what they need."""
    runs, line = cast("Runs", streamer.runs), downloads.DownloadQueue(streamer)
    streamer.settings = streamer.settings.model_copy(update={"max_downloads": 2})
    for stem in ("1", "2", "3", "4"):
        downloading(streamer, stem)
    begun_no_more = update(files).where(files.c.id.in_(["3", "4"])).values(run_id=None)
    rows.commit(streamer.engine, Connection.execute, begun_no_more)
    for _ in range(2):
        await line.step()
    assert runs.made == {}, "the runs of the last process may be taken up yet"
    streamer.in_progress |= {"1", "2"}
    line._left_at -= downloads.AGAIN_S
    await line.step()
    assert runs.made == {}, "they were"
    streamer.in_progress.remove("1")
    streamer.in_progress.add(SWEEP)
    await line.step()
    assert len(runs.made) == 1


async def test_downloads_are_done_without_runs_that_prefect_does_not_let_begin(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Prefect whose database is locked takes runs and then hangs; four of them would hold up all other downloads."""
    for stem in ("1", "2"):
        downloading(streamer, stem)
    runs, line = cast("Runs", streamer.runs), downloads.DownloadQueue(streamer)
    monkeypatch.setattr(downloads, "AGAIN_S", 0.0)
    for begins_s, steps, alone in ((600.0, 3, list[str]()), (0.0, 1, ["1", "2"])):
        monkeypatch.setattr(downloads, "BEGINS_S", begins_s)
        for _ in range(steps):
            await line.step()
        await asyncio.sleep(0)
        assert ([*runs.made], runs.alone) == (["1", "2"], alone)


async def test_downloads_do_not_wait_one_after_the_other_for_a_prefect_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those at the front of the line find it out, the others begin at once, without a run; it is asked again later.

    Work that needs a run waits for its own answer: nothing of it can be done without.
    """
    monkeypatch.setattr(prefect_api, "PATIENCE_S", 1e-9)
    away, at_once = Runs(), prefect_api.AT_ONCE
    away.slow_s = 0.3  # a real one says so after up to five seconds
    away.odd |= dict.fromkeys(map(str, range(40)), TryAgain("Prefect does not take the run"))

    async def begin(mine: BackgroundRuns, number: int, *, needs_run: bool = False) -> None:
        """Downloads are begun beside the work, and have ended."""
        for stem in map(str, range(number)):
            mine.begin(cast("Any", away), NewRun("download", {"stem": stem}, stem), needs_run=needs_run)
        async with asyncio.timeout(20):
            await asyncio.gather(*mine._waiting.values())
            await asyncio.gather(*mine._working)

    await begin(BackgroundRuns(), 2 * at_once, needs_run=True)
    assert (len(away.wanted), away.alone) == (2 * at_once, [])
    away.wanted = []
    await begin(BackgroundRuns(), len(away.odd))
    assert sorted(away.alone) == sorted(away.odd)
    assert len(away.wanted) <= at_once
    monkeypatch.setattr(prefect_api, "CIRCUIT_OPEN_S", 0.0)
    mine = BackgroundRuns()
    await begin(mine, 1)
    away.odd.clear()
    await begin(mine, 1)
    assert [*away.made] == ["0"]


async def test_a_run_that_is_needed_is_asked_for_until_prefect_says_that_it_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By one key, since Prefect may have created it; else each try left one that nobody executes, and none moved."""
    keys: list[str | None] = []

    async def slow(run: NewRun) -> str:
        keys.append(run.key)
        if len(keys) < 3:
            raise TryAgain("no answer in time")
        return f"run-{run.key}"

    monkeypatch.setattr(prefect_api, "PATIENCE_S", 1e-9)
    runs, mine, move = Runs(), BackgroundRuns(), NewRun("move", {"streamer": "a"}, "move classes of a")
    monkeypatch.setattr(runs, "start", slow)
    for _ in range(2):
        with pytest.raises(TryAgain):
            await mine.start(cast("Any", runs), move, needs_run=True)
    assert [await mine.start(cast("Any", runs), move, needs_run=True) for _ in range(2)] == [
        f"run-{key}" for key in keys[2:]
    ]
    assert (len({*keys[:3]}), len({*keys})) == (1, 2), "what is announced later is another run"


def test_the_recording_of_the_class_that_begins_first_is_looked_through_first(streamer: StreamerHost) -> None:
    """Not that of a short class that begins later, but is over before."""
    now = time.time()
    add(streamer, "long", "1", starts_in_s=100, end_time=now + 9000)
    add(streamer, "short", "2", starts_in_s=200)
    assert getattr(rows.look(streamer.engine, airings.unlooked, now), "stem", None) == "1"


def test_the_faults_of_each_recording_of_a_class_are_told_once_when_here_and_when_changed(
    streamer: StreamerHost,
) -> None:
    """If it was changed to another recording because of the first alarm, that one may be black as well.

    Also on air: an end past the recording's end leaves the rest of the class without anything to send.
    """
    add(streamer, "class-1", "1")
    for stem, starts_in_s, length_s, has_s, dead_air, told in (
        ("1", 100, 655, 600, "", ""),  # up to a minute is no fault
        ("1", 100, 661, 600, "", "it ends 1 min 1 s before its class"),
        ("1", 100, 661, 600, "", ""),  # it was told
        ("1", -10, 900, 600, "", "it ends 5 min before its class"),
        ("1", 100, 3600, 3430, "", ""),  # 5 % of an hour are three minutes
        ("1", 100, 600, 600, "black from 0:00", "black from 0:00"),
        ("2", 100, 600, 600, "black from 0:00", "black from 0:00"),
    ):
        now, start = time.time(), time.time() + starts_in_s
        with transaction(streamer.engine) as connection:
            connection.execute(update(tasks).values(start_time=start, end_time=start + length_s))
            connection.execute(update(classes).values(video_id=stem))
            connection.execute(update(files).values(id=stem, dead_air=dead_air, duration_s=has_s))
            found = [(one.class_id, one.stem, why) for one, why in airings.untold_faults(connection, now)]
            assert found == [("class-1", stem, told)][: bool(told)]
            events.note(connection, "streamer1", [Event(airings.FAULTS_TOLD, *one) for one in found], now)
            assert not told or [why for _, why in airings.faulty(connection)] == [told]


def test_a_class_whose_recording_comes_late_is_refused_with_the_setting_that_limits_it_most(
    streamer: StreamerHost,
) -> None:
    """At once; what comes in time is taken without a word."""
    streamer.settings = streamer.settings.model_copy(update={"host_rate": "100k", "on_late": "refuse"})
    for record_id, size_bytes, in_s in ((1, 1_000_000, 60), (2, 90_000_000, 250)):
        one = rows.prepare(f"class-{record_id}", record_id, time.time() + in_s, 3650)
        rows.prepared(streamer, one, size_bytes=size_bytes)
    (answer,) = rows.said(streamer, "prepared")
    assert (answer["class_id"], answer["code"]) == ("class-2", 324)
    assert answer["args"]["why"]["args"]["setting"] == "HOST_RATE"


async def test_a_red_forecast_is_told_once_hours_before_the_class(streamer: StreamerHost, checks: Readiness) -> None:
    """The download has become slower than it was when the class was booked; the other class is still in time."""
    now = time.time()
    for record_id, in_s in ((1, 7200), (2, 90_000)):
        rows.prepared(streamer, rows.prepare(f"c-{record_id}", record_id, now + in_s), size_bytes=200_000_000)
    await checks.foresee(now)
    assert streamer.ready_by.keys() == {"c-1", "c-2"}
    assert all(now + 190 < at < now + 250 for at in streamer.ready_by.values())
    left_s = now + 7200 - streamer.ready_by["c-1"]
    assert all_metrics.FORECAST._value.get() == pytest.approx(left_s, abs=1), "of the class that has the least"
    its = update(tasks).where(tasks.c.class_id == "c-1")
    for at, starts in ((now, streamer.ready_by["c-1"] - LOST_S), (now + 7200, now + 7200)):  # a moment of slate; begun
        rows.commit(streamer.engine, Connection.execute, its.values(start_time=starts))
        await checks.foresee(at)
    assert all_metrics.FORECAST._value.get() > 70_000
    assert (alarms(streamer), checks._is_red(now)) == ({}, False)
    streamer.settings = streamer.settings.model_copy(update={"download_rate": "20k"})
    for _ in range(3):
        await checks.foresee(now)
    assert checks._is_red(now)
    assert "after its start" in alarms(streamer)["c-1"]
    told = rows.said(streamer, "airing")
    assert [(one["class_id"], one["event"]) for one in told] == [("c-1", "not_ready")]
    assert "1 will be there at " in told[0]["message"]


async def test_a_change_whose_recording_will_be_late_is_alarmed_once_and_its_class_stays_ready(
    streamer: StreamerHost, checks: Readiness
) -> None:
    """It was in time when it was admitted; until its recording is there, the class is aired as it was."""
    now = time.time()
    add(streamer, "c-1", starts_in_s=7200)
    for later_s in (3700, 3715):  # the check of an hour before
        await checks.check(now + later_s)
    rows.prepared(streamer, rows.prepare("c-1^1", 2, now + 7200), size_bytes=200_000_000)
    await checks.foresee(now)
    assert alarms(streamer) == {}
    streamer.settings = streamer.settings.model_copy(update={"download_rate": "20k"})
    for _ in range(2):
        await checks.foresee(now)
    assert checks._is_red(now)
    assert alarms(streamer).keys() == {"c-1"}
    assert alarms(streamer)["c-1"].count("2 will be there at ") == 1
    assert [(one["class_id"], one["event"]) for one in rows.said(streamer, "airing")] == [("c-1", "ready")]
    with reading(streamer.engine) as connection:
        assert account.checks(connection, ["c-1"])["c-1"].reds == ""


async def test_a_class_whose_recording_came_after_all_is_told_to_be_ready_by_its_next_check(
    streamer: StreamerHost, checks: Readiness
) -> None:
    """It was ready at the check before, then its file was lost, and a forecast said that it would come too late."""
    now = time.time()
    add(streamer, "c-1", starts_in_s=3000)

    def becomes(file: FileState, state: AiringState, size_bytes: int) -> None:
        its = update(files).values(state=file, size_bytes=size_bytes)
        rows.commit(streamer.engine, Connection.execute, its)
        rows.commit(streamer.engine, Connection.execute, update(classes).values(state=state))

    size_bytes = cache_dir.rendition_path(streamer.settings.video_root, "1").stat().st_size
    await checks.check(now)
    streamer.settings = streamer.settings.model_copy(update={"download_rate": "20k"})
    becomes(FileState.DOWNLOADING, AiringState.WAITING, 200_000_000)
    await checks.foresee(now)
    becomes(FileState.READY, AiringState.READY, size_bytes)
    for at in (now + 15, now + 2200):
        await checks.foresee(at)
        await checks.check(at)
    assert [one["event"] for one in rows.said(streamer, "airing")] == ["ready", "not_ready", "ready"]


@pytest.mark.parametrize("by", ["check", "foresee"])
async def test_what_a_check_or_a_forecast_finds_is_told_as_soon_as_the_database_takes_it(
    streamer: StreamerHost, checks: Readiness, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Once. Nothing of it was written when the disk was full, so it is still news then."""
    now, full = time.time(), OperationalError("INSERT INTO outbox", {}, Exception("database or disk is full"))
    rows.prepared(streamer, rows.prepare("c-1", 1, now + 3000), size_bytes=200_000_000)
    streamer.settings = streamer.settings.model_copy(update={"download_rate": "20k"})
    look = getattr(checks, by)
    with monkeypatch.context() as patch:
        patch.setattr(streamer, "write_tx", AsyncMock(side_effect=full))
        with pytest.raises(OperationalError):
            await look(now)
    for _ in range(2):
        await look(now)
    assert [one["event"] for one in rows.said(streamer, "airing")] == ["not_ready"]
    assert alarms(streamer).keys() == {"c-1"}


async def test_the_word_of_a_streamer_tells_what_is_due_and_reads_the_day_once_a_minute(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each heartbeat; of the classes that begin within an hour it has the last check, too.

    And what is wrong with recordings, and when those to come are there.
    """
    ahead = Mock(wraps=readiness.ahead)
    streamer.dead_air, streamer.ready_by = {"due": "black from 0:00"}, {"soon": 5.0}
    for name, starts_in_s in (("due", -5), ("soon", 3000), ("later", 4000)):
        add(streamer, name, starts_in_s=starts_in_s)
        checked = [Event(account.CHECKED, name, "1", "")]
        rows.commit(streamer.engine, events.note, "streamer1", checked, time.time())
    monkeypatch.setattr(readiness, "ahead", ahead)
    streamer.settings = streamer.settings.model_copy(update={"heartbeat_interval_s": 0.01})
    say, saying = cast("Any", streamer.bus).say, asyncio.create_task(readiness.say(streamer))
    await async_wait_until(lambda: say.await_count > 2, description="it is said at each beat")
    await cancelled(saying)
    first, *_, last = (one.args[2] for one in say.await_args_list)
    assert (last.due, set(last.sendings), set(last.checks)) == (1, {"due"}, {"due", "soon"})
    assert (ahead.call_count, set(last.ahead)) == (1, set(first.ahead))
    assert (last.dead_air, last.ready_by) == (streamer.dead_air, streamer.ready_by)


def test_the_table_of_the_cache_shows_what_is_used_kept_and_evictable() -> None:
    kinds = ((FileState.READY, 0), (FileState.READY, 2), (FileState.DOWNLOADING, 0), (FileState.EVICTING, 0))
    known = [Cached(str(number), state, cites, None, None, 10, None) for number, (state, cites) in enumerate(kinds)]
    *lines, oldest = readiness.cache_lines(known, Usage(1000, 7))
    assert [one["renditions"] for one in lines] == [2, 1, 1, 1, 7], "used, reserved, pinned, evictable, at most"
    assert str(oldest["what"]).endswith(" 0")
    assert "0" not in str(readiness.cache_lines([], Usage(1000, 7))[-1]["what"])
