"""The rows that make the old program's classes and recordings ours: what is to be changed, and its one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, insert, update

from lectern import stems
from lectern.effects.rows import airings, cache, events
from lectern.effects.rows.tables import streamer as tables
from lectern.facts import Event
from lectern.rollout.takeover import old_tables
from lectern.rollout.takeover.old_classes import Judged
from lectern.rollout.takeover.old_recordings import Recording, rendition_place
from lectern.rollout.takeover.old_tables import ClassRow, FileRow
from lectern.states import LIVE_AIRINGS, AiringState, FileState

Values = dict[str, Any]
_NO_FILE = FileRow("")


@dataclass(frozen=True)
class Known:
    """What the tables have already: nothing, or what was there before a rollback."""

    files: Mapping[str, FileRow]
    classes: Mapping[str, ClassRow]

    @classmethod
    def read(cls, connection: Connection) -> "Known":
        """Read it; there may be no such tables yet."""
        return cls(old_tables.files(connection), old_tables.classes(connection))


@dataclass
class Changes:
    """Columns to be set, by the key of their row; whole rows if there is none yet."""

    known: Known
    files: dict[str, Values] = field(default_factory=dict)
    classes: dict[str, Values] = field(default_factory=dict)

    def file(self, stem: str, wanted: Values) -> None:
        """The row of a rendition."""
        _put(self.files, stem, self.known.files.get(stem), wanted)

    def airing(self, class_id: str, wanted: Values) -> None:
        """The row of a class."""
        _put(self.classes, class_id, self.known.classes.get(class_id), wanted)


def _put(changed: dict[str, Values], key: str, before: FileRow | ClassRow | None, wanted: Values) -> None:
    """Add those values of *wanted* that differ from the row *before*."""
    values = {name: value for name, value in wanted.items() if before is None or getattr(before, name) != value}
    if values:
        changed[key] = values


def planned(known: Known, video_root: Path, judged: Judged, recordings: Mapping[str, Recording], now: float) -> Changes:
    """What is to be changed. No run of an earlier time is trusted: the sweeper schedules each class anew."""
    changes = Changes(known)
    cited = {one.stem for one in judged.going}
    for stem in sorted(recordings.keys() | known.files.keys() | cited):
        before, recording = known.files.get(stem, _NO_FILE), recordings.get(stem)
        site, url = rendition_place(video_root, stem), judged.urls.get(stem)
        if recording is not None:
            changes.file(stem, _ready(before, recording, site, url))
        elif stem in cited:
            changes.file(stem, _to_download(before, site, url))
        elif before.state not in {FileState.BAD, FileState.EVICTING}:  # it takes no room, and can come again
            changes.file(stem, {"state": FileState.BAD, "reason": "its file was not there at the rollout"})
    for one in judged.going:
        own_site = known.classes[one.class_id].site if one.class_id in known.classes else None
        changes.airing(
            one.class_id,
            {
                "video_id": one.stem,
                "site": own_site or rendition_place(video_root, one.stem),
                "state": AiringState.READY if one.stem in recordings else AiringState.WAITING,
                "record_id": stems.record_of(one.stem),
                **dict.fromkeys(("run_id", "released_at", "code", "message")),
            },
        )
    _close(changes, judged, now)
    return changes


def _ready(before: FileRow, recording: Recording, site: str, url: str | None) -> Values:
    """The columns of a rendition whose file is there; of the same file what was known before stays."""
    found = recording.found
    is_same = before.size_bytes in {None, found.size_bytes}
    known_s = before.duration_s if is_same else None
    return {
        "state": FileState.READY,
        "site": site,
        "size_bytes": found.size_bytes,
        "update_time": found.mtime_ns / 1e9 if before.update_time is None else before.update_time,
        "url": before.url or url,
        "duration_s": recording.duration_s if known_s is None else known_s,
        "tries": 0,
        "reason": None,
        **({} if is_same else {"etag": None, "crc64": None}),
    }


def _to_download(before: FileRow, site: str, url: str | None) -> Values:
    """The columns of a rendition that a class needs and that is not there: the sweeper sees that it is downloaded."""
    return {
        "state": FileState.DOWNLOADING,
        "site": site,
        "size_bytes": before.size_bytes or 0,
        "update_time": 0.0,  # as old as can be: nobody is at it
        "url": before.url or url,
        "tries": 0,
        **dict.fromkeys(("etag", "crc64", "duration_s", "reason")),
    }


def _close(changes: Changes, judged: Judged, now: float) -> None:
    """Release the classes of before that will not be aired."""
    listed, going = {task.class_id for task in judged.tasks}, {one.class_id for one in judged.going}
    for class_id, before in changes.known.classes.items():
        is_live = before.state is None or before.state in LIVE_AIRINGS
        if class_id in going or not is_live or before.released_at is not None:
            continue
        state, why = AiringState.CANCELLED, "the old program knows it no more"
        if class_id in judged.ended:
            state, why = AiringState.AIRED, "it had ended before the rollout"
        elif class_id in judged.unreadable:
            why = "its times cannot be read"
        elif class_id in listed:
            continue
        changes.classes[class_id] = {"state": state, "released_at": now, "message": why, "updated_at": now}


def write(connection: Connection, video_root: Path, changes: Changes, host: str, now: float) -> None:
    """Write *changes* in the caller's transaction, then count sums and citations."""
    _write(connection, tables.files, "id", changes.files, changes.known.files)
    _write(connection, tables.classes, "class_id", changes.classes, changes.known.classes)
    # What another program has written there may be no number.
    zero = update(tables.dirs).where(tables.dirs.c.dir == str(video_root)).values(size=0, num=0)
    connection.execute(zero)
    cache.recount(connection, video_root, airings.citations(connection))
    noted = [
        Event("taken over from the old program", class_id, values.get("video_id"), str(values["state"]))
        for class_id, values in changes.classes.items()
        if "state" in values
    ]
    events.note(connection, tables.journal, host, noted, now)


def _write(
    connection: Connection, table: Table, key: str, rows: Mapping[str, Values], known: Mapping[str, Any]
) -> None:
    """Rows that are new, and columns of those that are known."""
    for name, values in rows.items():
        one = update(table).where(table.c[key] == name) if name in known else insert(table).values({key: name})
        connection.execute(one.values(values))


def unwritable(known: Known) -> list[str]:
    """Keys that are no text, so that no program can name their rows."""
    return [key for key in (*known.files, *known.classes) if not _is_text(key)]


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
