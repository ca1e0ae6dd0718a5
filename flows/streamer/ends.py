"""Ends classes: takes the citation back, and reports once to the teacher how much of the class was aired."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from flows.handling import Decide, changed
from flows.host import Streamer, log
from flows.tell import tell
from lectern.decide import endings as decide
from lectern.decide.broadcast import STORY
from lectern.effects.files import store
from lectern.effects.rows import airings, sent
from lectern.facts import Airing
from lectern.states import AiringState
from lectern.streamer_changes import StreamerChanges


async def ended(host: Streamer, class_id: str, told: Mapping[str, Any]) -> None:
    """Close a class as the playout reports its end: *told* is the event `ended`, or the `status` of the class."""
    if not (await _closed(host, class_id, as_told(class_id, told))).sent:
        log.info("%s: ended as it was before a change, which changes nothing of it as it is now", class_id)
        host.playout.wanted.set()


def is_of(root: Path, one: Airing, told: Mapping[str, Any]) -> bool:
    """Whether the playout tells of the class as its row is now, and not as it was before a change."""
    file = str(store.rendition_path(root, one.stem).absolute())
    return bool(told.get("start", one.start_time) == one.start_time and told.get("file", file) == file)


async def close(host: Streamer, class_id: str, state: AiringState, message: str) -> None:
    """Release a class that the playout did not bring to its end, and tell its teacher why."""

    def go(connection: Connection, changes: StreamerChanges) -> None:
        decide.close(changes, airings.by_id(connection, [class_id])[class_id], state, message)

    await _closed(host, class_id, go)


async def _closed(host: Streamer, class_id: str, go: Decide[StreamerChanges]) -> StreamerChanges:
    changes = await changed(host, go)
    host.playout.over(class_id)
    await tell(host)
    return changes


def as_told(class_id: str, told: Mapping[str, Any]) -> Decide[StreamerChanges]:
    """How to close a class as the playout reports its end in *told*."""

    def go(connection: Connection, changes: StreamerChanges) -> None:
        one = airings.by_id(connection, [class_id]).get(class_id)
        if one is None or is_of(changes.settings.video_root, one, told):
            decide.ended(changes, class_id, one, sent.story(connection, class_id, STORY), told)

    return go


def late(class_id: str) -> Decide[StreamerChanges]:
    """How to close a class whose end has passed, and that is not aired."""
    return lambda connection, changes: decide.close_late(changes, airings.by_id(connection, [class_id])[class_id])
