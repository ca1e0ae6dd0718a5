"""What lies on the disk where old recordings may be: one scan, and a look at both ends of a recording."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from lectern.effects.files.store import QUARANTINE
from lectern.effects.media import whole
from lectern.errors import Misuse
from lectern.rollout.wording import shown

Kind = Literal["file", "part", "other"]
"""A plain file, a download that was not finished, or anything that can be no recording."""

_PART = re.compile(r".*\.(part|tmp|origin|origin\.new)", re.DOTALL)
_RECORDING = re.compile(r".*\.flv(\..*)?", re.DOTALL)
_HEADER_BYTES, _TAG_BYTES = 13, 11
_AUDIO_OR_VIDEO = (8, 9)
_MOST_TAGS = 16


@dataclass(frozen=True, slots=True)
class Found:
    """An entry of a folder; *folder* is None at the top of its root."""

    root: str
    folder: str | None
    name: str
    kind: Kind
    size_bytes: int
    mtime_ns: int
    inode: int

    @property
    def path(self) -> str:
        """Where it lies."""
        return f"{self.root}/{self.folder}/{self.name}" if self.folder else f"{self.root}/{self.name}"

    @property
    def place(self) -> str:
        """Its path below its root."""
        return f"{self.folder}/{self.name}" if self.folder else self.name


@dataclass
class Scan:
    """All that may be moved; what is left alone is not in it."""

    found: list[Found] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)  # folders on another file system


def scan(video_root: Path, roots: Sequence[Path], database: Path | None) -> Scan:
    """Look at the top of every root and one folder deep; links are never followed.

    In *video_root*, and roots in it, all is found that the store does not keep; in other roots only files, and beside
    the old program's code only recordings. Raises Misuse where a folder cannot be read.
    """
    scanner = _Scanner(video_root, roots, database)
    for root in scanner.roots:
        scanner.root(root)
    return scanner.scan


class _Scanner:
    def __init__(self, video_root: Path, roots: Sequence[Path], database: Path | None) -> None:
        self.scan = Scan()
        self.video_root = str(video_root)
        self._store = os.path.realpath(video_root)
        self.roots = _distinct([video_root, *roots])
        self.device = _device(video_root)
        self._code = os.path.realpath(database.parent) if database else None
        alone = {os.path.realpath(root) for root in self.roots} | {f"{os.path.realpath(video_root)}/{QUARANTINE}"}
        if database is not None and self._code is not None:
            alone |= {f"{self._code}/{database.name}{more}" for more in ("", "-wal", "-shm", "-journal")}
            alone |= {self._code, *map(str, Path(self._code).parents)}
        self._alone = alone

    def root(self, root: str) -> None:
        """Look at one root."""
        if _device(Path(root)) != self.device:
            self.scan.elsewhere.append(root)
            return
        real = os.path.realpath(root)
        for entry in _entries(root):
            if _hidden(entry.name) or f"{real}/{entry.name}" in self._alone:
                continue
            if not entry.is_dir(follow_symlinks=False):
                if self._is_taken(real, entry):
                    self.scan.found.append(_found(entry, root, None))
            elif entry.stat(follow_symlinks=False).st_dev != self.device:
                self.scan.elsewhere.append(entry.path)
            else:
                self._folder(root, real, entry.name)

    def _folder(self, root: str, real: str, name: str) -> None:
        entries = {entry.name: entry for entry in _entries(f"{root}/{name}")}
        for inner in entries.values():
            ours = root == self.video_root and _is_our_download(name, inner.name, entries)
            alone = _hidden(inner.name) or f"{real}/{name}/{inner.name}" in self._alone
            if ours or alone or not self._is_taken(real, inner):
                continue
            if inner.stat(follow_symlinks=False).st_dev != self.device:
                self.scan.elsewhere.append(inner.path)
            else:
                self.scan.found.append(_found(inner, root, name))

    def _is_ours(self, real: str) -> bool:
        return f"{real}/".startswith(f"{self._store}/")

    def _is_taken(self, real: str, entry: os.DirEntry[str]) -> bool:
        """All of our own root, which every start puts in order; elsewhere only files, beside code only recordings."""
        if self._is_ours(real):
            return True
        holds_code = self._code is not None and f"{self._code}/".startswith(f"{real.rstrip('/')}/")
        is_wanted = not holds_code or _RECORDING.fullmatch(entry.name) is not None
        return is_wanted and entry.is_file(follow_symlinks=False)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(path: str, error: OSError) -> Misuse:
    return Misuse(f"{shown(path)}: cannot be read ({error.strerror}). Run this as a user who may read it.")


def _distinct(roots: Sequence[Path]) -> list[str]:
    """The roots that are there, each once, by whatever name it comes."""
    known: dict[tuple[int, int], str] = {}
    for root in roots:
        if root.is_dir():
            found = root.stat()
            known.setdefault((found.st_dev, found.st_ino), str(root))
    return list(known.values())


def _device(path: Path) -> int:
    """The file system of *path*, or of where it will be."""
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


def _is_our_download(folder: str, name: str, names: dict[str, os.DirEntry[str]]) -> bool:
    """Whether it is a download that this program began, with the note of what its origin promised: it is resumed."""
    part = name.removesuffix(".origin")
    record = part.removesuffix(".flv.part").partition("_")[0]
    return part.endswith(".flv.part") and folder == record and part in names and f"{part}.origin" in names


@dataclass(frozen=True, slots=True)
class Ends:
    """What both ends of a recording say; *duration_s* is None where they do not say it."""

    is_cut_off: bool
    duration_s: float | None = None


def ends(path: str, size_bytes: int) -> Ends:
    """Look at both ends of the file *path*.

    An FLV whose end is not that of a tag was cut off. A file of another kind is taken as it is; the streamer measures
    it when it starts. Raises Misuse where the file cannot be read.
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
    """The time of the first picture or sound, which need not be 0."""
    for _ in range(_MOST_TAGS):
        header = file.read(_TAG_BYTES)
        if len(header) < _TAG_BYTES:
            return None
        if header[0] in _AUDIO_OR_VIDEO:
            return int.from_bytes(header[7:8] + header[4:7]) / 1000
        file.seek(int.from_bytes(header[1:4]) + 4, os.SEEK_CUR)
    return None
