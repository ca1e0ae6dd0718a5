"""A class that was promised is watched: when its file is lost it is fetched again, moved, or alarmed."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update
from sqlalchemy.exc import OperationalError

from flows import handling
from flows.handling import Delivery
from flows.host import StreamerHost, TeacherHost, current
from flows.streamer import downloads as streamer_downloads
from flows.streamer import lease, prepare
from flows.teacher.bookings import decided_reports
from lectern import subprocesses
from lectern.db import account as db_account
from lectern.db import airings, bookings, cache, metrics
from lectern.db.engine import reading, transaction
from lectern.decide import account
from lectern.errors import DISK_FULL, DOWNLOAD_FAILED, Refuse, TryAgain
from lectern.media import ffmpeg, integrity
from lectern.media.probe import Probe
from lectern.model.facts import Cached, InboxMessage, Order
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import classes, files, tasks
from lectern.playout.keyframe_index import Look
from lectern.states import AiringState, BookingState, FileState
from lectern.storage import cache_dir, origin
from lectern.storage.origin import RemoteFile
from lectern.wire.messages import Release, Report
from tests import flv, rows, strategies
from tests.answering import Answer, serving


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


def test_a_class_that_lost_its_file_for_good_is_reported_and_alarmed(streamer: StreamerHost) -> None:
    gone(streamer)
    assert state(streamer) == "refused"
    assert {one["cmd"] for one in rows.said(streamer)} == {"alarm", "prepared"}
    assert [one["code"] for one in rows.said(streamer, "prepared")] == [318]
    assert ["cannot be had again" in one["message"] for one in rows.said(streamer, "alarm")] == [False, True]


def test_where_nobody_knows_a_url_the_class_is_refused_at_once(streamer: StreamerHost) -> None:
    with transaction(streamer.engine) as connection:
        connection.exec_driver_sql("UPDATE task_list SET video_url = NULL")
        connection.execute(update(files).values(url=None))
    assert not lost(streamer).reserved
    assert state(streamer) == "refused"


def test_it_stays_in_sight_until_its_teacher_takes_it_away(streamer: StreamerHost) -> None:
    """In the checks, the metrics, and `lectern explain`."""
    gone(streamer)
    after = time.time() + 300  # it should be on air
    with reading(streamer.engine) as connection:
        assert [one.class_id for one in airings.live(connection)] == ["class"]
        (missing,) = [
            sample.value
            for family in metrics._airings(connection, after)
            for sample in family.samples
            if sample.name == "lectern_classes_not_on_air"
        ]
        assert missing == 1
    found = rows.look(streamer.engine, db_account.at_streamer, "streamer1", "class", time.time())
    said = account.account(found, time.time()).following
    assert "lost its file" in said[0]
    assert any("318" in one for one in said)
    with transaction(streamer.engine) as connection:
        rows.did(connection, streamer, lease.release_classes, Release(class_id="class", placement=1))
        assert airings.live(connection) == []


def on_air(host: StreamerHost) -> None:
    rows.commit(host.engine, Connection.execute, update(classes).values(state=AiringState.ON_AIR))


async def test_the_broken_file_of_a_class_on_air_is_fetched_again_while_class_goes_on(streamer: StreamerHost) -> None:
    on_air(streamer)
    path = cache_dir.rendition_path(streamer.settings.video_root, "1")
    await streamer_downloads.redownload(streamer, "1", "it may be in use")
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


async def test_a_file_that_is_well_by_now_is_not_put_aside(streamer: StreamerHost) -> None:
    """It was made a plain FLV after its row had been read for the check: another size, and nothing is wrong."""
    path = cache_dir.rendition_path(streamer.settings.video_root, "1")
    await streamer_downloads.redownload(streamer, "1", "it has 2428 bytes, not 1000")
    assert path.exists()
    assert state(streamer) == "ready"
    path.write_bytes(path.read_bytes()[:1000])
    await streamer_downloads.redownload(streamer, "1", "it has 1000 bytes, not 2428")
    assert not path.exists()
    assert state(streamer) == "waiting"


async def test_a_file_is_not_put_aside_for_open_files(streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is well; its class would wait for a download that it does not need."""
    path = cache_dir.rendition_path(streamer.settings.video_root, "1")
    monkeypatch.setattr(Path, "open", too_many_open)
    with pytest.raises(TryAgain, match="Too many open files"):
        await streamer_downloads.redownload(streamer, "1", "it may be damaged")
    assert path.exists()
    assert state(streamer) == "ready"


