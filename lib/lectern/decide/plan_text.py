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
        _row(RowChange(table, {}, None, dict(zip(names, one, strict=True))))
        for table, names, its in changes.new()
        for one in its
    ]
    rest = _streamer(changes) if isinstance(changes, StreamerChanges) else _renditions(changes)
    return [*new, *(_row(one) for one in changes.written()), *rest, *_said(changes)]


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
    if isinstance(value, Increment):
        return f"{value:+,}"
    if isinstance(value, float) and not name.endswith(("_s", "size")):
        return formatting.moment(value)
    return "none" if value is None else str(value)


def _renditions(changes: Changes) -> list[str]:
    return [
        *(f"{one.stem}: {one.backend} transcoding, attempt {one.attempt}" for one in changes.begun),
        *(f"{stem(*key)}: falls back to ECS" for key, _ in changes.fallen),
        *(f"{one[0].class_id}: {len(one)} events on {one[0].host}" for one in changes.stories),
        *(f"{class_id}: what {streamer} sent of it: {len(parts)} parts" for streamer, class_id, parts in changes.sent),
    ]


def _streamer(changes: StreamerChanges) -> list[str]:
    return [
        *(f"{class_id}: {len(parts)} parts were sent" for class_id, parts in changes.sent),
        *([f"{changes.settings.name}: holds its lease"] if changes.session else []),
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
