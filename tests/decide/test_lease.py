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


def test_no_witness_counts_once_redis_has_renewed_the_lease() -> None:
    """Its answer is of the time before."""
    renewed = Lease(HELD).answered(Answer.OURS, 10.0, 45.0)
    assert renewed.witnessed(60.0, 10.0, goes_on=True) == renewed


def test_a_lease_that_another_session_has_was_taken_unless_that_session_is_ours() -> None:
    assert leases.answer(None, "mine") is Answer.FORGOTTEN
    assert leases.answer("", "mine") is Answer.TAKEN
    assert leases.answer("another", "mine") is Answer.TAKEN
    assert leases.answer("mine", "mine") is Answer.GRANTED


POLICIES = ("ask peers", "stop", "push")
GOES_ON = {
    ("ask peers", PrefectAnswer.AWAY, Peers.NONE),
    ("ask peers", PrefectAnswer.AWAY, Peers.BLIND),
    *(("push", PrefectAnswer.AWAY, peers) for peers in Peers),
    *itertools.product(POLICIES, (PrefectAnswer.FREE,), Peers),
}
CASES = list(itertools.product(POLICIES, PrefectAnswer, Peers))


@pytest.mark.parametrize(("policy", "word", "peers"), CASES)
def test_each_case_is_decided(policy: str, word: PrefectAnswer, peers: Peers) -> None:
    """Classes go on if nobody takes them, if nobody could, and if the operator says so; else they stop."""
    found = leases.partition_verdict(policy, word, peers)
    assert found.goes_on is ((policy, word, peers) in GOES_ON)
    assert found.why


@pytest.mark.parametrize(
    ("looks", "together"),
    [
        ([], Peers.NONE),
        ([Peers.BLIND, Peers.BLIND], Peers.BLIND),
        ([Peers.BLIND, Peers.SILENT], Peers.SILENT),
        ([Peers.BLIND, Peers.SILENT, Peers.HEARS], Peers.HEARS),
    ],
)
def test_who_hears_or_might_hear_outweighs_who_does_not(looks: list[Peers], together: Peers) -> None:
    assert leases.together(looks) is together


@pytest.mark.parametrize(
    ("health", "found"),
    [
        (None, Peers.SILENT),
        ({"name": "s2", "hears": False}, Peers.BLIND),
        ({"name": "s2", "hears": True, "ready": False}, Peers.HEARS),
        ({"name": "s1", "hears": False}, Peers.SILENT),
        ({"name": "s2", "ready": True}, Peers.SILENT),
        ({"name": "s2", "hears": "no"}, Peers.SILENT),
    ],
    ids=["no answer", "blind", "hears", "another host", "an older release", "not readable"],
)
def test_only_a_clear_answer_of_that_very_streamer_counts(health: dict[str, object] | None, found: Peers) -> None:
    """At a loopback address this streamer would find itself, as blind as it is."""
    assert leases.look(health, "s2") is found


def test_a_streamer_knows_those_that_were_heard_lately() -> None:
    """One that was taken out of use weeks ago must not silence the others; one that restarts is still asked.

    One whose machine is rebooted is not: if the control host is rebooted meanwhile, all classes would end.
    """
    beats: dict[str, dict[str, Any]] = {
        "s1": {"at": 1000.0},
        "s2": {"at": 990.0, "address": "10.0.0.2:8801"},
        "s3": {"at": 990.0, "gone": True, "address": 7},
        "s4": {"at": 1000.0 - leases.PEER_S - 1, "address": "10.0.0.4:8801"},
        "s5": {"at": 1000.0 - leases.GONE_S - 1, "gone": True, "address": "10.0.0.5:8801"},
    }
    assert leases.others(beats, "s1") == {"s2": "10.0.0.2:8801", "s3": ""}


@pytest.mark.parametrize(
    ("beat", "may"),
    [
        (None, ["s2", "s3"]),
        ({"at": 1.0}, ["s2", "s3"]),
        ({"at": 1.0, "peers": ["s2", "s9"]}, ["s2"]),
        ({"at": 1.0, "peers": []}, []),
    ],
    ids=["no beat", "one that stops by itself", "one that asks s2", "one that goes on alone"],
)
def test_classes_go_only_to_those_that_the_silent_streamer_asks(beat: dict[str, object] | None, may: list[str]) -> None:
    """It goes on while those it asks are blind: a streamer that it never heard of would push beside it."""
    assert leases.may_take(beat, {"s3", "s2"}) == may


def test_what_a_beat_says_of_the_others_follows_the_setting() -> None:
    assert leases.listed_peers("ask peers", {"s3", "s2"}) == ["s2", "s3"]
    assert leases.listed_peers("push", {"s2"}) == []
    assert leases.listed_peers("stop", {"s2"}) is None


# Two streamers never hold one class, in whatever order hosts, Redis and Prefect stop, wake, lose and come late.


STEP_S = 0.5
LEASE_S, BEAT_S, LOST_S = 12.0, 1.0, leases.lost_after(20.0, 12.0)
PATIENCE_S = 3.0
GRANT_S = 1.5
"""Seconds until a streamer has read what the teacher has written for it."""

