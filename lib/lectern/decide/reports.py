"""What a teacher does with streamers' reports, and with classes whose end no streamer reports."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from pydantic import TypeAdapter, ValidationError

from lectern import errors
from lectern.decide import change, gaps
from lectern.decide.airing import STORY
from lectern.decide.placement import Choice, cancel_second, end, reassign
from lectern.i18n import Text, from_pair, joined, labelled, msgid
from lectern.model.facts import AsRun, Order
from lectern.model.plan import MAX_DELIVERIES, Changes
from lectern.model.tables.teacher import CancelRow, cancels
from lectern.model.views import DETAIL_TOLD, EventView
from lectern.states import BookingState
from lectern.wire.fields import revised
from lectern.wire.messages import AiringReport, Report

_PART, _EVENT = TypeAdapter(AsRun), TypeAdapter(EventView)
ENDING = frozenset({BookingState.PLACED, BookingState.READY, BookingState.BROKEN})
"""States in which a class may end on its streamer."""

PREPARING = {
    "success": frozenset({BookingState.PLACED}),
    "fail": frozenset({BookingState.PLACED, BookingState.READY}),
}
"""States in which a report "prepared" changes something; a class that was ready can fail, because its file is lost."""


@dataclass(frozen=True)
class ReportFacts:
    """What must be known for the few reports that are not a plain success."""

    choice: Choice
    unconfirmed: Mapping[tuple[str, str], int]
    """A class and a streamer that has not confirmed the class's cancel, and how often that was asked for."""

    parts: Mapping[str, Sequence[AsRun]] = field(default_factory=dict)  # what was reported before to be sent of a class
    moved: Mapping[str, Sequence[EventView]] = field(default_factory=dict)  # when a class was moved to another streamer


NO_FACTS = ReportFacts(Choice({}, {}), {})


def is_plain(report: Report) -> bool:
    """Whether a report says that a class is prepared, as nearly all do: then no more facts are needed."""
    return (report.cmd, report.result) == ("prepared", "success") and not revised(report.class_id)


def take(changes: Changes, report: Report, facts: ReportFacts) -> None:
    """Take one report, with what the reports before it have changed."""
    order = changes.orders.get(report.class_id)
    key = (report.class_id, report.streamer)
    # Also if another one has it now.
    sent = SentParts() if order is None or is_plain(report) else _keep_sent(changes, order, report, facts)
    if report.cmd == "ended" and key in facts.unconfirmed and (cancels, *key) not in changes.rows:
        changes.change(cancels, {"class_id": report.class_id, "streamer": report.streamer}, {}, None)
        if order is not None:
            close_cancel(changes, order, sent, facts.unconfirmed[key])
        changes.row(report.class_id, "cancel confirmed", where=report.streamer)
        changes.note("cancel confirmed", class_id=report.class_id, detail=labelled(report.streamer, report.reason))
    elif order is not None and order.revises is not None and _is_from(order, report):
        change.reported(changes, order, report, facts.choice.loads)
    elif order is None or not _is_from(order, report):
        changes.row(report.class_id, "report of a class that is not there", where=report.streamer)
        if order is not None and order.state is BookingState.AIRED_WITH_GAPS and sent.parts:
            _judge_again(changes, order, sent)
    elif order.state is BookingState.CANCELLED and sent.parts and not sent.is_open(order, changes.now):
        _tell_end(changes, order, sent)  # its push has ended since
    elif report.cmd == "prepared" and order.state in PREPARING[report.result]:
        _prepared(changes, order, report, sent, facts)
    elif report.cmd == "ended" and order.state in ENDING:
        if order.state is BookingState.PLACED:  # two runs handle reports at once: that of the end overtook it
            order = _ready(changes, order, report)
        _ended(changes, order, report, sent)
    else:
        changes.row(order.class_id, f"{report.cmd} of a class that is {order.state}", where=report.streamer)


