"""The lines that a dry run prints: one for each thing that would be written."""

from collections.abc import Mapping

from lectern import formatting
from lectern.model.plan import Changes, Increment, RowChange
from lectern.model.streamer_plan import StreamerChanges
from lectern.rendition_ids import stem
from lectern.wire.outgoing import Alarm, Outgoing


def lines(changes: Changes | StreamerChanges) -> list[str]:
    """Everything that *changes* would write; of a message only its kind and its class, the rest may be secret."""
    new = [
        _row(RowChange(table, {}, None, dict(zip(names, row, strict=True))))
        for table, names, rows in changes.new()
        for row in rows
    ]
    rest = _streamer(changes) if isinstance(changes, StreamerChanges) else _renditions(changes)
    return [*new, *(_row(change) for change in changes.written()), *rest, *_said(changes)]


SECRET = frozenset(
    {"payload", "booked", "stream", "backup_stream", "url", "push_url", "video_url", "source_url", "source"}
)
"""Columns that may hold the address or the key of a stream: their values are not printed."""


def _row(change: RowChange) -> str:
    """What is written of a row: each column with its value before, if that was read, and after."""
    name = f"{change.table.name} {' '.join(map(str, change.key.values()))}".rstrip()
    if change.after is None:
        return f"{name}: is deleted"
    old = change.before or {}
    columns = [_column(column, old, value) for column, value in change.after.items() if change.key or value is not None]
    return f"{name}: {'' if change.before is not None else 'new, '}{', '.join(columns)}"


def _column(name: str, old: Mapping[str, object], value: object) -> str:
    if name in SECRET:
        return name
    before = f"{_shown(name, old[name])} -> " if name in old else ""
    return f"{name}: {before}{_shown(name, value)}"


def _shown(name: str, value: object) -> str:
    if isinstance(value, Increment):
        return f"{value:+,}"
    if isinstance(value, float) and not name.endswith(("_s", "size")):
        return formatting.moment(value)
    return "none" if value is None else str(value)


def _renditions(changes: Changes) -> list[str]:
    return [
        *(f"class event: {event.class_id} {event.seq} {event.event}" for event in changes.class_events),
        *(f"{attempt.stem}: {attempt.backend} transcoding, attempt {attempt.attempt}" for attempt in changes.begun),
        *(f"{stem(*key)}: falls back to ECS" for key, _ in changes.fell_back_to_ecs),
        *(f"{story[0].class_id}: {len(story)} events on {story[0].host}" for story in changes.stories),
        *(f"{class_id}: what {streamer} sent of it: {len(parts)} parts" for streamer, class_id, parts in changes.sent),
    ]


def _streamer(changes: StreamerChanges) -> list[str]:
    return [
        *(f"{class_id}: {len(parts)} parts were sent" for class_id, parts in changes.sent),
        *([f"{changes.settings.name}: holds its lease"] if changes.session else []),
    ]


def _said(changes: Changes | StreamerChanges) -> list[str]:
    return [
        *(f"to {message.target}: {_named(message)}" for message in changes.sends),
        *(f"event: {event.what} {event.class_id or event.stem or ''}".rstrip() for event in changes.notes),
        *(f"inbox {id_}: done" for id_ in changes.done),
        *(f"inbox {id_}: dead" for id_, _ in changes.dead),
    ]


def _named(queued: Outgoing) -> str:
    message = queued.message
    code = f" {message.code}" if isinstance(message, Alarm) else ""
    about = message.class_id if isinstance(message, Alarm) else queued.class_id
    return f"{getattr(message, 'cmd', '')}{code}{f' {about}' if about else ''}"
