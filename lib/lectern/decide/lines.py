"""The lines that a dry run prints: one for each thing that would be written."""

from collections.abc import Mapping

from lectern import words
from lectern.changes import NEW, Changes
from lectern.decided import RowChange
from lectern.model.tables.teacher import orders
from lectern.outgoing import Alarm, Outgoing
from lectern.stems import stem
from lectern.streamer_changes import StreamerChanges


def lines(changes: Changes | StreamerChanges) -> list[str]:
    """Everything that *changes* would write; of a message only its kind and its class, the rest may be secret."""
    rows = [_row(one) for one in changes.written()]
    if isinstance(changes, StreamerChanges):
        return [*rows, *_airings(changes), *_cache(changes), *_said(changes)]
    new = [_row(RowChange(orders, {}, None, dict(zip(NEW, one, strict=True)))) for one in changes.new()]
    return [*new, *rows, *_renditions(changes), *_said(changes)]


SECRET = frozenset(
    {"payload", "booked", "stream", "backup_stream", "url", "push_url", "video_url", "source_url", "source"}
)
"""Columns that may hold the address or the key of a stream: their values are not printed."""


def _row(one: RowChange) -> str:
    """What is written of a row: each column with its value before, if that was read, and after."""
    name = f"{one.table.name} {' '.join(map(str, one.key.values()))}".rstrip()
    if one.after is None:
        return f"{name}: is deleted"
    old = one.before or {}
    columns = [_column(column, old, value) for column, value in one.after.items() if one.key or value is not None]
    return f"{name}: {'' if one.before is not None else 'new, '}{', '.join(columns)}"


def _column(name: str, old: Mapping[str, object], value: object) -> str:
    if name in SECRET:
        return name
    before = f"{_shown(name, old[name])} -> " if name in old else ""
    return f"{name}: {before}{_shown(name, value)}"


def _shown(name: str, value: object) -> str:
    if isinstance(value, float) and not name.endswith(("_s", "size")):
        return words.moment(value)
    return "none" if value is None else str(value)


def _renditions(changes: Changes) -> list[str]:
    return [
        *(f"{one.stem}: {one.backend} transcoding, attempt {one.attempt}" for one in changes.begun),
        *(f"{stem(*key)}: falls back to ECS" for key, _ in changes.fallen),
        *(f"{one[0].class_id}: {len(one)} events on {one[0].host}" for one in changes.stories),
        *(f"{class_id}: what {streamer} sent of it: {len(parts)} parts" for streamer, class_id, parts in changes.sent),
    ]


def _airings(changes: StreamerChanges) -> list[str]:
    return [
        *(f"{one.wanted.class_id}: new -> {one.state}" for one in changes.admitted),
        *(f"{class_id}: placement {placement}" for class_id, placement in changes.placed),
        *(f"{one.class_id}: is as {revision.class_id} from now on" for one, revision in changes.amended),
        *(f"{one}: waits for the playout to confirm it" for one in changes.unconfirmed),
        *(f"{one}: waits for the playout no more" for one in changes.settled),
        *(f"{before.class_id}: {before.state} -> {after.state}" for before, after in changes.moves),
        *(f"{one.class_id}: gives its rendition back" for one in changes.given_up),
        *(f"{class_id}: released before it came" for class_id, _ in changes.released_early),
        *(f"{one}: taken away" for one in changes.taken_away),
        *(f"{class_id}: {len(parts)} parts were sent" for class_id, parts in changes.sent),
        *([f"{changes.settings.name}: holds its lease"] if changes.session else []),
    ]


def _cache(changes: StreamerChanges) -> list[str]:
    return [
        *(f"{one.stem}: evicted" for one in changes.evicted),
        *(f"{one.stem}: lost" for one in changes.lost),
        *(f"{one.stem}: {one.size_bytes:,} bytes reserved" for one in changes.reserved),
        *(f"{one.stem}: {size_bytes:,} bytes instead of {one.size_bytes:,}" for one, size_bytes in changes.resized),
        *(f"{one.before.stem}: arrived" for one in changes.arrived),
        *(f"{one.stem}: download failed" for one, _ in changes.failed),
        *(f"{stem}: cited {number} times more" for stem, number in changes.cited.items()),
    ]


def _said(changes: Changes | StreamerChanges) -> list[str]:
    return [
        *(f"to {one.target}: {_named(one)}" for one in changes.sends),
        *(f"event: {one.what} {one.class_id or one.stem or ''}".rstrip() for one in changes.notes),
        *(f"inbox {one}: done" for one in changes.done),
        *(f"inbox {one}: dead" for one, _ in changes.dead),
    ]


def _named(one: Outgoing) -> str:
    said = one.message
    code = f" {said.code}" if isinstance(said, Alarm) else ""
    about = said.class_id if isinstance(said, Alarm) else one.class_id
    return f"{getattr(said, 'cmd', '')}{code}{f' {about}' if about else ''}"
