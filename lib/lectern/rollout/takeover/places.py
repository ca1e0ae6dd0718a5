"""Where each old file goes: a recording to the name of its record_id, any other file to the quarantine."""

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from lectern.effects.files import store
from lectern.rollout.takeover.moves import Move
from lectern.rollout.takeover.old_recordings import Matched, Recording, Strange


def recordings(matched: Matched) -> tuple[Recording, ...]:
    """The recordings that are not in their place yet, by stem."""
    return tuple(one for _, one in sorted(matched.recordings.items()) if one.found.path != one.place)


def quarantined(matched: Matched, video_root: Path) -> tuple[Strange, ...]:
    """The files for the quarantine, with their places: the path below the root, with a number if that is taken."""
    planned: dict[str, bool] = {}  # path: whether it is to be a folder

    def free(path: str, *, is_folder: bool) -> str:
        """The first path that is free on the disk and in this plan; a folder may exist already."""
        for number in count():
            one = f"{path}.{number}" if number else path
            there = planned.get(one, _is_folder(one))
            if there is None or (is_folder and there):
                planned[one] = is_folder
                return one
        raise AssertionError  # numbers do not end

    def place(one: Strange) -> str:
        folder = f"{video_root}/{store.QUARANTINE}"
        if one.found.folder is not None:
            folder = free(f"{folder}/{one.found.folder}", is_folder=True)
        return free(f"{folder}/{one.found.name}", is_folder=False)

    return tuple(replace(one, place=place(one)) for one in matched.strange)


def _is_folder(path: str) -> bool | None:
    """Whether *path* is a folder; None if nothing is there."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None


def moves(things: Sequence[Recording | Strange]) -> list[Move]:
    """The moves of *things* to their places; give strange files first, so that they leave the places of recordings."""
    found = [(one.found, one.place) for one in things]
    return [Move(one.path, place, one.inode, one.size_bytes, one.mtime_ns) for one, place in found]
