"""Which classes the cache takes, by what it holds and what the disk has room for; read in the caller's transaction."""

import math
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from flows.streamer.looks import Looked
from lectern.decide import admission as decide
from lectern.decide import cache as decide_cache
from lectern.decide.admission import Coming
from lectern.decide.cache import Admission, Admit, Bound
from lectern.effects.files import disk, store
from lectern.effects.files.promise import RemoteFile
from lectern.effects.rows import airings, cache
from lectern.errors import DISK_FULL, LecternError, Refuse
from lectern.facts import Cached, Needed, Usage
from lectern.messages import Prepare
from lectern.states import FileState
from lectern.streamer_changes import StreamerChanges


def decided(
    looked: Mapping[str, Looked],
    barred: Mapping[str, str],
    connection: Connection,
    changes: StreamerChanges,
    prepares: Sequence[Prepare],
) -> None:
    """Decide the classes of *prepares*, by what was *looked* up of their recordings; *barred* has bad push URLs."""
    class_ids = [one.class_id for one in prepares]
    known = airings.by_id(connection, class_ids)
    gone = airings.released_before(connection, class_ids)
    admit(connection, changes, decide.fresh(changes, prepares, known, gone, barred), looked)


def admit(
    connection: Connection, changes: StreamerChanges, new: Sequence[Prepare], looked: Mapping[str, Looked]
) -> None:
    """Decide the classes *new* in their order: each is cited, reserved for, or refused."""
    rows = cache.by_stem(connection, {one.stem for one in new})
    states = {stem: row.state for stem, row in rows.items()}
    here = {stem for stem, state in states.items() if state in (FileState.READY, FileState.DOWNLOADING)}
    wanted = decide.wanted(changes, new, here, _coming(changes, looked, {one.stem for one in new} - here))
    usage = cache.used(connection, changes.settings.video_root)
    bound = _bound(connection, changes, usage)
    coming = [one for one in wanted if one.stem not in here]
    idle = cache.idle(
        connection,
        but=here & {one.stem for one in wanted},
        size_bytes=sum(one.size_bytes for one in coming) + max(0, usage.size_bytes - bound.max_bytes),
        num=len(coming) + max(0, usage.num - bound.max_num),
    )
    admissions = decide_cache.admit(wanted, states, usage, bound, idle)
    if any(one.admit is Admit.FULL for one in admissions):
        needed = [*airings.needed(connection, changes.now), *_needed_by(new, admissions, rows)]
        admissions = decide_cache.told_when(admissions, bound, needed, changes.now)
    urls = {stem: remote.url for stem, remote in looked.items() if isinstance(remote, RemoteFile)}
    decide.take(changes, {one.class_id: one for one in new}, admissions, urls)
    # A class on air, or a broken one, still cites a recording that was lost and could not be had again.
    if changes.reserved:
        changes.cited.update(airings.citations(connection, changes.reserved))


def _needed_by(new: Sequence[Prepare], admissions: Sequence[Admission], rows: Mapping[str, Cached]) -> list[Needed]:
    """What the classes *new* that are admitted need; *rows* are the renditions that are here, by stem."""
    sizes = {stem: row.size_bytes for stem, row in rows.items()}
    sizes |= {one.wanted.stem: one.wanted.size_bytes for one in admissions if one.admit is Admit.RESERVE}
    mine = {one.wanted.class_id for one in admissions if one.admit is not Admit.FULL}
    return [Needed(one.stem, sizes[one.stem], one.end_time) for one in new if one.class_id in mine]


def _coming(
    changes: StreamerChanges, looked: Mapping[str, Looked], stems: set[str]
) -> dict[str, Coming | LecternError]:
    """What the origins say of the recordings that are not here; a recording without a known size is left out."""
    found: dict[str, Coming | LecternError] = {}
    for stem in stems & looked.keys():
        remote = looked[stem]
        if isinstance(remote, LecternError):
            found[stem] = remote
        elif remote.size_bytes is not None:
            part = store.part_path(changes.settings.video_root, stem)
            found[stem] = Coming(remote.size_bytes, remote.size_bytes - store.size_bytes(part))
    return found


def sized(connection: Connection, changes: StreamerChanges, before: Cached, size_bytes: int) -> None:
    """Make room for a download whose size nobody knew when it was asked for; its place is reserved already.

    The sweeper removes the files that are evicted for it. Raises Refuse with 316 if the download does not fit.
    """
    usage = cache.used(connection, changes.settings.video_root)
    others = Usage(usage.size_bytes - before.size_bytes, usage.num - 1)
    bound = _bound(connection, changes, usage)
    over_bytes = max(0, others.size_bytes + size_bytes - bound.max_bytes)
    idle = cache.idle(connection, but=[before.stem], size_bytes=over_bytes, num=max(0, others.num + 1 - bound.max_num))
    gone = decide_cache.evictions(size_bytes, others, bound, idle)
    if gone is None:
        why = decide_cache.no_room(before.stem, size_bytes, others, bound, idle)
        needed = [one for one in airings.needed(connection, changes.now) if one.stem != before.stem]
        at = decide_cache.next_place(size_bytes, bound, needed)
        raise Refuse(decide_cache.with_next_place(why, at, changes.now), DISK_FULL)
    changes.evict(gone)
    changes.resize(before, size_bytes)


def _bound(connection: Connection, changes: StreamerChanges, usage: Usage) -> Bound:
    settings = changes.settings
    room_bytes = _room_bytes(connection, changes, usage)
    by_disk = room_bytes < settings.max_bytes
    return Bound(min(settings.max_bytes, room_bytes), settings.max_video_num, by_disk=by_disk)


def _room_bytes(connection: Connection, changes: StreamerChanges, usage: Usage) -> int:
    """Bytes that the cache may have in all: those it has, and those that are free and not reserved for downloads."""
    root = changes.settings.video_root
    promised = sum(
        one.size_bytes - store.size_bytes(store.part_path(root, one.stem))
        for one in cache.downloading(connection, math.inf)
    )
    return max(0, usage.size_bytes + disk.free_bytes(root) - promised)
