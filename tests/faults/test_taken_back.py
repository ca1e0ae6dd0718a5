"""What a streamer is told to give back is given back, whichever message, failure or clock comes between."""

import asyncio
import json
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import OperationalError

from flows import failures, handling
from flows.host import StreamerHost, TeacherHost
from flows.playout_link import boot_now
from flows.resident.consumer import Handler, batches
from flows.streamer import downloads, lease, playout_events
from flows.streamer import prepare as streamer_prepare
from flows.teacher import maintenance, membership
from flows.teacher.bookings import decided_reports
from lectern.db import airings, bookings, cache, inbox, leases
from lectern.db.engine import transaction
from lectern.decide import airing as decide_airing
from lectern.decide import leases as decide_leases
from lectern.model.plan import Changes
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import journal
from lectern.model.tables.teacher import StreamerRow, orders
from lectern.states import AiringState, BookingState
from lectern.storage import cache_dir
from lectern.storage.origin import RemoteFile
from lectern.wire.messages import TAKE_BACK, Grant, Message, Prepare, Release, Report
from tests import flv, rows
from tests.faults import hosts
from tests.rows import commit, look


def admitted(connection: Connection, changes: StreamerChanges, prepares: Sequence[Prepare]) -> None:
    looked = {one.stem: RemoteFile(one.video_url, 1000, None, None) for one in prepares}
    streamer_prepare.decided_classes(looked, {}, connection, changes, prepares)


def said(streamer: StreamerHost) -> list[Message]:
    """A class is taken back, and then a lease is granted."""
    return [Release(class_id="c-1", placement=1), Grant(streamer=streamer.settings.name, session="new")]


@pytest.mark.parametrize(
    "story",
    [
        [["prepare 1"], ["release 3", "prepare 3"]],
        [["prepare 1", "release 1"], ["release 3", "prepare 3"]],
        [["prepare 1"], ["release", "prepare 3"]],
        [["prepare 1", "release 1"], ["release", "prepare 3"]],
        [["release"], ["release 1", "prepare 3"]],
    ],
    ids=["moved on", "moved on at last", "cancelled", "cancelled at last", "the bar is not lowered"],
)
def test_a_class_that_came_back_is_not_taken_once_it_was_released_before(
    streamer: StreamerHost, story: list[list[str]]
) -> None:
    """Whatever placement each message is of; those that come together are decided in one transaction."""
    for together in story:
        with transaction(streamer.engine) as connection:
            for what, _, number in (one.partition(" ") for one in together):
                placement = int(number) if number else None
                if what == "prepare":
                    wanted = rows.prepare("c-1", 1, time.time() + 600, placement=placement)
                    rows.did(connection, streamer, admitted, wanted)
                else:
                    released = Release(class_id="c-1", placement=placement)
                    rows.did(connection, streamer, lease.release_classes, released)
    with transaction(streamer.engine) as connection:
        assert airings.live(connection) == []
        assert not any(one.num_cite for one in cache.by_stem(connection, ["1"]).values())


@pytest.mark.parametrize("is_released_first", [True, False])
def test_a_class_that_comes_back_is_aired_as_it_is_booked_now_whenever_its_release_is_handled(
    streamer: StreamerHost, is_released_first: bool
) -> None:
    """It was changed at another streamer, to another time and recording; a restart handles both messages at once."""
    start = time.time() + 600
    first, back = rows.prepare("c-1", 1, start), rows.prepare("c-1", 2, start + 1800, placement=3)
    told: list[tuple[Any, Message]] = [(lease.release_classes, Release(class_id="c-1", placement=1)), (admitted, back)]
    with transaction(streamer.engine) as connection:
        for decide, message in [(admitted, first), *(told if is_released_first else reversed(told))]:
            rows.did(connection, streamer, decide, message)
    with transaction(streamer.engine) as connection:
        (its,) = airings.live(connection)
        assert (its.stem, its.start_time, its.placement) == ("2", back.start_time, 3)
        assert {stem: row.num_cite for stem, row in cache.by_stem(connection, ["1", "2"]).items()} == {"1": 0, "2": 1}


