"""Step 7 of a streamer's rollout: makes old bookings and files classes and cached renditions."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, update

from lectern import rendition_ids
from lectern.db import airings, cache, events
from lectern.db.engine import put_row, transaction
from lectern.errors import Misuse
from lectern.i18n import Text, joined, msgid
from lectern.model.facts import Event
from lectern.model.tables import streamer as tables
from lectern.rollout.files import Owner
from lectern.rollout.result import at, shown, some
from lectern.rollout.takeover import old_database, old_files
from lectern.rollout.takeover.old_database import Judged, OldClassRow, OldFileRow
from lectern.rollout.takeover.old_files import Claims, Recording, Strange
from lectern.states import LIVE_AIRINGS, AiringState, FileState
from lectern.storage import cache_dir

Values = dict[str, Any]
_NO_FILE = OldFileRow("")
_NO_TEXT = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Known:
    """What the tables hold already: nothing, or what was there before a rollback."""

    files: Mapping[str, OldFileRow]
    classes: Mapping[str, OldClassRow]


@dataclass(frozen=True)
class AdoptedChanges:
    """Columns to be set, by the key of their row; whole rows if there is none yet."""

    files: dict[str, Values]
    classes: dict[str, Values]


def planned_rows(
    known: Known, video_root: Path, judged: Judged, recordings: Mapping[str, Recording], now: float
) -> AdoptedChanges:
    """What must be changed. Runs of an earlier time are not trusted: the sweeper schedules each class again."""
    files: dict[str, Values] = {}
    cited = {class_.stem for class_ in judged.going}
    for stem in sorted(recordings.keys() | known.files.keys() | cited):
        before, recording, url = known.files.get(stem, _NO_FILE), recordings.get(stem), judged.urls.get(stem)
        if recording is not None:
            files[stem] = _ready(before, recording, url)
        elif stem in cited:
            files[stem] = {  # the sweeper has it downloaded
                "state": FileState.DOWNLOADING,
                "site": str(cache_dir.rendition_path(video_root, stem)),
                "size_bytes": before.size_bytes or 0,
                "update_time": 0.0,  # the oldest possible time: nobody is downloading it
                "url": before.url or url,
                "tries": 0,
                **dict.fromkeys(("etag", "crc64", "duration_s", "reason")),
            }
        elif before.state not in {FileState.BAD, FileState.EVICTING}:  # these take no room, and can be downloaded again
            files[stem] = {"state": FileState.BAD, "reason": "its file was not there at the rollout"}
    classes: dict[str, Values] = {}
    for class_ in judged.going:
        row = known.classes.get(class_.class_id)
        classes[class_.class_id] = {
            "video_id": class_.stem,
            "site": (row and row.site) or str(cache_dir.rendition_path(video_root, class_.stem)),
            "state": AiringState.READY if class_.stem in recordings else AiringState.WAITING,
            "record_id": rendition_ids.record_of(class_.stem),
            **dict.fromkeys(("run_id", "released_at", "code", "message")),
        }
    closed = dict(_closed(known.classes, judged, now))
    return AdoptedChanges(_new(files, known.files), {**_new(classes, known.classes), **closed})


def _new(wanted: Mapping[str, Values], known: Mapping[str, OldFileRow | OldClassRow]) -> dict[str, Values]:
    """The values of each row that the tables do not have yet."""
    new = {
        key: {name: value for name, value in row.items() if key not in known or getattr(known[key], name) != value}
        for key, row in wanted.items()
    }
    return {key: row for key, row in new.items() if row}


def _ready(before: OldFileRow, recording: Recording, url: str | None) -> Values:
    """The columns of a rendition whose file is there; what is known of the same file is kept."""
    recording_file = recording.found
    is_same = before.size_bytes in {None, recording_file.size_bytes}
    known_s = before.duration_s if is_same else None
    return {
        "state": FileState.READY,
        "site": recording.place,
        "size_bytes": recording_file.size_bytes,
        "update_time": recording_file.mtime_ns / 1e9 if before.update_time is None else before.update_time,
        "url": before.url or url,
        "duration_s": recording.duration_s if known_s is None else known_s,
        "tries": 0,
        "reason": None,
        **({} if is_same else {"etag": None, "crc64": None}),
    }


def _closed(known: Mapping[str, OldClassRow], judged: Judged, now: float) -> Iterator[tuple[str, Values]]:
    """Release the former classes that will not be aired."""
    listed, going = {task.class_id for task in judged.tasks}, {class_.class_id for class_ in judged.going}
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


def write_rows(connection: Connection, video_root: Path, changes: AdoptedChanges, host: str, now: float) -> None:
    """Write *changes* in the caller's transaction, then count sums and citations."""
    for stem, values in changes.files.items():
        put_row(connection, tables.files, {"id": stem}, **values)
    for class_id, values in changes.classes.items():
        put_row(connection, tables.classes, {"class_id": class_id}, **values)
    # Another program may have written something there that is no number.
    zero = update(tables.dirs).where(tables.dirs.c.dir == str(video_root)).values(size=0, num=0)
    connection.execute(zero)
    cache.recount(connection, video_root, airings.citations(connection))
    noted = [
        Event(msgid("taken over from the old program"), class_id, values.get("video_id"), str(values["state"]))
        for class_id, values in changes.classes.items()
        if "state" in values
    ]
    events.note(connection, host, noted, now)


