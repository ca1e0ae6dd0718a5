"""A tar archive of a live folder: what changes while it is read is read again, and named."""

import os
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict

from lectern.errors import CallAPerson
from lectern.rollout.backup import database
from lectern.rollout.host import durable

CACHES = frozenset({"__pycache__", ".cache", ".pytest_cache", ".mypy_cache"})
_IN_MEMORY_BYTES = 8 << 20
_CHUNK_BYTES = 1 << 20


class Archive(BaseModel):
    """What is in the archive, and what is not."""

    model_config = ConfigDict(frozen=True)

    file: str
    size_bytes: int
    sha256: str
    members: int
    unsteady: list[str]
    """Files that changed also while they were read for the second time: they are in it as they were at some moment."""
    gone: list[str]
    """Files that were there when the folder was listed, and gone when they were to be read."""


def wanted_paths(folder: Path, left_out: Iterable[Path]) -> Iterator[Path]:
    """All of *folder* but caches, sockets, devices, and what is *left_out*; folders come before what is in them."""
    out = {path.absolute() for path in left_out}
    for name, folders, files in os.walk(folder):
        here = Path(name)
        folders[:] = sorted(one for one in folders if one not in CACHES and (here / one).absolute() not in out)
        for one in [*folders, *sorted(files)]:
            path = here / one
            if path.absolute() not in out and _is_of_use(path):
                yield path


def _is_of_use(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)


def size_bytes(folder: Path, left_out: Iterable[Path]) -> int:
    """How many bytes the archive of *folder* needs, about."""
    total = 0
    for path in wanted_paths(folder, left_out):
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        total += 1024 + (found.st_size if stat.S_ISREG(found.st_mode) else 0)
    return total


def make(folder: Path, target: Path, left_out: Iterable[Path]) -> Archive:
    """Write *folder* to *target*, then read it back to its end; raises CallAPerson where that fails."""
    unsteady: list[str] = []
    gone: list[str] = []
    names: list[str] = []
    durable.make_private(target)
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in wanted_paths(folder, left_out):
            name = str(path.relative_to(folder))
            try:
                steady = _add(tar, path, name, target.parent)
            except FileNotFoundError:
                gone.append(name)
                continue
            names.append(name)
            if not steady:
                unsteady.append(name)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    _prove(target, names)
    return Archive(
        file=target.name,
        size_bytes=target.stat().st_size,
        sha256=database.sha256(target),
        members=len(names),
        unsteady=unsteady,
        gone=gone,
    )


def _add(tar: tarfile.TarFile, path: Path, name: str, scratch: Path) -> bool:
    """Add one member; False where it changed while it was read, twice."""
    member = tar.gettarinfo(path, name)
    if not member.isreg():
        tar.addfile(member)
        return True
    with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, dir=str(scratch)) as spool:
        steady = any(_read(path, spool) for _ in range(2))
        member.size = spool.tell()
        spool.seek(0)
        tar.addfile(member, spool)
    return steady


def _read(path: Path, spool: IO[bytes]) -> bool:
    """Read *path* into *spool*; whether it stayed as it was meanwhile."""
    spool.seek(0)
    spool.truncate()
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        while chunk := file.read(_CHUNK_BYTES):
            spool.write(chunk)
        after = os.fstat(file.fileno())
    same_times = (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)
    return same_times and spool.tell() == after.st_size


def _prove(target: Path, names: list[str]) -> None:
    found: list[str] = []
    try:
        with tarfile.open(target) as tar:
            for member in tar:
                found.append(member.name)
                content = tar.extractfile(member) if member.isreg() else None
                while content is not None and content.read(_CHUNK_BYTES):
                    pass
    except (tarfile.TarError, OSError, EOFError) as error:
        raise CallAPerson(f"{target}: the archive cannot be read back ({error}). Is the disk sound?") from error
    if found != names:
        raise CallAPerson(f"{target}: {len(names)} files were written and {len(found)} read back. Is the disk sound?")
