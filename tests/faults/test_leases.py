"""A lease is granted anew when nothing is pushed any more that was taken away before."""

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Connection

from flows import handling
from flows.host import StreamerHost, TeacherHost
from flows.prefect_api import NewRun
from flows.streamer import lease
from flows.streamer.lease import QuorumCheck
from flows.teacher import membership
from flows.teacher.bookings import decided_reports
from lectern import errors
from lectern.db import airings, bookings, inbox, leases
from lectern.db.engine import reading, transaction
from lectern.db.writer import write
from lectern.decide import leases as decide_leases
from lectern.model.plan import Changes
from lectern.states import AiringState, BookingState
from lectern.wire.messages import Grant, Release, Report
from tests import rows
from tests.faults import hosts
from tests.rows import commit, look

RUN = "00000000-0000-0000-0000-000000000001"


@pytest.mark.parametrize("grant_first", [True, False])
def test_pushes_have_ended_when_the_lease_is_held(streamer: StreamerHost, *, grant_first: bool) -> None:
    """In whatever order the messages lie in the inbox: for a moment, two streamers would push one class."""
    said: list[Release | Grant] = [
        Release(class_id="c-1", placement=1),
        Grant(streamer=streamer.settings.name, session="new"),
    ]
    with transaction(streamer.engine) as connection:
        wanted = rows.prepare("c-1", 6666, hosts.now(), placement=1)
        rows.add(connection, wanted, AiringState.READY, "/videos/6666/6666.flv", hosts.now())
        airings.scheduled(connection, "c-1", RUN)
    kept = rows.came(streamer, *(reversed(said) if grant_first else said))
    streamer.fencing_token = "new"
    seen: list[tuple[str, str | None]] = []  # what the database held when a push was ended

    def end(run_id: str, _reason: str) -> bool:
        seen.append((run_id, look(streamer.engine, leases.session, streamer.settings.name)))
        return True

    streamer.runs = cast("Any", SimpleNamespace(end=end))
    stops = asyncio.run(lease.take_back(streamer, kept))
    assert [one.class_id for one in stops] == ["c-1"]
    assert seen == [(RUN, None)]
    assert look(streamer.engine, leases.session, streamer.settings.name) == "new"


@pytest.mark.parametrize(
    "strange",
    [Grant(streamer=hosts.ALIVE[0], session="another"), Grant(streamer=hosts.ALIVE[1], session="asked")],
    ids=["another session", "another streamer"],
)
def test_a_lease_that_was_not_asked_for_is_not_held(streamer: StreamerHost, strange: Grant) -> None:
    """Whoever can write to the stream would else take the lease away that this streamer holds."""
    streamer.fencing_token = "asked"
    for one in (Grant(streamer=streamer.settings.name, session="asked"), strange):
        asyncio.run(lease.take_back(streamer, rows.came(streamer, one)))
    with reading(streamer.engine) as connection:
        assert leases.session(connection, streamer.settings.name) == "asked"
        assert leases.session(connection, hosts.ALIVE[1]) is None
        assert inbox.waiting(connection) == 0


