"""The streamer's folder of renditions: the paths of files, and how they are put in place, deleted and quarantined."""

import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastcrc import crc64 as _crc64

from lectern import stems
from lectern.effects.files import reading
from lectern.effects.files.promise import RemoteFile
from lectern.errors import DOWNLOAD_FAILED, Misuse, Refuse
from lectern.playout.index import path_of
from lectern.shown import shown

QUARANTINE = "quarantine"
_SIDECAR = re.compile(r"[^.]+\.flv(?:\.part\.origin|\.index|(?:\.part)?\.remuxed)")
_CHUNK_BYTES = 4 * 1024 * 1024
_LOOK_BYTES = 64 * 1024


def crc64(path: Path) -> int:
    """CRC-64/XZ of the file, as OSS sends it in ``x-oss-hash-crc64ecma``."""
    value: int | None = None
    with path.open("rb", buffering=0) as file:
        while data := file.read(_CHUNK_BYTES):
            value = _crc64.xz(data, value)
    return _crc64.xz(b"") if value is None else value


rendition_path = stems.rendition_path


def part_path(root: Path, stem: str) -> Path:
    """The path of a rendition's unfinished download: ``root/6666/6666_720P.flv.part``."""
    return rendition_path(root, stem).with_suffix(".flv.part")


def finish(part: Path, final: Path) -> None:
    """Put a complete download in its place, so that it survives a power cut; a second call changes nothing."""
    if not part.exists() and final.exists():
        return
    _sync(part)
    part.replace(final)
    origin_path(part).unlink(missing_ok=True)
    _sync(final.parent)


def remove(path: Path) -> None:
    """Delete a file with its sidecars for good, and its folder once that is empty; a missing file is no error."""
    path.unlink(missing_ok=True)
    origin_path(path).unlink(missing_ok=True)
    path_of(path).unlink(missing_ok=True)
    remuxed_path(path).unlink(missing_ok=True)
    if not path.parent.is_dir():
        return
    _sync(path.parent)  # otherwise a power cut could bring the file back, without a row
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
    path_of(path).unlink(missing_ok=True)
    return target


def size_bytes(path: Path) -> int:
    """The size of a file; 0 if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def readable(path: Path) -> tuple[int | None, str | None]:
    """The size of a file, and why its beginning or its end cannot be read; None and None if it is not there.

    Raises TryAgain if that cannot be said just now.
    """
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            file.read(_LOOK_BYTES)
            file.seek(max(size - _LOOK_BYTES, 0))
            file.read(_LOOK_BYTES)
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return size_bytes(path), reading.fault(path, error)
    return size, None


def is_sidecar(name: str) -> bool:
    """Whether the file belongs to a rendition: a download's notes, an index, or an unfinished remux."""
    return _SIDECAR.fullmatch(name) is not None


def origin_path(part: Path) -> Path:
    """The path of a download's sidecar: ``6666_720P.flv.part.origin``."""
    return part.with_name(f"{part.name}.origin")


def remuxed_path(path: Path) -> Path:
    """The path of the plain FLV file that is made of a recording, until it takes the recording's place."""
    return path.with_name(f"{path.name}.remuxed")


def resume(part: Path, remote: RemoteFile) -> bool:
    """Keep the bytes of earlier tries if the origin still has the same file, else begin from zero; note its promise.

    Returns whether some were kept. After a restart of the machine, only synced bytes are: nobody knows whether the
    others reached the disk. Raises Refuse if the record's folder is a symbolic link.
    """
    if part.parent.is_symlink():
        raise Refuse(f"{part.parent}: is a symbolic link, which may lead anywhere; take it away", DOWNLOAD_FAILED)
    noted = _noted(part)
    before = read_origin(part)
    if before is None or before.promise != remote.promise:
        part.unlink(missing_ok=True)
    elif noted.get("boot") != _boot() and part.exists():
        os.truncate(part, min(part.stat().st_size, int(noted.get("synced_bytes", 0))))
    write_origin(part, remote)
    return size_bytes(part) > 0


def write_origin(part: Path, remote: RemoteFile) -> None:
    """Sync what the download has so far to the disk, then note what its origin promised, and how much is synced."""
    target = origin_path(part)
    _make_folder(target.parent)
    synced_bytes = 0
    if part.exists():
        synced_bytes = part.stat().st_size  # read before the sync, which may miss bytes that come during it
        _sync(part)
    draft = target.with_name(f"{target.name}.new")
    with draft.open("w", encoding="utf-8") as file:
        promised = {**asdict(remote), "url": shown(remote.url)}  # no secret: this file is as readable as the recordings
        json.dump({**promised, "boot": _boot(), "synced_bytes": synced_bytes}, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(target)
    _sync(target.parent)


def read_origin(part: Path) -> RemoteFile | None:
    """The promise that was noted for the download; None if none is readable: then the download begins from zero."""
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
    """A text that differs after each start of the machine; empty on systems other than Linux."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _make_folder(folder: Path) -> None:
    """Make a record's folder so that it survives a power cut."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
