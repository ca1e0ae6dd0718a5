"""How long a streamer may push on its own, and when it is lost; what it does meanwhile, case for case."""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lectern.decide import leases
from lectern.decide.leases import Answer, Lease, Peers, PrefectAnswer


def test_nobody_takes_a_class_before_its_lease_has_run_out_and_one_without_end_never() -> None:
    """However soon a silent streamer is to be lost, and whatever Prefect has said to it.

    A notice is over at the loss, with a moment to spare, in which the run begins that gives it.
    """
    for lost_after_s in (1.0, 20.0, 60.0):
        for lease_s in (6.0, 12.0, 45.0):
            assert leases.lost_after(lost_after_s, lease_s) >= leases.until(0.0, lease_s) + leases.MARGIN_S
    assert leases.NOTICE_S > leases.WITNESS_S
    assert leases.lost_after(60, 0) == math.inf
    assert leases.until(0.0, 0) == math.inf
    assert leases.suspect_after(60, 5) + leases.NOTICE_S + leases.HASTE_S == 60


def test_a_silence_begins_while_somebody_listens_and_a_beat_or_two_are_none() -> None:
    assert leases.suspect_after(12, 5) == 15
    assert leases.silence(100.0, 0.0, ears_open_s=3.0) == 3.0
    assert leases.silence(None, 7.0, ears_open_s=30.0) == 7.0


def test_who_fell_silent_in_the_same_moment_takes_no_class() -> None:
    """Whoever still beats may, also if its last beat is as old as it can be."""
    for lost_after_s, beat_s in ((6.0, 5.0), (20.0, 1.0), (50.0, 5.0), (60.0, 5.0), (600.0, 30.0)):
        for more_s in (0.01, 5.0, 100.0):
            silent_s = leases.suspect_after(lost_after_s, beat_s) + more_s
            assert beat_s < leases.heard_within(silent_s) < silent_s - beat_s


HELD, OVER = 20.0, 5.0
"""Ends of a lease, as seen at second 10."""


@pytest.mark.parametrize(
    ("answer", "until", "goes_on", "end"),
    [
        (Answer.OURS, HELD, None, 9.0 + 45.0),
        (Answer.OURS, OVER, None, 9.0 + 45.0),
        (Answer.OURS, HELD, True, 9.0 + 45.0),  # the witness's answer is of the time before
        (Answer.TAKEN, HELD, None, 0.0),
        (Answer.TAKEN, HELD, True, 0.0),
        (Answer.TAKEN, OVER, True, 0.0),
        (Answer.FORGOTTEN, 15.0, True, 9.0 + leases.WITNESS_S),
        (Answer.GRANTED, 15.0, True, 9.0 + leases.WITNESS_S),
        (Answer.NONE, 15.0, True, 9.0 + leases.WITNESS_S),
        (Answer.NONE, HELD, True, HELD),
        (Answer.NONE, HELD, False, HELD),
        (Answer.FORGOTTEN, HELD, None, HELD),
        (Answer.NONE, OVER, True, OVER),
        (Answer.NONE, 10.0, True, 10.0),
        (Answer.FORGOTTEN, OVER, True, OVER),
        (Answer.GRANTED, OVER, True, OVER),
    ],
)
def test_each_case_of_the_table(answer: Answer, until: float, goes_on: bool | None, end: float) -> None:
    """What Redis takes is given up whatever the witnesses say; they lengthen a lease that runs, and revive none."""
    found = Lease(until).answered(answer, 9.0, 45.0)
    if goes_on is not None:
        found = found.witnessed(9.0, 10.0, goes_on=goes_on)
    assert found == Lease(end, answer)


def test_a_lease_that_is_shorter_from_now_on_takes_no_time_from_what_a_witness_would_give() -> None:
    renewed = [Lease(end).answered(Answer.OURS, 9.0, 5.0).until for end in (12.0, 15.0, HELD)]
    assert renewed == [14.0, 15.0, 9.0 + leases.WITNESS_S]


def test_a_lease_that_another_session_has_was_taken_unless_that_session_is_ours() -> None:
    assert leases.answer(None, "mine") is Answer.FORGOTTEN
    assert leases.answer("", "mine") is Answer.TAKEN
    assert leases.answer("another", "mine") is Answer.TAKEN
    assert leases.answer("mine", "mine") is Answer.GRANTED
    assert leases.answer("+of the process before", "mine") is Answer.GRANTED


