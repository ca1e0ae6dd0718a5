"""The only writer of what flows have decided: writes all of it or nothing, in the caller's transaction."""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection

from lectern import formatting
from lectern.db import cache, events, inbox, leases, outbox, transcodings
from lectern.db.engine import delete_many, insert_many, update_many
from lectern.errors import ForbiddenMove
from lectern.i18n import Text, msgid, to_json
from lectern.model.plan import NEW, Changes, Increment, RowChange
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.shared import AnyTable
from lectern.model.tables.teacher import orders
from lectern.rendition_ids import stem
from lectern.wire.outgoing import Alarm

Names = tuple[str, ...]
"""The names of columns, in the order of their values."""


def write(connection: Connection, changes: Changes | StreamerChanges) -> None:
    """Write *changes*, all rows of a kind together."""
    now = changes.now
    if isinstance(changes, Changes):
        insert_many(connection, orders, NEW, changes.new())
    elif changes.reserved:
        cache.make_sums(connection, changes.settings.video_root)
    _rows(connection, changes.written())
    outbox.put(connection, changes.sends, now)
    for streamer, class_id, parts in changes.sent:
        events.keep_parts(connection, class_id, parts, streamer)
    if isinstance(changes, Changes):
        if changes.begun:
            transcodings.begin(connection, changes.begun, now)
        for key in changes.fell_back_to_ecs:
            transcodings.fall_back(connection, key, now)
        for story in changes.stories:
            events.keep_of(connection, story)
        events.number(connection, changes)
        events.put(connection, changes)
    elif changes.session is not None:
        leases.hold(connection, changes.settings.name, changes.session, now)
    events.note(connection, changes.settings.name, changes.notes, now)
    inbox.done(connection, [*changes.done, *changes.dead], now, changes.said, is_shown=changes.shown)
    for id_, error in changes.dead.items():
        inbox.dead(connection, id_, error)


def _rows(connection: Connection, changes: Sequence[RowChange]) -> None:
    """Write rows, one statement for all that change the same columns of a table in the same way."""
    alike: dict[tuple[AnyTable, Names, Names | None, Names | None], list[RowChange]] = defaultdict(list)
    for change in changes:
        before, after = change.before, change.after
        if after is not None and "message" in after:  # with its id and its values
            message = after["message"]
            after = {**after, "sentence": to_json(message) if isinstance(message, str) else None}
        names = None if after is None else tuple(after)
        if after is not None and Increment in map(type, after.values()):  # as `update_many` takes them
            names = tuple([f"+{name}" if isinstance(value, Increment) else name for name, value in after.items()])
        how = (*change.key,), None if before is None else (*before,), names
        alike[change.table, *how].append(RowChange(change.table, change.key, before, after))
    for (*_, names), row_changes in alike.items():
        _alike(connection, row_changes, names or ())


def _alike(connection: Connection, changes: Sequence[RowChange], names: Names) -> None:
    first, table, number = changes[0], changes[0].table, len(changes)
    which = tuple(first.key), tuple(first.before or ())
    known = [(*change.key.values(), *(change.before or {}).values()) for change in changes]
    new = [(*(change.after or {}).values(),) for change in changes]
    if first.before is None:
        if first.key:
            delete_many(connection, table, which, known)
        if first.after is not None:
            insert_many(connection, table, tuple(first.after), new)
        return
    if first.after is None:
        number = delete_many(connection, table, which, known)
    elif first.after:
        values = [after + before for after, before in zip(new, known, strict=True)]
        number = update_many(connection, table, which, names, values)
    if first.before and number != len(changes):
        rows = Text("{n} of {all} rows of {table}", n=len(changes) - number, all=len(changes), table=table.name)
        raise ForbiddenMove(rows, msgid("as they were read"), msgid("changed"))


def lines(changes: Changes | StreamerChanges) -> list[str]:
    """What a dry run prints, a line for each thing that *changes* would write; the text of a message may be secret."""
    booked = changes.new() if isinstance(changes, Changes) else ()
    new = [RowChange(orders, {}, None, dict(zip(NEW, row, strict=True))) for row in booked]
    found = [_in_a_line(change) for change in (*new, *changes.written())]
    if isinstance(changes, Changes):
        found += [f"class event: {event.class_id} {event.seq} {event.event}" for event in changes.class_events]
        found += [f"{made.stem}: {made.backend} transcoding, attempt {made.attempt}" for made in changes.begun]
        found += [f"{stem(*key)}: falls back to ECS" for key in changes.fell_back_to_ecs]
        found += [f"{story[0].class_id}: {len(story)} events on {story[0].host}" for story in changes.stories]
    elif changes.session:
        found.append(f"{changes.settings.name}: holds its lease")
    for name, class_id, parts in changes.sent:
        found.append(f"{class_id}: what {name or changes.settings.name} sent of it: {len(parts)} parts")
    for queued in changes.sends:
        message, code, about = queued.message, "", queued.class_id
        if isinstance(message, Alarm):
            code, about = f" {message.code}", message.class_id
        found.append(f"to {queued.target}: {message.cmd}{code}{f' {about}' if about else ''}")
    found += [f"event: {event.what} {event.class_id or event.stem or ''}".rstrip() for event in changes.notes]
    return [*found, *(f"inbox {id_}: done" for id_ in changes.done), *(f"inbox {id_}: dead" for id_ in changes.dead)]


SECRET = frozenset(
    {"payload", "booked", "stream", "backup_stream", "url", "push_url", "video_url", "source_url", "source"}
)
"""Columns that may hold the address or the key of a stream: their values are not printed."""


def _in_a_line(change: RowChange) -> str:
    """What is written of a row: each column with its value before, if that was read, and after."""
    name = f"{change.table.name} {' '.join(map(str, change.key.values()))}".rstrip()
    if change.after is None:
        return f"{name}: is deleted"
    old = change.before or {}
    columns: list[str] = []
    for column, value in change.after.items():
        before = f"{_shown(column, old[column])} -> " if column in old else ""
        if change.key or value is not None:
            columns.append(column if column in SECRET else f"{column}: {before}{_shown(column, value)}")
    return f"{name}: {'' if change.before is not None else 'new, '}{', '.join(columns)}"


def _shown(name: str, value: object) -> str:
    if isinstance(value, Increment):
        return f"{value:+,}"
    if isinstance(value, float) and not name.endswith(("_s", "size")):
        return formatting.moment(value)
    return "none" if value is None else str(value)