EVENTS = (
    "stop",
    "wake",
    "Redis away",
    "Redis away from the first",
    "Redis emptied",
    "Redis back",
    "Prefect away",
    "Prefect late",
    "Prefect forgets",
    "Prefect back",
)


class Sent(NamedTuple):
    """An answer that is on its way to the first streamer; *goes_on* is None for one of Redis."""

    at: float
    asked_at: float
    answer: Answer | None
    goes_on: bool | None


@dataclass
class World:
    """The first streamer airs a class, the second one could; a teacher looks at both, as `flows.teacher` does."""

    now: float = 0.0
    # What may happen
    stopped: bool = False
    redis: bool = True
    reached: bool = True
    prefect: bool = True
    late_s: float = 0.5
    # What Redis and Prefect have
    holder: str | None = "s0"
    beat_at: float | None = 0.0
    claim_at: str | None = None
    announced: set[str] = field(default_factory=set)
    # The first streamer
    session: str = "s0"
    claims: int = 0
    lease: Lease = field(default_factory=lambda: Lease(LEASE_S, Answer.OURS))
    next_beat: float = 0.0
    asks: bool = False
    coming: list[Sent] = field(default_factory=list)
    granted: tuple[float, str, bool] | None = None
    """When it reads a grant, of which session; whether it loses the class."""
    # The teacher, and the second streamer
    known: str | None = "s0"
    missed_at: float | None = None
    deaf_at: float = 0.0
    announced_at: float | None = None
    blind_at: float = -math.inf
    taken_at: float = math.inf

    @property
    def claim(self) -> str:
        return f"s{self.claims + 1}"

    def step(self) -> None:
        self.now += STEP_S
        self._teach()
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
            is_taken = self.announced & {self.session, self.claim}
            word = PrefectAnswer.TAKEN if is_taken else PrefectAnswer.FREE
        peers = Peers.HEARS if self.redis else Peers.BLIND
        if peers is Peers.BLIND:
            self.blind_at = self.now
        found = leases.partition_verdict("ask peers", word, peers)
        self.coming.append(Sent(self.now + self.late_s, self.now, None, found.goes_on))

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

    def _teach(self) -> None:
        if not self.redis:
            self.deaf_at, self.missed_at = self.now, None
            return
        self._see_beat()
        if self.beat_at is None and self.missed_at is None:
            self.missed_at = self.now
        age_s = None if self.beat_at is None else self.now - self.beat_at
        missing_s = 0.0 if self.missed_at is None else self.now - self.missed_at
        silent_s = leases.silence(age_s, missing_s, self.now - self.deaf_at)
        if self.claim_at is not None and self.granted is None and self.holder != f"-{self.claim_at}":
            self.holder = self.known = self.claim_at
            self.granted = self.now + GRANT_S, self.claim_at, self.taken_at < math.inf
        if silent_s < leases.suspect_after(LOST_S, BEAT_S):
            self.announced_at = None
        elif self.announced_at is None and self.prefect and self.known is not None:
            self.announced_at = self.now
            self.announced.add(self.known)
        elif self.announced_at is not None and silent_s > LOST_S and self.now - self.announced_at > leases.NOTICE_S:
            self.holder = f"-{(self.holder or '').removeprefix('-')}"
            self.known = self.announced_at = self.claim_at = None
            self.taken_at = min(self.taken_at, self.now)

    def _see_beat(self) -> None:
        if self.beat_at is not None:
            self.missed_at = None

    def happens(self, event: str) -> None:
        match event:
            case "stop" | "wake":
                self.stopped = event == "stop"
            case "Redis away" | "Redis emptied":
                self._see_beat()
                self.redis = event == "Redis emptied"
                if self.redis:
                    self.holder = self.beat_at = self.claim_at = None
            case "Redis away from the first":
                self.reached = False
            case "Redis back":
                self.redis = self.reached = True
            case "Prefect away" | "Prefect back":
                self.prefect = event == "Prefect back"
                self.late_s = 0.5
            case "Prefect late":
                self.late_s = 4.0
            case "Prefect forgets":  # all but a move that is to come: a run that took a class may look as if it had not
                self.announced &= {self.known}


@given(st.lists(st.tuples(st.integers(1, 60), st.sampled_from(EVENTS)), max_size=14))
@example([(5, "stop"), (60, "Prefect forgets"), (1, "wake"), (20, "wake")])
@example([(1, "Redis emptied"), (2, "stop"), (5, "Redis away from the first"), (3, "wake"), (31, "Redis back")])
@example([(3, "Redis emptied"), (1, "Redis away from the first"), (60, "stop"), (20, "Redis back"), (1, "wake")])
def test_two_never_hold_one_class_at_one_moment(events: list[tuple[int, str]]) -> None:
    """Nobody who wakes, hears late or finds Redis empty airs what another one has taken.

    The teacher sees each beat before Redis loses it. If it loses all it has twice, and between that a beat that came a
    moment before, its streamer may be taken for lost although it has just got its lease.
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