POLICIES = ("ask peers", "stop", "push")
GOES_ON = {
    ("ask peers", PrefectAnswer.AWAY, Peers.NONE),
    ("ask peers", PrefectAnswer.AWAY, Peers.BLIND),
    *(("push", PrefectAnswer.AWAY, peers) for peers in Peers),
    *itertools.product(POLICIES, (PrefectAnswer.FREE,), Peers),
}


def test_each_case_is_decided() -> None:
    """Classes go on if nobody takes them, if nobody could, and if the operator says so; else they stop."""
    found = {case: leases.partition_verdict(*case) for case in itertools.product(POLICIES, PrefectAnswer, Peers)}
    assert {case for case, (goes_on, _) in found.items() if goes_on} == GOES_ON
    assert all(why for _, why in found.values())


def test_who_hears_or_might_hear_outweighs_who_does_not() -> None:
    looks = [Peers.BLIND, Peers.BLIND, Peers.SILENT, Peers.HEARS]
    together = [leases.together(looks[:number]) for number in (0, 2, 3, 4)]
    assert together == [Peers.NONE, Peers.BLIND, Peers.SILENT, Peers.HEARS]


HEALTHS: dict[str, tuple[dict[str, object] | None, Peers]] = {
    "no answer": (None, Peers.SILENT),
    "blind": ({"name": "s2", "hears": False}, Peers.BLIND),
    "hears": ({"name": "s2", "hears": True, "ready": False}, Peers.HEARS),
    "another host": ({"name": "s1", "hears": False}, Peers.SILENT),
    "an older release": ({"name": "s2", "ready": True}, Peers.SILENT),
    "not readable": ({"name": "s2", "hears": "no"}, Peers.SILENT),
}


def test_only_a_clear_answer_of_that_very_streamer_counts() -> None:
    """At a loopback address this streamer would find itself, as blind as it is."""
    assert [one for one, (health, found) in HEALTHS.items() if leases.look(health, "s2") is not found] == []


def test_a_streamer_knows_those_that_were_heard_lately() -> None:
    """One that was taken out of use weeks ago must not silence the others; one that restarts is still asked.

    One whose machine is rebooted is not: if the control host is rebooted meanwhile, all classes would end.
    """
    beats: dict[str, dict[str, Any]] = {
        "s1": {"at": 1000.0},
        "s2": {"at": 1010.0, "address": "10.0.0.2:8801"},
        "s3": {"at": 1000.0 - leases.GONE_S, "gone": True, "address": 7},
        "s4": {"at": 1000.0 - leases.PEER_S - 1, "address": "10.0.0.4:8801"},
        "s5": {"at": 1000.0 - leases.GONE_S - 1, "gone": True, "address": "10.0.0.5:8801"},
    }
    assert leases.others(beats, "s1") == {"s2": "10.0.0.2:8801", "s3": ""}
    del beats["s1"]
    assert leases.others(beats, "s1") == {"s2": "10.0.0.2:8801"}, "counted from the last that was heard"


def test_classes_go_only_to_those_that_the_silent_streamer_asks() -> None:
    """It goes on while those it asks are blind: a streamer that it never heard of would push beside it.

    Its beat says whom it asks, by its setting: others, nobody, or none that counts, as it stops by itself.
    """
    listed = [leases.listed_peers(policy, {"s9", "s2"}) for policy in ("stop", "ask peers", "push")]
    assert listed == [None, ["s2", "s9"], []]
    beats = [None, {"at": 1.0}, *({"at": 1.0, "peers": peers} for peers in listed)]
    assert [leases.may_take(beat, {"s3", "s2"}) for beat in beats] == [*[["s2", "s3"]] * 3, ["s2"], []]


# Two streamers never hold one class, in whatever order hosts, Redis and Prefect stop, wake, lose and come late.


STEP_S = 0.5
LEASE_S, BEAT_S, LOST_S = 15.0, 1.0, leases.lost_after(20.0, 15.0)
PATIENCE_S = 3.0
GRANT_S = 1.5
"""Seconds until a streamer has read what the teacher has written for it."""

EVENTS: dict[str, dict[str, Any]] = {
    "stop": {"stopped": True},
    "wake": {"stopped": False},
    "Redis away": {"redis": False},
    "Redis away from the first": {"reached": False},
    "Redis emptied": {"redis": True, **dict.fromkeys(("holder", "beat_at", "claim_at", "kept_since"))},
    "Redis started again": {"redis": True, "kept_since": None},
    "Redis back": {"redis": True, "reached": True},
    "Prefect away": {"prefect": False, "late_s": 0.5},
    "Prefect late": {"late_s": 4.0},
    "Prefect forgets": {"moved": frozenset()},  # all but what is to come: who took a class may look as if not
    "Prefect back": {"prefect": True, "late_s": 0.5},
    "a teacher restarts": {"hangs": False},
    "a teacher hangs": {"hangs": True},
    "a teacher goes on": {"hangs": False},
}
"""What may happen, and what is different in the world then."""


