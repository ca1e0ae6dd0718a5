"""A tar archive of a live folder, for people: read back to its end, with the names of files that changed meanwhile."""

import asyncio
import os
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lectern.effects import process
from lectern.errors import CallAPerson
from lectern.rollout.backup.copies import sha256
from lectern.rollout.host import durable

CACHES = ("__pycache__", ".cache", ".pytest_cache", ".mypy_cache")
TAR_S = 3600.0
_CHANGED = 1
"""The exit code of tar that says only that a file changed while it was read."""


class Archive(BaseModel):
    """What is in the archive, and what is not."""

    model_config = ConfigDict(frozen=True)

    file: str
    size_bytes: int
    sha256: str
    members: int
    unsteady: list[str]
    """Files that changed while they were read: they are in it as they were at some moment."""
    gone: list[str]
    """Files that were listed in the folder, but deleted before they could be read."""


def size_bytes(folder: Path, left_out: Iterable[Path]) -> int:
    """Size of the archive of *folder* in bytes, found without reading a file."""
    said = _tar(folder, Path(os.devnull), left_out).errors
    counted = re.search(r"^Total bytes written: (\d+)", said, re.MULTILINE)
    assert counted is not None  # --totals
    return int(counted[1])


def make(folder: Path, target: Path, left_out: Iterable[Path]) -> Archive:
    """Write *folder* to *target*, then read it back to its end; raises CallAPerson if that fails."""
    durable.make_private(target)
    said = _tar(folder, target, left_out).errors
    durable.sync(target)
    try:
        with tarfile.open(target) as tar:
            members = len(tar.getmembers())
    except (tarfile.TarError, OSError, EOFError) as error:
        raise CallAPerson(f"{target}: the archive cannot be read back ({error}). Is the disk sound?") from error
    return Archive(
        file=target.name,
        size_bytes=target.stat().st_size,
        sha256=sha256(target),
        members=members,
        unsteady=re.findall(r"^tar: \./(.*): file changed as we read it", said, re.MULTILINE),
        gone=re.findall(r"^tar: \./(.*): File removed before we read it", said, re.MULTILINE),
    )


def _tar(folder: Path, target: Path, left_out: Iterable[Path]) -> process.Finished:
    """Archive all of *folder* but caches, sockets, and what is *left_out*."""
    base = folder.absolute()
    out = [f"./{one.relative_to(base)}" for one in map(Path.absolute, left_out) if one.is_relative_to(base)]
    argv = ["tar", "--create", f"--file={target}", f"--directory={folder}", "--totals", "--sort=name"]
    argv += [f"--exclude={name}" for name in CACHES]
    argv += ["--anchored", "--no-wildcards", *(f"--exclude={one}" for one in out), "."]
    done = asyncio.run(process.run(argv, timeout_s=TAR_S, env={"LC_ALL": "C"}))
    if done.returncode not in {0, _CHANGED}:
        raise CallAPerson(f"{target}: {folder} cannot be archived ({done.last_words}). Nothing was changed.")
    return done
