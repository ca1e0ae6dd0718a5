"""Files that an earlier release downloaded get their index before their class."""

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import OperationalError

from flows import handling
from flows import host as hall
from flows.handling import Delivery, changed
from flows.host import StreamerHost
from flows.streamer import broadcast, downloads, prepare, readiness, recording_checks
from flows.streamer.readiness import Readiness
from lectern import errors
from lectern.db import airings, cache
from lectern.db.engine import transaction
from lectern.decide.airing import RUN_AHEAD_S
from lectern.errors import DISK_FULL, Refuse
from lectern.media import integrity
from lectern.media.probe import Probe
from lectern.model.facts import Idle, InboxMessage, Samples
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import classes, files, journal, tasks
from lectern.playout.keyframe_index import Look
from lectern.settings import GIBIBYTE
from lectern.states import AiringState, FileState
from lectern.storage import cache_dir
from lectern.storage.origin import RemoteFile
from tests import flv, rows
from tests.effects.conftest import make_recording
from tests.faults import hosts
from tests.rows import commit, look
from tests.waiting import async_wait_until, cancelled


def put(host: StreamerHost, container: str = "flv") -> Path:
    """A class that begins in a minute, and its recording of 4 s, as an earlier release left it: without an index."""
    path = cache_dir.rendition_path(host.settings.video_root, "1")
    path.parent.mkdir(parents=True)
    make_recording(path, container=container)
    rows.cached(host, rows.prepare("c", 1, time.time() + 60, 5.0), path, {"duration_s": 4.0})
    return path


@pytest.mark.parametrize("container", ["flv", "mp4"])
async def test_a_file_of_an_earlier_release_gets_its_index_before_its_class(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, container: str
) -> None:
    """One that is no FLV file is made one, and the sums are right, although the database took nothing at first.

    Otherwise the check before its class finds another size, and has it downloaded again.
    """
    path = put(streamer, container)
    assert not integrity.has_index(path)
    failed: dict[str, recording_checks.IndexSeen] = {}

    def full(*_: object) -> None:
        raise OperationalError("UPDATE video_list", {}, Exception("database or disk is full"))

    with monkeypatch.context() as disk:
        disk.setattr(recording_checks, "remade", full)
        await recording_checks.make_indexes(streamer, failed)
    await recording_checks.make_indexes(streamer, failed)
    assert (integrity.has_index(path), failed, path.read_bytes()[:3]) == (True, {}, b"FLV")
    (row,) = look(streamer.engine, cache.by_stem, ["1"]).values()
    with transaction(streamer.engine) as connection:
        assert cache.used(connection, streamer.settings.video_root).size_bytes == row.size_bytes == path.stat().st_size


