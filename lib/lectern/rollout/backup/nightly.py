"""A proved backup of one database, made at any time; deletes older ones, and restores one."""

import fcntl
import json
import os
import pwd
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from lectern import __version__
from lectern.effects.files import backups
from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.rollout.backup.copies import sha256
from lectern.rollout.backup.make import SLACK_BYTES
from lectern.rollout.backup.store import Store
from lectern.rollout.host import durable


@dataclass(frozen=True)
class Made:
    """A finished backup, with the fields of its manifest."""

    name: str
    folder: str
    database: str
    file: str
    size_bytes: int
    sha256: str
    rows: dict[str, int]
    made_at: float
    version: str = __version__
    copied_to: str = ""
    copied_at: float = 0.0
    pruned: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """The folder of the backup."""
        return Path(self.folder)


def make(found: Store, name: str, into: Path) -> Made:
    """Copy the database of *name* into a new folder of *into*, prove the copy, and test its restore.

    Raises Misuse if there is no such database or no room, TryAgain if another backup is under way, CallAPerson
    if the database or its copy is damaged.
    """
    if not found.exists():
        raise Misuse(f"{found.shown}: there is no such database. Set the database URL, or go to its folder.")
    _refuse_small_disk(found, into)
    at = time.time()
    target = into / f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(at))}"
    if target.exists():
        raise TryAgain(f"{target}: a backup of this second is there already.")
    part = target.with_name(f"{target.name}.part")
    durable.make_folder(part)
    copied = found.copy(part)
    found.try_restore(copied, part)
    made = Made(name=name, folder=str(target), database=found.shown, made_at=at, **copied.model_dump())
    _write(made, part)
    durable.sync_folder(part)
    part.rename(target)
    durable.sync_folder(into)
    return made


def noted(made: Made, where: str) -> Made:
    """Record in the manifest that a copy of the backup is also at *where*."""
    told = Made(**{**asdict(made), "copied_to": where, "copied_at": time.time()})
    _write(told, made.path)
    return told


def _write(made: Made, folder: Path) -> None:
    durable.write_json(folder / backups.MANIFEST, asdict(made))


def restore(found: Store, name: str, folder: Path) -> Made:
    """Put the backup of *name* in *folder* in the place of the database, which no program may have open.

    Raises Misuse if it is no backup of *name* or somebody uses the database, CallAPerson if the backup is damaged.
    """
    try:
        told = json.loads((folder / backups.MANIFEST).read_text(encoding="utf-8"))
        made = Made(**{one.name: told[one.name] for one in fields(Made) if one.name in told})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise Misuse(f"{folder}: it holds no finished backup. See what there is: ls {folder.parent}") from error
    if made.name != name:
        raise Misuse(f"{folder}: it is a backup of {made.name}, and {name} was named.")
    if sha256(folder / made.file) != made.sha256:
        raise CallAPerson(
            f"{folder / made.file}: it is not what was copied (its SHA-256 differs). Nothing was changed."
        )
    found.refuse_company()
    # Not by the environment: who became another user has the name of before there.
    found.put_back(folder / made.file, made.rows, pwd.getpwuid(os.geteuid()).pw_name)
    return made


def prune(name: str, into: Path, keep: int) -> list[str]:
    """Delete the backups of *name* beyond the newest *keep*, and what killed backups left; returns their names.

    Rollouts do not need these: each rollout keeps its own copies, in its own folder.
    """
    for half in into.glob(f"{name}-*.part"):
        shutil.rmtree(half)  # we hold the lock, so nobody is writing it
    gone = [*backups.manifests(into, name)][keep:]
    for folder in gone:
        (folder / backups.MANIFEST).unlink()  # without a manifest it is no backup any more
        shutil.rmtree(folder)
    return [folder.name for folder in gone]


@contextmanager
def alone(into: Path) -> Iterator[None]:
    """Hold the lock of *into*, so that no other process makes or prunes backups there; raises TryAgain, Misuse."""
    try:
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(into / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Misuse(
            f"{into}: backups cannot be written there ({error.strerror}). Name another folder by --into, or run this "
            f"as the user that owns it."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise TryAgain(f"{into}: another backup is under way. Wait until it has ended.") from error
    finally:
        os.close(lock)


def _refuse_small_disk(found: Store, into: Path) -> None:
    needed, free = 2 * found.needs_bytes + SLACK_BYTES, shutil.disk_usage(into).free
    if free < needed:
        raise Misuse(
            f"{into}: a backup and its tried restore need {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free. "
            f"Free some (du -xh {into} | sort -h | tail), keep fewer, or name another folder by --into."
        )
