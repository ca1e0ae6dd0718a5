"""What a streamer does when its teacher tells it to replace a class by the class's prepared revision.

The class gets the content of the revision at once. The teacher is told when that is what is aired: with the commit if
the playout can have nothing of the class yet, otherwise when the playout has confirmed it.
"""

from collections.abc import Sequence
from dataclasses import replace

from lectern import errors
from lectern.amendments import Amend
from lectern.facts import Airing
from lectern.states import LIVE_AIRINGS, AiringState
from lectern.streamer_changes import StreamerChanges
from lectern.wire import revised

OVER = "the class was over before its change was in force"
NOT_HERE = "its streamer has the class without this change"

_CONTENT = ("stem", "push_url", "start_time", "end_time")
_OPEN = LIVE_AIRINGS - {AiringState.BROKEN}
"""States of a class that can be changed."""


def amend(
    changes: StreamerChanges,
    asked: Amend,
    one: Airing | None,
    revision: Airing | None,
    waiting: Sequence[Airing],
    ahead_s: float,
) -> dict[str, Airing]:
    """Give the class the content of its revision; if the class is over or was moved away, cancel the revision.

    *waiting* are its revisions that wait to be confirmed; the playout knows the classes of the next *ahead_s* seconds.
    Returns what was changed, the class and the revision, by their ids.
    """
    if revision is None:
        its = asked.revision, asked.revision_placement, asked.placement
        changes.report_amended(*its, errors.NOT_BOOKED, NOT_HERE)
        return {}
    if revision.state not in LIVE_AIRINGS:
        if revision.class_id not in [*changes.unconfirmed, *(it.class_id for it in waiting)]:
            # Its report was lost, so it is repeated.
            confirm(changes, revision, one, is_aired=True)
        return {}
    if one is None or one.state not in _OPEN or one.end_time <= changes.now or one.placement != asked.placement:
        changes.row(asked.class_id, "is over or elsewhere, its revision goes", asked.revision)
        changes.report_amended(revision.class_id, revision.placement, asked.placement, errors.ENDED, OVER)
        return {revision.class_id: changes.move(revision, AiringState.CANCELLED)}
    after = changes.amend(one, revision)
    earlier = [*(it.class_id for it in waiting), *(it for it in changes.unconfirmed if revised(it) == one.class_id)]
    changes.wait(earlier, None)  # the teacher answers them with this one
    if min(one.start_time, after.start_time) > changes.now + ahead_s:
        changes.report_amended(revision.class_id, revision.placement, one.placement)
    else:
        changes.wait([revision.class_id], changes.now)
    changes.note("changed", after)
    changes.row(one.class_id, "changed", asked.revision)
    return {one.class_id: after, revision.class_id: replace(revision, state=AiringState.CANCELLED)}


def confirm(changes: StreamerChanges, revision: Airing, one: Airing | None, *, is_aired: bool) -> None:
    """Report that a class is aired as its revision says (*is_aired*), or that it cannot be any more; else wait."""
    its = revision.class_id, revision.placement, one.placement if one is not None else 1
    if one is None or one.state not in _OPEN:
        changes.report_amended(*its, errors.ENDED, OVER)
    elif any(
        getattr(one, name) != getattr(revision, name) for name in _CONTENT
    ):  # it was moved away, and has come back
        changes.report_amended(*its, errors.NOT_BOOKED, NOT_HERE)
    elif is_aired:
        changes.report_amended(*its)
        changes.note("change in force", one)
    else:
        return
    changes.wait([revision.class_id], None)