def too_many_open(path: Path, *_: object, **__: object) -> None:
    """What the system answers a process that has used up its descriptors."""
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))


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

    async def look(url: str, **_: object) -> RemoteFile:
        if url != good:
            raise Refuse("the origin answered 403", DOWNLOAD_FAILED)
        return RemoteFile("http://elsewhere.example/only-once", 3, None, None)

    monkeypatch.setattr(origin, "look", look)
    came = [Delivery(InboxMessage(number, "prepare", "", 0), one) for number, one in enumerate(new)]
    looked = await prepare.probe_origins(streamer, came, set())
    with transaction(streamer.engine) as connection:
        changes = handling.change(connection, streamer, partial(prepare.admit, new=new, looked=looked))
        assert changes.reserved == ["2"]
        assert cache.by_stem(connection, ["2"])["2"].url == good
    assert [state(streamer, one.class_id) for one in new] == ["waiting"] * 3


class Signed(Answer):
    """An origin that takes no URL whose signature has expired."""

    def answer(self) -> None:
        """Refuse it, or send the file."""
        expired = "expired" in self.path
        self.say(403 if expired else 200, body=b"" if expired else self.body)


@contextmanager
def origin_of(host: StreamerHost, file: Path) -> Iterator[str]:
    """The URL of *file* at an origin that the streamer may ask."""
    with serving(Signed, body=file.read_bytes()) as server:
        host.settings = host.settings.model_copy(update={"allowed_origins": f"127.0.0.1:{server.server_port}"})
        yield f"{server.url}/1.flv"


@pytest.mark.parametrize("fresh", [True, False], ids=["a younger booking has a fresh URL", "all have expired"])
async def test_a_download_whose_url_has_expired_in_the_queue_takes_that_of_the_youngest_booking(
    streamer: StreamerHost, tmp_path: Path, fresh: bool
) -> None:
    """The class that was booked with a good URL would be refused for the URL of another."""
    with origin_of(streamer, flv.write(tmp_path / "1.flv", 20)) as url:
        expired, now = f"{url}?Signature=expired", time.time()
        its = f"{url}?Signature=fresh" if fresh else f"{expired}-too"
        one = rows.prepare("younger", 1, now + 3600, video_url=its)
        with transaction(streamer.engine) as connection:
            connection.execute(tasks.update().values(video_url=expired))
            connection.execute(classes.update().values(state=AiringState.WAITING))
            connection.execute(update(files).values(state=FileState.DOWNLOADING, url=expired))
            rows.add(connection, one, AiringState.WAITING, "", now + 1)
        with pytest.raises(Refuse) as raised:  # what comes is no recording
            await streamer_downloads._fetch(streamer, "1")
    assert ("403" in raised.value.message) is not fresh


