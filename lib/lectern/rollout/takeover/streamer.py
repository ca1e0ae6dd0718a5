"""Step 7 of a streamer's rollout: makes old bookings and files classes and cached renditions."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
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
from lectern.rollout.result import shown, some
from lectern.rollout.spec import Spec
from lectern.rollout.takeover import old_database, old_files
from lectern.rollout.takeover.old_database import OldClassRow, OldFileRow
from lectern.rollout.takeover.old_files import Claims, Recording
from lectern.states import LIVE_AIRINGS, AiringState, FileState
from lectern.storage import cache_dir

Values = dict[str, Any]
_NO_FILE = OldFileRow("")
_NO_TEXT = re.compile("[\ud800-\udfff]")


MOVES = "moves.json"
"""The file, in the backup, of what was moved: a rollback moves it back."""
MOST_REFUSALS = 20
"""Number of classes that are named one by one; the next try names others, once these are corrected."""


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


class StreamerAdoption:
    """What `adopt` would do: *refusals* say why it may not, *said* what it changes and what it leaves alone.

    *files* and *classes* are the columns to be set, by the key of their row; whole rows if there is none yet.
    """

    def __init__(self, connection: Connection, wanted: Spec, now: float) -> None:
        """Read database and folders, also before the schema's upgrade; raises Misuse if a folder cannot be read."""
        assert wanted.video_root is not None  # a streamer has one, as parsing has checked
        self._root, patterns = wanted.video_root, wanted.record_patterns
        self.database = old_database.database_file(connection)
        # What the tables hold already: nothing, or what was there before a rollback.
        self._known_files, self._known = old_database.files(connection), old_database.classes(connection)
        self._judged = old_database.judge(old_database.tasks(connection), self._known, patterns, now)
        found, elsewhere = old_files.scan(self._root, wanted.old_video_roots, self.database)
        self._recordings, self.strange = old_files.match(found, Claims(self._judged.tasks, patterns), self._root)
        self.refusals = [*self._of_places(elsewhere), *self._judged.refusals, *self._unobtainable()]
        if (more := len(self.refusals) - MOST_REFUSALS) > 0:
            self.refusals[MOST_REFUSALS:] = [Text("and {n:,} more", n=more)]
        in_order = [recording for _, recording in sorted(self._recordings.items())]
        self.moves = [recording for recording in in_order if recording.found.path != recording.place]
        # Below it each strange file keeps its whole path: no two can have the same place.
        self.aside = self._root / cache_dir.QUARANTINE / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        self.files = _new(dict(self._cached()), self._known_files)
        self.classes = {**_new(dict(self._going()), self._known), **dict(self._closed(now))}
        self.said = [*self._sentences()]

    def _of_places(self, elsewhere: Iterable[str]) -> Iterator[str]:
        """Folders that cannot be put in order, and rows that cannot be named."""
        root, database = self._root, self.database
        if root.exists() and not root.is_dir():
            yield Text("{path} is no folder; set VIDEO_ROOT to one", path=shown(root))
            return
        quarantine = root / cache_dir.QUARANTINE
        if quarantine.is_symlink() or (quarantine.exists() and not quarantine.is_dir()):
            yield Text("{path} is no folder; move it away", path=shown(quarantine))
        if database is not None and root.resolve() in database.resolve().parent.parents:
            yield Text(
                "{database} lies in a folder of {root}, in which this program puts everything in order; set VIDEO_ROOT "
                "to a folder without programs",
                database=shown(database),
                root=shown(root),
            )
        for folder in elsewhere:
            yield Text(
                "{folder} is on another file system than {root}, and files go there by rename only; take it out of "
                "old_video_roots, or set VIDEO_ROOT to a folder on it",
                folder=shown(folder),
                root=shown(root),
            )
        for key in filter(_NO_TEXT.search, (*self._known_files, *self._known)):
            text = msgid("the key {key} in class_list or video_list is no UTF-8 text; take the row out")
            yield Text(text, key=shown(key))

    def _unobtainable(self) -> Iterator[str]:
        for it in self._judged.going:
            if it.stem not in self._recordings and it.stem not in self._judged.urls:
                why = Text(
                    "its recording {stem} is not on this host, and its video_url is no http address; put the file into "
                    "old_video_roots, or cancel the class in the old program",
                    stem=it.stem,
                )
                text = msgid("class {class_id} at {start:moment}: {why}")
                yield Text(text, class_id=shown(it.class_id), start=it.start, why=why)

    def _cached(self) -> Iterator[tuple[str, Values]]:
        """The columns of each rendition whose file is there, that a class needs, or whose file was there once."""
        cited = {class_.stem for class_ in self._judged.going}
        for stem in sorted(self._recordings.keys() | self._known_files.keys() | cited):
            before, recording = self._known_files.get(stem, _NO_FILE), self._recordings.get(stem)
            url = before.url or self._judged.urls.get(stem)
            if recording is not None:
                yield stem, _ready(before, recording, url)
            elif stem in cited:
                values = {  # the sweeper has it downloaded
                    "state": FileState.DOWNLOADING,
                    "site": str(cache_dir.rendition_path(self._root, stem)),
                    "size_bytes": before.size_bytes or 0,
                    "update_time": 0.0,  # the oldest possible time: nobody is downloading it
                    "url": url,
                    "tries": 0,
                }
                yield stem, values | dict.fromkeys(("etag", "crc64", "duration_s", "reason"))
            elif before.state not in {
                FileState.BAD,
                FileState.EVICTING,
            }:  # these take no room, and can be fetched again
                yield stem, {"state": FileState.BAD, "reason": "its file was not there at the rollout"}

    def _going(self) -> Iterator[tuple[str, Values]]:
        """The columns of each class that has not ended.

        Runs of an earlier time are not trusted: the sweeper schedules each class again.
        """
        for class_ in self._judged.going:
            row = self._known.get(class_.class_id)
            values = {
                "video_id": class_.stem,
                "site": (row and row.site) or str(cache_dir.rendition_path(self._root, class_.stem)),
                "state": AiringState.READY if class_.stem in self._recordings else AiringState.WAITING,
                "record_id": rendition_ids.record_of(class_.stem),
            }
            yield class_.class_id, values | dict.fromkeys(("run_id", "released_at", "code", "message"))

    def _closed(self, now: float) -> Iterator[tuple[str, Values]]:
        """Release the former classes that will not be aired."""
        judged = self._judged
        listed, going = {task.class_id for task in judged.tasks}, {class_.class_id for class_ in judged.going}
        for class_id, before in self._known.items():
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

    def _sentences(self) -> Iterator[str]:
        """One sentence a kind of change, and of what is left alone; none of a kind that there is not."""
        renamed = (
            Text("{old} to {new}", old=shown(recording.found.path), new=Path(recording.place).relative_to(self._root))
            for recording in self.moves
        )
        aside = (Text("{file} ({why})", file=shown(file.found.path), why=file.why) for file in self.strange)
        judged = self._judged
        kinds: list[tuple[str, str, Iterable[str]]] = [
            ("recording", Text("moved to record-id names"), renamed),
            ("file", Text("moved to {folder}", folder=self._root / cache_dir.QUARANTINE), aside),
            *(("recording", text, _getting(state, self.files)) for state, text in _FILES.items()),
            ("row", Text("of video_list completed"), _getting(None, self.files)),
            *(("class", text, map(shown, _getting(state, self.classes))) for state, text in _CLASSES.items()),
            ("row", Text("of class_list completed"), map(shown, _getting(None, self.classes))),
            ("row", Text("of task_list left alone, because their times cannot be read"), judged.unreadable.values()),
            ("class", Text("still refused, as this program has answered before"), judged.refused),
        ]
        for thing, what, names in kinds:
            if known := list(names):
                yield Text("{things} {what}: {names}", things=_COUNTED[thing](len(known)), what=what, names=some(known))

    def write(self, connection: Connection, host: str, now: float) -> None:
        """Write the rows in the caller's transaction, then count sums and citations."""
        for stem, values in self.files.items():
            put_row(connection, tables.files, {"id": stem}, **values)
        for class_id, values in self.classes.items():
            put_row(connection, tables.classes, {"class_id": class_id}, **values)
        # Another program may have written something there that is no number.
        zero = update(tables.dirs).where(tables.dirs.c.dir == str(self._root)).values(size=0, num=0)
        connection.execute(zero)
        cache.recount(connection, self._root, airings.citations(connection))
        noted = [
            Event(msgid("taken over from the old program"), class_id, values.get("video_id"), str(values["state"]))
            for class_id, values in self.classes.items()
            if "state" in values
        ]
        events.note(connection, host, noted, now)


