"""The start of a streamer: what its disk and its database disagree about is mended, and nothing is taken on trust."""

import asyncio
import errno
import logging
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from sqlalchemy import Connection, select, true, update

from flows import handling
from flows.host import StreamerHost
from flows.resident import maintenance as timers
from flows.resident import process
from flows.streamer import bandwidth, downloads, maintenance
from flows.streamer.playout_sync import lesson
from lectern.allowlist import Allowlist
from lectern.db import airings, cache, cache_check
from lectern.db.cache_check import Odd, differences, doubtful
from lectern.db.engine import reading, transaction
from lectern.errors import TryAgain
from lectern.media import integrity, probe
from lectern.model.facts import Cached, Idle, Usage
from lectern.model.tables.streamer import dirs, files
from lectern.settings import GIBIBYTE
from lectern.states import AiringState, FileState
from lectern.storage import cache_dir, disk
from lectern.storage.origin import RemoteFile
from tests import rows
from tests.effects.conftest import make_recording
from tests.rows import commit, look

SECONDS = 8


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_recording(tmp_path_factory.mktemp("master") / "1.flv", seconds=SECONDS).read_bytes()


def put(host: StreamerHost, stem: str, data: bytes, state: FileState = FileState.READY, **values: object) -> Path:
    """A rendition on the disk with its row, and a class that needs it."""
    site = cache_dir.rendition_path(host.settings.video_root, stem)
    site.parent.mkdir(exist_ok=True)
    site.write_bytes(data)
    its = {"state": state, "duration_s": float(SECONDS), "mtime": site.stat().st_mtime, **values}
    waits = AiringState.WAITING if state is FileState.DOWNLOADING else AiringState.READY
    rows.cached(host, rows.prepare(f"class-{stem}", int(stem), time.time() + 200), site, its, waits)
    return site


def row(host: StreamerHost, stem: str = "1") -> Cached:
    return look(host.engine, cache.by_stem, [stem])[stem]


def state(host: StreamerHost, stem: str = "1") -> str:
    return rows.state_of(host, f"class-{stem}")


def aside(host: StreamerHost) -> list[str]:
    """The names of what is in quarantine."""
    return sorted(one.path.name for one in cache_dir.quarantined(host.settings.video_root))


@pytest.mark.parametrize("change", [-1000, 1000, None], ids=["shorter", "longer", "missing"])
async def test_a_file_that_is_missing_or_of_another_size_is_replaced(
    streamer: StreamerHost, master: bytes, change: int | None
) -> None:
    """It is not what was downloaded: its class would be aired to half. A person hears of it at once."""
    site = put(streamer, "1", master)
    if change is None:
        site.unlink()
    else:
        os.truncate(site, len(master) + change)
    await maintenance.reconciled(streamer)
    found = row(streamer)
    assert (found.state, found.num_cite, found.size_bytes) == (FileState.DOWNLOADING, 1, len(master))
    assert state(streamer) == "waiting"
    assert aside(streamer) == ([] if change is None else ["1.flv"])
    assert not site.exists()
    (alarm,) = rows.said(streamer)
    assert (alarm["code"], alarm["class_id"], "it is downloaded again" in alarm["message"]) == (324, "class-1", True)


async def test_a_size_is_adopted_where_the_row_has_none(streamer: StreamerHost, master: bytes) -> None:
    """A row of the old program."""
    put(streamer, "1", master, size_bytes=None, duration_s=None, mtime=None)
    assert await maintenance.reconciled(streamer) == []
    found = row(streamer)
    assert found.size_bytes == len(master)
    assert found.duration_s == pytest.approx(SECONDS, abs=0.2)
    assert found.mtime is not None
    assert look(streamer.engine, Connection.execute, select(dirs.c.size)).scalar_one() == len(master)