class Sent(NamedTuple):
    """An answer that is on its way to the first streamer; *goes_on* is None for one of Redis."""

    at: float
    asked_at: float
    answer: Answer | None
    goes_on: bool | None


@dataclass
class Move:
    """The run of a teacher that moves the class; its tag in Prefect names the *session* that loses it."""

    session: str
    began_at: float
    last_beat_at: float | None
    is_due: bool = False
    """Whether it takes the lease at its next step."""
    has_lease: bool = False
    """Whether it has taken the lease, and moves the class at its next step."""


@dataclass
class Teacher:
    """What a teacher remembers."""

    deaf_at: float = 0.0
    missed_at: float | None = None
    kept_since: float | None = None
    move: Move | None = None


@dataclass
class World:
    """The first streamer airs a class, the second one could; teachers look at both, as `flows.teacher` does."""

    now: float = 0.0
    # What may happen
    stopped: bool = False
    redis: bool = True
    reached: bool = True
    prefect: bool = True
    late_s: float = 0.5
    hangs: bool = False
    """Whether the first teacher does."""
    # What Redis and Prefect have
    holder: str | None = "s0"
    beat_at: float | None = 0.0
    claim_at: str | None = None
    kept_since: float | None = 0.0
    moved: frozenset[str] = frozenset()
    # The first streamer
    session: str = "s0"
    claims: int = 0
    lease: Lease = field(default_factory=lambda: Lease(LEASE_S, Answer.OURS))
    next_beat: float = 0.0
    asks: bool = False
    coming: list[Sent] = field(default_factory=list)
    granted: tuple[float, str, bool] | None = None
    """When it reads a grant, of which session; whether it loses the class."""
    # The teachers and their database, and the second streamer
    teachers: tuple[Teacher, Teacher] = field(default_factory=lambda: (Teacher(), Teacher()))
    known: str | None = "s0"
    blind_at: float = -math.inf
    taken_at: float = math.inf

    @property
    def claim(self) -> str:
        return f"s{self.claims + 1}"

    def step(self) -> None:
        self.now += STEP_S
        for teacher in self.teachers[self.hangs :]:
            self._look(teacher)
            self._move(teacher)
        if not self.stopped:
            self._read_grant()
            self._hear()
            if self.now >= self.next_beat:
                self._beat()
            if self.asks and self.lease.answer is not Answer.OURS:
                self._ask()
        first = self.now < self.lease.until and self.taken_at < math.inf
        second = self.now >= max(self.taken_at, self.blind_at + leases.WITNESS_S)
        assert not (first and second), f"two hold the class at {self.now} s"

    def _beat(self) -> None:
        if self.session == self.claim:
            self.claims += 1
        said, waits_s = Answer.NONE, PATIENCE_S
        if self.redis and self.reached:
            said, waits_s = leases.answer(self.holder, self.claim), 0.0
            if self.holder == self.session:
                said, self.beat_at, self.claim_at = Answer.OURS, self.now, None
            elif self.holder == f"-{self.claim}":
                self.claims += 1
            else:
                self.claim_at = self.claim
        self.coming.append(Sent(self.now + (waits_s or STEP_S), self.now, said, None))
        self.next_beat, self.asks = self.now + waits_s + BEAT_S, True

    def _ask(self) -> None:
        self.asks = False
        word = PrefectAnswer.AWAY
        if self.prefect:
            announced = {teacher.move.session for teacher in self.teachers if teacher.move is not None}
            is_taken = (announced | self.moved) & {self.session, self.claim}
            word = PrefectAnswer.TAKEN if is_taken else PrefectAnswer.FREE
        peers = Peers.HEARS if self.redis else Peers.BLIND
        if peers is Peers.BLIND:
            self.blind_at = self.now
        goes_on, _ = leases.partition_verdict("ask peers", word, peers)
        self.coming.append(Sent(self.now + self.late_s, self.now, None, goes_on))

    def _hear(self) -> None:
        for sent in [one for one in self.coming if one.at <= self.now]:
            self.coming.remove(sent)
            if sent.answer is not None:
                self.lease = self.lease.answered(sent.answer, sent.asked_at, LEASE_S)
            elif sent.goes_on is not None:
                self.lease = self.lease.witnessed(sent.asked_at, self.now, goes_on=sent.goes_on)

    def _read_grant(self) -> None:
        if self.granted is not None and self.granted[0] <= self.now and self.redis and self.reached:
            _, self.session, loses = self.granted
            self.granted = None
            if loses:  # it is released first; later it is placed here again
                self.taken_at = math.inf
                self.blind_at = -math.inf

    def _look(self, teacher: Teacher) -> None:
        if not self.redis:
            teacher.deaf_at, teacher.missed_at = self.now, None
            return
        if self.kept_since is None:
            self.kept_since = self.now
        if self.kept_since != teacher.kept_since:
            teacher.deaf_at = teacher.deaf_at if teacher.kept_since is None else self.now
            teacher.kept_since, teacher.missed_at = self.kept_since, None
        silent_s = leases.silence(*self._silence(teacher), self.now - teacher.deaf_at)
        if self.claim_at is not None and self.granted is None and self.holder != f"-{self.claim_at}":
            self.holder = self.known = self.claim_at
            self.granted = self.now + GRANT_S, self.claim_at, self.taken_at < math.inf
        is_suspect = silent_s > leases.suspect_after(LOST_S, BEAT_S)
        if teacher.move is None and is_suspect and self.prefect and self.known is not None:
            teacher.move = Move(self.known, self.now, self.beat_at)

    def _silence(self, teacher: Teacher) -> tuple[float | None, float]:
        """The age of the last beat, and the seconds since *teacher* missed it."""
        if self.beat_at is not None:
            teacher.missed_at = None
            return self.now - self.beat_at, 0.0
        teacher.missed_at = self.now if teacher.missed_at is None else teacher.missed_at
        return None, self.now - teacher.missed_at

    def _move(self, teacher: Teacher) -> None:
        """Each of its steps may come long after the one before."""
        move = teacher.move
        if move is None:
            return
        if move.has_lease:  # what is left to do needs the database only
            teacher.move = None
            if self.known == move.session:
                self.known, self.taken_at = None, min(self.taken_at, self.now)
                self.moved |= {move.session}
        elif not self.redis:
            teacher.move = None if move.is_due else move
        elif move.is_due:
            self._take(teacher, move)
        elif self.beat_at != move.last_beat_at:
            teacher.move = None
        elif self.now - move.began_at > leases.NOTICE_S:
            move.is_due = leases.silence(*self._silence(teacher), math.inf) > LOST_S

    def _take(self, teacher: Teacher, move: Move) -> None:
        kept_since = self.now if self.kept_since is None else self.kept_since
        if self.now - max(kept_since, self.beat_at or 0.0) <= LOST_S:
            teacher.move = None
            return
        self.holder, self.claim_at = f"-{(self.holder or '').removeprefix('-')}", None
        move.has_lease = True

    def happens(self, event: str) -> None:
        for name, value in EVENTS[event].items():
            setattr(self, name, value)
        if event == "a teacher restarts":
            self.teachers = Teacher(deaf_at=self.now), self.teachers[1]
        if event == "Redis started again":  # it has read the heartbeats of a minute ago from its disk
            self.beat_at = self.beat_at and self.beat_at - 60


