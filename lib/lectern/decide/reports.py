"""What a teacher does with streamers' reports, and with classes whose end no streamer reports."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import TypeAdapter, ValidationError

from lectern import errors
from lectern.decide import change, gaps
from lectern.decide.airing import STORY
from lectern.decide.placement import Choice, cancel_second, place_again
from lectern.i18n import Text
from lectern.model.facts import AsRun, Order
from lectern.model.plan import Changes
from lectern.model.streamer_plan import DETAIL_TOLD
from lectern.model.tables.teacher import cancels
from lectern.model.views import EventView
from lectern.states import BookingState
from lectern.wire.fields import revised
from lectern.wire.messages import Report

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
    unconfirmed: Collection[tuple[str, str]]
    """Pairs of a class and a streamer that has not confirmed the class's cancel."""

    parts: Mapping[str, Sequence[AsRun]] = field(default_factory=dict)
    """What streamers have reported before to have sent of a class."""

    moved: Mapping[str, Sequence[EventView]] = field(default_factory=dict)
    """When a class was moved to another streamer."""


NO_FACTS = ReportFacts(Choice({}, {}), ())


def are_plain(reports: Sequence[Report]) -> bool:
    """Whether each report says that a class is prepared, as nearly all do: then no more facts are needed."""
    return all((said.cmd, said.result) == ("prepared", "success") and not revised(said.class_id) for said in reports)


def take(changes: Changes, said: Report, facts: ReportFacts) -> None:
    """Take one report, with what the reports before it have changed."""
    order = changes.orders.get(said.class_id)
    its = (said.class_id, said.streamer)
    sent = _keep_sent(changes, order, said, facts) if order is not None else _Sent()  # also if another one has it now
    if said.cmd == "ended" and its in facts.unconfirmed and (cancels, *its) not in changes.rows:
        changes.change(cancels, {"class_id": said.class_id, "streamer": said.streamer}, {}, None)
        changes.row(said.class_id, "cancel confirmed", where=said.streamer)
        changes.note(
            "cancel confirmed",
            class_id=said.class_id,
            detail=Text("{thing}: {what}", thing=said.streamer, what=said.message),
        )
    elif order is not None and order.revises is not None and _is_from(order, said):
        change.reported(changes, order, said, facts.choice.loads)
    elif order is None or not _is_from(order, said):
        changes.row(said.class_id, "report of a class that is not there", where=said.streamer)
        if order is not None and order.state is BookingState.AIRED_WITH_GAPS and sent.parts:
            _judge_again(changes, order, sent)
    elif said.cmd == "prepared" and order.state in PREPARING[said.result]:
        _prepared(changes, order, said, facts)
    elif said.cmd == "ended" and order.state in ENDING:
        if order.state is BookingState.PLACED:  # two runs handle reports at once: that of the end overtook it
            order = _ready(changes, order, said)
        _ended(changes, order, said, sent)
    else:
        changes.row(order.class_id, f"{said.cmd} of a class that is {order.state}", where=said.streamer)


@dataclass(frozen=True)
class _Sent:
    """What a report says was sent of a class, with what was known before, and why the rest was not."""

    parts: Sequence[AsRun] = ()
    before: Sequence[AsRun] = ()
    reasons: Sequence[EventView] = ()

    def together(self, order: Order, message: str) -> tuple[bool, str]:
        """Whether all streamers together aired the class whole, and how; *message* is that of the last one."""
        known = gaps.sent(order.start_time, order.end_time, [*self.before, *self.parts], self.reasons, message)
        return known.is_whole, Text("{first}; {second}", first=known.sentence(), second=message.rpartition("; ")[2])


def _keep_sent(changes: Changes, order: Order, said: Report, facts: ReportFacts) -> _Sent:
    """Keep what was really sent, and what happened meanwhile; what cannot be read is noted, and the rest is kept."""
    parts: list[AsRun] = []
    story: list[EventView] = []
    whose = {"class_id": order.class_id, "stem": order.stem, "host": said.streamer}
    for one in (*(said.as_run or ()), *({**event, **whose} for event in said.events or ())):
        try:
            if "host" not in one:
                parts.append(_PART.validate_python(one))
            elif (event := _EVENT.validate_python(one)).what in STORY:
                story.append(replace(event, detail=event.detail[:DETAIL_TOLD]))
        except ValidationError as error:
            changes.note("as-run not readable", order, f"{said.streamer}: {error.errors()[0]['msg']}: {one!r:.200}")
    if parts:
        changes.sent.append((said.streamer, said.class_id, parts))
    changes.stories += [story] if story else []
    id_ = said.class_id
    return _Sent(parts, facts.parts.get(id_, ()), [*facts.moved.get(id_, ()), *story])


def _is_from(order: Order, said: Report) -> bool:
    """Whether the report is of the streamer that has the class; rows older than moves have no placement."""
    return (order.streamer, max(order.placement, 1)) == (said.streamer, said.placement)


def _prepared(changes: Changes, order: Order, said: Report, facts: ReportFacts) -> None:
    is_over = order.end_time <= changes.now
    if said.result == "success" and is_over and order.promised_at is None:
        changes.refuse(order, errors.ENDED, _late(order), alarm=True)
        changes.release(order.streamer or "", order.class_id, order.placement)
        cancel_second(changes, order)
    elif said.result == "success":
        _ready(changes, order, said)
    elif is_over and order.promised_at is not None:
        _ended(changes, order, said, _Sent())
    elif order.promised_at is not None or order.state is BookingState.READY:
        why = Text("{streamer}: {code} {reason}", streamer=said.streamer, code=said.code, reason=said.message)
        place_again(changes, [order], facts.choice, why, refused=True)
    else:
        code = errors.CODES.get(said.code, errors.DOWNLOAD_FAILED)
        changes.refuse(order, code, said.message, alarm=True)
        cancel_second(changes, order)