@dataclass(frozen=True)
class SentParts:
    """What a report says was sent of a class, with what was known before, and why the rest was not."""

    parts: Sequence[AsRun] = ()
    before: Sequence[AsRun] = ()
    reasons: Sequence[EventView] = ()

    def account(self, order: Order, message: str = "") -> gaps.SentAccount:
        """What all streamers together sent of the class; *message* is that of the last one."""
        return gaps.sent(order.start_time, order.end_time, [*self.before, *self.parts], self.reasons, message)

    def together(self, order: Order, message: str) -> tuple[bool, str]:
        """Whether all streamers together aired the class whole, and how; *message* is that of the last one."""
        known = self.account(order, message)
        return known.is_whole, joined((known.sentence(), message.rpartition("; ")[2]))

    def is_open(self, order: Order, now: float) -> bool:
        """Whether more may be heard of a class that is over, soon, so that the platform is not told its end yet.

        Until its end, a broken class may be on air where it was lost. Of one that was cancelled in the UI, or was moved
        while it was on air, another report may say what was sent.
        """
        if order.state is BookingState.BROKEN and now < order.end_time:
            return True
        if order.state is BookingState.CANCELLED and not self.parts and order.start_time <= now:
            return True
        was_moved = any(one.what == "moved" and one.at > order.start_time for one in self.reasons)
        return was_moved and order.state is not BookingState.AIRED


def _keep_sent(changes: Changes, order: Order, report: Report, facts: ReportFacts) -> SentParts:
    """Keep what was really sent, and what happened meanwhile; what cannot be read is noted, and the rest is kept."""
    parts: list[AsRun] = []
    story: list[EventView] = []
    whose = {"class_id": order.class_id, "stem": order.stem, "host": report.streamer}
    for entry in (*(report.as_run or ()), *({**event, **whose} for event in report.events or ())):
        try:
            if "host" not in entry:
                parts.append(replace(_PART.validate_python(entry), streamer=report.streamer))
            elif (event := _EVENT.validate_python(entry)).what in STORY:
                story.append(replace(event, detail=from_pair(entry.get("sentence")) or event.detail[:DETAIL_TOLD]))
        except ValidationError as error:
            why = f"{report.streamer}: {error.errors()[0]['msg']}: {entry!r:.200}"
            changes.note(msgid("as-run not readable"), order, why)
    id_ = report.class_id
    beside = [part for _, class_id, theirs in changes.sent if class_id == id_ for part in theirs]
    if parts:
        changes.sent.append((report.streamer, id_, parts))
    changes.stories += [story] if story else []
    return SentParts(parts, [*facts.parts.get(id_, ()), *beside], [*facts.moved.get(id_, ()), *story])


def _is_from(order: Order, report: Report | AiringReport) -> bool:
    """Whether the report is of the streamer that has the class; rows older than moves have no placement."""
    return (order.streamer, max(order.placement, 1)) == (report.streamer, report.placement)


def _prepared(changes: Changes, order: Order, report: Report, sent: SentParts, facts: ReportFacts) -> None:
    is_over = order.end_time <= changes.now
    if report.result == "success" and is_over and order.promised_at is None:
        changes.refuse(order, errors.ENDED, _late(order), alarm=True)
        changes.release(order.streamer or "", order.class_id, order.placement)
        cancel_second(changes, order)
    elif report.result == "success":
        _ready(changes, order, report)
    elif is_over and order.promised_at is not None:
        _ended(changes, order, report, sent)
    elif order.promised_at is not None or order.state is BookingState.READY:
        why = Text("{streamer}: {code} {reason}", streamer=report.streamer, code=report.code, reason=report.reason)
        reassign(changes, [order], facts.choice, why, refused=True)
    else:
        code = errors.CODES.get(report.code, errors.DOWNLOAD_FAILED)
        changes.refuse(order, code, report.reason, alarm=True)
        cancel_second(changes, order)


ANSWERED, ANSWERED_LATE, ANEW = msgid("answered with success"), msgid("answered with 410"), msgid("prepared anew")
"""What is recorded when a class is prepared: its first report answers the booking."""


def _late(order: Order) -> str:
    return Text("{streamer} did not say in time that it is ready", streamer=order.streamer)


def _ready(changes: Changes, order: Order, report: Report) -> Order:
    changes.row(order.class_id, "ready", where=report.streamer)
    what, promised_at, reason = ANEW, order.promised_at, report.reason
    said = reason if " " in reason else PREPARED  # a sentence, if its recording comes later
    if promised_at is None and order.end_time <= changes.now:
        changes.answer(order, errors.ENDED.number, _late(order), order.deliveries)
        what, promised_at = ANSWERED_LATE, changes.now
    elif promised_at is None:
        changes.answer(order, 0, said, order.deliveries)
        what, promised_at = ANSWERED, changes.now
    if what != ANSWERED_LATE:
        changes.announce(order, "accepted", message=said)
    changes.note(what, order, _by(report.streamer, reason))
    return changes.move(order, BookingState.READY, 0, reason, promised_at=promised_at)


