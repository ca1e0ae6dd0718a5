"""The streamer's folder of renditions: where files lie, how they come, go, and are told apart."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fastcrc import crc64 as _crc64

from lectern import stems
from lectern.effects.files.origin import RemoteFile
from lectern.errors import Misuse
from lectern.shown import shown

QUARANTINE = "quarantine"
_KEPT_ALONE = frozenset({QUARANTINE, "lost+found"})  # the second is the file system's own
_DATABASE = re.compile(r".+\.db(?:-wal|-shm|-journal)?")
_FILE = re.compile(r"(?P<stem>[^.]+)\.flv(?P<part>\.part)?")
_CHUNK_BYTES = 4 * 1024 * 1024
_LOOK_BYTES = 64 * 1024

Kind = Literal["rendition", "part", "unknown"]


@dataclass(frozen=True)
class Found:
    """Something in the store; *stem* is None where it is unknown, *size_bytes* 0 where it is a folder."""

    path: Path
    stem: str | None
    size_bytes: int
    kind: Kind
    mtime: float = 0.0


def crc64(path: Path) -> int:
    """CRC-64/XZ of the file, as OSS sends it in ``x-oss-hash-crc64ecma``."""
    value: int | None = None
    with path.open("rb", buffering=0) as file:
        while data := file.read(_CHUNK_BYTES):
            value = _crc64.xz(data, value)
    return _crc64.xz(b"") if value is None else value


def rendition_path(root: Path, stem: str) -> Path:
    """Where the rendition lies: ``root/6666/6666_720P.flv``; raises Misuse for what is no stem."""
    if not stems.is_stem(stem):
        raise Misuse(f"{stem!r}: is no rendition; write 6666 or 6666_720P")
    return root / stems.folder(stem) / f"{stem}.flv"


def part_path(root: Path, stem: str) -> Path:
    """Where its download grows: ``root/6666/6666_720P.flv.part``."""
    return rendition_path(root, stem).with_suffix(".flv.part")


def finish(part: Path, final: Path) -> None:
    """Put a complete download in its place, so that it is there after a power cut; done twice, it changes nothing."""
    if not part.exists() and final.exists():
        return
    _sync(part)
    part.replace(final)
    origin_path(part).unlink(missing_ok=True)
    _sync(final.parent)


def remove(path: Path) -> None:
    """Delete a file with its sidecar for good, and its folder once that is empty; nothing there is fine."""
    path.unlink(missing_ok=True)
    origin_path(path).unlink(missing_ok=True)
    if not path.parent.is_dir():
        return
    _sync(path.parent)  # else a power cut could bring it back, with no row that knows it
    try:
        if path.parent.name == stems.folder(path.name.partition(".")[0]):  # a record's folder, never the root
            path.parent.rmdir()
    except OSError:
        return  # not empty


def quarantine(root: Path, path: Path) -> Path:
    """Move *path* below ``root/quarantine`` under its relative name, never over another; returns where it is."""
    if not path.is_relative_to(root) or path == root or ".." in path.parts:
        raise Misuse(f"{path}: is not in the store {root}")
    wanted = root / QUARANTINE / path.relative_to(root)
    wanted.parent.mkdir(parents=True, exist_ok=True)
    target, number = wanted, 0
    while os.path.lexists(target):
        number += 1
        target = wanted.with_name(f"{wanted.name}.{number}")
    path.rename(target)
    return target


def scan(root: Path) -> list[Found]:
    """All that is in the store, by path, without hidden things, databases at its top, and the quarantine."""
    return sorted(_entries(root), key=lambda found: found.path) if root.is_dir() else []


def _entries(root: Path) -> Iterator[Found]:
    with os.scandir(root) as top:
        for entry in top:
            if entry.name in _KEPT_ALONE or _is_not_ours(entry):
                continue
            if entry.is_dir(follow_symlinks=False) and _is_folder_of_ours(entry):
                with os.scandir(entry.path) as folder:
                    names = {inner.name: inner for inner in folder}
                for name, inner in names.items():
                    if not _is_hidden(name) and not (
                        name.endswith(".origin") and name.removesuffix(".origin") in names
                    ):
                        yield _found(inner, entry.name)
            else:
                yield _found(entry, None)


def _is_not_ours(entry: os.DirEntry[str]) -> bool:
    """Whether nobody put it here as a recording: a hidden thing, a database (it may be ours), a folder of no files."""
    if _is_hidden(entry.name) or not entry.is_dir(follow_symlinks=False):
        return _is_hidden(entry.name) or (_DATABASE.fullmatch(entry.name) is not None and not entry.is_symlink())
    return not _is_folder_of_ours(entry) and _is_bare(entry.path)


def _is_folder_of_ours(folder: os.DirEntry[str]) -> bool:
    """Whether a folder is that of a record, or of the rendition whose file, or part of it, it has."""
    if folder.name.isdecimal():
        return True
    if not stems.is_stem(folder.name):
        return False
    own = [f"{folder.path}/{folder.name}.flv{ending}" for ending in ("", ".part", ".part.origin")]
    return any(os.path.lexists(path) for path in own)


def _is_bare(folder: str) -> bool:
    with os.scandir(folder) as entries:
        return all(
            _is_hidden(one.name) or (one.is_dir(follow_symlinks=False) and _is_bare(one.path)) for one in entries
        )


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _found(entry: os.DirEntry[str], record: str | None) -> Found:
    path = Path(entry.path)
    if not entry.is_file(follow_symlinks=False):
        return Found(path, None, 0, "unknown")
    looked = entry.stat(follow_symlinks=False)
    matched = _FILE.fullmatch(entry.name)
    is_ours = matched is not None and stems.is_stem(matched["stem"]) and record == stems.folder(matched["stem"])
    if matched is None or not is_ours:
        return Found(path, None, looked.st_size, "unknown", looked.st_mtime)
    kind: Kind = "part" if matched["part"] else "rendition"
    return Found(path, matched["stem"], looked.st_size, kind, looked.st_mtime)


def size_bytes(path: Path) -> int:
    """The size of a file; 0 where it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def readable(path: Path) -> tuple[int | None, str | None]:
    """The size of a file, and why its beginning or its end can not be read; None and None where it is not there."""
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            file.read(_LOOK_BYTES)
            file.seek(max(size - _LOOK_BYTES, 0))
            file.read(_LOOK_BYTES)
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return size_bytes(path), error.strerror or str(error)
    return size, None


