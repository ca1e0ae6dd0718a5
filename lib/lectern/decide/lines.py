"""The lines that a dry run prints: one for each thing that would be written."""

from lectern.changes import Changes
from lectern.outgoing import Alarm, Outgoing
from lectern.stems import stem
from lectern.streamer_changes import StreamerChanges


def lines(changes: Changes | StreamerChanges) -> list[str]:
    """Everything that *changes* would write; of a message only its kind and its class, the rest may be secret."""
    if isinstance(changes, StreamerChanges):
        return [*_airings(changes), *_cache(changes), *_said(changes)]
    return [*_classes(changes), *_renditions(changes), *_streamers(changes), *_said(changes)]


def _classes(changes: Changes) -> list[str]:
    return [
        *(f"{after.class_id}: {before.state} -> {after.state}" for before, after in changes.moves),
        *(f"{one.class_id}: its booking is changed" for one, _ in changes.revised),
        *(f"{one}: delivered again" for one in sorted(changes.again)),
        *(f"{one.class_id}: taken from {one.streamer}" for one in changes.taken),
        *(f"{one.class_id}: its cancel waits for {one.streamer or 'its booking'}" for one in changes.cancels),
        *(f"{class_id}: its cancel is confirmed by {streamer}" for class_id, streamer in changes.confirmed),
        *(f"{one[0].class_id}: {len(one)} events on {one[0].host}" for one in changes.stories),
        *(f"{one}: its cancel has met it" for one in changes.met),
        *(f"{class_id}: what {streamer} sent of it: {len(parts)} parts" for streamer, class_id, parts in changes.sent),
        *(f"{one}: its streamer is told again" for one in changes.told_again),
        *(f"{one}: its cancel is told again" for one in changes.cancels_told_again),
        *(f"{one}: is known to wait for too long" for one in changes.warned),
    ]


def _renditions(changes: Changes) -> list[str]:
    return [
        *(f"{one.stem}: {one.backend} transcoding, attempt {one.attempt}" for one in changes.begun),
        *(f"{stem(*one.key)}: {one.old} -> {one.new}" for one in changes.remade),
        *(f"{stem(*key)}: falls back to ECS" for key, _ in changes.fallen),
    ]


def _streamers(changes: Changes) -> list[str]:
    return [
        *(f"{name}: {'lost' if since else 'not lost any more'}" for name, since in changes.lost.items()),
        *(f"{name}: its lease is taken" for name in changes.leaseless),
        *(f"{name}: is left to the old program" for name in changes.withdrawn),
        *(f"{one.streamer}: holds its lease" for one in changes.granted),
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
