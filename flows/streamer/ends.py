"""Ends classes: takes the citation back, and reports once to the teacher how much of the class was aired."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from flows.handling import Decide, changed
from flows.host import Streamer, log
from flows.tell import tell
from lectern.decide import amending
from lectern.decide import endings as decide
from lectern.decide.broadcast import STORY
from lectern.effects.files import store
from lectern.effects.rows import airings, sent
from lectern.facts import Airing
from lectern.states import AiringState
from lectern.streamer_changes import StreamerChanges
from lectern.wire import called


async def ended(host: Streamer, class_id: str, told: Mapping[str, Any]) -> None:
    """Close a class as the playout reports its end: *told* is the event `ended`, or the `status` of the class."""
    if not (await _closed(host, class_id, as_told(class_id, told))).sent:
        log.info("%s: ended as it was before a change, which changes nothing of it as it is now", class_id)
        host.playout.wanted.set()


def is_of(root: Path, one: Airing, told: Mapping[str, Any], now: float) -> bool:
    """Whether the playout tells of the class as its row is now, and not as it was before a change.

    The end that it had does not matter once the one in the row has passed, too; until then it goes on.
    """
    file = str(store.rendition_path(root, one.stem).absolute())
    is_over = one.end_time <= now or told.get("end", one.end_time) == one.end_time
    return is_over and bool(told.get("start", one.start_time) == one.start_time and told.get("file", file) == file)


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
        one, events = airings.by_id(connection, [class_id]).get(class_id), sent.story(connection, class_id, STORY)
        if one is None:
            decide.ended(changes, class_id, one, events, told)
        elif is_of(changes.settings.video_root, one, told, changes.now):
            is_changed = told.get("end") == one.end_time and told.get("push_urls") == [one.push_url]
            waiting = [it for it in airings.unconfirmed(connection) if called(it.class_id) == class_id]
            for revision in waiting:
                amending.confirm(changes, revision, one, is_aired=is_changed)
            if waiting and not is_changed:  # it was aired as it was before, which its teacher still takes for planned
                one = replace(one, end_time=told.get("end", one.end_time))
            decide.ended(changes, class_id, one, events, told)

    return go


def late(class_id: str, *, is_known: bool = False) -> Decide[StreamerChanges]:
    """How to close a class whose end has passed, and that is not aired; *is_known*: its playout has nothing of it."""

    def go(connection: Connection, changes: StreamerChanges) -> None:
        decide.close_late(changes, airings.by_id(connection, [class_id])[class_id], is_known=is_known)

    return go