async def test_the_file_of_the_class_that_begins_first_gets_its_index_first(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is made FLV takes minutes, and its class is aired with the slate until then."""
    for in_s, number in enumerate((2, 3, 1), 1):
        site = flv.write(cache_dir.rendition_path(streamer.settings.video_root, str(number)), 20)
        rows.cached(streamer, rows.prepare(f"c-{number}", number, time.time() + 100 * in_s, 20.0), site)
    monkeypatch.setattr(recording_checks, "_index", index := AsyncMock())
    await recording_checks.make_indexes(streamer, {})
    assert [its.args[1].stem for its in index.await_args_list] == ["2", "3", "1"]


async def test_a_file_that_is_made_flv_holds_up_no_class_and_does_not_come_back_if_it_is_evicted(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may take half an hour, in which each booking of this streamer would wait for its answer."""
    path = put(streamer, "mp4")
    plain, gone = integrity.looked, Idle("1", path.stat().st_size)

    def evict(_connection: Connection, changes: StreamerChanges) -> None:
        changes.evict([gone])

    async def looked(one: Path) -> tuple[Look, Path]:
        found = await plain(one)
        async with asyncio.timeout(10), streamer.cache_lock:
            await changed(streamer, evict)
            await prepare.remove_files(streamer, [gone.stem])
        return found

    monkeypatch.setattr(integrity, "looked", looked)
    await recording_checks.make_indexes(streamer, {})
    assert caplog.text == ""
    assert not path.parent.exists()


@pytest.mark.parametrize("error", [Refuse("No space left on device", DISK_FULL), IndexError("odd")], ids=repr)
async def test_a_file_that_can_get_no_index_is_tried_again_when_it_is_another_one_or_the_disk_was_full(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Its class would be aired with the slate, although there is room by then. So is one that hit an odd error."""
    path = put(streamer)
    good = path.read_bytes()
    monkeypatch.setattr(recording_checks, "AGAIN_S", 0.0)
    failed: dict[str, recording_checks.IndexSeen] = {}

    def no_room(*_: object) -> None:
        raise error

    def replaced(*_: object) -> None:
        path.write_bytes(b"another")
        raise error

    with monkeypatch.context() as full:
        full.setattr(integrity, "write_index", no_room)
        await recording_checks.make_indexes(streamer, failed)
        assert caplog.text.count("can get no index") == 1
        full.setattr(integrity, "write_index", replaced)
        await recording_checks.make_indexes(streamer, failed)
    assert failed == {}, "it says nothing of a file that was replaced meanwhile"
    for _ in range(2):  # by what is no recording
        await recording_checks.make_indexes(streamer, failed)
    assert (list(failed), caplog.text.count("can get no index")) == (["1"], 2)
    path.write_bytes(good)
    await recording_checks.make_indexes(streamer, failed)
    assert (integrity.has_index(path), failed) == (True, {})


@pytest.mark.parametrize(("loop", "work"), [("keep_indexes", "make_indexes"), ("keep_dead_air", "look_for_dead_air")])
async def test_a_file_that_takes_long_makes_no_host_stand_still(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, loop: str, work: str
) -> None:
    """One that is no FLV file may take half an hour: after a minute of it /health said that the loop stands still."""
    has_begun = asyncio.Event()

    async def for_ever(*_: object) -> None:
        has_begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(airings, "unlooked", lambda *_: "a row")
    monkeypatch.setattr(recording_checks, work, for_ever)
    working = asyncio.create_task(getattr(recording_checks, loop)(streamer))
    await has_begun.wait()
    assert streamer.watchdog.stalled(-1.0) == {}
    await cancelled(working)


async def test_each_recording_is_looked_through_once_and_its_faults_are_told(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One after the other, as long as there is one; faults are told with the checks of the classes."""
    looked = list[tuple[str, float]]()
    for number in (1, 2, 3):
        site = flv.write(cache_dir.rendition_path(streamer.settings.video_root, str(number)), 20)
        rows.cached(streamer, rows.prepare(f"c-{number}", number, time.time() + 100 * number, 20.0), site)

    async def samples(path: Path, length_s: float) -> Samples:
        looked.append((path.stem, length_s))
        if path.stem == "3":
            raise IndexError("a line of one word")
        black = ((0.0, 0, False), (5.0, 0, False), (10.0, 0, False), (15.0, 0, False))
        return Samples(length_s, black if path.stem == "1" else (), (), None if path.stem == "1" else -23.0)

    def told(stem: str) -> str:
        its = select(journal.events.c.detail).where(journal.events.c.stem == stem)
        said = its.where(journal.events.c.what == "looked through")
        return str(look(streamer.engine, Connection.execute, said).scalar_one_or_none() or "")

    checks = Readiness(streamer, cast("Any", None))
    for other in ("foresee", "check", "_show"):
        monkeypatch.setattr(checks, other, AsyncMock())
    monkeypatch.setattr(recording_checks, "samples", samples)
    monkeypatch.setattr(recording_checks, "publish_outbox", rows.unsent)
    monkeypatch.setattr(recording_checks, "DEAD_AIR_EVERY_S", 0.01)
    monkeypatch.setattr(readiness, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(streamer.watchdog, "beat", (rounds := list[str]()).append)
    unlooked = Mock(wraps=airings.unlooked)
    monkeypatch.setattr(airings, "unlooked", unlooked)
    works = [asyncio.create_task(one) for one in (recording_checks.keep_dead_air(streamer), checks.run())]
    await async_wait_until(lambda: told("3") and streamer.dead_air, description="all are looked through, and told")
    rounds.clear()
    unlooked.reset_mock()
    await async_wait_until(
        lambda: min(unlooked.call_count, len(rounds)) > 2, description="there was nothing to do twice"
    )
    for work in works:
        await cancelled(work)
    assert (looked, set(streamer.dead_air)) == ([(stem, 20.0) for stem in "123"], {"c-1"})
    assert [one["class_id"] for one in rows.said(streamer, "alarm")] == ["c-1"]
    assert told("1") == streamer.dead_air["c-1"]
    assert "-23 LUFS" in told("2")
    hall.current.set(streamer)
    caplog.clear()  # the alarm said the same
    running = asyncio.create_task(broadcast.broadcast.fn("c-1"))
    faulty = f"c-1: its recording 1 is faulty: {told('1')}"
    await async_wait_until(lambda: faulty in caplog.messages, description="the run of its broadcast says so")
    await cancelled(running)


PROBE = Probe(10.0, 10, last_second_decodes=True)
SOON_S = 300 + RUN_AHEAD_S
LONG_S = 1000
"""Seconds until the class is over."""


def test_alarm_of_change_whose_recording_comes_too_late_names_class_that_people_know(streamer: StreamerHost) -> None:
    streamer.settings = streamer.settings.model_copy(update={"on_late": "slate"})
    one = rows.prepare("c-1^1", 6666, int(hosts.now()) + 100, 9 * LONG_S)
    rows.prepared(streamer, one, size_bytes=int(streamer.settings.download_rate_bytes * LONG_S))
    (alarm,) = rows.said(streamer, "alarm")
    assert alarm["class_id"] == "c-1"
    assert alarm["message"].startswith("c-1 begins in ")


def test_a_download_that_ends_after_a_class_readies_the_others_alone(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the first can be aired any more; its playout may have sent its slate, and says so at its end."""
    now = hosts.now()
    monkeypatch.setattr(time, "time", lambda: now)
    both = [rows.prepare(f"c-{left_s}", 6666, now - 9, left_s + 9) for left_s in (60, 600)]
    rows.prepared(streamer, *both)
    with transaction(streamer.engine) as connection:
        connection.execute(update(tasks).where(tasks.c.class_id == "c-60").values(end_time=now))
        remote = RemoteFile(both[0].video_url, 10, None, None)
        handling.change(connection, streamer, downloads.arrived("6666", remote, PROBE))
    # Their rendition is here: a class that comes late is refused all the same.
    rows.prepared(streamer, rows.prepare("c-late", 6666, now - 9, 8))
    found = look(streamer.engine, Connection.execute, select(classes.c.class_id, classes.c.state, classes.c.code)).all()
    reports = [(one["class_id"], one["code"]) for one in rows.said(streamer, "prepared")]
    ended = errors.ENDED.number
    states = {("c-60", "waiting", None), ("c-600", "ready", None), ("c-late", "refused", ended)}
    assert {tuple(one) for one in found} == states
    assert sorted(reports) == [("c-600", 0), ("c-late", ended)]


@pytest.mark.parametrize(
    ("takes_s", "came_s", "code"),
    [(LONG_S + 60, 0, errors.NOT_READY_FOR_START.number), (LONG_S * 0.7, 0, None), (LONG_S + 60, 320, None)],
    ids=["it ends after the class", "it ends within the class", "a part came before a restart"],
)
def test_a_download_is_begun_if_it_ends_within_its_class(
    streamer: StreamerHost, takes_s: float, came_s: float, code: int | None
) -> None:
    """Nothing is reserved for a class that is refused; one that was booked late is aired from the clock's position."""
    part = cache_dir.part_path(streamer.settings.video_root, "6666")
    part.parent.mkdir(parents=True)
    with part.open("wb") as file:
        file.truncate(int(streamer.settings.download_rate_bytes * came_s))
    one = rows.prepare("c-1", 6666, hosts.now() - 10, LONG_S + 10)
    rows.prepared(streamer, one, size_bytes=int(streamer.settings.download_rate_bytes * takes_s))
    its = look(streamer.engine, Connection.execute, select(classes.c.state, classes.c.code)).one()
    assert its == ("refused" if code else "waiting", code)
    assert len(look(streamer.engine, Connection.execute, select(files.c.id)).all()) == (code is None)


@pytest.mark.parametrize("bound", [{"max_video_num": 2}, {"max_video_size": 25.5 / GIBIBYTE}], ids=str)
def test_a_cache_that_was_made_smaller_is_evicted_down_to_its_bound(
    streamer: StreamerHost, bound: dict[str, float]
) -> None:
    """With the next class; and what is being evicted must come again, while the rest needs no look at its origin."""
    root, now = streamer.settings.video_root, hosts.now()
    wanted = [rows.prepare(f"c-{record}", record, now + 900) for record in (1, 2, 3, 4)]
    for one in wanted[:3]:
        commit(streamer.engine, rows.reserve, root, one.stem, 10, one.video_url, now)
    commit(streamer.engine, Connection.execute, update(files).values(state=FileState.READY))
    commit(streamer.engine, cache.recount, root, {})
    streamer.settings = streamer.settings.model_copy(update=bound)
    assert len(rows.prepared(streamer, wanted[3]).evicted) == 2
    came = [Delivery(InboxMessage(number, "prepare", "", 0), one) for number, one in enumerate(wanted)]
    _, here = look(streamer.engine, prepare.with_stems, came)
    assert (len(here), "4" in here) == (2, True)


def test_whoever_works_for_what_begins_soon_is_woken(streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storm of classes for tomorrow wakes nobody but who begins downloads."""
    now, waiting, ready = hosts.now(), AiringState.WAITING, AiringState.READY
    monkeypatch.setattr(time, "time", lambda: now)
    events = {"unfetched": streamer.unfetched, "unplanned": streamer.unplanned, "wanted": streamer.playout.wanted}
    cases: list[tuple[list[str], list[float], list[tuple[float, AiringState]], set[str]]] = [
        (["1"], [], [], {"unfetched"}),
        ([], [SOON_S - 1, SOON_S], [], {"unplanned", "wanted"}),
        ([], [SOON_S], [(SOON_S, waiting), (0, ready)], set()),
        ([], [], [(0, ready), (SOON_S - 1, waiting), (SOON_S, waiting)], {"wanted"}),
    ]
    for reserved, ready_in_s, admitted, woken in cases:
        for event in events.values():
            event.clear()
        taken = [(rows.prepare("c", 1, now + in_s), state) for in_s, state in admitted]
        its = {"ready": [now + in_s for in_s in ready_in_s], "reserved": reserved, "sends": [], "admitted": taken}
        prepare.follow(streamer, cast("Any", SimpleNamespace(**its)))
        assert {name for name, event in events.items() if event.is_set()} == woken
