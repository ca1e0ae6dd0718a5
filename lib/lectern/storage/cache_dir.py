"""The streamer's folder of renditions: where files are, how they are put in place, found again and quarantined."""

import asyncio
import errno
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from fastcrc import crc64 as _crc64

from lectern import formatting, rendition_ids
from lectern.errors import DOWNLOAD_FAILED, Misuse, Refuse, TryAgain
from lectern.model.facts import RemoteFile
from lectern.playout.kernel import boot_id, replace, sync
from lectern.playout.keyframe_index import path_of
from lectern.states import Resolution
from lectern.urls import redact_url

P = ParamSpec("P")
T = TypeVar("T")
_threads = ThreadPoolExecutor(thread_name_prefix="recordings")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do *work* on recordings, as `asyncio.to_thread` does, in threads of its own.

    A disk that hangs takes none by which names are looked up, and the playout's timetable is written elsewhere.
    """
    there = partial(copy_context().run, work, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_threads, there)


# Tells what is wrong with a file from what this process or machine lacks to read it.
OURS = frozenset({errno.EMFILE, errno.ENFILE})
"""The numbers of the errors that say only that too many other files are open, and nothing of this one."""


def read_fault(path: Path, error: OSError) -> str:
    """What *error* says of the file *path*; raises TryAgain if it says only that too many other files are open."""
    said = error.strerror or str(error)
    if error.errno in OURS:
        raise TryAgain("{path}: cannot be read: {reason}", path=path, reason=said) from error
    return said


QUARANTINE = "quarantine"
_SIDECAR = re.compile(r"[^.]+\.flv(?:\.part\.origin|\.index|(?:\.part)?\.remuxed)")
_CHUNK_BYTES = 4 * 1024 * 1024


def crc64(path: Path) -> int:
    """CRC-64/XZ of the file, as OSS sends it in ``x-oss-hash-crc64ecma``."""
    value: int | None = None
    with path.open("rb", buffering=0) as file:
        while data := file.read(_CHUNK_BYTES):
            value = _crc64.xz(data, value)
    return _crc64.xz(b"") if value is None else value


rendition_path = rendition_ids.rendition_path


def part_path(root: Path, stem: str) -> Path:
    """The path of a rendition's unfinished download: ``root/6666/6666_720P.flv.part``."""
    return rendition_path(root, stem).with_suffix(".flv.part")


def finish(part: Path, final: Path) -> None:
    """Put a complete download in its place, so that it survives a power cut."""
    sync(part)
    part.replace(final)
    for file in _notes(part):
        file.unlink(missing_ok=True)
    sync(final.parent)


def remove(path: Path) -> None:
    """Delete a file with its sidecars for good, and its folder once that is empty; a missing file is no error."""
    for file in (path, *_notes(path), path_of(path), remuxed_path(path)):
        file.unlink(missing_ok=True)
    if not path.parent.is_dir():
        return
    sync(path.parent)  # otherwise a power cut could bring the file back, without a row
    try:
        if path.parent.name == rendition_ids.folder(path.name.partition(".")[0]):  # a record's folder, never the root
            path.parent.rmdir()
    except OSError:
        return  # not empty


def quarantine(root: Path, path: Path) -> Path:
    """Move *path* below ``root/quarantine`` under its relative name, never over another; returns where it is."""
    if not path.is_relative_to(root) or path == root or ".." in path.parts:
        raise Misuse("{path}: is not in the store {root}", path=path, root=root)
    wanted = root / QUARANTINE / path.relative_to(root)
    wanted.parent.mkdir(parents=True, exist_ok=True)
    target, number = wanted, 0
    while os.path.lexists(target):
        number += 1
        target = wanted.with_name(f"{wanted.name}.{number}")
    path.rename(target)
    path_of(path).unlink(missing_ok=True)
    return target


def size_bytes(path: Path) -> int:
    """The size of a file; 0 if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def is_sidecar(name: str) -> bool:
    """Whether the file belongs to a rendition: a download's notes, an index, or an unfinished remux."""
    return _SIDECAR.fullmatch(name) is not None


def _notes(part: Path) -> list[Path]:
    """The sidecar of a download, and what is left of drafts of it: hidden, so that no scan takes them for unknown."""
    return [part.with_name(f"{part.name}.origin"), *part.parent.glob(f".{part.name}.origin.*.tmp")]