def is_sidecar(path: Path) -> bool:
    """Whether it is what a download notes beside its part."""
    matched = _FILE.fullmatch(path.name.removesuffix(".origin"))
    return path.name.endswith(".origin") and matched is not None and matched["part"] is not None


def origin_path(part: Path) -> Path:
    """The sidecar of a download: ``6666_720P.flv.part.origin``."""
    return part.with_name(f"{part.name}.origin")


def resume(part: Path, remote: RemoteFile) -> None:
    """Keep what earlier tries got if the origin still has the same file, else begin from zero; then note it.

    After a power cut only what was synced before is sure to hold the bytes that were written.
    """
    noted = _noted(part)
    before = read_origin(part)
    if before is None or (before.size_bytes, before.etag) != (remote.size_bytes, remote.etag):
        part.unlink(missing_ok=True)
    elif noted.get("boot") != _boot() and part.exists():
        os.truncate(part, min(part.stat().st_size, int(noted.get("synced_bytes", 0))))
    write_origin(part, remote)


def write_origin(part: Path, remote: RemoteFile) -> None:
    """Note what the download was promised, and that all that is there of it is on the disk in truth."""
    target = origin_path(part)
    _make_folder(target.parent)
    synced_bytes = 0
    if part.exists():
        synced_bytes = part.stat().st_size  # before the sync: what comes during it may miss it
        _sync(part)
    draft = target.with_name(f"{target.name}.new")
    with draft.open("w", encoding="utf-8") as file:
        promised = {**asdict(remote), "url": shown(remote.url)}  # whoever may read the recordings may read this
        json.dump({**promised, "boot": _boot(), "synced_bytes": synced_bytes}, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(target)
    _sync(target.parent)


def read_origin(part: Path) -> RemoteFile | None:
    """What the first try was promised; None where nothing (readable) was noted: begin from zero."""
    noted = _noted(part)
    try:
        return RemoteFile(url=noted["url"], size_bytes=noted["size_bytes"], etag=noted["etag"], crc64=noted["crc64"])
    except KeyError:
        return None


def _noted(part: Path) -> dict[str, Any]:
    try:
        noted = json.loads(origin_path(part).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _boot() -> str:
    """Differs after each start of the machine; the same everywhere that Linux is not."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _make_folder(folder: Path) -> None:
    """Make a record's folder so that it is there after a power cut."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
