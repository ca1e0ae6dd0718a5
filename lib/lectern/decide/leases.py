"""Leases: how long a streamer may push, when it is lost, and what it does without the control host."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lectern import errors, formatting
from lectern.decide.placement import Choice, open_to, reassign
from lectern.i18n import Text, joined, labelled, msgid
from lectern.model.facts import Order
from lectern.model.plan import Changes
from lectern.model.tables.teacher import CancelRow, StreamerRow, cancels, streamers
from lectern.wire.messages import Grant

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
    GRANTED = "a lease that this streamer asked for is granted, and it has not read the grant yet"
    TAKEN = "the lease was taken from us"
    FORGOTTEN = "Redis knows no lease of ours: it has lost its data"
    NONE = "no answer"


@dataclass(frozen=True)
class Lease:
    """The lease as its streamer knows it; all times are of one clock, which no correction moves.

    The witnesses are Prefect and the other streamers (`partition_verdict`).
    """

    until: float = 0.0  # when it ends
    answer: Answer = Answer.NONE  # Redis' last one to a heartbeat

    def answered(self, answer: Answer, asked_at: float, lease_s: float) -> "Lease":
        """The lease after Redis' *answer* to a heartbeat that was sent at *asked_at*."""
        if answer is Answer.OURS:
            ours = until(asked_at, lease_s)  # an earlier one may be longer: LEASE_S was another one
            return Lease(max(ours, min(self.until, asked_at + WITNESS_S)), answer)
        return Lease(0.0 if answer is Answer.TAKEN else self.until, answer)

    def witnessed(self, asked_at: float, now: float, *, goes_on: bool) -> "Lease":
        """The lease after the witnesses' answer; once Redis has renewed the lease or taken it, nothing of it counts.

        Nor if it is over: another streamer may have the classes, and only Redis gives it back.
        """
        if self.answer is Answer.OURS or not goes_on or now >= self.until:
            return self
        return Lease(max(self.until, asked_at + WITNESS_S), self.answer)


def answer(held_by: str | None, claim: str) -> Answer:
    """What it means that *held_by* has the lease and the heartbeat's session has not; the streamer asks for *claim*.

    Another session that has not beaten yet (`+SESSION`) was asked for by a process that died before it read the grant.
    """
    if held_by is None:
        return Answer.FORGOTTEN
    return Answer.GRANTED if held_by == claim or held_by.startswith("+") else Answer.TAKEN


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


DRAIN_AHEAD_S = 120.0
"""Seconds before its start until which a class is moved off a drained streamer: by its start that streamer has
read that it lost the class, or its lease has expired."""
LISTED_S = 86_400.0
"""Seconds for which a streamer is still listed that was drained or stopped."""
STAY_S = 3600.0
"""Seconds before its start at which a class leaves its lost streamer in any case; until then it stays if no other can
take it: the lost streamer may come back, or another may have room."""


class Presence(StrEnum):
    """What a streamer's last heartbeat says of it, in words for people."""

    ALIVE = "alive"
    FULL = msgid("its disk takes nothing")
    HANGS = msgid("its process hangs")
    DRAINED = msgid("drained")
    STOPPED = msgid("stopped")
    LOST = msgid("lost")


def presence(beat: Mapping[str, Any], silent_s: float, lost_after_s: float) -> Presence:
    """What *beat*, which is *silent_s* old, says of its streamer; one that is drained on purpose is never lost."""
    if beat.get("drains"):
        return Presence.DRAINED
    if beat.get("gone"):
        return Presence.STOPPED
    if silent_s > lost_after_s:
        return Presence.LOST
    if beat.get("stale"):
        return Presence.HANGS
    return Presence.FULL if beat.get("full") else Presence.ALIVE


