"""A dry run of any flow of a streamer shows, line by line, what the run then writes; and it writes nothing itself."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy import Connection, update

from flows.playout_link import boot_now
from flows.streamer import prepare as preparing
from flows.streamer.broadcast import broadcast
from flows.streamer.downloads import download
from flows.streamer.maintenance import reconcile, sweep_streamer
from flows.streamer.prepare import prepare
from lectern.db import airings, cache, inbox
from lectern.db.engine import transaction
from lectern.db.inbox import ReceivedMessage
from lectern.errors import DOWNLOAD_FAILED, ForbiddenMove, Refuse, TryAgain
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import StreamerTable, files
from lectern.states import AiringState, FileState
from lectern.storage import disk, origin
from lectern.storage.origin import RemoteFile
from lectern.wire.messages import Prepare
from tests import laid, rows
from tests.faults import hosts
from tests.stage.dry_runs import Alone, says

PRIVATE = "rtmp://10.0.0.5/live/x"


def wanted(class_id: str, record: int, start_in_s: float = 3600, **fields: Any) -> Prepare:
    return rows.prepare(class_id, record, time.time() + start_in_s, **{"placement": 1, **fields})


@pytest.fixture
def dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Alone]:
    """Record 1 is cached, and nobody needs it; the cache has room for two renditions."""
    root = tmp_path / "videos"
    root.mkdir()
    engine = laid.opened("streamer", tmp_path / "task_list.db")
    made = Alone(hosts.streamer(engine, root, 1_000_000, 2), StreamerTable.metadata)
    made.watch(monkeypatch)
    made.host.partitioned_at = -1e9
    with transaction(engine) as connection:
        cache.make_sums(connection, root)
        rows.reserve(connection, root, "1", 1000, "http://origin.example/1.flv", time.time())
        connection.execute(update(files).values(state=FileState.READY))
        cache.recount(connection, root, {})

    async def look(url: str, **_: object) -> RemoteFile:
        if "9" in url:
            raise Refuse("the origin says 404", DOWNLOAD_FAILED)
        return RemoteFile(url, 2000, None, None)

    async def private(*_: object) -> dict[str, str]:
        return {PRIVATE: "it is no public host"}

    monkeypatch.setattr(origin, "look", look)
    monkeypatch.setattr(preparing, "forbidden_pushes", private)
    yield made
    engine.dispose()


def taken(stage: Alone, one: Prepare, state: AiringState) -> None:
    with transaction(stage.host.engine) as connection:
        rows.add(connection, one, state, "/videos/1/1.flv", time.time())
        rows.cite(connection, one.stem, 1, time.time())


def test_of_prepares(dry_run: Alone) -> None:
    """Classes that reserve room, join a download, evict, are refused, or were known; and a message nobody can read."""
    known = wanted("c-0", 1)
    taken(dry_run, known, AiringState.AIRED)
    rows.commit(dry_run.host.engine, Connection.execute, update(files).values(num_cite=0))
    messages = [wanted("c-2", 2), wanted("c-3", 2), wanted("c-4", 3), wanted("c-9", 9), known]
    barred = wanted("c-8", 8, push_url=PRIVATE)
    bodies = [*(one.to_json() for one in messages), '{"cmd":"prepare"}', barred.to_json(), wanted("c-5", 4).to_json()]
    with transaction(dry_run.host.engine) as connection:
        came = [ReceivedMessage("test", "prepare", one) for one in bodies]
        inbox.keep(connection, came, time.time())
    said, written = dry_run.agree("prepare", lambda **options: prepare.fn("1-8", **options))
    assert set(written) <= set(said)
    assert says(said, "class_list c-5: new … state: refused … the next place for it is free at ")
    assert says(said, *(f"class_list {one}: new … state: waiting" for one in ("c-2", "c-3", "c-4")))
    assert says(said, "class_list c-9: new … state: refused", "video_list 1: state: evicting")
    assert says(said, "class_list c-8: new … state: refused … code: 325")
    assert says(said, "video_list 2: new … size_bytes: 2000 … num_cite: 2", "dir_info … size: -1,000, num: -1")
    assert not any("origin.example" in one or "push.example" in one for one in said)
    assert {"inbox 1: done", "inbox 6: dead"} <= set(said)
    assert {"to streamer_report: prepared c-9", "to streamer_report: prepared c-0", "event: evicted 1"} <= set(said)


def test_a_class_that_was_moved_waits_while_it_may_still_be_aired_where_it_was(
    dry_run: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The streamer that had it relied on our word that we are cut off, too; a new class has been nowhere."""
    monkeypatch.setattr(preparing, "publish_outbox", rows.unsent)
    dry_run.host.partitioned_at = boot_now()
    kept = rows.came(dry_run.host, wanted("new", 1), wanted("moved", 1, placement=2))
    ids, before = inbox.format_id_ranges([one.id for one in kept]), dry_run.rows()
    dry_run.run(lambda: prepare.fn(ids, dry_run=True))
    assert dry_run.rows() == before
    dry_run.run(lambda: prepare.fn(ids))
    assert set(rows.look(dry_run.host.engine, airings.by_id, ["new", "moved"])) == {"new"}
    assert rows.look(dry_run.host.engine, inbox.waits, "prepare")


