"""What the command line shows of a host's database."""

import time
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Engine

from lectern.effects import airings, bookings, cache, events, inbox, outbox, renditions, store
from lectern.effects.tables import streamer as streamer_tables
from lectern.effects.tables import teacher as teacher_tables
from lectern.effects.tables.engine import transaction
from lectern.errors import Misuse
from lectern.facts import Idle
from lectern.states import FileState

Role = Literal["teacher", "streamer"]


def of_teacher(engine: Engine, now: float) -> dict[str, Any]:
    """Bookings by state, renditions by status and those under way, what waits in the inbox and outbox."""
    journal = teacher_tables.journal
    with transaction(engine) as connection:
        oldest = outbox.oldest_unsent(connection, journal)
        return {
            "bookings": dict(bookings.counts(connection)),
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


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""

    def counted(name: str) -> str:
        return ", ".join(f"{number} {state}" for state, number in sorted(found[name].items())) or "none"

    said = [f"bookings    {counted('bookings')}", f"renditions  {counted('renditions')}"]
    said += [
        f"  {one['rendition']}: {one['backend']}, attempt {one['attempt']}, {one['slack_s']} s to its deadline"
        for one in found["under_way"]
    ]
    said.append(f"inbox       {found['inbox']} messages wait")
    if found["oldest_unsent_s"] is not None:
        said.append(f"outbox      the oldest unsent answer is {found['oldest_unsent_s']} s old")
    said += [
        f"streamer    {name}: {one['on_air']} at work, {one['used_bytes']} of {one['max_bytes']} bytes used"
        for name, one in found["streamers"].items()
    ]
    return said if found["streamers"] else [*said, "streamer    none is alive"]


def story(engine: Engine, role: Role, thing: str) -> list[dict[str, Any]]:
    """The events of a class and its rendition, or of a record's renditions."""
    journal = teacher_tables.journal if role == "teacher" else streamer_tables.journal
    with transaction(engine) as connection:
        stems: set[str] = set()
        if role == "teacher":
            stems = {one.stem for one in bookings.by_id(connection, [thing]).values()}
        else:
            stems = {one.stem for one in airings.by_id(connection, [thing]).values()}
        if not stems and thing.isdigit():
            stems = set(events.stems_of(connection, journal, int(thing)))
        found = events.of_thing(connection, journal, class_id=thing, stems=stems)
    return [
        {
            "at": one.at,
            "host": one.host,
            "what": one.what,
            "class_id": one.class_id,
            "rendition": one.stem,
            "detail": one.detail,
        }
        for one in found
    ]


def event_line(event: dict[str, Any]) -> str:
    """One event for people."""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["at"]))
    thing = event["class_id"] or event["rendition"] or ""
    return f"{at}  {event['host']}  {thing}: {event['what']}{'. ' + event['detail'] if event['detail'] else ''}"


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
