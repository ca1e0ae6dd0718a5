"""A class that was promised is watched: when its file is lost it is fetched again, moved, or alarmed."""

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import DEFAULT, AsyncMock, Mock

import pytest
from sqlalchemy import Connection, update
from sqlalchemy.exc import OperationalError

from flows import handling
from flows.handling import Delivery, changed
from flows.host import StreamerHost, current
from flows.streamer import downloads as streamer_downloads
from flows.streamer import lease, maintenance, prepare, recording_checks
from lectern.db import account as db_account
from lectern.db import airings, cache, metrics
from lectern.db.engine import reading, transaction
from lectern.decide import account
from lectern.errors import DISK_FULL, DOWNLOAD_FAILED, Refuse, TryAgain
from lectern.media import integrity, probe
from lectern.media.probe import Probe
from lectern.model.facts import Cached, InboxMessage
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import classes, files, tasks
from lectern.playout import keyframe_index
from lectern.settings import GIBIBYTE
from lectern.states import AiringState, FileState
from lectern.storage import cache_dir, origin
from lectern.storage.origin import RemoteFile
from lectern.wire.messages import Release
from tests import flv, rows
from tests.answering import Answer, serving
from tests.effects.conftest import make_recording
from tests.playout import flvs


@pytest.fixture
def streamer(streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch) -> StreamerHost:
    """A streamer with a class that begins in 200 s, whose rendition of 20 s is on the disk; its outbox is not sent."""
    monkeypatch.setattr(streamer_downloads, "publish_outbox", rows.unsent)
    site = flv.write(cache_dir.rendition_path(streamer.settings.video_root, "1"), 20)
    rows.cached(streamer, rows.prepare("class", 1, time.time() + 200), site)
    return streamer


def state(host: StreamerHost, class_id: str = "class") -> str:
    return rows.state_of(host, class_id)


def row(host: StreamerHost) -> Cached:
    """The row of the rendition."""
    return rows.look(host.engine, cache.by_stem, ["1"])["1"]


def lost(host: StreamerHost) -> StreamerChanges:
    """The file of the class is lost."""
    go = partial(streamer_downloads.lose_file, row=row(host), why="it is not on the disk")
    changes: StreamerChanges = rows.commit(host.engine, handling.change, host, go)
    return changes


def gone(host: StreamerHost) -> None:
    """The file of the class is lost, and it cannot be had again."""
    assert lost(host).reserved
    failed = streamer_downloads.failed("1", Refuse("the origin says 403", DOWNLOAD_FAILED))
    rows.commit(host.engine, handling.change, host, failed)


def test_a_class_that_lost_its_file_for_good_is_told_and_stays_in_sight_until_its_teacher_takes_it_away(
    streamer: StreamerHost,
) -> None:
    """It is reported and alarmed; then it is in the checks, the metrics, and `lectern explain`."""
    gone(streamer)
    assert state(streamer) == "refused"
    assert {one["cmd"] for one in rows.said(streamer)} == {"alarm", "prepared"}
    assert [one["code"] for one in rows.said(streamer, "prepared")] == [318]
    assert ["cannot be had again" in one["message"] for one in rows.said(streamer, "alarm")] == [False, True]
    after = time.time() + 300  # it should be on air
    with reading(streamer.engine) as connection:
        assert [one.class_id for one in airings.live(connection)] == ["class"]
        samples = [sample for family in metrics._airings(connection, after) for sample in family.samples]
        assert [one.value for one in samples if one.name == "lectern_classes_not_on_air"] == [1]
        found = db_account.at_streamer(connection, "streamer1", "class")
    assert "lost its file" in account.account(found, time.time()).following[0]
    with transaction(streamer.engine) as connection:
        rows.did(connection, streamer, lease.release_classes, Release(class_id="class", placement=1))
        assert airings.live(connection) == []


def on_air(host: StreamerHost) -> None:
    rows.commit(host.engine, Connection.execute, update(classes).values(state=AiringState.ON_AIR))


