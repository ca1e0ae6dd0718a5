"""Makes the old program's classes and recordings ours: which rows change, and the transaction that changes them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, insert, update

from lectern import stems
from lectern.effects.files import store
from lectern.effects.rows import airings, cache, events
from lectern.facts import Event
from lectern.model.tables import streamer as tables
from lectern.rollout.takeover.old_classes import Judged
from lectern.rollout.takeover.old_recordings import Recording
from lectern.rollout.takeover.old_tables import ClassRow, FileRow
from lectern.states import LIVE_AIRINGS, AiringState, FileState

Values = dict[str, Any]
_NO_FILE = FileRow("")
_NO_TEXT = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Known:
    """What the tables hold already: nothing, or what was there before a rollback."""

    files: Mapping[str, FileRow]
    classes: Mapping[str, ClassRow]


@dataclass(frozen=True)
class Changes:
    """Columns to be set, by the key of their row; whole rows if there is none yet."""

    known: Known
    files: dict[str, Values]
    classes: dict[str, Values]


def planned(known: Known, video_root: Path, judged: Judged, recordings: Mapping[str, Recording], now: float) -> Changes:
    """What must be changed. Runs of an earlier time are not trusted: the sweeper schedules each class again."""
    files: dict[str, Values] = {}
    cited = {one.stem for one in judged.going}
    for stem in sorted(recordings.keys() | known.files.keys() | cited):
        before, recording, url = known.files.get(stem, _NO_FILE), recordings.get(stem), judged.urls.get(stem)
        if recording is not None:
            files[stem] = _ready(before, recording, url)
        elif stem in cited:
            files[stem] = _to_download(before, str(store.rendition_path(video_root, stem)), url)
        elif before.state not in {FileState.BAD, FileState.EVICTING}:  # these take no room, and can be downloaded again
            files[stem] = {"state": FileState.BAD, "reason": "its file was not there at the rollout"}
    classes: dict[str, Values] = {}
    for one in judged.going:
        row = known.classes.get(one.class_id)
        classes[one.class_id] = {
            "video_id": one.stem,
            "site": (row and row.site) or str(store.rendition_path(video_root, one.stem)),
            "state": AiringState.READY if one.stem in recordings else AiringState.WAITING,
            "record_id": stems.record_of(one.stem),
            **dict.fromkeys(("run_id", "released_at", "code", "message")),
        }
    return Changes(
        known, _new(files, known.files), {**_new(classes, known.classes), **dict(_closed(known.classes, judged, now))}
    )


def _new(wanted: Mapping[str, Values], known: Mapping[str, FileRow | ClassRow]) -> dict[str, Values]:
    """The values of each row that the tables do not have yet."""
    found = {
        key: {name: value for name, value in row.items() if key not in known or getattr(known[key], name) != value}
        for key, row in wanted.items()
    }
    return {key: row for key, row in found.items() if row}


def _ready(before: FileRow, recording: Recording, url: str | None) -> Values:
    """The columns of a rendition whose file is there; what is known of the same file is kept."""
    found = recording.found
    is_same = before.size_bytes in {None, found.size_bytes}
    known_s = before.duration_s if is_same else None
    return {
        "state": FileState.READY,
        "site": recording.place,
        "size_bytes": found.size_bytes,
        "update_time": found.mtime_ns / 1e9 if before.update_time is None else before.update_time,
        "url": before.url or url,
        "duration_s": recording.duration_s if known_s is None else known_s,
        "tries": 0,
        "reason": None,
        **({} if is_same else {"etag": None, "crc64": None}),
    }


def _to_download(before: FileRow, site: str, url: str | None) -> Values:
    """The columns of a rendition that a class needs and that is missing: the sweeper has it downloaded."""
    return {
        "state": FileState.DOWNLOADING,
        "site": site,
        "size_bytes": before.size_bytes or 0,
        "update_time": 0.0,  # the oldest possible time: nobody is downloading it
        "url": before.url or url,
        "tries": 0,
        **dict.fromkeys(("etag", "crc64", "duration_s", "reason")),
    }


def _closed(known: Mapping[str, ClassRow], judged: Judged, now: float) -> Iterator[tuple[str, Values]]:
    """Release the classes of before that will not be aired."""
    listed, going = {task.class_id for task in judged.tasks}, {one.class_id for one in judged.going}
    for class_id, before in known.items():
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
        yield class_id, {"state": state, "released_at": now, "message": why, "updated_at": now}


def write(connection: Connection, video_root: Path, changes: Changes, host: str, now: float) -> None:
    """Write *changes* in the caller's transaction, then count sums and citations."""
    _write(connection, tables.files, "id", changes.files, changes.known.files)
    _write(connection, tables.classes, "class_id", changes.classes, changes.known.classes)
    # Another program may have written something there that is no number.
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
    """Insert new rows, and update the columns of known ones."""
    for name, values in rows.items():
        one = update(table).where(table.c[key] == name) if name in known else insert(table).values({key: name})
        connection.execute(one.values(values))


def unwritable(known: Known) -> list[str]:
    """Keys that are no text, so that no program can name their rows."""
    return [key for key in (*known.files, *known.classes) if _NO_TEXT.search(key)]