def test_a_class_whose_recording_is_here_waits_for_no_origin(dry_run: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Origins are asked for the other recordings alone, and hold up nobody else who needs the cache."""
    asked: list[tuple[str, set[str], bool]] = []

    async def look(url: str, **_: object) -> RemoteFile:
        decided = rows.look(dry_run.host.engine, airings.by_id, ["c-1", "c-2"])
        asked.append((url, set(decided), dry_run.host.cache_lock.locked()))
        return RemoteFile(url, 2000, None, None)

    monkeypatch.setattr(origin, "look", look)
    monkeypatch.setattr(preparing, "publish_outbox", rows.unsent)
    other = wanted("c-2", 2)
    ids = rows.comes(dry_run.host, other, wanted("c-1", 1))
    dry_run.run(lambda: prepare.fn(ids))
    assert asked == [(other.video_url, {"c-1"}, False)]
    assert [rows.state_of(dry_run.host, one) for one in ("c-1", "c-2")] == ["ready", "waiting"]


def test_a_class_whose_recording_is_here_needs_no_room_of_the_disk(
    dry_run: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not say how much is free holds up only those for which something is to be downloaded."""
    monkeypatch.setattr(disk, "free_bytes", Mock(side_effect=OSError("planted")))
    monkeypatch.setattr(preparing, "publish_outbox", rows.unsent)
    ids = rows.comes(dry_run.host, wanted("c-1", 1), wanted("c-2", 2))
    dry_run.run(lambda: prepare.fn(ids))
    assert set(rows.look(dry_run.host.engine, airings.by_id, ["c-1", "c-2"])) == {"c-1"}
    assert rows.look(dry_run.host.engine, inbox.waits, "prepare")


def test_a_recording_whose_name_another_one_took_while_its_origin_was_asked_gets_another_name(
    dry_run: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are called after the file of their URLs."""
    mine, theirs = "http://a.example/lesson.flv", "http://b.example/lesson.flv"
    asked: list[str] = []

    async def look(url: str, **_: object) -> RemoteFile:
        asked.append(url)
        if len(asked) == 1:
            root = dry_run.host.settings.video_root
            rows.commit(dry_run.host.engine, rows.reserve, root, "lesson", 1000, theirs, time.time())
        return RemoteFile(url, 2000, None, None)

    monkeypatch.setattr(origin, "look", look)
    monkeypatch.setattr(preparing, "publish_outbox", rows.unsent)
    ids = rows.comes(dry_run.host, rows.prepare("c-1", 1, time.time() + 3600, record_id=None, video_url=mine))
    dry_run.run(lambda: prepare.fn(ids))
    assert asked == [mine, mine], "the first answer was for a name that it has not"
    assert rows.look(dry_run.host.engine, airings.by_id, ["c-1"])["c-1"].stem not in {"lesson", "1"}


def test_no_class_gets_the_recording_of_another_one_that_is_called_the_same(
    dry_run: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three of a batch the origin of the first answers last, and has nothing: another one is called so then."""
    urls = {f"c-{host}": f"http://{host}.example/lesson.flv" for host in "abc"}
    looked = {url: asyncio.Event() for url in urls.values()}
    before, take = dict(zip(urls.values(), [urls["c-c"], None, urls["c-b"]], strict=True)), preparing._take

    async def look(url: str, **_: object) -> RemoteFile:
        if (other := before[url]) is not None:
            await looked[other].wait()
        if url == urls["c-a"]:
            raise Refuse("the origin says 404", DOWNLOAD_FAILED)
        return RemoteFile(url, 2000, None, None)

    async def taking(host: Any, came: Any, known: Any, *rest: Any, **how: Any) -> Any:
        left = await take(host, came, known, *rest, **how)
        for answer in known.values():
            if isinstance(answer, RemoteFile):
                looked[answer.url].set()
        return left

    monkeypatch.setattr(origin, "look", look)
    monkeypatch.setattr(preparing, "_take", taking)
    monkeypatch.setattr(preparing, "PORTION_S", 0.01)
    monkeypatch.setattr(preparing, "publish_outbox", rows.unsent)
    start = time.time() + 3600
    booked = [rows.prepare(id_, 1, start, record_id=None, video_url=url) for id_, url in urls.items()]
    ids = rows.comes(dry_run.host, *booked)
    dry_run.run(lambda: prepare.fn(ids))
    classes = rows.look(dry_run.host.engine, airings.by_id, list(urls))
    downloads = rows.look(dry_run.host.engine, cache.by_stem, {one.stem for one in classes.values()})
    assert {id_: one.state for id_, one in classes.items()} == {"c-a": "refused", "c-b": "waiting", "c-c": "waiting"}
    assert [downloads[classes[id_].stem].url for id_ in ("c-b", "c-c")] == [urls["c-b"], urls["c-c"]]


def test_of_a_sweep(dry_run: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes that are past their end are closed, evicted files removed."""
    monkeypatch.setattr("flows.streamer.maintenance.UNKNOWN_S", 0.0)
    taken(dry_run, wanted("c-1", 1, start_in_s=-9000), AiringState.READY)
    taken(dry_run, wanted("c-2", 1, start_in_s=-9000), AiringState.WAITING)

    async def away(*_: object, **__: object) -> dict[str, Any]:
        raise TryAgain("it is not there")

    monkeypatch.setattr(dry_run.host.playout, "ask", away)
    with transaction(dry_run.host.engine) as connection:
        room = dry_run.host.settings.video_root
        rows.reserve(connection, room, "7", 10, "http://origin.example/7.flv", time.time())
        connection.execute(update(files).where(files.c.id == "7").values(state=FileState.EVICTING))
    said, written = dry_run.agree("sweep", sweep_streamer.fn)
    assert set(written) <= set(said)
    assert says(said, "class_list c-1 … state: ready -> broken … released_at: none -> ", "video_list 1: num_cite: -1")
    assert says(said, "class_list c-2 … state: refused")
    assert {"to streamer_report: ended c-1", "7: its file is removed"} <= set(said)
    assert rows.look(dry_run.host.engine, cache.by_stem, ["7"]) == {}


def test_of_what_works_outside(dry_run: Alone) -> None:
    """A download, a broadcast and the look through the disk say what they would begin, or mend."""
    taken(dry_run, wanted("c-1", 1), AiringState.READY)
    room = dry_run.host.settings.video_root
    rows.commit(dry_run.host.engine, rows.reserve, room, "2", 10, "http://origin.example/2.flv?key=x", time.time())
    before = dry_run.rows()
    assert dry_run.run(lambda: download.fn("2", dry_run=True)).startswith(
        "dry run: would download http://origin.example"
    )
    assert dry_run.run(lambda: broadcast.fn("c-1", dry_run=True)).startswith("dry run: would watch 1 at ")
    (stray := room / "stray.txt").write_text("who put me here?")
    assert dry_run.run(lambda: reconcile.fn(dry_run=True)) == "2 differences"  # the file of record 1 is not there
    assert (dry_run.rows(), stray.exists()) == (before, True)


def test_a_class_moves_by_the_table_only(dry_run: Alone) -> None:
    """A decision that the table of states does not have is raised before anything is written."""
    taken(dry_run, wanted("c-1", 1), AiringState.READY)
    one = rows.look(dry_run.host.engine, airings.by_id, ["c-1"])["c-1"]
    changes = StreamerChanges(dry_run.host.settings, time.time())
    with pytest.raises(ForbiddenMove, match="c-1: may not go from"):
        changes.move(replace(one, state=AiringState.AIRED), AiringState.READY)
    assert changes.written() == []


def test_of_what_no_class_needs_the_least_recently_used_is_evicted_first(dry_run: Alone) -> None:
    """What is pinned by a class stays."""
    engine, now, room = dry_run.host.engine, time.time(), dry_run.host.settings.video_root
    for stem in ("2", "3"):
        rows.commit(engine, rows.reserve, room, stem, 10, f"http://origin.example/{stem}.flv", now)
    rows.commit(engine, Connection.execute, update(files).values(state=FileState.READY))
    for later_s, (stem, number) in enumerate((("2", 1), ("2", -1), ("1", 1), ("1", -1), ("3", 1)), 1):
        rows.commit(engine, rows.cite, stem, number, now + later_s)
    idle = rows.look(engine, cache.idle, but=(), size_bytes=10**9, num=9)
    assert [one.stem for one in idle] == ["2", "1"]
