"""The rows that make the old program's classes and recordings ours: what is to be changed, and its one transaction."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, bindparam, insert, update

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
_HOLDING = {None, FileState.READY}
"""States of a row whose file is there; an old row has none."""


@dataclass
class Changes:
    """Columns to be set, by the key of their row; whole rows where there is none yet."""

    new_files: dict[str, Values] = field(default_factory=dict)
    files: dict[str, Values] = field(default_factory=dict)
    new_classes: dict[str, Values] = field(default_factory=dict)
    classes: dict[str, Values] = field(default_factory=dict)
    is_recount: bool = False
    """Whether the sums or the citations are not what the rows then say."""

    def __bool__(self) -> bool:
        return bool(self.new_files or self.files or self.new_classes or self.classes or self.is_recount)


@dataclass(frozen=True)
class Known:
    """What the tables have already."""

    files: Mapping[str, FileRow]
    classes: Mapping[str, ClassRow]
    sums: old_tables.Sums | None

    @classmethod
    def read(cls, connection: Connection, video_root: Path) -> "Known":
        """Read it; there may be no such tables yet."""
        return cls(
            old_tables.files(connection), old_tables.classes(connection), old_tables.sums(connection, video_root)
        )


def planned(
    known: Known,
    video_root: Path,
    judged: Judged,
    recordings: Mapping[str, Recording],
    now: float,
    *,
    is_first: bool,
) -> Changes:
    """What is to be changed; *is_first* says that this program has not aired from these rows yet, or was taken back.

    Then no run of an earlier time is trusted: the sweeper schedules each class anew.
    """
    changes = Changes()
    cited = {one.stem for one in judged.going}
    for stem in sorted(recordings.keys() | known.files.keys() | cited):
        before, recording = known.files.get(stem), recordings.get(stem)
        site = rendition_place(video_root, stem)
        url = judged.urls.get(stem)
        if recording is not None:
            values = _ready(before, recording, site, url)
        elif stem in cited:
            values = _to_download(before, site, url, is_first=is_first)
        else:
            values = _missing(before)
        _put(changes.new_files, changes.files, stem, before is None, values)
    _plan_classes(changes, video_root, judged, recordings, known.classes, now, is_first=is_first)
    changes.is_recount = _is_wrong(changes, known)
    return changes


def _put(new: dict[str, Values], changed: dict[str, Values], key: str, is_new: bool, values: Values) -> None:  # noqa: FBT001 (a fact of the row)
    if is_new:
        new[key] = values
    elif values:
        changed[key] = values


def _ready(before: FileRow | None, recording: Recording, site: str, url: str | None) -> Values:
    """The columns of a rendition whose file is there; what an old row knows better, stays."""
    found = recording.found
    wanted: Values = {"state": FileState.READY, "site": site, "size_bytes": found.size_bytes}
    if before is None:
        return wanted | {
            "update_time": found.mtime_ns / 1e9,
            "url": url,
            "duration_s": recording.duration_s,
            "tries": 0,
        }
    values = {name: value for name, value in wanted.items() if getattr(before, name) != value}
    is_another = before.size_bytes is not None and before.size_bytes != found.size_bytes
    if is_another:
        values |= {"etag": None, "crc64": None, "duration_s": recording.duration_s}
    elif before.duration_s is None and recording.duration_s is not None:
        values["duration_s"] = recording.duration_s
    if before.update_time is None:
        values["update_time"] = found.mtime_ns / 1e9
    if not before.url and url:
        values["url"] = url
    if before.state not in _HOLDING:
        values |= {"reason": None, "tries": 0}
    return values


def _to_download(before: FileRow | None, site: str, url: str | None, *, is_first: bool) -> Values:
    """The columns of a rendition that a class needs and that is not there: the sweeper sees that it is downloaded."""
    wanted: Values = {"state": FileState.DOWNLOADING, "site": site}
    if before is None:
        return wanted | {"update_time": 0.0, "url": url, "size_bytes": 0, "tries": 0}
    values = {name: value for name, value in wanted.items() if getattr(before, name) != value}
    if not before.url and url:
        values["url"] = url
    if values or (is_first and before.update_time):
        # As old as can be: nobody is at it.
        values |= {"update_time": 0.0, "tries": 0, "etag": None, "crc64": None, "duration_s": None, "reason": None}
    return values


def _missing(before: FileRow | None) -> Values:
    """The columns of a rendition that no class needs and that is not there: it takes no room, and can come again."""
    if before is None or before.state in {FileState.BAD, FileState.EVICTING}:
        return {}
    return {"state": FileState.BAD, "reason": "its file was not there at the rollout"}


def _plan_classes(
    changes: Changes,
    video_root: Path,
    judged: Judged,
    recordings: Mapping[str, Recording],
    known: Mapping[str, ClassRow],
    now: float,
    *,
    is_first: bool,
) -> None:
    for one in judged.going:
        before = known.get(one.class_id)
        state = AiringState.READY if one.stem in recordings else AiringState.WAITING
        if before and not is_first and before.state and (state is AiringState.READY) == _had_file(before.state):
            state = before.state  # this program's own, younger than all that is known here
        wanted: Values = {
            "video_id": one.stem,
            "site": rendition_place(video_root, one.stem),
            "state": state,
            "record_id": stems.record_of(one.stem),
        }
        values = wanted if before is None else _changed(before, wanted, is_first=is_first)
        _put(changes.new_classes, changes.classes, one.class_id, before is None, values)
    listed = {task.class_id for task in judged.tasks}
    for class_id, before in known.items():
        over = _over(class_id, judged, listed)
        if over and (before.state in LIVE_AIRINGS or before.state is None) and not before.released:
            state, why = over
            changes.classes[class_id] = {"state": state, "released_at": now, "message": why, "updated_at": now}


def _over(class_id: str, judged: Judged, listed: set[str]) -> tuple[AiringState, str] | None:
    """What became of a class that will not be aired, and why; None of any other."""
    if class_id in judged.ended:
        return AiringState.AIRED, "it had ended before the rollout"
    if class_id not in listed:
        return AiringState.CANCELLED, "the old program knows it no more"
    if class_id in judged.unreadable:
        return AiringState.CANCELLED, "its times cannot be read"
    return None


def _had_file(state: AiringState) -> bool:
    return state is not AiringState.WAITING


def _changed(before: ClassRow, wanted: Values, *, is_first: bool) -> Values:
    values = {name: value for name, value in wanted.items() if getattr(before, name) != value}
    if before.site:
        values.pop("site", None)
    if before.record_id == str(wanted["record_id"]):
        values.pop("record_id", None)
    if before.released:
        values["released_at"] = None
    if before.run_id is not None and (is_first or "state" in values):
        values["run_id"] = None
    if "state" in values and (before.code is not None or before.message is not None):
        values |= {"code": None, "message": None}
    return values


def _is_wrong(changes: Changes, known: Known) -> bool:
    """Whether ``num_cite`` and ``dir_info`` are not what the rows say once they are changed."""
    cites: Counter[str] = Counter()
    for class_id in known.classes.keys() | changes.new_classes.keys():
        before = known.classes.get(class_id)
        values = changes.new_classes.get(class_id) or changes.classes.get(class_id, {})
        state = values.get("state", before and before.state)
        is_released = bool(values.get("released_at", before and before.released))
        if not is_released and (state is None or state in LIVE_AIRINGS):
            cites[values.get("video_id") or (before.video_id if before else "")] += 1
    held, reserved = [], []
    for stem in known.files.keys() | changes.new_files.keys():
        row = known.files.get(stem)
        values = changes.new_files.get(stem) or changes.files.get(stem, {})
        state = values.get("state", row and row.state)
        size_bytes = values.get("size_bytes", row and row.size_bytes) or 0
        if state in _HOLDING:
            held.append(size_bytes)
        elif state is FileState.DOWNLOADING:
            reserved.append(size_bytes)
        if row is None or row.num_cite != cites[stem]:
            return True
    return known.sums != old_tables.Sums(sum(held), len(held), sum(reserved), len(reserved))


def write(connection: Connection, video_root: Path, changes: Changes, host: str, now: float) -> None:
    """Write *changes* in the caller's transaction, then count sums and citations."""
    _insert(connection, tables.files, "id", changes.new_files)
    _insert(connection, tables.classes, "class_id", changes.new_classes)
    _update(connection, tables.files, "id", changes.files)
    _update(connection, tables.classes, "class_id", changes.classes)
    # What another program has written there may be no number.
    zero = update(tables.dirs).where(tables.dirs.c.dir == str(video_root)).values(size=0, num=0)
    connection.execute(zero)
    cache.recount(connection, video_root, airings.citations(connection))
    noted = [
        Event("taken over from the old program", class_id, values.get("video_id"), str(values["state"]))
        for class_id, values in (changes.new_classes | changes.classes).items()
        if "state" in values
    ]
    events.note(connection, tables.journal, host, noted, now)


def _insert(connection: Connection, table: Table, key: str, rows: Mapping[str, Values]) -> None:
    for several in _alike(rows).values():
        connection.execute(insert(table), [{key: name, **values} for name, values in several])


def _update(connection: Connection, table: Table, key: str, rows: Mapping[str, Values]) -> None:
    for columns, several in _alike(rows).items():
        wanted = update(table).where(table.c[key] == bindparam("its_key"))
        wanted = wanted.values({column: bindparam(f"its_{column}") for column in columns})
        connection.execute(
            wanted,
            [
                {"its_key": name} | {f"its_{column}": value for column, value in values.items()}
                for name, values in several
            ],
        )


def _alike(rows: Mapping[str, Values]) -> dict[tuple[str, ...], list[tuple[str, Values]]]:
    """The rows by the columns that they set: those of one kind are written by one statement."""
    alike: dict[tuple[str, ...], list[tuple[str, Values]]] = defaultdict(list)
    for name, values in rows.items():
        alike[tuple(sorted(values))].append((name, values))
    return alike


def unwritable(known: Known) -> list[str]:
    """Keys that are no text, so that no program can name their rows."""
    return [key for key in (*known.files, *known.classes) if not _is_text(key)]


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
