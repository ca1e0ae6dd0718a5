"""The classes of a streamer as its playout wants them."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection

from flows.host import Streamer
from lectern import urls
from lectern.effects.files import store
from lectern.effects.rows import airings, cache
from lectern.facts import Airing, Cached
from lectern.places import Places

Lesson = dict[str, Any]
AHEAD_S = 2 * 3600.0
"""Seconds ahead for which the playout gets the classes: a lease ends long before it would need more."""


def lesson(one: Airing, row: Cached | None, host: Streamer, slate: str | None, allowed: Places) -> Lesson:
    """A class as the playout wants it; *row* is its rendition, *allowed* says where it may be pushed to."""
    path = store.rendition_path(host.settings.video_root, one.stem)  # its site may be below the root of before
    with suppress(ValueError):
        url = urls.push(one.push_url)
        return {
            "class_id": one.class_id,
            "file": str(path.absolute()),
            "push_urls": [url.text],
            "networks": allowed.of_server(url.host, url.port),
            "start": one.start_time,
            "end": one.end_time,
            "duration_s": row.duration_s if row is not None else None,
            "slate": slate,
        }
    return {"class_id": one.class_id, "push_urls": [one.push_url]}  # which the playout refuses with a reason


def has_password(push_url: str) -> bool:
    """Whether a push URL has a user name, which the playout does not support."""
    with suppress(ValueError):
        return "@" in urlsplit(push_url).netloc
    return False  # the playout refuses it with a reason


def live(connection: Connection) -> set[str]:
    """The classes that are to be aired here, or may be again, including those whose rows cannot be read."""
    return {one.class_id for one in airings.live(connection)} | airings.unreadable(connection).keys()


def due(connection: Connection, now: float) -> Mapping[str, tuple[Airing, Cached | None]]:
    """The classes that begin soon, or are on air, each with its rendition."""
    found = airings.due(connection, now + AHEAD_S, now)
    rows = cache.by_stem(connection, {one.stem for one in found})
    return {one.class_id: (one, rows.get(one.stem)) for one in found}
