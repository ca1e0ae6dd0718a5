"""Changes of files that are whole or not there: written beside, synced, renamed into place."""

import hashlib
import json
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lectern.errors import CallAPerson, Misuse
from lectern.playout.kernel import sync as sync  # noqa: PLC0414 (asked for here, too)


@dataclass(frozen=True)
class Owner:
    """A file's owner, group and mode."""

    uid: int
    gid: int
    mode: int

    @classmethod
    def of(cls, path: Path) -> "Owner":
        """The owner and mode that *path* has."""
        status = path.stat()
        return cls(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))

    @classmethod
    def user(cls, name: str, mode: int) -> "Owner":
        """The user *name* and that user's group; raises Misuse if there is no such user."""
        try:
            user = pwd.getpwnam(name)
        except KeyError as error:
            raise Misuse(
                "There is no user {name} on this host. Make it (useradd {name}) or correct `user`.", name=name
            ) from error
        return cls(user.pw_uid, user.pw_gid, mode)


PRIVATE = Owner(os.geteuid(), os.getegid(), 0o600)
"""Readable and writable by this user only."""
PUBLIC = Owner(os.geteuid(), os.getegid(), 0o644)
"""Readable by all, writable by this user only."""


def sha256(file: Path) -> str:
    """The SHA-256 of all bytes of *file*."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write(path: Path, data: bytes, owner: Owner | None = None) -> None:
    """Replace *path* by *data*, as a whole or not at all; it keeps its owner and mode unless *owner* is given.

    The file's time becomes now, so that a program that compares times sees the change.
    """
    as_before = Owner.of(path) if owner is None else owner
    with replaced(path) as part, part.open("wb") as file:
        file.write(data)
        _give(file.fileno(), as_before)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A new file beside *path*, for this user only, which takes its place at the end; nothing is left if that fails.

    On a full disk, half a file would take the room of the programs, and of the next try.
    """
    part = path.with_name(f".{path.name}.part")
    make_private(part)
    try:
        yield part
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def _give(descriptor: int, owner: Owner) -> None:
    status = os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != (owner.uid, owner.gid):
        os.fchown(descriptor, owner.uid, owner.gid)
    os.fchmod(descriptor, owner.mode)


def give(path: Path, owner: Owner) -> None:
    """Give the file *path* to *owner*."""
    with path.open("rb") as file:
        _give(file.fileno(), owner)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 (whatever JSON can hold)
    """Write *value* as JSON, readable by this user only."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    write(path, text.encode() + b"\n", PRIVATE)


def make_private(path: Path) -> None:
    """Make an empty file at *path*, readable by this user only; it replaces what is there."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def remove(path: Path) -> bool:
    """Remove the file *path* durably; returns False if there is none."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    sync(path.parent)
    return True


def sweep(*paths: Path) -> None:
    """Remove what a crash of `write` or `switch_link` has left beside *paths*."""
    for path in paths:
        remove(path.with_name(f".{path.name}.part"))


def make_folder(path: Path, mode: int = 0o700) -> None:
    """Make a folder for this user only, or with another *mode*; missing folders above it get the usual mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=mode, exist_ok=True)
    path.chmod(mode)


def free(path: Path) -> Path:
    """*path* or, if that exists, the first of ``NAME-2.SUFFIX``, ``NAME-3.SUFFIX`` and so on that does not."""
    file, number = path, 2
    while file.exists():
        file, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return file


def switch_link(link: Path, target: str) -> None:
    """Point *link* to *target* at one instant; raises CallAPerson if a real folder or file is in its place."""
    if link.exists() and not link.is_symlink():
        raise CallAPerson(
            "{link}: it is no link, and nothing may take its place. Move it away, then run this again.", link=link
        )
    part = link.with_name(f".{link.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(link)
    sync(link.parent)


def link_target(link: Path) -> str | None:
    """The text of *link*, its target; None if there is no such link."""
    try:
        return os.readlink(link)  # noqa: PTH115 (the text of the link, not the place)
    except OSError:
        return None