async def test_a_file_that_was_written_to_is_read_again(streamer: StreamerHost, master: bytes) -> None:
    """One that is whole stays; one whose CRC-64 or whose end is another does not."""
    kept = put(streamer, "1", master)
    ended = put(streamer, "2", master)
    damaged = put(streamer, "3", master)
    with transaction(streamer.engine) as connection:
        known = update(files).where(files.c.id.in_(["1", "3"]))
        connection.execute(known.values(crc64=str(cache_dir.crc64(kept))))
    ended.write_bytes(master[: len(master) // 2] + bytes(len(master) - len(master) // 2))
    damaged.write_bytes(master[:5000] + bytes(100) + master[5100:])
    for path in (kept, ended, damaged):
        os.utime(path, (1, 1))
    await maintenance.read_again(streamer)
    assert [state(streamer, stem) for stem in "123"] == ["ready", "waiting", "waiting"]
    assert aside(streamer) == ["2.flv", "3.flv"]
    assert await maintenance.reconciled(streamer) == []


@pytest.mark.parametrize(
    ("number", "stays"), [(errno.EIO, False), (errno.EMFILE, True)], ids=["the disk is bad", "too many open files"]
)
async def test_a_file_that_the_disk_cannot_read_any_more_is_downloaded_again(
    streamer: StreamerHost, master: bytes, monkeypatch: pytest.MonkeyPatch, number: int, stays: bool
) -> None:
    """Nothing of it could be aired from there on; what only this process cannot read just now stays."""
    site = put(streamer, "1", master, crc64="1", mtime=1.0)

    def unreadable(path: Path) -> int:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(cache_dir, "crc64", unreadable)
    (line,) = await maintenance.read_again(streamer)
    assert site.exists() == stays
    assert aside(streamer) == ([] if stays else ["1.flv"])
    assert state(streamer) == ("ready" if stays else "waiting")
    assert os.strerror(number) in str(line["done"])


@pytest.mark.parametrize("becomes", ["forgotten", "another download", "another file"])
async def test_what_was_found_of_a_file_is_nothing_if_it_is_another_by_then(
    streamer: StreamerHost, master: bytes, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    site = put(streamer, "1", master, mtime=1.0)

    async def trouble(_: Path, __: Cached) -> str:
        with transaction(streamer.engine) as connection:
            if becomes == "forgotten":
                connection.execute(files.delete())
            elif becomes == "another download":
                connection.execute(update(files).values(state=FileState.DOWNLOADING))
            else:
                os.utime(site, (2, 2))
        return "it is odd"

    monkeypatch.setattr(integrity, "trouble", trouble)
    (line,) = await maintenance.read_again(streamer)
    assert (line["done"], site.exists(), aside(streamer)) == ("nothing: it was evicted, or replaced", True, [])


@pytest.mark.parametrize("is_known", [True, False], ids=["it is noted", "it is forgotten"])
async def test_a_file_that_arrived_is_left_to_whoever_has_noted_it_meanwhile(
    streamer: StreamerHost, master: bytes, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    site = put(streamer, "1", master)
    monkeypatch.setattr(downloads, "checked", AsyncMock(side_effect=AssertionError("it is not asked for")))
    if not is_known:
        commit(streamer.engine, Connection.execute, files.delete())
    assert await maintenance._take(streamer, "1", site) == "nothing: its download has noted it"


@pytest.mark.parametrize("evicted", [False, True])
async def test_a_start_takes_bookings_before_it_has_read_what_was_written_to(
    streamer: StreamerHost, master: bytes, monkeypatch: pytest.MonkeyPatch, *, evicted: bool
) -> None:
    """Files that were copied to a larger disk have other times: to read all of them may take hours."""
    put(streamer, "1", master)
    path, plain = put(streamer, "2", master), integrity.trouble
    os.utime(path, (1, 1))

    async def trouble(one: Path, its: Cached) -> str | None:
        found = await plain(one, its)
        async with asyncio.timeout(10), streamer.cache_lock:
            if evicted:
                path.unlink()
        return found

    monkeypatch.setattr(integrity, "trouble", trouble)
    assert await maintenance.reconciled(streamer) == []
    assert row(streamer, "2").mtime != 1
    table = await maintenance.read_again(streamer)
    found = row(streamer, "2")
    assert (found.state, found.mtime == 1) == (FileState.READY, not evicted)
    assert [one["done"] for one in table] == ["nothing: it was evicted, or replaced" if evicted else "it is whole"]


async def test_a_download_that_had_come_is_taken_where_it_is_whole(streamer: StreamerHost, master: bytes) -> None:
    """Its process died between the rename and the commit: no second download, its class is ready.

    A person can reconcile at any time: one that is about to be noted is left to its run.
    """
    put(streamer, "1", master, FileState.DOWNLOADING, duration_s=None)
    put(streamer, "2", master[: len(master) // 2], FileState.DOWNLOADING, size_bytes=len(master))
    put(streamer, "3", master, FileState.DOWNLOADING)
    part = cache_dir.part_path(streamer.settings.video_root, "3")
    cache_dir.write_origin(part, RemoteFile("http://origin.example/3.flv", len(master), None, 12345))
    put(streamer, "4", master, FileState.DOWNLOADING, size_bytes=len(master) + 5000)
    streamer.in_progress.add("4")
    table = await maintenance.reconciled(streamer)
    assert ["nothing" in str(one["done"]) for one in table if str(one["what"]).startswith("4")] == [True]
    assert [row(streamer, stem).state for stem in "1234"] == ["ready", *["downloading"] * 3]
    assert [state(streamer, stem) for stem in "1234"] == ["ready", *["waiting"] * 3]
    there = [cache_dir.rendition_path(streamer.settings.video_root, stem).exists() for stem in "1234"]
    assert (there, aside(streamer)) == ([True, False, False, True], [])


async def test_a_download_that_is_noted_while_another_difference_is_mended_stays(
    streamer: StreamerHost, master: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person reconciles: by the row that was read before, a plain FLV that was made of it is of another size."""
    site = put(streamer, "1", master, FileState.DOWNLOADING, size_bytes=len(master) + 5000)
    (streamer.settings.video_root / "0.txt").touch()
    probed, plain = await probe.probe(site), cache_dir.quarantine

    def quarantine_of(root: Path, path: Path) -> Path:
        noted = downloads.arrived("1", RemoteFile("http://origin.example/1.flv", None, None, None), probed)
        commit(streamer.engine, handling.change, streamer, noted)
        return plain(root, path)

    monkeypatch.setattr(cache_dir, "quarantine", quarantine_of)
    await maintenance.reconciled(streamer)
    assert (site.exists(), aside(streamer), row(streamer).state) == (True, ["0.txt"], FileState.READY)
    assert await maintenance.reconciled(streamer) == []


async def test_a_download_that_is_noted_twice_is_counted_once(streamer: StreamerHost, master: bytes) -> None:
    """It came while the start of the streamer took what the process before had left in its place."""
    site = put(streamer, "1", master, FileState.DOWNLOADING)
    await maintenance.reconciled(streamer)
    assert state(streamer) == "ready"
    found = await probe.probe(site)
    remote = RemoteFile("http://origin.example/1.flv", len(master), None, None)
    with transaction(streamer.engine) as connection:
        handling.change(connection, streamer, downloads.arrived("1", remote, found))
        used = cache.used(connection, streamer.settings.video_root)
        assert used == Usage(len(master), 1)
        assert connection.execute(select(dirs.c.size, dirs.c.reserved_num)).one() == (len(master), 0)


async def test_what_was_being_evicted_and_a_part_that_nobody_goes_on_with_are_deleted(
    streamer: StreamerHost, master: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A process died between the commit and the unlink. The part of a download under way stays.

    Nobody looks for its recording, which is not there yet.
    """
    evicted = put(streamer, "3", master)
    commit(streamer.engine, rows.went, streamer, lambda _, changes: changes.evict([Idle("3", len(master))]))
    site = put(streamer, "1", master, FileState.DOWNLOADING, duration_s=None)
    site.unlink()
    here = cache_dir.part_path(streamer.settings.video_root, "1")
    left = cache_dir.part_path(streamer.settings.video_root, "2")
    for part in (here, left):
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(b"x" * 5000)
    await maintenance.reconciled(streamer)
    await maintenance._sweep(streamer, dry_run=False)
    assert here.exists()
    assert (left.parent.exists(), evicted.exists(), aside(streamer)) == (False, False, [])
    assert [one.stem for one in look(streamer.engine, cache.where, true())] == ["1"]
    assert [one.message for one in caplog.records if one.levelno >= logging.WARNING] == []


async def test_a_file_that_is_just_being_made_plain_flv_stays(
    streamer: StreamerHost, master: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person can reconcile at any time; what an earlier process left of such a file is deleted."""
    site = put(streamer, "1", b"no plain FLV file")
    left = site.with_name("1_720P.flv.remuxed")
    left.write_bytes(b"x")
    there: list[bool] = []

    async def remux(_: Path, to: Path, why: str) -> None:
        to.write_bytes(master)
        await maintenance.reconciled(streamer)
        there.extend([to.exists(), left.exists()])

    monkeypatch.setattr(integrity, "_remux", remux)
    await integrity.looked(site)
    assert there == [True, False]
    await maintenance.reconciled(streamer)
    assert [one.name for one in site.parent.iterdir()] == ["1.flv"]


async def test_one_file_that_cannot_be_mended_keeps_back_none_of_the_others(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = streamer.settings.video_root
    for name in ("a.txt", "b.txt"):
        (root / name).write_text("who put me here?")
    plain = cache_dir.quarantine

    def quarantine_of(where: Path, path: Path) -> Path:
        if path.name == "a.txt":
            raise PermissionError(1, "not yours")
        return plain(where, path)

    monkeypatch.setattr(cache_dir, "quarantine", quarantine_of)
    table = await maintenance.reconciled(streamer)
    assert aside(streamer) == ["b.txt"]
    assert [("not mended" in str(one["done"])) for one in table] == [True, False]


async def test_a_missing_file_of_which_something_odd_is_decided_keeps_back_none_of_the_others(
    streamer: StreamerHost, master: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new disk lacks all files: those behind it would not be there for their classes, and the start would fail."""
    for stem in ("1", "2"):
        put(streamer, stem, master).unlink()
    lose = downloads.lose_file

    def lost(connection: Connection, changes: Any, row: Cached, why: str) -> None:
        if row.stem == "1":
            raise ValueError("odd")
        lose(connection, changes, row, why)

    monkeypatch.setattr(downloads, "lose_file", lost)
    table = await maintenance.reconciled(streamer)
    assert [one["done"] for one in table] == ["not mended: odd", "it is downloaded again"]


@pytest.mark.parametrize("by", ["lectern cache reconcile", "a dry run in the UI", "a run in the UI"])
async def test_what_comes_and_goes_while_the_disk_is_scanned_is_no_difference(
    streamer: StreamerHost, master: bytes, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """A streamer at work downloads, evicts and makes files plain FLV, and the scan of a large disk takes minutes."""
    evicted, made, plain = put(streamer, "2", master), put(streamer, "3", master), cache_dir.scan

    def scanned(root: Path) -> list[cache_dir.FoundFile]:
        found = plain(root)
        assert not streamer.cache_lock.locked(), "no booking waits for it"
        put(streamer, "1", master)
        commit(streamer.engine, rows.went, streamer, lambda _, changes: changes.evict([Idle("2", len(master))]))
        evicted.unlink()
        commit(streamer.engine, cache.forget, ["2"])
        made.write_bytes(longer := master + b"x")
        commit(streamer.engine, airings.remade, root, "3", len(longer), made.stat().st_mtime)
        return found

    monkeypatch.setattr(cache_dir, "scan", scanned)
    if by == "lectern cache reconcile":
        assert look(streamer.engine, cache_check.differences_in_words, streamer.settings.video_root) == []
    else:
        assert await maintenance.reconciled(streamer, dry_run=by == "a dry run in the UI") == []
    assert [state(streamer, stem) for stem in "13"] == ["ready", "ready"]


async def test_a_streamer_whose_disk_hangs_begins_and_looks_through_it_when_it_answers(
    streamer: StreamerHost, master: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it was there, no release and no grant was read: a class that was cancelled would have been aired."""
    put(streamer, "1", master).unlink()
    go_on = threading.Event()
    monkeypatch.setattr(bandwidth, "ANSWERS_S", 0.1)
    with monkeypatch.context() as away:
        away.setattr(disk, "free_bytes", lambda _: int(go_on.wait(20)))
        away.setattr(cache_dir, "scan", lambda _: [go_on.wait(20)][1:])
        await asyncio.wait_for(process._looked(streamer), 10)
        with pytest.raises(TryAgain, match="is the disk busy"):
            await maintenance.read_again(streamer)
        go_on.set()
    assert state(streamer) == "ready", "nobody knows"
    for _ in range(2):
        await maintenance.read_again(streamer)
        assert state(streamer) == "waiting"
    assert len(rows.said(streamer, "alarm")) == 1


@pytest.mark.parametrize("moved", [True, False], ids=["its files were moved", "its files stay behind"])
async def test_in_another_video_root_a_class_is_aired_from_there(
    streamer: StreamerHost, master: bytes, caplog: pytest.LogCaptureFixture, *, moved: bool
) -> None:
    """A disk was too small: the playout is not sent to the old folder, where nothing is any more."""
    put(streamer, "1", master)
    before = streamer.settings.video_root
    root = before.rename(before.with_name("larger")) if moved else before.with_name("larger")
    root.mkdir(exist_ok=True)
    streamer.settings = streamer.settings.model_copy(update={"video_root": root})
    await maintenance.reconciled(streamer)
    assert state(streamer) == ("ready" if moved else "waiting")
    assert caplog.text.count(f"it was at {before}") == (0 if moved else 2), "where the files are that nobody deletes"
    one = look(streamer.engine, airings.by_id, ["class-1"])["class-1"]
    assert lesson((one, None, None, Allowlist()), streamer)["file"] == str(cache_dir.rendition_path(root, "1"))


# -- the quarantine ----------------------------------------------------------------------------------------------------


@pytest.fixture
def quarantine(tmp_path: Path) -> Path:
    """Four files of 100 bytes in the quarantine of this folder, the oldest first."""
    for number in range(4):
        path = tmp_path / str(number) / f"{number}.flv"
        path.parent.mkdir()
        path.write_bytes(b"x" * 100)
        cache_dir.quarantine(tmp_path, path)
        time.sleep(0.02)  # the next one is younger
    return tmp_path


def test_the_quarantine_is_bounded_by_bytes_and_age(quarantine: Path) -> None:
    """The oldest files go first, the newest one stays, and its folders go with their last file."""
    gone = cache_dir.prune_quarantine(quarantine, 250, time.time())
    assert sorted(one.path.name for one in gone) == ["0.flv", "1.flv"]
    assert sorted(one.name for one in (quarantine / cache_dir.QUARANTINE).iterdir()) == ["2", "3"]
    assert len(cache_dir.prune_quarantine(quarantine, 10, time.time())) == 1
    assert cache_dir.prune_quarantine(quarantine, 10, time.time()) == []
    assert len(cache_dir.prune_quarantine(quarantine, 10, time.time() + cache_dir.QUARANTINE_KEEP_S + 1)) == 1
    assert cache_dir.quarantined(quarantine) == []


async def test_the_quarantine_takes_a_tenth_of_what_the_cache_may(streamer: StreamerHost, quarantine: Path) -> None:
    its = {"video_root": quarantine, "max_video_size": 2500 / GIBIBYTE}
    streamer.settings = streamer.settings.model_copy(update=its)
    await maintenance.prune_quarantine(streamer)
    assert aside(streamer) == ["2.flv", "3.flv"]


async def test_the_quarantine_is_pruned_also_while_no_streamer_is_started(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A streamer is at work for months, and has each broken recording put aside and downloaded again."""
    put(streamer, "1", b"x").write_bytes(b"longer")
    await maintenance.reconciled(streamer)
    assert aside(streamer) == ["1.flv"]
    monkeypatch.setattr(cache_dir, "QUARANTINE_KEEP_S", -1.0)
    await timers._forget(streamer)
    assert aside(streamer) == []


def test_a_file_that_cannot_be_deleted_keeps_no_other(quarantine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has made it immutable; or a person deletes files at this moment."""
    plain, plain_lstat = Path.unlink, Path.lstat

    def unlink(path: Path, *, missing_ok: bool = False) -> None:
        if path.name == "2.flv":
            raise PermissionError(1, "Operation not permitted")
        plain(path, missing_ok=missing_ok)

    def lstat(path: Path) -> os.stat_result:
        if path.name == "3.flv":
            path.unlink(missing_ok=True)
        return plain_lstat(path)

    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.setattr(Path, "lstat", lstat)
    gone = cache_dir.prune_quarantine(quarantine, 10, time.time() + cache_dir.QUARANTINE_KEEP_S + 1)
    assert sorted(one.path.name for one in gone) == ["0.flv", "1.flv"]
    assert [one.name for one in (quarantine / cache_dir.QUARANTINE).iterdir()] == ["2"]


def test_a_start_looks_again_at_nothing_that_agrees(streamer: StreamerHost) -> None:
    """So it is short however many files there are: none is read, and nothing is written."""
    for stem in "123":
        put(streamer, stem, b"x")
    found = cache_dir.scan(streamer.settings.video_root)
    known = {one.stem: one for one in look(streamer.engine, cache.where, true())}
    assert differences(found, known) == []
    with reading(streamer.engine) as connection:
        assert doubtful(connection, found) == ([], {})
        odd, doubted = doubtful(connection, [replace(found[0], mtime=1.0), *found[2:]])
    assert ([one.stem for one in odd], set(doubted)) == ([found[0].stem], {found[0].stem, found[1].stem})
    assert {one.odd for one in differences(odd, doubted)} == {Odd.TOUCHED, Odd.MISSING}


async def test_a_file_whose_name_is_no_utf_8_is_named_like_the_others(streamer: StreamerHost, master: bytes) -> None:
    """A terminal and Prefect take no half characters: of all differences, none would be shown."""
    put(streamer, "1", master, mtime=0.0).unlink()
    odd = streamer.settings.video_root / os.fsdecode("课程.flv".encode("gbk"))
    odd.write_bytes(master)
    found = look(streamer.engine, cache_check.differences_in_words, streamer.settings.video_root)
    assert len("\n".join(found).encode().splitlines()) == 2
    assert "\\xbf\u03b3\\xcc.flv: no row knows it" in found[0]
    table = await maintenance.reconciled(streamer)
    assert sorted(str(one["done"]) for one in table) == ["it is downloaded again", "moved to quarantine"]
    assert all(str(one["what"]).encode() for one in table)


async def test_a_rendition_in_state_that_nobody_knows_holds_up_no_start(streamer: StreamerHost, master: bytes) -> None:
    """A newer release has left it, or somebody's hand: the file is as good as its size says, and it is counted."""
    put(streamer, "1", master, mtime=0.0).unlink()
    put(streamer, "2", master)
    put(streamer, "3", master).write_bytes(b"x")
    with transaction(streamer.engine) as connection:
        connection.execute(update(files).where(files.c.id.in_(["2", "3"])).values(state="on the moon"))
    table = await maintenance.reconciled(streamer)
    assert sorted(str(one["what"]).partition(":")[0] for one in table) == ["1", "3"]
    with reading(streamer.engine) as connection:
        states = dict(connection.execute(select(files.c.id, files.c.state)).all())
        assert states == {"1": "downloading", "2": None, "3": "downloading"}
        assert cache.used(connection, streamer.settings.video_root) == Usage(3 * len(master), 3)