async def test_the_broken_file_of_a_class_on_air_is_fetched_again_while_class_goes_on(streamer: StreamerHost) -> None:
    on_air(streamer)
    path = cache_dir.rendition_path(streamer.settings.video_root, "1")
    for stem in ("1", "2"):
        assert not await streamer_downloads.redownload(streamer, stem, "it may be in use, or evicted")
    assert path.exists(), "nobody said that the playout cannot send it"
    await streamer_downloads.redownload(streamer, "1", "the recording is missing", seen_at=time.time() - 60)
    assert path.exists(), "it came after the playout had looked for it"
    await streamer_downloads.redownload(streamer, "1", "the recording is broken", seen_at=time.time() + 60)
    assert not path.exists()
    assert state(streamer) == "on air"
    assert streamer.unfetched.is_set()
    assert (row(streamer).state, row(streamer).num_cite) == (FileState.DOWNLOADING, 1)
    with reading(streamer.engine) as connection:
        assert airings.needed_at(connection, ["1"]).keys() == {"1"}, "it is waited for"
        assert [one.class_id for one in airings.due(connection, time.time() + 600, time.time())] == ["class"]


async def test_a_recording_lost_in_class_is_asked_for_again_until_it_is_there(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its origin may have it again a minute later; its class goes on with the slate, and is alarmed once."""
    monkeypatch.setattr(streamer_downloads, "FIRST_PAUSE_S", 0.001)
    on_air(streamer)
    rows.commit(streamer.engine, Connection.execute, update(tasks).values(start_time=time.time() - 60))
    answers = [404, 404, 404, 200]

    async def tried(*_: object) -> Any:
        if (answer := answers.pop(0)) != 200:
            raise Refuse(f"the origin says {answer}", DOWNLOAD_FAILED)
        return "remote", "probe"

    monkeypatch.setattr(streamer_downloads, "_fetch", tried)
    assert str(await streamer_downloads._fetched(streamer, "1")) == "('remote', 'probe')"
    (alarm,) = rows.said(streamer)
    assert (alarm["code"], "cannot be had again: the origin says 404" in alarm["message"]) == (326, True)
    assert state(streamer) == "on air"
    rows.commit(streamer.engine, Connection.execute, update(tasks).values(end_time=time.time() - 1))
    answers.append(404)
    with pytest.raises(Refuse, match="404"):
        await streamer_downloads._fetched(streamer, "1")


def too_many_open(path: Path, *_: object, **__: object) -> None:
    """What the system answers a process that has used up its descriptors."""
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))


async def test_a_file_that_is_well_by_now_or_cannot_be_opened_just_now_is_not_put_aside(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was made a plain FLV after its row had been read for the check: another size, and nothing is wrong."""
    path = cache_dir.rendition_path(streamer.settings.video_root, "1")
    await streamer_downloads.redownload(streamer, "1", "it has 2428 bytes, not 1000")
    with monkeypatch.context() as used_up:
        used_up.setattr(Path, "open", too_many_open)
        with pytest.raises(TryAgain, match="Too many open files"):
            await streamer_downloads.redownload(streamer, "1", "it may be damaged")
    assert path.exists()
    assert state(streamer) == "ready"
    path.write_bytes(path.read_bytes()[:1000])
    await streamer_downloads.redownload(streamer, "1", "it has 1000 bytes, not 2428")
    assert not path.exists()
    assert state(streamer) == "waiting"


def test_what_a_class_on_air_still_cites_counts_when_another_class_has_it_downloaded(streamer: StreamerHost) -> None:
    """The end of the class on air takes its own citation back, not the one of the class that has yet to begin."""
    on_air(streamer)
    gone(streamer)
    rows.prepared(streamer, rows.prepare("next", 1, time.time() + 3600), size_bytes=flv.size(20))
    assert row(streamer).num_cite == 2
    rows.commit(streamer.engine, rows.did, streamer, lease.release_classes, Release(class_id="class"))
    assert row(streamer).num_cite == 1


@pytest.mark.parametrize("begins", [True, False], ids=["the older is on air", "both wait for their start"])
def test_a_lost_file_is_downloaded_by_the_url_of_the_youngest_booking(streamer: StreamerHost, begins: bool) -> None:
    """Whatever else happened to the older class since: its signed URL may have expired."""
    now = time.time()
    fresh = "http://origin.example/1.flv?Signature=fresh"
    one = rows.prepare("younger", 1, now + 3600, video_url=fresh)
    with transaction(streamer.engine) as connection:
        rows.add(connection, one, AiringState.READY, "", now)
        older = update(classes).where(classes.c.class_id == "class")
        after = (AiringState.ON_AIR, now + 1) if begins else (AiringState.READY, now)
        connection.execute(older.values(state=after[0], updated_at=after[1]))
    lost(streamer)
    assert row(streamer).url == fresh


async def test_a_recording_is_downloaded_by_the_url_that_answers_of_several_that_come_together(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bad URL of one class refuses no other class of the recording."""
    good = "http://origin.example/2.flv?Signature=good"
    start, urls = time.time() + 3600, [f"{good}&expired=1", good, f"{good}&expired=2"]
    new = [rows.prepare(f"c-{number}", 2, start, video_url=url) for number, url in enumerate(urls)]

    async def look(url: str, *, first_bytes: bool, **_: object) -> RemoteFile:
        assert first_bytes is not streamer.settings.windows.are_always, "of what may wait for long it sees a part"
        if url != good:
            raise Refuse("the origin answered 403", DOWNLOAD_FAILED)
        return RemoteFile("http://elsewhere.example/only-once", 3, None, None)

    monkeypatch.setattr(origin, "look", look)
    came = [Delivery(InboxMessage(number, "prepare", "", 0), one) for number, one in enumerate(new)]
    (looked,) = [looked async for _, looked in prepare.as_probed(streamer, came)]
    streamer.settings = streamer.settings.model_copy(update={"download_windows": "10:00-11:00"})
    assert [again async for _, again in prepare.as_probed(streamer, came)] == [looked]
    with transaction(streamer.engine) as connection:
        changes = handling.change(connection, streamer, partial(prepare.admit, new=new, looked=looked))
        assert changes.reserved == ["2"]
        assert cache.by_stem(connection, ["2"])["2"].url == good
    assert [state(streamer, one.class_id) for one in new] == ["waiting"] * 3


class Signed(Answer):
    """An origin that takes no URL whose signature has expired, and has lost a part of its servers."""

    def answer(self) -> None:
        """Refuse it, or send the file."""
        code = 403 if "expired" in self.path else 503 if "away" in self.path else 200
        self.say(code, body=self.body if code == 200 else b"")


@contextmanager
def origin_of(host: StreamerHost, file: Path) -> Iterator[str]:
    """The URL of *file* at an origin that the streamer may ask."""
    with serving(Signed, body=file.read_bytes()) as server:
        host.settings = host.settings.model_copy(update={"allowed_origins": f"127.0.0.1:{server.server_port}"})
        yield f"{server.url}/1.flv"


@pytest.mark.parametrize("fresh", [True, False], ids=["a younger booking has a fresh URL", "all have expired"])
@pytest.mark.parametrize(("became", "code"), [("expired", "403"), ("away", "503")])
async def test_a_download_whose_url_has_expired_in_the_queue_takes_that_of_the_youngest_booking(
    streamer: StreamerHost, tmp_path: Path, fresh: bool, became: str, code: str
) -> None:
    """The class that was booked with a good URL would be refused for the URL of another."""
    with origin_of(streamer, flv.write(tmp_path / "1.flv", 20)) as url:
        expired, now = f"{url}?Signature={became}", time.time()
        its = f"{url}?Signature=fresh" if fresh else f"{expired}-too"
        one = rows.prepare("younger", 1, now + 3600, video_url=its)
        with transaction(streamer.engine) as connection:
            connection.execute(tasks.update().values(video_url=expired))
            connection.execute(classes.update().values(state=AiringState.WAITING))
            connection.execute(update(files).values(state=FileState.DOWNLOADING, url=expired))
            rows.add(connection, one, AiringState.WAITING, "", now + 1)
        with pytest.raises((Refuse, TryAgain)) as raised:  # what comes is no recording
            await streamer_downloads._fetch(streamer, "1")
    assert (f"answered {code}" in raised.value.message) is not fresh


async def test_an_origin_that_is_away_for_a_moment_costs_nothing_of_what_came(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gigabytes were thrown away for a second of 503, because a younger booking names another origin.

    The last try begins anew there: its own origin may be gone for good.
    """
    size_bytes, now, asked = row(streamer).size_bytes, time.time(), list[str]()
    own, other = (RemoteFile(f"http://{one}.example/1.flv", size_bytes, one, None) for one in ("own", "other"))

    async def look(url: str, **_: object) -> RemoteFile:
        asked.append(url)
        if url == own.url:
            raise TryAgain("it is busy", DOWNLOAD_FAILED)
        return other

    with transaction(streamer.engine) as connection:
        connection.execute(classes.update().values(state=AiringState.WAITING))
        connection.execute(update(files).values(state=FileState.DOWNLOADING, url=own.url))
        younger = rows.prepare("younger", 1, now + 3600, video_url=other.url)
        rows.add(connection, younger, AiringState.WAITING, "", now + 1)
    part = cache_dir.part_path(streamer.settings.video_root, "1")
    part.write_bytes(b"came")
    cache_dir.write_origin(part, own)
    monkeypatch.setattr(origin, "look", look)
    with pytest.raises(TryAgain, match="it is busy"):  # nor is it taken for replaced once all of it came
        await streamer_downloads._of_one_recording(streamer, row(streamer), part, own)
    assert part.read_bytes() == b"came"
    asked.clear()
    monkeypatch.setattr(streamer_downloads, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(cache_dir, "resume", resumed := Mock(side_effect=Refuse("far enough", DOWNLOAD_FAILED)))
    streamer.settings = streamer.settings.model_copy(update={"download_tries": 2})
    with pytest.raises(Refuse, match="far enough"):
        await streamer_downloads._fetched(streamer, "1")
    assert asked == [own.url, other.url] * 2
    resumed.assert_called_once_with(part, other)


@pytest.mark.parametrize(
    ("size_bytes", "crc64", "decodes", "raised", "stays"),
    [
        pytest.param(11, None, True, pytest.raises(TryAgain), True, id="cut short"),
        pytest.param(10, 1, True, pytest.raises(TryAgain), False, id="another sum"),
        pytest.param(10, None, False, pytest.raises(Refuse), True, id="its end is damaged"),
        pytest.param(10, cache_dir.crc64, True, nullcontext(), True, id="whole"),
    ],
)
async def test_what_came_is_taken_if_it_is_what_was_promised(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    size_bytes: int,
    crc64: Any,
    decodes: bool,
    raised: Any,
    stays: bool,
) -> None:
    """Of one that is cut short the next try fetches the rest; all of one with another sum comes again.

    It is deleted in a thread: a disk that hangs does not hold up the process.
    """
    part, unlink = tmp_path / "1.flv.part", Path.unlink
    part.write_bytes(b"x" * 10)

    def in_a_thread(path: Path) -> None:
        assert threading.current_thread() is not threading.main_thread()
        unlink(path)

    monkeypatch.setattr(Path, "unlink", in_a_thread)

    async def probed(_: Path) -> Probe:
        return Probe(1.0, 10, last_second_decodes=decodes)

    monkeypatch.setattr(probe, "probe", probed)
    with raised:
        its = RemoteFile("", size_bytes, None, crc64(part) if callable(crc64) else crc64)
        await streamer_downloads.checked("1", part, its)
    assert part.exists() is stays


@pytest.mark.parametrize("error", [Refuse("No space left on device", DISK_FULL), OSError("odd")], ids=["full", "odd"])
async def test_a_recording_that_came_is_aired_without_its_index_until_that_can_be_written(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """All that its class needs is there, and its class may begin before it came again, or on another streamer."""
    final = cache_dir.rendition_path(streamer.settings.video_root, "1")
    part = flvs.write(cache_dir.part_path(streamer.settings.video_root, "1"), flvs.lesson(20))
    look = keyframe_index.look(part)
    with monkeypatch.context() as full:
        full.setattr(integrity, "write_index", Mock(side_effect=error))
        streamer_downloads._finish(part, part, final, look)
    assert (final.exists(), integrity.has_index(final)) == (True, False)
    await recording_checks.make_indexes(streamer, {})
    assert integrity.has_index(final)


async def test_a_download_that_is_given_up_leaves_no_part_of_it(streamer: StreamerHost) -> None:
    """The plain FLV that was made of it did not fit: it must not make the disk fuller."""
    part = flv.write(cache_dir.part_path(streamer.settings.video_root, "2"), 20)
    flv.write(part.with_name(f"{part.name}.remuxed"), 20)
    await streamer_downloads.give_up(streamer, "2", Refuse("no room for 2", DISK_FULL))
    assert not part.parent.exists()


async def test_what_came_while_the_database_took_nothing_is_not_downloaded_again(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in its place, and is noted as soon as the disk has room: its class may begin before it came again."""
    remote = RemoteFile("http://origin.example/1.flv", flv.size(20), None, None)
    found = Probe(20.0, flv.size(20), last_second_decodes=True, mtime=1.0)
    full = OperationalError("UPDATE video_list", {}, Exception("database or disk is full"))
    monkeypatch.setattr(streamer_downloads, "_fetched", fetched := AsyncMock(side_effect=[(remote, found)]))
    monkeypatch.setattr(streamer_downloads, "changed", AsyncMock(wraps=changed, side_effect=[full, full, DEFAULT]))
    monkeypatch.setattr(streamer_downloads, "AGAIN_S", 0.0)
    lost(streamer)
    # It is the last run that it may have: what kills its process again and again is given up.
    rows.commit(streamer.engine, Connection.execute, update(files).values(tries=streamer_downloads.MAX_RUNS - 1))
    current.set(streamer)
    await streamer_downloads.download.fn("1")
    assert (fetched.await_count, state(streamer)) == (1, "ready")


async def test_what_was_made_plain_flv_is_not_downloaded_again_if_its_process_dies_before_it_is_noted(
    streamer: StreamerHost, tmp_path: Path
) -> None:
    """It is whole, though smaller than what came: its class may begin before it came again."""
    file = make_recording(tmp_path / "1.mp4", seconds=3, container="mp4")
    with file.open("ab") as more:  # a box of an MP4 file that holds nothing
        more.write((300_008).to_bytes(4) + b"free" + bytes(300_000))
    with origin_of(streamer, file) as url:
        with transaction(streamer.engine) as connection:
            connection.execute(tasks.update().values(video_url=url))
            connection.execute(update(files).values(size_bytes=file.stat().st_size, url=url))
        lost(streamer)
        await streamer_downloads._fetch(streamer, "1")
    size_bytes = cache_dir.rendition_path(streamer.settings.video_root, "1").stat().st_size
    await maintenance.reconciled(streamer)
    assert (state(streamer), row(streamer).size_bytes) == ("ready", size_bytes)
    assert size_bytes < file.stat().st_size


@pytest.mark.parametrize("noted_bytes", [1, 5_000_000], ids=["smaller", "larger"])
async def test_what_was_made_plain_flv_is_downloaded_again_although_its_origin_has_another_size(
    streamer: StreamerHost, tmp_path: Path, noted_bytes: int
) -> None:
    """Its row has the size of the file that was made, not of the one that comes, for which another one is evicted."""
    file = make_recording(tmp_path / "1.mp4", seconds=3, container="mp4")
    with origin_of(streamer, file) as url:
        with transaction(streamer.engine) as connection:
            connection.execute(tasks.update().values(video_url=url))
            connection.execute(update(files).values(size_bytes=noted_bytes, url=url))
            rows.reserve(connection, streamer.settings.video_root, "idle", 200_000, url, time.time())
            connection.execute(update(files).values(state=FileState.READY))
            cache.recount(connection, streamer.settings.video_root, airings.citations(connection))
        lost(streamer)
        evicted = flv.write(cache_dir.rendition_path(streamer.settings.video_root, "idle"), 20)
        by_size = {"max_video_size": (file.stat().st_size + 100_000) / GIBIBYTE}
        most = by_size if noted_bytes == 1 else {"max_video_num": 1}
        streamer.settings = streamer.settings.model_copy(update=most)
        remote, found = await streamer_downloads._fetch(streamer, "1")
    with transaction(streamer.engine) as connection:
        handling.change(connection, streamer, streamer_downloads.arrived("1", remote, found))
        used = cache.used(connection, streamer.settings.video_root).size_bytes
        assert cache.by_stem(connection, ["idle"]) == {}
    assert not evicted.exists(), "the disk may have no room for both"
    size_bytes = cache_dir.rendition_path(streamer.settings.video_root, "1").stat().st_size
    assert used == row(streamer).size_bytes == size_bytes
    assert state(streamer) == "ready"
    ((took_s, checked_bytes),) = streamer.checks
    assert (0 < took_s < 60, checked_bytes) == (True, file.stat().st_size)
