"""Which old file is which rendition: by the classes that name it, by its place, or not at all; and where it goes."""

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from urllib.parse import unquote

from lectern import stems
from lectern.effects.files import store
from lectern.rollout.takeover.moves import Move
from lectern.rollout.takeover.old_classes import Task, is_stem, rendition
from lectern.rollout.takeover.old_files import Ends, Found, ends

_UNKNOWN = ""
"""The stem of a recording whose record nobody knows."""


@dataclass(frozen=True, slots=True)
class Recording:
    """The file that is to be the rendition *stem*, in *place*."""

    stem: str
    found: Found
    place: str
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class Strange:
    """A file that can be no rendition, the reason, and the *place* in the quarantine that it goes to."""

    found: Found
    why: str
    place: str = ""


@dataclass(frozen=True)
class Matched:
    """All files that were found, sorted."""

    recordings: dict[str, Recording]
    strange: tuple[Strange, ...]


class Claims:
    """Which renditions the classes' files are, by the names that the old program gave them: from URL or class."""

    def __init__(self, tasks: Iterable[Task], patterns: Sequence[str]) -> None:
        self._names: dict[str, set[str]] = defaultdict(set)
        self._places: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._by_pattern = cache(lambda path: rendition(patterns, path))
        for task in tasks:
            stem = task.stem or _UNKNOWN
            self._claim(task.class_id, f"{task.class_id}.flv", stem)
            if task.stem:  # the place where this program has put it
                self._places[stems.folder(stem), f"{stem}.flv"].add(stem)
            for path in {task.path, unquote(task.path)}:
                above, _, name = path.rpartition("/")
                if name:
                    self._claim(task.class_id, name, stem)
                    self._places[above.rpartition("/")[2], name].add(stem)

    def _claim(self, class_id: str, name: str, stem: str) -> None:
        self._names[name].add(stem)
        self._places[class_id, name].add(stem)

    def renditions(self, found: Found, *, is_alone: bool) -> set[str]:
        """The renditions that *found* may be; several count as none. *is_alone*: no other file has its name."""
        own = found.name.removesuffix(".flv") if found.name.endswith(".flv") else ""
        own = own if is_stem(own) else ""
        if found.folder is None:
            return self._names.get(found.name) or self._itself(found, own)
        if own and found.folder == stems.folder(own):
            return {own}
        placed = self._places.get((found.folder, found.name)) or self._itself(found, own)
        if placed:
            return placed
        named = self._names.get(found.name, set())
        # A folder of digits is that of another record; and of two files with one name only one can be the class's.
        return named if is_alone and not found.folder.isdecimal() else set()

    def _itself(self, found: Found, own: str) -> set[str]:
        by_pattern = own or (self._by_pattern(f"/{found.place}") if found.name.endswith(".flv") else None)
        return {by_pattern} if by_pattern else set()


def match(found: Sequence[Found], claims: Claims, video_root: Path) -> Matched:
    """Choose each rendition's file: the newest whole one; of equally new ones, the one that is in its place already."""
    names = Counter(one.name for one in found)
    candidates: dict[str, list[tuple[Found, Ends]]] = defaultdict(list)
    strange: list[Strange] = []
    for one in found:
        if one.kind != "file":
            why = "a download that was not finished" if one.kind == "part" else "no plain file"
            strange.append(Strange(one, why))
            continue
        stems = claims.renditions(one, is_alone=names[one.name] == 1)
        stem = next(iter(stems)) if len(stems) == 1 else _UNKNOWN
        looked = ends(one.path, one.size_bytes) if stem else None
        if looked is None:
            named = sorted(stems - {_UNKNOWN})
            why = f"may be {' or '.join(named)}" if named else "no class and no record has it"
            strange.append(Strange(one, why))
        elif looked.is_cut_off:
            strange.append(Strange(one, f"is {stem}, but cut off"))
        else:
            candidates[stem].append((one, looked))
    recordings = {}
    for stem, several in candidates.items():
        place = str(store.rendition_path(video_root, stem))
        several.sort(key=lambda pair: (-pair[0].mtime_ns, pair[0].path != place, pair[0].path))
        (kept, looked), *others = several
        recordings[stem] = Recording(stem, kept, place, looked.duration_s)
        strange += [Strange(other, f"another file of {stem} is kept") for other, _ in others]
    return Matched(recordings, tuple(sorted(strange, key=lambda one: one.found.path)))


# -- where each file goes: a recording to the name of its record_id, any other to the quarantine ---------------------


def to_move(matched: Matched) -> tuple[Recording, ...]:
    """The recordings that are not in their place yet, by stem."""
    return tuple(one for _, one in sorted(matched.recordings.items()) if one.found.path != one.place)


def to_quarantine(matched: Matched, video_root: Path) -> tuple[Strange, ...]:
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
