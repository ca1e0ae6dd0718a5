"""What the command line shows of a host's database."""

import time
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, case, func, select

from lectern.effects.files import store
from lectern.effects.rows import bookings, cache, inbox, incidents, outbox, renditions
from lectern.effects.rows.tables import teacher as teacher_tables
from lectern.effects.rows.tables.engine import transaction
from lectern.errors import Misuse
from lectern.facts import Idle
from lectern.states import BookingState, FileState

Role = Literal["teacher", "streamer"]


def of_teacher(engine: Engine, now: float) -> dict[str, Any]:
    """Bookings by state, renditions by status and those under way, what waits in the inbox and outbox."""
    journal = teacher_tables.journal
    with transaction(engine) as connection:
        oldest = outbox.oldest_unsent(connection, journal)
        waiting = bookings.oldest_waiting(connection)
        return {
            "bookings": dict(bookings.counts(connection)),
            "oldest_waiting": None if waiting is None else {"class_id": waiting[0], "s": round(now - waiting[1], 1)},
            "incidents": incidents.open_now(connection, journal),
            "renditions": dict(renditions.counts(connection)),
            "under_way": [
                {
                    "rendition": one.stem,
                    "backend": one.backend,
                    "attempt": one.attempt,
                    "slack_s": None if one.deadline is None else round(one.deadline - now, 1),
                }
                for one in renditions.under_way(connection)
            ],
            "inbox": inbox.waiting(connection, journal),
            "oldest_unsent_s": None if oldest is None else round(now - oldest, 1),
        }


def by_hour(connection: Connection, since: float, hours: int) -> list[tuple[int, BookingState, int]]:
    """How many bookings came in which of the *hours* since *since* (epoch seconds), and to what they came."""
    orders = teacher_tables.orders
    came = orders.c.received_at
    hour = case(*((came < since + 3600 * (one + 1), one) for one in range(hours)), else_=hours)
    wanted = select(hour, orders.c.state, func.count()).where(came >= since).group_by(hour, orders.c.state)
    return [(int(at), BookingState(state), int(number)) for at, state, number in connection.execute(wanted)]


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""

    def counted(name: str) -> str:
        return ", ".join(f"{number} {state}" for state, number in sorted(found[name].items())) or "none"

    said = [f"bookings    {counted('bookings')}", f"renditions  {counted('renditions')}"]
    said += [
        f"  {one['rendition']}: {one['backend']}, attempt {one['attempt']}, {one['slack_s']} s to its deadline"
        for one in found["under_way"]
    ]
    if found["oldest_waiting"]:
        waiting = found["oldest_waiting"]
        said.append(f"waiting     the oldest is {waiting['class_id']}, for {waiting['s']} s")
    for one in found["incidents"]:
        lately = time.strftime("%H:%M:%S", time.localtime(one["last_at"]))
        said.append(f"incident    {one['code']}, {one['count']} times, lately {lately}: {one['message']}")
    said.append(f"inbox       {found['inbox']} messages wait")
    if found["oldest_unsent_s"] is not None:
        said.append(f"outbox      the oldest unsent answer is {found['oldest_unsent_s']} s old")
    said += [
        f"streamer    {name}: {one['on_air']} at work, {one['used_bytes']} of {one['max_bytes']} bytes used"
        for name, one in found["streamers"].items()
    ]
    return said if found["streamers"] else [*said, "streamer    none is alive"]


def cached(engine: Engine) -> list[dict[str, Any]]:
    """The rows of the cache, least recently used first."""
    with transaction(engine) as connection:
        rows = cache.everything(connection)
    return [
        {
            "stem": one.stem,
            "state": one.state,
            "size_bytes": one.size_bytes,
            "num_cite": one.num_cite,
            "last_used": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.update_time)),
            "reason": one.reason,
        }
        for one in rows
    ]


def evict(engine: Engine, root: Path, stem: str) -> int:
    """Delete one unpinned rendition; returns its size in bytes. Raises Misuse where a class needs it."""
    with transaction(engine) as connection:
        row = cache.by_stem(connection, [stem]).get(stem)
        if row is None or row.state is not FileState.READY:
            raise Misuse(f"{stem}: is not in the cache. See: lectern cache ls")
        if row.num_cite > 0:
            raise Misuse(f"{stem}: {row.num_cite} classes need it. Cancel them first, or wait for their end.")
        cache.mark_evicting(connection, root, [Idle(stem, row.size_bytes)])
    store.remove(store.rendition_path(root, stem))
    with transaction(engine) as connection:
        cache.forget(connection, [stem])
    return row.size_bytes


def differences(engine: Engine, root: Path) -> list[str]:
    """What the disk and the database disagree about, in words."""
    found = store.scan(root)
    there = {one.stem for one in found if one.kind == "rendition"}
    with transaction(engine) as connection:
        ready = {one.stem for one in cache.everything(connection) if one.state is FileState.READY}
    strange = [f"{one.path}: no row knows it" for one in found if one.kind == "unknown"]
    strange += [f"{stem}: no row knows its file" for stem in sorted(str(one) for one in there - ready)]
    return strange + [f"{stem}: its file is missing" for stem in sorted(ready - there)]
