"""Which streamers live, by a clock that the tests turn: who takes bookings, who is missed, and whose classes move."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import nullcontext
from itertools import count
from typing import Any, cast
from unittest.mock import AsyncMock, call

import pytest
from sqlalchemy import Connection

from flows import handling
from flows.host import NOT_MOVED, TeacherHost, lost_tag
from flows.teacher import membership
from flows.teacher.bookings import decided_bookings
from lectern.db import bookings, events, leases
from lectern.decide import leases as decide_leases
from lectern.errors import STREAMER_LOST, TryAgain
from lectern.model.facts import Order
from lectern.model.plan import Changes
from lectern.model.tables.teacher import StreamerRow
from lectern.timing import Throttle
from lectern.wire.messages import Cancel
from tests import rows
from tests.faults.hosts import booking
from tests.rows import commit, look, said

S1, S2 = "s1", "s2"


class World:
    """A teacher and the Redis in which streamers beat; time passes only when the world is told so."""

    def __init__(self, host: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host, self.passed_s, self.asked = host, 0.0, 0
        self.beats: dict[str, dict[str, Any]] = {}
        self.claims: dict[str, dict[str, Any]] = {}
        self.begun: list[str] = []
        self.grant, self.part, self.announce, self.publish = (AsyncMock() for _ in range(4))
        self.take = AsyncMock(return_value=True)  # whether a lease may be taken
        self.lease_of = AsyncMock(return_value=None)  # the session that has it, as Redis knows
        self.living: dict[str, dict[str, Any]] = {}  # who beats until each look, and what
        self.kept = "1.5"  # since when it has kept its data
        for name in ("time", "monotonic"):
            clock = getattr(time, name)
            monkeypatch.setattr(time, name, lambda clock=clock: clock() + self.passed_s)
        monkeypatch.setattr(membership, "publish_outbox", self.publish)
        host.bus, host.runs, host.background = cast("Any", self), cast("Any", self), cast("Any", self)
        now = lambda: time.monotonic()  # noqa: E731, PLW0108 (the one that is turned)
        self.roll = membership.Membership(host, Throttle(now), Throttle(now))
        self.listens_since(3600)

    # -- what the host asks of Redis, of Prefect and of itself ---------------------------------------------------------

    async def kept_since(self, _key: str) -> str:
        return self.kept

    async def alive(self, _key: str, within_s: float) -> list[str]:
        self.asked += 1
        since = time.time() - within_s
        return [name for name, beat in self.beats.items() if beat["at"] > since and not beat.get("gone")]

    async def heard(self, _key: str) -> tuple[float, Mapping[str, Any], Mapping[str, Any]]:
        return time.time(), self.beats, self.claims

    async def forget_withdrawn(self, _key: str, name: str) -> None:
        del self.beats[name]

    def begin(self, _runs: object, run: Any, *, needs_run: bool) -> None:
        assert needs_run
        self.begun.append(run.parameters["streamer"])

    # -- what a test says and sees -------------------------------------------------------------------------------------

    def listens_since(self, ago_s: float) -> None:
        """The teacher has listened to its Redis for so long, and has asked nobody yet."""
        self.host.listens_since, self.host.membership_cache = time.monotonic() - ago_s, (-1e9, ())

    def beats_every(self, interval_s: float) -> float:
        self.host.settings = self.host.settings.model_copy(update={"heartbeat_interval_s": interval_s})
        return interval_s

    def beat(self, *names: str, ago_s: float = 0.0, **fields: object) -> None:
        self.beats |= {name: {"at": time.time() - ago_s, **fields} for name in names}

    def leased(self, *names: str, ago_s: float = 3600, lease_s: float = 45.0, lost_ago_s: float | None = None) -> None:
        lost_at = None if lost_ago_s is None else time.time() - lost_ago_s
        for name in names:
            commit(self.host.engine, rows.granted, name, "session", lease_s, time.time() - ago_s, lost_at)

    def holder(self, name: str) -> StreamerRow:
        return look(self.host.engine, leases.holder, name)

    def placed(self, class_id: str, streamer: str = S1, in_s: float = 7200.0) -> None:
        fields = {"push_url": f"rtmp://push.example/live/{class_id}"}
        rows.placed(self.host, booking(class_id, in_s, **fields), streamer, ready=True)

    def where(self, class_id: str) -> Order:
        return look(self.host.engine, bookings.by_id, [class_id])[class_id]

    def stayed(self, class_id: str) -> bool:
        return bool(look(self.host.engine, events.named, "stays", [class_id]))

    async def looks(self, after_s: float = 0.0) -> None:
        """The teacher looks again, when so much time has passed."""
        self.passed_s += after_s
        self.host.ongoing.clear()
        for name, fields in self.living.items():
            self.beat(name, **fields)
        await self.roll.look()

    @property
    def is_missing(self) -> bool:
        """Whether a streamer is said to be lost still."""
        return STREAMER_LOST.number in self.host.ongoing

    @property
    def taken(self) -> list[str]:
        """Whose leases were to be taken."""
        return [one.args[1] for one in self.take.await_args_list]

    @property
    def alarms(self) -> list[str]:
        return [one["message"] for one in said(self.host, "alarm") if one["code"] == STREAMER_LOST.number]


@pytest.fixture
def world(teacher: TeacherHost, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(teacher, monkeypatch)


# -- who takes bookings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leased_ago_s", "listens_s", "why"),
    [
        (None, 100, "about to be rolled out"),
        (None, membership.FIRST_STREAMER_S + 1, None),
        (0, 100, "s1 has just been given its lease"),
        *((ago_s, 10, "no streamer was heard of yet") for ago_s in (3600, -3600)),  # the clock was set back
        *((ago_s, 100, None) for ago_s in (3600, -3600)),
    ],
)
async def test_a_booking_is_refused_once_each_streamer_would_have_beaten(
    world: World, leased_ago_s: float | None, listens_s: float, why: str | None
) -> None:
    """A teacher may be rolled out some minutes before its streamers; until they are heard of, bookings are kept."""
    world.beats_every(30)
    world.listens_since(listens_s)
    if leased_ago_s is not None:
        world.leased(S1, ago_s=leased_ago_s)
    with pytest.raises(TryAgain, match=why) if why else nullcontext():
        assert await membership.alive_streamers(world.host) == []
    world.beat(S1)
    world.listens_since(listens_s)
    assert await membership.alive_streamers(world.host) == [S1]


async def test_a_streamer_that_never_takes_its_lease_keeps_bookings_waiting_for_no_longer_than_a_lost_one(
    world: World,
) -> None:
    """Its disk is full, or it reads another stream: it asks again and again, and is given its lease each time."""
    world.claims = {S1: {"session": "new", "lease_s": 45.0}}
    await world.looks()
    with pytest.raises(TryAgain, match="s1 has just been given its lease"):
        await membership.alive_streamers(world.host)
    for _ in range(6):
        await world.looks(after_s=world.host.settings.streamer_lost_after_s / 6)
    assert world.grant.await_count > 3
    assert await membership.alive_streamers(world.host) == []


async def test_a_lease_that_is_never_taken_is_granted_ever_more_rarely_until_redis_may_have_lost_it(
    world: World,
) -> None:
    """Each time with all that was taken from its streamer: a full disk there would fill the one here within days."""
    world.claims = {S1: {"session": "new", "lease_s": 45.0}}
    numbers = []
    for looks, after_s in ((7, 10), (60, 60), (23, 3601)):
        for _ in range(looks):
            await world.looks(after_s)
        numbers.append(world.grant.await_count)
    assert numbers[0] >= 4, "soon at first"
    assert numbers[1] < 25
    assert numbers[2] - numbers[1] >= 22, "but once an hour"
    world.kept = "9.5"
    for _ in range(2):
        await world.looks(membership.GRANT_AGAIN_S + 1)
    assert world.grant.await_count > numbers[2]


async def test_redis_is_asked_who_lives_again_after_a_second_and_while_nobody_does(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_s = 20 * membership.SEEN_S  # as if a second were so long: a busy machine is slow
    monkeypatch.setattr(membership, "SEEN_S", seen_s)
    world.beat(S1)
    for after_s, asked in ((0, 1), (0, 1), (seen_s, 2)):
        world.passed_s += after_s
        assert await membership.alive_streamers(world.host) == [S1]
        assert world.asked == asked
    world.beats.clear()
    world.passed_s += 2 * seen_s
    for asked in (3, 4):
        assert await membership.alive_streamers(world.host) == []
        assert world.asked == asked


async def test_while_the_last_streamer_is_started_again_bookings_are_kept(world: World) -> None:
    """It has said that it goes; only if it stays away are they refused."""
    world.leased(S1)
    world.beat(S1, ago_s=1, gone=True)
    await world.looks()
    with pytest.raises(TryAgain, match="s1 has just been stopped"):
        await membership.alive_streamers(world.host)
    world.passed_s += world.host.settings.streamer_lost_after_s
    assert await membership.alive_streamers(world.host) == []
    world.beat(S1)
    await world.looks()
    assert await membership.alive_streamers(world.host) == [S1]


async def test_while_redis_takes_no_writes_no_booking_is_refused_for_want_of_a_streamer(world: World) -> None:
    """It answers what was written before, but no heartbeat can come. Afterwards the streamers have seconds to beat.

    The look waits longer after each failure, and the first one that succeeds may come before the first new heartbeat.
    """
    world.beat(S1, ago_s=120)
    world.leased(S1)
    world.host.redis_away = True  # the lock of the queue could not be renewed
    with pytest.raises(TryAgain, match="Redis takes no heartbeats"):
        await membership.alive_streamers(world.host)
    with pytest.raises(TryAgain, match="takes no heartbeats"):
        await world.looks()
    world.host.redis_away = False
    world.passed_s += 10
    with pytest.raises(TryAgain, match="no streamer was heard of yet"):
        await membership.alive_streamers(world.host)
    await world.looks()
    with pytest.raises(TryAgain, match="no streamer was heard of yet"):
        await membership.alive_streamers(world.host)
    world.passed_s += 30
    assert await membership.alive_streamers(world.host) == []


async def test_while_redis_takes_heartbeats_silence_counts_though_our_lock_is_refused(world: World) -> None:
    """One streamer that beats says that Redis takes beats."""
    world.beat(S1, ago_s=membership.BEATS * world.beats_every(600) - 300)
    world.beat(S2, ago_s=5000)
    world.host.redis_away, before = True, world.host.listens_since
    await world.looks()
    assert world.host.listens_since == before


# -- who is missed -----------------------------------------------------------------------------------------------------


async def test_a_streamer_is_lost_when_it_was_silent_for_long_while_the_teacher_listened(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if Redis lacks its last beat. The move is announced before, and soon again; one that beats is back."""
    again_s = 5 * membership.ANNOUNCE_AGAIN_S
    monkeypatch.setattr(membership, "ANNOUNCE_AGAIN_S", again_s)
    world.placed("c-1")
    world.leased(S1)
    lost_s = world.host.settings.streamer_lost_after_s
    world.beat(S1, ago_s=lost_s + 100)
    world.listens_since(10)
    await world.looks()
    assert (world.alarms, world.begun, world.is_missing) == ([], [], False), "what was before counts for nothing"
    world.listens_since(3600)
    world.beats.clear()
    world.living = {S2: {}}
    await world.looks()
    soon_s = lost_s - decide_leases.NOTICE_S - decide_leases.HASTE_S
    await world.looks(after_s=soon_s - 8)
    assert world.begun == []
    await world.looks(after_s=9)
    assert (world.begun, world.alarms) == ([S1], []), "it is announced, and not lost"
    await world.looks()
    assert world.begun == [S1]
    await world.looks(after_s=again_s)
    assert world.begun == [S1, S1]
    world.host.in_progress.add(membership.move_key(S1))
    for _ in range(2):
        await world.looks(after_s=lost_s)
        assert (world.begun, len(world.alarms)) == ([S1, S1], 1), "a run is at it"
    assert ((world.holder(S1).lost_at or 0.0) > 0, world.is_missing) == (True, True)
    world.living[S1] = {}
    await world.looks()
    await world.looks()
    assert (world.holder(S1).lost_at, world.is_missing) == (None, False)


