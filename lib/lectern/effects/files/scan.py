"""Lists the streamer's folder of renditions, and tells renditions from unknown files, with one stat per file."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lectern import stems
from lectern.effects.files import store
from lectern.effects.files.store import QUARANTINE
from lectern.states import Resolution

_KEPT_ALONE = frozenset({QUARANTINE, "lost+found"})  # the second is the file system's own
_DATABASE = re.compile(r".+\.db(?:-wal|-shm|-journal)?")
_FILE = re.compile(r"(?P<stem>[^.]+)\.flv(?P<part>\.part)?")
_ENDINGS = (".flv", *(f"_{one}.flv" for one in Resolution))

Kind = Literal["rendition", "part", "unknown"]


@dataclass(slots=True)
class Found:
    """An entry of the store, at the path *site*; *stem* is None if it is unknown, *size_bytes* 0 if it is a folder."""

    site: str
    stem: str | None
    size_bytes: int
    kind: Kind
    mtime: float = 0.0

    @property
    def path(self) -> Path:
        """The path of the entry, made only on demand: a hundred thousand paths take a second."""
        return Path(self.site)


def scan(root: Path) -> list[Found]:
    """All entries of the store, by path, except hidden entries, databases at its top, and the quarantine."""
    return sorted(_entries(root), key=lambda found: found.site) if root.is_dir() else []


def _entries(root: Path) -> Iterator[Found]:
    with os.scandir(root) as top:
        for entry in top:
            if entry.name in _KEPT_ALONE or _is_not_ours(entry):
                continue
            if entry.is_dir(follow_symlinks=False) and _is_folder_of_ours(entry):
                yield from _of_folder(entry)
            else:
                yield from _found(entry, None)


def _of_folder(entry: os.DirEntry[str]) -> Iterator[Found]:
    try:
        with os.scandir(entry.path) as folder:
            inside = {inner.name: inner for inner in folder}
    except OSError:  # whoever tries to put it aside finds out why; the other folders are listed
        yield Found(entry.path, None, 0, "unknown")
        return
    names = frozenset(inside)
    is_record = stems.record_of(entry.name) is not None and stems.folder(entry.name) == entry.name
    for ending in _ENDINGS if is_record else ():  # nearly all files: no need to parse their names
        inner = inside.get(entry.name + ending)
        if inner is not None and inner.is_file(follow_symlinks=False):
            del inside[inner.name]
            if (looked := _stat(inner)) is None:
                continue
            yield Found(inner.path, inner.name[:-4], looked.st_size, "rendition", looked.st_mtime)
    for name, inner in inside.items():
        its, _, kind = name.rpartition(".")
        is_beside = kind in {"origin", "index"} and its in names and store.is_sidecar(name)
        if not _is_hidden(name) and not is_beside:
            yield from _found(inner, entry.name)


def _is_not_ours(entry: os.DirEntry[str]) -> bool:
    """Whether it cannot be a recording: a hidden entry, a database (it may be ours), or a folder without files."""
    if _is_hidden(entry.name) or not entry.is_dir(follow_symlinks=False):
        return _is_hidden(entry.name) or (_DATABASE.fullmatch(entry.name) is not None and not entry.is_symlink())
    return not _is_folder_of_ours(entry) and _is_bare(entry.path)


def _is_folder_of_ours(folder: os.DirEntry[str]) -> bool:
    """Whether a folder is named after a record, or after a rendition whose file, or part of it, is in it."""
    if folder.name.isdecimal():
        return True
    if not stems.is_stem(folder.name):
        return False
    own = [f"{folder.path}/{folder.name}.flv{ending}" for ending in ("", ".part", ".part.origin")]
    return any(os.path.lexists(path) for path in own)


def _is_bare(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return all(
                _is_hidden(one.name) or (one.is_dir(follow_symlinks=False) and _is_bare(one.path)) for one in entries
            )
    except OSError:  # nobody knows what is in it
        return False


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # it was renamed, or evicted, since its folder was listed
        return None


def _found(entry: os.DirEntry[str], record: str | None) -> Iterator[Found]:
    if not entry.is_file(follow_symlinks=False):
        yield Found(entry.path, None, 0, "unknown")
    elif (looked := _stat(entry)) is not None:
        yield _file(entry, looked, record)


def _file(entry: os.DirEntry[str], looked: os.stat_result, record: str | None) -> Found:
    matched = _FILE.fullmatch(entry.name)
    is_ours = matched is not None and stems.is_stem(matched["stem"]) and record == stems.folder(matched["stem"])
    if matched is None or not is_ours:
        return Found(entry.path, None, looked.st_size, "unknown", looked.st_mtime)
    kind: Kind = "part" if matched["part"] else "rendition"
    return Found(entry.path, matched["stem"], looked.st_size, kind, looked.st_mtime)
