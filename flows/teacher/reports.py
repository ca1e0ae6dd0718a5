"""The streamers' reports: a prepared class is answered, an aired one is closed."""

import time
from collections import Counter
from collections.abc import Sequence

from prefect import flow
from prefect.client.schemas.objects import State
from sqlalchemy import Connection

from flows import show
from flows.batch import FAILED, Batch, apart, summary
from flows.host import NOWHERE, teacher
from flows.teacher.verdicts import Teacher, answer, bury, living, place_again, put_back, refuse
from flows.tell import tell
from lectern import errors, outgoing
from lectern.commands import parse
from lectern.effects.rows import bookings, cancels, events, inbox, outbox
from lectern.effects.rows.bookings import Outcome
from lectern.errors import Malformed, TryAgain
from lectern.facts import Event, Order
from lectern.messages import Report
from lectern.outgoing import Outgoing
from lectern.states import BookingState


@flow(name="report", persist_result=False, result_storage=NOWHERE)
async def report(inbox_ids: str) -> State[None]:
    """Answer the bookings that a streamer has prepared or could not, and close those that were aired."""
    host, ids = teacher(), inbox.ids_of(inbox_ids)
    try:
        alive = await living(host)
    except TryAgain as error:
        return await put_back(host, ids, error)
    found = await apart(ids, lambda some: host.commit(_take_reports, host, some, alive))
    batch = Batch()
    for portion in found.done:
        batch.add(portion)
    for inbox_id, why in found.failed:
        batch.row(f"inbox {inbox_id}", FAILED, detail=why)
    await tell(host)
    await show.table("report-batch", batch.table, "What the streamers reported")
    return found.state(summary(batch.table), len(ids))


def _take_reports(connection: Connection, host: Teacher, ids: Sequence[int], alive: list[str]) -> Batch:
    now = time.time()
    batch = Batch()
    reports: list[Report] = []
    handled: list[int] = []
    for one in inbox.read(connection, host.journal, ids):
        try:
            reports.append(parse(one.body, (Report,)))
            handled.append(one.id)
        except Malformed as error:
            bury(connection, host, one, error, batch, now)
    orders = bookings.by_id(connection, [said.class_id for said in reports])
    number = Counter(said.class_id for said in reports)
    ready: list[tuple[Order, Report]] = []
    for said in reports:
        order = orders.get(said.class_id)
        if number[said.class_id] == 1 and order is not None and _gets_ready(order, said):
            ready.append((order, said))
    _ready(connection, host, ready, batch, now)
    plain = {said.class_id for _, said in ready}
    for said in reports:
        if said.class_id not in plain:
            _take_report(connection, host, said, alive, batch, now)
    inbox.done(connection, host.journal, handled)
    return batch


def _is_from(order: Order, said: Report) -> bool:
    """Whether the streamer that has the class says it; a row of before the moves has no placement, and one streamer."""
    return (order.streamer, max(order.placement, 1)) == (said.streamer, said.placement)


def _gets_ready(order: Order, said: Report) -> bool:
    """What nearly all reports are: these are taken in sets."""
    prepared = (said.cmd, said.result) == ("prepared", "success")
    return prepared and order.state is BookingState.PLACED and _is_from(order, said)


def _take_report(
    connection: Connection, host: Teacher, said: Report, alive: list[str], batch: Batch, now: float
) -> None:
    order = bookings.by_id(connection, [said.class_id]).get(said.class_id)
    if said.cmd == "ended" and cancels.confirmed(connection, said.class_id, said.streamer):
        batch.row(said.class_id, "cancel confirmed", where=said.streamer)
        noted = Event("cancel confirmed", said.class_id, detail=f"{said.streamer}: {said.message}")
        events.note(connection, host.journal, host.settings.name, [noted], now)
    elif order is None or not _is_from(order, said):
        batch.row(said.class_id, "report of a class that is not there", where=said.streamer)
    elif said.cmd == "prepared" and _is_news(order, said):
        _prepared(connection, host, order, said, alive, batch, now)
    elif said.cmd == "ended" and order.state in ENDING:
        if order.state is BookingState.PLACED:  # two runs take reports side by side: the last word came first
            _ready(connection, host, [(order, said)], batch, now)
            order = bookings.by_id(connection, [said.class_id])[said.class_id]
        _ended(connection, host, order, said, batch, now)
    else:
        batch.row(order.class_id, f"{said.cmd} of a class that is {order.state}", where=said.streamer)


def _is_news(order: Order, said: Report) -> bool:
    """Whether a streamer says how it goes with a class that it was given, or that it lost one that was ready."""
    return order.state is BookingState.PLACED or (order.state is BookingState.READY and said.result != "success")


ENDING = frozenset({BookingState.PLACED, BookingState.READY, BookingState.BROKEN})
"""States in which a class may end on its streamer."""


def _prepared(
    connection: Connection, host: Teacher, order: Order, said: Report, alive: list[str], batch: Batch, now: float
) -> None:
    if said.result == "success":
        _ready(connection, host, [(order, said)], batch, now)
    elif order.promised_at is not None or order.state is BookingState.READY:
        why = f"{said.streamer}: {said.code} {said.message}"
        place_again(connection, host, [order], alive, batch, now, why, refused=True)
    else:
        code = errors.CODES.get(said.code, errors.DOWNLOAD_FAILED)
        refuse(connection, host, order, code, said.message, batch, now, alarm=True)


def _ready(
    connection: Connection, host: Teacher, ready: Sequence[tuple[Order, Report]], batch: Batch, now: float
) -> None:
    outcomes = [Outcome(order, BookingState.READY, message=said.message) for order, said in ready]
    bookings.close_all(connection, outcomes, now)
    answers: list[Outgoing] = []
    noted: list[Event] = []
    for order, said in ready:
        batch.row(order.class_id, "ready", where=said.streamer)
        what = "prepared anew"
        if order.promised_at is None:
            answers += [answer(host, order, 0, "prepared")] * order.deliveries
            what = "answered with success"
        noted.append(_event(order, what, said))
    bookings.promise(connection, [order.class_id for order, _ in ready if order.promised_at is None], now)
    outbox.put(connection, host.journal, answers, now)
    events.note(connection, host.journal, host.settings.name, noted, now)


def _ended(connection: Connection, host: Teacher, order: Order, said: Report, batch: Batch, now: float) -> None:
    code = errors.CODES.get(said.code, errors.AIRING_BROKEN)
    state = BookingState.BROKEN
    if said.result == "success":
        state = BookingState.AIRED
    elif code is errors.CANCELLED:
        state = BookingState.CANCELLED  # by a person, in the UI
    bookings.close(connection, order, state, now, code=said.code, message=said.message)
    if state is BookingState.BROKEN:
        cry = outgoing.alarm(
            code,
            f"{order.class_id}: {said.message}",
            now,
            host.settings.name,
            class_id=order.class_id,
            record_id=order.record_id,
        )
        outbox.put(connection, host.journal, [host.alarm(cry)], now)
    batch.row(order.class_id, state, where=said.streamer, code=said.code, detail=said.message)
    events.note(connection, host.journal, host.settings.name, [_event(order, state, said)], now)


def _event(order: Order, what: str, said: Report) -> Event:
    return Event(what, order.class_id, order.stem, f"{said.streamer}: {said.message}".rstrip(": "))