def test_a_grant_waits_for_the_release_that_failed(streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again after a second, not before and not never; until then the streamer has no lease."""
    streamer.fencing_token = "new"
    with transaction(streamer.engine) as connection:
        rows.add(connection, rows.prepare("c-1", 1, time.time() + 60), AiringState.READY, "/v/1/1.flv", time.time())
        connection.exec_driver_sql("UPDATE task_list SET start_time = 'soon'")
    kept = rows.came(streamer, *said(streamer))
    for _ in range(2):
        assert len(kept) == 2
        began = time.time()
        for portion in batches(kept):
            asyncio.run(lease.take_back(streamer, portion))
        ended = time.time()
        with transaction(streamer.engine) as connection:
            assert inbox.waits(connection, "release")
            assert leases.session(connection, streamer.settings.name) is None
            its = journal.inbox.c.command == "grant"
            due_at = connection.execute(select(journal.inbox.c.not_before).where(its)).scalar_one()
        assert began <= due_at - lease.GRANT_AGAIN_S <= ended
        kept = rows.claimed(streamer, "release", "grant", now=due_at + 0.1)
    monkeypatch.setattr(lease, "release_classes", lambda *_: None)
    asyncio.run(lease.take_back(streamer, rows.claimed(streamer, "release", "grant", now=1e10)))
    assert look(streamer.engine, leases.session, streamer.settings.name) == "new"


@pytest.mark.parametrize("others", [1, 0], ids=["another class needs it", "nobody needs it"])
def test_a_broken_class_of_last_week_pins_nothing_and_has_nothing_downloaded(
    streamer: StreamerHost, others: int
) -> None:
    site = flv.write(cache_dir.rendition_path(streamer.settings.video_root, "1"), 20)
    rows.cached(streamer, rows.prepare("old", 1, time.time() - 90000), site)
    commit(streamer.engine, rows.went, streamer, playout_events.closing_of_late("old"))
    for class_id in ["new"][:others]:
        rows.cached(streamer, rows.prepare(class_id, 1, time.time() + 600), site)
    with transaction(streamer.engine) as connection:
        row = cache.by_stem(connection, ["1"])["1"]
        assert row.num_cite == others
        lost = rows.went(connection, streamer, partial(downloads.lose_file, row=row, why="it is gone"))
        assert len(lost.reserved) == others
        rows.did(connection, streamer, lease.release_classes, Release(class_id="new", placement=1))
        assert not any(one.num_cite for one in cache.by_stem(connection, ["1"]).values())


@pytest.mark.parametrize("state", [AiringState.CANCELLED, AiringState.AIRED])
def test_a_class_that_ended_while_a_sweep_asked_its_playout_stays_as_it_ended(
    streamer: StreamerHost, state: AiringState
) -> None:
    with transaction(streamer.engine) as connection:
        rows.add(connection, rows.prepare("c-1", 1, time.time() - 700), AiringState.READY, "/v/1/1.flv", time.time())
    way = playout_events.closing_of_late("c-1")
    with transaction(streamer.engine) as connection:
        if state is AiringState.CANCELLED:
            rows.did(connection, streamer, lease.release_classes, Release(class_id="c-1", placement=1))
        else:
            one = airings.by_id(connection, ["c-1"])["c-1"]
            rows.went(connection, streamer, lambda _, changes: decide_airing.close(changes, one, AiringState.AIRED, ""))
    commit(streamer.engine, rows.went, streamer, way)
    assert commit(streamer.engine, airings.by_id, ["c-1"])["c-1"].state is state


async def test_a_class_is_aired_whole_although_redis_has_lost_the_report_of_its_end(
    teacher: TeacherHost, streamer: StreamerHost
) -> None:
    """Its teacher asks for the class again before it says to all that nobody knows; it may ask for one twice."""
    booking, name = hosts.booking("c-1", -700), streamer.settings.name
    rows.placed(teacher, booking, name, ready=True)
    commit(teacher.engine, Connection.execute, update(orders).values(updated_at=booking.start_time))
    wanted = rows.prepare("c-1", 6666, booking.start_time, video_resolution="720P")
    with transaction(streamer.engine) as connection:
        rows.add(connection, wanted, AiringState.ON_AIR, "/v/6666/6666_720P.flv", time.time())
    part = {"url": 0, "session": 1, "source": "recording", "position_s": 0.0, "sent_s": 600.0}
    part |= {"from": booking.start_time, "to": booking.end_time}
    ending = playout_events.closing_of("c-1", {"as_run": [part], "why": "its end has come"})
    commit(streamer.engine, rows.went, streamer, ending)
    (lost,) = rows.said(streamer, "ended")
    commit(teacher.engine, handling.change, teacher, maintenance.overlooked(math.inf))
    (asked,) = rows.said(teacher, "prepare")
    for _ in range(2):
        commit(streamer.engine, rows.did, streamer, admitted, Prepare.model_validate(asked))
    again = rows.said(streamer, "ended")[1:]
    assert again == [lost, lost]
    for said_again in map(Report.model_validate, again):

        def take(connection: Connection, changes: Changes, report: Report = said_again) -> None:
            changes.orders |= bookings.by_id(connection, ["c-1"])
            decided_reports([name], connection, changes, [report])

        commit(teacher.engine, handling.change, teacher, take)
    order = look(teacher.engine, bookings.by_id, ["c-1"])["c-1"]
    assert (order.state, rows.said(teacher, "alarm")) == (BookingState.AIRED, [])
    assert [(one["event"], one["sent_s"]) for one in rows.said(teacher, "class_event")] == [("ended", 600.0)]


def known(host: TeacherHost) -> tuple[Mapping[str, StreamerRow], Mapping[str, int]]:
    """The streamers that were leased, and how many classes each has."""
    return look(host.engine, leases.holders), look(host.engine, bookings.loads, time.time())


def test_a_streamer_that_fell_silent_before_the_clock_of_redis_was_set_back_is_lost(
    teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, now, real = hosts.ALIVE[0], time.time(), time.monotonic
    commit(teacher.engine, rows.granted, name, "session", 12.0, now)
    rows.placed(teacher, hosts.booking("c-1", 600), name)
    monkeypatch.setattr(membership.Membership, "_announce", lambda *_: None)
    mine, beats = membership.Membership(teacher), {name: {"at": now + 3600}}  # of before it was set back
    teacher.listens_since = real() - 1000
    asyncio.run(mine._take_in(now, beats, {}, *known(teacher)))
    later_s = teacher.settings.streamer_lost_after_s + 1
    monkeypatch.setattr(time, "monotonic", lambda: real() + later_s)
    asyncio.run(mine._take_in(now + later_s, beats, {}, *known(teacher)))
    assert teacher.living_now() == []
    assert look(teacher.engine, leases.holder, name).lost_at is not None


async def test_a_release_that_the_database_did_not_take_is_retried_as_soon_as_a_booking(
    streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a minute later: until then a class that was cancelled is aired, and a lease that was granted is not held."""
    streamer.fencing_token = "new"
    kept = rows.came(streamer, *said(streamer))
    writes, tried = streamer.write_tx, []

    async def is_full_once(*given: Any) -> Any:
        tried.append(given)
        if len(tried) == 1:
            raise OperationalError("INSERT", {}, Exception("database or disk is full"))
        return await writes(*given)

    monkeypatch.setattr(streamer, "write_tx", is_full_once)
    await Handler(streamer, {}).handle(TAKE_BACK, kept)
    assert len(rows.claimed(streamer, "release", "grant", now=time.time() + failures.AWAY_S)) == 2


@pytest.mark.parametrize(("granted_s", "now_s"), [(45.0, 300.0), (300.0, 45.0), (0.0, 45.0), (45.0, 0.0)])
async def test_no_class_is_moved_before_the_lease_ends_that_the_last_beat_has_renewed(
    teacher: TeacherHost, streamer: StreamerHost, monkeypatch: pytest.MonkeyPatch, granted_s: float, now_s: float
) -> None:
    """LEASE_S was changed, and the resident was started anew: it goes on with its session, and asks for no lease."""
    name = streamer.settings.name
    commit(teacher.engine, rows.granted, name, "session", granted_s, time.time())
    rows.placed(teacher, hosts.booking("c-1", 600), name)
    streamer.settings = streamer.settings.model_copy(update={"lease_s": now_s})
    beats = {}

    class Redis:
        async def beat(self, _key: str, who: str, _session: str, fields: Any, _claim: Any) -> Any:
            beats[who] = {"at": time.time(), **json.loads(json.dumps(fields))}
            return beats

    thread = lease.HeartbeatThread(streamer, lease.LeaseFacts(boot_now(), "session", {}), {}, hosts.NOBODY)
    thread._set(decide_leases.Lease(decide_leases.until(boot_now(), granted_s)))  # that of the process before
    monkeypatch.setattr(lease.QuorumCheck, "take_in", lambda *_: None)
    redis: Any = Redis()
    await thread._beat(redis)
    thread._loop.close()
    await membership.Membership(teacher)._take_in(time.time(), beats, {}, *known(teacher))
    known_s = look(teacher.engine, leases.holder, name).lease_s
    moved_after_s = decide_leases.lost_after(teacher.settings.streamer_lost_after_s, known_s)
    assert thread._lease.until - boot_now() <= moved_after_s
    assert known_s == now_s
