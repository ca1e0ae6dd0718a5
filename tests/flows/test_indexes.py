"""Files that an earlier release downloaded get their index before their class."""

import asyncio
import time
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import OperationalError

from flows import handling
from flows.handling import changed
from flows.host import StreamerHost
from flows.streamer import downloads, prepare, recording_checks
from lectern import errors, subprocesses
from lectern.db import cache
from lectern.db.engine import transaction
from lectern.decide import airing
from lectern.errors import DISK_FULL, Refuse
from lectern.media import ffmpeg, integrity
from lectern.media.probe import Probe
from lectern.model.facts import Airing, Idle
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import classes, files, tasks
from lectern.playout.keyframe_index import Look
from lectern.states import AiringState
from lectern.storage import cache_dir
from lectern.storage.origin import RemoteFile
from lectern.wire.messages import Report
from tests import rows
from tests.faults import hosts
from tests.rows import look


async def put(host: StreamerHost, container: str = "flv") -> Path:
    """A class that begins in a second, and its recording of 4 s, as an earlier release left it: without an index."""
    path = cache_dir.rendition_path(host.settings.video_root, "1")
    path.parent.mkdir(parents=True)
    argv = [ffmpeg.executable(), "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=4"]
    argv += ["-f", "lavfi", "-i", "sine=duration=4", "-c:v", "libx264", "-g", "25", "-c:a", "aac", "-f", container]
    assert (await subprocesses.run([*argv, str(path)], timeout_s=60)).returncode == 0
    rows.cached(host, rows.prepare("c", 1, time.time() + 1, 5.0), path, {"duration_s": 4.0})
    return path


@pytest.mark.parametrize("container", ["flv", "mp4"])
async def test_a_file_of_an_earlier_release_gets_its_index_before_its_class(
    streamer: StreamerHost, container: str
) -> None:
    """One that is no FLV file is made one, and the sums are right."""
    path = await put(streamer, container)
    assert not integrity.has_index(path)
    failed: dict[str, recording_checks.IndexSeen] = {}
    await recording_checks.make_indexes(streamer, failed)
    assert (integrity.has_index(path), failed) == (True, {})
    assert path.read_bytes()[:3] == b"FLV"
    (row,) = look(streamer.engine, cache.by_stem, ["1"]).values()
    with transaction(streamer.engine) as connection:
        assert cache.used(connection, streamer.settings.video_root).size_bytes == row.size_bytes == path.stat().st_size


