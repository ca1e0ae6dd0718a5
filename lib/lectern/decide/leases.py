"""How long a streamer may push, who renews its lease and who ends it, and after how much silence it is lost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

MARGIN_S = 5.0
"""Seconds between the end of a lease and the moment its classes may be moved: the pushes need a moment to end."""

WITNESS_S = 10.0
"""Seconds for which a streamer without Redis may rely on Prefect's answer that nobody takes its classes."""

NOTICE_S = WITNESS_S + 1.0
"""Seconds for which Prefect shows a move before it takes a class: by then earlier answers have expired."""

HASTE_S = 2.0
"""Seconds by which a move is announced earlier than NOTICE_S requires, because its run needs a moment to begin.

More would harm a streamer that is cut off from Redis only: once a move is announced, Prefect tells it to stop.
"""


class Answer(StrEnum):
    """What Redis says about the lease when a streamer sends its heartbeat."""

    OURS = "the lease is ours"
    GRANTED = "the lease that we asked for is granted, and we have not read the grant yet"
    TAKEN = "the lease was taken from us"
    FORGOTTEN = "Redis knows no lease of ours: it has lost its data"
    NONE = "no answer"


class Do(StrEnum):
    """What a streamer does with its lease."""

    RENEW = "it ends lease_s after the heartbeat was sent"
    LENGTHEN = "it ends WITNESS_S after the witnesses were asked"
    LEAVE = "its end stays"
    GIVE_UP = "it ends now"


ANY = None
HELD, OVER = True, False
GO_ON = True
TABLE: Sequence[tuple[Answer | None, bool | None, bool | None, Do]] = (
    # Redis' last answer | the lease | the witnesses | do
    (Answer.OURS, ANY, ANY, Do.RENEW),
    (Answer.TAKEN, ANY, ANY, Do.GIVE_UP),  # final: no witness can know better
    (ANY, OVER, ANY, Do.LEAVE),  # another streamer may have the classes by now: only Redis gives a lease back
    (ANY, HELD, GO_ON, Do.LENGTHEN),
    (ANY, ANY, ANY, Do.LEAVE),
)
"""The first row that fits decides. The witnesses are Prefect and the other streamers (`decide.control_lost`)."""


def verdict(answer: Answer, *, held: bool, goes_on: bool | None) -> Do:
    """What to do after Redis' last *answer*; *goes_on*: what the witnesses say, None if none was asked."""
    for said, lease, witnesses, do in TABLE:
        given = ((said, answer), (lease, held), (witnesses, goes_on))
        if all(wanted is ANY or wanted == found for wanted, found in given):
            return do
    raise AssertionError((answer, held, goes_on))


@dataclass(frozen=True)
class Lease:
    """The lease as its streamer knows it; all times are of one clock, which no correction moves."""

    until: float = 0.0
    """When it ends."""

    answer: Answer = Answer.NONE
    """Redis' last answer to a heartbeat."""

    def answered(self, answer: Answer, asked_at: float, now: float, lease_s: float) -> "Lease":
        """The lease after Redis' *answer* to a heartbeat that was sent at *asked_at*."""
        return self._after(answer, None, asked_at, now, lease_s)

    def witnessed(self, asked_at: float, now: float, *, goes_on: bool) -> "Lease":
        """The lease after the witnesses' answer; once Redis has renewed the lease or taken it, nothing of it counts."""
        return self if self.answer is Answer.OURS else self._after(self.answer, goes_on, asked_at, now, 0.0)

    def _after(self, answer: Answer, goes_on: bool | None, asked_at: float, now: float, lease_s: float) -> "Lease":  # noqa: FBT001 (a column of the table)
        match verdict(answer, held=now < self.until, goes_on=goes_on):
            case Do.RENEW:
                return Lease(max(self.until, until(asked_at, lease_s)), answer)
            case Do.LENGTHEN:
                return Lease(max(self.until, asked_at + WITNESS_S), answer)
            case Do.LEAVE:
                return Lease(self.until, answer)
            case Do.GIVE_UP:
                return Lease(0.0, answer)


def answer(held_by: str | None, claim: str) -> Answer:
    """What it means that *held_by* has the lease and the heartbeat's session has not; the streamer asks for *claim*."""
    if held_by is None:
        return Answer.FORGOTTEN
    return Answer.GRANTED if held_by == claim else Answer.TAKEN


def until(asked_at: float, lease_s: float) -> float:
    """The end of a confirmed lease, counted from its request, by the clock of *asked_at*; a lease of 0 s has no end."""
    return asked_at + lease_s if lease_s else math.inf


def lost_after(lost_after_s: float, lease_s: float) -> float:
    """Seconds of silence after which a streamer is lost; infinite if its lease has no end."""
    return max(lost_after_s, lease_s + MARGIN_S) if lease_s else math.inf


def suspect_after(lost_after_s: float, heartbeat_s: float) -> float:
    """Seconds of silence after which a move is announced, so that it can begin as soon as the streamer is lost."""
    return max(lost_after_s - NOTICE_S - HASTE_S, 3 * heartbeat_s)


def heard_within(silent_s: float) -> float:
    """The seconds in which a streamer must have been heard to take the classes of one that is silent for *silent_s*.

    One that fell silent together with it counts as alive for a while, but cannot take classes: what keeps both from
    Redis does not end their pushes, and a move that only one of them hears of would.
    """
    return silent_s / 2


def silence(age_s: float | None, heard_nothing_s: float, ears_open_s: float) -> float:
    """How long a streamer has been silent, in seconds.

    *age_s* is the age of its last heartbeat; if Redis has none it is None, and *heard_nothing_s*, the time since that
    was noticed, counts instead. Time before this teacher began to listen (*ears_open_s* ago) does not count.
    """
    return min(heard_nothing_s if age_s is None else age_s, ears_open_s)
