"""The end of a class on its streamer: aired, broken, released, or closed late because its end was not recorded."""

from collections.abc import Mapping, Sequence
from typing import Any

from lectern import errors
from lectern.decide import broadcast, gaps
from lectern.facts import Airing, AsRun
from lectern.messages import Release, Report
from lectern.states import LIVE_AIRINGS, AiringState
from lectern.streamer_changes import AS_RUN_TOLD, StreamerChanges
from lectern.told import Past

CANCELLED = "it was cancelled"
"""The playout's reason for the end of a class that was taken off the air."""

CODES = {
    AiringState.BROKEN: errors.AIRING_BROKEN,
    AiringState.CANCELLED: errors.CANCELLED,
    AiringState.AIRED_WITH_GAPS: errors.AIRED_WITH_GAPS,
}
"""The code of each ending but *aired*."""

KEPT = 1_000
"""Number of parts of a class that its streamer keeps: a class whose receiver takes nothing gets a new one every 5 s."""

AIRED = frozenset({AiringState.AIRED, AiringState.AIRED_WITH_GAPS})
OVER = AIRED | {AiringState.REFUSED, AiringState.CANCELLED}


def ended(
    changes: StreamerChanges, class_id: str, one: Airing | None, events: Sequence[Past], told: Mapping[str, Any]
) -> None:
    """Close a class that the playout reports as ended: *told* is its event `ended`, or its `status`.

    *events* are those of the class that its teacher is told, too.
    """
    parts = broadcast.as_run(told["as_run"])
    changes.sent.append((class_id, gaps.longest(parts, KEPT)))
    if one is None:
        return
    parts_told = gaps.longest(parts, AS_RUN_TOLD)
    if one.state is AiringState.CANCELLED and parts:  # its teacher heard before of the cancel, but not what was sent
        changes.report("ended", one, errors.CANCELLED, "what was sent before it was cancelled", parts_told, events)
    if one.state not in LIVE_AIRINGS or told["why"] == CANCELLED:
        return
    one = _promised(changes, one)
    if one.state is AiringState.WAITING:  # its teacher refuses it, or has refused it: no answer was given before
        return
    sent = gaps.sent(one.start_time, one.end_time, parts, events, told["why"])
    if sent.recording_s <= 0:
        why = gaps.not_aired(sent, told.get("last") or told["why"])
        close(changes, one, AiringState.BROKEN, why, parts_told, events)
        return
    state = AiringState.AIRED if sent.is_whole else AiringState.AIRED_WITH_GAPS
    changes.missing_s.append(sent.missing_s)
    close(changes, one, state, f"{sent.sentence()}; {told['why']}", parts_told, events)


def _promised(changes: StreamerChanges, one: Airing) -> Airing:
    """*one*; a class that was ready and waits for its lost file again ends as one that is ready: it may be on air."""
    return changes.move(one, AiringState.READY) if one.state is AiringState.WAITING and one.lost else one


def close(
    changes: StreamerChanges,
    one: Airing,
    state: AiringState,
    message: str,
    parts: Sequence[AsRun] = (),
    events: Sequence[Past] = (),
) -> None:
    """End a class, which then cites no rendition (if broken: after its end), and report once how it ended."""
    code = CODES.get(state)
    if one.state in AIRED | {AiringState.CANCELLED}:
        return  # the class was released meanwhile
    if state in AIRED and one.state in {AiringState.READY, AiringState.BROKEN}:
        one = changes.move(one, AiringState.ON_AIR)  # it ended before it was seen on air, or was closed too early
    after = changes.move(one, state, code, message)
    if changes.now >= one.end_time:  # until then a person may retry a broken class
        changes.give_up(after)
    if (one.state, one.message) == (state, message):
        return  # reported before; the playout says it again to each process that begins
    changes.report("ended", after, code, message, parts, events)
    changes.note(state, one, message)


def close_late(changes: StreamerChanges, one: Airing, *, is_known: bool = False) -> None:
    """Close a class whose end has passed without a report, because no process aired it or the disk was full.

    *is_known*: the playout was asked, and has nothing of it.
    """
    one = _promised(changes, one)
    if one.state is AiringState.WAITING:
        code, why = errors.ENDED, "it ended before its rendition was there"
        changes.report("prepared", changes.move(one, AiringState.REFUSED, code, why), code, why)
    elif one.state is AiringState.BROKEN:
        changes.give_up(one)  # how it ended was reported before
        return
    else:
        code, why = errors.AIRING_BROKEN, "not aired to its end: nobody knows how much of it was sent"
        if is_known and one.state is AiringState.READY:  # no receiver ever took it
            why = "not aired: nothing was sent"
        after = changes.move(one, AiringState.BROKEN, code, why)
        changes.report("ended", after, code, why)
        changes.give_up(after)
    changes.note("closed late", one, why)


def release(changes: StreamerChanges, known: Airing | None, message: Release) -> Airing | None:
    """Release a cancelled or moved class; the release of a class that has not come yet is kept, and bars it then.

    The release of a cancelled class is reported even if the class never came: the teacher repeats the release until
    it is. Returns the class as it is then, None if it never came.
    """
    after = known
    if known is None:
        changes.bar(message.class_id, message.placement)
    elif message.placement is None or message.placement >= known.placement:
        if known.state in OVER:
            after = changes.become(known, {}, lost=False)  # it is no longer waited for here
        else:
            after = changes.move(known, AiringState.CANCELLED)
            changes.note("released", known)
    if message.placement is None:
        changes.tell(_given_up(message.class_id, changes.settings.name, known.placement if known else 1))
    return after


def _given_up(class_id: str, streamer: str, placement: int) -> Report:
    code = errors.CANCELLED.number
    return Report(
        cmd="ended",
        class_id=class_id,
        streamer=streamer,
        result="fail",
        code=code,
        message="released",
        placement=placement,
    )