def _late(order: Order) -> str:
    return Text("{streamer} did not say in time that it is ready", streamer=order.streamer)


def _ready(changes: Changes, order: Order, said: Report) -> Order:
    changes.row(order.class_id, "ready", where=said.streamer)
    what, promised_at = "prepared anew", order.promised_at
    if promised_at is None and order.end_time <= changes.now:
        changes.answer(order, errors.ENDED.number, _late(order), order.deliveries)
        what, promised_at = "answered with 410", changes.now
    elif promised_at is None:
        changes.answer(order, 0, "prepared", order.deliveries)
        what, promised_at = "answered with success", changes.now
    changes.note(what, order, Text("{thing}: {what}", thing=said.streamer, what=said.message).rstrip(": "))
    return changes.move(order, BookingState.READY, 0, said.message, promised_at=promised_at)


def _ended(changes: Changes, order: Order, said: Report, sent: _Sent) -> None:
    code = errors.CODES.get(said.code, errors.AIRING_BROKEN)
    state, message = BookingState.BROKEN, said.message
    if said.result == "success":
        is_whole = code is not errors.AIRED_WITH_GAPS
        if sent.before:  # it was moved, and its streamer knows only its own part
            is_whole, message = sent.together(order, said.message)
        state = BookingState.AIRED if is_whole else BookingState.AIRED_WITH_GAPS
        code = errors.AIRED_WITH_GAPS
    elif code is errors.CANCELLED:
        state = BookingState.CANCELLED  # a person cancelled it, in the UI
    number = 0 if state is BookingState.AIRED else said.code or code.number
    changes.move(order, state, number, message)
    if state in {BookingState.BROKEN, BookingState.AIRED_WITH_GAPS}:
        changes.alarm(
            code,
            Text("{thing}: {what}", thing=order.class_id, what=message),
            class_id=order.class_id,
            record_id=order.record_id,
        )
    changes.row(order.class_id, state, where=said.streamer, code=number, detail=message)
    changes.note(state, order, Text("{thing}: {what}", thing=said.streamer, what=message).rstrip(": "))


def _judge_again(changes: Changes, order: Order, sent: _Sent) -> None:
    """Correct what is said of a class that has gaps: a streamer that had it before tells late what it sent of it."""
    is_whole, message = sent.together(order, order.message or "")
    if is_whole:
        changes.move(order, BookingState.AIRED, 0, message)
        changes.note(BookingState.AIRED, order, message)
    elif message != order.message:
        changes.move(order, order.state, order.code or 0, message)


# What a teacher does about classes without news: raise an alarm, send them to their streamer again, close them.


TOLD_AGAIN = "told its streamer again"
"""An event that is recorded once for a class: during a long download its repetitions would fill the story."""

UNENDED_S = 300.0
"""Seconds after its end after which a class counts as broken if its streamer has not reported how it ended."""


def warn(changes: Changes, late: Sequence[Order]) -> None:
    """Raise an alarm for each of the *late* classes: its rendition has taken longer than ORDER_WARN_TIME_OUT_S."""
    waited = {"limit_s": changes.settings.order_warn_time_out_s}
    for order in late:
        said = Text(
            "{class_id} has waited for {stem} for more than {limit_s:span}",
            class_id=order.class_id,
            stem=order.stem,
            **waited,
        )
        if order.revises is not None:
            said = Text(
                "{class_id}: its change has waited for {stem} for more than {limit_s:span}",
                class_id=order.revises,
                stem=order.stem,
                **waited,
            )
        changes.alarm(errors.STALE_WAITING, said, order)
        changes.note_of(order.class_id, warned_at=changes.now)


def resend_ends(changes: Changes, silent: Sequence[Order], noted: Collection[str]) -> None:
    """Send *silent* classes to their streamers again; the event is recorded unless the class is in *noted*."""
    for order in silent:
        changes.prepare(order)
        changes.note_of(order.class_id, updated_at=changes.now)
        if order.class_id not in noted:
            changes.note(TOLD_AGAIN, order)


def unended(over: Sequence[Order], now: float) -> list[Order]:
    """The classes among *over* whose streamer is no longer expected to report."""
    return [one for one in over if one.promised_at is None or one.end_time < now - UNENDED_S]


def close_unreported(changes: Changes, over: Sequence[Order]) -> None:
    """Close classes whose time is over: they still wait, or their streamer never reported, or not the end."""
    for order in unended(over, changes.now):
        if order.state is BookingState.WAITING:
            changes.leaves.append((changes.waiting_key(order), order.class_id))
            changes.refuse(order, errors.ENDED, Text("it ended before its rendition was there"), alarm=True)
            continue
        if order.promised_at is None:
            why = Text("{streamer} did not say in time that it is ready", streamer=order.streamer)
            changes.refuse(order, errors.ENDED, why, alarm=True)
            continue
        code, why = errors.AIRING_BROKEN, Text("{streamer} never said how it ended", streamer=order.streamer)
        changes.move(order, BookingState.BROKEN, code.number, why)
        said = Text("{thing}: {what}", thing=order.class_id, what=why)
        changes.alarm(code, said, class_id=order.class_id, record_id=order.record_id)
        changes.note(BookingState.BROKEN, order, why)
        changes.row(order.class_id, BookingState.BROKEN, where=order.streamer or "", code=code.number, detail=why)
