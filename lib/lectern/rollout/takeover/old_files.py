"""What lies on the disk where old recordings may be: one scan, and a check of both ends of a recording."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from lectern.effects.files.store import QUARANTINE
from lectern.effects.media import whole
from lectern.errors import Misuse
from lectern.playout.flv import LOOK_BYTES, is_header
from lectern.rollout.wording import shown

Kind = Literal["file", "part", "other"]
"""A plain file, a download that was not finished, or anything that can be no recording."""

_PART = re.compile(r".*\.(part|tmp|origin|origin\.new)", re.DOTALL)
_ANYTHING = re.compile(r".*", re.DOTALL)
_RECORDING = re.compile(r".*\.flv(\..*)?", re.DOTALL)
_HEADER_BYTES, _TAG_BYTES = 13, 11
_AUDIO_OR_VIDEO = (8, 9)
_MOST_TAGS = 16


@dataclass(frozen=True, slots=True)
class Found:
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
        return f"{self.root}/{self.folder}/{self.name}" if self.folder else f"{self.root}/{self.name}"

    @property
    def place(self) -> str:
        """Its path below its root."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


@dataclass
class Scan:
    """Everything that may be moved, without what must be left alone."""

    found: list[Found] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)  # folders on another file system


def scan(video_root: Path, roots: Sequence[Path], database: Path | None) -> Scan:
    """Look at the top of every root and one folder deep; links are never followed.

    In *video_root*, and roots in it, it finds everything that the store does not keep; in other roots only files, and
    beside the old program's code only recordings. Raises Misuse if a folder cannot be read.
    """
    found, device, distinct = Scan(), _device(video_root), _distinct([video_root, *roots])
    alone = {os.path.realpath(root) for root in distinct} | {f"{os.path.realpath(video_root)}/{QUARANTINE}"}
    code = os.path.realpath(database.parent) if database else None
    if database is not None and code is not None:
        alone |= {f"{code}/{database.name}{more}" for more in ("", "-wal", "-shm", "-journal")}
        alone |= {code, *map(str, Path(code).parents)}
    for root in distinct:
        if _device(Path(root)) != device:
            found.elsewhere.append(root)
            continue
        real = os.path.realpath(root)
        is_ours = _holds(os.path.realpath(video_root), real)  # the program puts this folder in order at each start
        only = _RECORDING if code is not None and _holds(real, code) else _ANYTHING
        folders: list[str | None] = [None]
        for folder in folders:
            for entry in _entries(f"{root}/{folder}" if folder else root):
                name = entry.name
                if _hidden(name) or os.path.join(real, folder or "", name) in alone:  # noqa: PTH118
                    continue
                is_folder = folder is None and entry.is_dir(follow_symlinks=False)
                is_wanted = is_ours or (entry.is_file(follow_symlinks=False) and only.fullmatch(name))
                if not is_folder and not is_wanted:
                    continue
                if entry.stat(follow_symlinks=False).st_dev != device:
                    found.elsewhere.append(entry.path)
                elif is_folder:
                    folders.append(name)
                else:
                    found.found.append(_found(entry, root, folder))
    return found


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
            found = root.stat()
            known.setdefault((found.st_dev, found.st_ino), str(root))
    return list(known.values())


def _device(path: Path) -> int:
    """The file system of *path*, or of the folder in which it will be made."""
    there = next(one for one in (path, *path.absolute().parents) if one.exists())
    return there.stat().st_dev


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "lost+found"


def _kind(entry: os.DirEntry[str]) -> Kind:
    if not entry.is_file(follow_symlinks=False):
        return "other"
    return "part" if _PART.fullmatch(entry.name) else "file"


def _found(entry: os.DirEntry[str], root: str, folder: str | None) -> Found:
    stat = entry.stat(follow_symlinks=False)
    return Found(root, folder, entry.name, _kind(entry), stat.st_size, stat.st_mtime_ns, stat.st_ino)


@dataclass(frozen=True, slots=True)
class Ends:
    """What both ends of a recording say; *duration_s* is None if they do not tell the duration."""

    is_cut_off: bool
    duration_s: float | None = None


def ends(path: str, size_bytes: int) -> Ends:
    """Look at both ends of the file *path*.

    An FLV that does not end with a whole tag was cut off. A file of another kind is not examined; the streamer measures
    it when it starts. Raises Misuse if the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(_HEADER_BYTES)
            if size_bytes == 0 or head[:3] != b"FLV" or size_bytes <= _HEADER_BYTES:
                return Ends(is_cut_off=size_bytes == 0)
            first = _first_time_s(file)
        last = whole.last_tag_s(Path(path))
    except OSError as error:
        raise _unreadable(path, error) from error
    if last is None:
        return Ends(is_cut_off=True)
    duration_s = last - first if first is not None else 0.0
    return Ends(is_cut_off=False, duration_s=duration_s if 0 < duration_s < 86400 else None)


def _first_time_s(file: BinaryIO) -> float | None:
    """The time of the first picture or sound in seconds, which need not be 0; None if none is found."""
    for _ in range(_MOST_TAGS):
        header, body = file.read(_TAG_BYTES), file.read(LOOK_BYTES)
        if len(header) < _TAG_BYTES:
            return None
        if header[0] in _AUDIO_OR_VIDEO and not is_header(header[0], body):  # whose time is often 0
            return int.from_bytes(header[7:8] + header[4:7]) / 1000
        file.seek(int.from_bytes(header[1:4]) + 4 - len(body), os.SEEK_CUR)
    return None