def listed(
    beats: Mapping[str, Mapping[str, Any]], now: float, lost_after_s: float
) -> dict[str, tuple[Presence, float]]:
    """Each streamer of *beats*, and the seconds since it was heard; without those that were taken out a day ago.

    A streamer that is lost is listed until it is back, or was taken out: drained, stopped, or moved away from by force.
    """
    by_name: dict[str, tuple[Presence, float]] = {}
    for name, beat in sorted(beats.items()):
        silent_s = max(now - float(beat["at"]), 0.0)
        state = presence(beat, silent_s, lost_after_s)
        if state is Presence.LOST or silent_s < LISTED_S:
            by_name[name] = state, silent_s
    return by_name


def lose(changes: Changes, holder: StreamerRow, number: int, others: Sequence[str], *, movable: bool) -> str:
    """Alarm that a streamer is lost, and what becomes of its *number* classes; returns it in words."""
    name = holder.name
    changes.hold(holder, lost_at=changes.now)
    after = Text(
        "not heard of for {streamer_lost_after_s:g} s", streamer_lost_after_s=changes.settings.streamer_lost_after_s
    )
    why = Text("its lease has no end")
    if not others:
        why = Text("no streamer is alive that it asks before it goes on alone")
    what = Text.many(
        "{n:,} class stays with it, because {why}", "{n:,} classes stay with it, because {why}", n=number, why=why
    )
    if others and movable:
        what = Text.many("{n:,} class to be moved to others", "{n:,} classes to be moved to others", n=number)
    lost = joined((after, what))
    changes.alarm(errors.STREAMER_LOST, labelled(name, lost))
    return lost


def leaving_lost(changes: Changes, orders: Sequence[Order], choice: Choice, *, force: bool) -> list[Order]:
    """Those of *orders* that leave their lost streamer now; *force*: it is known to push nothing any more."""
    soon = changes.now + STAY_S
    return [order for order in orders if force or order.start_time < soon or open_to(changes, order, choice)]


def came_back(
    changes: Changes, before: Mapping[str, str], holders: Mapping[str, StreamerRow], no: Mapping[str, set[str]]
) -> dict[str, str]:
    """The streamer that each class was moved from *before*, if it can have the class back: it has not refused it.

    It is drained, but there; or it is lost, and has time to come back.
    """
    back: dict[str, str] = {}
    for class_id, name in before.items():
        order, holder = changes.orders.get(class_id), holders.get(name)
        if order is None or order.streamer == name:  # which refuses it just now
            continue
        if holder is None or holder.withdrawn_at is not None or name in no[class_id]:
            continue
        if holder.is_there or (holder.lease_s and order.start_time >= changes.now + STAY_S):
            back[class_id] = name
    return back


def grant(
    changes: Changes, held: StreamerRow, taken: Sequence[tuple[str, int]], cancelled: Sequence[CancelRow]
) -> None:
    """Give a streamer the lease *held*, after telling it all that was *taken* from it (class_id and placement)."""
    name, session = held.name, str(held.session)
    changes.hold(held)
    for class_id, placement in taken:
        changes.release(name, class_id, placement)
    for cancel in cancelled:
        changes.release(name, cancel.class_id)
        changes.change(cancels, {"class_id": cancel.class_id}, {}, {"told_at": changes.now})
    changes.tell(name, Grant.model_construct(streamer=name, session=session), None)
    number = Text.many("{n:,} class", "{n:,} classes", n=len(taken))
    changes.note("lease granted", detail=Text("to {name}; taken from it before: {number}", name=name, number=number))


def drain(changes: Changes, name: str, orders: Sequence[Order], choice: Choice, by: str = "") -> None:
    """Move those of *orders* off the streamer *name* that begin late enough and that another streamer can take.

    *by* is who drains it, if its streamer says so.
    """
    going = [order for order in orders if order.start_time > changes.now + DRAIN_AHEAD_S]
    going = [order for order in going if open_to(changes, order, choice)]
    why = Text("{name} is drained by {who}", name=name, who=by) if by else Text("{name} is drained", name=name)
    reassign(changes, going, choice, why, refused=False)