def remuxed_path(path: Path) -> Path:
    """The path of the plain FLV file that is made of a recording, until it takes the recording's place."""
    return path.with_name(f"{path.name}.remuxed")


def resume(part: Path, remote: RemoteFile) -> bool:
    """Keep the bytes of earlier tries if the origin still has the same file, else begin from zero; note its promise.

    Returns whether some were kept. After a restart of the machine, only synced bytes are: nobody knows whether the
    others reached the disk. Raises Refuse if the record's folder is a symbolic link.
    """
    if part.parent.is_symlink():
        raise Refuse(
            "{parent}: is a symbolic link, which may lead anywhere; take it away", DOWNLOAD_FAILED, parent=part.parent
        )
    noted = _noted(part)
    before = read_origin(part)
    if before is None or before.promise != remote.promise:
        part.unlink(missing_ok=True)
    elif noted.get("boot") != boot_id() and part.exists():
        os.truncate(part, min(part.stat().st_size, int(noted.get("synced_bytes", 0))))
    write_origin(part, remote)
    return size_bytes(part) > 0


def write_origin(part: Path, remote: RemoteFile) -> None:
    """Sync what the download has so far to the disk, then note what its origin promised, and how much is synced."""
    if not part.parent.is_dir():  # it, too, survives a power cut
        part.parent.mkdir(parents=True, exist_ok=True)
        sync(part.parent.parent)
    synced_bytes = 0
    if part.exists():
        synced_bytes = part.stat().st_size  # read before the sync, which may miss bytes that come during it
        sync(part)
    promised = {**asdict(remote), "url": redact_url(remote.url)}  # this file is as readable as the recordings
    noted = json.dumps({**promised, "boot": boot_id(), "synced_bytes": synced_bytes})
    replace(_notes(part)[0], noted.encode(), is_synced=True)


def read_origin(part: Path) -> RemoteFile | None:
    """The promise that was noted for the download; None if none is readable: then the download begins from zero."""
    noted = _noted(part)
    try:
        return RemoteFile(url=noted["url"], size_bytes=noted["size_bytes"], etag=noted["etag"], crc64=noted["crc64"])
    except KeyError:
        return None


