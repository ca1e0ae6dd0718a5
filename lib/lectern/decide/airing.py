"""What becomes of a class on air: what its playout reports, and its end as aired, broken, released or closed late."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from lectern import errors
from lectern.decide import gaps
from lectern.i18n import Text, joined, msgid, spoken
from lectern.model.facts import Airing, AsRun
from lectern.model.streamer_plan import ANY_PLACEMENT, AS_RUN_TOLD, StreamerChanges
from lectern.model.views import EventView
from lectern.states import LIVE_AIRINGS, AiringState
from lectern.wire.messages import AiringEvent, Release

NOT_ON_AIR_S = 5.0
"""Seconds after which an alarm is raised for a class that should be on air, and whose receiver takes nothing."""

RUN_AHEAD_S = 60.0
"""Seconds before its lead time within which a class gets its run at once."""

SAME_AGAIN = (1, 10, 100, 1_000, 10_000)
"""The counts of a repeated event at which it is logged."""

STORY = frozenset(
    {
        *(msgid("connected"), msgid("on air"), msgid("push broke off"), msgid("push refused"), msgid("fell behind")),
        *(msgid("lease over"), msgid("playout away"), msgid("slate"), msgid("nothing to send"), "alarm"),
        *(msgid("recording again"), msgid("prepare: cached already"), msgid("prepare: being downloaded already")),
        msgid("prepare: to be downloaded"),
    }
)
"""The events of a class on its streamer that it reports to its teacher at the end."""


def as_run(rows: Sequence[Mapping[str, Any]]) -> list[AsRun]:
    """The as-run parts of a class, from *rows* of the playout."""
    parts: list[AsRun] = []
    for row in rows:
        whose = int(row["url"]), int(row["session"]), str(row["source"])
        begins, ends, position_s, sent_s = (float(row[name]) for name in ("from", "to", "position_s", "sent_s"))
        parts.append(AsRun(*whose, begins, ends, position_s, sent_s, row.get("bytes")))
    return parts


TAKEN_WITHIN_S = 2.0
"""Seconds without media that the receiver took after which a class counts as interrupted."""


class Statement(NamedTuple):
    """What is stated of a class on air: an event, when it began, why, and when that began which it ends."""

    event: AiringEvent
    at: float
    why: str = ""
    since: float | None = None


def statements(status: Mapping[str, Any], now: float, why: str | None, *, is_moved: bool = False) -> list[Statement]:
    """How a class is aired at *now*, by the *status* that its playout gives: whether media are taken, and which.

    *why* is the last thing that went wrong with it; *is_moved*: another streamer had it before, and may have sent its
    slate.
    """
    parts = sorted(as_run(status["as_run"]), key=attrgetter("begins"))
    if not parts:
        return []
    began, silent_since, ended = parts[0].begins, None, parts[0].ends
    for part in parts[1:]:
        if part.begins - ended >= TAKEN_WITHIN_S:
            began, silent_since = part.begins, ended
        ended = max(ended, part.ends)
    shown = [next(group) for _, group in groupby(parts, key=attrgetter("source"))]  # the first part of each stretch
    news: list[Statement] = []
    cut = why or status["why"] or Text("no reason is known")
    if now - ended >= TAKEN_WITHIN_S:
        news.append(Statement("interrupted", ended, SLOW if status["state"] == "on_air" else cut))
    elif status["state"] == "on_air":
        news.append(Statement("on_air", began, cut, silent_since))
    if shown[-1].source == "slate":
        news.append(Statement("slate", shown[-1].begins, cut))
    elif len(shown) > 1 or is_moved:
        news.append(Statement("recording", shown[-1].begins, cut, shown[-2].begins if len(shown) > 1 else None))
    return news


OF_SOURCE = frozenset({"slate", "recording"})
SLOW = Text("its receiver takes nothing of what it is sent")


def is_news(statement: Statement, before: Statement | None) -> bool:
    """Whether to send *statement* after *before*, the last of its kind: another event, or the same once more."""
    return (
        before is None
        or statement.event != before.event
        or (statement.since is not None and statement.since > before.at)
    )


_EVENTS = {
    "connected": ("connected", msgid("session {session} is ready to publish")),
    "on_air": ("on air", msgid("at {position_s:.1f} s, session {session}")),
    "back": ("recording again", msgid("{why}; it goes on at {position_s:.1f} s")),
    "fenced": ("lease over", msgid("session {session} was ended: this streamer may not push")),
    "behind": ("fell behind", msgid("{behind_s:.1f} s late; it goes on at the clock's position")),
}
"""The name, and the details by its fields, of each event of the playout that is not told by its reason alone."""


def event_text(event: Mapping[str, Any]) -> tuple[str, str] | None:
    """The name and the details of an event, for the log; None for an event that another line reports."""
    match event["event"]:
        case "broke_off":
            return ("push broke off" if event["was_on_air"] else "push refused"), str(event["why"])
        case "slate":
            return ("slate" if event["slate"] else "nothing to send"), str(event["why"])
        case known if known in _EVENTS:
            what, text = _EVENTS[known]
            named = ("session", "position_s", "why", "behind_s")
            return what, Text(text, **{name: event[name] for name in named if f"{{{name}" in text})
    return None


CANCELLED = Text("it was cancelled")
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
OFF = frozenset({AiringState.REFUSED, AiringState.CANCELLED})
"""States of a class that is not aired here, or no more; what was sent of it all the same is told when that ends."""


def ended(
    changes: StreamerChanges,
    class_id: str,
    airing: Airing | None,
    events: Sequence[EventView],
    ending: Mapping[str, Any],
) -> None:
    """Close a class that the playout reports as ended: *ending* is its event `ended`, or its `status`.

    *events* are those of the class that it reports to its teacher, too.
    """
    parts = as_run(ending["as_run"])
    changes.sent.append((None, class_id, gaps.longest(parts, KEPT)))
    if airing is None:
        return
    parts_told = gaps.longest(parts, AS_RUN_TOLD)
    if airing.state is AiringState.CANCELLED and (parts or airing.start_time <= changes.now):  # see `release`
        told = Text("what was sent before it was cancelled")
        changes.report("ended", airing, errors.CANCELLED, told, parts_told, events)
    elif airing.state is AiringState.REFUSED and parts and airing.code != errors.ENDED.number:  # see `_refuse_over`
        code = errors.CODES.get(airing.code or 0, errors.DOWNLOAD_FAILED)
        changes.report("prepared", airing, code, airing.message or "", parts_told, events)
    why = spoken(ending)["why"]
    if why == CANCELLED and airing.end_time <= changes.now:
        why = Text("its end has come")  # its playout stood still then, and its line was taken out meanwhile
    if airing.state not in LIVE_AIRINGS or why == CANCELLED:
        return
    airing = _promised(changes, airing)
    if airing.state is AiringState.WAITING:
        if airing.end_time <= changes.now:
            _refuse_over(changes, airing, parts_told, events)
        return
    sent = gaps.sent(airing.start_time, airing.end_time, parts, events, why)
    if sent.recording_s <= 0:
        why = gaps.not_aired(sent, ending.get("last") or why)
        close(changes, airing, AiringState.BROKEN, why, parts_told, events)
        return
    state = AiringState.AIRED if sent.is_whole else AiringState.AIRED_WITH_GAPS
    changes.missing_s.append(sent.missing_s)
    close(changes, airing, state, joined((sent.sentence(), why)), parts_told, events)


def _promised(changes: StreamerChanges, airing: Airing) -> Airing:
    """*airing*; a class that was ready and waits for its lost file ends as a ready class: it may be on air."""
    return changes.move(airing, AiringState.READY) if airing.state is AiringState.WAITING and airing.lost else airing


def close(
    changes: StreamerChanges,
    airing: Airing,
    state: AiringState,
    message: str,
    parts: Sequence[AsRun] = (),
    events: Sequence[EventView] = (),
) -> None:
    """End a class, which then cites no rendition (if broken: after its end), and report once how it ended."""
    code = CODES.get(state)
    if airing.state in AIRED | {AiringState.CANCELLED}:
        return  # the class was released meanwhile
    if state in AIRED and airing.state in {AiringState.READY, AiringState.BROKEN}:
        airing = changes.move(airing, AiringState.ON_AIR)  # it ended before it was seen on air, or was closed too early
    after = changes.move(airing, state, code, message)
    if changes.now >= airing.end_time:
        changes.give_up(after)
    if (airing.state, airing.message) == (state, message):
        return  # reported before; the playout says it again to each process that begins
    changes.report("ended", after, code, message, parts, events)
    changes.note(state, airing, message)


def close_late(changes: StreamerChanges, airing: Airing, *, is_known: bool = False) -> None:
    """Close a class whose end has passed without a report, because no process aired it or the disk was full.

    *is_known*: the playout was asked, and has nothing of it.
    """
    if airing.state not in LIVE_AIRINGS:
        return  # it ended, or was released, while its playout was asked
    airing = _promised(changes, airing)
    if airing.state is AiringState.WAITING:
        _refuse_over(changes, airing)
    elif airing.state is AiringState.BROKEN:
        changes.give_up(airing)  # how it ended was reported before
    else:
        why = Text("not aired to its end: nobody knows how much of it was sent")
        if is_known and airing.state is AiringState.READY:  # no receiver ever took it
            why = Text("not aired: nothing was sent")
        close(changes, airing, AiringState.BROKEN, why)


def _refuse_over(
    changes: StreamerChanges, airing: Airing, parts: Sequence[AsRun] = (), events: Sequence[EventView] = ()
) -> None:
    """Refuse a class that is over and whose rendition never came; what was sent in its place are *parts*."""
    code, why = errors.ENDED, Text("it ended before its rendition was there")
    changes.report("prepared", changes.move(airing, AiringState.REFUSED, code, why), code, why, parts, events)
    changes.note("closed late", airing, why)


def release(changes: StreamerChanges, known: Airing | None, message: Release, barred: dict[str, int]) -> Airing | None:
    """Release a cancelled or moved class; the release of a class that has not come yet is kept, and bars it then.

    The release of a cancelled class is reported even if the class never came: the teacher repeats the release until
    it is. That of one that has begun is reported when its playout has ended it, with what was sent, or when it is
    repeated. Returns the class as it is then, None if it never came. *barred* are the placements up to which classes
    were released before they came; one that was here before, and is on its way back, is barred by its row.
    """
    after, is_sent = known, False
    if known is None:
        up_to = ANY_PLACEMENT if message.placement is None else message.placement
        barred[message.class_id] = max(up_to, barred.get(message.class_id, 0))
        changes.bar(message.class_id, barred[message.class_id])
    elif message.placement is None or message.placement >= known.placement:
        if known.state in AIRED | OFF:
            after = changes.become(known, {}, lost=False)  # it is no longer waited for here
        else:
            after = changes.move(known, AiringState.CANCELLED)
            changes.note("released", known)
            is_sent = known.start_time <= changes.now < known.end_time
        if message.placement is not None:
            after = changes.become(after, {}, placement=message.placement)
        elif after.state is AiringState.CANCELLED:
            after = changes.become(after, {}, code=errors.CANCELLED.number, message="")  # see `cache.is_cancelled`
    if message.placement is None and not is_sent:
        placement = known.placement if known else 1
        changes.report_as("ended", message.class_id, placement, (errors.CANCELLED, msgid("released")))
    return after