def _ended(changes: Changes, order: Order, report: Report, sent: SentParts) -> None:
    code = errors.CODES.get(report.code, errors.AIRING_BROKEN)
    state, message = BookingState.BROKEN, report.reason
    if report.result == "success":
        is_whole = code is not errors.AIRED_WITH_GAPS
        if sent.before:  # it was moved, and its streamer knows only its own part
            is_whole, message = sent.together(order, report.reason)
        state = BookingState.AIRED if is_whole else BookingState.AIRED_WITH_GAPS
        code = errors.AIRED_WITH_GAPS
    elif code is errors.CANCELLED:
        state = BookingState.CANCELLED  # a person cancelled it, in the UI
    number = 0 if state is BookingState.AIRED else report.code or code.number
    after = changes.move(order, state, number, message)
    if not sent.is_open(after, changes.now):
        _tell_end(changes, after, sent)
    if state in {BookingState.BROKEN, BookingState.AIRED_WITH_GAPS}:
        changes.alarm(code, labelled(order.class_id, message), class_id=order.class_id, record_id=order.record_id)
    changes.row(order.class_id, state, where=report.streamer, code=number, detail=message)
    changes.note(state, order, _by(report.streamer, message))


def _by(streamer: str, reason: str) -> str:
    if not reason:
        return streamer
    return labelled(streamer, reason) if " " in reason else _word(streamer, reason)


@lru_cache(maxsize=256)
def _word(streamer: str, word: str) -> Text:
    """What a streamer says in a word, such as *cached*: one for all classes of a storm."""
    return labelled(streamer, Text(word))


def _tell_end(changes: Changes, order: Order, sent: SentParts) -> None:
    message = order.message or ""
    why = CONFIRMED if order.state is BookingState.CANCELLED and not message else (order.code or 0, message)
    end(changes, order, why, sent.account(order, message), [*sent.before, *sent.parts])


CONFIRMED = (0, Text("cancelled"))
PREPARED = Text("prepared")


def close_cancel(
    changes: Changes, order: Order, sent: SentParts, deliveries: int, why: tuple[int, str] = CONFIRMED
) -> None:
    """Answer the cancel of a class as often as it came, up to MAX_DELIVERIES, and tell the platform that it is over.

    The end is told later if another streamer may say yet what it sent, because the class was moved while it was on air,
    or if its own may: one that was just started anew confirms a cancel before it hears its playout, and one that did
    not confirm it may be back soon.
    """
    account, parts = sent.account(order), [*sent.before, *sent.parts]
    changes.answer_cancel(order.class_id, *why, account.recording_s, min(deliveries, MAX_DELIVERIES))
    if not sent.is_open(order, changes.now):
        end(changes, order, why, account, parts)
    elif why is not CONFIRMED:
        changes.move(order, order.state, *why)  # as its end is told later


def _judge_again(changes: Changes, order: Order, sent: SentParts) -> None:
    """Correct what is said of a class that has gaps: a streamer that had it before tells late what it sent of it."""
    is_whole, message = sent.together(order, order.message or "")
    if is_whole:
        _tell_end(changes, changes.move(order, BookingState.AIRED, 0, message), sent)
        changes.note(BookingState.AIRED, order, message)
    elif message != order.message:
        changes.move(order, order.state, order.code or 0, message)


TOLD_AGAIN = msgid("told its streamer again")
"""An event that is recorded once for a class: during a long download its repetitions would fill the story."""

UNENDED_S = 300.0
"""Seconds after its end after which a class counts as broken if its streamer has not reported how it ended."""


def warn(changes: Changes, late: Sequence[Order]) -> None:
    """Raise an alarm for each of the *late* classes: its rendition has taken longer than ORDER_WARN_TIME_OUT_S."""
    waited = {"limit_s": changes.settings.order_warn_time_out_s}
    for order in late:
        its = {"class_id": order.revises or order.class_id, "stem": order.stem, **waited}
        text = Text("{class_id} has waited for {stem} for more than {limit_s:span}", **its)
        if order.revises is not None:
            text = Text("{class_id}: its change has waited for {stem} for more than {limit_s:span}", **its)
        changes.alarm(errors.STALE_WAITING, text, order)
        changes.note_of(order.class_id, warned_at=changes.now)