@pytest.mark.parametrize("number", [1, 0], ids=["it has a class", "its classes were moved"])
async def test_a_lost_streamer_is_lost_no_second_time_and_not_back_before_it_is_heard(
    world: World, number: int
) -> None:
    """By a teacher that has just begun to listen, too; nobody begins to move classes that it has not.

    Its disk may be full, so that it never reads its grant: it is given one again and again.
    """
    for class_id in ["c-1"][:number]:
        world.placed(class_id)
    world.leased(S1, lost_ago_s=300)
    for listens_s, beats in ((0, {S1: {"at": time.time() - 3000}}), (0, {}), (3600, {S1: {"at": time.time() - 3000}})):
        world.listens_since(listens_s)
        world.beats = {**beats, S2: {"at": time.time()}}
        await world.looks()
        assert (bool(world.holder(S1).lost_at), world.alarms, world.is_missing) == (True, [], True)
    assert world.begun == [S1] * number
    world.claims = {S1: {"session": "new", "lease_s": 45.0}}
    for grants in (1, 2):
        for _ in range(2):
            await world.looks(after_s=membership.GRANT_AGAIN_S / 2 + 1)
            assert (world.holder(S1).session, world.alarms, world.is_missing) == ("new", [], True)
        assert world.grant.await_count == grants
    world.claims.clear()
    world.living = {S1: {}}
    await world.looks()
    await world.looks()
    assert (world.holder(S1).lost_at, world.is_missing) == (None, False)


