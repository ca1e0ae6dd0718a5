"""The only writer of what flows have decided: writes all of it or nothing, in the caller's transaction."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection, delete

from lectern.db import as_run, cache, class_events, events, inbox, leases, outbox, transcodings
from lectern.db.bulk import bind_list, delete_many, in_list, insert_many, update_many
from lectern.errors import ForbiddenMove
from lectern.i18n import Text, msgid, to_json
from lectern.model.plan import Changes, Decided, Increment, RowChange
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.shared import MessageTables
from lectern.model.tables.streamer import classes, tasks
from lectern.settings import StreamerSettings, TeacherSettings

_REPLACED = {table: delete(table).where(in_list(table.c.class_id)) for table in (tasks, classes)}


def write(
    connection: Connection, journal: MessageTables, changes: Decided[TeacherSettings] | Decided[StreamerSettings]
) -> None:
    """Write *changes*, all rows of a kind together."""
    if isinstance(changes, StreamerChanges) and changes.reserved:
        cache.usage(connection, changes.settings.video_root)  # makes the row of the sums if there is none
    for table, names, rows in changes.new():
        if table in _REPLACED and rows:  # rows of an earlier placement of these classes
            connection.execute(_REPLACED[table], bind_list(row[0] for row in rows))
        insert_many(connection, table, names, rows)
    _rows(connection, changes.written())
    if isinstance(changes, Changes):
        _renditions(connection, journal, changes)
    elif isinstance(changes, StreamerChanges):
        for class_id, parts in changes.sent:
            as_run.keep(connection, class_id, parts)
        if changes.session is not None:
            leases.hold(connection, changes.settings.name, changes.session, changes.now)
    now = changes.now
    outbox.put(connection, journal, changes.sends, now)
    if isinstance(changes, Changes):
        class_events.number(connection, changes)
        class_events.put(connection, journal, changes.settings.class_event_channel, changes.class_events, now)
    events.note(connection, journal, changes.settings.name, changes.notes, now)
    handling = inbox.Handling(now, changes.said, changes.shown)
    inbox.done(connection, journal, changes.done, handling)
    for id_, error in changes.dead:
        inbox.dead(connection, journal, id_, error, handling)


def _rows(connection: Connection, changes: Sequence[RowChange]) -> None:
    """Write rows, one statement for all that change the same columns of a table in the same way."""
    alike: dict[tuple[object, ...], list[RowChange]] = defaultdict(list)
    for change in map(_with_sentence, changes):
        before, after = change.before, change.after
        how = None if before is None else (*before,), None if after is None else _names(after)
        alike[change.table, (*change.key,), *how].append(change)
    for row_changes in alike.values():
        _alike(connection, row_changes)


def _with_sentence(change: RowChange) -> RowChange:
    """*change*, which also writes the id and the values of the message that it writes."""
    after = change.after
    if after is None or "message" not in after:
        return change
    message = after["message"]
    return replace(change, after={**after, "sentence": to_json(message) if isinstance(message, str) else None})


def _alike(connection: Connection, changes: Sequence[RowChange]) -> None:
    first, number = changes[0], len(changes)
    table, key = first.table, tuple(first.key)
    if first.before is None:
        if key:
            delete_many(connection, table, (key, ()), [(*change.key.values(),) for change in changes])
        if first.after is not None:
            insert_many(
                connection, table, tuple(first.after), [(*(change.after or {}).values(),) for change in changes]
            )
        return
    which = key, tuple(first.before)
    if first.after is None:
        values = [(*change.key.values(), *(change.before or {}).values()) for change in changes]
        number = delete_many(connection, table, which, values)
    elif first.after:
        values = [
            (*(change.after or {}).values(), *change.key.values(), *(change.before or {}).values())
            for change in changes
        ]
        number = update_many(connection, table, which, _names(first.after), values)
    if first.before and number != len(changes):
        rows = Text("{n} of {all} rows of {table}", n=len(changes) - number, all=len(changes), table=table.name)
        raise ForbiddenMove(rows, msgid("as they were read"), msgid("changed"))


def _names(after: Mapping[str, object]) -> tuple[str, ...]:
    """The columns of *after* as `update_many` takes them."""
    if Increment not in map(type, after.values()):
        return tuple(after)
    return tuple([f"+{name}" if isinstance(value, Increment) else name for name, value in after.items()])


def _renditions(connection: Connection, journal: MessageTables, changes: Changes) -> None:
    if changes.begun:
        transcodings.begin(connection, changes.begun, changes.now)
    for key, deadline in changes.fell_back_to_ecs:
        transcodings.fall_back(connection, [key], deadline, changes.now)
    for streamer, class_id, parts in changes.sent:
        as_run.keep_of(connection, streamer, class_id, parts)
    for story in changes.stories:
        events.keep_of(connection, journal, story)
