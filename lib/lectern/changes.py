"""What a flow of the teacher has decided, as one value: one writer commits it, one printer shows it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lectern import errors, outgoing
from lectern.decided import Decided
from lectern.errors import ErrorCode, Malformed
from lectern.facts import AsRun, Attempt, Kept, Order, RenditionKey
from lectern.messages import Booking, Message, Release
from lectern.outgoing import Kind, Outgoing
from lectern.settings import TeacherSettings
from lectern.states import BOOKING_MOVES, RENDITION_MOVES, BookingState, RenditionState, check_move
from lectern.stems import stem
from lectern.told import Past
from lectern.wire import BACKUP, called

MAX_DELIVERIES = 10
"""Greatest number of answers that a booking gets, however often it is delivered."""


@dataclass(frozen=True)
class Remade:
    """A rendition changes its state; *url* is where it is, *reason* why it will not be made."""

    key: RenditionKey
    old: RenditionState
    new: RenditionState
    url: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Taken:
    """A class is taken from its streamer, because the streamer is lost or drained, or has *refused* the class."""

    class_id: str
    streamer: str
    placement: int
    refused: bool


@dataclass(frozen=True)
class CancelTold:
    """*streamer* is told to release a class until it confirms; without a streamer, the cancel waits for its booking."""

    class_id: str
    streamer: str | None
    until: float


@dataclass(frozen=True)
class Granted:
    """A streamer holds its lease under *session*, for *lease_s* seconds after each heartbeat."""

    streamer: str
    session: str
    lease_s: float


@dataclass
class Changes(Decided[TeacherSettings]):
    """What a flow of the teacher has decided; nothing of it happens before it is committed."""

    drained: Sequence[str] = ()  # streamers that are there and take no classes, because they are drained
    orders: dict[str, Order] = field(default_factory=dict)  # bookings as they will be
    booked: dict[str, Booking] = field(default_factory=dict)  # new bookings
    moves: list[tuple[Order, Order]] = field(default_factory=list)  # before and after
    again: set[str] = field(default_factory=set)  # classes that were delivered again, otherwise unchanged
    revised: list[tuple[Order, Booking]] = field(default_factory=list)  # each class as it will be, and its new booking
    revisions: dict[str, list[str]] = field(default_factory=dict)  # ids of the known revisions, by class
    begun: list[Attempt] = field(default_factory=list)
    remade: list[Remade] = field(default_factory=list)
    fallen: list[tuple[RenditionKey, float]] = field(default_factory=list)  # to ECS, until this deadline
    taken: list[Taken] = field(default_factory=list)
    cancels: list[CancelTold] = field(default_factory=list)
    confirmed: list[tuple[str, str]] = field(default_factory=list)  # class, and the streamer that confirmed its cancel
    sent: list[tuple[str, str, list[AsRun]]] = field(default_factory=list)  # streamer, class, and the parts it sent
    stories: list[list[Past]] = field(default_factory=list)  # what happened to a class on its streamer
    met: list[str] = field(default_factory=list)  # bookings whose cancel arrived before them
    told_again: list[str] = field(default_factory=list)  # classes whose streamer is told again what to prepare
    cancels_told_again: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)  # classes that have waited too long
    lost: dict[str, float | None] = field(default_factory=dict)  # streamers, and since when they are lost
    leaseless: list[str] = field(default_factory=list)  # streamers whose lease is taken away
    withdrawn: list[str] = field(default_factory=list)  # streamers that the old program has again
    granted: list[Granted] = field(default_factory=list)
    # done after the commit
    joins: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # waiting lists in Redis
    leaves: list[tuple[str, str]] = field(default_factory=list)
    transcoded: list[tuple[str, str]] = field(default_factory=list)  # backend and outcome, for the metrics

    def no_streamer(self) -> str:
        """Why no streamer can take a class."""
        if not self.drained:
            return "no streamer was heard of lately"
        return (
            f"no streamer takes classes: {', '.join(self.drained)} {'is' if len(self.drained) == 1 else 'are'} drained"
        )

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
        after = order.as_booked(booking, url)
        self.revised.append((after, booking))
        self.orders[order.class_id] = after
        return after

    def move(self, order: Order, state: BookingState, code: int = 0, message: str = "", **more: Any) -> Order:  # noqa: ANN401 (fields of an order)
        """Move a class to *state*; raises ForbiddenMove if the tables have no such move. Returns it as it is then."""
        check_move(BOOKING_MOVES, order.class_id, order.state, state)
        new = {"state": state, "code": code, "message": message, **more}
        assert new.keys() <= vars(order).keys(), new
        after = object.__new__(Order)  # `dataclasses.replace` would take as long as the rest of a decision
        vars(after).update(vars(order), **new)
        self.moves.append((order, after))
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
        self.orders[order.class_id] = replace(order, deliveries=min(order.deliveries + 1, MAX_DELIVERIES))
        self.again.add(order.class_id)

    def refuse(self, order: Order, code: ErrorCode, why: str, *, alarm: bool = False) -> None:
        """Refuse a class with *code*, and answer the platform as many times as the class was booked."""
        # Only a change can be refused after its streamer was ready: it is not in force before it is applied.
        was_ready = order.revises is not None and order.state is BookingState.READY
        self.move(order, BookingState.CANCELLED if was_ready else BookingState.REFUSED, code.number, why)
        self.answer(order, code.number, why, order.deliveries)
        if alarm and order.revises is None:
            self.alarm(code, f"{order.class_id}: {why}", order)
        elif alarm:
            self.alarm(code, f"{order.revises}: its change is refused: {why}", order)
        if order.revises is None:
            self.note("refused", order, f"{code.number}: {why}")
        else:
            self.note("change refused", class_id=order.revises, detail=f"{code.number}: {why}")
        self.row(order.class_id, "refuse", code=code.number, detail=why)

    # -- a rendition ---------------------------------------------------------------------------------------------------

    def remake(self, made: Remade) -> None:
        """Move a rendition to another state; raises ForbiddenMove if the tables have no such move."""
        check_move(RENDITION_MOVES, stem(*made.key), made.old, made.new)
        self.remade.append(made)

    # -- what is said --------------------------------------------------------------------------------------------------

    def answer(self, order: Order, code: int, why: str, times: int = 1) -> None:
        """Answer a booking to the platform; for a revision, answer the change that asked for it."""
        if order.revises is not None:
            self.answer_change(order.revises, code, why, times)
            return
        self.answer_class(order.class_id, code, why, order.streamer, times)

    def answer_class(self, class_id: str, code: int, why: str, streamer: str | None = None, times: int = 1) -> None:
        """Answer a booking, whether or not the class is known here."""
        said = outgoing.answer(class_id, code, why, streamer)
        self.sends += [Outgoing(self.settings.order_result_channel, Kind.CHANNEL, said, class_id)] * times

    def refuse_another(self, class_id: str, code: int, why: str) -> None:
        """Refuse another booking of a booked class; this does not count as the answer to the first one."""
        said = outgoing.answer(class_id, code, why)
        self.sends.append(Outgoing(self.settings.order_result_channel, Kind.CHANNEL, said))

    def answer_change(self, class_id: str, code: int, why: str, times: int = 1) -> None:
        """Answer a change to the platform; a second airing changes with its class, and gets no answer of its own."""
        if not class_id.endswith(BACKUP):
            said = outgoing.change_answer(class_id, code, why)
            self.sends += [Outgoing(self.settings.change_result_channel, Kind.CHANNEL, said, class_id)] * times

    def alarm(self, code: ErrorCode, said: str, about: Order | None = None, **named: Any) -> None:  # noqa: ANN401 (fields of an alarm)
        """Raise an alarm; *about* is the class that is in danger."""
        if about is not None:
            named |= {"class_id": called(about.class_id), "record_id": about.record_id, "resolution": about.resolution}
        self.raise_alarm(code, said, **named)

    def tell(self, streamer: str, message: Message, class_id: str | None) -> None:
        """Send *message* to a streamer."""
        target = self.settings.streamer_stream.format(name=streamer)
        self.sends.append(Outgoing(target, Kind.STREAM, message, class_id))

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

    def bury(self, kept: Kept, error: Malformed) -> None:
        """Send a malformed message to the dead letters, with an alarm; answer 400 if its class is readable and new."""
        class_id, code = error.class_id, errors.DEAD_LETTER
        if kept.command == "change" and class_id is not None:
            self.answer_change(class_id, errors.MALFORMED.number, error.message)
        if class_id is not None and class_id not in self.orders and kept.command == "order":
            self.answer_class(class_id, errors.MALFORMED.number, error.message)
            code = errors.MALFORMED
        self.to_dead_letters(kept, error.message)
        self.alarm(code, f"{class_id}: {error.message}" if class_id else error.message, class_id=class_id)
        self.note("malformed", detail=error.message, class_id=class_id)
        self.row(class_id or "?", "malformed", code=code.number, detail=error.message)

    def waiting_key(self, order: Order) -> str:
        """The Redis list on which a class waits."""
        return self.settings.waiting_key.format(record_id=order.record_id, resolution=order.resolution)