MOST_REFUSALS = 20
"""Number of classes that are named one by one; the next try names others, once these are corrected."""


@dataclass(frozen=True)
class Sources:
    """Where old recordings may lie, and the journal of their moves.

    *record_patterns* find the record_id in the path of an old video_url, or in the path of a file below its root.
    """

    video_root: Path
    old_video_roots: Sequence[Path]
    record_patterns: Sequence[str]
    moves_journal: Path


@dataclass(frozen=True)
class StreamerAdoption:
    """What `adopt` would do: *refusals* say why it may not, *said* what it changes and what it leaves alone."""

    moves: tuple[Recording, ...]
    strange: tuple[Strange, ...]
    changes: AdoptedChanges
    refusals: tuple[str, ...]
    said: tuple[str, ...]


def planned(connection: Connection, sources: Sources, now: float) -> StreamerAdoption:
    """What `adopt` would do; reads only, and also before the schema's upgrade.

    Raises Misuse if a folder cannot be read.
    """
    video_root, patterns = sources.video_root, sources.record_patterns
    database = old_database.database_file(connection)
    known = Known(old_database.files(connection), old_database.classes(connection))
    judged = old_database.judge(old_database.tasks(connection), known.classes, patterns, now)
    found, elsewhere = old_files.scan(video_root, sources.old_video_roots, database)
    recordings, strange = old_files.match(found, Claims(judged.tasks, patterns), video_root)
    refusals = [*_of_places(known, elsewhere, video_root, database), *judged.refusals]
    refusals += _unobtainable(judged, recordings)
    if (more := len(refusals) - MOST_REFUSALS) > 0:
        refusals[MOST_REFUSALS:] = [Text("and {n:,} more", n=more)]
    moves = [recording for _, recording in sorted(recordings.items()) if recording.found.path != recording.place]
    aside = old_files.to_quarantine(strange, video_root)
    changes = planned_rows(known, video_root, judged, recordings, now)
    said = _said(moves, aside, changes, judged, video_root)
    return StreamerAdoption(tuple(moves), aside, changes, tuple(refusals), tuple(said))


def adopt(engine: Engine, sources: Sources, host: str, now: float) -> list[str]:
    """Move the files, then write the rows; returns what was done, nothing if nothing was to do.

    Nothing else may use the database or the folders meanwhile. If it is killed, the next call finishes it. *host* is
    the streamer's name in its events. Raises Misuse, before anything is changed, if `planned` has refusals;
    CallAPerson if a file cannot be moved.
    """
    with engine.connect() as connection:
        plan, database = planned(connection, sources, now), old_database.database_file(connection)
    if plan.refusals:
        raise Misuse("The old classes and recordings cannot be taken over: {refusals}.", refusals=joined(plan.refusals))
    steps = old_files.moves([*plan.strange, *plan.moves])
    # New folders belong to the owner of the store or, while there is no store, of the database.
    like = sources.video_root if sources.video_root.is_dir() else database or Path.cwd()
    old_files.perform_moves(steps, sources.moves_journal, replace(Owner.of(like), mode=0o755))
    with transaction(engine) as connection:
        write_rows(connection, sources.video_root, plan.changes, host, now)
    return list(plan.said) if steps or plan.changes.files or plan.changes.classes else []