async def test_one_that_is_given_a_class_at_its_first_beat_for_hours_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was off without a class, which nobody misses. A look at Redis just before has its last beat of before."""
    world.leased(S1)
    world.beat(S1, ago_s=3000)
    heard = world.heard

    async def just_before(key: str) -> tuple[float, Mapping[str, Any], Mapping[str, Any]]:
        before = await heard(key)
        world.beats = {S1: {"at": time.time()}}
        world.placed("c-1")
        return before

    monkeypatch.setattr(world, "heard", just_before)
    await world.looks()
    assert (world.where("c-1").streamer, world.alarms, world.begun) == (S1, [], [])


async def test_a_move_that_left_a_class_is_tried_again_after_minutes(world: World) -> None:
    """Its streamer has no session any more; one that never had a lease is lost, too."""
    world.placed("c-1")
    world.beat(S1, ago_s=3000)
    world.living = {S2: {}}
    await world.looks()
    assert (world.begun, len(world.alarms)) == ([], 1), "nobody knows how long it airs without Redis"
    commit(world.host.engine, handling.change, world.host, membership.granted(S1, "session", 45.0))
    await world.looks()
    assert world.begun == [S1]
    commit(world.host.engine, handling.change, world.host, membership.taken(world.holder(S1), [], force=False))
    for after_s, number in ((membership.ANNOUNCE_AGAIN_S, 1), (membership.TAKEN_AGAIN_S, 2)):
        await world.looks(after_s)
        assert len(world.begun) == number


async def test_who_has_no_class_or_is_at_the_old_program_or_is_alone_is_not_moved(world: World) -> None:
    world.leased(S1, S2)
    world.beat(S1, withdrawn=True)
    world.placed("c-1")
    await world.looks()
    left = world.holder(S1)
    assert (left.session, bool(left.withdrawn_at), world.beats) == (None, True, {})
    world.claims = {"s3": {"session": "new", "lease_s": 45}}
    world.passed_s += 10
    commit(world.host.engine, handling.change, world.host, membership.withdrawn(S1))
    assert world.holder(S1).withdrawn_at == left.withdrawn_at, "it has left once"
    await world.looks()
    world.grant.assert_awaited_once_with(world.host.settings.streamers_key, "s3", "new")
    await world.looks()
    assert world.grant.await_count == 1, "it may be about to read it"
    await world.looks(after_s=1000)
    assert (world.alarms, world.begun) == ([], [])
    world.placed("c-2", S2)
    await world.looks(after_s=1000)
    await world.looks(after_s=1000)
    assert (len(world.alarms), world.begun) == (1, []), "nobody could take it"


async def test_while_redis_is_away_whoever_was_lost_stays_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though another one lives: its incident would be resolved, and never raised again."""
    world.leased(S1, lost_ago_s=300)
    world.leased(S2)
    monkeypatch.setattr(world, "heard", AsyncMock(side_effect=TryAgain("Redis: no route to host")))
    with pytest.raises(TryAgain):
        await world.looks()
    assert world.is_missing