def resend_ends(changes: Changes, silent: Sequence[Order], noted: Collection[str]) -> None:
    """Send *silent* classes to their streamers again; the event is recorded unless the class is in *noted*."""
    for order in silent:
        changes.prepare(order)
        changes.note_of(order.class_id, updated_at=changes.now)
        if order.class_id not in noted:
            changes.note(TOLD_AGAIN, order)


def close_unreported(changes: Changes, over: Sequence[Order], parts: Mapping[str, Sequence[AsRun]]) -> None:
    """Close classes whose time is over: they still wait, or their streamer never reported, or not the end.

    *parts* are what was reported of each by streamers that had it before.
    """
    for order in over:
        if order.promised_at is not None and order.end_time >= changes.now - UNENDED_S:
            continue  # its streamer is still expected to report
        if order.state is BookingState.WAITING:
            changes.leaves.append((changes.waiting_key(order), order.class_id))
            changes.refuse(order, errors.ENDED, Text("it ended before its rendition was there"), alarm=True)
            continue
        if order.promised_at is None:
            changes.refuse(order, errors.ENDED, _late(order), alarm=True)
            continue
        code, why = errors.AIRING_BROKEN, Text("{streamer} never said how it ended", streamer=order.streamer)
        after = changes.move(order, BookingState.BROKEN, code.number, why)
        _tell_end(changes, after, SentParts(before=parts.get(order.class_id, ())))
        report = labelled(order.class_id, why)
        changes.alarm(code, report, class_id=order.class_id, record_id=order.record_id)
        changes.note(BookingState.BROKEN, order, why)
        changes.row(order.class_id, BookingState.BROKEN, where=order.streamer or "", code=code.number, detail=why)


ENDS_AFTER_S, BEGAN_WITHIN_S = 60.0, 2 * 86_400.0
"""Seconds after the end of a class, or its cancel, from which the platform is told of an end that was put off, if the
class began lately."""


def tell_ends(changes: Changes, over: Sequence[Order], parts: Mapping[str, Sequence[AsRun]]) -> None:
    """Tell the platform of the ends of classes *over* which no report says any more; *parts* were sent of each."""
    for order in over:
        _tell_end(changes, order, SentParts(before=parts.get(order.class_id, ())))


def close_cancels(
    changes: Changes, unconfirmed: Sequence[CancelRow], parts: Mapping[str, Sequence[AsRun]], *, is_off: bool = False
) -> None:
    """Answer the cancels that no streamer has confirmed until the end of their classes.

    *is_off*: their streamer is known to push nothing any more; if it comes back, it is told before its lease.
    """
    for row in unconfirmed:
        changes.change(cancels, {"class_id": row.class_id, "streamer": row.streamer}, {}, None)
        said = Text("{streamer} did not confirm it before the end of the class", streamer=row.streamer)
        what, why = ("cancel confirmed", CONFIRMED) if is_off else ("cancel not confirmed", (errors.ENDED.number, said))
        if (order := changes.orders.get(row.class_id)) is not None:
            sent = SentParts(before=parts.get(row.class_id, ()))
            close_cancel(changes, order, sent, row.deliveries, why)
            if is_off:
                changes.take(row.class_id, row.streamer or "", order.placement, refused=False)
        changes.row(row.class_id, what, code=why[0], where=row.streamer or "")


def aired(changes: Changes, report: AiringReport) -> None:
    """Tell the platform what a streamer says of a class, if that has it."""
    order = changes.orders.get(report.class_id)
    if order is None or order.state not in ENDING or not _is_from(order, report):
        changes.row(report.class_id, f"{report.event} of a class that is not there", where=report.streamer)
        if order is not None and report.placement < order.placement:  # Redis may have lost the release
            changes.release(report.streamer, order.class_id, report.placement)
        return
    changes.announce(order, report.event, message=report.reason, since=report.since, at=report.at)
    changes.row(report.class_id, report.event, where=report.streamer, detail=report.reason)
