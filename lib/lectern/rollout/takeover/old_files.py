"""Old recordings: one scan of the disk, which file is which rendition, and moves that can be undone."""

import json
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from lectern import rendition_ids
from lectern.errors import CallAPerson, Misuse
from lectern.i18n import Text, joined, msgid
from lectern.media import integrity
from lectern.playout import demuxer, flv
from lectern.playout.keyframe_index import path_of
from lectern.rollout import files
from lectern.rollout.files import Owner
from lectern.rollout.result import shown, some
from lectern.rollout.takeover.old_database import Task, rendition
from lectern.storage import cache_dir
from lectern.storage.cache_dir import QUARANTINE

Kind = Literal["file", "part", "other"]
"""A plain file, a download that was not finished, or anything that can be no recording."""

_PART = re.compile(r".*\.(part|tmp|origin|origin\.new)", re.DOTALL)
_ANYTHING = re.compile(r".*", re.DOTALL)
_RECORDING = re.compile(r".*\.flv(\..*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class FoundRecording:
    """An entry of a folder; *folder* is None if it lies directly in its root."""

    root: str
    folder: str | None
    name: str
    kind: Kind
    size_bytes: int
    mtime_ns: int
    inode: int

    @property
    def path(self) -> str:
        """Its full path."""
        return f"{self.root}/{self.place}"

    @property
    def place(self) -> str:
        """Its path below its root."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


def scan(video_root: Path, roots: Sequence[Path], database: Path | None) -> tuple[list[FoundRecording], list[str]]:
    """Everything that may be moved, and the folders that are on another file system.

    Looks at the top of every root and one folder deep; links are never followed. In *video_root*, and roots in it, it
    finds everything that the store does not keep; in other roots only files, and beside the old program's code only
    recordings. Raises Misuse if a folder cannot be read.
    """
    found, elsewhere = list[FoundRecording](), list[str]()
    device, distinct = _device(video_root), _distinct([video_root, *roots])
    alone = {os.path.realpath(root) for root in distinct} | {f"{os.path.realpath(video_root)}/{QUARANTINE}"}
    code = os.path.realpath(database.parent) if database else None
    if database is not None and code is not None:
        alone |= {f"{code}/{database.name}{more}" for more in ("", "-wal", "-shm", "-journal")}
        alone |= {code, *map(str, Path(code).parents)}
    for root in distinct:
        if _device(Path(root)) != device:
            elsewhere.append(root)
            continue
        real = os.path.realpath(root)
        is_ours = _holds(os.path.realpath(video_root), real)  # the program puts this folder in order at each start
        only = _RECORDING if code is not None and _holds(real, code) else _ANYTHING
        folders: list[str | None] = [None]
        for folder in folders:
            for entry in _entries(f"{root}/{folder}" if folder else root):
                name = entry.name
                if name.startswith(".") or name == "lost+found" or os.path.join(real, folder or "", name) in alone:  # noqa: PTH118
                    continue
                is_folder = folder is None and entry.is_dir(follow_symlinks=False)
                is_wanted = is_ours or (entry.is_file(follow_symlinks=False) and only.fullmatch(name))
                if not is_folder and not is_wanted:
                    continue
                if entry.stat(follow_symlinks=False).st_dev != device:
                    elsewhere.append(entry.path)
                elif is_folder:
                    folders.append(name)
                else:
                    found.append(_found(entry, root, folder))
    return found, elsewhere


def _holds(folder: str, inner: str) -> bool:
    return f"{inner}/".startswith(f"{folder.rstrip('/')}/")


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(path: str, error: OSError) -> Misuse:
    return Misuse(f"{shown(path)}: cannot be read ({error.strerror}). Run this as a user who may read it.")


def _distinct(roots: Sequence[Path]) -> list[str]:
    """The roots that exist, each once, even if it is given under several names."""
    known: dict[tuple[int, int], str] = {}
    for root in roots:
        if root.is_dir():
            status = root.stat()
            known.setdefault((status.st_dev, status.st_ino), str(root))
    return list(known.values())


def _device(path: Path) -> int:
    """The file system of *path*, or of the folder in which it will be made."""
    there = next(existing for existing in (path, *path.absolute().parents) if existing.exists())
    return there.stat().st_dev


def _found(entry: os.DirEntry[str], root: str, folder: str | None) -> FoundRecording:
    stat = entry.stat(follow_symlinks=False)
    kind: Kind = "part" if _PART.fullmatch(entry.name) else "file"
    if not entry.is_file(follow_symlinks=False):
        kind = "other"
    return FoundRecording(root, folder, entry.name, kind, stat.st_size, stat.st_mtime_ns, stat.st_ino)


def ends(path: str, size_bytes: int) -> tuple[bool, float | None]:
    """Look at both ends of the file *path*: whether it was cut off, and its duration in seconds if they tell it.

    An FLV that does not end with a whole tag was cut off. A file of another kind is not examined; the streamer measures
    it when it starts. Raises Misuse if the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(flv.HEAD_BYTES)
            if size_bytes == 0 or head[:3] != b"FLV" or size_bytes <= flv.HEAD_BYTES:
                return size_bytes == 0, None
            first_ms, _ = demuxer.beginning(file.fileno())
        last = integrity.last_tag_s(Path(path))
    except OSError as error:
        raise _unreadable(path, error) from error
    if last is None:
        return True, None
    duration_s = last - first_ms / 1000
    return False, duration_s if 0 < duration_s < 86400 else None


@dataclass(frozen=True, slots=True)
class FileMove:
    """A renaming of a file, link or folder; *size_bytes* and *mtime_ns* matter only for a file."""

    old: str
    new: str
    inode: int
    size_bytes: int
    mtime_ns: int


def _noted(journal: Path) -> tuple[list[FileMove], list[str]]:
    """What may have been done since the last undo: moves, and folders made for them."""
    try:
        noted = json.loads(journal.read_bytes())
    except FileNotFoundError:
        return [], []
    return [FileMove(**move) for move in noted["moves"]], noted["made"]


def undo_moves(journal: Path) -> list[str]:
    """Undo all moves of the journal, the last one first; returns sentences on what was done, and what can never be.

    Raises CallAPerson if one failed that another call may do; all others are done.
    Nothing is overwritten: files that this program has evicted or replaced since stay as they are, and so does what
    lies in an old place by now; so do the rows, which the next adoption corrects. Called again after a crash, it
    goes on; after it has finished, it does nothing.
    """
    moves, made = _noted(journal)
    folders = set(made)
    back: list[str] = []
    left: dict[str, list[str]] = defaultdict(list)
    failed: list[str] = []
    for move in reversed(moves):
        try:
            reason = _move_back(move)
        except OSError as error:
            text = msgid("{path}: {why}; repair it, and run this again")
            failed.append(Text(text, path=shown(move.new), why=error.strerror))
            continue
        for folder in Path(move.new).parents:
            if str(folder) in folders:
                with suppress(OSError):  # something was put into it since: it stays
                    folder.rmdir()
        if reason:
            left[reason].append(f"{shown(move.old)} ({shown(move.new)})")
        elif reason is not None:
            back.append(shown(move.old))
    if moves and not failed:
        os.sync()
        files.remove(journal)
    by_fate = {Text("moved back"): back, **left} if back else left
    sentences: list[str] = []
    for what, those in by_fate.items():
        number = Text.many("{n:,} file", "{n:,} files", n=len(those))
        sentences.append(Text("{files} {what}: {names}", files=number, what=what, names=some(those)))
    if failed:
        raise CallAPerson("{sentence}.", sentence=joined([*sentences, *failed]))
    return sentences


def _move_back(move: FileMove) -> str | None:
    """Move a file back; returns why that is impossible, empty if it was done, None if there was nothing to do."""
    there, old = _look(move.new), _look(move.old)
    is_same = there is not None and there.st_ino == move.inode
    if there is not None and stat.S_ISREG(there.st_mode):
        is_same = is_same and (there.st_size, there.st_mtime_ns) == (move.size_bytes, move.mtime_ns)
    if not is_same:
        if old is not None and old.st_ino == move.inode:
            return None  # the crash came before the move, or after the move back
        evicted = Text("this program has evicted or moved them")
        why = evicted if there is None else Text("they were replaced since")
        return Text("cannot be moved back, because {why}", why=why)
    if old is not None:
        return Text("cannot be moved back, because there is something in their old place; they stay in the new one")
    Path(move.old).parent.mkdir(parents=True, exist_ok=True)
    path_of(Path(move.new)).unlink(missing_ok=True)  # made since for the playout; the folder would remain because of it
    Path(move.new).rename(move.old)
    return ""


def _look(path: str) -> os.stat_result | None:
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.lstat(path)
    return None


_UNKNOWN = ""
"""The stem of a recording whose record nobody knows."""


@dataclass(frozen=True, slots=True)
class Recording:
    """The file that is to be the rendition *stem*, in *place*."""

    stem: str
    found: FoundRecording
    place: str
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class Strange:
    """A file that can be no rendition, the reason, and the *place* in the quarantine that it goes to."""

    found: FoundRecording
    why: str
    place: str = ""


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
                self._places[rendition_ids.folder(stem), f"{stem}.flv"].add(stem)
            for path in {task.path, unquote(task.path)}:
                above, _, name = path.rpartition("/")
                if name:
                    self._claim(task.class_id, name, stem)
                    self._places[above.rpartition("/")[2], name].add(stem)

    def _claim(self, class_id: str, name: str, stem: str) -> None:
        self._names[name].add(stem)
        self._places[class_id, name].add(stem)

    def renditions(self, recording: FoundRecording, *, is_alone: bool) -> set[str]:
        """The renditions that *recording* may be; several count as none. *is_alone*: no other file has its name."""
        own = recording.name.removesuffix(".flv") if recording.name.endswith(".flv") else ""
        own = own if rendition_ids.record_of(own) is not None else ""
        if recording.folder is None:
            return self._names.get(recording.name) or self._itself(recording, own)
        if own and recording.folder == rendition_ids.folder(own):
            return {own}
        placed = self._places.get((recording.folder, recording.name)) or self._itself(recording, own)
        if placed:
            return placed
        named = self._names.get(recording.name, set())
        # A folder of digits is that of another record; and of two files with one name only one can be the class's.
        return named if is_alone and not recording.folder.isdecimal() else set()

    def _itself(self, recording: FoundRecording, own: str) -> set[str]:
        by_pattern = own or (self._by_pattern(f"/{recording.place}") if recording.name.endswith(".flv") else None)
        return {by_pattern} if by_pattern else set()


def match(
    scanned: Sequence[FoundRecording], claims: Claims, video_root: Path
) -> tuple[dict[str, Recording], list[Strange]]:
    """Choose each rendition's file: the newest whole one; of equally new ones, the one that is in its place already.

    All other files are strange.
    """
    names = Counter(recording.name for recording in scanned)
    candidates: dict[str, list[tuple[FoundRecording, float | None]]] = defaultdict(list)
    strange: list[Strange] = []
    for recording in scanned:
        if recording.kind != "file":
            why = msgid("a download that was not finished") if recording.kind == "part" else msgid("no plain file")
            strange.append(Strange(recording, Text(why)))
            continue
        stems = claims.renditions(recording, is_alone=names[recording.name] == 1)
        stem = next(iter(stems)) if len(stems) == 1 else _UNKNOWN
        if not stem:
            either = joined(sorted(stems - {_UNKNOWN}), msgid("{first} or {second}"))
            why = msgid("may be {either}") if either else msgid("no class and no record has it")
            strange.append(Strange(recording, Text(why, either=either)))
            continue
        is_cut_off, duration_s = ends(recording.path, recording.size_bytes)
        if is_cut_off:
            strange.append(Strange(recording, Text("is {stem}, but cut off", stem=stem)))
        else:
            candidates[stem].append((recording, duration_s))
    recordings: dict[str, Recording] = {}
    for stem, several in candidates.items():
        place = str(cache_dir.rendition_path(video_root, stem))
        several.sort(key=lambda pair: (-pair[0].mtime_ns, pair[0].path != place, pair[0].path))
        (newest, duration_s), *others = several
        recordings[stem] = Recording(stem, newest, place, duration_s)
        strange += [Strange(other, Text("another file of {stem} is kept", stem=stem)) for other, _ in others]
    return recordings, sorted(strange, key=lambda file: file.found.path)


def to_quarantine(strange: Sequence[Strange], video_root: Path) -> tuple[Strange, ...]:
    """*strange* with the places in the quarantine: the path below the root, with a number if that is taken."""
    planned: dict[str, bool] = {}  # path: whether it is to be a folder

    def free(path: str, *, is_folder: bool) -> str:
        """The first path that is free on the disk and in this plan; a folder may exist already."""
        for candidate in (f"{path}.{number}" if number else path for number in count()):
            status = _look(candidate)
            there = planned.get(candidate, None if status is None else stat.S_ISDIR(status.st_mode))
            if there is None or (is_folder and there):
                planned[candidate] = is_folder
                return candidate
        raise AssertionError  # numbers do not end

    def place(file: Strange) -> str:
        folder = f"{video_root}/{cache_dir.QUARANTINE}"
        if file.found.folder is not None:
            folder = free(f"{folder}/{file.found.folder}", is_folder=True)
        return free(f"{folder}/{file.found.name}", is_folder=False)

    return tuple(replace(file, place=place(file)) for file in strange)


def move_all(things: Sequence[Recording | Strange], journal: Path, owner: Owner) -> None:
    """Move *things* to their places in their order, and return when all is on the disk; *owner* gets the new folders.

    Strange files come first, so that they leave the places of recordings. Raises CallAPerson if a move fails; nothing
    is ever overwritten.
    """
    if not things:
        return
    pairs = [(thing.found, thing.place) for thing in things]
    moves = [FileMove(it.path, place, it.inode, it.size_bytes, it.mtime_ns) for it, place in pairs]
    (before, made), gone = _noted(journal), {move.old for move in moves}
    above = {str(folder) for move in moves for folder in Path(move.new).parents}
    missing = sorted(path for path in above if path in gone or not Path(path).is_dir())
    folders = dict.fromkeys([*made, *missing])
    noted = {"moves": [asdict(move) for move in dict.fromkeys([*before, *moves])], "made": [*folders]}
    journal.parent.mkdir(parents=True, exist_ok=True)
    files.write(journal, json.dumps(noted).encode(), files.PRIVATE)  # ASCII, whatever a name holds
    for move in moves:
        try:
            for folder in reversed(Path(move.new).parents):
                if str(folder) in folders:
                    folder.mkdir(exist_ok=True)
                    os.chown(folder, owner.uid, owner.gid)
                    folder.chmod(owner.mode)
            if os.path.lexists(move.new):
                raise FileExistsError(0, "there is something in its place")
            Path(move.old).rename(move.new)
        except OSError as error:
            raise CallAPerson(
                "{old} to {new}: cannot be moved ({strerror}). What was moved before it can be moved back.",
                old=shown(move.old),
                new=shown(move.new),
                strerror=error.strerror,
            ) from error
    os.sync()
