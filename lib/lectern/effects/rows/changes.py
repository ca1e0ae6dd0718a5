"""The only writer of what flows have decided: writes all of it or nothing, in the caller's transaction."""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection

from lectern.changes import NEW, Changes
from lectern.decided import Decided, RowChange
from lectern.effects import counters
from lectern.effects.files import store
from lectern.effects.rows import (
    airings,
    as_run,
    cache,
    events,
    inbox,
    leases,
    outbox,
    renditions,
)
from lectern.effects.rows.many import delete_many, insert_many, update_many
from lectern.errors import ForbiddenMove
from lectern.model.tables.shared import Journal
from lectern.model.tables.teacher import orders
from lectern.settings import StreamerSettings, TeacherSettings
from lectern.streamer_changes import StreamerChanges


def write(
    connection: Connection, journal: Journal, changes: Decided[TeacherSettings] | Decided[StreamerSettings]
) -> None:
    """Write *changes*, all rows of a kind together."""
    if isinstance(changes, Changes):
        insert_many(connection, orders, NEW, changes.new())
    _rows(connection, changes.written())
    if isinstance(changes, Changes):
        _renditions(connection, journal, changes)
    elif isinstance(changes, StreamerChanges):
        _cache(connection, changes)
        _airings(connection, changes)
    now = changes.now
    outbox.put(connection, journal, changes.sends, now)
    events.note(connection, journal, changes.settings.name, changes.notes, now)
    handling = inbox.Handling(now, changes.said, changes.shown)
    inbox.done(connection, journal, changes.done, handling)
    for id_, error in changes.dead:
        inbox.dead(connection, journal, id_, error, handling)


def _rows(connection: Connection, changes: Sequence[RowChange]) -> None:
    """Write rows, one statement for all that change the same columns of a table in the same way."""
    alike: dict[tuple[object, ...], list[RowChange]] = defaultdict(list)
    for one in changes:
        before, after = one.before, one.after
        how = None if before is None else (*before,), None if after is None else (*after,)
        alike[one.table, (*one.key,), *how].append(one)
    for some in alike.values():
        _alike(connection, some)


def _alike(connection: Connection, some: Sequence[RowChange]) -> None:
    first, number = some[0], len(some)
    table, key = first.table, tuple(first.key)
    if first.before is None:
        if key:
            delete_many(connection, table, (key, ()), [(*one.key.values(),) for one in some])
        if first.after is not None:
            insert_many(connection, table, tuple(first.after), [(*(one.after or {}).values(),) for one in some])
        return
    which = key, tuple(first.before)
    if first.after is None:
        its = [(*one.key.values(), *(one.before or {}).values()) for one in some]
        number = delete_many(connection, table, which, its)
    elif first.after:
        its = [(*(one.after or {}).values(), *one.key.values(), *(one.before or {}).values()) for one in some]
        number = update_many(connection, table, which, tuple(first.after), its)
    if first.before and number != len(some):
        raise ForbiddenMove(f"{len(some) - number} of {len(some)} rows of {table.name}", "as they were read", "changed")


def _renditions(connection: Connection, journal: Journal, changes: Changes) -> None:
    if changes.begun:
        renditions.begin(connection, changes.begun, changes.now)
    for key, deadline in changes.fallen:
        renditions.fall_back(connection, [key], deadline, changes.now)
    for streamer, class_id, parts in changes.sent:
        as_run.keep_of(connection, streamer, class_id, parts)
    for story in changes.stories:
        events.keep_of(connection, journal, story)


# -- a streamer's ------------------------------------------------------------------------------------------------------


def _cache(connection: Connection, changes: StreamerChanges) -> None:
    root, now = changes.settings.video_root, changes.now
    if changes.reserved:
        cache.usage(connection, root)  # makes the row of the sums if there is none
    if changes.evicted:
        cache.mark_evicting(connection, root, changes.evicted)
        counters.EVICTIONS.inc(len(changes.evicted))
    for before in changes.lost:
        cache.lose(connection, root, before)
    for room in changes.reserved:
        cache.reserve(connection, root, room, now)
    for before, size_bytes in changes.resized:
        cache.resize(connection, root, before, size_bytes)
    for file in changes.arrived:
        cache.arrived(connection, root, file, now)
        counters.DOWNLOAD_BYTES.inc(file.size_bytes)
    for before, why in changes.failed:
        cache.failed(connection, root, before, why)
    for stem, number in changes.cited.items():
        cache.cite(connection, stem, number, now)


def _airings(connection: Connection, changes: StreamerChanges) -> None:
    root, now = changes.settings.video_root, changes.now
    sites = {one.wanted.stem: str(store.rendition_path(root, one.wanted.stem)) for one in changes.admitted}
    airings.add_all(connection, [(one, sites[one.wanted.stem]) for one in changes.admitted], now)
    for class_id, placement in changes.placed:
        airings.place(connection, class_id, placement)
    for one, revision in changes.amended:
        airings.take_over(connection, one, revision, now)
    airings.wait(connection, changes.unconfirmed, now)
    airings.wait(connection, changes.settled, None)
    for before, after in changes.moves:
        airings.move(connection, before, after, now)
    for one in changes.given_up:
        airings.give_up(connection, one, now)
    for class_id, up_to in changes.released_early:
        airings.note_released(connection, class_id, up_to, now)
    for class_id in changes.taken_away:
        airings.taken_away(connection, class_id)
    for class_id, parts in changes.sent:
        as_run.keep(connection, class_id, parts)
    for missing_s in changes.missing_s:
        counters.MISSING.observe(missing_s)
    if changes.session is not None:
        leases.hold(connection, changes.settings.name, changes.session, now)