@given(st.lists(st.tuples(st.integers(1, 60), st.sampled_from([*EVENTS])), max_size=14))
@example([(5, "stop"), (60, "Prefect forgets"), (1, "wake"), (20, "wake")])
@example([(1, "Redis emptied"), (2, "stop"), (5, "Redis away from the first"), (3, "wake"), (31, "Redis back")])
@example([(1, "Redis emptied"), (5, "stop"), (28, "wake"), (1, "Redis emptied"), (1, "stop")])
@example([(1, "stop"), (40, "wake"), (1, "Redis emptied"), (1, "stop")])
@example([(60, "stop"), (1, "Redis started again"), (1, "stop")])
@example([(3, "Redis emptied"), (1, "Redis away from the first"), (60, "stop"), (20, "Redis back"), (1, "wake")])
def test_two_never_hold_one_class_at_one_moment(events: list[tuple[int, str]]) -> None:
    """Nobody who wakes, hears late or finds Redis empty airs what another one has taken.

    Nor if Redis is emptied again and again, and loses beats that no teacher has seen, also between a look and a move.
    """
    world = World()
    for steps, event in events:
        for _ in range(steps):
            world.step()
        world.happens(event)
    for _ in range(120):
        world.step()


def test_a_class_is_taken_over_in_this_world_at_all() -> None:
    """Else the test above would say nothing."""
    world = World()
    world.happens("stop")
    for _ in range(90):
        world.step()
    assert world.taken_at < math.inf
    world.happens("wake")
    for _ in range(20):
        world.step()
    assert world.session != "s0", "it has a new lease, after it was told what it lost"
    assert world.now < world.lease.until
