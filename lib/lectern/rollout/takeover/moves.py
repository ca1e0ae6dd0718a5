"""Moves of files that can be undone: recorded before the first move, found again after a crash."""

import json
import os
import stat
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lectern.errors import CallAPerson
from lectern.playout.index import path_of
from lectern.rollout.host import durable
from lectern.rollout.host.durable import Owner
from lectern.rollout.wording import shown, some
from lectern.words import counted


@dataclass(frozen=True, slots=True)
class Move:
    """A renaming of a file, link or folder; *size_bytes* and *mtime_ns* matter only for a file."""

    old: str
    new: str
    inode: int
    size_bytes: int
    mtime_ns: int


@dataclass
class _Noted:
    """What may have been done since the last undo: moves, and folders made for them."""

    moves: list[Move] = field(default_factory=list)
    made: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, journal: Path) -> "_Noted":
        try:
            told = json.loads(journal.read_bytes())
        except FileNotFoundError:
            return cls()
        return cls([Move(**one) for one in told["moves"]], told["made"])

    def write(self, journal: Path) -> None:
        journal.parent.mkdir(parents=True, exist_ok=True)
        durable.write(journal, json.dumps(asdict(self)).encode(), durable.PRIVATE)  # ASCII, whatever a name holds


def perform(moves: Sequence[Move], journal: Path, owner: Owner) -> None:
    """Do *moves* in their order, and return when they are on the disk; *owner* gets the new folders.

    Raises CallAPerson if a move fails; nothing is ever overwritten.
    """
    if not moves:
        return
    noted, gone = _Noted.read(journal), {one.old for one in moves}
    above = {str(folder) for one in moves for folder in Path(one.new).parents}
    missing = sorted(one for one in above if one in gone or not Path(one).is_dir())
    noted.moves = list(dict.fromkeys([*noted.moves, *moves]))
    noted.made = list(dict.fromkeys([*noted.made, *missing]))
    noted.write(journal)
    made = set(noted.made)
    for one in moves:
        try:
            for folder in reversed(Path(one.new).parents):
                if str(folder) in made:
                    folder.mkdir(exist_ok=True)
                    os.chown(folder, owner.uid, owner.gid)
                    folder.chmod(owner.mode)
            if os.path.lexists(one.new):
                raise FileExistsError(0, "there is something in its place")
            Path(one.old).rename(one.new)
        except OSError as error:
            raise CallAPerson(
                f"{shown(one.old)} to {shown(one.new)}: cannot be moved ({error.strerror}). What was moved before it "
                f"can be moved back."
            ) from error
    os.sync()


def undo(journal: Path) -> list[str]:
    """Undo all moves of the journal, the last one first; returns sentences on what was done, and what could not be.

    Nothing is overwritten: files that this program has evicted or replaced since stay as they are, and so does what
    lies in an old place by now; so do the rows, which the next adoption corrects. Called again after a crash, it
    goes on; after it has finished, it does nothing.
    """
    noted = _Noted.read(journal)
    made = set(noted.made)
    back: list[str] = []
    left: dict[str, list[str]] = defaultdict(list)
    failed: list[str] = []
    for one in reversed(noted.moves):
        try:
            reason = _move_back(one)
        except OSError as error:
            failed.append(f"{shown(one.new)}: {error.strerror}; mend it, and run this again")
            continue
        for folder in Path(one.new).parents:
            if str(folder) in made:
                with suppress(OSError):  # something was put into it since: it stays
                    folder.rmdir()
        if reason:
            left[reason].append(f"{shown(one.old)} ({shown(one.new)})")
        elif reason is not None:
            back.append(shown(one.old))
    if noted.moves and not failed:
        os.sync()
        durable.remove(journal)
    said = [f"{counted(len(back), 'file')} moved back: {some(back)}"] if back else []
    said += [f"{counted(len(those), 'file')} {reason}: {some(those)}" for reason, those in left.items()]
    return said + failed


def _move_back(one: Move) -> str | None:
    """Move a file back; returns why that is impossible, empty if it was done, None if there was nothing to do."""
    there, old = _look(one.new), _look(one.old)
    if not _is_same(there, one):
        if old is not None and old.st_ino == one.inode:
            return None  # the crash came before the move, or after the move back
        why = "this program has evicted or moved them" if there is None else "they were replaced since"
        return f"cannot be moved back, because {why}"
    if old is not None:
        return "cannot be moved back, because there is something in their old place; they stay in the new one"
    Path(one.old).parent.mkdir(parents=True, exist_ok=True)
    path_of(Path(one.new)).unlink(missing_ok=True)  # made since for the playout; the folder would remain because of it
    Path(one.new).rename(one.old)
    return ""


def _look(path: str) -> os.stat_result | None:
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.lstat(path)
    return None


def _is_same(found: os.stat_result | None, one: Move) -> bool:
    if found is None or found.st_ino != one.inode:
        return False
    return not stat.S_ISREG(found.st_mode) or (found.st_size, found.st_mtime_ns) == (one.size_bytes, one.mtime_ns)
