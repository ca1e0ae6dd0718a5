"""Step 7 of a streamer's rollout: old bookings and old files become classes and cached renditions, and go back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from lectern.effects.files import store
from lectern.effects.rows.tables.engine import transaction
from lectern.errors import Misuse
from lectern.rollout.host.durable import Owner
from lectern.rollout.takeover import moves as file_moves
from lectern.rollout.takeover import old_classes, old_files, old_recordings, old_tables, places
from lectern.rollout.takeover import rows as adopted_rows
from lectern.rollout.takeover.old_classes import Judged
from lectern.rollout.takeover.old_files import Scan
from lectern.rollout.takeover.old_recordings import Claims, Matched, Recording, Strange
from lectern.rollout.takeover.rows import Changes, Known, Values
from lectern.rollout.wording import at, counted, shown, some
from lectern.states import AiringState, FileState

MOST_REFUSALS = 20
"""Number of classes that are named one by one; the next try names others, once these are mended."""


@dataclass(frozen=True)
class Sources:
    """Where old recordings may lie, and where it is written down what was moved.

    *record_patterns* find the record in the path of an old video_url, or in that of a file below its root.
    """

    video_root: Path
    old_video_roots: Sequence[Path]
    record_patterns: Sequence[str]
    moves_journal: Path


@dataclass(frozen=True)
class Adoption:
    """What the migration would do; *refusals* say why it may not, *said* what it does and what it leaves alone."""

    moves: tuple[Recording, ...]
    strange: tuple[Strange, ...]
    refusals: tuple[str, ...]
    said: tuple[str, ...]
    changes: Changes


def planned(connection: Connection, sources: Sources, now: float) -> Adoption:
    """What `adopt` would do; reads only, and also before the schema's upgrade.

    Raises Misuse where a folder cannot be read.
    """
    video_root, patterns = sources.video_root, sources.record_patterns
    database = old_tables.database_file(connection)
    known = Known(old_tables.files(connection), old_tables.classes(connection))
    judged = old_classes.judge(old_tables.tasks(connection), known.classes, patterns, now)
    scan = old_files.scan(video_root, sources.old_video_roots, database)
    matched = old_recordings.match(scan.found, Claims(judged.tasks, patterns), video_root)
    changes = adopted_rows.planned(known, video_root, judged, matched.recordings, now)
    moves, strange = places.recordings(matched), places.quarantined(matched, video_root)
    refusals = [*_of_places(known, scan, video_root, database), *judged.refusals, *_unobtainable(judged, matched)]
    return Adoption(
        moves,
        strange,
        _bounded(refusals),
        (*_said(moves, strange, changes, video_root), *_left_alone(judged)),
        changes,
    )


def adopt(engine: Engine, sources: Sources, host: str, now: float) -> list[str]:
    """Move the files, then write the rows; returns what was done, nothing where nothing was to do.

    Nothing else may use the database or the folders meanwhile. Killed anywhere, the next call finishes it. *host* is
    the streamer's name in its events. Raises Misuse, before anything is changed, where `planned` has refusals;
    CallAPerson where a file cannot be moved.
    """
    with engine.connect() as connection:
        plan, database = planned(connection, sources, now), old_tables.database_file(connection)
    if plan.refusals:
        raise Misuse(f"The old classes and recordings cannot be taken over: {'; '.join(plan.refusals)}.")
    steps = places.moves([*plan.strange, *plan.moves])
    file_moves.perform(steps, sources.moves_journal, _owner(sources.video_root, database))
    with transaction(engine) as connection:
        adopted_rows.write(connection, sources.video_root, plan.changes, host, now)
    return list(plan.said) if steps or plan.changes.files or plan.changes.classes else []


def _owner(video_root: Path, database: Path | None) -> Owner:
    """Who shall own the folders that are made: who owns the store, or the database while there is no store."""
    return replace(Owner.of(video_root if video_root.is_dir() else database or Path.cwd()), mode=0o755)


# -- why not -------------------------------------------------------------------------------------------------------


def _of_places(known: Known, scan: Scan, video_root: Path, database: Path | None) -> Iterator[str]:
    """Folders that cannot be put in order, and rows that cannot be named."""
    if video_root.exists() and not video_root.is_dir():
        yield f"{shown(video_root)} is no folder; set VIDEO_ROOT to one"
        return
    quarantine = video_root / store.QUARANTINE
    if quarantine.is_symlink() or (quarantine.exists() and not quarantine.is_dir()):
        yield f"{shown(quarantine)} is no folder; move it away"
    if database is not None and video_root.resolve() in database.resolve().parent.parents:
        yield (
            f"{shown(database)} lies in a folder of {shown(video_root)}, in which this program puts everything in "
            f"order; set VIDEO_ROOT to a folder without programs"
        )
    for folder in scan.elsewhere:
        yield (
            f"{shown(folder)} is on another file system than {shown(video_root)}, and files go there by rename only; "
            f"take it out of old_video_roots, or set VIDEO_ROOT to a folder on it"
        )
    for key in adopted_rows.unwritable(known):
        yield f"the key {shown(key)} in class_list or video_list is no UTF-8 text; take the row out"


def _unobtainable(judged: Judged, matched: Matched) -> Iterator[str]:
    for one in judged.going:
        if one.stem not in matched.recordings and one.stem not in judged.urls:
            yield (
                f"class {shown(one.class_id)} at {at(one.start)}: its recording {one.stem} is not on this host, and "
                f"its video_url is no http address; put the file into old_video_roots, or cancel the class in the old "
                f"program"
            )


def _bounded(refusals: Sequence[str]) -> tuple[str, ...]:
    more = len(refusals) - MOST_REFUSALS
    return (*refusals[:MOST_REFUSALS], f"and {more} more") if more > 0 else tuple(refusals)


# -- what is said --------------------------------------------------------------------------------------------------


def _said(moves: Sequence[Recording], strange: Sequence[Strange], changes: Changes, video_root: Path) -> Iterator[str]:
    """One sentence a kind of change."""
    if moves:
        named = (f"{shown(one.found.path)} to {Path(one.place).relative_to(video_root)}" for one in moves)
        yield f"{counted(len(moves), 'recording')} moved to record-id names: {some(named, len(moves))}"
    if strange:
        named = (f"{shown(one.found.path)} ({one.why})" for one in strange)
        yield f"{counted(len(strange), 'file')} moved to {video_root / store.QUARANTINE}: {some(named, len(strange))}"
    yield from _said_of(changes.files, ("recording", "recordings"), "video_list", _FILES)
    classes = {shown(class_id): values for class_id, values in changes.classes.items()}
    yield from _said_of(classes, ("class", "classes"), "class_list", _CLASSES)


_FILES = {
    FileState.READY: "ready, in video_list",
    FileState.DOWNLOADING: "to be downloaded, for a class needs it and it is not here",
    FileState.BAD: "in video_list, but not here: it takes no room any more",
}
_CLASSES = {
    AiringState.READY: "taken over, ready to be aired",
    AiringState.WAITING: "taken over, waiting for its recording",
    AiringState.AIRED: "in class_list, but ended: it needs its recording no more",
    AiringState.CANCELLED: "in class_list, but not, or without times, in task_list: it needs its recording no more",
}


def _said_of(
    rows: Mapping[str, Values], things: tuple[str, str], table: str, words: Mapping[Any, str]
) -> Iterator[str]:
    for state, said in words.items():
        those = [name for name, values in rows.items() if values.get("state") is state]
        if those:
            yield f"{counted(len(those), *things)} {said}: {some(those)}"
    others = [name for name, values in rows.items() if "state" not in values]
    if others:
        yield f"{counted(len(others), 'row')} of {table} completed: {some(others)}"


def _left_alone(judged: Judged) -> Iterator[str]:
    if judged.unread:
        number = counted(len(judged.unread), "row")
        yield f"{number} of task_list left alone, for their times cannot be read: {some(judged.unread)}"
    if judged.refused:
        number = counted(len(judged.refused), "class", "classes")
        yield f"{number} still refused, as this program has answered before: {some(judged.refused)}"