async def test_who_is_missed_is_missed_anew_each_time_that_redis_is_emptied(world: World) -> None:
    world.placed("c-1")
    missed = []
    for world.kept in ("1.5", "1.5", "9.5"):
        await world.looks(after_s=5)
        missed.append(world.host.missing_since[S1])
    assert missed[0] == missed[1] < missed[2]


@pytest.mark.parametrize(("lease_s", "moved"), [(45.0, True), (0.0, False)])
async def test_of_a_lease_without_end_nothing_is_moved(world: World, lease_s: float, *, moved: bool) -> None:
    """Who is lost is said all the same, and that its classes stay."""
    world.placed("c-1")
    world.leased(S1, lease_s=lease_s)
    world.beat(S1, ago_s=3000)
    world.beat(S2)
    await world.looks()
    assert (len(world.begun), len(world.alarms)) == (int(moved), 1)
    assert ("has no end" not in world.alarms[0]) is moved


async def test_the_classes_of_a_streamer_that_the_restored_database_does_not_know_are_moved_as_others_are(
    world: World,
) -> None:
    """It was leased for the first time after the backup: its lease seemed to have no end, and a person had to come."""
    world.placed("c-1")
    world.living = {S1: {"lease_s": 45.0}, S2: {}}
    await world.looks()
    assert world.holder(S1).lease_s == 45.0
    world.living = {S2: {}}
    await world.looks(after_s=world.host.settings.streamer_lost_after_s + 1)
    assert world.begun == [S1]
    assert ["to be moved to others" in one for one in world.alarms] == [True]


