"""One odd class on a streamer is that class's trouble: the others are checked, planned, and taken off the timetable."""

import asyncio
import errno
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Connection, select, update

from flows import prefect_api
from flows.handling import SWEEP
from flows.host import StreamerHost
from flows.playout_link import Watch
from flows.prefect_api import BackgroundRuns, NewRun
from flows.streamer import broadcast, downloads, readiness
from flows.streamer.readiness import Readiness
from lectern import health
from lectern.allowlist import Allowlist
from lectern.db import airings, cache, events, metrics
from lectern.db.engine import reading, transaction
from lectern.errors import TryAgain
from lectern.model.facts import Airing, Event
from lectern.model.tables.streamer import classes, files, journal, tasks
from lectern.states import AiringState, FileState
from lectern.storage import cache_dir
from tests import flv, rows
from tests.faults.turns import Quiet


class Bus(Quiet):
    """A Redis with the right time."""

    async def now(self) -> float:
        return time.time()


class Runs:
    """Prefect's runs: some classes are refused by it, some were cancelled in the UI."""

    def __init__(self) -> None:
        self.odd: dict[str, Exception] = {}
        self.slow_s = 0.0
        self.wanted: list[str] = []
        self.made: list[str] = []
        self.cancelled_ids: set[str] = set()
        self.asked: list[int] = []
        self.alone: list[str] = []

    async def start(self, run: NewRun, at: float = 0) -> str:
        class_id = str(run.parameters.get("class_id", run.parameters.get("stem")))
        self.wanted.append(class_id)
        if self.slow_s:
            await asyncio.sleep(self.slow_s)
        if class_id in self.odd:
            raise self.odd[class_id]
        self.made.append(class_id)
        return f"run-{class_id}"

    schedule = start

    def is_at_work(self, run_id: str) -> bool:
        """Whether it is executed here."""
        return run_id.removeprefix("run-") in self.made

    async def cancelled(self, run_ids: Sequence[str]) -> list[str]:
        """Those that somebody cancelled."""
        self.asked.append(len(run_ids))
        return [one for one in run_ids if one in self.cancelled_ids]

    def end(self, run_id: str, reason: str) -> bool:
        return False

    async def without(self, run: NewRun) -> None:
        self.alone.append(str(run.parameters["stem"]))

    def draining(self) -> bool:
        return False


