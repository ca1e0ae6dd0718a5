"""Files that an earlier release downloaded get their index before their class."""

import asyncio
import time
from pathlib import Path

import pytest
from sqlalchemy import Connection, update
from sqlalchemy.exc import OperationalError

from flows.handling import changed
from flows.host import Host
from flows.streamer import indexes, prepare
from lectern.effects import process
from lectern.effects.files import store
from lectern.effects.media import airable, ffmpeg
from lectern.effects.rows import airings, cache
from lectern.effects.rows.tables.engine import transaction
from lectern.errors import DISK_FULL, Refuse
from lectern.facts import Idle
from lectern.messages import Prepare
from lectern.model.tables.streamer import files
from lectern.playout.index import Look
from lectern.settings import StreamerSettings
from lectern.states import AiringState, FileState
from lectern.streamer_changes import StreamerChanges
from tests import rows
from tests.rows import look

Streamer = Host[StreamerSettings]


async def put(host: Streamer, url: str, container: str = "flv") -> Path:
    """A class that begins in a second, and its recording of 4 s, as an earlier release left it: without an index."""
    root = host.settings.video_root
    path = store.rendition_path(root, "1")
    path.parent.mkdir(parents=True)
    argv = [ffmpeg.executable(), "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=4"]
    argv += ["-f", "lavfi", "-i", "sine=duration=4", "-c:v", "libx264", "-g", "25", "-c:a", "aac", "-f", container]
    assert (await process.run([*argv, str(path)], timeout_s=60)).returncode == 0
    now = time.time()
    times = {"start_time": now + 1, "end_time": now + 6}
    one = Prepare(class_id="c", record_id=1, video_url="http://origin.example/1.flv", push_url=url, **times)
    with transaction(host.engine) as connection:
        cache.usage(connection, root)
        rows.reserve(connection, root, "1", path.stat().st_size, one.video_url, now)
        connection.execute(update(files).values(state=FileState.READY, duration_s=4.0))
        rows.add(connection, one, AiringState.READY, str(path), now)
        cache.recount(connection, root, airings.citations(connection))
    return path


async def test_a_file_of_an_earlier_release_gets_its_index_before_its_class(streamer: Streamer) -> None:
    path = await put(streamer, "rtmp://push.example/live/x")
    assert not airable.has_index(path)
    failed: dict[str, indexes.Seen] = {}
    await indexes.make(streamer, failed)
    assert airable.has_index(path)
    assert failed == {}


async def test_a_file_of_an_earlier_release_that_is_no_flv_is_made_one_and_the_sums_are_right(
    streamer: Streamer,
) -> None:
    path = await put(streamer, "rtmp://push.example/live/x", "mp4")
    await indexes.make(streamer, {})
    assert path.read_bytes()[:3] == b"FLV"
    assert airable.has_index(path)
    (row,) = look(streamer.engine, cache.by_stem, ["1"]).values()
    with transaction(streamer.engine) as connection:
        assert cache.usage(connection, streamer.settings.video_root).size_bytes == row.size_bytes == path.stat().st_size


async def test_a_file_that_is_made_flv_holds_up_no_class_and_does_not_come_back_if_it_is_evicted(
    streamer: Streamer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may take half an hour, in which each booking of this streamer would wait for its answer."""
    path = await put(streamer, "rtmp://push.example/live/x", "mp4")
    plain, gone = airable.looked, Idle("1", path.stat().st_size)

    def evict(_connection: Connection, changes: StreamerChanges) -> None:
        changes.evict([gone])

    async def looked(one: Path) -> tuple[Look, Path]:
        found = await plain(one)
        async with asyncio.timeout(10), streamer.cache_lock:
            await changed(streamer, evict)
            await prepare.remove_files(streamer, [gone])
        return found

    monkeypatch.setattr(airable, "looked", looked)
    await indexes.make(streamer, {})
    assert caplog.text == ""
    assert not path.parent.exists()


async def test_a_file_that_the_disk_had_no_room_for_is_tried_again(
    streamer: Streamer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its class would be aired with the slate, although there is room by then."""
    path = await put(streamer, "rtmp://push.example/live/x")
    monkeypatch.setattr(indexes, "AGAIN_S", 0.0)
    failed: dict[str, indexes.Seen] = {}
    with monkeypatch.context() as full:
        full.setattr(airable, "write_index", no_room)
        await indexes.make(streamer, failed)
    assert "can get no index" in caplog.text
    await asyncio.sleep(0)
    await indexes.make(streamer, failed)
    assert airable.has_index(path)


async def test_the_size_of_a_file_that_was_made_flv_is_noted_although_the_database_took_nothing_at_first(
    streamer: Streamer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the check before its class finds another size, and has it downloaded again."""
    path = await put(streamer, "rtmp://push.example/live/x", "mp4")

    def full(*_: object) -> None:
        raise OperationalError("UPDATE video_list", {}, Exception("database or disk is full"))

    with monkeypatch.context() as disk:
        disk.setattr(indexes, "remade", full)
        await indexes.make(streamer, {})
    await indexes.make(streamer, {})
    (row,) = look(streamer.engine, cache.by_stem, ["1"]).values()
    assert row.size_bytes == path.stat().st_size
    assert airable.has_index(path)


def no_room(*_: object) -> None:
    """What a full disk says."""
    raise Refuse("1.flv: cannot be written: No space left on device", DISK_FULL)


async def test_a_file_that_can_get_no_index_is_tried_again_only_when_it_is_another_one(
    streamer: Streamer, caplog: pytest.LogCaptureFixture
) -> None:
    path = await put(streamer, "rtmp://push.example/live/x")
    good = path.read_bytes()
    path.write_bytes(b"not a recording")
    failed: dict[str, indexes.Seen] = {}
    for _ in range(2):
        await indexes.make(streamer, failed)
    assert list(failed) == ["1"]
    assert caplog.text.count("can get no index") == 1
    path.write_bytes(good)
    await indexes.make(streamer, failed)
    assert failed == {}
    assert airable.has_index(path)
