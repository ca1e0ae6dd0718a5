"""Two streamers never hold one class, in whatever order hosts, Redis and Prefect stop, wake, lose and come late."""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from lectern.decide import leases
from lectern.decide.leases import Answer, Lease, Peers, PrefectAnswer

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
    granted: tuple[float, str, bool] | None = (
        None  # when it reads a grant, of which session; whether it loses the class
    )
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
        if not (self.redis and self.reached):
            self.coming.append(Sent(self.now + PATIENCE_S, self.now, Answer.NONE, None))
            self.next_beat = self.now + PATIENCE_S + BEAT_S
        elif self.holder == self.session:
            self.beat_at, self.claim_at = self.now, None
            self.coming.append(Sent(self.now + STEP_S, self.now, Answer.OURS, None))
            self.next_beat = self.now + BEAT_S
        else:
            if self.holder != f"-{self.claim}":
                self.claim_at = self.claim
            said = leases.answer(self.holder, self.claim)
            if self.holder == f"-{self.claim}":
                self.claims += 1
            self.coming.append(Sent(self.now + STEP_S, self.now, said, None))
            self.next_beat = self.now + BEAT_S
        self.asks = True

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
                self.lease = self.lease.answered(sent.answer, sent.asked_at, self.now, LEASE_S)
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

    def happens(self, event: str) -> None:
        match event:
            case "stop" | "wake":
                self.stopped = event == "stop"
            case "Redis away" | "Redis emptied":
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
            case (
                "Prefect forgets"
            ):  # what was announced, once the class is taken: that run may look as if it did nothing
                self.forgets = self.taken_at < math.inf


@given(st.lists(st.tuples(st.integers(1, 60), st.sampled_from(EVENTS)), max_size=14))
@example([(5, "stop"), (60, "Prefect forgets"), (1, "wake"), (20, "wake")])
@example([(1, "Redis emptied"), (2, "stop"), (5, "Redis away from the first"), (3, "wake"), (31, "Redis back")])
@example([(3, "Redis emptied"), (1, "Redis away from the first"), (60, "stop"), (20, "Redis back"), (1, "wake")])
def test_two_never_hold_one_class_at_one_moment(events: list[tuple[int, str]]) -> None:
    """Nobody who wakes, hears late or finds Redis empty airs what another one has taken."""
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