@pytest.fixture
def streamer(streamer: StreamerHost) -> StreamerHost:
    """A streamer that holds its lease, with a cache in a folder."""
    streamer.bus, streamer.runs = cast("Any", Bus()), cast("Any", Runs())
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
    with transaction(host.engine) as connection:
        connection.exec_driver_sql("UPDATE task_list SET start_time = 'soon' WHERE class_id = ?", (class_id,))


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

    So is a row of the old program, or written by hand, that cannot be read: it is one alarm, once.
    """
    add(streamer, "good")
    await checks.check(time.time())
    assert not checks._is_red(time.time())
    add(streamer, "bad", push_url="rtmp://odd.example:99999/live/x")
    await checks.check(time.time())
    assert checks._is_red(time.time())
    assert not checks._is_red(time.time() + 300), "the checks are minutes apart: it ends as they begin"
    add(streamer, "gone", "2")
    (streamer.settings.video_root / "2" / "2.flv").unlink()
    add(streamer, "old")
    spoil(streamer, "old")
    await checks.check(time.time())
    said = alarms(streamer)
    assert said.keys() == {"bad", "gone", "old"}
    assert "port out of range" in said["bad"]
    assert "live/x" not in said["bad"], "a stream key is a secret"
    assert "its file is gone" in said["gone"]
    assert "'soon'" in said["old"]
    signs = {class_id: checks._line(one)["ready"] for class_id, one in checks._live.items()}
    assert (signs["good"], signs["bad"]) == ("●", "✗")
    rows.commit(streamer.engine, Connection.execute, journal.outbox.delete())
    await checks.check(time.time())
    assert alarms(streamer) == {}


@pytest.mark.parametrize(
    "change", [{"start_time": 3000.0}, {"push_url": "rtmp://other.example/live/y"}], ids=["its time", "its push URL"]
)
async def test_a_class_that_is_changed_after_its_last_check_is_checked_again(
    streamer: StreamerHost, checks: Readiness, change: dict[str, Any]
) -> None:
    """It was checked five minutes before the start of then; what it is now, nobody has looked at."""
    now = time.time()
    add(streamer, "moved")
    await checks.check(now)
    assert alarms(streamer) == {}
    cache_dir.rendition_path(streamer.settings.video_root, "1").unlink()
    its = {name: now + value if name == "start_time" else value for name, value in change.items()}
    with transaction(streamer.engine) as connection:
        connection.execute(update(tasks).where(tasks.c.class_id == "moved").values(**its, end_time=now + 4000))
    await checks.check(now + 1)
    assert "its file is gone" in alarms(streamer)["moved"]
    rows.commit(streamer.engine, Connection.execute, journal.outbox.delete())
    await checks.check(now + 2)
    assert alarms(streamer) == {}, "once"


async def test_a_file_that_cannot_be_read_just_now_is_told_and_not_downloaded_again(
    streamer: StreamerHost, checks: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All recordings of the next hour would be put aside at once, because this process has too many open files."""
    add(streamer, "good")

    def too_many(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    with monkeypatch.context() as full:
        full.setattr(Path, "open", too_many)
        await checks.check(time.time())
    assert "its file cannot be read" in alarms(streamer)["good"]
    assert "Too many open files" in alarms(streamer)["good"]
    assert cache_dir.rendition_path(streamer.settings.video_root, "1").exists()
    assert states(streamer) == {"good": "ready"}


async def test_a_file_that_cannot_be_put_aside_keeps_no_other_from_being_downloaded_again(
    streamer: StreamerHost, checks: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each class is checked and alarmed once, not every 15 s."""
    replaced: list[str] = []

    async def replace(_host: StreamerHost, stem: str, _why: str) -> None:
        replaced.append(stem)
        if stem == "2":
            raise RuntimeError("odd")

    monkeypatch.setattr(downloads, "redownload", replace)
    for number in ("1", "2", "3"):
        add(streamer, f"c-{number}", number)
        (streamer.settings.video_root / number / f"{number}.flv").unlink()
    for _ in range(2):
        await checks.check(time.time())
    assert sorted(replaced) == ["1", "2", "3"]


async def test_an_odd_row_hides_no_other_from_whoever_reads_the_classes(streamer: StreamerHost) -> None:
    """Nobody else's class is left out of the timetable, the metrics, or what is due."""
    now = time.time()
    for name in ("good", "old", "word"):
        add(streamer, name, starts_in_s=-5)
    spoil(streamer, "old")
    fire = update(classes).where(classes.c.class_id == "word").values(state="on fire")
    rows.commit(streamer.engine, Connection.execute, fire)
    with reading(streamer.engine) as connection:
        assert [one.class_id for one in airings.live(connection)] == ["good"]
        assert [one.class_id for one in airings.due(connection, now, now)] == ["good"]
        assert [one.class_id for one in airings.citing(connection, "1", {AiringState.READY})] == ["good"]
        assert airings.over(connection, now) == []
        assert airings.unreadable(connection).keys() == {"old"}
        assert b"lectern_classes_not_on_air 1.0" in metrics.exposition("streamer", "x", connection)


def test_of_classes_that_begin_later_nobody_reads_the_rows(streamer: StreamerHost) -> None:
    """Whoever looks every few seconds looks at those that begin soon; an old program's date is read all the same."""
    starts = {"soon": 100.0, "soon-dated": 110.0, "later": 90_000.0, "later-dated": 90_010.0, "odd": 0.0}
    now = time.time()
    for name, starts_in_s in starts.items():
        add(streamer, name, starts_in_s=starts_in_s)
        dated = datetime.fromtimestamp(now + starts_in_s, UTC).isoformat(" ")
        end_time = airings.BEYOND if name == "odd" else now + 99_999
        with transaction(streamer.engine) as connection:
            values = (dated if "dated" in name else now + starts_in_s, end_time, name)
            connection.exec_driver_sql("UPDATE task_list SET start_time = ?, end_time = ? WHERE class_id = ?", values)
    with reading(streamer.engine) as connection:
        assert [one.class_id for one in airings.live(connection, now + 200)] == ["soon", "soon-dated"]
        assert {one.class_id for one in airings.live(connection)} == starts.keys() - {"odd"}
        assert airings.unreadable(connection).keys() == {"odd"}


async def test_a_class_that_prefect_does_not_take_holds_up_no_other(streamer: StreamerHost) -> None:
    """It is tried again later; the guard airs it without a run."""
    for number, name in enumerate(("odd", "refused", "good")):
        add(streamer, name, starts_in_s=100 + number)
    runs = cast("Runs", streamer.runs)
    runs.odd = {
        "odd": UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        "refused": TryAgain("409"),
    }
    plan = broadcast.RunScheduler(streamer)
    for _ in range(3):
        await plan.step()
    assert runs.made == ["good"]
    runs.odd.clear()
    plan._aside.clear()
    streamer.unplanned.set()
    await plan.step()
    assert sorted(runs.made) == ["good", "odd", "refused"]


async def test_classes_for_later_are_read_together_and_planned_as_they_are_then(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look through all of them before each run would take longer than the run."""
    monkeypatch.setattr(broadcast, "CALM_S", -1.0)
    for number in range(4):
        add(streamer, f"c-{number}", starts_in_s=90_000 + number)
    looks: list[int] = []
    unscheduled = airings.unscheduled

    def counted(connection: Connection, before: float, limit: int, but: list[str]) -> list[Airing]:
        looks.append(limit)
        return unscheduled(connection, before, limit, but)

    monkeypatch.setattr(airings, "unscheduled", counted)
    plan = broadcast.RunScheduler(streamer)
    await plan.step()
    with transaction(streamer.engine) as connection:
        connection.execute(update(classes).where(classes.c.class_id == "c-1").values(state=AiringState.CANCELLED))
    for _ in range(2):
        await plan.step()
    assert cast("Runs", streamer.runs).made == ["c-0", "c-2", "c-3"]
    assert len(looks) == 2, "once for those that begin soon, once for the others"


async def test_a_class_that_gets_ready_and_begins_soon_is_planned_before_those_for_later(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast, "CALM_S", -1.0)
    for number in range(3):
        add(streamer, f"later-{number}", starts_in_s=90_000 + number)
    plan = broadcast.RunScheduler(streamer)
    await plan.step()
    add(streamer, "soon", starts_in_s=30)
    streamer.unplanned.set()
    await plan.step()
    assert cast("Runs", streamer.runs).made == ["later-0", "soon"]


def states(host: StreamerHost) -> dict[str, str]:
    with reading(host.engine) as connection:
        return {row.class_id: row.state for row in connection.execute(select(classes.c.class_id, classes.c.state))}


def planned(host: StreamerHost, class_id: str, state: AiringState = AiringState.READY) -> None:
    """The class has a run, and is in *state*."""
    with transaction(host.engine) as connection:
        its = update(classes).where(classes.c.class_id == class_id)
        connection.execute(its.values(run_id=f"run-{class_id}", state=state))


async def test_a_cancelled_run_of_a_class_on_air_that_nobody_watches_ends_the_class(streamer: StreamerHost) -> None:
    """Its process died, and a person pressed Cancel meanwhile: the class is not aired again after the start."""
    for class_id in ("died", "watched", "ready"):
        add(streamer, class_id, starts_in_s=-20)
        planned(streamer, class_id, AiringState.READY if class_id == "ready" else AiringState.ON_AIR)
    streamer.playout.watches["watched"] = Watch("run-watched")  # its run is ended by its own cancel
    cast("Runs", streamer.runs).cancelled_ids = {"run-died", "run-watched", "run-ready"}
    await broadcast.CancelledRuns(streamer).look()
    assert states(streamer) == {"died": "cancelled", "watched": "on air", "ready": "cancelled"}


async def test_a_cancel_is_seen_however_many_classes_begin_before_that_one(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect is asked about at most two pages at a time."""
    monkeypatch.setattr(broadcast, "PAGE", 20)
    for number in range(90):
        add(streamer, f"c-{number}", starts_in_s=1000 + number)
        planned(streamer, f"c-{number}")
    runs = cast("Runs", streamer.runs)
    runs.cancelled_ids = {"run-c-3", "run-c-88"}
    cancels = broadcast.CancelledRuns(streamer)
    await cancels.look()
    assert states(streamer)["c-3"] == "cancelled"
    for _ in range(4):
        await cancels.look()
    assert states(streamer)["c-88"] == "cancelled"
    assert max(runs.asked) <= 20
    assert len(runs.asked) == 10


# -- downloads ---------------------------------------------------------------------------------------------------------


def downloading(host: StreamerHost, stem: str) -> Path:
    """A class that waits for a download, whose process died with some of it on the disk; returns its part."""
    add(host, f"class-{stem}", stem)
    part = cache_dir.part_path(host.settings.video_root, stem)
    part.write_bytes(b"x" * 500)
    with transaction(host.engine) as connection:
        its = {"state": FileState.DOWNLOADING, "run_id": f"run-{stem}", "update_time": time.time() - 60}
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
    assert runs.made == [], "the runs of the last process may be taken up yet"
    await line.step()
    assert runs.made == ["2"]
    assert states(streamer) == {"class-1": "refused", "class-2": "waiting"}
    assert [part.exists() for part in parts] == [False, True]
    with reading(streamer.engine) as connection:
        one = airings.by_id(connection, ["class-1"])["class-1"]
        assert (one.code, one.message) == (411, "the download of 1 was cancelled in the UI")
        assert cache.used(connection, streamer.settings.video_root).num == 1
        assert cache.by_stem(connection, ["1"])["1"].state is FileState.BAD
    await downloads.give_up(streamer, "1", downloads.cancelled("1"))  # twice is as good as once
    assert states(streamer)["class-1"] == "refused"


async def test_after_a_restart_no_more_downloads_are_at_work_than_may_be(streamer: StreamerHost) -> None:
    """Else each restart would add as many, and take from the classes on air what they need."""
    runs = cast("Runs", streamer.runs)
    streamer.settings = streamer.settings.model_copy(update={"max_downloads": 2})
    for stem in ("1", "2", "3", "4"):
        downloading(streamer, stem)
    with transaction(streamer.engine) as connection:
        connection.execute(update(files).where(files.c.id.in_(["3", "4"])).values(run_id=None))
    line = downloads.DownloadQueue(streamer)
    for _ in range(2):
        await line.step()
    assert runs.made == [], "the runs of the last process may be taken up yet"
    streamer.in_progress |= {"1", "2"}
    line._left_at -= downloads.AGAIN_S
    await line.step()
    assert runs.made == [], "they were"
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
    runs = cast("Runs", streamer.runs)
    monkeypatch.setattr(downloads, "AGAIN_S", 0.0)
    line = downloads.DownloadQueue(streamer)
    for _ in range(2):
        await line.step()
    assert (runs.made, runs.alone) == (["1", "2"], [])
    monkeypatch.setattr(downloads, "BEGINS_S", 0.0)
    await line.step()
    await asyncio.sleep(0)
    assert runs.alone == ["1", "2"]


async def test_downloads_do_not_ask_a_prefect_that_took_no_run_just_before(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would wait for its answer, and keep a place meanwhile."""
    runs = cast("Runs", streamer.runs)
    streamer.settings = streamer.settings.model_copy(update={"max_downloads": 1})
    for stem in ("1", "2"):
        downloading(streamer, stem)
        runs.odd[stem] = TryAgain("Prefect does not take the run")
    monkeypatch.setattr(prefect_api, "PATIENCE_S", 0.0)
    line = downloads.DownloadQueue(streamer)
    line._left = set()  # its runs are of this process
    for _ in range(2):
        await line.step()
        await asyncio.sleep(0)
    assert (set(runs.alone), len(runs.wanted)) == ({"1", "2"}, 1)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """A Prefect that takes no run, and says so after a moment; a real one after up to five seconds."""
    monkeypatch.setattr(prefect_api, "PATIENCE_S", 0.0)
    runs = Runs()
    runs.slow_s, runs.odd = 0.3, dict.fromkeys(map(str, range(40)), TryAgain("Prefect does not take the run"))
    return runs


async def begin(mine: BackgroundRuns, runs: Runs, number: int, *, needs_run: bool = False) -> None:
    """Downloads are begun beside the work, and have ended."""
    for stem in map(str, range(number)):
        mine.begin(cast("Any", runs), NewRun("download", {"stem": stem}, f"download {stem}"), needs_run=needs_run)
    async with asyncio.timeout(20):
        await asyncio.gather(*mine._waiting.values())
        await asyncio.gather(*mine._working)


async def test_downloads_do_not_wait_one_after_the_other_for_a_prefect_that_is_away(away: Runs) -> None:
    """Those at the front of the line find it out; the others begin at once, without a run."""
    await begin(BackgroundRuns(), away, len(away.odd))
    assert sorted(away.alone) == sorted(away.odd)
    assert len(away.wanted) <= prefect_api.AT_ONCE


async def test_prefect_is_asked_again_after_a_while(away: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is back, runs are shown again."""
    monkeypatch.setattr(prefect_api, "CIRCUIT_OPEN_S", 0.0)
    mine = BackgroundRuns()
    await begin(mine, away, 1)
    away.odd.clear()
    await begin(mine, away, 1)
    assert (away.alone, away.made) == (["0"], ["0"])


async def test_work_that_needs_a_run_asks_every_time(away: Runs) -> None:
    """Nothing of it can be done without, so it waits for its own answer."""
    await begin(BackgroundRuns(), away, 2 * prefect_api.AT_ONCE, needs_run=True)
    assert (len(away.wanted), away.alone) == (2 * prefect_api.AT_ONCE, [])


def test_the_recording_of_the_class_that_begins_first_is_looked_through_first(streamer: StreamerHost) -> None:
    """Not that of a short class that begins later, but is over before."""
    add(streamer, "long", "1", starts_in_s=100)
    add(streamer, "short", "2", starts_in_s=200)
    now = time.time()
    with transaction(streamer.engine) as connection:
        connection.execute(update(tasks).where(tasks.c.class_id == "long").values(end_time=now + 9000))
        found = airings.unlooked(connection, now)
        assert found is not None
        assert found.stem == "1"


def test_dead_air_is_told_of_each_recording_of_a_class(streamer: StreamerHost) -> None:
    """If the class was changed to another recording because of the first alarm, that one may be black as well."""
    for stem in ("1", "2"):
        add(streamer, f"class-{stem}", stem)
    now = time.time()
    with transaction(streamer.engine) as connection:
        connection.execute(update(files).values(dead_air="black from 0:00", duration_s=600.0))
        untold = [(one.class_id, one.stem) for one, _ in airings.untold_faults(connection, now)]
        assert untold == [("class-1", "1"), ("class-2", "2")]
        told = [Event(airings.FAULTS_TOLD, class_id, stem, "black from 0:00") for class_id, stem in untold]
        events.note(connection, journal, "streamer1", told, now)
        assert airings.untold_faults(connection, now) == []
        connection.execute(update(classes).where(classes.c.class_id == "class-1").values(video_id="2"))
        assert [(one.class_id, one.stem) for one, _ in airings.untold_faults(connection, now)] == [("class-1", "2")]


def test_a_recording_that_is_too_short_is_told_when_here_and_when_changed(streamer: StreamerHost) -> None:
    """Also on air: an end past the recording's end leaves the rest of the class without anything to send."""
    add(streamer, "class-1", "1")
    now = time.time()

    def untold(length_s: float, *, on_air: bool = False) -> list[str]:
        with transaction(streamer.engine) as connection:
            start = now - 10 if on_air else now + 100
            connection.execute(update(tasks).values(start_time=start, end_time=start + length_s))
            connection.execute(update(files).values(dead_air="", duration_s=600.0))
            found = airings.untold_faults(connection, now)
            told = [Event(airings.FAULTS_TOLD, one.class_id, one.stem, why) for one, why in found]
            events.note(connection, journal, "streamer1", told, now)
            assert [why for _, why in airings.faulty(connection)] == [why for _, why in found] or not found
            return [why for _, why in found]

    assert untold(655) == [], "up to a minute is no fault"
    assert untold(661) == ["it ends 1 min 1 s before its class"]
    assert untold(661) == [], "it was told"
    assert untold(900, on_air=True) == ["it ends 5 min before its class"]
    with transaction(streamer.engine) as connection:
        connection.execute(update(files).values(duration_s=3430.0))
        connection.execute(update(tasks).values(start_time=now + 100, end_time=now + 3700))
        assert airings.untold_faults(connection, now) == [], "5 % of an hour are three minutes"


@pytest.mark.parametrize("setting", ["DOWNLOAD_RATE", "HOST_RATE"])
@pytest.mark.parametrize("on_late", ["refuse", "slate"])
def test_a_class_whose_recording_comes_after_its_start_is_refused_or_told_until_when_its_slate_is_sent(
    streamer: StreamerHost, setting: str, on_late: str
) -> None:
    """At once, with the numbers; what comes in time is taken without a word."""
    now, reserved = time.time(), list[str]()
    streamer.settings = streamer.settings.model_copy(update={setting.lower(): "100k", "on_late": on_late})
    for record_id, size_bytes, in_s in ((1, 1_000_000, 20), (2, 90_000_000, 250)):
        one = rows.prepare(f"class-{record_id}", record_id, now + in_s, 3650)
        reserved += rows.prepared(streamer, one, size_bytes=size_bytes).reserved
    (answer,) = rows.said(streamer, "prepared")
    assert answer["class_id"] == "class-2"
    if on_late == "refuse":
        assert (answer["result"], answer["code"], reserved) == ("fail", 324, ["1"])
        assert " min after the class begins: " in answer["message"]
        assert f"its download of 90.0 MB takes 14 min at {setting} 100k" in answer["message"]
    else:
        assert (answer["result"], answer["code"], reserved) == ("success", 0, ["1", "2"])
        assert answer["message"].startswith("accepted; the slate is sent until about ")
        assert alarms(streamer).keys() == {"class-2"}


async def test_a_red_forecast_is_told_once_hours_before_the_class(streamer: StreamerHost, checks: Readiness) -> None:
    """The download has become slower than it was when the class was booked; the other class is still in time."""
    now = time.time()
    for record_id, in_s in ((1, 7200), (2, 90_000)):
        rows.prepared(streamer, rows.prepare(f"c-{record_id}", record_id, now + in_s), size_bytes=200_000_000)
    await checks.foresee(now)
    assert streamer.ready_by.keys() == {"c-1", "c-2"}
    assert all(now + 190 < at < now + 250 for at in streamer.ready_by.values())
    assert (alarms(streamer), checks._is_red(now)) == ({}, False)
    streamer.settings = streamer.settings.model_copy(update={"download_rate": "20k"})
    for _ in range(2):
        await checks.foresee(now)
    assert checks._is_red(now)
    assert "after its start" in alarms(streamer)["c-1"]
    told = rows.said(streamer, "airing")
    assert [(one["class_id"], one["event"]) for one in told] == [("c-1", "not_ready")]
    assert "1 will be there at " in told[0]["message"]