def test_a_streamer_lost_again_is_announced_at_once(teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although what stayed with it when it was lost before is tried again after minutes only."""
    begun: list[str] = []

    def begin(_runs: object, run: NewRun, *, needs_run: bool) -> None:
        assert needs_run
        begun.append(run.name)

    monkeypatch.setattr(membership, "failover_candidates", lambda *_: [hosts.ALIVE[1]])
    teacher.background = cast("Any", SimpleNamespace(begin=begin))
    mine = membership.Membership(teacher)
    for again_s in (membership.TAKEN_AGAIN_S, membership.TAKEN_AGAIN_S, 0.0):
        mine._announce(hosts.ALIVE[0], 30, again_s)
    assert begun == [f"move classes of {hosts.ALIVE[0]}"] * 2


def test_a_class_of_tomorrow_stays_with_its_lost_streamer_and_one_of_soon_is_broken(teacher: TeacherHost) -> None:
    """A host that begins anew is lost for a minute: what it airs tomorrow is not broken by that.

    That it is lost is said once, whoever finds it first: the look of each second, or the run that waits for it.
    """
    name, other = hosts.ALIVE
    starts_in_s = {"soon": decide_leases.STAY_S / 2, "tomorrow": decide_leases.STAY_S * 20}
    changes = Changes(teacher.settings, hosts.now())
    for class_id, in_s in starts_in_s.items():
        rows.placed(teacher, hosts.booking(class_id, in_s), name, ready=True)
        changes.take(class_id, other, 0, refused=True)
    with transaction(teacher.engine) as connection:
        write(connection, changes)
        rows.granted(connection, name, "session", 12.0, hosts.now())
        before = leases.holder(connection, name)
        handling.change(connection, teacher, membership.taken(before, [other], force=False))
        assert leases.holder(connection, name).session is None, "it airs nothing before it has a lease again"
        handling.change(connection, teacher, membership.lost(name, 1, [other]))
        orders = bookings.by_id(connection, [*starts_in_s])
    assert (orders["soon"].state, orders["tomorrow"].state) == (BookingState.BROKEN, BookingState.READY)
    assert orders["tomorrow"].streamer == name
    codes = [one["code"] for one in rows.said(teacher, "alarm")]
    assert codes == [errors.STREAMER_LOST.number, errors.NOT_MOVED.number]
    assert "tomorrow" not in [one["class_id"] for one in rows.said(teacher, "release")]


def test_a_class_that_the_only_other_streamer_refuses_goes_back_to_the_one_that_it_came_from(
    teacher: TeacherHost,
) -> None:
    """The cache of the other one is full; the one that is drained has the file."""
    name, other = hosts.ALIVE
    refusal = Report(cmd="prepared", class_id="c-1", streamer=other, result="fail", code=316, placement=2)

    def refused(connection: Connection, changes: Changes) -> None:
        changes.orders |= bookings.by_id(connection, ["c-1"])
        decided_reports([other], connection, changes, [refusal])

    rows.placed(teacher, hosts.booking("c-1", decide_leases.STAY_S / 2), name, ready=True)
    with transaction(teacher.engine) as connection:
        rows.granted(connection, name, "session", 12.0, hosts.now())
        handling.change(connection, teacher, membership.drained(name, [other]))
        assert bookings.by_id(connection, ["c-1"])["c-1"].streamer == other
        handling.change(connection, teacher, refused)
        order = bookings.by_id(connection, ["c-1"])["c-1"]
        assert (order.state, order.streamer) == (BookingState.PLACED, name)
        handling.change(connection, teacher, membership.drained(name, [other]))
        assert bookings.by_id(connection, ["c-1"])["c-1"] == order, "it is not given to and fro"


async def test_no_beat_names_a_streamer_before_the_disk_has_it(streamer: StreamerHost) -> None:
    """A process that is started anew asks all that the teacher may move classes to; and no beat waits for the disk."""
    may_write = asyncio.Event()
    written: list[set[str]] = []

    async def note(known: Mapping[str, str]) -> None:
        await may_write.wait()
        written.append(set(known))

    found = QuorumCheck(streamer, {"s2": ""}, note)
    assert found.said == {"peers": ["s2"]}
    found.take_in({"s2": {"at": 1.0}, "s3": {"at": 1.0}})
    await asyncio.sleep(0)
    assert found.said == {"peers": ["s2"]}
    found.take_in({"s3": {"at": 1.0}})
    may_write.set()
    await asyncio.sleep(0.01)
    assert written == [{"s2", "s3"}]
    assert found.said == {"peers": ["s2", "s3"]}
    for _ in range(2):
        found.take_in({"s3": {"at": 1.0}})
        await asyncio.sleep(0.01)
    assert (written[-1], found.said) == ({"s3"}, {"peers": ["s3"]}), "who was named by no beat for a while is forgotten"


def test_a_booking_that_only_drained_streamers_could_take_is_refused_in_those_words(teacher: TeacherHost) -> None:
    """Not as if they were dead: the operator is to end the drain, not to start them."""
    teacher.beats = {"s1": {"at": 1.0, "drains": True}, "s2": {"at": 1.0, "drains": True, "gone": True}}
    changes = commit(teacher.engine, handling.change, teacher, lambda *_: None)
    assert changes.no_streamer() == "no streamer takes classes; drained: s1"
    assert Changes(teacher.settings, 1.0).no_streamer() == "no streamer was heard of lately"


def test_of_a_class_that_left_a_streamer_twice_and_came_back_the_latest_placement_counts(teacher: TeacherHost) -> None:
    """An earlier one would release what the streamer has now, or leave what it has no more."""
    name, other = hosts.ALIVE
    with transaction(teacher.engine) as connection:
        for class_id, streamer, placement in (("c-1", name, 1), ("c-1", name, 3), ("c-1", other, 2), ("c-2", name, 7)):
            changes = Changes(teacher.settings, 1000.0)
            changes.take(class_id, streamer, placement, refused=False)
            write(connection, changes)
        assert leases.taken_from(connection, name) == [("c-1", 3), ("c-2", 7)]
        assert leases.taken_from(connection, other) == [("c-1", 2)]
        assert leases.moved_from(connection, ["c-1"]) == {"c-1": other}