def _noted(part: Path) -> dict[str, Any]:
    try:
        noted = json.loads(_notes(part)[0].read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


# Lists the streamer's folder of renditions, and tells renditions from unknown files, with one stat per file.
_KEPT_ALONE = frozenset({QUARANTINE, "lost+found"})  # the second is the file system's own
_DATABASE = re.compile(r".+\.db(?:-wal|-shm|-journal)?")
_FILE = re.compile(r"(?P<stem>[^.]+)\.flv(?P<part>\.part)?")
_ENDINGS = (".flv", *(f"_{one}.flv" for one in Resolution))


@dataclass(slots=True)
class FoundFile:
    """An entry of the store, at the path *site*; *stem* is None if it is unknown, *size_bytes* 0 if it is a folder.

    Its *kind* is "rendition", "part" or "unknown".
    """

    site: str
    stem: str | None
    size_bytes: int
    kind: str
    mtime: float = 0.0

    @property
    def path(self) -> Path:
        """The path of the entry, made only on demand: a hundred thousand paths take a second."""
        return Path(self.site)


def scan(root: Path) -> list[FoundFile]:
    """All entries of the store, by path, except hidden entries, databases at its top, and the quarantine."""
    return sorted(_entries(root), key=lambda found: found.site) if root.is_dir() else []


def _entries(root: Path) -> Iterator[FoundFile]:
    with os.scandir(root) as top:
        for entry in top:
            is_folder = entry.is_dir(follow_symlinks=False)
            if entry.name in _KEPT_ALONE or entry.name.startswith("."):
                continue
            if not is_folder and _DATABASE.fullmatch(entry.name) and not entry.is_symlink():
                continue  # it may be ours
            if is_folder and _is_folder_of_ours(entry):
                yield from _of_folder(entry)
            elif not is_folder or not _is_bare(entry.path):
                yield from _found(entry, None)


def _of_folder(entry: os.DirEntry[str]) -> Iterator[FoundFile]:
    try:
        with os.scandir(entry.path) as folder:
            inside = {inner.name: inner for inner in folder}
    except OSError:  # whoever tries to put it aside finds out why; the other folders are listed
        yield FoundFile(entry.path, None, 0, "unknown")
        return
    names = frozenset(inside)
    is_record = rendition_ids.record_of(entry.name) is not None and rendition_ids.folder(entry.name) == entry.name
    for ending in _ENDINGS if is_record else ():  # nearly all files: no need to parse their names
        inner = inside.get(entry.name + ending)
        if inner is not None and inner.is_file(follow_symlinks=False):
            del inside[inner.name]
            if (looked := _stat(inner)) is None:
                continue
            yield FoundFile(inner.path, inner.name[:-4], looked.st_size, "rendition", looked.st_mtime)
    for name, inner in inside.items():
        its, _, kind = name.rpartition(".")
        is_beside = kind in {"origin", "index"} and its in names and is_sidecar(name)
        if not name.startswith(".") and not is_beside:
            yield from _found(inner, entry.name)


def _is_folder_of_ours(folder: os.DirEntry[str]) -> bool:
    """Whether a folder is named after a record, or after a rendition whose file, or part of it, is in it."""
    if folder.name.isdecimal():
        return True
    if not rendition_ids.is_stem(folder.name):
        return False
    own = [f"{folder.path}/{folder.name}.flv{ending}" for ending in ("", ".part", ".part.origin")]
    return any(os.path.lexists(path) for path in own)


def _is_bare(folder: str) -> bool:
    """Whether no file is in it that is not hidden."""
    try:
        with os.scandir(folder) as entries:
            shown = [one for one in entries if not one.name.startswith(".")]
            return all(one.is_dir(follow_symlinks=False) and _is_bare(one.path) for one in shown)
    except OSError:  # nobody knows what is in it
        return False


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # it was renamed, or evicted, since its folder was listed
        return None


def _found(entry: os.DirEntry[str], record: str | None) -> Iterator[FoundFile]:
    if not entry.is_file(follow_symlinks=False):
        yield FoundFile(entry.path, None, 0, "unknown")
    elif (looked := _stat(entry)) is not None:
        stem, kind = None, "unknown"
        matched = _FILE.fullmatch(entry.name)
        if matched and rendition_ids.is_stem(matched["stem"]) and record == rendition_ids.folder(matched["stem"]):
            stem, kind = matched["stem"], "part" if matched["part"] else "rendition"
        yield FoundFile(entry.path, stem, looked.st_size, kind, looked.st_mtime)


# The quarantine of a streamer's cache, bounded by bytes and age: files that are no rendition, or damaged.
_log = logging.getLogger("lectern")
QUARANTINE_KEEP_S = 30 * 86_400.0
"""Seconds after which a file in quarantine is deleted."""

QUARANTINE_SHARE = 0.1
"""Part of MAX_VIDEO_SIZE that the quarantine may take, beside the cache; its newest file stays in any case."""


@dataclass(frozen=True)
class Aside:
    """A file in quarantine; *since* is epoch seconds."""

    path: Path
    size_bytes: int
    since: float


def quarantined(root: Path) -> list[Aside]:
    """The files in quarantine, the newest first."""
    found: list[Aside] = []
    for inside, _, names in os.walk(root / QUARANTINE):
        for path in (Path(inside) / name for name in names):
            with suppress(FileNotFoundError):  # a person has just deleted it
                state = path.lstat()
                found.append(Aside(path, state.st_size, state.st_ctime))  # the time of its rename into the quarantine
    return sorted(found, key=lambda one: (-one.since, str(one.path)))


def prune_quarantine(root: Path, max_bytes: float, now: float) -> list[Aside]:
    """Delete files that are too old, and the oldest ones over *max_bytes*; returns the deleted files.

    A file that cannot be deleted is logged, and retried the next time.
    """
    gone: list[Aside] = []
    kept_bytes = 0
    for number, one in enumerate(quarantined(root)):
        kept_bytes += one.size_bytes
        if now - one.since > QUARANTINE_KEEP_S or (number > 0 and kept_bytes > max_bytes):
            try:
                one.path.unlink(missing_ok=True)
            except OSError as error:
                why = error.strerror or error
                _log.warning("%s: cannot be deleted from the quarantine: %s", formatting.path(one.path), why)
            else:
                gone.append(one)
    for inside, folders, names in os.walk(root / QUARANTINE, topdown=False):
        if not folders and not names and Path(inside) != root / QUARANTINE:
            with suppress(OSError):  # another file has come, or it is as little to be deleted as some files
                Path(inside).rmdir()
    return gone
