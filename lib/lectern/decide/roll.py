"""What a teacher writes about its streamers: one is lost, or gets its lease after all that was taken is told."""

from collections.abc import Sequence

from lectern import errors
from lectern.changes import Changes, Granted
from lectern.facts import Unconfirmed
from lectern.messages import Grant


def lose(changes: Changes, name: str, number: int, others: Sequence[str], *, movable: bool) -> str:
    """Alarm that the streamer *name* is lost, and what becomes of its *number* classes; returns it in words."""
    changes.lost[name] = changes.now
    after = f"not heard of for {changes.settings.streamer_lost_after_s:g} s"
    if not others:
        what = f"its {number} classes stay with it, because no streamer is alive that it asks before it goes on alone"
    elif movable:
        what = f"its {number} classes are moved to others"
    else:
        what = f"its {number} classes stay with it, for its lease has no end"
    changes.alarm(errors.STREAMER_LOST, f"{name}: {after}; {what}")
    return f"{after}; {what}"


def grant(changes: Changes, claim: Granted, taken: Sequence[tuple[str, int]], cancelled: Sequence[Unconfirmed]) -> None:
    """Give a streamer its lease, after it is told all that was *taken* from it (class_id and placement)."""
    name = claim.streamer
    changes.granted.append(claim)
    for class_id, placement in taken:
        changes.release(name, class_id, placement)
    for one in cancelled:
        changes.release(one.streamer, one.class_id)
        changes.cancels_told_again.append(one.class_id)
    changes.tell(name, Grant.model_construct(streamer=name, session=claim.session), None)
    changes.note("lease granted", detail=f"to {name}; {len(taken)} classes were taken from it before")