async def test_a_drained_streamer_gives_away_its_later_classes_and_those_that_come_to_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    again_s = 8 * membership.DRAIN_AGAIN_S
    monkeypatch.setattr(membership, "DRAIN_AGAIN_S", again_s)
    world.leased(S1, S2)
    world.living = {S1: {"drains": "anna"}, S2: {}}
    for class_id, streamer in (("c-1", S1), ("c-2", S2)):
        world.placed(class_id, streamer)
    await world.looks()
    assert [world.where(one).streamer for one in ("c-1", "c-2")] == [S2, S2]
    assert world.publish.await_count == 1
    world.placed("c-3")
    await world.looks(after_s=again_s / 2)
    assert (world.where("c-3").streamer, world.publish.await_count) == (S1, 1)
    await world.looks(after_s=again_s)
    assert (world.where("c-3").streamer, world.publish.await_count) == (S2, 2)
    world.placed("soon", in_s=60)
    await world.looks(after_s=again_s)
    assert (world.where("soon").streamer, world.publish.await_count) == (S1, 2)


@pytest.mark.parametrize(("fields", "ago_s", "is_moved"), [({}, 30, False), ({"gone": True}, 30, True), ({}, 1, True)])
async def test_of_a_drained_streamer_that_hears_nothing_no_class_is_moved_before_it_is_lost(
    world: World, fields: dict[str, bool], ago_s: float, *, is_moved: bool
) -> None:
    """Cut off from Redis alone, it asks Prefect whether its classes are taken, where only a move is shown.

    It would air them beside the other one. One that was stopped asks nobody, and its lease ends.
    """
    world.leased(S1, S2)
    world.beat(S1, ago_s=ago_s, drains="anna", **fields)
    world.beat(S2)
    world.placed("c-1")
    await world.looks()
    assert world.where("c-1").streamer == (S2 if is_moved else S1)


