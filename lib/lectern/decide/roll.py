"""What a teacher records of its streamers: one is lost, leased, drained, or back at the old program."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from lectern import errors, words
from lectern.changes import Changes, Granted
from lectern.decide.verdicts import Choice, open_to, place_again
from lectern.facts import Order
from lectern.messages import Grant
from lectern.model.tables.teacher import CancelRow, StreamerRow, streamers

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
    FULL = "its disk takes nothing"
    HANGS = "its process hangs"
    DRAINED = "drained"
    STOPPED = "stopped"
    LOST = "lost"


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
    found: dict[str, tuple[Presence, float]] = {}
    for name, beat in sorted(beats.items()):
        silent_s = max(now - float(beat["at"]), 0.0)
        state = presence(beat, silent_s, lost_after_s)
        if state is Presence.LOST or silent_s < LISTED_S:
            found[name] = state, silent_s
    return found


def lose(changes: Changes, holder: StreamerRow, number: int, others: Sequence[str], *, movable: bool) -> str:
    """Alarm that a streamer is lost, and what becomes of its *number* classes; returns it in words."""
    name = holder.name
    changes.hold(holder, lost_at=changes.now)
    after = f"not heard of for {changes.settings.streamer_lost_after_s:g} s"
    classes, stay = words.counted(number, "class", "classes"), "stays" if number == 1 else "stay"
    if not others:
        what = f"{classes} {stay} with it, because no streamer is alive that it asks before it goes on alone"
    elif movable:
        what = f"{classes} to be moved to others"
    else:
        what = f"{classes} {stay} with it, because its lease has no end"
    changes.alarm(errors.STREAMER_LOST, f"{name}: {after}; {what}")
    return f"{after}; {what}"


def leaving(changes: Changes, orders: Sequence[Order], choice: Choice, *, force: bool) -> list[Order]:
    """Those of *orders* that leave their lost streamer now; *force*: it is known to push nothing any more."""
    soon = changes.now + STAY_S
    return [one for one in orders if force or one.start_time < soon or open_to(changes, one, choice)]


def back(
    changes: Changes, before: Mapping[str, str], holders: Mapping[str, StreamerRow], no: Mapping[str, set[str]]
) -> dict[str, str]:
    """The streamer that each class was moved from *before*, if it can have the class back: it has not refused it.

    It is drained, but there; or it is lost, and has time to come back.
    """
    found: dict[str, str] = {}
    for class_id, name in before.items():
        order, holder = changes.orders.get(class_id), holders.get(name)
        if order is None or holder is None or holder.withdrawn_at is not None or name in no[class_id]:
            continue
        if holder.is_there or (holder.lease_s and order.start_time >= changes.now + STAY_S):
            found[class_id] = name
    return found


def grant(changes: Changes, claim: Granted, taken: Sequence[tuple[str, int]], cancelled: Sequence[CancelRow]) -> None:
    """Give a streamer its lease, after telling it all that was *taken* from it (class_id and placement)."""
    name = claim.streamer
    held = StreamerRow(name=name, session=claim.session, lease_s=claim.lease_s, granted_at=changes.now)
    changes.hold(held)
    for class_id, placement in taken:
        changes.release(name, class_id, placement)
    for one in cancelled:
        changes.release(name, one.class_id)
        changes.cancel_told_again(one.class_id)
    changes.tell(name, Grant.model_construct(streamer=name, session=claim.session), None)
    changes.note(
        "lease granted", detail=f"to {name}; taken from it before: {words.counted(len(taken), 'class', 'classes')}"
    )


def drain(changes: Changes, name: str, orders: Sequence[Order], choice: Choice) -> None:
    """Move those of *orders* off the streamer *name* that begin late enough and that another streamer can take."""
    going = [one for one in orders if one.start_time > changes.now + DRAIN_AHEAD_S]
    going = [one for one in going if open_to(changes, one, choice)]
    place_again(changes, going, choice, f"{name} is drained", refused=False)


def withdraw(changes: Changes, name: str, orders: Sequence[Order]) -> str:
    """Leave *orders* to the old program, which runs again on the streamer *name*; returns that in words."""
    after = {"session": None, "lost_at": None, "withdrawn_at": changes.now}
    changes.change(streamers, {"name": name}, {}, after)
    for order in orders:
        changes.note("left to the old program", order, f"{name} was rolled back")
    its = words.counted(len(orders), "class", "classes")
    return f"is back at the old program, which airs its {its}; nothing is moved to another"