def withdraw(changes: Changes, name: str, orders: Sequence[Order]) -> str:
    """Leave *orders* to the old program, which runs again on the streamer *name*; returns that in words."""
    after = {"session": None, "lost_at": None, "withdrawn_at": changes.now}
    changes.change(streamers, {"name": name}, {}, after)
    for order in orders:
        changes.note("left to the old program", order, Text("{name} was rolled back", name=name))
    number = formatting.counted(len(orders), "class", "classes")
    return f"is back at the old program, which airs its {number}; nothing is moved to another"


PEER_S = 300.0
"""Seconds of silence after which a streamer does not count any more among those that could take over."""

GONE_S = 30.0
"""The same for one that has said that it goes: longer than a restart, shorter than a reboot of its machine."""


class PrefectAnswer(StrEnum):
    """What Prefect says of the classes of this streamer."""

    FREE = "nobody takes them"
    TAKEN = "another streamer takes them"
    AWAY = "Prefect does not answer"


class Peers(StrEnum):
    """What the health of another streamer says of the control host, or those of all others say together."""

    NONE = "no other streamer is known"
    BLIND = "every other streamer answers and hears no control host either"
    HEARS = "another streamer hears the control host"
    SILENT = "another streamer does not answer, and may hear the control host"


def partition_verdict(policy: str, word: PrefectAnswer, peers: Peers) -> tuple[bool, str]:
    """Whether the classes go on, and why: as Prefect says; while it is away, as PARTITION_POLICY says.

    With `ask peers` they do unless another streamer hears the control host, or may hear it. If they do not go on, the
    lease is not lengthened, and they end with it.
    """
    if word is not PrefectAnswer.AWAY:
        return word is PrefectAnswer.FREE, f"Prefect says that {word}"
    if policy == "ask peers":
        return peers in {Peers.NONE, Peers.BLIND}, str(peers)
    return policy == "push", f"PARTITION_POLICY is {policy}"


def together(looks: Collection[Peers]) -> Peers:
    """What all other streamers say: one that hears the control host, or may hear it, outweighs those that do not."""
    return next((peers for peers in (Peers.HEARS, Peers.SILENT, Peers.BLIND) if peers in looks), Peers.NONE)


def look(health: Mapping[str, Any] | None, name: str) -> Peers:
    """What the *health* of streamer *name* says about the control host; *health* is None if it did not answer.

    An answer under another name does not count: two streamers may have the same loopback address.
    """
    if health is None or health.get("name") != name or not isinstance(health.get("hears"), bool):
        return Peers.SILENT
    return Peers.HEARS if health["hears"] else Peers.BLIND


def others(beats: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, str]:
    """The addresses (``host:port``, or empty) of the streamers besides *name* with a heartbeat in the last PEER_S."""
    at = float(beats[name]["at"]) if name in beats else max((float(beat["at"]) for beat in beats.values()), default=0.0)
    return {
        other: address if isinstance(address := beat.get("address"), str) else ""
        for other, beat in sorted(beats.items())
        if other != name and at - float(beat["at"]) <= (GONE_S if beat.get("gone") else PEER_S)
    }


def may_take(last_beat: Mapping[str, Any] | None, names: Collection[str]) -> list[str]:
    """Those of *names* that may take a silent streamer's classes: only those that its last heartbeat lists as peers.

    If that heartbeat has no such list, the streamer stops by itself when its lease expires, so any may take them.
    """
    known = (last_beat or {}).get("peers")
    return sorted(names) if not isinstance(known, list) else sorted(name for name in names if name in known)


def listed_peers(policy: str, known: Collection[str]) -> list[str] | None:
    """The peers that a heartbeat lists: those that the streamer asks; None if the policy stops without asking."""
    return {"ask peers": sorted(known), "push": []}.get(policy)
