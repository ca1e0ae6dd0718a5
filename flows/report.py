"""The streamers' reports: a prepared class is answered, an aired one is closed."""

import time

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from sqlalchemy import Connection

from flows import artifacts
from flows.host import run_name, teacher, tell
from flows.outcome import Batch, Teacher, bury, give_answer, refuse, summary
from lectern import errors
from lectern.effects import bookings, events, inbox, outbox
from lectern.effects.bookings import Order
from lectern.effects.events import Event
from lectern.errors import Malformed
from lectern.messages import Report, parse
from lectern.states import BookingState


@flow(name="report", flow_run_name=run_name, persist_result=False)
async def report(inbox_ids: list[int]) -> State[None]:
    """Answer the bookings that a streamer has prepared or could not, and close those that were aired."""
    host = teacher()
    batch = await host.commit(_take_reports, host, inbox_ids)
    await tell(host)
    await artifacts.table("report-batch", batch.table, "What the streamers reported")
    return Completed(message=summary(batch.table))


def _take_reports(connection: Connection, host: Teacher, ids: list[int]) -> Batch:
    now = time.time()
    batch = Batch()
    kept = inbox.read(connection, host.journal, ids)
    for one in kept:
        try:
            said = parse(one.body, (Report,))
        except Malformed as error:
            bury(connection, host, one, error, batch, now)
            continue
        order = bookings.by_id(connection, [said.class_id]).get(said.class_id)
        _take_report(connection, host, said, order, batch, now)
        inbox.done(connection, host.journal, [one.id])
    return batch


def _take_report(
    connection: Connection, host: Teacher, said: Report, order: Order | None, batch: Batch, now: float
) -> None:
    code = errors.CODES.get(said.code)
    ours = order is not None and order.streamer == said.streamer
    if order is None or not ours:
        batch.row(said.class_id, "report of a class that is not there", where=said.streamer)
    elif said.cmd == "prepared" and order.state is BookingState.PLACED:
        if said.result == "success":
            bookings.close(connection, order, BookingState.READY, now, message=said.message)
            give_answer(connection, host, order, 0, said.message or "prepared", now)
            batch.row(order.class_id, "ready", where=said.streamer)
            _noted(connection, host, order, "answered with success", said, now)
        else:
            refuse(connection, host, order, code or errors.DOWNLOAD_FAILED, said.message, batch, now, alarm=True)
    elif said.cmd == "ended" and order.state in {BookingState.READY, BookingState.BROKEN}:
        state = BookingState.AIRED if said.result == "success" else BookingState.BROKEN
        bookings.close(connection, order, state, now, code=said.code, message=said.message)
        if state is BookingState.BROKEN:
            cry = bookings.alarm(
                code or errors.AIRING_BROKEN,
                f"{order.class_id}: {said.message}",
                now,
                host.settings.name,
                class_id=order.class_id,
                record_id=order.record_id,
            )
            outbox.put(connection, host.journal, [host.alarm(cry)], now)
        batch.row(order.class_id, state, where=said.streamer, code=said.code, detail=said.message)
        _noted(connection, host, order, state, said, now)
    else:
        batch.row(order.class_id, f"{said.cmd} of a class that is {order.state}", where=said.streamer)


def _noted(connection: Connection, host: Teacher, order: Order, what: str, said: Report, now: float) -> None:
    event = Event(what, order.class_id, order.stem, f"{said.streamer}: {said.message}".rstrip(": "))
    events.note(connection, host.journal, host.settings.name, [event], now)
