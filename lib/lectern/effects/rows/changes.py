"""The one writer of what the teacher's flows have decided: all of it, or nothing, in the caller's transaction."""

from sqlalchemy import Connection

from lectern.changes import Changes
from lectern.effects.rows import as_run, bookings, cancels, events, inbox, leases, outbox, renditions
from lectern.effects.rows.tables.shared import Journal
from lectern.states import RenditionState


def write(connection: Connection, journal: Journal, changes: Changes) -> None:
    """Write *changes*; each kind of row in one statement."""
    now = changes.now
    bookings.insert_all(connection, [(one, changes.orders[id_]) for id_, one in changes.booked.items()], now)
    moved = {after.class_id for _, after in changes.moves}
    bookings.update_all(connection, [(one, now if one.class_id in moved else None) for one in changes.changed()])
    bookings.touch(connection, changes.told_again, now)
    bookings.warned(connection, changes.warned, now)
    _renditions(connection, changes)
    leases.note_moves(connection, changes.taken, now)
    for name, since in changes.lost.items():
        leases.note_lost(connection, name, since)
    for name in changes.leaseless:
        leases.take(connection, name)
    for claim in changes.granted:
        leases.grant(connection, claim, now)
    cancels.put(connection, changes.cancels, now)
    cancels.confirm(connection, changes.confirmed)
    cancels.booked(connection, changes.met)
    cancels.touch(connection, changes.cancels_told_again, now)
    for streamer, class_id, parts in changes.sent:
        as_run.keep_of(connection, streamer, class_id, parts)
    outbox.put(connection, journal, changes.sends, now)
    events.note(connection, journal, changes.settings.name, changes.notes, now)
    inbox.done(connection, journal, changes.done)
    for id_, error in changes.dead:
        inbox.dead(connection, journal, id_, error)


def _renditions(connection: Connection, changes: Changes) -> None:
    if changes.begun:
        renditions.begin(connection, changes.begun, changes.now)
    for one in changes.remade:
        lies = {"url": one.url} if one.new is RenditionState.SUCCESS else {"reason": one.reason}
        renditions.move(connection, one.key, one.old, one.new, changes.now, deadline=None, **lies)
    for key, deadline in changes.fallen:
        renditions.fall_back(connection, [key], deadline, changes.now)
