"""Where each old file goes: a recording to its record-id name, all else to the quarantine, and the steps to it."""

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from lectern.effects.files import store
from lectern.rollout.host.durable import Owner
from lectern.rollout.takeover.moves import Folder, Move, Step
from lectern.rollout.takeover.old_files import Found, Scan
from lectern.rollout.takeover.old_recordings import Matched, Recording, Strange


def moves(matched: Matched) -> tuple[Recording, ...]:
    """The recordings that are not in their place yet, by stem."""
    return tuple(one for _, one in sorted(matched.recordings.items()) if one.found.path != one.place)


def quarantined(matched: Matched, video_root: Path) -> tuple[Strange, ...]:
    """What goes to the quarantine, by its path; it keeps the path below its root, with a number where need be."""
    quarantine = _Quarantine(f"{video_root}/{store.QUARANTINE}")
    return tuple(replace(one, place=quarantine.place(one.found)) for one in matched.strange)


class _Quarantine:
    def __init__(self, root: str) -> None:
        self._root = root
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def place(self, found: Found) -> str:
        """A path that is free, on the disk and in this plan."""
        folder = self._root
        if found.folder is not None:
            folder = next(one for one in _numbered(f"{folder}/{found.folder}") if self._may_be_folder(one))
            self._folders.add(folder)
        place = next(one for one in _numbered(f"{folder}/{found.name}") if self._is_free(one))
        self._files.add(place)
        return place

    def _may_be_folder(self, path: str) -> bool:
        return path in self._folders or (path not in self._files and (_is_folder(path) or not os.path.lexists(path)))

    def _is_free(self, path: str) -> bool:
        return path not in self._files and path not in self._folders and not os.path.lexists(path)


def _numbered(path: str) -> Iterable[str]:
    yield path
    number = 0
    while True:
        number += 1
        yield f"{path}.{number}"


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _is_empty(folder: str) -> bool:
    return _is_folder(folder) and not os.listdir(folder)  # noqa: PTH208 (as text, as all here)


def steps(
    matched: Matched, scan: Scan, owner: Owner, strange: Sequence[Strange], unfinished: Sequence[Step]
) -> tuple[Step, ...]:
    """All steps in their order: what is *strange* leaves its place before a recording comes there.

    Folders that are made belong to *owner*; folders that are emptied are taken away, and so are those that a crash
    has left of *unfinished*.
    """
    gone = {one.found.path for one in strange}
    aside, renamed = [_move(one) for one in strange], [_move(one) for one in moves(matched)]
    made: dict[str, None] = {}
    to_quarantine = _missing([move.new for move in aside], gone, made, owner)
    to_records = _missing([move.new for move in renamed], gone, made, owner)
    filled = {os.path.dirname(one.place) for one in matched.recordings.values()}  # noqa: PTH120 (as text: quicker)
    left = [one.folder for one in unfinished if isinstance(one, Folder) and not one.made and _is_empty(one.folder)]
    dropped = [_dropped(folder) for folder in dict.fromkeys([*scan.emptied, *left]) if folder not in filled]
    return (*to_quarantine, *aside, *to_records, *renamed, *dropped)


def _move(one: Recording | Strange) -> Move:
    found = one.found
    return Move(found.path, one.place, found.inode, found.size_bytes, found.mtime_ns)


def _missing(paths: Sequence[str], gone: set[str], made: dict[str, None], owner: Owner) -> list[Folder]:
    """The folders above *paths* that have yet to be made, the uppermost first."""
    before = len(made)
    for path in paths:
        above: list[str] = []
        folder = os.path.dirname(path)  # noqa: PTH120 (as text, which is quicker for so many)
        while folder not in made and (folder in gone or not os.path.isdir(folder)):  # noqa: PTH112 (the same)
            above.append(folder)
            folder = os.path.dirname(folder)  # noqa: PTH120 (the same)
        made |= dict.fromkeys(reversed(above))
    return [Folder(folder, owner.uid, owner.gid, owner.mode, made=True) for folder in list(made)[before:]]


def _dropped(folder: str) -> Folder:
    found = os.lstat(folder)
    return Folder(folder, found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode), made=False)
