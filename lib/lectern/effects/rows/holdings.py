"""A streamer's cache for people: lists it, evicts a rendition by hand, and compares the disk with the database."""

import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from lectern import words
from lectern.effects.files import scan, store
from lectern.effects.rows import cache
from lectern.effects.rows import differences as disagreements
from lectern.effects.rows.changes import write
from lectern.effects.rows.tables.engine import transaction
from lectern.errors import Misuse
from lectern.facts import Idle
from lectern.model.tables.streamer import journal
from lectern.settings import StreamerSettings
from lectern.states import FileState
from lectern.streamer_changes import StreamerChanges


def cached(connection: Connection) -> list[dict[str, Any]]:
    """The rows of the cache, least recently used first."""
    rows = cache.everything(connection)
    return [
        {
            "stem": one.stem,
            "state": one.state,
            "size_bytes": one.size_bytes,
            "num_cite": one.num_cite,
            "last_used": words.moment(one.update_time),
            "reason": one.reason,
        }
        for one in rows
    ]


def evict(engine: Engine, settings: StreamerSettings, stem: str) -> int:
    """Delete one unpinned rendition; returns its size in bytes. Raises Misuse if a class needs it."""
    with transaction(engine) as connection:
        row = cache.by_stem(connection, [stem]).get(stem)
        if row is None or row.state is not FileState.READY:
            raise Misuse(f"{stem}: is not in the cache. See: lectern cache ls")
        if row.num_cite > 0:
            needed = words.counted(row.num_cite, "class needs", "classes need")
            raise Misuse(f"{stem}: {needed} it. Cancel them first, or wait for their end.")
        changes = StreamerChanges(settings, time.time())
        changes.evict([Idle(stem, row.size_bytes)])
        write(connection, journal, changes)
    store.remove(store.rendition_path(settings.video_root, stem))
    with transaction(engine) as connection:
        cache.forget(connection, [stem])
    return row.size_bytes


def differences(connection: Connection, root: Path) -> list[str]:
    """The differences between disk and database, in words; the next start of the streamer mends them."""
    found, rows = disagreements.doubtful(connection, scan.scan(root))
    return [one.words() for one in disagreements.differences(found, rows)]
