"""One odd file, row, message or answer is that item's error: the others of its round are done."""

import asyncio
import gc
import json
import math
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError, OperationalError

from flows import failures, handling
from flows.handling import BOUND, BatchResult, apart
from flows.host import StreamerHost, TeacherHost
from flows.resident.consumer import Consumer
from flows.streamer import maintenance, playout_events, prepare, readiness
from flows.teacher import bookings as at_bookings
from flows.teacher import maintenance as at_maintenance
from flows.teacher import membership, transcoding
from lectern.db import bookings, cache, events
from lectern.db.engine import transaction
from lectern.errors import Malformed, TryAgain
from lectern.model.facts import Event, InboxMessage, RemoteFile
from lectern.model.plan import Changes
from lectern.model.tables import teacher as at_teacher
from lectern.model.tables.streamer import classes, files, tasks
from lectern.model.tables.teacher import StreamerRow
from lectern.states import BookingState, FileState, Resolution
from lectern.storage import cache_dir, origin
from lectern.wire.messages import Amend, Booking, Cancel
from lectern.wire.parser import MAX_BODY_BYTES
from tests.faults import hosts
from tests.rows import bare, commit, look, placed, unsent

KEY = (6666, Resolution.P720)


@pytest.fixture
def streamer(streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch) -> StreamerHost:
    monkeypatch.setattr(failures, "publish_outbox", unsent)
    return streamer


def cached(host: StreamerHost, *stems: str, state: FileState = FileState.READY) -> None:
    """Renditions that the database knows."""
    with transaction(host.engine) as connection:
        for stem in stems:
            values = {"state": state, "size_bytes": 9, "duration_s": 60.0, "update_time": time.time()}
            connection.execute(insert(files).values(id=stem, **values))


def on_air(host: StreamerHost, *class_ids: str) -> None:
    """Classes that are being aired."""
    for one in class_ids:
        url = f"rtmp://push.example/live/{one}"
        commit(host.engine, bare, one, time.time() - 60, "on air", end_time=time.time() + 600, push_url=url)


async def test_a_file_that_cannot_be_deleted_keeps_its_row_and_the_others_are_deleted(streamer: StreamerHost) -> None:
    cached(streamer, "1", "2", state=FileState.EVICTING)
    root = streamer.settings.video_root
    cache_dir.rendition_path(root, "1").mkdir(parents=True)  # which no unlink takes away
    gone = cache_dir.rendition_path(root, "2")
    gone.parent.mkdir()
    gone.write_bytes(b"x")
    await prepare.remove_files(streamer, ["1", "2"])
    assert not gone.exists()
    assert list(look(streamer.engine, Connection.execute, select(files.c.id)).scalars()) == ["1"]


async def test_a_download_that_gives_its_room_to_another_leaves_nothing_of_it(streamer: StreamerHost) -> None:
    """Its process was stopped, so it counts as not begun: the disk would be fuller than anybody says."""
    part = cache_dir.part_path(streamer.settings.video_root, "1")
    cache_dir.write_origin(part, RemoteFile("http://origin.example/1.flv", 9, None, None))
    part.write_bytes(b"x")
    await prepare.remove_files(streamer, ["1"])
    assert not part.parent.exists()


