"""Deletes old rows that are no longer needed, in slices, so that no writer waits long."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Connection, Table, delete, exists, func, select, true

from lectern.db.outbox import Telling
from lectern.model.tables import streamer as at_streamer
from lectern.model.tables import teacher as at_teacher
from lectern.states import BOOKING_OVER, BookingState, FileState, InboxState

OVER = (*BOOKING_OVER, BookingState.BROKEN)
SLICE = 1000
"""Number of rows that one transaction deletes."""

OLDEST = 5000
"""Number of the oldest rows of a large table, of those that are done, whose age is examined: examining all would take
longer each day."""


@dataclass(frozen=True)
class RetentionRule:
    """Rows of *table* that are *old*, and the rows of *others* that have the same key.

    Rows of a large table that are not *done* stay however old they are; they must not hide the rows behind them.
    """

    table: Table
    key: str
    old: ColumnElement[bool]
    others: tuple[Table, ...] = ()
    by: str = "id"  # the indexed column that orders rows by age; empty for a small table
    done: ColumnElement[bool] = field(default_factory=true)


@dataclass(frozen=True)
class RowsBefore:
    """Rows from before these times (epoch seconds) are deleted."""

    messages: float
    events: float
    classes: float
    as_run: float
    cancels: float


def of_teacher(before: RowsBefore) -> list[RetentionRule]:
    """The rules of a teacher: messages, events, incidents, moves, classes that are over; as-run rows last longest.

    Also teachers that are gone, and cancels for whose booking nobody waits any more; a sweep closes the other cancels.
    """
    orders, moves, as_runs = at_teacher.orders, at_teacher.moves, at_teacher.as_runs
    class_events, cancels, teachers = at_teacher.class_events, at_teacher.cancels, at_teacher.teachers
    # An expression: SQLite would search by the index of states, and sort all classes that are over.
    is_over = func.coalesce(orders.c.state, "").in_(OVER)
    is_old = (orders.c.end_time < before.classes) & (orders.c.updated_at < before.classes)

    def closed(table: Table, by: float) -> ColumnElement[bool]:
        """Selects rows whose class is over, also by its times, which may lie months ahead, or is not known."""
        goes_on = func.coalesce(orders.c.state, "").not_in(OVER) | (orders.c.end_time >= by)
        return ~exists().where(orders.c.class_id == table.c.class_id, goes_on)

    # The events of a class that is not over are counted on, and a streamer that comes back is told what was taken from
    # it: none of them goes.
    is_closed, is_kept = closed(class_events, before.events), closed(moves, before.messages)
    # Young rows count as examined, too: without them, each look would go through all that are kept.
    is_young, is_recent = class_events.c.at >= before.events, moves.c.moved_at >= before.messages
    # By this row a restart knows that the webhook is switched off.
    is_off = func.coalesce(at_teacher.journal.outbox.c.webhook, "") == Telling.GONE
    return [
        *_of_journal(before, may_go=~is_off),
        RetentionRule(orders, "class_id", is_over & is_old, by="start_time", done=is_over),
        RetentionRule(moves, "id", is_kept & ~is_recent, done=is_kept | is_recent),
        RetentionRule(as_runs, "id", as_runs.c.ends < before.as_run),
        RetentionRule(class_events, "id", is_closed & ~is_young & _has_newer(class_events), done=is_closed | is_young),
        RetentionRule(cancels, "class_id", (cancels.c.until <= before.cancels) & cancels.c.streamer.is_(None), by=""),
        RetentionRule(teachers, "name", teachers.c.seen_at < before.messages, by=""),
    ]


def of_streamer(before: RowsBefore) -> list[RetentionRule]:
    """The rules of a streamer: messages, events, incidents, classes and their old rows; as-run rows last longest.

    Rows of recordings that could not be fetched go, too: otherwise each bad URL ever booked would leave a row.
    """
    classes, as_runs, files = at_streamer.classes, at_streamer.as_runs, at_streamer.files
    is_over = classes.c.released_at < before.classes
    is_bad = (files.c.state == FileState.BAD) & (func.coalesce(files.c.update_time, 0) < before.classes)
    return [
        *_of_journal(before, may_go=true()),
        RetentionRule(classes, "class_id", is_over, (at_streamer.tasks,), by=""),
        RetentionRule(files, "id", is_bad, by=""),
        RetentionRule(as_runs, "id", as_runs.c.ends < before.as_run),
    ]


def _of_journal(before: RowsBefore, may_go: ColumnElement[bool]) -> list[RetentionRule]:
    journal = at_teacher.journal
    inbox, outbox, events, incidents = journal.inbox, journal.outbox, journal.events, journal.incidents
    is_handled, is_sent = inbox.c.state != InboxState.NEW, outbox.c.sent_at.is_not(None)
    is_told = (outbox.c.sent_at < before.messages) & may_go
    return [
        RetentionRule(
            inbox, "id", is_handled & (inbox.c.received_at < before.messages) & _has_newer(inbox), done=is_handled
        ),
        RetentionRule(outbox, "id", is_told & _has_newer(outbox), done=is_sent),
        RetentionRule(events, "id", events.c.at < before.events),
        RetentionRule(incidents, "id", incidents.c.resolved_at < before.events),
    ]


def _has_newer(table: Table) -> ColumnElement[bool]:
    """Selects all rows but the newest: SQLite would give its id, which others know, to another row."""
    newest = table.alias()
    return table.c.id < select(func.max(newest.c.id)).scalar_subquery()


def outdated(connection: Connection, rule: RetentionRule) -> list[object]:
    """Keys of the rows that are to be forgotten next, at most a slice; this only reads."""
    key = rule.table.c[rule.key]
    if not rule.by:
        return list(connection.execute(select(key).where(rule.old).limit(SLICE)).scalars())
    done = select(key, rule.old.label("is_old")).where(rule.done)
    oldest = done.order_by(rule.table.c[rule.by]).limit(OLDEST).subquery()
    wanted = select(oldest.c[rule.key]).where(oldest.c.is_old).limit(SLICE)
    return list(connection.execute(wanted).scalars())


def forget(connection: Connection, rule: RetentionRule, keys: Sequence[object]) -> int:
    """Delete the rows *keys* that are still old, and those of *others* with the same key; returns their number."""
    key = rule.table.c[rule.key]
    gone = list(connection.execute(select(key).where(key.in_(keys), rule.old)).scalars())
    for table in (rule.table, *rule.others):
        connection.execute(delete(table).where(table.c[rule.key].in_(gone)))
    return len(gone)
