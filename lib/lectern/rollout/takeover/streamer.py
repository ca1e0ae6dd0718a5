"""Step 7 of a streamer's rollout: makes old bookings and files classes and cached renditions."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection, Engine

from lectern.effects.files import store
from lectern.effects.rows.tables.engine import transaction
from lectern.errors import Misuse
from lectern.rollout.host.durable import Owner
from lectern.rollout.takeover import moves as file_moves
from lectern.rollout.takeover import old_classes, old_files, old_recordings, old_tables
from lectern.rollout.takeover import rows as adopted_rows
from lectern.rollout.takeover.old_classes import Judged
from lectern.rollout.takeover.old_files import Scan
from lectern.rollout.takeover.old_recordings import Claims, Matched, Recording, Strange
from lectern.rollout.takeover.rows import Changes, Known
from lectern.rollout.wording import at, shown, some
from lectern.states import AiringState, FileState
from lectern.words import counted

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
class Adoption:
    """What `adopt` would do: *refusals* say why it may not, *said* what it changes and what it leaves alone."""

    moves: tuple[Recording, ...]
    strange: tuple[Strange, ...]
    changes: Changes
    refusals: tuple[str, ...]
    said: tuple[str, ...] = ()


def planned(connection: Connection, sources: Sources, now: float) -> Adoption:
    """What `adopt` would do; reads only, and also before the schema's upgrade.

    Raises Misuse if a folder cannot be read.
    """
    video_root, patterns = sources.video_root, sources.record_patterns
    database = old_tables.database_file(connection)
    known = Known(old_tables.files(connection), old_tables.classes(connection))
    judged = old_classes.judge(old_tables.tasks(connection), known.classes, patterns, now)
    scan = old_files.scan(video_root, sources.old_video_roots, database)
    matched = old_recordings.match(scan.found, Claims(judged.tasks, patterns), video_root)
    refusals = [*_of_places(known, scan, video_root, database), *judged.refusals, *_unobtainable(judged, matched)]
    plan = Adoption(
        old_recordings.to_move(matched),
        old_recordings.to_quarantine(matched, video_root),
        adopted_rows.planned(known, video_root, judged, matched.recordings, now),
        _bounded(refusals),
    )
    return replace(plan, said=tuple(_said(plan, judged, video_root)))


def adopt(engine: Engine, sources: Sources, host: str, now: float) -> list[str]:
    """Move the files, then write the rows; returns what was done, nothing if nothing was to do.

    Nothing else may use the database or the folders meanwhile. If it is killed, the next call finishes it. *host* is
    the streamer's name in its events. Raises Misuse, before anything is changed, if `planned` has refusals;
    CallAPerson if a file cannot be moved.
    """
    with engine.connect() as connection:
        plan, database = planned(connection, sources, now), old_tables.database_file(connection)
    if plan.refusals:
        raise Misuse(f"The old classes and recordings cannot be taken over: {'; '.join(plan.refusals)}.")
    steps = old_recordings.moves([*plan.strange, *plan.moves])
    file_moves.perform(steps, sources.moves_journal, _owner(sources.video_root, database))
    with transaction(engine) as connection:
        adopted_rows.write(connection, sources.video_root, plan.changes, host, now)
    return list(plan.said) if steps or plan.changes.files or plan.changes.classes else []


def _owner(video_root: Path, database: Path | None) -> Owner:
    """The owner of new folders: that of the store, or that of the database while there is no store."""
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


_CLASS = ("class", "classes")
_FILES = {
    FileState.READY: "ready, in video_list",
    FileState.DOWNLOADING: "to be downloaded, because a class needs it and it is not here",
    FileState.BAD: "in video_list, but not here: it takes no room any more",
}
_CLASSES = {
    AiringState.READY: "taken over, ready to be aired",
    AiringState.WAITING: "taken over, waiting for its recording",
    AiringState.AIRED: "in class_list, but ended: it needs its recording no more",
    AiringState.CANCELLED: "in class_list, but not, or without times, in task_list: it needs its recording no more",
}


def _said(plan: Adoption, judged: Judged, video_root: Path) -> Iterator[str]:
    """One sentence a kind of change, and of what is left alone."""
    renamed = (f"{shown(one.found.path)} to {Path(one.place).relative_to(video_root)}" for one in plan.moves)
    yield from _told(renamed, "moved to record-id names", "recording")
    aside = (f"{shown(one.found.path)} ({one.why})" for one in plan.strange)
    yield from _told(aside, f"moved to {video_root / store.QUARANTINE}", "file")
    files, classes = plan.changes.files, plan.changes.classes
    for file_state, said in _FILES.items():
        yield from _told((stem for stem, row in files.items() if row.get("state") is file_state), said, "recording")
    yield from _told((stem for stem, row in files.items() if "state" not in row), "of video_list completed", "row")
    for state, said in _CLASSES.items():
        yield from _told((shown(one) for one, row in classes.items() if row.get("state") is state), said, *_CLASS)
    completed = (shown(one) for one, row in classes.items() if "state" not in row)
    yield from _told(completed, "of class_list completed", "row")
    yield from _told(judged.unreadable.values(), "of task_list left alone, because their times cannot be read", "row")
    yield from _told(judged.refused, "still refused, as this program has answered before", *_CLASS)


def _told(names: Iterable[str], said: str, thing: str, things: str | None = None) -> Iterator[str]:
    """A sentence with the number of *names*, and some of them; none if there are no names."""
    known = list(names)
    if known:
        yield f"{counted(len(known), thing, things)} {said}: {some(known)}"
