"""What a flow of the teacher has decided, as one value: rows, messages, events; `db.writer` commits it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, Generic, TypeVar, Unpack

from lectern import errors
from lectern.errors import ErrorCode, Malformed
from lectern.i18n import Text, labelled, to_json, wire
from lectern.model.facts import Airing, AsRun, Attempt, Event, InboxMessage, Order, RenditionKey
from lectern.model.tables.shared import AnyTable
from lectern.model.tables.teacher import StreamerRow, cancels, moves, orders, streamers, videos
from lectern.model.views import ClassEvent, EventView
from lectern.rendition_ids import stem
from lectern.settings import StreamerSettings, TeacherSettings
from lectern.states import BOOKING_MOVES, RENDITION_MOVES, BookingState, RenditionState, check_move
from lectern.wire import outgoing
from lectern.wire.fields import BACKUP, called, class_of
from lectern.wire.messages import Booking, Message, Prepare, Release
from lectern.wire.outgoing import About, Outgoing, OutgoingKind

S = TypeVar("S", bound=TeacherSettings | StreamerSettings)


class Increment(int):
    """A number to be added to what a column has, whose sum is never below 0; citations and sums are counted so."""


@dataclass(slots=True)
class RowChange:
    """What is written of a row of *table*.

    *before* are columns as they were read, which they still have to be; None makes a new row instead of any that has
    the *key*. *after* are columns as they will be; None deletes the row.
    """

    table: AnyTable
    key: Mapping[str, object]  # empty for a new row that can replace no other
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None

    def then(self, other: "RowChange") -> "RowChange":
        """This change and a later one of the same row, as one."""
        if other.before is None or other.after is None:
            return RowChange(self.table, self.key, self.before if other.after is None else None, other.after)
        if (its := self.after) is None:  # the row is deleted
            return self
        # What a column is compared with is what was read, not what the first change makes of it.
        read = {name: value for name, value in other.before.items() if name not in its}
        after = {**its, **{name: _later(its.get(name), value) for name, value in other.after.items()}}
        return RowChange(self.table, self.key, None if self.before is None else {**read, **self.before}, after)


def _later(known: object, value: object) -> object:
    """The value of a column that first changes to *known*, then to *value*."""
    if not isinstance(value, Increment) or not isinstance(known, int):
        return value
    return Increment(known + value) if isinstance(known, Increment) else max(0, known + value)


@dataclass
class Decided(Generic[S]):
    """What a flow has decided; nothing of it happens before it is committed."""

    settings: S
    now: float
    sends: list[Outgoing] = field(default_factory=list)
    notes: list[Event] = field(default_factory=list)
    rows: dict[object, RowChange] = field(default_factory=dict)  # one for each row
    done: list[int] = field(default_factory=list)  # inbox ids of the handled messages
    dead: dict[int, str] = field(default_factory=dict)  # inbox ids of unreadable messages, and the fault of each
    sent: list[tuple[str | None, str, Sequence[AsRun]]] = field(default_factory=list)  # other host, class, parts
    table: list[dict[str, object]] = field(default_factory=list)  # what the UI shows after the commit
    said: Mapping[int, str] = field(default_factory=dict)  # its lines by message, as JSON
    shown: bool = False  # by the run that handles the messages

    def change(
        self,
        table: AnyTable,
        key: Mapping[str, object],
        before: Mapping[str, object] | None,
        after: Mapping[str, object] | None,
    ) -> None:
        """Change a row as `RowChange` says, after all that is changed of it already."""
        made = RowChange(table, key, before, after)
        id_ = (table, *key.values()) if key else (table, len(self.rows))
        known = self.rows.get(id_)
        self.rows[id_] = made if known is None else known.then(made)

    def written(self) -> list[RowChange]:
        """All rows that are changed; new bookings are apart."""
        return list(self.rows.values())

    def raise_alarm(self, code: ErrorCode, said: str, **about: Unpack[About]) -> None:
        """Raise an alarm."""
        made = outgoing.alarm(code, said, self.now, self.settings.name, **about)
        self.sends.append(Outgoing(self.settings.alarm_channel, OutgoingKind.CHANNEL, made))

    def note(
        self, what: str, about: Order | Airing | Prepare | None = None, detail: str = "", **named: str | None
    ) -> None:
        """Record an event, for ``lectern explain``."""
        if about is not None:
            named = {"class_id": about.class_id, "stem": about.stem}
        self.notes.append(Event(what, detail=detail, **named))

    def dead_letter(self, kept: InboxMessage, error: Malformed) -> None:
        """Send an unreadable message to the dead letters, and show it in the run's table."""
        self.dead[kept.id] = error.message
        self.sends.append(
            outgoing.dead_letter(self.settings.dead_letter_stream, kept.command, kept.body, error.message)
        )
        self.table.append({"class": error.class_id or "?", "decision": "malformed", "detail": error.message})