async def test_a_file_that_is_made_flv_holds_up_no_class_and_does_not_come_back_if_it_is_evicted(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may take half an hour, in which each booking of this streamer would wait for its answer."""
    path = await put(streamer, "mp4")
    plain, gone = integrity.looked, Idle("1", path.stat().st_size)

    def evict(_connection: Connection, changes: StreamerChanges) -> None:
        changes.evict([gone])

    async def looked(one: Path) -> tuple[Look, Path]:
        found = await plain(one)
        async with asyncio.timeout(10), streamer.cache_lock:
            await changed(streamer, evict)
            await prepare.remove_files(streamer, [gone])
        return found

    monkeypatch.setattr(integrity, "looked", looked)
    await recording_checks.make_indexes(streamer, {})
    assert caplog.text == ""
    assert not path.parent.exists()


async def test_a_file_that_the_disk_had_no_room_for_is_tried_again(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its class would be aired with the slate, although there is room by then."""
    path = await put(streamer)
    monkeypatch.setattr(recording_checks, "AGAIN_S", 0.0)
    failed: dict[str, recording_checks.IndexSeen] = {}

    def no_room(*_: object) -> None:
        raise Refuse("1.flv: cannot be written: No space left on device", DISK_FULL)

    with monkeypatch.context() as full:
        full.setattr(integrity, "write_index", no_room)
        await recording_checks.make_indexes(streamer, failed)
    assert "can get no index" in caplog.text
    await recording_checks.make_indexes(streamer, failed)
    assert integrity.has_index(path)


async def test_the_size_of_a_file_that_was_made_flv_is_noted_although_the_database_took_nothing_at_first(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the check before its class finds another size, and has it downloaded again."""
    path = await put(streamer, "mp4")

    def full(*_: object) -> None:
        raise OperationalError("UPDATE video_list", {}, Exception("database or disk is full"))

    with monkeypatch.context() as disk:
        disk.setattr(recording_checks, "remade", full)
        await recording_checks.make_indexes(streamer, {})
    await recording_checks.make_indexes(streamer, {})
    (row,) = look(streamer.engine, cache.by_stem, ["1"]).values()
    assert row.size_bytes == path.stat().st_size
    assert integrity.has_index(path)


async def test_a_file_that_can_get_no_index_is_tried_again_only_when_it_is_another_one(
    streamer: StreamerHost, caplog: pytest.LogCaptureFixture
) -> None:
    path = await put(streamer)
    good = path.read_bytes()
    path.write_bytes(b"not a recording")
    failed: dict[str, recording_checks.IndexSeen] = {}
    for _ in range(2):
        await recording_checks.make_indexes(streamer, failed)
    assert list(failed) == ["1"]
    assert caplog.text.count("can get no index") == 1
    path.write_bytes(good)
    await recording_checks.make_indexes(streamer, failed)
    assert failed == {}
    assert integrity.has_index(path)


PROBE = Probe(10.0, 10, last_second_decodes=True)
LONG_S = 1000
"""Seconds until the class is over."""


def admitted(host: StreamerHost, takes_s: float, left_s: float = LONG_S) -> tuple[str, int | None]:
    """State and code of a class that is over after *left_s*, and whose download takes so long at its rate."""
    one = rows.prepare("c-1", 6666, hosts.now() - 10, left_s + 10)
    rows.prepared(host, one, size_bytes=int(host.settings.download_rate_bytes * takes_s))
    row = look(host.engine, Connection.execute, select(classes.c.state, classes.c.code)).one()
    return str(row.state), row.code


def test_alarm_of_change_whose_recording_comes_too_late_names_class_that_people_know(streamer: StreamerHost) -> None:
    streamer.settings = streamer.settings.model_copy(update={"on_late": "slate"})
    one = rows.prepare("c-1^1", 6666, int(hosts.now()) + 100, 9 * LONG_S)
    rows.prepared(streamer, one, size_bytes=int(streamer.settings.download_rate_bytes * LONG_S))
    (alarm,) = rows.said(streamer, "alarm")
    assert alarm["class_id"] == "c-1"
    assert alarm["message"].startswith("c-1 begins in ")


def test_what_is_on_the_disk_already_is_not_downloaded_again(streamer: StreamerHost) -> None:
    part = cache_dir.part_path(streamer.settings.video_root, "6666")
    part.parent.mkdir(parents=True)
    with part.open("wb") as file:
        file.truncate(int(streamer.settings.download_rate_bytes * 320))
    assert admitted(streamer, LONG_S + 60)[0] == "waiting"


def test_a_download_that_ends_after_a_class_refuses_it_and_readies_the_others(streamer: StreamerHost) -> None:
    """Nothing of the first can be aired any more, so nobody is told that it is ready."""
    now = hosts.now()
    both = [rows.prepare(f"c-{left_s}", 6666, now - 9, left_s + 9) for left_s in (60, 600)]
    rows.prepared(streamer, *both)
    with transaction(streamer.engine) as connection:
        connection.execute(update(tasks).where(tasks.c.class_id == "c-60").values(end_time=now - 1))
        remote = RemoteFile(both[0].video_url, 10, None, None)
        handling.change(connection, streamer, downloads.arrived("6666", remote, PROBE))
    # Their rendition is here: a class that comes late is refused all the same.
    rows.prepared(streamer, rows.prepare("c-late", 6666, now - 9, 8))
    found = look(streamer.engine, Connection.execute, select(classes.c.class_id, classes.c.state, classes.c.code)).all()
    reports = [(one["class_id"], one["code"]) for one in rows.said(streamer, "prepared")]
    ended = errors.ENDED.number
    refused = {(class_id, "refused", ended) for class_id in ("c-60", "c-late")}
    assert {tuple(one) for one in found} == refused | {("c-600", "ready", None)}
    assert sorted(reports) == [("c-60", ended), ("c-600", 0), ("c-late", ended)]


@pytest.mark.parametrize(
    ("state", "is_known", "says"),
    [
        (AiringState.READY, True, "nothing was sent"),
        (AiringState.READY, False, "nobody knows"),
        (AiringState.ON_AIR, True, "nobody knows"),
    ],
    ids=["its playout has nothing of it", "its playout is away", "it was on air, and its playout forgot it"],
)
def test_a_class_of_which_nothing_was_sent_is_closed_with_these_words(
    streamer: StreamerHost, state: AiringState, is_known: bool, says: str
) -> None:
    now = hosts.now()
    one = Airing("c-1", "6", state, "rtmp://push.example/live/c", now - 99, now - 60, 6, None)
    changes = StreamerChanges(streamer.settings, now)
    airing.close_late(changes, one, is_known=is_known)
    (said,) = [one.message for one in changes.sends if isinstance(one.message, Report)]
    assert (said.code, says in said.message) == (errors.AIRING_BROKEN.number, True)


def test_a_download_that_would_end_after_its_class_is_refused_at_once(streamer: StreamerHost) -> None:
    """Nothing is reserved and nothing evicted for it."""
    assert admitted(streamer, LONG_S + 60) == ("refused", errors.NOT_READY_FOR_START.number)
    assert look(streamer.engine, Connection.execute, select(files.c.id)).all() == []


def test_a_download_that_ends_within_its_class_is_begun(streamer: StreamerHost) -> None:
    """It was booked after its start, and is aired from the clock's position on."""
    assert admitted(streamer, LONG_S * 0.7)[0] == "waiting"


def test_a_class_that_is_over_is_refused_as_ended(streamer: StreamerHost) -> None:
    """Its message came late, perhaps because the streamer was down; its recording is not to blame."""
    assert admitted(streamer, 1, left_s=-1) == ("refused", errors.ENDED.number)