async def test_a_download_whose_index_cannot_be_written_leaves_no_file_that_nobody_counts(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its classes are refused, because the disk is full: the file must not make it fuller until the next start."""

    def full(*_: object) -> None:
        raise Refuse("No space left on device", DISK_FULL)

    monkeypatch.setattr(integrity, "write_index", full)
    final = cache_dir.rendition_path(streamer.settings.video_root, "2")
    part = flv.write(cache_dir.part_path(streamer.settings.video_root, "2"), 20)
    with pytest.raises(Refuse):
        streamer_downloads._finish(part, part, final, Look(part.stat().st_size, 20_000, None, ()))
    assert not final.parent.exists()


async def test_a_download_that_is_given_up_leaves_no_file_that_nobody_counts(streamer: StreamerHost) -> None:
    """The plain FLV file that was made of it did not fit into the cache."""
    part = flv.write(cache_dir.part_path(streamer.settings.video_root, "2"), 20)
    flv.write(part.with_name(f"{part.name}.remuxed"), 20)
    await streamer_downloads.give_up(streamer, "2", Refuse("no room for 2", DISK_FULL))
    assert not part.parent.exists()


async def test_what_came_while_the_database_took_nothing_is_not_downloaded_again(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in its place, and is noted as soon as the disk has room: its class may begin before it came again."""
    final = cache_dir.rendition_path(streamer.settings.video_root, "1")
    remote = RemoteFile("http://origin.example/1.flv", flv.size(20), None, None)
    found = Probe(20.0, flv.size(20), last_second_decodes=True, mtime=1.0)
    downloads: list[str] = []

    async def fetched(_: StreamerHost, stem: str) -> tuple[RemoteFile, Probe]:
        downloads.append(stem)
        flv.write(final, 20)
        return remote, found

    monkeypatch.setattr(streamer_downloads, "_fetched", fetched)
    lost(streamer)
    current.set(streamer)

    def no_room(*_: object) -> None:
        raise OperationalError("UPDATE video_list", {}, Exception("database or disk is full"))

    with monkeypatch.context() as full:
        full.setattr(streamer_downloads, "arrived", no_room)
        with pytest.raises(OperationalError):
            await streamer_downloads.download.fn("1")
    await streamer_downloads.download.fn("1")
    assert downloads == ["1"]
    assert state(streamer) == "ready"
    assert streamer.fetched == {}


@pytest.mark.parametrize("noted_bytes", [1, 5_000_000], ids=["smaller", "larger"])
async def test_what_was_made_plain_flv_is_downloaded_again_although_its_origin_has_another_size(
    streamer: StreamerHost, tmp_path: Path, noted_bytes: int
) -> None:
    """Its row has the size of the file that was made, not of the one that comes."""
    file = tmp_path / "1.mp4"
    argv = [ffmpeg.executable(), "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25:duration=3"]
    argv += ["-f", "lavfi", "-i", "sine=duration=3", "-c:v", "libx264", "-c:a", "aac", str(file)]
    assert (await subprocesses.run(argv, timeout_s=60)).returncode == 0
    with origin_of(streamer, file) as url:
        with transaction(streamer.engine) as connection:
            connection.execute(tasks.update().values(video_url=url))
            connection.execute(update(files).values(size_bytes=noted_bytes, url=url))
            cache.recount(connection, streamer.settings.video_root, airings.citations(connection))
        lost(streamer)
        remote, found = await streamer_downloads._fetch(streamer, "1")
    with transaction(streamer.engine) as connection:
        handling.change(connection, streamer, streamer_downloads.arrived("1", remote, found))
        used = cache.used(connection, streamer.settings.video_root).size_bytes
    size_bytes = cache_dir.rendition_path(streamer.settings.video_root, "1").stat().st_size
    assert used == row(streamer).size_bytes == size_bytes
    assert state(streamer) == "ready"


# -- what its teacher does ---------------------------------------------------------------------------------------------


@pytest.fixture
def teacher(teacher: TeacherHost) -> TeacherHost:
    """A teacher whose class is ready on streamer1, and promised."""
    start = time.time() + 200
    its = {"record_id": 1, "video_resolution": None, "start_time": start, "end_time": start + 600}
    rows.placed(teacher, strategies.booking("class", **its), "streamer1", "http://origin.example/1.flv", ready=True)
    return teacher


def hears(host: TeacherHost, alive: list[str], placement: int = 1) -> Order:
    """Its streamer says that it cannot have the recording any more."""
    its: dict[str, Any] = {"class_id": "class", "streamer": "streamer1", "placement": placement}
    said = Report(cmd="prepared", result="fail", code=318, message="the origin says 403", **its)
    came = [handling.came(one, (Report,)) for one in rows.came(host, said)]
    with transaction(host.engine) as connection:
        handling.change(connection, host, partial(handling.of_messages, host, came, partial(decided_reports, alive)))
        return bookings.by_id(connection, ["class"])["class"]


def test_a_ready_class_that_its_streamer_lost_is_given_to_another(teacher: TeacherHost) -> None:
    """The platform is told that it is moved, and gets no second answer."""
    order = hears(teacher, ["streamer1", "streamer2"])
    assert (order.state, order.streamer, order.placement) == (BookingState.PLACED, "streamer2", 2)
    *told, event = rows.said(teacher)
    assert [one["cmd"] for one in told] == ["release", "prepare"]
    moved = (event["event"], event["from_streamer"], event["streamer"])
    assert moved == ("moved", "streamer1", "streamer2")


def test_where_nobody_can_take_it_a_person_is_told_at_once(teacher: TeacherHost) -> None:
    order = hears(teacher, ["streamer1"])
    assert (order.state, order.code) == (BookingState.BROKEN, 323)
    assert [one["code"] for one in rows.said(teacher) if one["cmd"] == "alarm"] == [323]


def test_what_a_streamer_says_that_had_it_before_changes_nothing(teacher: TeacherHost) -> None:
    assert hears(teacher, ["streamer1", "streamer2"], placement=0).state is BookingState.READY