_FIELDS = tuple(one.name for one in fields(Order))
_VALUES = attrgetter(*_FIELDS)
NEW = (*_FIELDS, "sentence", "stream", "backup_stream", "received_at", "updated_at")
"""The columns of a new booking."""

MAX_DELIVERIES = 10
"""Greatest number of answers that a booking, a change or a cancel gets at once, however often it was delivered."""


@dataclass
class Changes(Decided[TeacherSettings]):
    """What a flow of the teacher has decided; nothing of it happens before it is committed."""

    drained: Sequence[str] = ()  # streamers that are there and take no classes, because they are drained
    orders: dict[str, Order] = field(default_factory=dict)  # bookings as they will be
    booked: dict[str, Booking] = field(default_factory=dict)  # new bookings
    revisions: dict[str, list[str]] = field(default_factory=dict)  # ids of the known revisions, by class
    begun: list[Attempt] = field(default_factory=list)
    fell_back_to_ecs: list[RenditionKey] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)  # classes that are taken from their streamers
    stories: list[list[EventView]] = field(default_factory=list)  # what happened to a class on its streamer
    class_events: list[ClassEvent] = field(default_factory=list)  # what the platform is told, if that is new to it
    # done after the commit
    joins: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # waiting lists in Redis
    leaves: list[tuple[str, str]] = field(default_factory=list)
    ended: list[RenditionKey] = field(default_factory=list)  # renditions whose transcoding is over
    transcoded: list[tuple[str, str]] = field(default_factory=list)  # backend and outcome, for the metrics

    def no_streamer(self) -> str:
        """Why no streamer can take a class."""
        if not self.drained:
            return Text("no streamer was heard of lately")
        return Text("no streamer takes classes; drained: {drained}", drained=", ".join(self.drained))

    # -- a class -------------------------------------------------------------------------------------------------------

    def book(self, booking: Booking) -> Order:
        """Add a new booking; what is decided about it is added later."""
        order = Order.of(booking)
        self.booked[order.class_id] = booking
        self.learn({order.class_id: order})
        return order

    def learn(self, found: Mapping[str, Order]) -> None:
        """Add bookings from the database; bookings that are here already stay as decided."""
        for class_id, order in found.items():
            self.orders.setdefault(class_id, order)
            if order.revises is not None:
                its = self.revisions.setdefault(order.revises, [])
                its += [] if class_id in its else [class_id]

    def revise(self, order: Order, booking: Booking, url: str | None) -> Order:
        """Change a class to what *booking* says, with its recording at *url*; returns the class as it is then."""
        new, taken = Order.of(booking), ("payload", "record_id", "resolution", "start_time", "end_time", "url_stem")
        its = {name: getattr(new, name) for name in taken} | {"url": url, "booked": order.booked or order.payload}
        stream, backup_stream = (*booking.streams, None)[:2]
        return self._as(order, its, stream=stream, backup_stream=backup_stream, updated_at=self.now)

    def move(self, order: Order, state: BookingState, code: int = 0, message: str = "", **more: Any) -> Order:  # noqa: ANN401 (fields of an order)
        """Move a class to *state*; raises ForbiddenMove if the tables have no such move. Returns it as it is then."""
        check_move(BOOKING_MOVES, order.class_id, order.state, state)
        return self._as(order, {"state": state, "code": code, "message": message, **more}, updated_at=self.now)

    def _as(self, order: Order, new: Mapping[str, Any], **noted: object) -> Order:
        """*order* gets the values *new*; *noted* are columns that no decision reads. Returns it as it is then."""
        old = vars(order)
        assert new.keys() <= old.keys(), new
        after = object.__new__(Order)  # `dataclasses.replace` would take as long as the rest of a decision
        vars(after).update(old, **new)
        if order.class_id not in self.booked:
            its = {name: value for name, value in new.items() if value is not old[name] and value != old[name]}
            self.change(orders, {"class_id": order.class_id}, {name: old[name] for name in its}, {**its, **noted})
        self.orders[order.class_id] = after
        return after

    def place(self, order: Order, streamer: str, url: str) -> None:
        """Give a class to *streamer*, and tell it what to prepare; its placement counts up."""
        anew = {} if order.state is BookingState.READY else {"code": order.code, "message": order.message}
        placed: dict[str, Any] = {**anew, "streamer": streamer, "url": url, "placement": order.placement + 1}
        after = self.move(order, BookingState.PLACED, **placed)
        self.prepare(after)

    def count_delivery(self, order: Order) -> None:
        """Count another delivery of a booking."""
        self._as(order, {"deliveries": min(order.deliveries + 1, MAX_DELIVERIES)})

    def refuse(self, order: Order, code: ErrorCode, why: str, *, alarm: bool = False) -> None:
        """Refuse a class with *code*, and answer the platform as many times as the class was booked."""
        # Only a change can be refused after its streamer was ready: it is not in force before it is applied.
        was_ready = order.revises is not None and order.state is BookingState.READY
        self.move(order, BookingState.CANCELLED if was_ready else BookingState.REFUSED, code.number, why)
        self.answer(order, code.number, why, order.deliveries)
        self.announce(order, "refused", code.number, why)
        if alarm and order.revises is None:
            self.alarm(code, labelled(order.class_id, why), order)
        elif alarm:
            self.alarm(
                code, Text("{revises}: its change is refused: {reason}", revises=order.revises, reason=why), order
            )
        if order.revises is None:
            self.note("refused", order, labelled(code.number, why))
        else:
            self.note("change refused", class_id=order.revises, detail=labelled(code.number, why))
        self.row(order.class_id, "refuse", code=code.number, detail=why)

    # -- a rendition ---------------------------------------------------------------------------------------------------

    def begin(self, attempt: Attempt) -> None:
        """Begin a transcoding."""
        self.begun.append(attempt)
        self.note("transcoding begins", stem=attempt.stem, detail=attempt.text())

    def remake(self, key: RenditionKey, old: RenditionState, new: RenditionState, **lies: str) -> None:
        """Move a rendition, with its *url* or *reason*; raises ForbiddenMove if the tables have no such move."""
        check_move(RENDITION_MOVES, stem(*key), old, new)
        after = {"status": new, "owner": None, "lease_until": None, "deadline": None, "updated_at": self.now, **lies}
        if old is RenditionState.TRANSCODING:
            self.ended.append(key)
        self.change(videos, {"record_id": key[0], "resolution": key[1]}, {"status": old}, after)

    # -- the rows ------------------------------------------------------------------------------------------------------

    def new(self) -> list[tuple[object, ...]]:
        """The rows of new bookings, with the values of `NEW`: in a storm, thousands."""
        return [new_row(booking, self.orders[class_id], self.now) for class_id, booking in self.booked.items()]

    def note_of(self, class_id: str, **after: object) -> None:
        """Change columns of a class that no decision reads."""
        self.change(orders, {"class_id": class_id}, {}, after)

    def await_cancel(self, class_id: str, streamer: str | None, until: float) -> None:
        """Tell *streamer* to release a class until it confirms; without one, the cancel waits for its booking."""
        after = {"class_id": class_id, "streamer": streamer, "until": until, "deliveries": 1}
        self.change(cancels, {"class_id": class_id}, None, {**after, "cancelled_at": self.now, "told_at": self.now})

    def take(self, class_id: str, streamer: str, placement: int, *, refused: bool) -> None:
        """Note that a class is taken from its streamer, which is lost or drained, or has *refused* it."""
        self.taken.append(class_id)
        after = {"class_id": class_id, "streamer": streamer, "placement": placement}
        self.change(moves, {}, None, {**after, "refused": refused, "moved_at": self.now})

    def hold(self, holder: StreamerRow, **after: object) -> None:
        """Write what is known of a streamer's lease, *holder* as it was read, or *after*; it may have no row yet."""
        known = self.rows.get((streamers, holder.name))
        its = {**holder.model_dump(), **((known.after or {}) if known else {}), **after}
        self.change(streamers, {"name": holder.name}, None, its)

    # -- what is said --------------------------------------------------------------------------------------------------

    def answer(self, order: Order, code: int, why: str, times: int = 1) -> None:
        """Answer a booking to the platform; for a revision, answer the change that asked for it."""
        if order.revises is not None:
            self.answer_change(order.revises, code, why, times)
            return
        self.answer_class(order.class_id, code, why, order.streamer, times)

    def answer_class(self, class_id: str, code: int, why: str, streamer: str | None = None, times: int = 1) -> None:
        """Answer a booking, whether or not the class is known here."""
        said = outgoing.answer(class_id, code, why, streamer=streamer)
        self.sends += [Outgoing(self.settings.order_result_channel, OutgoingKind.CHANNEL, said, class_id)] * times

    def answer_change(self, class_id: str, code: int, why: str, times: int = 1) -> None:
        """Answer a change to the platform; a second airing changes with its class, and gets no answer of its own."""
        if not class_id.endswith(BACKUP):
            said = outgoing.answer(class_id, code, why, outgoing.ChangeResult)
            self.sends += [Outgoing(self.settings.change_result_channel, OutgoingKind.CHANNEL, said, class_id)] * times

    def announce(
        self,
        order: Order,
        event: str,
        code: int = 0,
        message: str = "",
        since: float | None = None,
        **more: Any,  # noqa: ANN401 (fields of a message)
    ) -> None:
        """State what happened to a class, now or *at* then: if it is new, the platform is told it."""
        if order.revises is None:
            at = more.pop("at", self.now)
            fields = {"code": code, "message": message, "streamer": order.streamer, **more}
            its = order.start_time, 0, order.institution_id
            self.class_events.append(ClassEvent(order.class_id, event, at, fields, since, *its))

    def answer_cancel(self, class_id: str, code: int, why: str, sent_s: float = 0.0, times: int = 1) -> None:
        """Answer a cancel to the platform; what is cancelled with a class, its second airing or a change, has none."""
        if class_of(class_id) == class_id:
            more = {"sent_s": round(sent_s, 3), **wire(why)}
            said = outgoing.answer(class_id, code, why, outgoing.CancelResult, **more)
            self.sends += [Outgoing(self.settings.cancel_result_channel, OutgoingKind.CHANNEL, said, class_id)] * times

    def alarm(self, code: ErrorCode, said: str, about: Order | None = None, **named: Any) -> None:  # noqa: ANN401 (fields of an alarm)
        """Raise an alarm; *about* is the class that is in danger."""
        if about is not None:
            whose = {"record_id": about.record_id, "video_resolution": about.resolution}
            named |= {"class_id": called(about.class_id), **whose}
        self.raise_alarm(code, said, **named)

    def tell(self, streamer: str, message: Message, class_id: str | None) -> None:
        """Send *message* to a streamer."""
        target = self.settings.streamer_stream.format(name=streamer)
        self.sends.append(Outgoing(target, OutgoingKind.STREAM, message, class_id))

    def prepare(self, order: Order) -> None:
        """Tell the streamer of a class what to prepare."""
        told = outgoing.prepare(order.payload, order.url or "", order.placement)
        self.tell(order.streamer or "", told, order.class_id)

    def release(self, streamer: str, class_id: str, placement: int | None = None) -> None:
        """Tell *streamer* to release a class."""
        self.tell(streamer, Release.model_construct(class_id=class_id, placement=placement), class_id)

    def row(self, class_id: str, decision: str, *, code: int = 0, where: str = "", detail: str = "") -> None:
        """Add one line to the table that the run shows in the UI."""
        self.table.append(
            {"class": class_id, "decision": decision, "code": code or "", "where": where, "detail": detail}
        )

    def dead_letter(self, kept: InboxMessage, error: Malformed) -> None:
        """Send a malformed message to the dead letters, with an alarm; answer 400 if its class is readable and new."""
        super().dead_letter(kept, error)
        class_id, code = error.class_id, errors.DEAD_LETTER
        if kept.command == "change" and class_id is not None:
            self.answer_change(class_id, errors.MALFORMED.number, error.message)
        if kept.command == "cancel" and class_id is not None:
            self.answer_cancel(class_id, errors.MALFORMED.number, error.message)
        if class_id is not None and class_id not in self.orders and kept.command == "order":
            self.answer_class(class_id, errors.MALFORMED.number, error.message)
            code = errors.MALFORMED
        self.alarm(code, labelled(class_id, error.message) if class_id else error.message, class_id=class_id)
        self.note("malformed", detail=error.message, class_id=class_id)
        self.table[-1] |= {"code": code.number, "where": ""}

    def waiting_key(self, order: Order) -> str:
        """The Redis list on which a class waits."""
        return self.settings.waiting_key.format(record_id=order.record_id, resolution=order.resolution)


def new_row(booking: Booking, order: Order, now: float) -> tuple[object, ...]:
    """The row of a new booking in the order of `NEW`; a refused one takes no stream."""
    streams = (None, None) if order.state is BookingState.REFUSED else (*booking.streams, None)[:2]
    return *_VALUES(order), to_json(order.message), *streams, now, now