# -- whose classes move ------------------------------------------------------------------------------------------------


@pytest.fixture
def silent(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A streamer with a class that was silent for long, and one that may have it."""
    monkeypatch.setattr(decide_leases, "NOTICE_S", 0.01)
    monkeypatch.setattr(membership, "SILENT_LOOK_S", 0.01)
    world.placed("c-1")
    world.leased(S1)
    world.beat(S1, ago_s=3000, peers=[S2])
    world.beat(S2)
    world.host.heard_at[S2] = time.monotonic(), ""
    world.host.beats |= world.beats
    return world


async def moved(world: World, *, force: bool = False) -> bool:
    """Whether a run moves the classes of the first streamer."""
    ended = await asyncio.wait_for(membership._move(world.host, S1, force=force, dry_run=False), 30)
    assert (ended.name == NOT_MOVED) is (world.where("c-1").streamer == S1)
    return ended.name != NOT_MOVED


async def test_the_classes_of_a_silent_streamer_are_moved_once_prefect_shows_it_and_redis_lets_them_go(
    silent: World,
) -> None:
    """It may have beaten, and have renewed its lease, between two looks and before Redis was emptied."""
    silent.take.return_value = False
    assert not await moved(silent)
    silent.take.return_value = True
    assert await moved(silent)
    assert silent.holder(S1).session is None
    assert silent.announce.await_args_list == [call(lost_tag(S1, "session"))] * 2
    assert (silent.taken, silent.part.await_count) == ([S1] * 2, 0)


@pytest.mark.parametrize("held", ["newer", "-newer"])
async def test_after_a_restore_a_move_is_announced_by_the_session_that_redis_has(silent: World, held: str) -> None:
    """The database has an earlier one. By that alone a streamer that is cut off from Redis would hear of no move."""
    silent.lease_of.return_value = held
    assert await moved(silent)
    assert silent.announce.await_args_list == [call(lost_tag(S1, "session"), lost_tag(S1, "newer"))]


async def test_a_streamer_that_beats_is_moved_from_by_force_alone_and_is_then_missed_no_more(silent: World) -> None:
    """Of others that live, any may have its classes; by itself it would go on beside one that it does not ask."""
    silent.beat(S1, peers=[])
    silent.host.beats |= silent.beats
    assert not await moved(silent)
    dry = await membership._move(silent.host, S1, force=False, dry_run=True)
    assert "no streamer is alive that may have its classes" in (dry.message or "")
    assert (silent.announce.await_count, silent.taken) == (0, [])
    assert await moved(silent, force=True)
    silent.part.assert_awaited_once_with(silent.host.settings.streamers_key, S1)
    assert (silent.taken, silent.alarms) == ([S1], []), "a person knows of it"


async def test_if_redis_goes_away_while_a_streamer_is_taken_out_nothing_is_moved_as_its_run_says(silent: World) -> None:
    """The person who began it tries again. That the classes were moved, nobody would have heard."""
    silent.part.side_effect = TryAgain("Redis: no route to host")
    with pytest.raises(TryAgain):
        await moved(silent, force=True)
    assert silent.where("c-1").streamer == S1
    silent.part.side_effect = None
    assert await moved(silent, force=True)


async def test_a_cancel_is_answered_once_a_person_says_that_its_streamer_is_off_which_hears_of_it_if_it_comes_back(
    silent: World,
) -> None:
    """Not at the end of the class, hours later. By the time it comes back, Redis may have lost the release."""

    def cancelled(connection: Connection, changes: Changes) -> None:
        changes.learn(bookings.by_id(connection, ["c-2"]))
        decided_bookings([], connection, changes, [Cancel(class_id="c-2")])

    silent.placed("c-2")
    commit(silent.host.engine, handling.change, silent.host, cancelled)
    for force, answers in ((False, []), (True, [0])):
        assert await moved(silent, force=force)
        assert [one["code"] for one in said(silent.host, "cancel_result")] == answers
    commit(silent.host.engine, handling.change, silent.host, membership.granted(S1, "new", 45.0))
    *_, last, granted = said(silent.host, "release", "grant")
    assert (last["class_id"], last["placement"], granted["cmd"]) == ("c-2", 1, "grant")


@pytest.mark.parametrize("is_known", [True, False], ids=["since its last word", "since it was missed in Redis"])
async def test_the_move_begins_as_soon_as_the_silence_has_lasted(
    silent: World, monkeypatch: pytest.MonkeyPatch, *, is_known: bool
) -> None:
    """Not before, though its notice is over: a lease may have been renewed just before Redis lost its data."""
    monkeypatch.setattr(membership, "SILENT_LOOK_S", 60.0)
    began, word = time.monotonic(), {S1: {"at": time.time() - 59.5}}
    silent.beats = word if is_known else {}
    silent_s = 60.0 if is_known else 0.5
    assert await asyncio.wait_for(membership._stays_silent(silent.host, S1, silent_s), 30)
    assert time.monotonic() - began > 0.49


@pytest.mark.parametrize("words", [{2}, {1, 4}], ids=["during the notice", "after it"])
async def test_a_streamer_that_is_heard_of_again_keeps_its_classes(silent: World, words: set[int]) -> None:
    """At the second look, or after some more of one whose silence had yet to last."""
    looks = count(1)

    async def heard(_: str) -> Any:
        if next(looks) in words:
            silent.beat(S1)
        return time.time(), silent.beats, {}

    cast("Any", silent).heard = heard
    assert not await moved(silent)
    assert silent.taken == []


async def test_nobody_is_lost_because_redis_was_started_again_with_older_heartbeats(world: World) -> None:
    """Its next heartbeat is on its way; until then Redis has one of some minutes ago."""
    world.placed("c-1")
    world.leased(S1)
    world.beat(S1)
    await world.looks()
    world.kept = "9.5"
    world.beat(S1, ago_s=600)
    await world.looks()
    assert world.holder(S1).lost_at is None
    await world.looks(after_s=3600)
    assert world.holder(S1).lost_at is not None, "it goes on"


async def test_what_is_not_leased_any_more_is_moved_without_a_word_in_prefect(silent: World) -> None:
    """That a class stays where it is, since nobody could take it, is noted in its story."""
    commit(silent.host.engine, handling.change, silent.host, membership.taken(silent.holder(S1), [], force=False))
    assert silent.stayed("c-1")
    silent.placed("c-2")
    silent.lease_of.return_value = "-session"
    assert await moved(silent)
    assert not silent.stayed("c-2")
    assert silent.announce.await_count == 0


async def test_classes_stay_where_they_are_while_no_other_streamer_lives(silent: World) -> None:
    del silent.beats[S2]
    silent.host.heard_at[S1] = silent.host.heard_at.pop(S2)
    for force in (False, True):
        assert not await moved(silent, force=force)
    assert silent.taken == []