def adopt(engine: Engine, wanted: Spec, now: float) -> list[str]:
    """Move the files, then write the rows; returns what was done, nothing if nothing was to do.

    Nothing else may use the database or the folders meanwhile. If it is killed, the next call finishes it. Raises
    Misuse, before anything is changed, if there are refusals; CallAPerson if a file cannot be moved.
    """
    with engine.connect() as connection:
        plan = StreamerAdoption(connection, wanted, now)
    if plan.refusals:
        raise Misuse("The old classes and recordings cannot be taken over: {refusals}.", refusals=joined(plan.refusals))
    # New folders belong to the owner of the store or, while there is no store, of the database.
    like = wanted.video_root if wanted.video_root and wanted.video_root.is_dir() else plan.database or Path.cwd()
    owner = replace(Owner.of(like), mode=0o755)
    old_files.move_all(plan.strange, plan.aside, plan.moves, wanted.backup_dir / MOVES, owner)
    with transaction(engine) as connection:
        plan.write(connection, wanted.name, now)
    return plan.said if plan.strange or plan.moves or plan.files or plan.classes else []


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
        "url": url,
        "duration_s": recording.duration_s if known_s is None else known_s,
        "tries": 0,
        "reason": None,
        **({} if is_same else {"etag": None, "crc64": None}),
    }


def _getting(state: FileState | AiringState | None, rows: Mapping[str, Values]) -> list[str]:
    """The keys of the *rows* that get *state*; None: of those that keep theirs."""
    return [key for key, row in rows.items() if row.get("state") is state]
