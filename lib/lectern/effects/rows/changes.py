"""The only writer of what flows have decided: writes all of it or nothing, in the caller's transaction."""

from sqlalchemy import Connection

from lectern.changes import Changes
from lectern.decided import Decided
from lectern.effects import counters
from lectern.effects.files import store
from lectern.effects.rows import (
    airings,
    as_run,
    bookings,
    cache,
    cancels,
    events,
    inbox,
    leases,
    outbox,
    renditions,
    revisions,
)
from lectern.model.tables.shared import Journal
from lectern.settings import StreamerSettings, TeacherSettings
from lectern.states import RenditionState
from lectern.streamer_changes import StreamerChanges


def write(
    connection: Connection, journal: Journal, changes: Decided[TeacherSettings] | Decided[StreamerSettings]
) -> None:
    """Write *changes*, all rows of a kind together."""
    if isinstance(changes, Changes):
        _bookings(connection, changes)
        _renditions(connection, changes)
        _streamers(connection, journal, changes)
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


# -- the teacher's -----------------------------------------------------------------------------------------------------


def _bookings(connection: Connection, changes: Changes) -> None:
    """Write bookings and their cancels."""
    now = changes.now
    bookings.insert_all(connection, [(one, changes.orders[id_]) for id_, one in changes.booked.items()], now)
    moved = dict.fromkeys(after.class_id for _, after in changes.moves)
    known = [one for one in moved | dict.fromkeys(sorted(changes.again)) if one not in changes.booked]
    if changes.revised:
        revisions.write(connection, changes.revised, now)
    bookings.update_all(connection, [(changes.orders[one], now if one in moved else None) for one in known])
    if changes.told_again:
        bookings.touch(connection, changes.told_again, now)
    if changes.warned:
        bookings.warned(connection, changes.warned, now)
    if changes.cancels:
        cancels.put(connection, changes.cancels, now)
    if changes.confirmed:
        cancels.confirm(connection, changes.confirmed)
    if changes.met:
        cancels.booked(connection, changes.met)
    if changes.cancels_told_again:
        cancels.touch(connection, changes.cancels_told_again, now)


def _renditions(connection: Connection, changes: Changes) -> None:
    if changes.begun:
        renditions.begin(connection, changes.begun, changes.now)
    for one in changes.remade:
        lies = {"url": one.url} if one.new is RenditionState.SUCCESS else {"reason": one.reason}
        renditions.move(connection, one.key, one.old, one.new, changes.now, deadline=None, **lies)
    for key, deadline in changes.fallen:
        renditions.fall_back(connection, [key], deadline, changes.now)


def _streamers(connection: Connection, journal: Journal, changes: Changes) -> None:
    now = changes.now
    if changes.taken:
        leases.note_moves(connection, changes.taken, now)
    for name, since in changes.lost.items():
        leases.note_lost(connection, name, since)
    for name in changes.leaseless:
        leases.take(connection, name)
    for name in changes.withdrawn:
        leases.withdraw(connection, name, now)
    for claim in changes.granted:
        leases.grant(connection, claim, now)
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
