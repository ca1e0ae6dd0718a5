"""Moves of files that can be taken back: written down before the first, found again after a crash."""

import errno
import json
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lectern.errors import CallAPerson
from lectern.playout.index import path_of
from lectern.rollout.host import durable
from lectern.rollout.wording import counted, shown, some

MOST_SYNCS = 200
"""Number of changed folders above which the whole disk is synced by one call, not each folder."""

End = Literal["intended", "done", "undoing", "undone"]


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that is *made*, or else taken away because it is empty."""

    folder: str
    uid: int
    gid: int
    mode: int
    made: bool


@dataclass(frozen=True, slots=True)
class Move:
    """A file, link or folder that is renamed; *size_bytes* and *mtime_ns* are 0 where it is no file."""

    old: str
    new: str
    inode: int
    size_bytes: int
    mtime_ns: int


Step = Folder | Move


class MovesJournal:
    """All steps that were intended since they were last taken back, and how far they are; written whole, or not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps: list[Step] = []
        self._end: End = "undone"
        with suppress(FileNotFoundError):
            told = json.loads(path.read_bytes())
            self._end = told["end"]
            self.steps = [Move(**one) if "old" in one else Folder(**one) for one in told["steps"]]

    @property
    def is_done(self) -> bool:
        """Whether all that was intended was done, and not taken back."""
        return self._end == "done"

    @property
    def is_undone(self) -> bool:
        """Whether there is nothing to take back."""
        return self._end == "undone"

    @property
    def unfinished(self) -> Sequence[Step]:
        """What was intended where a crash may have left some of it undone."""
        return self.steps if self._end in {"intended", "undoing"} else []

    def end(self, how: End, more: Sequence[Step] = ()) -> None:
        """Note that *more* steps are intended, or that all are done, or taken back; it is on the disk then."""
        self.steps, self._end = [*self.steps, *more], how
        if how == "undone":
            self.steps = []
            durable.remove(self.path)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"end": how, "steps": [asdict(one) for one in self.steps]})  # ASCII, whatever a name holds
        durable.write(self.path, text.encode(), durable.PRIVATE)


def perform(steps: Sequence[Step], journal: MovesJournal) -> None:
    """Do *steps* in their order, so that they are on the disk when this returns.

    Raises CallAPerson where one cannot be done; nothing is ever overwritten.
    """
    for step in journal.unfinished:
        if isinstance(step, Folder):
            _unmake(_part(step.folder))
    if not steps:
        return
    journal.end("intended", steps)
    for step in steps:
        try:
            if isinstance(step, Move):
                _rename(step.old, step.new)
            elif step.made:
                _make(step)
            else:
                _unmake(step.folder)
        except OSError as error:
            thing = f"{step.old} to {step.new}" if isinstance(step, Move) else step.folder
            raise CallAPerson(
                f"{shown(thing)}: cannot be moved, made or taken away ({error.strerror}). What was moved before it "
                f"can be moved back."
            ) from error
    _sync(steps)


def undo(journal: MovesJournal) -> list[str]:
    """Take the steps of the journal back, the last one first; returns what was done, and what could not be done.

    Nothing is overwritten: what this program has evicted or replaced since, or what lies in the old place by now,
    stays as it is. Called again after a crash it goes on, after its end it does nothing.
    """
    if journal.is_undone:
        return []
    if not journal.unfinished:
        journal.end("undoing")
    back: list[str] = []
    left: dict[str, list[str]] = defaultdict(list)
    failed: list[str] = []
    steps = list(journal.steps)
    for step in reversed(steps):
        try:
            if isinstance(step, Folder):
                _take_folder_back(step)
            elif reason := _move_back(step):
                left[reason].append(f"{shown(step.old)} ({shown(step.new)})")
            elif reason is not None:
                back.append(shown(step.old))
        except OSError as error:
            thing = step.new if isinstance(step, Move) else step.folder
            failed.append(f"{shown(thing)}: {error.strerror}; mend it, and run this again")
    _sync(steps)
    if not failed:
        journal.end("undone")
    said = [f"{counted(len(back), 'file')} moved back: {some(back)}"] if back else []
    said += [f"{counted(len(those), 'file')} {reason}: {some(those)}" for reason, those in left.items()]
    return said + failed


def _take_folder_back(step: Folder) -> None:
    if not step.made:
        _make(step)
        return
    _unmake(step.folder)
    _unmake(_part(step.folder))


def _move_back(step: Move) -> str | None:
    """Why a file cannot be moved back; empty where it was, None where it need not be."""
    there, old = _look(step.new), _look(step.old)
    if there is None:
        is_back = old is not None and old.st_ino == step.inode
        return None if is_back else "cannot be moved back, for this program has evicted or moved them"
    if not _is_same(there, step):
        # Of a step that a crash has prevented, the old file is where it was.
        is_back = old is not None and _is_same(old, step)
        return None if is_back else "cannot be moved back, for they were replaced since"
    if old is not None:
        return "cannot be moved back, for there is something in their old place; they stay in the new one"
    Path(step.old).parent.mkdir(parents=True, exist_ok=True)
    path_of(Path(step.new)).unlink(missing_ok=True)  # made since, for the playout: its folder would stay for it
    _rename(step.new, step.old)
    return ""


def _look(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_same(found: os.stat_result, step: Move) -> bool:
    if found.st_ino != step.inode:
        return False
    return not stat.S_ISREG(found.st_mode) or (found.st_size, found.st_mtime_ns) == (step.size_bytes, step.mtime_ns)


def _rename(old: str, new: str) -> None:
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, "there is something in its place", new)
    os.rename(old, new)  # noqa: PTH104 (as text, which is quicker for so many)


def _make(step: Folder) -> None:
    """Make a folder that appears with its owner and mode; one that is there is left as it is."""
    if _look(step.folder) is not None:
        return
    part = _part(step.folder)
    with suppress(FileExistsError):
        os.mkdir(part, 0o700)  # noqa: PTH102 (as text, which is quicker for so many)
    found = os.lstat(part)
    if (found.st_uid, found.st_gid) != (step.uid, step.gid):
        os.chown(part, step.uid, step.gid)
    if stat.S_IMODE(found.st_mode) != step.mode:
        os.chmod(part, step.mode)  # noqa: PTH101 (the same)
    os.rename(part, step.folder)  # noqa: PTH104 (the same)


def _part(folder: str) -> str:
    """Where a folder is until it is as it should be; only one at a time is made."""
    return f"{os.path.dirname(folder)}/.lectern.part"  # noqa: PTH120 (the same)


def _unmake(folder: str) -> None:
    """Take a folder away; one that is not empty stays, because something was put there since."""
    try:
        os.rmdir(folder)  # noqa: PTH106 (as text, which is quicker for so many)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise


def _sync(steps: Iterable[Step]) -> None:
    """Put the names on the disk in which the steps changed something."""
    folders: set[str] = set()
    for step in steps:
        paths = (step.old, step.new) if isinstance(step, Move) else (step.folder,)
        folders.update(os.path.dirname(path) for path in paths)  # noqa: PTH120 (as text, which is quicker for so many)
    if len(folders) > MOST_SYNCS:
        os.sync()
        return
    for folder in folders:
        with suppress(FileNotFoundError, NotADirectoryError):
            durable.sync_folder(Path(folder))