def _of_places(known: Known, elsewhere: Iterable[str], video_root: Path, database: Path | None) -> Iterator[str]:
    """Folders that cannot be put in order, and rows that cannot be named."""
    if video_root.exists() and not video_root.is_dir():
        yield Text("{path} is no folder; set VIDEO_ROOT to one", path=shown(video_root))
        return
    quarantine = video_root / cache_dir.QUARANTINE
    if quarantine.is_symlink() or (quarantine.exists() and not quarantine.is_dir()):
        yield Text("{path} is no folder; move it away", path=shown(quarantine))
    if database is not None and video_root.resolve() in database.resolve().parent.parents:
        yield Text(
            "{database} lies in a folder of {root}, in which this program puts everything in order; set VIDEO_ROOT to "
            "a folder without programs",
            database=shown(database),
            root=shown(video_root),
        )
    for folder in elsewhere:
        yield Text(
            "{folder} is on another file system than {root}, and files go there by rename only; take it out of "
            "old_video_roots, or set VIDEO_ROOT to a folder on it",
            folder=shown(folder),
            root=shown(video_root),
        )
    for key in filter(_NO_TEXT.search, (*known.files, *known.classes)):
        text = msgid("the key {key} in class_list or video_list is no UTF-8 text; take the row out")
        yield Text(text, key=shown(key))


def _unobtainable(judged: Judged, recordings: Mapping[str, Recording]) -> Iterator[str]:
    for it in judged.going:
        if it.stem not in recordings and it.stem not in judged.urls:
            why = Text(
                "its recording {stem} is not on this host, and its video_url is no http address; put the file into "
                "old_video_roots, or cancel the class in the old program",
                stem=it.stem,
            )
            yield Text("class {class_id} at {start}: {why}", class_id=shown(it.class_id), start=at(it.start), why=why)


_COUNTED: Mapping[str, Callable[[int], str]] = {
    "recording": lambda n: Text.many("{n:,} recording", "{n:,} recordings", n=n),
    "file": lambda n: Text.many("{n:,} file", "{n:,} files", n=n),
    "row": lambda n: Text.many("{n:,} row", "{n:,} rows", n=n),
    "class": lambda n: Text.many("{n:,} class", "{n:,} classes", n=n),
}
_FILES = {
    FileState.READY: Text("ready, in video_list"),
    FileState.DOWNLOADING: Text("to be downloaded, because a class needs it and it is not here"),
    FileState.BAD: Text("in video_list, but not here: it takes no room any more"),
}
_CLASSES = {
    AiringState.READY: Text("taken over, ready to be aired"),
    AiringState.WAITING: Text("taken over, waiting for its recording"),
    AiringState.AIRED: Text("in class_list, but ended: it needs its recording no more"),
    AiringState.CANCELLED: Text(
        "in class_list, but not, or without times, in task_list: it needs its recording no more"
    ),
}


def _said(
    moves: Iterable[Recording], strange: Iterable[Strange], changes: AdoptedChanges, judged: Judged, video_root: Path
) -> Iterator[str]:
    """One sentence a kind of change, and of what is left alone; none of a kind that there is not."""
    renamed = (
        Text("{old} to {new}", old=shown(recording.found.path), new=Path(recording.place).relative_to(video_root))
        for recording in moves
    )
    aside = (Text("{file} ({why})", file=shown(file.found.path), why=file.why) for file in strange)
    kinds: list[tuple[str, str, Iterable[str]]] = [
        ("recording", Text("moved to record-id names"), renamed),
        ("file", Text("moved to {folder}", folder=video_root / cache_dir.QUARANTINE), aside),
        *(("recording", text, _getting(state, changes.files)) for state, text in _FILES.items()),
        ("row", Text("of video_list completed"), _getting(None, changes.files)),
        *(("class", text, map(shown, _getting(state, changes.classes))) for state, text in _CLASSES.items()),
        ("row", Text("of class_list completed"), map(shown, _getting(None, changes.classes))),
        ("row", Text("of task_list left alone, because their times cannot be read"), judged.unreadable.values()),
        ("class", Text("still refused, as this program has answered before"), judged.refused),
    ]
    for thing, what, names in kinds:
        if known := list(names):
            yield Text("{things} {what}: {names}", things=_COUNTED[thing](len(known)), what=what, names=some(known))


def _getting(state: FileState | AiringState | None, rows: Mapping[str, Values]) -> list[str]:
    """The keys of the *rows* that get *state*; None: of those that keep theirs."""
    return [key for key, row in rows.items() if row.get("state") is state]