async def test_a_sweep_closes_the_classes_beside_one_that_it_cannot_close(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_air(streamer, "bad", "good")
    commit(streamer.engine, Connection.execute, update(tasks).values(end_time=time.time() - 1000))
    late = playout_events.closing_of_late

    def fails(*_: object) -> None:
        raise KeyError("odd")

    def odd(class_id: str) -> Any:
        return fails if class_id == "bad" else late(class_id)

    monkeypatch.setattr(playout_events, "closing_of_late", odd)
    await maintenance._sweep(streamer, dry_run=False)
    found = look(streamer.engine, Connection.execute, select(classes.c.class_id, classes.c.state)).all()
    assert {one.class_id: one.state for one in found} == {"bad": "on air", "good": "broken"}


async def test_a_sweep_closes_what_is_over_though_a_disk_hangs_on_which_a_file_is_to_be_deleted(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does any booking wait for it; the next sweep tries again."""
    on_air(streamer, "over")
    commit(streamer.engine, Connection.execute, update(tasks).values(end_time=time.time() - 1000))
    cached(streamer, "1", state=FileState.EVICTING)
    monkeypatch.setattr(maintenance, "disk_answers", AsyncMock(side_effect=TryAgain("is the disk busy?")))
    with pytest.raises(TryAgain, match="is the disk busy"):
        await maintenance._sweep(streamer, dry_run=False)
    assert look(streamer.engine, Connection.execute, select(classes.c.state)).scalars().all() == ["broken"]
    assert look(streamer.engine, cache.by_stem, ["1"]).keys() == {"1"}


async def test_a_sweep_removes_no_file_that_came_again_while_it_asked_the_playout(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its eviction was finished by somebody else, and the recording was booked and downloaded anew."""
    on_air(streamer, "over")
    cached(streamer, "6666")
    site = cache_dir.rendition_path(streamer.settings.video_root, "6666")
    site.parent.mkdir(parents=True, exist_ok=True)
    site.write_bytes(b"new")
    with transaction(streamer.engine) as connection:
        connection.execute(update(tasks).values(end_time=time.time() - 1000))
        connection.execute(update(files).where(files.c.id == "6666").values(state=FileState.EVICTING))

    async def asks(*_: object) -> None:
        with transaction(streamer.engine) as connection:
            connection.execute(update(files).where(files.c.id == "6666").values(state=FileState.READY))

    monkeypatch.setattr(maintenance, "_way", asks)
    await maintenance._sweep(streamer, dry_run=False)
    assert site.read_bytes() == b"new"
    assert look(streamer.engine, cache.by_stem, ["6666"])["6666"].state is FileState.READY


async def test_what_is_no_class_id_on_a_waiting_list_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """A change that waits on it like a class is not said to be none; the platform knows it by its class alone."""
    assert transcoding._readable(KEY, {KEY: ["c-1", "c-2^1", "c-2~backup^1"]}) == ["c-1"]
    assert caplog.text == ""
    lists = {KEY: ["c-1", "nul\0", "x" * 251, "", "c-2"]}
    assert transcoding._readable(KEY, lists) == ["c-1", "c-2"]
    assert transcoding._readable((7, Resolution.P720), lists) == []


async def test_a_booking_that_nobody_can_read_hides_no_other(teacher: TeacherHost) -> None:
    """Of its streamer, or of a waiting list: its rendition would never be settled, and no class aired or refused."""
    now = time.time()
    with transaction(teacher.engine) as connection:
        for class_id, state in (("bad", "lost in thought"), ("good", "waiting")):
            row = {"class_id": class_id, "state": state, "streamer": "streamer1", "payload": "{}", "received_at": now}
            row |= {"start_time": now, "end_time": now + 60, "updated_at": now, "record_id": 6666, "resolution": "720P"}
            connection.execute(insert(at_teacher.orders).values(**row))
        found = bookings.where(connection, at_teacher.orders.c.streamer == "streamer1")
        assert [one.class_id for one in found] == ["good"]
        changes = Changes(teacher.settings, now)
        waiting = transcoding.waiters_of(connection, changes, [KEY], {KEY: ["bad", "good", "old"]})[KEY]
    assert [one.class_id for one in waiting.orders] == ["good"]
    assert waiting.strangers == ["old"]


def of_newer_release(connection: Connection, *class_ids: str, **values: object) -> None:
    """Classes that a newer release, which was rolled back, has booked at a resolution of its own."""
    its = update(at_teacher.orders).where(at_teacher.orders.c.class_id.in_(class_ids))
    connection.execute(its.values(resolution="1440P", **values))


async def test_a_cancelled_class_that_nobody_can_read_stops_no_sweep(teacher: TeacherHost) -> None:
    """Its cancel is over with it, and all others that are overlooked are taken up, also the changes of a class."""
    now, changes = time.time(), Changes(teacher.settings, time.time())
    for class_id in ("bad", "over", "changed", "changed^1", "changed^2"):
        placed(teacher, hosts.booking().under(class_id), hosts.ALIVE[0], ready=class_id.startswith("changed"))
    cancel = {"class_id": "bad", "streamer": hosts.ALIVE[0], "cancelled_at": 0, "told_at": now, "until": now - 1}
    with transaction(teacher.engine) as connection:
        of_newer_release(connection, "bad", "changed^2", state="cancelled")
        connection.execute(insert(at_teacher.cancels).values(**cancel))
        connection.execute(update(at_teacher.orders).values(updated_at=now - 4000))
        past = update(at_teacher.orders).where(at_teacher.orders.c.class_id == "over")
        connection.execute(past.values(start_time=now - 700, end_time=now - 100))
        at_maintenance.overlooked(math.inf)(connection, changes)
    assert changes.orders["over"].state is BookingState.REFUSED
    assert changes.rows[at_teacher.cancels, "bad", hosts.ALIVE[0]].after is None
    assert [one.message.revision for one in changes.sends if isinstance(one.message, Amend)] == ["changed^1"]


async def test_the_classes_of_a_lost_streamer_are_moved_beside_a_second_airing_that_nobody_can_read(
    teacher: TeacherHost,
) -> None:
    lost, other = hosts.ALIVE
    for class_id, streamer in (("c-1", lost), ("c-1~backup", other)):
        placed(teacher, hosts.booking().under(class_id), streamer, ready=True)
    with transaction(teacher.engine) as connection:
        of_newer_release(connection, "c-1~backup")
        for decide in (
            membership.drained(lost, [other]),
            membership.taken(StreamerRow(name=lost), [other], force=True),
        ):
            decide(connection, changes := Changes(teacher.settings, time.time()))
            assert changes.orders["c-1"].streamer == other


async def test_a_class_is_cancelled_beside_a_change_of_it_that_nobody_can_read(teacher: TeacherHost) -> None:
    changes = Changes(teacher.settings, time.time())
    for class_id in ("c-1", "c-1^1"):
        placed(teacher, hosts.booking().under(class_id), hosts.ALIVE[0])
    with transaction(teacher.engine) as connection:
        of_newer_release(connection, "c-1^1")
        changes.learn(bookings.by_id(connection, ["c-1"]))
        at_bookings.decided_bookings(hosts.ALIVE, connection, changes, [Cancel(class_id="c-1")])
    assert changes.orders["c-1"].state is BookingState.CANCELLED


async def test_an_output_that_cannot_be_looked_for_is_taken_as_not_there(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def odd(*_: object, **__: object) -> Any:
        raise RuntimeError("an answer that nobody foresaw")

    monkeypatch.setattr(origin, "look", odd)
    teacher.settings = teacher.settings.model_copy(update={"public_url": "https://oss.example"})
    one = cast("Any", SimpleNamespace(record_id=6666, stem="6666_720P"))
    assert await transcoding.output_there(teacher, one) is None
    assert [one.levelname for one in caplog.records] == ["ERROR"], "and somebody hears of it"


async def test_of_a_message_that_is_too_long_no_more_is_kept_than_shows_it(teacher: TeacherHost) -> None:
    """A message of 100 MB is malformed; as a whole it would not fit into the dead letters, nor past the answers."""
    intake = Consumer(teacher, cast("Any", None))
    arrived = intake._arrived("channel", "order", json.dumps({"cmd": "order", "class_id": "c-1", "x": "y" * 10**7}))
    assert len(arrived.body) == MAX_BODY_BYTES + 1
    assert arrived.command == "order"


async def test_a_class_that_the_playout_does_not_know_is_not_said_to_be_on_air(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows may say *on air*, as a playout of before has told. Of what it knows, they say why it was not sent."""
    now = time.time()
    refused = [Event("push refused", "c-2", "6666", "denied")]
    commit(streamer.engine, events.note, "streamer1", refused, now - 90)

    async def ask(_do: str, **_: object) -> dict[str, Any]:
        status = {"state": "on_air", "start": now - 100, "end": now + 100, "as_run": []}
        return {"classes": [status | {"class_id": class_id} for class_id in ("c-2", "c-3")]}

    monkeypatch.setattr(streamer.playout, "ask", ask)
    found = await readiness._sent(streamer, ["c-1", "c-2"])
    assert [(class_id, one.on_air) for class_id, one in found.items()] == [("c-1", False), ("c-2", True)]
    assert "does not have it" in (found["c-1"].why or "")
    assert ["refused" in (gap.why or "") for gap in found["c-2"].gaps] == [True]


class Batch(list[Any]):
    """A batch that can be seen to go."""


@pytest.mark.parametrize("body", ['{"cmd": "order", "class_id": "c-1"}', "no JSON", '{"cmd": "odd"}'])
async def test_a_batch_with_a_malformed_message_goes_when_it_is_handled(body: str) -> None:
    """Not when garbage is collected, which is rare: thousands of odd messages would stay until then."""

    def handled() -> tuple["weakref.ref[Batch]", str]:
        batch = Batch()
        batch.append(handling.came(InboxMessage(1, "order", body, 0), (Booking,)))
        assert isinstance(batch[0].message, Malformed)
        return weakref.ref(batch), batch[0].message.message

    gc.disable()
    try:
        batch, said = handled()
        assert (batch(), bool(said)) == (None, True)
    finally:
        gc.enable()


# Messages that cannot be handled stand apart, and hold up none of those that came with them.


class Unwritten:
    """A host whose transactions do nothing but what is decided in them."""

    async def write_tx(self, _change: object, _host: object, decide: Callable[[], Any]) -> Any:
        return decide()


def handled(items: Sequence[int], bad: set[int]) -> tuple[BatchResult[int, Any], int]:
    """What becomes of *items*, and how many transactions that took."""
    tries = 0

    def work(some: Sequence[int]) -> list[int]:
        nonlocal tries
        tries += 1
        if bad & set(some):
            raise IntegrityError("INSERT …", {"push_url": "rtmp://secret"}, Exception("not this one"))
        return list(some)

    decide: Any = lambda some: partial(work, some)  # noqa: E731
    return asyncio.run(apart(cast("Any", Unwritten()), items, decide, str)), tries


@given(st.integers(0, 600), st.sets(st.integers(0, 599), max_size=BOUND))
def test_those_at_fault_fail_alone_and_all_others_are_handled_in_their_order(number: int, bad: set[int]) -> None:
    found, tries = handled(range(number), bad)
    assert [one for one, _ in found.failed] == sorted(one for one in bad if one < number)
    assert [one for some in found.done for one in some] == [one for one in range(number) if one not in bad]
    assert tries <= 1 + 2 * 10 * len(bad)


def test_the_search_for_those_at_fault_ends_soon_and_names_no_payload() -> None:
    found, tries = handled(range(5000), set(range(5000)))
    assert len(found.failed) == 5000
    assert tries < 100
    ((_, why),) = handled([7], {7})[0].failed
    assert why.startswith("IntegrityError in work, line ")
    assert why.endswith(": not this one")
    assert "secret" not in why


def test_a_database_that_is_away_is_no_message_s_fault() -> None:
    def away(some: Sequence[int]) -> Any:
        raise OperationalError("BEGIN", {}, Exception(f"locked for {len(some)}"))

    with pytest.raises(OperationalError, match="locked for 3"):
        asyncio.run(apart(cast("Any", Unwritten()), [1, 2, 3], away, str))
